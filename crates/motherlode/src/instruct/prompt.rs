//! The prompt that has an instruction translated, version `translate-1`, and how the reply is read. A change of one byte of
//! it needs a new version's name: the ledger's keys depend on it.

use super::Instruction;
use crate::corpus::{Language, language_name};
use crate::llm::{Message, Parameters, Request, estimate_tokens, fence};

const RULES: &str = include_str!("translate.txt");
const NAME: &str = "translate-1";
/// Tokens of a translation for each of the English text: some scripts take many.
const TOKENS: u64 = 6;
/// Tokens of the tags, and more.
const TAGS: u64 = 100;
const MOST_TOKENS: u64 = 8192;

/// Asks for the translation of an English instruction.
pub(super) fn request(it: &Instruction, language: &Language, model: &str, attempt: u32) -> Request {
    let parts: Vec<String> = it.parts().map(|(name, text)| fence(name, text)).collect();
    let tokens: u64 = it.parts().map(|(_, text)| estimate_tokens(text)).sum();
    let rules = RULES.trim_end().replace("{language}", &language_name(language));
    Request {
        model: model.to_owned(),
        prompt: NAME.to_owned(),
        parameters: Parameters::greedy((TOKENS * tokens + TAGS).min(MOST_TOKENS) as u32),
        attempt,
        messages: vec![Message::system(rules), Message::user(parts.join("\n"))],
        about: format!("instruction `{}` ({language})", it.id),
    }
}

/// The parts of a reply, as many as were asked for; none if one is missing or empty.
pub(super) fn read(reply: &str, source: &Instruction) -> Option<[String; 3]> {
    let part = |name: &str, source: &str| {
        if source.is_empty() {
            return Some(String::new());
        }
        let (_, rest) = reply.split_once(&format!("<{name}>"))?;
        let (text, _) = rest.split_once(&format!("</{name}>"))?;
        let text = if source.contains("</") { text.replace("< /", "</") } else { text.to_owned() };
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    Some([part("instruction", &source.instruction)?, part("input", &source.input)?, part("output", &source.output)?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruct::Provenance;

    fn source(input: &str) -> Instruction {
        Instruction {
            id: "7".into(),
            language: Language::new("en").unwrap(),
            instruction: "Summarize the text.".into(),
            input: input.into(),
            output: "Rivers flow.".into(),
            provenance: Provenance::Given { line: 1 },
            validation: false,
        }
    }

    /// Golden, Python 3.11 with blake3 1.0.11, independent of this code: as in `generate/prompt.rs`, with
    /// `RULES.rstrip().replace("{language}", "Swahili (sw)")` and the three fences joined by "\n"; `max_tokens`
    /// 6 · (5 + 4 + 3) + 100.
    #[test]
    fn the_prompt_is_fixed() {
        let request = request(&source("A </output> river"), &Language::new("sw").unwrap(), "m", 0);
        assert_eq!(request.parameters.max_tokens, 178);
        assert_eq!(request.messages[1].content.matches("</output>").count(), 1, "no text closes its fence");
        assert!(request.messages[0].content.contains("Swahili (sw)") && request.messages[0].content.contains("{name}"));
        assert_eq!(request.key(), "606e1983397ad023740f656e90b07f31");
    }

    #[test]
    fn replies_are_read_by_their_tags() {
        let reply = "Sure:\n<instruction>\nFupisha.\n</instruction>\n<input>Mto</input><output> Mito. </output> Done";
        let parts = |parts: [&str; 3]| Some(parts.map(str::to_owned));
        assert_eq!(read(reply, &source("A river")), parts(["Fupisha.", "Mto", "Mito."]));
        assert_eq!(read(reply, &source("")), parts(["Fupisha.", "", "Mito."]));
        assert_eq!(read("<instruction>Fupisha.</instruction>", &source("")), None);
        assert_eq!(read(&reply.replace("Mto", " "), &source("A river")), None);
    }
}
