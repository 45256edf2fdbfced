//! The ledger and the client together, against a stand-in server that plays the faults of real ones.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use super::stand_in::{Play, StandIn, completion};
use super::*;
use crate::engine::{Choose, Encoder, Footprint, LanguageModel, LoadOptions, Next, Precision, Trainable, TrainableLm};
use crate::gguf::Gguf;
use crate::progress::Watcher;

fn request(text: &str) -> Request {
    Request {
        model: "tiny".into(),
        prompt: "judge-1".into(),
        parameters: Parameters { schema: Some(json!({"type": "object"})), ..Parameters::greedy(32) },
        attempt: 0,
        messages: vec![Message::system("rules"), Message::user(text)],
        about: format!("query `{text}` (sw)"),
    }
}

fn config(servers: &[&StandIn]) -> LlmConfig {
    LlmConfig {
        endpoints: servers.iter().map(|server| server.url()).collect(),
        concurrency: 4,
        timeout_seconds: 5.0,
        max_retries: 3,
        ..LlmConfig::default()
    }
}

struct Room {
    folder: tempfile::TempDir,
}

impl Room {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn open(&self, config: &LlmConfig) -> Llm {
        Llm::open(&self.folder.path().join("ledger"), &[], config).unwrap()
    }

    /// Asks one request of a server that follows `script`.
    fn ask(&self, script: impl Fn(usize, &serde_json::Value) -> Play + Send + Sync + 'static) -> Result<(Reply, Llm)> {
        let server = StandIn::start(script);
        let llm = self.open(&config(&[&server]));
        let reply = llm.ask(&[vec![request("q")]], &Progress::silent())?;
        Ok((reply[0][0].clone(), llm))
    }
}

fn text(reply: &Reply) -> &str {
    match reply {
        Reply::Answered { text, .. } => text,
        Reply::Unanswered(reason) => panic!("{reason:?}"),
    }
}

/// The first thing a server does is `fault`; afterwards it answers.
fn survives(fault: fn() -> Play) -> Usage {
    let (reply, llm) =
        Room::new().ask(move |number, _| if number == 0 { fault() } else { Play::Say("well".into()) }).unwrap();
    assert_eq!(text(&reply), "well");
    llm.usage()
}

#[test]
fn the_request_goes_out_as_the_interface_wants_it() {
    let server = StandIn::start(|_, _| Play::Say("{}".into()));
    let room = Room::new();
    room.open(&config(&[&server])).ask(&[vec![request("q")]], &Progress::silent()).unwrap();
    let seen = &server.seen()[0];
    assert_eq!((seen.path.as_str(), seen.authorization.as_deref()), ("/v1/chat/completions", None));
    let expected = json!({
        "model": "tiny",
        "messages": [{"role": "system", "content": "rules"}, {"role": "user", "content": "q"}],
        "temperature": 0.0, "top_p": 1.0, "max_tokens": 32, "seed": 0,
        "response_format": {"type": "json_schema", "json_schema":
            {"name": "verdict", "strict": true, "schema": {"type": "object"}}},
    });
    assert_eq!(seen.body, expected);
}

#[test]
fn an_answer_is_bought_once() {
    let server = StandIn::start(|number, _| Play::Say(number.to_string()));
    let room = Room::new();
    let groups = [vec![request("a"), request("b"), request("a")], vec![request("b")]];
    let facts = ModelFacts { prompt_price: 1e4, completion_price: 1e5, ..ModelFacts::default() };
    let llm = room.open(&LlmConfig { models: [("tiny".to_owned(), facts)].into(), ..config(&[&server]) });
    let first = llm.ask(&groups, &Progress::silent()).unwrap();
    assert_eq!(text(&first[0][0]), text(&first[0][2]));
    assert_eq!(text(&first[0][1]), text(&first[1][0]));
    let usage = llm.usage();
    assert_eq!((usage.calls, usage.prompt_tokens, usage.completion_tokens), (2, 200, 20));
    assert!((usage.cost - 4.0).abs() < 1e-9);
    drop(llm);
    let offline = room.open(&LlmConfig::default());
    let again = offline.ask(&groups, &Progress::silent()).unwrap();
    assert_eq!(text(&again[0][1]), text(&first[0][1]));
    assert!(matches!(again[1][0], Reply::Answered { from_ledger: true, .. }));
    assert_eq!((server.seen().len(), offline.usage().ledger_hits, offline.usage().calls), (2, 4, 0));
}

#[test]
fn what_is_missing_without_a_server_is_counted_and_named() {
    let room = Room::new();
    let llm = room.open(&LlmConfig::default());
    let groups = [vec![request("a"), request("b")], vec![request("a")]];
    let message = llm.ask(&groups, &Progress::silent()).unwrap_err().to_string();
    for part in ["2 answers", "query `a` (sw)", "`tiny`", "`judge-1`", "set llm.endpoints", "recorded"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(llm.missing(groups.iter().flatten()).unwrap(), 2);
}

#[test]
fn recorded_answers_are_taken_in() {
    let (reply, llm) = Room::new().ask(|_, _| Play::Say("recorded".into())).unwrap();
    let other = Room::new();
    let file = other.folder.path().join("recorded.jsonl");
    llm.ledger().export_jsonl(&mut std::fs::File::create(&file).unwrap(), &file, None).unwrap();
    let offline = Llm::open(&other.folder.path().join("ledger"), &[file], &LlmConfig::default()).unwrap();
    let again = offline.ask(&[vec![request("q")]], &Progress::silent()).unwrap();
    assert_eq!(text(&again[0][0]), text(&reply));
}

#[test]
fn a_busy_server_is_asked_again() {
    let started = Instant::now();
    let usage = survives(|| Play::Status(429, "slow down", vec![("Retry-After", "1".into())]));
    assert!(started.elapsed() >= Duration::from_secs(1), "Retry-After is kept");
    assert_eq!((usage.calls, usage.retries), (1, 1));
    survives(|| Play::Status(429, "slow down", vec![]));
    survives(|| Play::Status(500, "oh", vec![]));
    survives(|| Play::Status(503, "oh", vec![("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT".into())]));
}

#[test]
fn a_broken_answer_is_asked_for_again() {
    survives(|| Play::Reset);
    survives(|| Play::Truncated);
    survives(|| Play::Body(completion("cut")[..40].to_owned()));
    survives(|| Play::Body(String::new()));
    survives(|| Play::Body("{\"choices\": []}".into()));
    survives(|| Play::Body("{\"error\": \"overloaded\"}".into()));
    survives(|| Play::Body(completion(&"long ".repeat(3_000_000))));
}

#[test]
fn a_slow_server_is_asked_again() {
    let server = StandIn::start(|number, _| match number {
        0 => Play::Slow(Duration::from_secs(3), "late".into()),
        _ => Play::Say("well".into()),
    });
    let llm = Room::new().open(&LlmConfig { timeout_seconds: 0.5, ..config(&[&server]) });
    let replies = llm.ask(&[vec![request("q")]], &Progress::silent()).unwrap();
    assert_eq!(text(&replies[0][0]), "well");
}

#[test]
fn empty_and_long_answers_are_answers() {
    assert_eq!(text(&Room::new().ask(|_, _| Play::Say(String::new())).unwrap().0), "");
    let null = json!({"choices": [{"message": {"role": "assistant", "content": null}}]}).to_string();
    let (reply, llm) = Room::new().ask(move |_, _| Play::Body(null.clone())).unwrap();
    assert_eq!(text(&reply), "");
    assert_eq!(llm.usage().prompt_tokens, 3, "estimated where the server does not count");
    let long = "x".repeat(100_000);
    let expected = long.clone();
    assert_eq!(text(&Room::new().ask(move |_, _| Play::Say(long.clone())).unwrap().0), expected);
}

#[test]
fn a_server_that_stays_broken_ends_the_stage_with_a_remedy() {
    let room = Room::new();
    let server = StandIn::start(|_, _| Play::Status(500, "out of memory", vec![]));
    let llm = room.open(&LlmConfig { max_retries: 1, ..config(&[&server]) });
    let message = llm.ask(&[vec![request("q")]], &Progress::silent()).unwrap_err().to_string();
    for part in ["failed 2 times", "out of memory", "/v1/chat/completions", "run again"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(server.seen().len(), 2);
    let error = Room::new().ask(|_, _| Play::Status(429, "quota", vec![("Retry-After", "86400".into())]));
    assert!(error.err().unwrap().to_string().contains("asks to wait 86400 s"));
}

#[test]
fn a_refusal_gives_the_servers_words_at_once() {
    let server = StandIn::start(|_, _| Play::Status(404, "no model named tiny", vec![]));
    let llm = Room::new().open(&config(&[&server]));
    let groups: Vec<_> = ["a", "b", "c"].map(|text| vec![request(text)]).into();
    let message = llm.ask(&groups, &Progress::silent()).unwrap_err().to_string();
    assert!(message.contains("no model named tiny") && message.contains("HTTP 404"), "{message}");
    assert!(server.seen().len() <= 3, "nothing is sent again");
}

#[derive(Default)]
struct Said(Mutex<Vec<String>>);

impl Watcher for Said {
    fn begin(&self, _: &str, _: u64, _: &'static str) {}
    fn advance(&self, _: u64) {}
    fn say(&self, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }
}

#[test]
fn a_server_without_schemas_is_found_out_once() {
    let server = StandIn::start(|_, body| match body.get("response_format") {
        Some(_) => Play::Status(400, "response_format is not supported", vec![]),
        None => Play::Say("free".into()),
    });
    let llm = Room::new().open(&LlmConfig { concurrency: 1, ..config(&[&server]) });
    let said = Said::default();
    let groups: Vec<_> = ["a", "b", "c"].map(|text| vec![request(text)]).into();
    let replies = llm.ask(&groups, &Progress::new(&said)).unwrap();
    assert_eq!(text(&replies[2][0]), "free");
    assert_eq!(server.seen().len(), 4, "refused once");
    let said = said.0.lock().unwrap();
    assert!(said.len() == 1 && said[0].contains("response_format"), "{said:?}");
}

fn texts(server: &StandIn) -> Vec<String> {
    server.seen().iter().map(|seen| seen.body["messages"][1]["content"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn requests_of_a_query_go_to_one_server_and_the_first_goes_alone() {
    let servers = [StandIn::start(|_, _| Play::Say("x".into())), StandIn::start(|_, _| Play::Say("x".into()))];
    let llm = Room::new().open(&config(&[&servers[0], &servers[1]]));
    let group = |query: usize| (0..5).map(|rank| request(&format!("{query} {rank}"))).collect::<Vec<_>>();
    llm.ask(&(0..12).map(group).collect::<Vec<_>>(), &Progress::silent()).unwrap();
    let both = [texts(&servers[0]), texts(&servers[1])];
    assert!(both.iter().all(|texts| !texts.is_empty()), "both servers work");
    for query in 0..12 {
        let prefix = format!("{query} ");
        let of_query = |texts: &Vec<String>| -> Vec<String> {
            texts.iter().filter(|text| text.starts_with(&prefix)).cloned().collect()
        };
        let lists = [of_query(&both[0]), of_query(&both[1])];
        let mut list = lists.iter().find(|list| !list.is_empty()).unwrap().clone();
        assert_eq!(list[0], format!("{query} 0"));
        list.sort();
        assert_eq!(list, (0..5).map(|rank| format!("{query} {rank}")).collect::<Vec<_>>());
    }
}

#[test]
fn idle_threads_help_with_the_last_queries() {
    let server = StandIn::start(|_, _| Play::Slow(Duration::from_millis(100), "x".into()));
    let llm = Room::new().open(&LlmConfig { concurrency: 8, ..config(&[&server]) });
    let group: Vec<Request> = (0..17).map(|rank| request(&rank.to_string())).collect();
    llm.ask(&[group], &Progress::silent()).unwrap();
    assert_eq!((texts(&server)[0].as_str(), server.most_in_flight()), ("0", 8));
}

/// Against a server that takes 200 ms, at least 95 % of what 64 requests in flight could reach.
#[test]
#[ignore = "measures time, so it wants a quiet machine: cargo test --release -p motherlode --lib throughput -- --ignored --nocapture"]
fn throughput_reaches_the_allowed_concurrency() {
    let server = StandIn::start(|_, _| Play::Slow(Duration::from_millis(200), "x".into()));
    let (concurrency, queries, passages) = (64, 64, 20);
    let llm = Room::new().open(&LlmConfig { concurrency, timeout_seconds: 60.0, ..config(&[&server]) });
    let group = |query: usize| (0..passages).map(|rank| request(&format!("{query} {rank}"))).collect();
    let groups: Vec<Vec<Request>> = (0..queries).map(group).collect();
    let started = Instant::now();
    llm.ask(&groups, &Progress::silent()).unwrap();
    let ideal = (queries * passages) as f64 / concurrency as f64 * 0.2;
    let share = ideal / started.elapsed().as_secs_f64();
    println!("{:.1} % of the ideal throughput", 100.0 * share);
    assert!(share >= 0.95 && server.most_in_flight() == concurrency, "{share}");
}

#[test]
fn as_many_requests_are_in_flight_as_allowed() {
    let server = StandIn::start(|_, _| Play::Slow(Duration::from_millis(200), "x".into()));
    let llm = Room::new().open(&LlmConfig { concurrency: 3, ..config(&[&server]) });
    let groups: Vec<_> = (0..6).map(|number| vec![request(&number.to_string())]).collect();
    llm.ask(&groups, &Progress::silent()).unwrap();
    assert_eq!(server.most_in_flight(), 3);
}

#[test]
fn a_spent_budget_leaves_the_rest_unanswered_but_not_what_is_known() {
    let server = StandIn::start(|_, _| Play::Say("x".into()));
    let room = Room::new();
    room.open(&config(&[&server])).ask(&[vec![request("known")]], &Progress::silent()).unwrap();
    let llm = room.open(&LlmConfig { max_calls: Some(2), concurrency: 1, ..config(&[&server]) });
    let groups: Vec<_> = ["a", "b", "c", "known", "d"].map(|text| vec![request(text)]).into();
    let replies = llm.ask(&groups, &Progress::silent()).unwrap();
    let answered: Vec<bool> = replies.iter().map(|group| matches!(group[0], Reply::Answered { .. })).collect();
    assert_eq!(answered, [true, true, false, true, false]);
    assert_eq!((llm.usage().calls, llm.usage().unanswered, server.seen().len()), (2, 2, 3));
    let later = llm.ask(&[vec![request("e")]], &Progress::silent()).unwrap();
    assert_eq!(later[0][0], Reply::Unanswered(Unanswered::Budget));
}

/// The only test that touches this variable's name, so that tests in parallel do not meet.
fn with_key(name: &str) -> LlmConfig {
    LlmConfig { api_key_env: Some(name.into()), ..LlmConfig::default() }
}

#[test]
fn a_missing_key_names_the_variable() {
    let server = StandIn::start(|_, _| Play::Say("x".into()));
    let llm = Room::new().open(&LlmConfig { endpoints: vec![server.url()], ..with_key("MOTHERLODE_NO_SUCH_KEY") });
    let message = llm.ask(&[vec![request("q")]], &Progress::silent()).unwrap_err().to_string();
    assert!(message.contains("`MOTHERLODE_NO_SUCH_KEY`") && server.seen().is_empty(), "{message}");
}

#[test]
fn the_key_is_sent_and_shown_nowhere() {
    // `PATH` is set wherever tests run; its value stands for a key.
    let secret = std::env::var("PATH").unwrap();
    let echo = secret.clone();
    let server = StandIn::start(move |number, _| match number {
        0 => Play::Say("x".into()),
        _ => Play::Body(json!({"error": {"message": format!("wrong key {echo}")}}).to_string()),
    });
    let room = Room::new();
    let llm = room.open(&LlmConfig { endpoints: vec![server.url()], max_retries: 0, ..with_key("PATH") });
    llm.ask(&[vec![request("q")]], &Progress::silent()).unwrap();
    assert_eq!(server.seen()[0].authorization, Some(format!("Bearer {secret}")));
    let message = llm.ask(&[vec![request("other")]], &Progress::silent()).unwrap_err().to_string();
    assert!(message.contains("wrong key ***") && !message.contains(&secret), "{message}");
    let mut exported = Vec::new();
    llm.ledger().export_jsonl(&mut exported, Path::new("out"), None).unwrap();
    assert!(!String::from_utf8(exported).unwrap().contains(&secret));
}

/// Writes a GGUF file without weights: a tokenizer of bytes with two control tokens, and a chat template.
pub(super) fn byte_model(path: &Path) {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let list = |kind: u32, items: Vec<Vec<u8>>| {
        [&kind.to_le_bytes()[..], &(items.len() as u64).to_le_bytes(), &items.concat()].concat()
    };
    let printed = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut others = (256..).filter_map(char::from_u32);
    let mut tokens: Vec<Vec<u8>> = Vec::new();
    for byte in 0..=255_u8 {
        let character = if printed(byte) { char::from(byte) } else { others.next().unwrap() };
        tokens.push(text(&character.to_string()));
    }
    tokens.extend([text("<|start|>"), text("<|end|>")]);
    let types = (0..258).map(|token: i32| (if token < 256 { 1_i32 } else { 3 }).to_le_bytes().to_vec()).collect();
    let template = "{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message.content.strip() }}<|end|>\n\
                    {% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}";
    let settings = [
        ("tokenizer.ggml.model", 8_u32, text("gpt2")),
        ("tokenizer.ggml.pre", 8, text("default")),
        ("tokenizer.ggml.tokens", 9, list(8, tokens)),
        ("tokenizer.ggml.token_type", 9, list(5, types)),
        ("tokenizer.ggml.merges", 9, list(8, Vec::new())),
        ("tokenizer.ggml.eos_token_id", 4, 257_u32.to_le_bytes().to_vec()),
        ("tokenizer.chat_template", 8, text(template)),
    ];
    let mut bytes = [b"GGUF".to_vec(), 3_u32.to_le_bytes().to_vec(), 0_u64.to_le_bytes().to_vec()].concat();
    bytes.extend((settings.len() as u64).to_le_bytes());
    for (name, kind, value) in settings {
        bytes.extend([text(name), kind.to_le_bytes().to_vec(), value].concat());
    }
    std::fs::write(path, bytes).unwrap();
}

/// Says `2` where it may, and ends; a prompt may have 200 tokens with its answer.
struct Optimist;

impl Engine for Optimist {
    fn encoder(&self, _: &Path, _: &LoadOptions) -> Result<Box<dyn Encoder>> {
        unreachable!("nothing is encoded")
    }

    fn trainable(&self, _: &Path, _: &LoadOptions) -> Result<Box<dyn Trainable>> {
        unreachable!("nothing is trained")
    }

    fn trainable_lm(&self, _: &Path, _: &LoadOptions) -> Result<Box<dyn TrainableLm>> {
        unreachable!("nothing is trained")
    }

    fn encoding_footprint(&self, _: &Path, _: &LoadOptions, _: usize) -> Result<Footprint> {
        unreachable!("nothing is encoded")
    }

    fn training_footprint(&self, _: &Path, _: &LoadOptions, _: &[usize]) -> Result<Footprint> {
        unreachable!("nothing is trained")
    }

    fn language_model(&self, _: Arc<Gguf>, _: Precision) -> Result<Box<dyn LanguageModel>> {
        Ok(Box::new(Self))
    }
}

impl LanguageModel for Optimist {
    fn longest(&self) -> usize {
        200
    }

    fn vocabulary(&self) -> usize {
        258
    }

    fn continue_texts(&self, groups: &[Vec<Vec<u32>>], choose: &Choose) -> Result<()> {
        let scores: Vec<f32> = (0..258).map(|token| if token == usize::from(b'2') { 1.0 } else { 0.0 }).collect();
        for (group, prompts) in groups.iter().enumerate() {
            for prompt in 0..prompts.len() {
                while choose(group, prompt, &scores) != Next::End {}
            }
        }
        Ok(())
    }
}

impl Room {
    /// With the model `tiny` in the process.
    fn embedded(&self, change: impl FnOnce(&mut LlmConfig)) -> Llm {
        let path = self.folder.path().join("tiny.gguf");
        byte_model(&path);
        let file = path.display().to_string();
        let tiny = EmbeddedModel { name: "tiny".into(), file, precision: Precision::F32 };
        let mut config = LlmConfig { embedded: vec![tiny], ..LlmConfig::default() };
        change(&mut config);
        self.open(&config).run_with(Arc::new(Optimist), self.folder.path())
    }
}

fn graded(text: &str) -> Request {
    let grade = json!({"enum": [0, 1, 2]});
    let schema = json!({"properties": {"a": grade, "b": grade}, "required": ["a", "b"]});
    Request { parameters: Parameters { schema: Some(schema), ..Parameters::greedy(32) }, ..request(text) }
}

#[test]
fn an_embedded_model_answers_into_the_ledger() {
    let room = Room::new();
    let llm = room.embedded(|_| {});
    let groups = [vec![graded("q"), graded("r")], vec![graded("q")]];
    let replies = llm.ask(&groups, &Progress::silent()).unwrap();
    assert_eq!(text(&replies[0][1]), r#"{"a": 2, "b": 2}"#);
    assert_eq!(replies[1][0], replies[0][0], "equal requests are asked once");
    let usage = llm.usage();
    assert_eq!((usage.calls, llm.ledger().len().unwrap()), (2, 2));
    assert!(usage.prompt_tokens > 60 && usage.completion_tokens > 10);
    drop(llm);
    let later = room.open(&LlmConfig::default());
    assert_eq!(text(&later.ask(&groups, &Progress::silent()).unwrap()[0][0]), r#"{"a": 2, "b": 2}"#);
}

#[test]
fn prompts_that_are_too_long_are_counted_before_anything_is_asked() {
    let room = Room::new();
    let llm = room.embedded(|_| {});
    let groups = [vec![graded("q"), graded(&"long ".repeat(40)), graded(&"longer ".repeat(40))]];
    let error = llm.ask(&groups, &Progress::silent()).unwrap_err().to_string();
    assert!(error.contains("2 prompts") && error.contains("200 tokens") && error.contains("query `long"), "{error}");
    assert!(llm.ledger().is_empty().unwrap());
}

#[test]
fn an_embedded_model_keeps_to_the_budget() {
    let room = Room::new();
    let llm = room.embedded(|config| config.max_calls = Some(1));
    let replies = llm.ask(&[vec![graded("q"), graded("r")]], &Progress::silent()).unwrap();
    assert_eq!(replies[0][1], Reply::Unanswered(Unanswered::Budget));
}

#[test]
fn azure_gets_the_key_in_its_own_header() {
    let secret = std::env::var("PATH").unwrap();
    let server = StandIn::start(|_, _| Play::Say("x".into()));
    let base = server.url().trim_end_matches("/v1").to_owned();
    let config = LlmConfig {
        endpoints: vec![base],
        api: Api::Azure,
        api_version: Some("2024-10-21".into()),
        ..with_key("PATH")
    };
    Room::new().open(&config).ask(&[vec![request("q")]], &Progress::silent()).unwrap();
    let seen = &server.seen()[0];
    assert_eq!((seen.api_key.as_ref(), seen.authorization.as_ref()), (Some(&secret), None));
    assert_eq!(seen.path, "/openai/deployments/tiny/chat/completions?api-version=2024-10-21");
}

#[test]
fn a_server_that_wants_the_other_name_of_the_limit_gets_it() {
    let server = StandIn::start(|_, body| match body.get("max_tokens") {
        Some(_) => Play::Status(400, "use 'max_completion_tokens' instead of 'max_tokens'", vec![]),
        None => Play::Say(body["max_completion_tokens"].to_string()),
    });
    let llm = Room::new().open(&LlmConfig { concurrency: 1, ..config(&[&server]) });
    let replies = llm.ask(&[vec![request("a"), request("b")]], &Progress::silent()).unwrap();
    assert_eq!((text(&replies[0][1]), server.seen().len()), ("32", 3));
}

#[test]
fn an_unreachable_server_is_named_before_anything_is_sent() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    let room = Room::new();
    let started = Instant::now();
    let llm = room.open(&LlmConfig { endpoints: vec![url.clone()], ..LlmConfig::default() });
    let message = llm.check(&[vec![request("q")]]).unwrap_err().to_string();
    assert!(message.contains(&url) && message.contains("cannot be reached"), "{message}");
    assert!(started.elapsed() < Duration::from_secs(5), "no retries");
}

#[test]
fn a_context_that_is_too_short_is_told_before_the_first_request() {
    let models = json!({"data": [{"id": "tiny", "max_model_len": 60}]});
    let server = StandIn::serving(Some(models), |_, _| Play::Say("x".into()));
    let llm = Room::new().open(&config(&[&server]));
    let groups = [vec![request("short"), request(&"long ".repeat(100))]];
    let message = llm.ask(&groups, &Progress::silent()).unwrap_err().to_string();
    assert!(message.contains("1 of 2 requests need more than the 60 tokens"), "{message}");
    let facts = ModelFacts { context: Some(4096), ..ModelFacts::default() };
    let llm = Room::new().open(&LlmConfig { models: [("tiny".to_owned(), facts)].into(), ..config(&[&server]) });
    llm.ask(&groups, &Progress::silent()).unwrap();
    assert_eq!(server.seen().len(), 2, "the recipe knows better");
}

#[test]
fn money_needs_the_models_price() {
    let server = StandIn::start(|_, _| Play::Say("x".into()));
    let facts = ModelFacts { prompt_price: 1.0, ..ModelFacts::default() };
    let priced = LlmConfig { max_cost: Some(1.0), models: [("other".to_owned(), facts)].into(), ..config(&[&server]) };
    let message = Room::new().open(&priced).check(&[vec![request("q")]]).unwrap_err().to_string();
    assert!(message.contains("the model `tiny` has no price"), "{message}");
}

#[test]
fn a_refused_key_is_told_before_anything_is_sent() {
    let secret = std::env::var("PATH").unwrap();
    let words = format!("no such key {secret}");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 1024];
        let _ = std::io::Read::read(&mut stream, &mut head);
        let answer = format!("HTTP/1.1 401 X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{words}", words.len());
        std::io::Write::write_all(&mut stream, answer.as_bytes()).unwrap();
    });
    let llm = Room::new().open(&LlmConfig { endpoints: vec![url], ..with_key("PATH") });
    let message = llm.check(&[vec![request("q")]]).unwrap_err().to_string();
    assert!(message.contains("refuses the key: no such key ***") && !message.contains(&secret), "{message}");
}

#[test]
fn labels_come_back_as_log_probabilities() {
    let body = json!({"choices": [{"message": {"content": "yes"}, "logprobs": {"content": [{"token": "yes",
        "logprob": -0.25, "top_logprobs": [{"token": "yes", "logprob": -0.25}, {"token": "no", "logprob": -2.0}]}]}}]});
    let scored = Request { parameters: Parameters::scores(&["yes", "no"]), ..request("q") };
    let server = StandIn::start(move |_, _| Play::Body(body.to_string()));
    let replies = Room::new().open(&config(&[&server])).ask(&[vec![scored.clone()]], &Progress::silent()).unwrap();
    let scores: std::collections::BTreeMap<String, f64> = serde_json::from_str(text(&replies[0][0])).unwrap();
    assert!((scores["yes"] + 0.25).abs() < 1e-12 && (scores["no"] + 2.0).abs() < 1e-12, "{scores:?}");
    let sent = &server.seen()[0].body;
    assert_eq!((&sent["max_tokens"], &sent["logprobs"], &sent["top_logprobs"]), (&json!(1), &json!(true), &json!(20)));
    let without = StandIn::start(|_, _| Play::Say("yes".into()));
    let message =
        Room::new().open(&config(&[&without])).ask(&[vec![scored]], &Progress::silent()).unwrap_err().to_string();
    assert!(message.contains("no `logprobs`"), "{message}");
}

#[test]
fn a_batch_is_written_and_its_answers_taken_in() {
    let room = Room::new();
    let path = |name: &str| room.folder.path().join(name);
    let groups = [vec![request("a"), request("b")], vec![Request { model: "other".into(), ..request("a") }]];
    let llm = room.open(&LlmConfig::default()).collecting();
    let replies = llm.ask(&groups, &Progress::silent()).unwrap();
    assert!(replies.iter().flatten().all(|reply| *reply == Reply::Unanswered(Unanswered::Batch)));
    let files = llm.write_batch(&path("batch.jsonl")).unwrap();
    let told: Vec<_> = files.iter().map(|file| (file.path.clone(), file.model.as_str(), file.requests)).collect();
    assert_eq!(told, [(path("batch.jsonl"), "other", 1), (path("batch-2.jsonl"), "tiny", 2)]);
    let lines = std::fs::read_to_string(path("batch-2.jsonl")).unwrap();
    let sent: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&sent[0]["method"], &sent[0]["url"]), (&json!("POST"), &json!("/v1/chat/completions")));
    assert_eq!(sent[0]["body"]["response_format"]["type"], "json_schema");
    drop(llm);

    let body: serde_json::Value = serde_json::from_str(&completion("from the batch")).unwrap();
    let key = request("b").key();
    let good = json!({"id": "1", "custom_id": key, "response": {"status_code": 200, "body": body}, "error": null});
    let bad = json!({"id": "2", "custom_id": "x", "response": {"status_code": 429, "body":
        {"error": {"message": "slow down"}}}, "error": null});
    std::fs::write(path("out.jsonl"), format!("{good}\n{bad}\n")).unwrap();
    let llm = room.open(&LlmConfig::default()).with_batch(&path("out.jsonl")).unwrap().collecting();
    let replies = llm.ask(&groups, &Progress::silent()).unwrap();
    assert_eq!(text(&replies[0][1]), "from the batch");
    assert_eq!(llm.write_batch(&path("again.jsonl")).unwrap().len(), 2, "the rest is asked again");
    assert!(llm.batch_note().unwrap().contains("failed on 1 requests, the first with: slow down"));
    drop(llm);
    let offline = room.open(&LlmConfig::default()).ask(&[vec![request("b")]], &Progress::silent()).unwrap();
    assert_eq!(text(&offline[0][0]), "from the batch", "the ledger has it");
    std::fs::write(path("out.jsonl"), "no json").unwrap();
    let error = room.open(&LlmConfig::default()).with_batch(&path("out.jsonl")).err().unwrap().to_string();
    assert!(error.contains("out.jsonl:1: expected a line of a batch's output file"), "{error}");
}

/// A server that can do four requests at a time and refuses more at once.
#[test]
fn a_server_that_refuses_more_gets_fewer() {
    let (flying, refused) = (AtomicUsize::new(0), Arc::new(Mutex::new(Vec::new())));
    let kept = Arc::clone(&refused);
    let server = StandIn::start(move |_, _| {
        let is_too_much = flying.fetch_add(1, Ordering::SeqCst) >= 4;
        refused.lock().unwrap().push(is_too_much);
        std::thread::sleep(Duration::from_millis(if is_too_much { 0 } else { 50 }));
        flying.fetch_sub(1, Ordering::SeqCst);
        if is_too_much { Play::Status(429, "slow down", vec![]) } else { Play::Say("x".into()) }
    });
    let llm = Room::new().open(&LlmConfig { concurrency: 16, max_retries: 20, ..config(&[&server]) });
    let groups: Vec<_> = (0..80).map(|number| vec![request(&number.to_string())]).collect();
    llm.ask(&groups, &Progress::silent()).unwrap();
    let refused = kept.lock().unwrap();
    let share = |part: &[bool]| part.iter().filter(|refused| **refused).count() as f64 / part.len() as f64;
    let (first, rest) = refused.split_at(16);
    assert_eq!(llm.usage().calls, 80);
    assert!(share(first) > 0.5 && share(rest) < 0.35, "{} then {}", share(first), share(rest));
}
