//! One request to an OpenAI-compatible server: `POST BASE/chat/completions`, retries, and what its answers mean.
//!
//! Sent again, after a growing and jittered wait: 408, 425, 429 and 5xx (or after `Retry-After`), time-outs, broken
//! connections, bodies that are cut off or no chat completion. Any other refusal ends the stage with the server's
//! words. The key from the environment goes into one header and nowhere else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use rand::RngExt;
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Response;
use ureq::{Agent, Body};

use super::config::LlmConfig;
use super::request::{Answer, Request, estimate_tokens};
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Longest body that is read; chat completions are a thousand times shorter.
const LONGEST_BODY: u64 = 8 << 20;
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// A server that asks for a longer pause than this has run out of quota, not of breath.
const LONGEST_RETRY_AFTER: Duration = Duration::from_mins(10);
/// What the answer is called for servers that want a name for a schema.
const SCHEMA_NAME: &str = "verdict";

/// The servers.
pub(super) struct Client {
    agent: Agent,
    endpoints: Vec<Endpoint>,
    api_key_env: Option<String>,
    max_retries: u32,
}

struct Endpoint {
    url: String,
    /// The server refused `response_format` once; it is not sent again.
    is_plain: AtomicBool,
}

/// The secret. It has no `Debug` and no `Display`.
pub(super) struct ApiKey(Option<String>);

/// What one sending came to.
enum Outcome {
    Answered(Answer),
    NoSchema,
    Again { wait: Option<Duration>, message: String },
    Refused(String),
}

/// Ends waits early when another thread has failed.
pub(super) struct Sending<'a> {
    pub(super) api_key: &'a ApiKey,
    pub(super) stop: &'a AtomicBool,
    pub(super) progress: &'a Progress<'a>,
    /// Called once for every time the request is sent again.
    pub(super) on_retry: &'a (dyn Fn() + Sync),
}

impl Client {
    pub(super) fn new(config: &LlmConfig) -> Self {
        let mut agent = Agent::config_builder()
            .timeout_global(Some(Duration::from_secs_f64(config.timeout_seconds)))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_idle_connections_per_host(config.concurrency);
        if config.endpoints.iter().all(|endpoint| is_loopback(endpoint)) {
            agent = agent.proxy(None);
        }
        let endpoint = |base: &String| Endpoint { url: completions_url(base), is_plain: AtomicBool::new(false) };
        Self {
            agent: agent.build().new_agent(),
            endpoints: config.endpoints.iter().map(endpoint).collect(),
            api_key_env: config.api_key_env.clone(),
            max_retries: config.max_retries,
        }
    }

    /// Number of servers.
    pub(super) fn endpoints(&self) -> usize {
        self.endpoints.len()
    }

    /// Reads the key from the environment; an error names the variable that is missing.
    pub(super) fn api_key(&self) -> Result<ApiKey> {
        let Some(name) = &self.api_key_env else { return Ok(ApiKey(None)) };
        match std::env::var(name) {
            Ok(key) if !key.trim().is_empty() => Ok(ApiKey(Some(key.trim().to_owned()))),
            _ => Err(Error::config(format!(
                "`llm.api_key_env`: the environment variable `{name}` is empty or not set; export it, or remove the knob"
            ))),
        }
    }

    /// Sends a request until it is answered; none if another thread failed meanwhile.
    pub(super) fn complete(&self, endpoint: usize, request: &Request, sending: &Sending) -> Result<Option<Answer>> {
        let endpoint = &self.endpoints[endpoint];
        let mut retries = 0;
        while !sending.stop.load(Ordering::Relaxed) {
            match self.send(endpoint, request, sending.api_key) {
                Outcome::Answered(answer) => return Ok(Some(answer)),
                Outcome::NoSchema => {
                    if !endpoint.is_plain.swap(true, Ordering::Relaxed) {
                        sending.progress.say(&format!(
                            "{}: takes no response_format; asking in words only, and reading JSON out of the reply",
                            endpoint.url
                        ));
                    }
                }
                Outcome::Again { message, .. } if retries >= self.max_retries => {
                    return Err(Error::remote(&endpoint.url, given_up(&message, request, retries + 1)));
                }
                Outcome::Again { wait, .. } => {
                    (sending.on_retry)();
                    pause(wait.unwrap_or_else(|| backoff(request, retries)), sending.stop);
                    retries += 1;
                }
                Outcome::Refused(message) => {
                    let message = format!("refused {} ({}): {message}", request.about, request.prompt);
                    return Err(Error::remote(&endpoint.url, message));
                }
            }
        }
        Ok(None)
    }

    fn send(&self, endpoint: &Endpoint, request: &Request, api_key: &ApiKey) -> Outcome {
        let is_plain = endpoint.is_plain.load(Ordering::Relaxed);
        let mut post = self.agent.post(&endpoint.url);
        if let ApiKey(Some(key)) = api_key {
            post = post.header("Authorization", format!("Bearer {key}"));
        }
        let outcome = match post.send_json(body_of(request, is_plain)) {
            Ok(response) => read(response, request, is_plain),
            Err(error) => of_transport(&error),
        };
        outcome.without(api_key)
    }
}

impl Outcome {
    /// Servers like to quote a wrong key; nothing that is shown may hold it.
    fn without(self, api_key: &ApiKey) -> Self {
        let ApiKey(Some(key)) = api_key else { return self };
        let clean = |message: String| message.replace(key.as_str(), "***");
        match self {
            Self::Again { wait, message } => Self::Again { wait, message: clean(message) },
            Self::Refused(message) => Self::Refused(clean(message)),
            other => other,
        }
    }
}

/// `http://host` and `http://host/v1` mean the same; another path is taken as it is.
fn completions_url(base: &str) -> String {
    let base = base.trim_end_matches('/');
    let has_path = base.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
    if has_path { format!("{base}/chat/completions") } else { format!("{base}/v1/chat/completions") }
}

/// Whether the address is this machine, which no proxy could reach.
fn is_loopback(address: &str) -> bool {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    ["localhost", "127.", "[::1]"].iter().any(|host| rest.starts_with(host))
}

fn body_of(request: &Request, is_plain: bool) -> Value {
    let parameters = &request.parameters;
    let mut body = json!({
        "model": request.model,
        "messages": request.messages,
        "temperature": parameters.temperature,
        "top_p": parameters.top_p,
        "max_tokens": parameters.max_tokens,
        // Another seed for another attempt, so that servers that sample do not repeat themselves.
        "seed": parameters.seed + u64::from(request.attempt),
    });
    if let (Some(schema), false) = (&parameters.schema, is_plain) {
        body["response_format"] = json!({
            "type": "json_schema",
            "json_schema": { "name": SCHEMA_NAME, "strict": true, "schema": schema },
        });
    }
    body
}

fn read(mut response: Response<Body>, request: &Request, is_plain: bool) -> Outcome {
    let status = response.status().as_u16();
    let wait = retry_after(&response);
    let bytes = match response.body_mut().with_config().limit(LONGEST_BODY).read_to_vec() {
        Ok(bytes) => bytes,
        Err(error) if status == 200 => return of_transport(&error),
        Err(_) => Vec::new(),
    };
    match status {
        200 => answer_of(&bytes, request),
        408 | 425 | 429 | 500.. => match wait {
            Some(wait) if wait > LONGEST_RETRY_AFTER => Outcome::Refused(format!(
                "HTTP {status}: {}; asks to wait {} s; run again then, nothing is lost",
                words_of(&bytes),
                wait.as_secs()
            )),
            wait => Outcome::Again { wait, message: format!("HTTP {status}: {}", words_of(&bytes)) },
        },
        400 | 422 if !is_plain && request.parameters.schema.is_some() && names_schema(&bytes) => Outcome::NoSchema,
        _ => Outcome::Refused(format!("HTTP {status}: {}", words_of(&bytes))),
    }
}

fn names_schema(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    ["response_format", "json_schema"].iter().any(|name| text.contains(name))
}

fn of_transport(error: &ureq::Error) -> Outcome {
    use ureq::Error as E;
    let message = error.to_string();
    match error {
        E::Io(_) | E::Timeout(_) | E::Protocol(_) | E::ConnectionFailed | E::HostNotFound | E::BodyExceedsLimit(_) => {
            Outcome::Again { wait: None, message }
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
}

#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    content: Option<String>,
}

#[derive(Deserialize, Default)]
struct TokenCounts {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    completion_tokens: Option<u64>,
}

/// A completion without text is an answer (the model had nothing to say); a body that is none is a fault.
fn answer_of(bytes: &[u8], request: &Request) -> Outcome {
    let broken = |problem: String| Outcome::Again { wait: None, message: format!("{problem}: {}", words_of(bytes)) };
    let completion: Completion = match serde_json::from_slice(bytes) {
        Ok(completion) => completion,
        Err(error) => return broken(format!("no chat completion ({error})")),
    };
    let Some(choice) = completion.choices.into_iter().next() else {
        return broken("a chat completion without choices".to_owned());
    };
    let text = choice.message.content.unwrap_or_default();
    let counts = completion.usage.unwrap_or_default();
    let estimate = || request.messages.iter().map(|message| estimate_tokens(&message.content)).sum();
    let prompt_tokens = counts.prompt_tokens.unwrap_or_else(estimate);
    let completion_tokens = counts.completion_tokens.unwrap_or_else(|| estimate_tokens(&text));
    Outcome::Answered(Answer { text, prompt_tokens, completion_tokens })
}

/// What the server says went wrong: its error message, or the beginning of whatever it sent.
fn words_of(bytes: &[u8]) -> String {
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

fn given_up(message: &str, request: &Request, tries: u32) -> String {
    format!(
        "failed {tries} times, last with: {message} ({} of {}); every answer so far is in the ledger, so run again \
         when the server is well",
        request.prompt, request.about
    )
}

/// Half a second doubled at every retry, at most a minute, each shortened by up to a half.
fn backoff(request: &Request, retry: u32) -> Duration {
    let longest = FIRST_WAIT.saturating_mul(1 << retry.min(16)).min(LONGEST_WAIT);
    let jitter: f64 = crate::random::keyed(0, "llm backoff", &format!("{} {retry}", request.key())).random();
    longest.mul_f64(0.5 + 0.5 * jitter)
}

fn pause(wait: Duration, stop: &AtomicBool) {
    const SLICE: Duration = Duration::from_millis(50);
    let mut left = wait;
    while !left.is_zero() && !stop.load(Ordering::Relaxed) {
        let slice = left.min(SLICE);
        std::thread::sleep(slice);
        left -= slice;
    }
}

/// `Retry-After` in either of its forms: seconds, or a date.
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let value = response.headers().get("retry-after")?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(Duration::from_secs(seconds_of_date(value)?).saturating_sub(now))
}

/// Seconds since 1970 of an HTTP date such as `Sun, 06 Nov 1994 08:49:37 GMT`.
///
/// Source: RFC 9110 section 5.6.7; the day number is Howard Hinnant's `days_from_civil`.
fn seconds_of_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let fields: Vec<&str> = text.split_once(", ")?.1.split(' ').collect();
    let [day, month, year, time, "GMT"] = fields[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let (day, year): (u64, u64) = (day.parse().ok()?, year.parse().ok()?);
    let clock: Vec<u64> = time.split(':').map(str::parse).collect::<std::result::Result<_, _>>().ok()?;
    let [hours, minutes, seconds] = clock[..] else { return None };
    if !(1970..10_000).contains(&year) || !(1..=31).contains(&day) || hours > 23 || minutes > 59 || seconds > 60 {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    Some(days * 86_400 + hours * 3600 + minutes * 60 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_and_without_a_path() {
        assert_eq!(completions_url("http://127.0.0.1:80"), "http://127.0.0.1:80/v1/chat/completions");
        assert_eq!(completions_url("https://host/v1/"), "https://host/v1/chat/completions");
        assert_eq!(completions_url("https://host/api/v4"), "https://host/api/v4/chat/completions");
        assert!(is_loopback("http://localhost:8080/v1") && !is_loopback("https://host/v1"));
    }

    /// Golden: `date -u -d 'DATE' +%s`, GNU coreutils 9.1.
    #[test]
    fn dates_are_read() {
        assert_eq!(seconds_of_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(seconds_of_date("Thu, 29 Feb 2024 23:59:59 GMT"), Some(1_709_251_199));
        for bad in ["", "tomorrow", "Sun, 06 Nov 1994 08:49 GMT", "Sun, 99 Nov 1994 08:49:37 GMT"] {
            assert_eq!(seconds_of_date(bad), None, "{bad}");
        }
    }

    #[test]
    fn waits_grow_and_differ_by_request() {
        let request = |text: &str| Request {
            model: "m".into(),
            prompt: "p".into(),
            parameters: crate::llm::Parameters::greedy(1),
            attempt: 0,
            messages: vec![crate::llm::Message::user(text)],
            about: String::new(),
        };
        let (first, later) = (backoff(&request("a"), 0), backoff(&request("a"), 4));
        assert!(first >= FIRST_WAIT / 2 && first <= FIRST_WAIT && later >= FIRST_WAIT * 8);
        assert_ne!(first, backoff(&request("b"), 0));
        assert!(backoff(&request("a"), 99) <= LONGEST_WAIT);
    }
}
