//! Our side of `benches/run language-model`: from chats to answers in a ledger; asks a server in the same way for the peer.
//!
//! Arguments: a GGUF file or a server's address, a file with groups of chats, a file for the answers.

#[path = "../../motherlode/examples/side/mod.rs"]
mod side;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use motherlode::engine::Precision;
use motherlode::llm::{EmbeddedModel, Llm, LlmConfig, Message, Parameters, Reply, Request};
use motherlode::progress::Progress;
use motherlode::{Error, Result};
use motherlode_engine::CpuEngine;
use serde::Deserialize;
use serde_json::{Value, json};

/// The chats of the bench: those of a group begin alike.
#[derive(Deserialize)]
struct Work {
    groups: Vec<Vec<Vec<Message>>>,
    schema: Option<Value>,
    max_tokens: u32,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, work, out] = &arguments[..] else {
        return Err(Error::config("expected: language_model FILE|ADDRESS WORK OUT"));
    };
    let (work, out) = (Path::new(work), PathBuf::from(out));
    let text = std::fs::read_to_string(work).map_err(Error::io(work))?;
    let work: Work = serde_json::from_str(&text).map_err(|error| Error::file(work, error.to_string()))?;
    let config = config(model);
    let folder = tempfile::tempdir().map_err(Error::io(Path::new(".")))?;
    let mut round = 0;
    // The model is read, and the server warmed up, by a first request.
    let llm = open(&config, folder.path())?;
    llm.ask(&requests(&work, 0)[..1], &Progress::silent())?;
    side::serve(&json!({}), || {
        round += 1;
        let (groups, before) = (requests(&work, round), llm.usage());
        let start = Instant::now();
        let replies = llm.ask(&groups, &Progress::silent())?;
        let seconds = start.elapsed().as_secs_f64();
        let texts: Vec<&str> = replies.iter().flatten().filter_map(text_of).collect();
        std::fs::write(&out, json!(texts).to_string()).map_err(Error::io(&out))?;
        let usage = llm.usage();
        Ok(json!({
            "seconds": seconds,
            "prompt_tokens": usage.prompt_tokens - before.prompt_tokens,
            "completion_tokens": usage.completion_tokens - before.completion_tokens,
        }))
    })
}

fn config(model: &str) -> LlmConfig {
    if model.starts_with("http") {
        return LlmConfig { endpoints: vec![model.to_owned()], timeout_seconds: 600.0, ..LlmConfig::default() };
    }
    let embedded = EmbeddedModel { name: "model".into(), file: model.to_owned(), precision: Precision::Bf16 };
    LlmConfig { embedded: vec![embedded], ..LlmConfig::default() }
}

fn open(config: &LlmConfig, folder: &Path) -> Result<Llm> {
    Ok(Llm::open(&folder.join("ledger"), &[], config)?.run_with(Arc::new(CpuEngine), folder))
}

/// The requests of a round; its number before the task makes them others than those of earlier rounds, which a ledger or
/// a server remembers.
fn requests(work: &Work, round: u32) -> Vec<Vec<Request>> {
    let request = |messages: &Vec<Message>| {
        let mut messages = messages.clone();
        if let Some(task) = messages.last_mut() {
            task.content = format!("{round}\n{}", task.content);
        }
        Request {
            model: "model".into(),
            prompt: "bench".into(),
            parameters: Parameters { schema: work.schema.clone(), ..Parameters::greedy(work.max_tokens) },
            attempt: 0,
            messages,
            about: "the bench".into(),
        }
    };
    work.groups.iter().map(|group| group.iter().map(request).collect()).collect()
}

fn text_of(reply: &Reply) -> Option<&str> {
    match reply {
        Reply::Answered { text, .. } => Some(text),
        Reply::Unanswered(_) => None,
    }
}
