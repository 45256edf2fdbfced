//! Translation: every selected English instruction in every language that the file does not have it in, checked.

use std::collections::BTreeSet;

use super::config::InstructConfig;
use super::read::english;
use super::{Dropped, Instruction, Provenance, Reason, prompt};
use crate::corpus::Language;
use crate::error::{Error, Result};
use crate::llm::{Llm, Reply, Request};
use crate::progress::Progress;
use crate::text::language::Checker;
use crate::text::normalise::normalise;

/// How often a request is sent again whose reply cannot be read.
const REPEATS: u32 = 2;

/// A translation that is still to be had.
struct Wanted<'a> {
    source: &'a Instruction,
    language: &'a Language,
    /// Its parts with the ledger's key, or why there are none so far.
    reply: std::result::Result<([String; 3], String), Reason>,
}

/// What became of the selected instructions.
#[derive(Debug, Default)]
pub(super) struct Translated {
    pub(super) kept: Vec<Instruction>,
    pub(super) dropped: Vec<Dropped>,
}

/// Adds to `given` the translations that are missing, and leaves out the languages that are not learnt.
///
/// *Order*: those that were given, then translations, by the English one and the language.
///
/// # Errors
/// Translations are missing and no translator is named; answers that nobody can give.
pub(super) fn translate(
    given: Vec<Instruction>,
    config: &InstructConfig,
    checker: &Checker,
    llm: &Llm,
    progress: &Progress,
) -> Result<Translated> {
    let mut translated = Translated::default();
    let mut wanted = wanted(&given, config);
    if config.translator.trim().is_empty()
        && let Some(first) = wanted.first()
    {
        return Err(Error::config(format!(
            "`instruct.translator`: expected the name of a model, got none, but {} translations are missing, the first of \
             `{}` into {}; name one, or put them into the file with the same `id` and their `language`",
            wanted.len(),
            first.source.id,
            first.language
        )));
    }
    for attempt in 0..=REPEATS {
        ask(&mut wanted, attempt, config, llm, progress)?;
    }
    for Wanted { source, language, reply } in wanted {
        let ([instruction, input, output], key) = match reply {
            Ok(read) => read,
            Err(reason) => {
                translated.dropped.push(source.dropped_in(language, reason));
                continue;
            }
        };
        let provenance = Provenance::Translated { model: config.translator.clone(), key };
        let (id, language) = (source.id.clone(), language.clone());
        let found = Instruction { id, language, instruction, input, output, provenance, validation: false };
        match fault(source, &found, config, checker) {
            Some(reason) => translated.dropped.push(source.dropped_in(&found.language, reason)),
            None => translated.kept.push(found),
        }
    }
    let learnt = |it: &Instruction| config.languages.contains(&it.language);
    translated.kept.splice(0..0, given.into_iter().filter(learnt));
    Ok(translated)
}

/// The translations that the file does not have.
fn wanted<'a>(given: &'a [Instruction], config: &'a InstructConfig) -> Vec<Wanted<'a>> {
    let english = english();
    let has: BTreeSet<(&str, &Language)> = given.iter().map(|it| (it.id.as_str(), &it.language)).collect();
    let sources = given.iter().filter(|it| it.language == english);
    let of_source = |source: &'a Instruction| {
        let missing = config.languages.iter().filter(|language| !has.contains(&(source.id.as_str(), *language)));
        let wanted = |language| Wanted { source, language, reply: Err(Reason::Unreadable) };
        missing.map(wanted).collect::<Vec<_>>()
    };
    sources.flat_map(of_source).collect()
}

/// Asks for what could not be read so far.
fn ask(wanted: &mut [Wanted], attempt: u32, config: &InstructConfig, llm: &Llm, progress: &Progress) -> Result<()> {
    let mut open: Vec<&mut Wanted> =
        wanted.iter_mut().filter(|wanted| matches!(wanted.reply, Err(Reason::Unreadable))).collect();
    let request =
        |wanted: &&mut Wanted| vec![prompt::request(wanted.source, wanted.language, &config.translator, attempt)];
    let groups: Vec<Vec<Request>> = open.iter().map(request).collect();
    for (wanted, replies) in open.iter_mut().zip(llm.ask(&groups, progress)?) {
        for reply in replies {
            wanted.reply = match reply {
                Reply::Unanswered(_) => Err(Reason::Budget),
                Reply::Answered { text, key, .. } => {
                    prompt::read(&text, wanted.source).map(|parts| (parts, key)).ok_or(Reason::Unreadable)
                }
            };
        }
    }
    Ok(())
}

/// What is wrong with a translation, if anything is.
fn fault(source: &Instruction, found: &Instruction, config: &InstructConfig, checker: &Checker) -> Option<Reason> {
    let [least, most] = config.length_ratio;
    let pairs = || source.parts().zip(found.parts()).map(|((_, source), (_, found))| (source, found));
    let has_letters = |text: &str| text.chars().any(char::is_alphabetic);
    let fits = |(source, found): (&str, &str)| {
        let ratio = found.chars().count() as f64 / source.chars().count() as f64;
        (least..=most).contains(&ratio)
    };
    if pairs().any(|(source, found)| has_letters(source) && normalise(source) == normalise(found)) {
        Some(Reason::Untranslated)
    } else if pairs()
        .map(|(_, text)| words_alone(text))
        .any(|text| has_letters(&text) && !checker.agrees(&text, &found.language))
    {
        Some(Reason::OtherLanguage)
    } else if !pairs().all(fits) {
        Some(Reason::Length)
    } else if pairs().any(|(source, found)| placeholders(source) != placeholders(found)) {
        Some(Reason::Placeholder)
    } else {
        None
    }
}

/// The text without its placeholders, which are of no language.
fn words_alone(text: &str) -> String {
    placeholders(text).into_iter().fold(text.to_owned(), |text, placeholder| text.replace(placeholder, " "))
}

/// What must be found again in a translation, sorted: `{name}`, `%s`, addresses.
fn placeholders(text: &str) -> Vec<&str> {
    let mut found: Vec<&str> = text.split_whitespace().flat_map(of_word).collect();
    found.sort_unstable();
    found
}

/// The placeholders in a word.
fn of_word(word: &str) -> Vec<&str> {
    let plain = word.trim_end_matches(|c: char| !c.is_alphanumeric() && c != '/');
    if let Some(place) = ["http://", "https://"].iter().find_map(|start| plain.find(start)) {
        return vec![&plain[place..]];
    }
    let mut found: Vec<&str> = ["%s", "%d"].iter().flat_map(|mark| word.matches(*mark)).collect();
    let mut rest = word;
    while let Some(start) = rest.find('{') {
        let Some(length) = rest[start..].find('}') else { break };
        found.push(&rest[start..=start + length]);
        rest = &rest[start + length + 1..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(language: &str, [instruction, input, output]: [&str; 3]) -> Instruction {
        Instruction {
            id: "1".into(),
            language: Language::new(language).unwrap(),
            instruction: instruction.into(),
            input: input.into(),
            output: output.into(),
            provenance: Provenance::Given { line: 1 },
            validation: false,
        }
    }

    #[test]
    fn translations_are_checked() {
        let source =
            instruction("en", ["Summarize it.", "Water boils at 100 degrees.", "{name}, see https://a.b/c: 100."]);
        let check =
            |texts: [&str; 3]| fault(&source, &instruction("ru", texts), &InstructConfig::default(), &Checker::Script);
        let good = ["Кратко изложи.", "Вода кипит при 100 градусах.", "{name}, смотри https://a.b/c: 100."];
        assert_eq!(check(good), None);
        assert_eq!(check([good[0], "water boils  at 100 degrees.", good[2]]), Some(Reason::Untranslated));
        assert_eq!(check([good[0], "Water boils at a hundred degrees.", good[2]]), Some(Reason::OtherLanguage));
        assert_eq!(check([good[0], "Да.", good[2]]), Some(Reason::Length));
        assert_eq!(check([good[0], good[1], "{имя}, смотри https://a.b/c: 100."]), Some(Reason::Placeholder));
        assert_eq!(check([good[0], good[1], "{name}, смотри сайт: 100 градусов."]), Some(Reason::Placeholder));
    }

    #[test]
    fn placeholders_are_found_in_words() {
        assert_eq!(
            placeholders("Dear {name}, %s of %d at https://a.b/c. {x}{y}"),
            ["%d", "%s", "https://a.b/c", "{name}", "{x}", "{y}"]
        );
        assert!(placeholders("50 % of {all").is_empty());
    }

    #[test]
    fn only_what_the_file_lacks_is_wanted() {
        let texts = ["Summarize it.", "Water boils.", "It boils."];
        let given = [instruction("en", texts), instruction("sw", texts)];
        let languages = ["en", "sw", "fi"].map(|tag| Language::new(tag).unwrap()).to_vec();
        let config = InstructConfig { languages, ..InstructConfig::default() };
        let wanted: Vec<&str> = wanted(&given, &config).iter().map(|wanted| wanted.language.as_str()).collect();
        assert_eq!(wanted, ["fi"]);
    }
}
