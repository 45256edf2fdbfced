//! `OpenAI`'s batch files: requests written for a batch that is sent some other way, and its answers taken in.
//!
//! A line of the first kind is `{"custom_id": KEY, "method": "POST", "url": "/v1/chat/completions", "body": …}`, with the
//! ledger's key as the name; of the second `{"custom_id": KEY, "response": {"status_code": 200, "body": …}, "error": null}`.
//! Source: <https://platform.openai.com/docs/api-reference/batch>; vLLM's `run-batch` reads and writes the same.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::Deserialize;
use serde_json::{Value, json};

use super::client::full_body;
use super::reply::{Outcome, answer_of, words_of};
use super::request::Request;
use crate::artefact::write_whole;
use crate::error::{Error, Result};

/// Most requests of one file that `OpenAI` takes.
const MOST_REQUESTS: usize = 50_000;
/// Most bytes of one file; `OpenAI` takes 200 MB.
const MOST_BYTES: usize = 190_000_000;

/// Requests to be written instead of sent, by key.
#[derive(Default)]
pub(super) struct Outbox(Mutex<BTreeMap<String, Request>>);

/// A file of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchFile {
    /// Where it lies.
    pub path: PathBuf,
    /// The model that all its requests are for.
    pub model: String,
    /// Its requests.
    pub requests: usize,
}

impl Outbox {
    pub(super) fn add(&self, request: &Request) {
        self.requests().insert(request.key(), request.clone());
    }

    pub(super) fn len(&self) -> usize {
        self.requests().len()
    }

    /// Writes the requests; each file has one model and no more than a batch may have, and all but the first have a
    /// number in their name. None where there are no requests.
    ///
    /// *Order*: models by name, requests by key.
    pub(super) fn write(&self, path: &Path) -> Result<Vec<BatchFile>> {
        let mut by_model: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, request) in &*self.requests() {
            let line = json!({
                "custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": full_body(request),
            });
            by_model.entry(request.model.clone()).or_default().push(line.to_string() + "\n");
        }
        let mut files = Vec::new();
        for (model, lines) in &by_model {
            for lines in pieces(lines) {
                let path = numbered(path, files.len());
                write_whole(&path, |output| {
                    lines.iter().try_for_each(|line| output.write_all(line.as_bytes())).map_err(Error::io(&path))
                })?;
                files.push(BatchFile { path, model: model.clone(), requests: lines.len() });
            }
        }
        Ok(files)
    }

    fn requests(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Request>> {
        self.0.lock().expect("nothing panics while it holds the lock")
    }
}

/// Cuts lines where a file would have too many, or too many bytes.
fn pieces(lines: &[String]) -> Vec<&[String]> {
    let (mut pieces, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (place, line) in lines.iter().enumerate() {
        if place > start && (place - start == MOST_REQUESTS || bytes + line.len() > MOST_BYTES) {
            pieces.push(&lines[start..place]);
            (start, bytes) = (place, 0);
        }
        bytes += line.len();
    }
    pieces.push(&lines[start..]);
    pieces
}

/// `batch.jsonl`, `batch-2.jsonl`, …
fn numbered(path: &Path, before: usize) -> PathBuf {
    if before == 0 {
        return path.to_path_buf();
    }
    let part = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let (stem, extension) = (part(path.file_stem()), part(path.extension()));
    let dot = if extension.is_empty() { "" } else { "." };
    path.with_file_name(format!("{stem}-{}{dot}{extension}", before + 1))
}

#[derive(Deserialize)]
struct Line {
    custom_id: String,
    #[serde(default)]
    response: Option<Response>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Response {
    status_code: u16,
    body: Value,
}

/// The answers of batches, by key, until their requests are asked.
#[derive(Default)]
pub(super) struct Inbox {
    bodies: HashMap<String, Value>,
    /// Requests that the batch did not answer, with the words of the first.
    failed: usize,
    first_words: String,
}

impl Inbox {
    /// Takes in the output file of a batch.
    ///
    /// # Errors
    /// A line that is no line of such a file.
    pub(super) fn read(&mut self, path: &Path) -> Result<()> {
        crate::lines::for_each(path, |number, text| {
            let line: Line = serde_json::from_str(text).map_err(|error| {
                Error::line(path, number, format!("expected a line of a batch's output file: {error}"))
            })?;
            match line.response {
                Some(Response { status_code: 200, body }) if line.error.as_ref().is_none_or(Value::is_null) => {
                    self.bodies.insert(line.custom_id, body);
                }
                response => {
                    let body = response.map(|response| response.body).or(line.error).unwrap_or_default();
                    self.fail(&words_of(body.to_string().as_bytes()));
                }
            }
            Ok(())
        })
    }

    /// The answer to a request, if the batch gave one that can be used.
    pub(super) fn answer(&self, key: &str, request: &Request) -> Option<super::Answer> {
        match answer_of(self.bodies.get(key)?.to_string().as_bytes(), request) {
            Outcome::Answered(paid) => Some(paid.answer),
            _ => None,
        }
    }

    /// A sentence on what the batch did not answer.
    pub(super) fn note(&self) -> Option<String> {
        let Self { failed, first_words, .. } = self;
        let again = "they will be asked again";
        (*failed > 0).then(|| format!("the batch failed on {failed} requests, the first with: {first_words}; {again}"))
    }

    fn fail(&mut self, words: &str) {
        self.failed += 1;
        if self.failed == 1 {
            words.clone_into(&mut self.first_words);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_cut_by_lines_and_named_by_number() {
        let lines = vec!["x".to_owned(); MOST_REQUESTS + 1];
        assert_eq!(pieces(&lines).iter().map(|piece| piece.len()).collect::<Vec<_>>(), [MOST_REQUESTS, 1]);
        assert_eq!(pieces(&lines[..2]).len(), 1);
        let names = [0, 1].map(|before| numbered(Path::new("a/batch.jsonl"), before));
        assert_eq!(names, [PathBuf::from("a/batch.jsonl"), PathBuf::from("a/batch-2.jsonl")]);
    }
}
