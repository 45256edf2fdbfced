//! Which instructions of the file are learnt: those that ask for a summary, by rules that can be read here.

use std::collections::BTreeSet;

use super::config::{InstructConfig, Select};
use super::read::english;
use super::{Dropped, Instruction, Reason};
use crate::judge::drawn;
use crate::text::normalise::normalise;

/// What an instruction to summarise has in it; the beginning of a word.
const SUMMARY: [&str; 6] = ["summar", "synops", "condens", "tl;dr", "tldr", "précis"];
/// What an instruction to condense may have in it, besides.
const CONDENSING: [&str; 10] = [
    "main idea",
    "main point",
    "main topic",
    "main theme",
    "key point",
    "key idea",
    "key takeaway",
    "headline",
    "gist",
    "in a nutshell",
];
/// What ends a phrase such as `in two sentences`.
const UNITS: [&str; 5] = ["sentence", "sentences", "words", "word", "line"];

/// What was selected.
#[derive(Debug, Default)]
pub(super) struct Selected {
    /// English ones in the order of the file, then the others.
    pub(super) kept: Vec<Instruction>,
    pub(super) dropped: Vec<Dropped>,
}

/// Takes the English instructions that `config` selects, and the others of its languages with an id of these, or with an id
/// that no English one has.
pub(super) fn select(all: Vec<Instruction>, config: &InstructConfig, seed: u64) -> Selected {
    let (of_english, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|it| it.language == english());
    let known: BTreeSet<String> = of_english.iter().map(|it| it.id.clone()).collect();
    let mut selected = Selected::default();
    let mut seen = BTreeSet::new();
    for it in of_english {
        let mut twin = || !seen.insert((normalise(&it.instruction), normalise(&it.input)));
        match refusal(&it, config).or_else(|| twin().then_some(Reason::Duplicate)) {
            Some(reason) => selected.dropped.push(it.dropped(reason)),
            None => selected.kept.push(it),
        }
    }
    if let Some(most) = config.examples {
        let all = std::mem::take(&mut selected.kept);
        let chosen = drawn(all.iter().collect(), most, seed, "instruct examples", |it| it.id.clone());
        let chosen: BTreeSet<String> = chosen.into_iter().map(|it| it.id.clone()).collect();
        let (kept, left): (Vec<_>, Vec<_>) = all.into_iter().partition(|it| chosen.contains(&it.id));
        selected.kept = kept;
        selected.dropped.extend(left.iter().map(|it| it.dropped(Reason::NotDrawn)));
    }
    let ids: BTreeSet<String> = selected.kept.iter().map(|it| it.id.clone()).collect();
    for it in others.into_iter().filter(|it| config.languages.contains(&it.language)) {
        let empty = it.instruction.is_empty() || it.output.is_empty();
        if empty || (known.contains(&it.id) && !ids.contains(&it.id)) {
            let reason = if empty { Reason::Empty } else { Reason::OtherTask };
            selected.dropped.push(it.dropped(reason));
        } else {
            selected.kept.push(it);
        }
    }
    selected
}

/// Why an English instruction is not taken.
fn refusal(it: &Instruction, config: &InstructConfig) -> Option<Reason> {
    if it.instruction.is_empty() || it.output.is_empty() {
        return Some(Reason::Empty);
    }
    let text = normalise(&it.instruction);
    let asks = match config.select {
        Select::All => return None,
        Select::Summaries => begins_a_word(&text, &SUMMARY),
        Select::Condensing => begins_a_word(&text, &SUMMARY) || begins_a_word(&text, &CONDENSING) || counts(&text),
    };
    if !asks {
        Some(Reason::OtherTask)
    } else if it.input.is_empty() {
        Some(Reason::NoInput)
    } else if config.shorter && it.output.chars().count() >= it.input.chars().count() {
        Some(Reason::NotShorter)
    } else {
        None
    }
}

/// Whether one of `beginnings` stands at the beginning of a word.
fn begins_a_word(text: &str, beginnings: &[&str]) -> bool {
    let before = |place: usize| text[..place].chars().next_back();
    let begins = |beginning: &&str| {
        text.match_indices(*beginning).any(|(place, _)| before(place).is_none_or(|before| !before.is_alphanumeric()))
    };
    beginnings.iter().any(begins)
}

/// Whether the text says in how much to answer, as `in 50 words` or `in one short sentence`.
fn counts(text: &str) -> bool {
    let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let ends = |rest: &[&str]| rest.iter().take(4).any(|word| UNITS.contains(word));
    words.iter().enumerate().any(|(place, word)| ["in", "into", "using"].contains(word) && ends(&words[place + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::Language;
    use crate::instruct::Provenance;

    fn instruction(id: &str, language: &str, texts: [&str; 3]) -> Instruction {
        let [instruction, input, output] = texts.map(str::to_owned);
        let (id, language) = (id.to_owned(), Language::new(language).unwrap());
        Instruction {
            id,
            language,
            instruction,
            input,
            output,
            provenance: Provenance::Given { line: 1 },
            validation: false,
        }
    }

    fn reason(texts: [&str; 3], select: Select) -> Option<Reason> {
        let config = InstructConfig { select, ..InstructConfig::default() };
        refusal(&instruction("1", "en", texts), &config)
    }

    #[test]
    fn instructions_to_summarise_are_told_by_their_words() {
        let text = "A long text about rivers and boats.";
        for asks in ["Summarize the text.", "Write a synopsis", "Condense this!", "TL;DR please", "Give a summary"] {
            assert_eq!(reason([asks, text, "Rivers."], Select::Summaries), None, "{asks}");
        }
        for asks in
            ["What is the main idea?", "Describe it in one short sentence", "Write a headline", "Say it in 20 words"]
        {
            assert_eq!(reason([asks, text, "Rivers."], Select::Summaries), Some(Reason::OtherTask), "{asks}");
            assert_eq!(reason([asks, text, "Rivers."], Select::Condensing), None, "{asks}");
        }
        for other in ["Translate the text.", "List the consummary goods", "Find words in the text"] {
            assert_eq!(reason([other, text, "Rivers."], Select::Summaries), Some(Reason::OtherTask), "{other}");
        }
        assert_eq!(reason(["Find a synonym of a word", text, "Rivers."], Select::Condensing), Some(Reason::OtherTask));
        assert_eq!(reason(["Summarize it", "", "Rivers."], Select::Summaries), Some(Reason::NoInput));
        let title = instruction("1", "en", ["Summarize the book", "Rivers", "It tells of rivers."]);
        let shorter = InstructConfig { shorter: true, ..InstructConfig::default() };
        assert_eq!(refusal(&title, &shorter), Some(Reason::NotShorter));
        assert_eq!(refusal(&title, &InstructConfig::default()), None);
        assert_eq!(reason(["Summarize it", text, ""], Select::All), Some(Reason::Empty));
        assert_eq!(reason(["Translate", "", "x"], Select::All), None);
    }

    #[test]
    fn twins_are_dropped_and_other_languages_follow_their_english_one() {
        let (text, other) = ("A long text about rivers.", "A long text about boats.");
        let all = vec![
            instruction("1", "en", ["Summarize it.", text, "Rivers."]),
            instruction("2", "en", ["summarize  IT.", text, "Boats."]),
            instruction("3", "en", ["Translate it.", other, "Boats."]),
            instruction("4", "en", ["Summarize it.", other, "Boats."]),
            instruction("1", "sw", ["Fupisha.", "Maandishi marefu.", "Mito."]),
            instruction("3", "sw", ["Tafsiri.", "Maandishi marefu.", "Mashua."]),
            instruction("9", "sw", ["Fupisha.", "Maandishi mengine marefu.", "Mto."]),
            instruction("1", "fi", ["Tiivistä.", "Pitkä teksti.", "Joet."]),
        ];
        let languages = ["en", "sw"].map(|tag| Language::new(tag).unwrap()).to_vec();
        let config = InstructConfig { languages, ..InstructConfig::default() };
        let names = |selected: &Selected| -> Vec<String> {
            selected.kept.iter().map(|it| format!("{}/{}", it.language, it.id)).collect()
        };
        let selected = select(all.clone(), &config, 1);
        assert_eq!(names(&selected), ["en/1", "en/4", "sw/1", "sw/9"]);
        let reasons: Vec<Reason> = selected.dropped.iter().map(|it| it.reason).collect();
        assert_eq!(reasons, [Reason::Duplicate, Reason::OtherTask, Reason::OtherTask]);
        let one = select(all, &InstructConfig { examples: Some(1), ..config }, 1);
        assert_eq!(one.kept.iter().filter(|it| it.language.as_str() == "en").count(), 1);
        assert!(one.dropped.iter().any(|it| it.reason == Reason::NotDrawn));
    }
}
