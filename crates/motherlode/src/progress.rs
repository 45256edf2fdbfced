//! How far a long stage is: counted by the library, shown by whoever asked for the work.

use std::sync::atomic::{AtomicU64, Ordering};

/// Receives what a stage does; the command line draws bars with it, tests ignore it.
pub trait Watcher: Send + Sync {
    /// A task of `total` units begins, such as (`encode sw passages`, 1,687, `passages`).
    fn begin(&self, task: &str, total: u64, unit: &'static str);
    /// `done` units of the task are finished.
    fn advance(&self, done: u64);
    /// Something that a person should read now.
    fn say(&self, message: &str);
}

/// A handle that stages report to. Cheap; [`Progress::silent`] ignores everything.
pub struct Progress<'a> {
    watcher: Option<&'a dyn Watcher>,
    done: AtomicU64,
}

impl<'a> Progress<'a> {
    /// Reports to nobody.
    pub fn silent() -> Self {
        Self { watcher: None, done: AtomicU64::new(0) }
    }

    /// Reports to `watcher`.
    pub fn new(watcher: &'a dyn Watcher) -> Self {
        Self { watcher: Some(watcher), done: AtomicU64::new(0) }
    }

    /// Begins a task of `total` units; the count of done units starts anew.
    pub fn begin(&self, task: &str, total: usize, unit: &'static str) {
        self.done.store(0, Ordering::Relaxed);
        if let Some(watcher) = self.watcher {
            watcher.begin(task, total as u64, unit);
        }
    }

    /// Adds to the done units; may be called from any thread.
    pub fn advance(&self, by: usize) {
        let done = self.done.fetch_add(by as u64, Ordering::Relaxed) + by as u64;
        if let Some(watcher) = self.watcher {
            watcher.advance(done);
        }
    }

    /// Passes on a message for a person.
    pub fn say(&self, message: &str) {
        if let Some(watcher) = self.watcher {
            watcher.say(message);
        }
    }
}
