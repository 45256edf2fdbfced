//! Is a generated query usable: not empty, not the original again, in the right language?

use std::path::Path;

use fasttext::FastText;

use super::Rejection;
use super::config::LanguageCheck;
use crate::corpus::Language;
use crate::error::{Error, Result};
use crate::text::normalise::normalise;

/// A query out of a model's reply: its first line with text, without the quotation marks around it.
pub(super) fn clean(reply: &str) -> String {
    const QUOTES: [(char, char); 9] = [
        ('"', '"'),
        ('\'', '\''),
        ('`', '`'),
        ('“', '”'),
        ('„', '“'),
        ('‘', '’'),
        ('«', '»'),
        ('「', '」'),
        ('『', '』'),
    ];
    let mut line = reply.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    while let Some(inner) =
        QUOTES.iter().find_map(|(open, close)| line.strip_prefix(*open).and_then(|rest| rest.strip_suffix(*close)))
    {
        line = inner.trim();
    }
    line.to_owned()
}

/// Checks generated queries.
pub(super) struct Checker {
    method: LanguageCheck,
    model: Option<FastText>,
}

impl Checker {
    /// Loads the language identification model if the method needs one.
    ///
    /// # Errors
    /// The model is needed and not given, or is no classifier.
    pub(super) fn new(method: LanguageCheck, model: Option<&Path>) -> Result<Self> {
        let model = match (method, model) {
            (LanguageCheck::Fasttext, Some(path)) => Some(load(path)?),
            (LanguageCheck::Fasttext, None) => {
                let remedy = "give the path of a fastText language model such as lid.176.ftz, or use \"script\"";
                return Err(Error::config(format!("`generate.language_check` is \"fasttext\": {remedy}")));
            }
            _ => None,
        };
        Ok(Self { method, model })
    }

    /// What is wrong with `generated`, if anything is.
    pub(super) fn rejection(&self, generated: &str, original: &str, language: &Language) -> Option<Rejection> {
        if !generated.chars().any(char::is_alphanumeric) {
            Some(Rejection::Empty)
        } else if normalise(generated) == normalise(original) {
            Some(Rejection::Copy)
        } else if !self.is_in(generated, language) {
            Some(Rejection::Language)
        } else {
            None
        }
    }

    fn is_in(&self, text: &str, language: &Language) -> bool {
        match (self.method, &self.model) {
            (LanguageCheck::Fasttext, Some(model)) => {
                let best = model.predict(text, 1, 0.0);
                best.first().is_some_and(|best| best.label.trim_start_matches("__label__") == language.as_str())
            }
            (LanguageCheck::Script, _) => may_be(text, language),
            _ => true,
        }
    }
}

fn load(path: &Path) -> Result<FastText> {
    let model = FastText::load_model(path)
        .map_err(|error| Error::file(path, format!("no fastText model, or truncated ({error}); get it again")))?;
    if model.get_labels().0.is_empty() {
        return Err(Error::file(path, "expected a fastText classifier, got word vectors without labels"));
    }
    Ok(model)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Script {
    Latin,
    Arabic,
    Bengali,
    Devanagari,
    Telugu,
    Thai,
    Cyrillic,
    Hangul,
    Kana,
    Han,
}

/// Whether most letters are in the script of the language.
///
/// Tells apart: Bengali, Hindi, Telugu, Thai, Korean, Russian, Japanese (needs a kana) and Chinese (hardly a kana), and
/// each of these from what is written in Latin or Arabic script. Cannot tell apart: English, Spanish, Finnish, French,
/// Indonesian and Swahili; Arabic and Persian; or any of the ten scripts' languages from others of that script, such as
/// Hindi from Marathi. Other languages than MIRACL's sixteen always pass.
fn may_be(text: &str, language: &Language) -> bool {
    let Some(expected) = script_of_language(language) else { return true };
    let scripts: Vec<Option<Script>> =
        text.chars().filter(|character| character.is_alphabetic()).map(script_of).collect();
    let count = |script: Script| scripts.iter().filter(|found| **found == Some(script)).count();
    let (kana, han) = (count(Script::Kana), count(Script::Han));
    match expected {
        Script::Kana => kana > 0 && 2 * (kana + han) >= scripts.len(),
        Script::Han => 10 * kana <= han && 2 * han >= scripts.len(),
        other => 2 * count(other) >= scripts.len(),
    }
}

fn script_of_language(language: &Language) -> Option<Script> {
    Some(match language.as_str() {
        "en" | "es" | "fi" | "fr" | "id" | "sw" => Script::Latin,
        "ar" | "fa" => Script::Arabic,
        "bn" => Script::Bengali,
        "hi" => Script::Devanagari,
        "te" => Script::Telugu,
        "th" => Script::Thai,
        "ru" => Script::Cyrillic,
        "ko" => Script::Hangul,
        "ja" => Script::Kana,
        "zh" => Script::Han,
        _ => return None,
    })
}

/// Source: the blocks of the Unicode Standard 16 that hold everyday letters of these scripts.
fn script_of(character: char) -> Option<Script> {
    Some(match character {
        'A'..='Z' | 'a'..='z' | '\u{aa}' | '\u{ba}' | '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}' => Script::Latin,
        '\u{400}'..='\u{52f}' => Script::Cyrillic,
        '\u{600}'..='\u{6ff}' | '\u{750}'..='\u{77f}' | '\u{fb50}'..='\u{fdff}' | '\u{fe70}'..='\u{fefe}' => {
            Script::Arabic
        }
        '\u{900}'..='\u{97f}' => Script::Devanagari,
        '\u{980}'..='\u{9ff}' => Script::Bengali,
        '\u{c00}'..='\u{c7f}' => Script::Telugu,
        '\u{e00}'..='\u{e7f}' => Script::Thai,
        '\u{1100}'..='\u{11ff}' | '\u{3130}'..='\u{318f}' | '\u{ac00}'..='\u{d7af}' => Script::Hangul,
        '\u{3040}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{ff66}'..='\u{ff9f}' => Script::Kana,
        '\u{3005}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' => Script::Han,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use fasttext::args::Args;

    use super::*;

    fn language(tag: &str) -> Language {
        Language::new(tag).unwrap()
    }

    #[test]
    fn replies_are_cleaned() {
        assert_eq!(clean("\n  \"What is it?\" \nBecause…"), "What is it?");
        assert_eq!(clean("「『何ですか』」"), "何ですか");
        assert_eq!(clean("«Что это?»"), "Что это?");
        assert_eq!(clean("What does \"CV\" mean?"), "What does \"CV\" mean?");
        assert_eq!(clean(" \n\t\n"), "");
        assert_eq!(clean("\""), "\"");
    }

    #[test]
    fn empty_copied_and_foreign_queries_are_refused() {
        let checker = Checker::new(LanguageCheck::Script, None).unwrap();
        let check = |text: &str| checker.rejection(text, "Who wrote it?", &language("en"));
        assert_eq!(check("When was it written?"), None);
        assert_eq!(check(" \"…?\""), Some(Rejection::Empty));
        assert_eq!(check("who  WROTE it?"), Some(Rejection::Copy));
        assert_eq!(check("誰が書きましたか"), Some(Rejection::Language));
        let none = Checker::new(LanguageCheck::None, None).unwrap();
        assert_eq!(none.rejection("誰が書きましたか", "Who wrote it?", &language("en")), None);
    }

    const QUESTIONS: [(&str, &str); 16] = [
        ("ar", "من كتب رواية دون كيخوته؟"),
        ("bn", "ডন কিহোতে উপন্যাস কে লিখেছেন?"),
        ("en", "Who wrote the novel Don Quixote?"),
        ("es", "¿Quién escribió la novela Don Quijote?"),
        ("fa", "چه کسی رمان دن کیشوت را نوشت؟"),
        ("fi", "Kuka kirjoitti romaanin Don Quijote?"),
        ("fr", "Qui a écrit le roman Don Quichotte ?"),
        ("hi", "डॉन क्विक्सोट उपन्यास किसने लिखा?"),
        ("id", "Siapa yang menulis novel Don Quixote?"),
        ("ja", "小説ドン・キホーテを書いたのは誰ですか。"),
        ("ko", "소설 돈키호테는 누가 썼습니까?"),
        ("ru", "Кто написал роман «Дон Кихот»?"),
        ("sw", "Nani aliandika riwaya ya Don Quixote?"),
        ("te", "డాన్ క్విక్సోట్ నవలను ఎవరు రాశారు?"),
        ("th", "ใครเขียนนวนิยายเรื่องดอนกิโฆเต้"),
        ("zh", "小说《堂吉诃德》是谁写的？"),
    ];

    #[test]
    fn scripts_tell_apart_what_they_can() {
        let latin = ["en", "es", "fi", "fr", "id", "sw"];
        let arabic = ["ar", "fa"];
        for (tag, text) in QUESTIONS {
            for (other, _) in QUESTIONS {
                let alike = tag == other
                    || [&latin[..], &arabic].iter().any(|group| group.contains(&tag) && group.contains(&other));
                assert_eq!(may_be(text, &language(other)), alike, "{tag} as {other}");
            }
            assert!(may_be(text, &language("de")), "an unknown script passes");
        }
    }

    #[test]
    fn a_foreign_name_does_not_spoil_a_query() {
        assert!(may_be("World Wide Web ను ఎవరు కనుగొన్నారు మరియు ఎప్పుడు?", &language("te")));
        assert!(may_be("CVとは何ですか", &language("ja")));
        assert!(!may_be("World Wide Web ను", &language("te")));
    }

    #[test]
    fn a_classifier_tells_languages_of_one_script_apart() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("lines.txt");
        let mut file = std::fs::File::create(&input).unwrap();
        for _ in 0..50 {
            writeln!(file, "__label__fi kuka kirjoitti romaanin\n__label__sw nani aliandika riwaya").unwrap();
        }
        let mut args = Args { input, dim: 10, epoch: 25, thread: 1, verbose: 0, ..Args::default() };
        args.apply_supervised_defaults();
        let path = folder.path().join("lid.bin");
        FastText::train(Args { lr: 1.0, ..args }).unwrap().save_model(&path).unwrap();
        let checker = Checker::new(LanguageCheck::Fasttext, Some(&path)).unwrap();
        let check = |text| checker.rejection(text, "x", &language("fi"));
        assert_eq!(check("kuka kirjoitti romaanin"), None);
        assert_eq!(check("nani aliandika riwaya"), Some(Rejection::Language));
    }

    #[test]
    fn a_missing_or_broken_classifier_is_refused() {
        let message = Checker::new(LanguageCheck::Fasttext, None).err().unwrap().to_string();
        assert!(message.contains("generate.language_check") && message.contains("lid.176"), "{message}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lid.bin");
        std::fs::write(&path, "nothing").unwrap();
        let message = Checker::new(LanguageCheck::Fasttext, Some(&path)).err().unwrap().to_string();
        assert!(message.contains("lid.bin") && message.contains("no fastText model"), "{message}");
    }
}
