//! What a server's response means: an answer, a fault that may pass, or a refusal.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use ureq::Body;
use ureq::http::Response;

use super::request::{Answer, Request, estimate_tokens};
use super::throttle::Sign;
use super::wait::retry_after;

/// Longest body that is read; chat completions are a thousand times shorter.
const LONGEST_BODY: u64 = 8 << 20;
/// A server that asks for a longer pause than this has run out of quota, not of breath.
const LONGEST_RETRY_AFTER: Duration = Duration::from_mins(10);

/// An answer with what only matters for its price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Paid {
    pub(super) answer: Answer,
    /// Prompt tokens that the server had in its cache.
    pub(super) cached_tokens: u64,
}

/// What one sending came to.
#[derive(Debug)]
pub(super) enum Outcome {
    Answered(Paid),
    /// The server takes no `response_format`.
    NoSchema,
    /// The server wants `max_completion_tokens`.
    OtherLimit,
    Again {
        wait: Option<Duration>,
        sign: Sign,
        message: String,
    },
    Refused(String),
}

impl Outcome {
    pub(super) fn sign(&self) -> Sign {
        match self {
            Self::Answered(_) => Sign::Well,
            Self::Again { sign, .. } => *sign,
            Self::NoSchema | Self::OtherLimit | Self::Refused(_) => Sign::Broken,
        }
    }

    /// Servers like to quote a wrong key; nothing that is shown may hold it.
    pub(super) fn without(self, secret: Option<&str>) -> Self {
        let Some(secret) = secret else { return self };
        let clean = |message: String| message.replace(secret, "***");
        match self {
            Self::Again { wait, sign, message } => Self::Again { wait, sign, message: clean(message) },
            Self::Refused(message) => Self::Refused(clean(message)),
            other => other,
        }
    }
}

/// Reads a response to `request`; `is_plain` if it was sent without `response_format`.
pub(super) fn read(mut response: Response<Body>, request: &Request, is_plain: bool) -> Outcome {
    let status = response.status().as_u16();
    let wait = retry_after(&response);
    let bytes = match response.body_mut().with_config().limit(LONGEST_BODY).read_to_vec() {
        Ok(bytes) => bytes,
        Err(error) if status == 200 => return of_transport(&error),
        Err(_) => Vec::new(),
    };
    let words = || format!("HTTP {status}: {}", words_of(&bytes));
    match status {
        200 => answer_of(&bytes, request),
        408 | 425 | 429 | 500.. => match wait {
            Some(wait) if wait > LONGEST_RETRY_AFTER => Outcome::Refused(format!(
                "{}; asks to wait {} s; run again then, nothing is lost",
                words(),
                wait.as_secs()
            )),
            wait => {
                let sign = if matches!(status, 408 | 429 | 503 | 504 | 529) { Sign::Busy } else { Sign::Broken };
                Outcome::Again { wait, sign, message: words() }
            }
        },
        400 | 422 if !is_plain && request.parameters.schema.is_some() && names(&bytes, &SCHEMA_WORDS) => {
            Outcome::NoSchema
        }
        400 if names(&bytes, &["max_completion_tokens"]) => Outcome::OtherLimit,
        _ => Outcome::Refused(words()),
    }
}

const SCHEMA_WORDS: [&str; 2] = ["response_format", "json_schema"];

fn names(bytes: &[u8], words: &[&str]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    words.iter().any(|word| text.contains(word))
}

/// What a failure below HTTP means.
pub(super) fn of_transport(error: &ureq::Error) -> Outcome {
    use ureq::Error as E;
    let message = error.to_string();
    let is_late = match error {
        E::Timeout(_) => true,
        E::Io(error) => error.kind() == std::io::ErrorKind::TimedOut,
        _ => false,
    };
    let sign = if is_late { Sign::Busy } else { Sign::Broken };
    match error {
        E::Io(_) | E::Timeout(_) | E::Protocol(_) | E::ConnectionFailed | E::HostNotFound | E::BodyExceedsLimit(_) => {
            Outcome::Again { wait: None, sign, message }
        }
        _ => Outcome::Refused(message),
    }
}

#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<TokenCounts>,
}

#[derive(Deserialize)]
struct Choice {
    message: Content,
    #[serde(default)]
    logprobs: Option<Logprobs>,
}

#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    content: Option<String>,
}

#[derive(Deserialize)]
struct Logprobs {
    #[serde(default)]
    content: Option<Vec<Position>>,
}

/// The likeliest tokens at one place of the answer.
#[derive(Deserialize)]
struct Position {
    top_logprobs: Vec<Likely>,
}

#[derive(Deserialize)]
struct Likely {
    token: String,
    logprob: f64,
}

#[derive(Deserialize, Default)]
struct TokenCounts {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    completion_tokens: Option<u64>,
    #[serde(default)]
    prompt_tokens_details: Option<PromptTokens>,
}

#[derive(Deserialize)]
struct PromptTokens {
    #[serde(default)]
    cached_tokens: Option<u64>,
}

/// Reads a chat completion. One without text is an answer (the model had nothing to say); a body that is none is a fault.
pub(super) fn answer_of(bytes: &[u8], request: &Request) -> Outcome {
    let broken = |problem: String| Outcome::Again {
        wait: None,
        sign: Sign::Broken,
        message: format!("{problem}: {}", words_of(bytes)),
    };
    let completion: Completion = match serde_json::from_slice(bytes) {
        Ok(completion) => completion,
        Err(error) => return broken(format!("no chat completion ({error})")),
    };
    let Some(choice) = completion.choices.into_iter().next() else {
        return broken("a chat completion without choices".to_owned());
    };
    let text = match &request.parameters.labels {
        None => choice.message.content.unwrap_or_default(),
        Some(labels) => match choice.logprobs.and_then(|logprobs| logprobs.content?.into_iter().next()) {
            Some(first) => scores_of(&first.top_logprobs, labels),
            None => return Outcome::Refused(NO_LOGPROBS.to_owned()),
        },
    };
    let counts = completion.usage.unwrap_or_default();
    let prompt_tokens = counts.prompt_tokens.unwrap_or_else(|| request.prompt_tokens());
    let completion_tokens = counts.completion_tokens.unwrap_or_else(|| estimate_tokens(&text));
    let cached_tokens = counts.prompt_tokens_details.and_then(|details| details.cached_tokens).unwrap_or(0);
    Outcome::Answered(Paid { answer: Answer { text, prompt_tokens, completion_tokens }, cached_tokens })
}

const NO_LOGPROBS: &str = "the answer has no `logprobs`; a judge that gives probabilities needs a server that sends \
                           them (vLLM, llama.cpp, OpenAI), so name another one, or judge without judge.cascade";

/// The labels' log-probabilities as a JSON object, in the order of the labels.
///
/// A label has the probability of every token that is it or its beginning, whatever the case; one that is not among the
/// likeliest tokens has that of the least likely of these, which is an upper bound. Nothing where there is no label.
fn scores_of(likeliest: &[Likely], labels: &[String]) -> String {
    let probability = |label: &String| -> f64 {
        let is_label = |token: &str| {
            let token = token.trim().to_lowercase();
            !token.is_empty() && label.to_lowercase().starts_with(&token)
        };
        likeliest.iter().filter(|likely| is_label(&likely.token)).map(|likely| likely.logprob.exp()).sum()
    };
    let found: Vec<f64> = labels.iter().map(probability).collect();
    if found.iter().all(|probability| *probability <= 0.0) {
        return "{}".to_owned();
    }
    let least = likeliest.iter().map(|likely| likely.logprob).fold(0.0, f64::min);
    let score = |probability: f64| if probability > 0.0 { probability.ln() } else { least };
    let scores: BTreeMap<usize, f64> = found.into_iter().map(score).enumerate().collect();
    let fields: serde_json::Map<String, Value> =
        scores.iter().map(|(place, score)| (labels[*place].clone(), Value::from(*score))).collect();
    Value::Object(fields).to_string()
}

/// What the server says went wrong: its error message, or the beginning of whatever it sent.
pub(super) fn words_of(bytes: &[u8]) -> String {
    let json: Option<Value> = serde_json::from_slice(bytes).ok();
    let message = json.as_ref().and_then(|json| {
        let error = &json["error"];
        error["message"].as_str().or(error.as_str()).or(json["message"].as_str()).or(json["detail"].as_str())
    });
    let text = message.map_or_else(|| String::from_utf8_lossy(bytes).into_owned(), str::to_owned);
    match text.trim() {
        "" => "no message".to_owned(),
        text => text.chars().take(300).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn likely(tokens: &[(&str, f64)]) -> Vec<Likely> {
        let one = |(token, probability): &(&str, f64)| Likely { token: (*token).into(), logprob: probability.ln() };
        tokens.iter().map(one).collect()
    }

    fn scores(tokens: &[(&str, f64)]) -> Vec<f64> {
        let labels = ["yes".to_owned(), "no".to_owned()];
        let text = scores_of(&likely(tokens), &labels);
        let read: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
        read.values().map(|score| score.as_f64().unwrap().exp()).collect()
    }

    #[test]
    fn labels_collect_the_tokens_that_begin_them() {
        let found = scores(&[("Yes", 0.5), (" yes", 0.2), ("no", 0.1), ("Nope", 0.1), ("maybe", 0.05)]);
        assert!((found[0] - 0.7).abs() < 1e-12 && (found[1] - 0.1).abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn a_label_out_of_sight_has_an_upper_bound_and_none_at_all_gives_nothing() {
        let found = scores(&[("yes", 0.9), ("maybe", 0.01)]);
        assert!((found[1] - 0.01).abs() < 1e-12, "{found:?}");
        assert!(scores(&[("maybe", 0.9)]).is_empty());
    }
}
