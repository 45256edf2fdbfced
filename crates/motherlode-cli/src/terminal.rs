//! Progress for the person or the program that called: bars on a terminal, plain lines elsewhere, JSON lines, or nothing but
//! messages. Everything goes to standard error, without colours.
#![expect(clippy::print_stderr, reason = "this file is the one place that talks to the person")]

use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use motherlode::progress::Watcher;
use serde_json::json;

/// How often a plain line tells how far a task is.
const PLAIN_INTERVAL: Duration = Duration::from_secs(15);
/// How often a JSON line does.
const JSON_INTERVAL: Duration = Duration::from_secs(1);

/// How progress is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Bars on a terminal, plain lines elsewhere.
    #[default]
    Auto,
    /// Bars.
    Bars,
    /// A line for every stage, and one every 15 seconds while it takes.
    Plain,
    /// JSON objects, one a line, with `event` one of `begin`, `advance`, `message`, `error`.
    Json,
    /// Only messages.
    Quiet,
}

/// Shows what the library reports.
pub(crate) struct Terminal {
    mode: Mode,
    task: Mutex<Option<Task>>,
}

struct Task {
    name: String,
    unit: &'static str,
    total: u64,
    started: Instant,
    told: Instant,
    bar: Option<ProgressBar>,
}

impl Terminal {
    /// With `mode`; `Auto` looks whether standard error is a terminal.
    pub(crate) fn new(mode: Mode) -> Self {
        let mode = match mode {
            Mode::Auto if std::io::stderr().is_terminal() => Mode::Bars,
            Mode::Auto => Mode::Plain,
            chosen => chosen,
        };
        Self { mode, task: Mutex::new(None) }
    }

    /// Ends the current task's bar.
    pub(crate) fn finish(&self) {
        if let Some(Task { bar: Some(bar), .. }) = self.lock().take() {
            bar.finish_and_clear();
        }
    }

    /// One line for the person, above the bar.
    pub(crate) fn line(&self, message: &str) {
        match &*self.lock() {
            _ if self.mode == Mode::Json => told(&json!({ "event": "message", "text": message.trim() })),
            Some(Task { bar: Some(bar), .. }) => bar.println(message),
            _ => eprintln!("{message}"),
        }
    }

    /// The one error that ends the command.
    pub(crate) fn error(&self, message: &str) {
        self.finish();
        match self.mode {
            Mode::Json => told(&json!({ "event": "error", "text": message })),
            _ => eprintln!("error: {message}"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Task>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watcher for Terminal {
    fn begin(&self, task: &str, total: u64, unit: &'static str) {
        self.finish();
        match self.mode {
            Mode::Quiet => return,
            Mode::Json => told(&json!({ "event": "begin", "task": task, "total": total, "unit": unit })),
            _ => {}
        }
        let bar = (self.mode == Mode::Bars).then(|| bar(task, total, unit));
        let now = Instant::now();
        *self.lock() = Some(Task { name: task.to_owned(), unit, total, started: now, told: now, bar });
    }

    fn advance(&self, done: u64) {
        let mut guard = self.lock();
        let Some(task) = guard.as_mut() else { return };
        let interval = if self.mode == Mode::Json { JSON_INTERVAL } else { PLAIN_INTERVAL };
        if let Some(bar) = &task.bar {
            bar.set_position(done);
        } else if task.told.elapsed() >= interval {
            task.told = Instant::now();
            match self.mode {
                Mode::Json => told(&json_line(task, done)),
                _ => eprintln!("  {}", plain_line(task, done)),
            }
        }
    }

    fn say(&self, message: &str) {
        self.line(&format!("  {message}"));
    }
}

/// One JSON object on a line.
fn told(event: &serde_json::Value) {
    eprintln!("{event}");
}

fn bar(task: &str, total: u64, unit: &'static str) -> ProgressBar {
    let template = format!("  {{msg:32}} {{bar:30}} {{pos}}/{{len}} {unit}  {{per_sec}}  {{eta}} left");
    let style = ProgressStyle::with_template(&template).expect("the template is a constant but for the unit");
    let bar = ProgressBar::new(total).with_style(style).with_message(task.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Units a second, and seconds left.
fn pace(task: &Task, done: u64) -> (f64, f64) {
    let rate = done as f64 / task.started.elapsed().as_secs_f64().max(1e-3);
    (rate, task.total.saturating_sub(done) as f64 / rate.max(1e-9))
}

/// Such as `encode sw passages: 512/1687 passages, 120.3 passages/s, 10 s left`.
fn plain_line(task: &Task, done: u64) -> String {
    let (rate, left) = pace(task, done);
    let Task { name, unit, total, .. } = task;
    format!("{name}: {done}/{total} {unit}, {rate:.1} {unit}/s, {left:.0} s left")
}

fn json_line(task: &Task, done: u64) -> serde_json::Value {
    let (rate, left) = pace(task, done);
    let Task { name, unit, total, .. } = task;
    json!({
        "event": "advance", "task": name, "done": done, "total": total, "unit": unit, "per_second": rate, "seconds_left": left
    })
}
