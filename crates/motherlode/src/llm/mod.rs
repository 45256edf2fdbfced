//! Language models: requests, the ledger that keeps every answer, the client of OpenAI-compatible servers, and models
//! that run in this process.
//!
//! Asking a language model is the pipeline's only impure step. Every request has a [key](Request::key) made of the
//! model's name, the prompt's version, the parameters and the texts, never of the server's address. [`Llm::ask`] looks
//! the key up in the [`Ledger`] first and sends only what is missing, and an answer is in the ledger before it is
//! handed on: given the ledger, every stage is pure, and nothing is paid for twice.
//!
//! Reads and writes the ledger (an `SQLite` file; the artefact writer's one companion) and recorded answers (JSON Lines).
//! Fallible functions return [`Error::Ledger`] where `SQLite` fails, [`Error::Remote`] where a server does, and
//! [`Error::Data`] where an answer is missing and no server is configured.

mod budget;
mod chat;
mod client;
mod config;
mod embedded;
mod ledger;
mod pool;
mod request;
mod speech;
#[cfg(test)]
pub(crate) mod stand_in;

pub use budget::Usage;
pub use config::LlmConfig;
pub use embedded::EmbeddedModel;
pub use ledger::{Holding, Imported, Ledger};
pub use request::{Answer, Message, Parameters, Request, Role, estimate_tokens, fence};

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::progress::Progress;
use budget::Meter;
use client::Client;
use embedded::Embedded;

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The model's raw text.
    Answered {
        /// What the model wrote.
        text: String,
        /// Whether the answer was there before this call.
        from_ledger: bool,
        /// Where it stands in the ledger.
        key: String,
    },
    /// No answer was bought.
    Unanswered(Unanswered),
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswered {
    /// One of `llm.max_calls`, `llm.max_tokens` and `llm.max_cost` is reached.
    Budget,
}

/// The ledger with the servers behind it.
pub struct Llm {
    ledger: Ledger,
    client: Client,
    embedded: Embedded,
    meter: Meter,
    threads: usize,
}

impl Llm {
    /// Opens, or makes, the ledger, takes recorded answers in, and checks the configuration. Nothing is sent.
    ///
    /// # Errors
    /// The file is no ledger, a recorded line is not what [`Ledger::import_jsonl`] expects, or a knob is out of range.
    pub fn open(ledger: &Path, recorded: &[PathBuf], config: &LlmConfig) -> Result<Self> {
        config.validate()?;
        let ledger = Ledger::open(ledger)?;
        for path in recorded {
            ledger.import_jsonl(path)?;
        }
        let threads = config.concurrency.max(config.endpoints.len());
        Ok(Self {
            ledger,
            client: Client::new(config),
            embedded: Embedded::new(&config.embedded),
            meter: Meter::new(config),
            threads,
        })
    }

    /// Lets the embedded models of the configuration run on `engine`; what they need is downloaded to `cache`.
    #[must_use]
    pub fn run_with(mut self, engine: Arc<dyn Engine>, cache: &Path) -> Self {
        self.embedded.run_with(engine, cache);
        self
    }

    /// The ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Whether a server is configured for what the ledger does not hold.
    pub fn has_endpoint(&self) -> bool {
        self.client.endpoints() > 0
    }

    /// Whether somebody can answer for this model.
    fn is_reachable(&self, model: &str) -> bool {
        self.has_endpoint() || self.embedded.has(model)
    }

    /// What was sent, taken from the ledger and paid since this was opened.
    pub fn usage(&self) -> Usage {
        self.meter.usage()
    }

    /// Answers requests: from the ledger, or else from embedded models and servers.
    ///
    /// A group holds the requests of one query: one thread sends them one after the other to one server, so that they
    /// share its prefix cache. Equal requests are sent once. Once the budget is reached, whatever is not in the ledger
    /// comes back [`Unanswered`].
    ///
    /// *Order*: one reply for every request, in the order of the requests.
    ///
    /// # Errors
    /// Something is missing and no server is configured; a server refuses a request or keeps failing. Answers that
    /// came before the error are in the ledger.
    pub fn ask(&self, groups: &[Vec<Request>], progress: &Progress) -> Result<Vec<Vec<Reply>>> {
        let keys: Vec<Vec<String>> = groups.iter().map(|group| group.iter().map(Request::key).collect()).collect();
        let mut replies = self.look_up(&keys)?;
        let missing = missing(groups, &keys, &replies);
        let mut answered = HashMap::new();
        for (model, missing) in by_model(missing) {
            answered.extend(if self.embedded.has(model) {
                self.embedded.run(self, model, &missing, progress)?
            } else {
                pool::run(self, &missing, progress)?
            });
        }
        self.meter.hit(keys.iter().flatten().filter(|key| replies.contains_key(*key)).count());
        replies.extend(answered);
        let reply = |key: &String| replies.get(key).cloned().expect("every key was looked up or asked for");
        Ok(keys.iter().map(|group| group.iter().map(reply).collect()).collect())
    }

    /// The error that [`ask`](Self::ask) would end with because answers are missing and no server is configured.
    pub fn check(&self, groups: &[Vec<Request>]) -> Result<()> {
        if groups.iter().flatten().all(|request| self.is_reachable(&request.model)) {
            return Ok(());
        }
        let keys: Vec<Vec<String>> = groups.iter().map(|group| group.iter().map(Request::key).collect()).collect();
        let missing = missing(groups, &keys, &self.look_up(&keys)?);
        if missing.is_empty() { Ok(()) } else { Err(self.nothing_answers(&missing)) }
    }

    /// The number of distinct requests whose answer is not in the ledger.
    pub fn missing<'a>(&self, requests: impl Iterator<Item = &'a Request>) -> Result<usize> {
        let mut seen = HashSet::new();
        let mut count = 0;
        for key in requests.map(Request::key) {
            if !self.ledger.contains(&key)? && seen.insert(key) {
                count += 1;
            }
        }
        Ok(count)
    }

    fn look_up(&self, keys: &[Vec<String>]) -> Result<HashMap<String, Reply>> {
        let mut replies = HashMap::new();
        for key in keys.iter().flatten() {
            if !replies.contains_key(key)
                && let Some(answer) = self.ledger.get(key)?
            {
                let reply = Reply::Answered { text: answer.text, from_ledger: true, key: key.clone() };
                replies.insert(key.clone(), reply);
            }
        }
        Ok(replies)
    }

    fn nothing_answers(&self, missing: &[Vec<&Request>]) -> Error {
        let count: usize = missing.iter().map(Vec::len).sum();
        let first = missing[0][0];
        Error::data(format!(
            "{count} answers of language models are not in the ledger {} and no server is configured; the first is \
             `{}` of {} by the model `{}`; set llm.endpoints to an OpenAI-compatible server of that model, or \
             llm.embedded to its file, or give recorded answers",
            self.ledger.path().display(),
            first.prompt,
            first.about,
            first.model
        ))
    }
}

/// The requests of each model, by group; models in ascending order of their names.
fn by_model<'a>(groups: Vec<Vec<&'a Request>>) -> BTreeMap<&'a str, Vec<Vec<&'a Request>>> {
    let mut models: BTreeMap<&str, Vec<Vec<&Request>>> = BTreeMap::new();
    for group in groups {
        let mut parts: BTreeMap<&str, Vec<&Request>> = BTreeMap::new();
        group.into_iter().for_each(|request| parts.entry(&request.model).or_default().push(request));
        parts.into_iter().for_each(|(model, part)| models.entry(model).or_default().push(part));
    }
    models
}

/// The requests without a reply, each once, by group; groups that miss nothing are left out.
fn missing<'a>(
    groups: &'a [Vec<Request>],
    keys: &[Vec<String>],
    replies: &HashMap<String, Reply>,
) -> Vec<Vec<&'a Request>> {
    let mut seen = HashSet::new();
    let mut missing = Vec::new();
    for (group, keys) in groups.iter().zip(keys) {
        let pairs = group.iter().zip(keys);
        let rest: Vec<&Request> = pairs
            .filter(|(_, key)| !replies.contains_key(*key) && seen.insert(key.as_str()))
            .map(|(request, _)| request)
            .collect();
        if !rest.is_empty() {
            missing.push(rest);
        }
    }
    missing
}

#[cfg(test)]
mod tests;
