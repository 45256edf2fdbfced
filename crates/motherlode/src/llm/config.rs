//! The knobs of section `[llm]`. They say how answers are got, never what they are: no artefact depends on them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::embedded::EmbeddedModel;
use crate::error::{Error, Result};

/// Whose interface the servers speak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Api {
    /// `POST BASE/chat/completions`, the key as a bearer token: `OpenAI`, vLLM, llama.cpp, Ollama and most others.
    #[default]
    Openai,
    /// Azure: the key in the header `api-key`; with [`LlmConfig::api_version`] the model names a deployment.
    Azure,
}

/// What is known of a model beforehand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelFacts {
    /// Price of a million prompt tokens.
    pub prompt_price: f64,
    /// Price of a million prompt tokens that the server had in its cache; none: the same.
    pub cached_prompt_price: Option<f64>,
    /// Price of a million completion tokens.
    pub completion_price: f64,
    /// Tokens of prompt and answer together that the model can hold; none: what the server says, if it does.
    pub context: Option<u64>,
}

/// How language models are reached, and what may be spent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LlmConfig {
    /// Base addresses of servers, such as `http://127.0.0.1:8080/v1` (`/v1` may be left out) or
    /// `https://NAME.openai.azure.com`. All must serve the same models; queries are spread over them. None: only what
    /// the ledger holds is answered.
    pub endpoints: Vec<String>,
    /// Models that run in this process, from GGUF files or folders; the servers are not asked for these.
    pub embedded: Vec<EmbeddedModel>,
    /// Whose interface they speak.
    pub api: Api,
    /// For `api = "azure"`: the version of its deployments' interface, such as `2024-10-21`; none: its newer interface,
    /// which is `OpenAI`'s under `/openai/v1`.
    pub api_version: Option<String>,
    /// The environment variable that holds the key of the servers, such as `OPENAI_API_KEY`; none: no key is sent.
    pub api_key_env: Option<String>,
    /// Most requests in flight over all servers; at least one a server. A server that is busy or slow gets fewer.
    pub concurrency: usize,
    /// Most requests to send in a minute, over all servers; none: no limit.
    pub requests_per_minute: Option<u64>,
    /// Most tokens to use in a minute, prompts and answers together.
    pub tokens_per_minute: Option<u64>,
    /// Longest time one request may take, in seconds. Answers that take more than half of it lower the concurrency.
    pub timeout_seconds: f64,
    /// How often a request is sent again after a busy or broken server, before the stage gives up.
    pub max_retries: u32,
    /// Most requests to send; none: no limit.
    pub max_calls: Option<u64>,
    /// Most tokens to use, prompts and answers together.
    pub max_tokens: Option<u64>,
    /// Most money to spend, in the currency of the prices.
    pub max_cost: Option<f64>,
    /// Prices and contexts by model, as in `[llm.models."gpt-4o-mini"]`.
    pub models: BTreeMap<String, ModelFacts>,
}

impl Default for LlmConfig {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            embedded: Vec::new(),
            api: Api::Openai,
            api_version: None,
            api_key_env: None,
            concurrency: 8,
            requests_per_minute: None,
            tokens_per_minute: None,
            timeout_seconds: 120.0,
            max_retries: 6,
            max_calls: None,
            max_tokens: None,
            max_cost: None,
            models: BTreeMap::new(),
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
        let limits = [("requests_per_minute", self.requests_per_minute), ("tokens_per_minute", self.tokens_per_minute)];
        for (name, limit) in limits {
            check(limit != Some(0), name, "1 or more", 0)?;
        }
        let version = self.api_version.as_deref().unwrap_or("none");
        let is_plain = version.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        check(is_plain, "api_version", "a version such as 2024-10-21", version)?;
        let needed = self.api_version.is_none() || self.api == Api::Azure;
        check(needed, "api_version", "used together with `llm.api = \"azure\"`", version)?;
        self.models.iter().try_for_each(|(name, facts)| facts.validate(name))?;
        let Some(cost) = self.max_cost else { return Ok(()) };
        check(cost >= 0.0 && cost.is_finite(), "max_cost", "0 or above", cost)?;
        let priced = self.models.values().any(ModelFacts::is_priced);
        check(priced, "max_cost", "used together with prices, as in `[llm.models.\"NAME\"] prompt_price = 0.15`", cost)
    }

    /// What is known of a model; nothing, and no price, where the recipe does not name it.
    pub fn facts(&self, model: &str) -> ModelFacts {
        self.models.get(model).copied().unwrap_or_default()
    }

    /// What these tokens of a model cost.
    pub fn cost(&self, model: &str, prompt_tokens: u64, completion_tokens: u64) -> f64 {
        self.facts(model).cost(prompt_tokens, 0, completion_tokens)
    }

    /// Whether something limits how much may be asked in all.
    pub(crate) fn is_limited(&self) -> bool {
        self.max_calls.is_some() || self.max_tokens.is_some() || self.max_cost.is_some()
    }
}

impl ModelFacts {
    fn validate(&self, name: &str) -> Result<()> {
        let cached = self.cached_prompt_price.unwrap_or(0.0);
        let prices = [
            ("prompt_price", self.prompt_price),
            ("cached_prompt_price", cached),
            ("completion_price", self.completion_price),
        ];
        for (knob, price) in prices {
            check(price >= 0.0 && price.is_finite(), &format!("models.\"{name}\".{knob}"), "0 or above", price)?;
        }
        check(self.context != Some(0), &format!("models.\"{name}\".context"), "1 or more", 0)
    }

    pub(super) fn is_priced(&self) -> bool {
        self.prompt_price + self.completion_price > 0.0
    }

    /// What tokens cost; `cached_tokens` is how many of the prompt's the server had in its cache.
    pub(super) fn cost(&self, prompt_tokens: u64, cached_tokens: u64, completion_tokens: u64) -> f64 {
        let cached = cached_tokens.min(prompt_tokens);
        let fresh = (prompt_tokens - cached) as f64 * self.prompt_price;
        let cached = cached as f64 * self.cached_prompt_price.unwrap_or(self.prompt_price);
        (fresh + cached + completion_tokens as f64 * self.completion_price) / 1e6
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

    fn priced(facts: ModelFacts) -> LlmConfig {
        LlmConfig { models: BTreeMap::from([("m".to_owned(), facts)]), ..LlmConfig::default() }
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
        assert!(refused(|config| config.tokens_per_minute = Some(0)).contains("`llm.tokens_per_minute`"));
        assert!(refused(|config| config.api_version = Some("2024-10-21".into())).contains("azure"));
        assert!(refused(|config| config.max_cost = Some(1.0)).contains("prompt_price"));
        let negative = ModelFacts { completion_price: -1.0, ..ModelFacts::default() };
        let message = priced(negative).validate().unwrap_err().to_string();
        assert!(message.contains("`llm.models.\"m\".completion_price`"), "{message}");
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
    fn the_price_table_is_read_and_counts_both_sides_and_the_cache() {
        let text = "[models.\"gpt-4o\"]\nprompt_price = 2.5\ncached_prompt_price = 1.25\ncompletion_price = 10.0";
        let config: LlmConfig =
            crate::config::from_table("llm", crate::config::parse_table("x", text).unwrap()).unwrap();
        assert!((config.cost("gpt-4o", 1_000_000, 100_000) - 3.5).abs() < 1e-12);
        assert!((config.facts("gpt-4o").cost(1_000_000, 800_000, 100_000) - 2.5).abs() < 1e-12);
        assert!(config.cost("other", 1_000_000, 0).abs() < 1e-12);
    }
}
