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

mod batch;
mod budget;
pub(crate) mod chat;
mod check;
mod client;
mod config;
mod embedded;
mod ledger;
mod pool;
mod reply;
mod request;
mod speech;
#[cfg(test)]
pub(crate) mod stand_in;
mod throttle;
mod wait;

pub use batch::BatchFile;
pub use budget::{USAGE, Usage};
pub use config::{Api, LlmConfig, ModelFacts};
pub use embedded::EmbeddedModel;
pub use ledger::{Holding, Imported, Ledger};
pub use request::{Answer, Message, Parameters, Request, Role, estimate_tokens, fence};

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::progress::Progress;
use batch::{Inbox, Outbox};
use budget::Meter;
use check::Served;
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
    /// The request is [collected](Llm::collecting) for a batch.
    Batch,
}

/// The ledger with the servers behind it.
pub struct Llm {
    ledger: Ledger,
    client: Client,
    embedded: Embedded,
    config: LlmConfig,
    meter: Meter,
    threads: usize,
    /// What the servers said of their models, once they were looked at.
    served: OnceLock<Vec<Served>>,
    inbox: Inbox,
    outbox: Option<Outbox>,
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
        Ok(Self {
            ledger,
            client: Client::new(config),
            embedded: Embedded::new(&config.embedded),
            config: config.clone(),
            meter: Meter::new(config),
            threads: config.concurrency.max(config.endpoints.len()),
            served: OnceLock::new(),
            inbox: Inbox::default(),
            outbox: None,
        })
    }

    /// Lets the embedded models of the configuration run on `engine`; what they need is downloaded to `cache`.
    #[must_use]
    pub fn run_with(mut self, engine: Arc<dyn Engine>, cache: &Path) -> Self {
        self.embedded.run_with(engine, cache);
        self
    }

    /// Answers whatever the output file of a batch answers, before a server is asked; the ledger keeps what is used.
    ///
    /// # Errors
    /// A line that is none of `OpenAI`'s batch output.
    pub fn with_batch(mut self, path: &Path) -> Result<Self> {
        self.inbox.read(path)?;
        Ok(self)
    }

    /// Sends nothing from now on: requests that are not answered are kept for [`write_batch`](Self::write_batch).
    #[must_use]
    pub fn collecting(mut self) -> Self {
        self.outbox = Some(Outbox::default());
        self
    }

    /// Writes the requests that were collected as input files of `OpenAI`'s batch interface; none if nothing is missing.
    ///
    /// *Order*: one file or more for each model, by name; requests by key.
    pub fn write_batch(&self, path: &Path) -> Result<Vec<BatchFile>> {
        self.outbox.as_ref().map_or_else(|| Ok(Vec::new()), |outbox| outbox.write(path))
    }

    /// Requests collected so far; 0 where they are sent.
    pub fn collected(&self) -> usize {
        self.outbox.as_ref().map_or(0, Outbox::len)
    }

    /// A sentence on requests that the taken-in batch failed on; none where there were none.
    pub fn batch_note(&self) -> Option<String> {
        self.inbox.note()
    }

    /// Whether calls, tokens or money are limited, so that the most important should be asked first.
    pub fn is_limited(&self) -> bool {
        self.config.is_limited()
    }

    /// The ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Whether a server is configured for what the ledger does not hold.
    pub fn has_endpoint(&self) -> bool {
        self.client.endpoints() > 0
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
        let keys = keys(groups);
        let mut replies = self.look_up(groups, &keys)?;
        let missing = missing(groups, &keys, &replies);
        let answered = if let Some(outbox) = &self.outbox {
            collect(outbox, &missing)
        } else {
            self.check_missing(&missing)?;
            self.answer(missing, progress)?
        };
        self.meter.hit(keys.iter().flatten().filter(|key| replies.contains_key(*key)).count());
        replies.extend(answered);
        let reply = |key: &String| replies.get(key).cloned().expect("every key was looked up or asked for");
        Ok(keys.iter().map(|group| group.iter().map(reply).collect()).collect())
    }

    /// A reply for every request: embedded models answer for themselves, the servers for the others.
    fn answer(&self, missing: Vec<Vec<&Request>>, progress: &Progress) -> Result<HashMap<String, Reply>> {
        let mut answered = HashMap::new();
        for (model, missing) in by_model(missing) {
            answered.extend(if self.embedded.has(model) {
                self.embedded.run(self, model, &missing, progress)?
            } else {
                pool::run(self, &missing, progress)?
            });
        }
        Ok(answered)
    }

    /// The error that [`ask`](Self::ask) would end with before it sends anything: answers are missing and no server is
    /// configured or reachable, there is no key, a model has no price, prompts do not fit into a model's context.
    pub fn check(&self, groups: &[Vec<Request>]) -> Result<()> {
        let keys = keys(groups);
        self.check_missing(&missing(groups, &keys, &self.look_up(groups, &keys)?))
    }

    /// Embedded models look at their prompts themselves.
    fn check_missing(&self, missing: &[Vec<&Request>]) -> Result<()> {
        if self.outbox.is_some() {
            return Ok(());
        }
        let by_model = by_model(missing.to_vec()).into_iter().filter(|(model, _)| !self.embedded.has(model));
        let missing: Vec<Vec<&Request>> = by_model.flat_map(|(_, groups)| groups).collect();
        if missing.is_empty() {
            return Ok(());
        }
        if self.has_endpoint() { check::before_sending(self, &missing) } else { Err(self.nothing_answers(&missing)) }
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

    fn look_up(&self, groups: &[Vec<Request>], keys: &[Vec<String>]) -> Result<HashMap<String, Reply>> {
        let mut replies = HashMap::new();
        for (request, key) in groups.iter().flatten().zip(keys.iter().flatten()) {
            if replies.contains_key(key) {
                continue;
            }
            let answer = match (self.ledger.get(key)?, self.inbox.answer(key, request)) {
                (None, Some(new)) => Some(self.ledger.put(request, &new)?),
                (known, _) => known,
            };
            if let Some(answer) = answer {
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
fn by_model(groups: Vec<Vec<&Request>>) -> BTreeMap<&str, Vec<Vec<&Request>>> {
    let mut models: BTreeMap<&str, Vec<Vec<&Request>>> = BTreeMap::new();
    for group in groups {
        let mut parts: BTreeMap<&str, Vec<&Request>> = BTreeMap::new();
        group.into_iter().for_each(|request| parts.entry(&request.model).or_default().push(request));
        parts.into_iter().for_each(|(model, part)| models.entry(model).or_default().push(part));
    }
    models
}

fn keys(groups: &[Vec<Request>]) -> Vec<Vec<String>> {
    groups.iter().map(|group| group.iter().map(Request::key).collect()).collect()
}

fn collect(outbox: &Outbox, missing: &[Vec<&Request>]) -> HashMap<String, Reply> {
    let collect = |request: &&Request| {
        outbox.add(request);
        (request.key(), Reply::Unanswered(Unanswered::Batch))
    };
    missing.iter().flatten().map(collect).collect()
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
