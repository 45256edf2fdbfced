//! What is looked at before the first request is sent: the key, prices, whether servers can be reached, and whether
//! every prompt fits into the model's context.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::client::{ApiKey, Client, Endpoint};
use super::config::Api;
use super::reply::words_of;
use super::{Llm, Request};
use crate::config::nearest;
use crate::error::{Error, Result};

/// Longest time to connect to a server, and half of the longest time to look at it.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a server says of the models it serves.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Served {
    /// Longest prompt and answer in tokens by model, where it says.
    contexts: BTreeMap<String, Option<u64>>,
    /// Whether it refuses every model that it does not list; others take any name for the one model they hold.
    is_strict: bool,
    /// Longest prompt and answer of a server that holds one model under whatever name.
    only: Option<u64>,
}

impl Served {
    fn context(&self, model: &str) -> Option<u64> {
        self.contexts.get(model).copied().flatten().or(self.only)
    }

    /// Refuses a model that the server would refuse.
    fn check(&self, model: &str, base: &str) -> Result<()> {
        if !self.is_strict || self.contexts.contains_key(model) {
            return Ok(());
        }
        let names: Vec<&str> = self.contexts.keys().map(String::as_str).take(MOST_NAMES).collect();
        let suggestion = nearest(model, self.contexts.keys().map(String::as_str))
            .map_or_else(String::new, |name| format!("; did you mean `{name}`?"));
        let message = format!("serves no model `{model}`, but {}{suggestion}", names.join(", "));
        Err(Error::remote(base, message))
    }
}

/// Models of a server that an error names.
const MOST_NAMES: usize = 10;
/// Owners of the models of servers that look at the name.
const STRICT: [&str; 4] = ["vllm", "openai", "openai-internal", "system"];

/// An error that sending these requests would end with, found without spending anything.
pub(super) fn before_sending(llm: &Llm, missing: &[Vec<&Request>]) -> Result<()> {
    let config = &llm.config;
    let requests = || missing.iter().flatten().copied();
    if config.max_cost.is_some()
        && let Some(request) = requests().find(|request| !config.facts(&request.model).is_priced())
    {
        return Err(Error::config(format!(
            "`llm.max_cost`: the model `{0}` has no price; add `[llm.models.\"{0}\"]` with prompt_price and \
             completion_price",
            request.model
        )));
    }
    let api_key = llm.client.api_key()?;
    if llm.served.get().is_none() {
        let endpoints = llm.client.endpoints.iter();
        let found = endpoints.map(|endpoint| look(&llm.client, endpoint, &api_key)).collect::<Result<_>>()?;
        llm.served.get_or_init(|| found);
    }
    let served = llm.served.get().map_or(&[][..], Vec::as_slice);
    let models: BTreeSet<&str> = requests().map(|request| request.model.as_str()).collect();
    for (endpoint, served) in llm.client.endpoints.iter().zip(served) {
        models.iter().try_for_each(|model| served.check(model, &endpoint.base))?;
    }
    let context = |model: &str| {
        let said = served.iter().filter_map(|served| served.context(model)).min();
        config.facts(model).context.or(said)
    };
    check_contexts(&requests().collect::<Vec<_>>(), context)
}

/// Refuses prompts that do not fit, with their number.
fn check_contexts(requests: &[&Request], context: impl Fn(&str) -> Option<u64>) -> Result<()> {
    let mut contexts: BTreeMap<&str, Option<u64>> = BTreeMap::new();
    let mut too_long: Vec<(u64, u64, &Request)> = Vec::new();
    for request in requests {
        let limit = *contexts.entry(&request.model).or_insert_with(|| context(&request.model));
        let tokens = request.tokens_at_most();
        if let Some(limit) = limit.filter(|limit| tokens > *limit) {
            too_long.push((tokens, limit, request));
        }
    }
    let Some((tokens, limit, request)) = too_long.iter().max_by_key(|(tokens, ..)| *tokens) else { return Ok(()) };
    Err(Error::data(format!(
        "{} of {} requests need more than the {limit} tokens that the model `{}` can hold, the longest about {tokens} \
         (`{}` of {}); serve it with a longer context, lower judge.reference_characters, or, where the estimate is \
         wrong, set `context` in `[llm.models.\"{}\"]`",
        too_long.len(),
        requests.len(),
        request.model,
        request.prompt,
        request.about,
        request.model
    )))
}

/// Asks a server which models it has.
///
/// # Errors
/// Nobody answers, or the key is refused. A server that answers anything else can be reached, and that is enough.
fn look(client: &Client, endpoint: &Endpoint, api_key: &ApiKey) -> Result<Served> {
    let root = client.root(&endpoint.base);
    let (status, body) = get(client, &format!("{root}/models"), api_key)?;
    match status {
        200 => {}
        401 | 403 => {
            let words = words_of(&body);
            let words = api_key.secret().map_or(words.clone(), |secret| words.replace(secret, "***"));
            return Err(Error::remote(
                &root,
                format!("refuses the key: {words}; set the right one in the environment"),
            ));
        }
        _ => return Ok(Served::default()),
    }
    let mut served = served(&body);
    if client.api == Api::Openai && served.contexts.len() == 1 && served.contexts.values().all(Option::is_none) {
        let base = root.strip_suffix("/v1").unwrap_or(&root);
        let (status, body) = get(client, &format!("{base}/props"), api_key)?;
        served.only = if status == 200 { context_of_props(&body) } else { None };
    }
    Ok(served)
}

fn get(client: &Client, url: &str, api_key: &ApiKey) -> Result<(u16, Vec<u8>)> {
    let mut request =
        client.agent.get(url).config().timeout_connect(Some(PATIENCE)).timeout_global(Some(2 * PATIENCE)).build();
    if let Some((name, value)) = client.authorization(api_key) {
        request = request.header(name, value);
    }
    match request.call() {
        Ok(mut response) => {
            let body = response.body_mut().read_to_vec().unwrap_or_default();
            Ok((response.status().as_u16(), body))
        }
        Err(error) if is_unreachable(&error) => Err(Error::remote(
            url,
            format!("cannot be reached: {error}; start the server, or correct llm.endpoints (nothing was sent)"),
        )),
        // Somebody is there, who is busy or speaks something else here.
        Err(_) => Ok((0, Vec::new())),
    }
}

fn is_unreachable(error: &ureq::Error) -> bool {
    use std::io::ErrorKind as Kind;
    use ureq::{Error as E, Timeout};
    match error {
        E::HostNotFound | E::ConnectionFailed | E::Timeout(Timeout::Connect | Timeout::Resolve) => true,
        E::Io(error) => matches!(
            error.kind(),
            Kind::ConnectionRefused
                | Kind::TimedOut
                | Kind::HostUnreachable
                | Kind::NetworkUnreachable
                | Kind::AddrNotAvailable
        ),
        _ => false,
    }
}

#[derive(Deserialize)]
struct Models {
    #[serde(default)]
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
    /// vLLM.
    #[serde(default)]
    max_model_len: Option<u64>,
    /// Several gateways.
    #[serde(default)]
    context_length: Option<u64>,
    #[serde(default)]
    owned_by: String,
}

fn served(body: &[u8]) -> Served {
    let models: Models = serde_json::from_slice(body).unwrap_or(Models { data: Vec::new() });
    let is_strict = models.data.iter().any(|model| STRICT.contains(&model.owned_by.as_str()));
    let context = |model: Model| (model.id, model.max_model_len.or(model.context_length));
    Served { contexts: models.data.into_iter().map(context).collect(), is_strict, only: None }
}

/// What one slot of llama.cpp's server can hold.
fn context_of_props(body: &[u8]) -> Option<u64> {
    let props: Value = serde_json::from_slice(body).ok()?;
    props["default_generation_settings"]["n_ctx"].as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::{Message, Parameters};

    fn request(characters: usize) -> Request {
        Request {
            model: "m".into(),
            prompt: "judge-1".into(),
            parameters: Parameters::greedy(10),
            attempt: 0,
            messages: vec![Message::user("x".repeat(characters))],
            about: format!("query `{characters}` (sw)"),
        }
    }

    #[test]
    fn prompts_that_do_not_fit_are_counted_and_the_longest_is_named() {
        let requests = [request(400), request(800), request(40)];
        let refs: Vec<&Request> = requests.iter().collect();
        check_contexts(&refs, |_| None).unwrap();
        check_contexts(&refs, |_| Some(210)).unwrap();
        let message = check_contexts(&refs, |_| Some(50)).unwrap_err().to_string();
        for part in ["2 of 3 requests", "50 tokens", "about 210", "query `800` (sw)", "reference_characters"] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }

    #[test]
    fn a_server_that_looks_at_names_must_have_the_model() {
        let vllm = served(br#"{"data":[{"id":"qwen-7b","owned_by":"vllm"}]}"#);
        vllm.check("qwen-7b", "http://host").unwrap();
        let message = vllm.check("qwen-7", "http://host").unwrap_err().to_string();
        assert_eq!(message, "http://host: serves no model `qwen-7`, but qwen-7b; did you mean `qwen-7b`?");
        served(br#"{"data":[{"id":"model.gguf","owned_by":"llamacpp"}]}"#).check("qwen-7b", "http://host").unwrap();
    }

    #[test]
    fn servers_say_their_context_in_three_ways() {
        let vllm = br#"{"data":[{"id":"m","max_model_len":4096},{"id":"n","context_length":9}]}"#;
        let found = served(vllm);
        assert_eq!((found.context("m"), found.context("n"), found.context("o")), (Some(4096), Some(9), None));
        assert_eq!(context_of_props(br#"{"default_generation_settings":{"n_ctx":5120}}"#), Some(5120));
        assert_eq!(served(b"no json"), Served::default());
    }
}
