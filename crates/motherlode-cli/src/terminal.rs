//! Progress on the terminal: bars where there is one, plain lines where there is none. Everything goes to standard error.
#![expect(clippy::print_stderr, reason = "this file is the one place that talks to the person")]

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use motherlode::progress::Watcher;

/// How often a plain line tells how far a task is.
const PLAIN_INTERVAL: Duration = Duration::from_secs(15);

/// Shows what the library reports.
pub(crate) struct Terminal {
    quiet: bool,
    bars: bool,
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
    /// Bars on a terminal, plain lines elsewhere, nothing but messages if `quiet`.
    pub(crate) fn new(quiet: bool) -> Self {
        Self { quiet, bars: std::io::stderr().is_terminal(), task: Mutex::new(None) }
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
            Some(Task { bar: Some(bar), .. }) => bar.println(message),
            _ => eprintln!("{message}"),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Task>> {
        self.task.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Watcher for Terminal {
    fn begin(&self, task: &str, total: u64, unit: &'static str) {
        self.finish();
        if self.quiet {
            return;
        }
        let bar = self.bars.then(|| bar(task, total, unit));
        let now = Instant::now();
        *self.lock() = Some(Task { name: task.to_owned(), unit, total, started: now, told: now, bar });
    }

    fn advance(&self, done: u64) {
        let mut guard = self.lock();
        let Some(task) = guard.as_mut() else { return };
        if let Some(bar) = &task.bar {
            bar.set_position(done);
        } else if task.told.elapsed() >= PLAIN_INTERVAL {
            task.told = Instant::now();
            eprintln!("  {}", plain_line(task, done));
        }
    }

    fn say(&self, message: &str) {
        self.line(&format!("  {message}"));
    }
}

fn bar(task: &str, total: u64, unit: &'static str) -> ProgressBar {
    let template = format!("  {{msg:32}} {{bar:30}} {{pos}}/{{len}} {unit}  {{per_sec}}  {{eta}} left");
    let style = ProgressStyle::with_template(&template).expect("the template is a constant but for the unit");
    let bar = ProgressBar::new(total).with_style(style).with_message(task.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Such as `encode sw passages: 512/1687 passages, 120.3 passages/s, 10 s left`.
fn plain_line(task: &Task, done: u64) -> String {
    let rate = done as f64 / task.started.elapsed().as_secs_f64().max(1e-3);
    let left = task.total.saturating_sub(done) as f64 / rate.max(1e-9);
    let Task { name, unit, total, .. } = task;
    format!("{name}: {done}/{total} {unit}, {rate:.1} {unit}/s, {left:.0} s left")
}
