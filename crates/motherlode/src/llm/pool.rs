//! The threads that ask: each takes the next query's requests and sends them one after the other to its server; when
//! no query is left, it helps another thread with what its query still lacks.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::client::{ApiKey, Sending};
use super::{Llm, Reply, Request, Unanswered};
use crate::error::{Error, Result};
use crate::progress::Progress;

/// How long a thread waits that finds nothing to help with yet.
const GLANCE: Duration = Duration::from_millis(2);

/// The requests of one query. One server gets them all.
struct Group<'a> {
    requests: &'a [&'a Request],
    next: AtomicUsize,
    answered: AtomicUsize,
    endpoint: AtomicUsize,
}

impl<'a> Group<'a> {
    fn new(requests: &'a [&'a Request]) -> Self {
        let [next, answered, endpoint] = [0; 3].map(AtomicUsize::new);
        Self { requests, next, answered, endpoint }
    }

    fn take(&self) -> Option<&'a Request> {
        self.requests.get(self.next.fetch_add(1, Ordering::Relaxed)).copied()
    }

    fn left(&self) -> usize {
        self.requests.len().saturating_sub(self.next.load(Ordering::Relaxed))
    }

    /// Whether the server has read what the requests share, so that others may send the rest beside one another.
    fn is_warm(&self) -> bool {
        self.answered.load(Ordering::Relaxed) > 0
    }
}

/// What the threads share.
struct Work<'a> {
    llm: &'a Llm,
    groups: Vec<Group<'a>>,
    api_key: ApiKey,
    next: AtomicUsize,
    /// Groups that were begun and have requests that nobody has taken.
    open: Mutex<Vec<usize>>,
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
    let total: usize = groups.iter().map(Vec::len).sum();
    progress.begin(&format!("ask {}", groups[0][0].model), total, "requests");
    let work = Work {
        llm,
        groups: groups.iter().map(|requests| Group::new(requests)).collect(),
        api_key: llm.client.api_key()?,
        next: AtomicUsize::new(0),
        open: Mutex::default(),
        stop: AtomicBool::new(false),
        replies: Mutex::default(),
        first_failure: Mutex::default(),
        progress,
    };
    std::thread::scope(|scope| {
        for thread in 0..llm.threads.min(total) {
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

impl<'a> Work<'a> {
    fn run(&self, endpoint: usize) {
        while let Some(index) = self.begin(endpoint) {
            while let Some(request) = self.take(index) {
                self.send(index, request);
            }
        }
        while let Some((index, request)) = self.help() {
            self.send(index, request);
        }
    }

    /// The next group that nobody has begun.
    fn begin(&self, endpoint: usize) -> Option<usize> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let group = self.groups.get(index)?;
        group.endpoint.store(endpoint, Ordering::Relaxed);
        self.open.lock().expect(NO_PANIC).push(index);
        Some(index)
    }

    /// The next request of a group; none when all are taken, or a thread has failed.
    fn take(&self, index: usize) -> Option<&'a Request> {
        if self.stop.load(Ordering::Relaxed) {
            return None;
        }
        let request = self.groups[index].take();
        if self.groups[index].left() == 0 {
            self.open.lock().expect(NO_PANIC).retain(|open| *open != index);
        }
        request
    }

    /// A request of the warm group that has most left; waits while no group is warm.
    fn help(&self) -> Option<(usize, &'a Request)> {
        while !self.stop.load(Ordering::Relaxed) {
            let warm = {
                let open = self.open.lock().expect(NO_PANIC);
                if open.is_empty() {
                    return None;
                }
                let warm = open.iter().filter(|index| self.groups[**index].is_warm());
                warm.max_by_key(|index| self.groups[**index].left()).copied()
            };
            match warm.and_then(|index| Some((index, self.take(index)?))) {
                Some(found) => return Some(found),
                None => std::thread::sleep(GLANCE),
            }
        }
        None
    }

    fn send(&self, index: usize, request: &Request) {
        let group = &self.groups[index];
        let key = request.key();
        match self.reply(group.endpoint.load(Ordering::Relaxed), request, &key) {
            Ok(Some(reply)) => {
                group.answered.fetch_add(1, Ordering::Relaxed);
                self.replies.lock().expect(NO_PANIC).insert(key, reply);
                self.progress.advance(1);
            }
            Ok(None) => {}
            Err(error) => self.fail(index, error),
        }
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
        let answer = outcome.as_ref().ok().and_then(Option::as_ref).map(|paid| &paid.answer);
        self.llm.meter.settle(&reservation, answer);
        let Some(paid) = outcome? else { return Ok(None) };
        self.llm.meter.discount(&reservation, paid.cached_tokens);
        let kept = self.llm.ledger.put(request, &paid.answer)?;
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
