//! The prompts that write a summary and a query, versions `summary-1` and `query-1`, and those that ask what the authors'
//! code asks, `summary-paper-1` and `query-paper-1`. A change of one byte of them needs a new version's name: the ledger's
//! keys depend on it.

use super::config::Prompts;
use crate::corpus::Language;
use crate::llm::{Message, Parameters, fence};

const SUMMARY_RULES: &str = include_str!("summary.txt");
const QUERY_RULES: &str = include_str!("query.txt");
const PAPER_SUMMARY_RULES: &str = include_str!("summary-paper.txt");
const PAPER_QUERY_RULES: &str = include_str!("query-paper.txt");

/// A prompt's name and version with the chat and how it is to be answered.
pub(super) struct Prompt {
    pub(super) name: &'static str,
    pub(super) messages: Vec<Message>,
    pub(super) parameters: Parameters,
}

/// Asks for a summary of `passage`: with regard to `question`, but for the authors' prompt, which does not show it.
pub(super) fn summary(prompts: Prompts, language: &Language, question: &str, passage: &str) -> Prompt {
    let passage = fence("passage", passage);
    match prompts {
        Prompts::QueryCentric => Prompt {
            name: "summary-1",
            messages: chat(SUMMARY_RULES, language, fence("question", question) + "\n" + &passage),
            parameters: Parameters::greedy(160),
        },
        Prompts::Paper => Prompt {
            name: "summary-paper-1",
            messages: chat(PAPER_SUMMARY_RULES, language, passage),
            parameters: sampled(256),
        },
    }
}

/// Asks for a query to which `text` is a good answer.
pub(super) fn query(prompts: Prompts, language: &Language, text: &str) -> Prompt {
    let text = fence("text", text);
    match prompts {
        Prompts::QueryCentric => {
            Prompt { name: "query-1", messages: chat(QUERY_RULES, language, text), parameters: Parameters::greedy(64) }
        }
        Prompts::Paper => Prompt {
            name: "query-paper-1",
            messages: chat(PAPER_QUERY_RULES, language, text),
            parameters: sampled(128),
        },
    }
}

/// The authors' sampling; theirs has no seed.
///
/// Source: the paper's code, anchors 1.4.
fn sampled(max_tokens: u32) -> Parameters {
    Parameters { temperature: 0.7, top_p: 0.9, ..Parameters::greedy(max_tokens) }
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

    fn key(prompt: Prompt) -> String {
        let Prompt { name, messages, parameters } = prompt;
        let model = "qwen2.5-coder-1.5b-instruct".into();
        Request { model, prompt: name.into(), parameters, attempt: 0, messages, about: String::new() }.key()
    }

    /// Golden, Python 3.11 with blake3 1.0.11, independent of this code:
    /// `key = blake3(json.dumps([model, prompt, parameters, 0, messages], separators=(",", ":"),
    /// ensure_ascii=False).encode()).hexdigest()[:32]`, with
    /// `fence = lambda tag, text: f"<{tag}>\n{text.replace('</', '< /').strip()}\n</{tag}>"` and the rules read by
    /// `open(NAME).read().rstrip("\n")`.replace("{language}", "Swahili"); the authors' by tests/golden/judge.py.
    #[test]
    fn the_prompts_are_fixed() {
        let language = Language::new("sw").unwrap();
        let summary = |prompts| key(summary(prompts, &language, "Ni nini?", "Kichwa\nMaandishi </passage>"));
        let query = |prompts| key(query(prompts, &language, "Muhtasari"));
        assert_eq!(summary(Prompts::QueryCentric), "f5ee402f750d61ec70268a98d63849ed");
        assert_eq!(query(Prompts::QueryCentric), "81874ac1947826ef13e74a1ee78c0dce");
        assert_eq!(summary(Prompts::Paper), "867b7d7a54c30245874a5a6adb5b5cfd");
        assert_eq!(query(Prompts::Paper), "64c41011d6f154ceada340a8cdc26a13");
    }

    #[test]
    fn the_authors_summary_does_not_see_the_query() {
        let prompt = summary(Prompts::Paper, &Language::new("sw").unwrap(), "Ni nini?", "Maandishi");
        assert!(prompt.messages.iter().all(|message| !message.content.contains("Ni nini?")));
        assert_eq!((prompt.parameters.temperature, prompt.parameters.max_tokens), (0.7, 256));
    }

    #[test]
    fn the_language_is_named_and_no_placeholder_is_left() {
        let named =
            |tag: &str| query(Prompts::QueryCentric, &Language::new(tag).unwrap(), "x").messages[0].content.clone();
        assert!(named("te").contains("Telugu") && named("de").contains("which is de"));
        assert!(!named("te").contains('{') && !named("te").ends_with('\n'));
    }
}
