//! As many instructions of every language, and those that are set aside.

use std::collections::{BTreeMap, BTreeSet};

use super::config::InstructConfig;
use super::lesson::Lesson;
use super::{Dropped, Reason};
use crate::corpus::Language;
use crate::judge::drawn;

/// Lessons of all languages, equally many of each.
#[derive(Debug, Default)]
pub(super) struct Balanced {
    /// By language, in the order in which they were given.
    pub(super) lessons: Vec<Lesson>,
    pub(super) dropped: Vec<Dropped>,
    /// Languages that were left out.
    pub(super) left_out: Vec<Language>,
}

/// Leaves out the languages that have too few, and cuts the others to as many as the rarest of them has, drawn at random.
pub(super) fn balance(lessons: Vec<Lesson>, config: &InstructConfig, seed: u64) -> Balanced {
    let mut languages: BTreeMap<Language, Vec<Lesson>> =
        config.languages.iter().map(|language| (language.clone(), Vec::new())).collect();
    for lesson in lessons {
        languages.entry(lesson.instruction.language.clone()).or_default().push(lesson);
    }
    let fullest = languages.values().map(Vec::len).max().unwrap_or_default();
    let is_rare = |of_language: &[Lesson]| {
        of_language.is_empty() || (of_language.len() as f64) < config.least_share * fullest as f64
    };
    let enough = languages.values().filter(|of_language| !is_rare(of_language)).map(Vec::len).min();
    let mut balanced = Balanced::default();
    for (language, of_language) in languages {
        let rare = is_rare(&of_language);
        let count = if rare { 0 } else { enough.unwrap_or_default() };
        let name = |lesson: &&Lesson| format!("{language}/{}", lesson.instruction.id);
        let chosen = drawn(of_language.iter().collect(), count, seed, "instruct balance", name);
        let chosen: BTreeSet<String> = chosen.into_iter().map(|lesson| lesson.instruction.id.clone()).collect();
        let (kept, left): (Vec<_>, Vec<_>) =
            of_language.into_iter().partition(|lesson| chosen.contains(&lesson.instruction.id));
        balanced.lessons.extend(kept);
        let reason = if rare { Reason::RareLanguage } else { Reason::Surplus };
        balanced.dropped.extend(left.iter().map(|lesson| lesson.instruction.dropped(reason)));
        if rare {
            balanced.left_out.push(language);
        }
    }
    set_aside(&mut balanced.lessons, config.validation, seed);
    balanced
}

/// Marks the lessons of a share of the ids, rounded, for validation; at least one id is learnt.
fn set_aside(lessons: &mut [Lesson], share: f64, seed: u64) {
    let ids: BTreeSet<String> = lessons.iter().map(|lesson| lesson.instruction.id.clone()).collect();
    let count = ((share * ids.len() as f64).round() as usize).min(ids.len().saturating_sub(1));
    let aside = drawn(ids.into_iter().collect(), count, seed, "instruct validation", String::clone);
    let aside: BTreeSet<String> = aside.into_iter().collect();
    for lesson in lessons {
        lesson.instruction.validation = aside.contains(&lesson.instruction.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruct::{Instruction, Provenance};

    fn lessons(language: &str, count: usize) -> Vec<Lesson> {
        let lesson = |number: usize| {
            let instruction = Instruction {
                id: number.to_string(),
                language: Language::new(language).unwrap(),
                instruction: "a".into(),
                input: String::new(),
                output: "b".into(),
                provenance: Provenance::Given { line: 1 },
                validation: false,
            };
            Lesson { instruction, prompt: vec![1], answer: vec![2] }
        };
        (0..count).map(lesson).collect()
    }

    fn config(validation: f64) -> InstructConfig {
        let languages = ["en", "fi", "sw", "th"].map(|tag| Language::new(tag).unwrap()).to_vec();
        InstructConfig { languages, validation, ..InstructConfig::default() }
    }

    #[test]
    fn languages_are_cut_to_the_rarest_and_those_with_too_few_are_left_out() {
        let all = [lessons("en", 10), lessons("fi", 6), lessons("sw", 4)].concat();
        let balanced = balance(all, &config(0.0), 1);
        let count = |tag: &str| balanced.lessons.iter().filter(|it| it.instruction.language.as_str() == tag).count();
        assert_eq!((count("en"), count("fi"), count("sw")), (6, 6, 0));
        let reasons = |reason| balanced.dropped.iter().filter(|it| it.reason == reason).count();
        assert_eq!((reasons(Reason::Surplus), reasons(Reason::RareLanguage)), (4, 4));
        let left_out: Vec<&str> = balanced.left_out.iter().map(Language::as_str).collect();
        assert_eq!(left_out, ["sw", "th"], "a language with none is told, too");
    }

    #[test]
    fn all_languages_of_an_id_are_set_aside_together() {
        let balanced = balance([lessons("en", 10), lessons("fi", 10)].concat(), &config(0.3), 1);
        let aside = |tag: &str| -> BTreeSet<&str> {
            let of_language =
                balanced.lessons.iter().map(|it| &it.instruction).filter(|it| it.language.as_str() == tag);
            of_language.filter(|it| it.validation).map(|it| it.id.as_str()).collect()
        };
        assert_eq!((aside("en").len(), aside("en")), (3, aside("fi")));
        let one = balance(lessons("en", 1), &config(0.9), 1);
        assert!(!one.lessons[0].instruction.validation, "something must be learnt");
    }
}
