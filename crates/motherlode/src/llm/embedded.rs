//! Language models that run in this process: the requests of an [`ask`](super::Llm::ask) go to one of them together.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::budget::Reservation;
use super::chat::Chat;
use super::speech::Speech;
use super::{Answer, Llm, Reply, Request, Unanswered};
use crate::engine::{Engine, LanguageModel, Next, Precision};
use crate::error::{Error, Result};
use crate::fetch;
use crate::gguf::Gguf;
use crate::progress::Progress;

/// A model that runs in this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddedModel {
    /// What `judge.model` and `generate.model` call it; part of the ledger's keys.
    pub name: String,
    /// A GGUF file, or the name of one that the package mirror has, such as `Qwen2.5-Coder-1.5B-Instruct`; or a folder of
    /// Hugging Face's layout, such as `merged` of a model that `instruct` tuned.
    pub file: String,
    /// What its matrix products are computed in.
    #[serde(default = "bfloat16")]
    pub precision: Precision,
}

fn bfloat16() -> Precision {
    Precision::Bf16
}

/// The models that recipes may name, opened when they are first asked.
pub(super) struct Embedded {
    models: Vec<EmbeddedModel>,
    /// Opens models; downloads lie in the folder beside it.
    engine: Option<(Arc<dyn Engine>, PathBuf)>,
    open: Mutex<HashMap<String, Arc<Opened>>>,
}

struct Opened {
    chat: Chat,
    model: Box<dyn LanguageModel>,
}

/// A request on its way.
struct Talk<'a> {
    request: &'a Request,
    reservation: Reservation,
    prompt_tokens: usize,
    speech: Speech,
}

/// What the threads of a model share.
struct Work<'a> {
    llm: &'a Llm,
    opened: &'a Opened,
    talks: Vec<Vec<Mutex<Talk<'a>>>>,
    replies: Mutex<HashMap<String, Reply>>,
    failure: Mutex<Option<Error>>,
    progress: &'a Progress<'a>,
}

const NO_PANIC: &str = "nothing panics while it holds the lock";

impl Embedded {
    pub(super) fn new(models: &[EmbeddedModel]) -> Self {
        Self { models: models.to_vec(), engine: None, open: Mutex::default() }
    }

    pub(super) fn run_with(&mut self, engine: Arc<dyn Engine>, cache: &Path) {
        self.engine = Some((engine, cache.to_path_buf()));
    }

    /// Whether the model of this name runs in this process.
    pub(super) fn has(&self, name: &str) -> bool {
        self.models.iter().any(|model| model.name == name)
    }

    fn open(&self, name: &str, progress: &Progress) -> Result<Arc<Opened>> {
        let mut open = self.open.lock().expect(NO_PANIC);
        if let Some(opened) = open.get(name) {
            return Ok(opened.clone());
        }
        let model = self.models.iter().find(|model| model.name == name).expect("the caller asked whether it is there");
        let (engine, cache) = self
            .engine
            .as_ref()
            .ok_or_else(|| Error::config(format!("`llm.embedded`: the model `{name}` has no engine to run on here")))?;
        let path = if Path::new(&model.file).exists() {
            PathBuf::from(&model.file)
        } else {
            fetch::file(&model.file, cache, progress)?
        };
        progress.say(&format!("reading {}", path.display()));
        let opened = Arc::new(if path.is_dir() {
            let chat = Chat::open_folder(&path)?;
            Opened { chat, model: engine.language_model_in(&path, model.precision)? }
        } else {
            let file = Arc::new(Gguf::open(&path)?);
            let chat = Chat::open(&file)?;
            Opened { chat, model: engine.language_model(file, model.precision)? }
        });
        open.insert(name.to_owned(), opened.clone());
        Ok(opened)
    }

    /// Answers the requests of all groups, all to the model `name`, and returns a reply for every key.
    ///
    /// # Errors
    /// The model cannot be opened, or does not take the requests; prompts that it is too short for, before the first
    /// answer.
    pub(super) fn run(
        &self,
        llm: &Llm,
        name: &str,
        groups: &[Vec<&Request>],
        progress: &Progress,
    ) -> Result<HashMap<String, Reply>> {
        let opened = self.open(name, progress)?;
        let mut work = Work {
            llm,
            opened: &opened,
            talks: Vec::new(),
            replies: Mutex::default(),
            failure: Mutex::default(),
            progress,
        };
        let prompts = work.begin(groups)?;
        progress.begin(&format!("ask {name}"), prompts.iter().map(Vec::len).sum(), "requests");
        opened.model.continue_texts(&prompts, &|group, index, scores| work.next(group, index, scores))?;
        match work.failure.into_inner().expect(NO_PANIC) {
            Some(error) => Err(error),
            None => Ok(work.replies.into_inner().expect(NO_PANIC)),
        }
    }
}

impl<'a> Work<'a> {
    /// The prompts of all requests that the budget allows.
    fn begin(&mut self, groups: &[Vec<&'a Request>]) -> Result<Vec<Vec<Vec<u32>>>> {
        let mut prompts = Vec::new();
        let (mut long, mut first) = (0, None);
        for group in groups {
            let (mut talks, mut of_group) = (Vec::new(), Vec::new());
            for request in group {
                let Some(reservation) = self.llm.meter.reserve(request) else {
                    let reply = Reply::Unanswered(Unanswered::Budget);
                    self.replies.lock().expect(NO_PANIC).insert(request.key(), reply);
                    continue;
                };
                let mut speech = Speech::new(request)?;
                let mut tokens = self.opened.chat.prompt(&request.messages)?;
                let prompt_tokens = tokens.len();
                tokens.extend(speech.opening(&self.opened.chat)?);
                if tokens.len() + request.parameters.max_tokens as usize > self.opened.model.longest() {
                    long += 1;
                    first.get_or_insert((&request.about, tokens.len()));
                }
                talks.push(Mutex::new(Talk { request, reservation, prompt_tokens, speech }));
                of_group.push(tokens);
            }
            self.talks.push(talks);
            prompts.push(of_group);
        }
        let Some((about, tokens)) = first else { return Ok(prompts) };
        Err(Error::data(format!(
            "{long} prompts and their answers are longer than the {} tokens that the model reads; the first, of {about}, \
             has {tokens}; make `judge.reference_characters` smaller, or take a model with a longer context",
            self.opened.model.longest()
        )))
    }

    fn next(&self, group: usize, index: usize, scores: &[f32]) -> Next {
        if self.failure.lock().expect(NO_PANIC).is_some() {
            return Next::End;
        }
        let mut talk = self.talks[group][index].lock().expect(NO_PANIC);
        self.advance(&mut talk, scores).unwrap_or_else(|error| {
            self.failure.lock().expect(NO_PANIC).get_or_insert(error);
            Next::End
        })
    }

    fn advance(&self, talk: &mut Talk, scores: &[f32]) -> Result<Next> {
        let next = talk.speech.next(scores, &self.opened.chat)?;
        if next == Next::End {
            let answer = Answer {
                text: talk.speech.finish(&self.opened.chat)?,
                prompt_tokens: talk.prompt_tokens as u64,
                completion_tokens: talk.speech.length() as u64,
            };
            self.llm.meter.settle(&talk.reservation, Some(&answer));
            let kept = self.llm.ledger.put(talk.request, &answer)?;
            let key = talk.request.key();
            let reply = Reply::Answered { text: kept.text, from_ledger: false, key: key.clone() };
            self.replies.lock().expect(NO_PANIC).insert(key, reply);
            self.progress.advance(1);
        }
        Ok(next)
    }
}
