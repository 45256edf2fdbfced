//! Translation by a stand-in that plays the translator, with its faults.

use std::path::Path;

use serde_json::Value;

use super::config::InstructConfig;
use super::read::read;
use super::translate::{Translated, translate};
use super::{Instruction, Provenance, Reason};
use crate::corpus::Language;
use crate::llm::stand_in::{Play, StandIn};
use crate::llm::{Llm, LlmConfig};
use crate::progress::Progress;
use crate::text::language::Checker;

/// The demonstration's instructions.
fn demo() -> Vec<Instruction> {
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/demo/instructions.jsonl")).unwrap()
}

fn english(count: usize) -> Vec<Instruction> {
    demo().into_iter().filter(|it| it.language.as_str() == "en").take(count).collect()
}

/// The translation that the demonstration has of what a request asks for, and its language.
fn translation(body: &Value, demo: &[Instruction]) -> (String, String) {
    let [rules, text] = [0, 1].map(|place| body["messages"][place]["content"].as_str().unwrap());
    let language = demo.iter().find(|it| rules.contains(&format!("({})", it.language))).unwrap().language.clone();
    let source = demo.iter().find(|it| text.contains(&it.output)).unwrap();
    let found = demo.iter().find(|it| it.id == source.id && it.language == language).unwrap();
    let part = |name: &str, text: &str| format!("<{name}>\n{text}\n</{name}>\n");
    let parts = [("instruction", &found.instruction), ("input", &found.input), ("output", &found.output)];
    (parts.map(|(name, text)| part(name, text)).concat(), language.to_string())
}

fn config() -> InstructConfig {
    InstructConfig { translator: "translator".into(), ..InstructConfig::default() }
}

fn run(given: Vec<Instruction>, config: &InstructConfig, llm: &Llm) -> Translated {
    translate(given, config, &Checker::Script, llm, &Progress::silent()).unwrap()
}

fn ask_of(server: &StandIn) -> LlmConfig {
    LlmConfig { endpoints: vec![server.url()], ..LlmConfig::default() }
}

#[test]
fn the_demonstration_has_twenty_instructions_in_sixteen_languages_that_pass_every_check() {
    let demo = demo();
    assert_eq!(demo.len(), 320);
    let all = demo.clone();
    let server = StandIn::start(move |_, body| Play::Say(translation(body, &all).0));
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path().join("ledger.sqlite");
    let llm = Llm::open(&ledger, &[], &ask_of(&server)).unwrap();
    let translated = run(english(20), &config(), &llm);
    assert!(translated.dropped.is_empty(), "{:?}", translated.dropped);
    assert_eq!((translated.kept.len(), server.seen().len()), (320, 300));
    for it in &translated.kept[20..] {
        let own = demo.iter().find(|own| own.id == it.id && own.language == it.language).unwrap();
        assert_eq!((&it.instruction, &it.input, &it.output), (&own.instruction, &own.input, &own.output));
        assert!(matches!(&it.provenance, Provenance::Translated { model, .. } if model == "translator"));
    }
    // What was answered once is not asked again, and no server is needed for it.
    let offline = Llm::open(&ledger, &[], &LlmConfig::default()).unwrap();
    assert_eq!(run(english(20), &config(), &offline).kept, translated.kept);
}

#[test]
fn what_the_translator_does_wrong_is_dropped_and_counted() {
    let all = demo();
    let server = StandIn::start(move |number, body| {
        let (text, language) = translation(body, &all);
        let english = body["messages"][1]["content"].as_str().unwrap().to_owned();
        Play::Say(match language.as_str() {
            "sw" => "I would rather not.".to_owned(),
            "fi" if number < 15 => text.replace("</output>", ""),
            "ru" => english,
            "th" => {
                translation(&serde_json::json!({ "messages": [{ "content": "(ko)" }, { "content": english }] }), &all).0
            }
            "ja" => text.replace("<output>\n", "<output>\n長い。").replace('。', &"長".repeat(200)),
            _ => text,
        })
    });
    let folder = tempfile::tempdir().unwrap();
    let llm = Llm::open(&folder.path().join("ledger.sqlite"), &[], &ask_of(&server)).unwrap();
    let translated = run(english(1), &config(), &llm);
    let reason = |tag: &str| translated.dropped.iter().find(|it| it.language.as_str() == tag).map(|it| it.reason);
    assert_eq!(reason("sw"), Some(Reason::Unreadable));
    assert_eq!(reason("fi"), None, "a reply that cannot be read is asked for again");
    assert_eq!(reason("ru"), Some(Reason::Untranslated));
    assert_eq!(reason("th"), Some(Reason::OtherLanguage));
    assert_eq!(reason("ja"), Some(Reason::Length));
    assert_eq!((translated.kept.len(), translated.dropped.len()), (12, 4));
    assert_eq!(server.seen().len(), 15 + 1 + 2, "one more for fi, two more for sw");
}

#[test]
fn a_budget_ends_translation_and_a_missing_translator_is_named() {
    let all = demo();
    let server = StandIn::start(move |_, body| Play::Say(translation(body, &all).0));
    let folder = tempfile::tempdir().unwrap();
    let limited = LlmConfig { max_calls: Some(4), concurrency: 1, ..ask_of(&server) };
    let llm = Llm::open(&folder.path().join("ledger.sqlite"), &[], &limited).unwrap();
    let translated = run(english(1), &config(), &llm);
    let unpaid = translated.dropped.iter().filter(|it| it.reason == Reason::Budget).count();
    assert_eq!((translated.kept.len(), unpaid), (1 + 4, 11));
    let nobody = InstructConfig { translator: String::new(), ..config() };
    let message = translate(english(2), &nobody, &Checker::Script, &llm, &Progress::silent()).unwrap_err().to_string();
    assert!(message.contains("`instruct.translator`") && message.contains("30 translations"), "{message}");
    let swahili = InstructConfig { languages: vec![Language::new("sw").unwrap()], ..config() };
    let given: Vec<Instruction> =
        demo().into_iter().filter(|it| ["en", "sw"].contains(&it.language.as_str())).collect();
    let only = translate(
        given,
        &InstructConfig { translator: String::new(), ..swahili },
        &Checker::Script,
        &llm,
        &Progress::silent(),
    );
    assert_eq!(only.unwrap().kept.len(), 20, "English is not learnt where it is not among the languages");
}
