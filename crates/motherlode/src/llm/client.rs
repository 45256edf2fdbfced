//! Sending requests to OpenAI-compatible servers: `POST BASE/chat/completions`, again where a fault may pass.
//!
//! Sent again, after a growing and jittered wait: 408, 425, 429 and 5xx (or after `Retry-After`), time-outs, broken
//! connections, bodies that are cut off or no chat completion. Any other refusal ends the stage with the server's
//! words. The key from the environment goes into one header and nowhere else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ureq::Agent;

use super::config::{Api, LlmConfig};
use super::reply::{Outcome, Paid, of_transport, read};
use super::request::Request;
use super::throttle::{Pace, Throttle};
use super::wait::{backoff, pause};
use crate::error::{Error, Result};
use crate::progress::Progress;

/// What the answer is called for servers that want a name for a schema.
const SCHEMA_NAME: &str = "verdict";
/// Tokens whose probability is asked for where labels are scored; the most that `OpenAI` gives.
const LIKELIEST: u32 = 20;
const NO_LIMIT: &str = "takes neither `max_tokens` nor `max_completion_tokens`";

/// The servers.
pub(super) struct Client {
    pub(super) agent: Agent,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) api: Api,
    api_version: Option<String>,
    api_key_env: Option<String>,
    max_retries: u32,
    pace: Pace,
}

/// One server, with what was found out about it.
pub(super) struct Endpoint {
    pub(super) base: String,
    /// The server refused `response_format` once; it is not sent again.
    is_plain: AtomicBool,
    /// The server wants `max_completion_tokens` in place of `max_tokens`.
    wants_other_limit: AtomicBool,
    throttle: Throttle,
}

/// The secret. It has no `Debug` and no `Display`.
pub(super) struct ApiKey(Option<String>);

impl ApiKey {
    pub(super) fn secret(&self) -> Option<&str> {
        self.0.as_deref()
    }
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
        let timeout = Duration::from_secs_f64(config.timeout_seconds);
        let mut agent = Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_idle_connections(config.concurrency)
            .max_idle_connections_per_host(config.concurrency);
        if config.endpoints.iter().all(|endpoint| is_loopback(endpoint)) {
            agent = agent.proxy(None);
        }
        let share = config.concurrency.div_ceil(config.endpoints.len().max(1));
        let endpoint = |base: &String| Endpoint {
            base: base.trim_end_matches('/').to_owned(),
            is_plain: AtomicBool::new(false),
            wants_other_limit: AtomicBool::new(false),
            throttle: Throttle::new(share, timeout),
        };
        Self {
            agent: agent.build().new_agent(),
            endpoints: config.endpoints.iter().map(endpoint).collect(),
            api: config.api,
            api_version: config.api_version.clone(),
            api_key_env: config.api_key_env.clone(),
            max_retries: config.max_retries,
            pace: Pace::new(config, Instant::now()),
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

    /// The header that carries the key.
    pub(super) fn authorization(&self, api_key: &ApiKey) -> Option<(&'static str, String)> {
        let key = api_key.secret()?;
        Some(match self.api {
            Api::Openai => ("Authorization", format!("Bearer {key}")),
            Api::Azure => ("api-key", key.to_owned()),
        })
    }

    /// Sends a request until it is answered; none if another thread failed meanwhile.
    pub(super) fn complete(&self, endpoint: usize, request: &Request, sending: &Sending) -> Result<Option<Paid>> {
        let endpoint = &self.endpoints[endpoint];
        let url = self.completions_url(&endpoint.base, &request.model);
        let mut retries = 0;
        while !sending.stop.load(Ordering::Relaxed) {
            let Some(outcome) = self.send(endpoint, &url, request, sending) else { break };
            match outcome {
                Outcome::Answered(paid) => return Ok(Some(paid)),
                Outcome::NoSchema => {
                    if !endpoint.is_plain.swap(true, Ordering::Relaxed) {
                        sending.progress.say(&format!(
                            "{url}: takes no response_format; asking in words only, and reading JSON out of the reply"
                        ));
                    }
                }
                Outcome::OtherLimit => endpoint.wants_other_limit.store(true, Ordering::Relaxed),
                Outcome::Again { message, .. } if retries >= self.max_retries => {
                    return Err(Error::remote(&url, given_up(&message, request, retries + 1)));
                }
                Outcome::Again { wait, .. } => {
                    (sending.on_retry)();
                    pause(wait.unwrap_or_else(|| backoff(request, retries)), sending.stop);
                    retries += 1;
                }
                Outcome::Refused(message) => {
                    let message = format!("refused {} ({}): {message}", request.about, request.prompt);
                    return Err(Error::remote(&url, message));
                }
            }
        }
        Ok(None)
    }

    /// Sends once, when the server and the allowance of the minute have room; none if another thread failed meanwhile.
    fn send(&self, endpoint: &Endpoint, url: &str, request: &Request, sending: &Sending) -> Option<Outcome> {
        let tokens = request.tokens_at_most();
        pause(self.pace.take(tokens, Instant::now()), sending.stop);
        if !endpoint.throttle.enter(sending.stop) {
            return None;
        }
        let is_plain = endpoint.is_plain.load(Ordering::Relaxed);
        let is_other = endpoint.wants_other_limit.load(Ordering::Relaxed);
        let mut post = self.agent.post(url);
        if let Some((name, value)) = self.authorization(sending.api_key) {
            post = post.header(name, value);
        }
        let started = Instant::now();
        let outcome = match post.send_json(body_of(request, is_plain, limit_name(is_other))) {
            Ok(response) => match read(response, request, is_plain) {
                Outcome::OtherLimit if is_other => Outcome::Refused(NO_LIMIT.to_owned()),
                outcome => outcome,
            },
            Err(error) => of_transport(&error),
        };
        let now = Instant::now();
        endpoint.throttle.leave(outcome.sign(), now - started, now);
        if let Outcome::Answered(paid) = &outcome {
            self.pace.correct(tokens, paid.answer.prompt_tokens + paid.answer.completion_tokens);
        }
        Some(outcome.without(sending.api_key.secret()))
    }

    /// `http://host` and `http://host/v1` mean the same; another path is taken as it is.
    fn completions_url(&self, base: &str, model: &str) -> String {
        match (&self.api, &self.api_version) {
            (Api::Azure, Some(version)) => {
                format!("{base}/openai/deployments/{model}/chat/completions?api-version={version}")
            }
            _ => format!("{}/chat/completions", self.root(base)),
        }
    }

    /// The address under which the interface's paths begin.
    pub(super) fn root(&self, base: &str) -> String {
        let has_path = base.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
        match self.api {
            _ if has_path => base.to_owned(),
            Api::Openai => format!("{base}/v1"),
            Api::Azure => format!("{base}/openai/v1"),
        }
    }
}

/// Whether the address is this machine, which no proxy could reach.
fn is_loopback(address: &str) -> bool {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    ["localhost", "127.", "[::1]"].iter().any(|host| rest.starts_with(host))
}

fn limit_name(is_other: bool) -> &'static str {
    if is_other { "max_completion_tokens" } else { "max_tokens" }
}

/// The body of a request as every server takes it: with the schema, and `max_tokens`.
pub(super) fn full_body(request: &Request) -> Value {
    body_of(request, false, limit_name(false))
}

fn body_of(request: &Request, is_plain: bool, limit: &str) -> Value {
    let parameters = &request.parameters;
    let mut body = json!({
        "model": request.model,
        "messages": request.messages,
        "temperature": parameters.temperature,
        "top_p": parameters.top_p,
        limit: parameters.max_tokens,
        // Another seed for another attempt, so that servers that sample do not repeat themselves.
        "seed": parameters.seed + u64::from(request.attempt),
    });
    if let (Some(schema), false) = (&parameters.schema, is_plain) {
        body["response_format"] = json!({
            "type": "json_schema",
            "json_schema": { "name": SCHEMA_NAME, "strict": true, "schema": schema },
        });
    }
    if parameters.labels.is_some() {
        body["logprobs"] = json!(true);
        body["top_logprobs"] = json!(LIKELIEST);
    }
    body
}

fn given_up(message: &str, request: &Request, tries: u32) -> String {
    format!(
        "failed {tries} times, last with: {message} ({} of {}); every answer so far is in the ledger, so run again \
         when the server is well",
        request.prompt, request.about
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(base: &str, api: Api, version: Option<&str>) -> String {
        let config = LlmConfig {
            endpoints: vec![base.into()],
            api,
            api_version: version.map(str::to_owned),
            ..LlmConfig::default()
        };
        let client = Client::new(&config);
        client.completions_url(&client.endpoints[0].base, "gpt")
    }

    #[test]
    fn addresses_with_and_without_a_path() {
        let plain = |base| url(base, Api::Openai, None);
        assert_eq!(plain("http://127.0.0.1:80"), "http://127.0.0.1:80/v1/chat/completions");
        assert_eq!(plain("https://host/v1/"), "https://host/v1/chat/completions");
        assert_eq!(plain("https://host/api/v4"), "https://host/api/v4/chat/completions");
        assert!(is_loopback("http://localhost:8080/v1") && !is_loopback("https://host/v1"));
    }

    #[test]
    fn azure_has_deployments_or_the_newer_interface() {
        let base = "https://name.openai.azure.com";
        assert_eq!(
            url(base, Api::Azure, Some("2024-10-21")),
            "https://name.openai.azure.com/openai/deployments/gpt/chat/completions?api-version=2024-10-21"
        );
        assert_eq!(url(base, Api::Azure, None), "https://name.openai.azure.com/openai/v1/chat/completions");
    }
}
