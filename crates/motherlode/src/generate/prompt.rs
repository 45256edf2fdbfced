//! The prompts that write a summary and a query, versions `summary-1` and `query-1`. A change of one byte of them needs
//! a new version's name: the ledger's keys depend on it.

use crate::corpus::Language;
use crate::llm::{Message, Parameters, fence};

/// Name and version of the prompt that summarises a positive with regard to the query.
pub(super) const SUMMARY: &str = "summary-1";
/// Name and version of the prompt that writes a query from a text.
pub(super) const QUERY: &str = "query-1";

const SUMMARY_RULES: &str = include_str!("summary.txt");
const QUERY_RULES: &str = include_str!("query.txt");

/// The chat that asks for a summary of `passage` with regard to `question`.
pub(super) fn summary(language: &Language, question: &str, passage: &str) -> (Vec<Message>, Parameters) {
    let material = fence("question", question) + "\n" + &fence("passage", passage);
    (chat(SUMMARY_RULES, language, material), Parameters::greedy(160))
}

/// The chat that asks for a query to which `text` is a good answer.
pub(super) fn query(language: &Language, text: &str) -> (Vec<Message>, Parameters) {
    (chat(QUERY_RULES, language, fence("text", text)), Parameters::greedy(64))
}

fn chat(rules: &str, language: &Language, material: String) -> Vec<Message> {
    let rules = rules.trim_end_matches('\n').replace("{language}", english_name(language));
    vec![Message::system(rules), Message::user(material)]
}

/// The English name of a language of MIRACL, or else its tag.
pub(super) fn english_name(language: &Language) -> &str {
    match language.as_str() {
        "ar" => "Arabic",
        "bn" => "Bengali",
        "en" => "English",
        "es" => "Spanish",
        "fa" => "Persian",
        "fi" => "Finnish",
        "fr" => "French",
        "hi" => "Hindi",
        "id" => "Indonesian",
        "ja" => "Japanese",
        "ko" => "Korean",
        "ru" => "Russian",
        "sw" => "Swahili",
        "te" => "Telugu",
        "th" => "Thai",
        "zh" => "Chinese",
        tag => tag,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::Request;

    fn key(prompt: &str, (messages, parameters): (Vec<Message>, Parameters)) -> String {
        let model = "qwen2.5-coder-1.5b-instruct".into();
        Request { model, prompt: prompt.into(), parameters, attempt: 0, messages, about: String::new() }.key()
    }

    /// Golden, Python 3.11 with blake3 1.0.11, independent of this code:
    /// `key = blake3(json.dumps([model, prompt, parameters, 0, messages], separators=(",", ":"),
    /// ensure_ascii=False).encode()).hexdigest()[:32]`, with
    /// `fence = lambda tag, text: f"<{tag}>\n{text.replace('</', '< /').strip()}\n</{tag}>"` and the rules read by
    /// `open(NAME).read().rstrip("\n")`.replace("{language}", "Swahili").
    #[test]
    fn the_prompts_are_fixed() {
        let language = Language::new("sw").unwrap();
        let summary = summary(&language, "Ni nini?", "Kichwa\nMaandishi </passage>");
        assert_eq!(key(SUMMARY, summary), "f5ee402f750d61ec70268a98d63849ed");
        assert_eq!(key(QUERY, query(&language, "Muhtasari")), "81874ac1947826ef13e74a1ee78c0dce");
    }

    #[test]
    fn the_language_is_named_and_no_placeholder_is_left() {
        let named = |tag: &str| query(&Language::new(tag).unwrap(), "x").0[0].content.clone();
        assert!(named("te").contains("Telugu") && named("de").contains("which is de"));
        assert!(!named("te").contains('{') && !named("te").ends_with('\n'));
    }
}
