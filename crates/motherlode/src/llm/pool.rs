//! The threads that ask: each takes the next query's requests and sends them one after the other to its server.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::client::{ApiKey, Sending};
use super::{Llm, Reply, Request, Unanswered};
use crate::error::{Error, Result};
use crate::progress::Progress;

/// What the threads share.
struct Work<'a> {
    llm: &'a Llm,
    groups: &'a [Vec<&'a Request>],
    api_key: ApiKey,
    next: AtomicUsize,
    stop: AtomicBool,
    replies: Mutex<HashMap<String, Reply>>,
    first_failure: Mutex<Option<(usize, Error)>>,
    progress: &'a Progress<'a>,
}

/// Sends the requests of all groups and returns a reply for every key.
///
/// # Errors
/// No server is configured; a server failed: of several failures, the one of the first group.
pub(super) fn run(llm: &Llm, groups: &[Vec<&Request>], progress: &Progress) -> Result<HashMap<String, Reply>> {
    if groups.is_empty() {
        return Ok(HashMap::new());
    }
    if !llm.has_endpoint() {
        return Err(llm.nothing_answers(groups));
    }
    let total = groups.iter().map(Vec::len).sum();
    progress.begin(&format!("ask {}", groups[0][0].model), total, "requests");
    let work = Work {
        llm,
        groups,
        api_key: llm.client.api_key()?,
        next: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        replies: Mutex::default(),
        first_failure: Mutex::default(),
        progress,
    };
    std::thread::scope(|scope| {
        for thread in 0..llm.threads.min(groups.len()) {
            let work = &work;
            scope.spawn(move || work.run(thread % llm.client.endpoints()));
        }
    });
    match work.first_failure.into_inner().expect(NO_PANIC) {
        Some((_, error)) => Err(error),
        None => Ok(work.replies.into_inner().expect(NO_PANIC)),
    }
}

const NO_PANIC: &str = "nothing panics while it holds the lock";

impl Work<'_> {
    fn run(&self, endpoint: usize) {
        while !self.stop.load(Ordering::Relaxed) {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(group) = self.groups.get(index) else { break };
            if let Err(error) = group.iter().try_for_each(|request| self.answer(endpoint, request)) {
                self.fail(index, error);
            }
        }
    }

    fn answer(&self, endpoint: usize, request: &Request) -> Result<()> {
        let key = request.key();
        let Some(reply) = self.reply(endpoint, request, &key)? else { return Ok(()) };
        self.replies.lock().expect(NO_PANIC).insert(key, reply);
        self.progress.advance(1);
        Ok(())
    }

    /// None if another thread failed meanwhile.
    fn reply(&self, endpoint: usize, request: &Request, key: &str) -> Result<Option<Reply>> {
        let answered = |text, from_ledger| Some(Reply::Answered { text, from_ledger, key: key.to_owned() });
        // Another process may have asked the same since the work was laid out.
        if let Some(answer) = self.llm.ledger.get(key)? {
            self.llm.meter.hit(1);
            return Ok(answered(answer.text, true));
        }
        let Some(reservation) = self.llm.meter.reserve(request) else {
            return Ok(Some(Reply::Unanswered(Unanswered::Budget)));
        };
        let sending = Sending {
            api_key: &self.api_key,
            stop: &self.stop,
            progress: self.progress,
            on_retry: &|| self.llm.meter.retried(),
        };
        let outcome = self.llm.client.complete(endpoint, request, &sending);
        self.llm.meter.settle(&reservation, outcome.as_ref().ok().and_then(Option::as_ref));
        let Some(answer) = outcome? else { return Ok(None) };
        let kept = self.llm.ledger.put(request, &answer)?;
        Ok(answered(kept.text, false))
    }

    fn fail(&self, group: usize, error: Error) {
        self.stop.store(true, Ordering::Relaxed);
        let mut first = self.first_failure.lock().expect(NO_PANIC);
        if first.as_ref().is_none_or(|(earlier, _)| group < *earlier) {
            *first = Some((group, error));
        }
    }
}
