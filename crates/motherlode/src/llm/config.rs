//! The knobs of section `[llm]`. They say how answers are got, never what they are: no artefact depends on them.

use serde::{Deserialize, Serialize};

use super::embedded::EmbeddedModel;
use crate::error::{Error, Result};

/// How language models are reached, and what may be spent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LlmConfig {
    /// Base addresses of OpenAI-compatible servers, such as `http://127.0.0.1:8080/v1` (`/v1` may be left out). All
    /// must serve the same models; queries are spread over them. None: only what the ledger holds is answered.
    pub endpoints: Vec<String>,
    /// Models that run in this process, from GGUF files; the servers are not asked for these.
    pub embedded: Vec<EmbeddedModel>,
    /// The environment variable that holds the key of the servers, such as `OPENAI_API_KEY`; none: no key is sent.
    pub api_key_env: Option<String>,
    /// Requests in flight over all servers; at least one a server.
    pub concurrency: usize,
    /// Longest time one request may take, in seconds.
    pub timeout_seconds: f64,
    /// How often a request is sent again after a busy or broken server, before the stage gives up.
    pub max_retries: u32,
    /// Most requests to send; none: no limit.
    pub max_calls: Option<u64>,
    /// Most tokens to use, prompts and answers together.
    pub max_tokens: Option<u64>,
    /// Most money to spend, in the currency of the prices.
    pub max_cost: Option<f64>,
    /// Price of a million prompt tokens.
    pub prompt_price: f64,
    /// Price of a million completion tokens.
    pub completion_price: f64,
}

impl Default for LlmConfig {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            embedded: Vec::new(),
            api_key_env: None,
            concurrency: 8,
            timeout_seconds: 120.0,
            max_retries: 6,
            max_calls: None,
            max_tokens: None,
            max_cost: None,
            prompt_price: 0.0,
            completion_price: 0.0,
        }
    }
}

impl LlmConfig {
    /// Checks ranges and addresses.
    ///
    /// # Errors
    /// A knob out of range, an address that is not plain `http` or `https`, a limit on cost without a price.
    pub fn validate(&self) -> Result<()> {
        self.endpoints.iter().try_for_each(|endpoint| check_address(endpoint))?;
        check((1..=1024).contains(&self.concurrency), "concurrency", "from 1 to 1024", self.concurrency)?;
        let seconds = self.timeout_seconds;
        check(seconds > 0.0 && seconds <= 86_400.0, "timeout_seconds", "above 0, at most 86400", seconds)?;
        check(self.max_retries <= 100, "max_retries", "at most 100", self.max_retries)?;
        for (name, price) in [("prompt_price", self.prompt_price), ("completion_price", self.completion_price)] {
            check(price >= 0.0 && price.is_finite(), name, "0 or above", price)?;
        }
        let Some(cost) = self.max_cost else { return Ok(()) };
        check(cost >= 0.0 && cost.is_finite(), "max_cost", "0 or above", cost)?;
        let priced = self.prompt_price + self.completion_price > 0.0;
        check(priced, "max_cost", "used together with `llm.prompt_price` and `llm.completion_price`", cost)
    }

    /// What these tokens cost.
    pub fn cost(&self, prompt_tokens: u64, completion_tokens: u64) -> f64 {
        (prompt_tokens as f64 * self.prompt_price + completion_tokens as f64 * self.completion_price) / 1e6
    }
}

fn check(valid: bool, name: &str, expected: &str, got: impl std::fmt::Display) -> Result<()> {
    if valid { Ok(()) } else { Err(Error::config(format!("`llm.{name}`: expected {expected}, got {got}"))) }
}

/// Addresses are shown in errors and kept in recipes, so they must not carry a secret.
fn check_address(address: &str) -> Result<()> {
    let wrong = |problem: &str| {
        Err(Error::config(format!(
            "`llm.endpoints`: {problem}; expected an address such as `http://127.0.0.1:8080/v1`, and a key only in \
             the environment variable that `llm.api_key_env` names"
        )))
    };
    let host = address.strip_prefix("http://").or_else(|| address.strip_prefix("https://"));
    match host {
        Some(host) if host.contains(['@', '?', '#']) => wrong("an address must hold no user, query or fragment"),
        Some(host) if !host.is_empty() && !host.contains(char::is_whitespace) => Ok(()),
        _ => wrong(&format!("`{address}` is no http address")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut LlmConfig)) -> String {
        let mut config = LlmConfig::default();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn the_default_is_valid_and_offline() {
        LlmConfig::default().validate().unwrap();
        assert!(LlmConfig::default().endpoints.is_empty());
    }

    #[test]
    fn values_out_of_range_name_the_key() {
        assert!(refused(|config| config.concurrency = 0).contains("`llm.concurrency`"));
        assert!(refused(|config| config.timeout_seconds = f64::NAN).contains("`llm.timeout_seconds`"));
        assert!(refused(|config| config.prompt_price = -1.0).contains("`llm.prompt_price`"));
        assert!(refused(|config| config.max_cost = Some(1.0)).contains("llm.prompt_price"));
    }

    #[test]
    fn an_address_with_a_secret_is_refused_without_repeating_it() {
        for address in ["https://user:geheim@host/v1", "https://host/v1?key=geheim"] {
            let message = refused(|config| config.endpoints = vec![address.into()]);
            assert!(!message.contains("geheim") && message.contains("api_key_env"), "{message}");
        }
        assert!(refused(|config| config.endpoints = vec!["host:80".into()]).contains("no http address"));
    }

    #[test]
    fn cost_counts_both_sides() {
        let config = LlmConfig { prompt_price: 2.5, completion_price: 10.0, ..LlmConfig::default() };
        assert!((config.cost(1_000_000, 100_000) - 3.5).abs() < 1e-12);
    }
}
