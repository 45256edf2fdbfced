//! Which language a text is in: by a fastText model such as `lid.176.ftz`, or, where none is at hand, only whether its script
//! is one that the language is written in.

use std::path::Path;

use serde::{Deserialize, Serialize};
use whatlang::Script;

use crate::corpus::Language;
use crate::error::{Error, Result};
use crate::text::fasttext::Classifier;

/// How the language of a generated or translated text is checked. Nothing stands in for what is configured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LanguageCheck {
    /// The language that a fastText model such as `lid.176.ftz` finds must be the expected one.
    Fasttext,
    /// The script must be one that the language is written in: tells `ru` from `th`, but not `fi` from `sw`.
    #[default]
    Script,
    /// Every text passes.
    None,
}

/// Checks texts as a [`LanguageCheck`] says.
#[derive(Debug)]
pub enum Checker {
    /// By model.
    Fasttext(Box<Identifier>),
    /// By script.
    Script,
    /// Not at all.
    None,
}

impl Checker {
    /// Opens what `check` needs to tell `languages`; `model` is the fastText model.
    ///
    /// # Errors
    /// By model: none is given, or it is none. By script: a language whose script is not known here.
    pub fn open<'a>(
        check: LanguageCheck,
        model: Option<&Path>,
        mut languages: impl Iterator<Item = &'a Language>,
    ) -> Result<Self> {
        match (check, model) {
            (LanguageCheck::Fasttext, Some(model)) => Ok(Self::Fasttext(Box::new(Identifier::open(model)?))),
            (LanguageCheck::Fasttext, None) => Err(Error::config(
                "`language_check` is \"fasttext\": expected a language model such as lid.176.ftz, got none; name its file",
            )),
            (LanguageCheck::Script, _) => match languages.find(|language| scripts_of(language).is_none()) {
                Some(unknown) => Err(Error::config(format!(
                    "`language_check` is \"script\": the script of `{unknown}` is not known; use \"fasttext\" or \"none\""
                ))),
                None => Ok(Self::Script),
            },
            (LanguageCheck::None, _) => Ok(Self::None),
        }
    }

    /// Whether the text is, as far as the method can tell, in the language.
    pub fn agrees(&self, text: &str, language: &Language) -> bool {
        match self {
            Self::Fasttext(identifier) => identifier.identify(text).is_some_and(|(found, _)| found == *language),
            Self::Script => scripts_agree(text, language),
            Self::None => true,
        }
    }
}

/// A fastText model whose labels are languages.
#[derive(Debug)]
pub struct Identifier(Classifier);

impl Identifier {
    /// Reads a `.bin` or `.ftz` model.
    ///
    /// # Errors
    /// As [`Classifier::open`].
    pub fn open(path: &Path) -> Result<Self> {
        Classifier::open(path).map(Self)
    }

    /// The most probable language and its probability; none for a text without words.
    pub fn identify(&self, text: &str) -> Option<(Language, f32)> {
        let (label, probability) = self.0.predict(text, 1).into_iter().next()?;
        let tag = label.strip_prefix("__label__").unwrap_or(&label).to_lowercase();
        Some((Language::new(&tag).ok()?, probability))
    }
}

/// Whether the main script of a text is one that the language is written in; false for a text without letters, and for a
/// language whose script is not known here.
///
/// Japanese may be all Chinese characters; Chinese may not have kana.
pub fn scripts_agree(text: &str, language: &Language) -> bool {
    let Some(scripts) = scripts_of(language) else { return false };
    let is_chinese = scripts == [Script::Mandarin];
    if is_chinese && text.chars().any(|character| ('\u{3041}'..='\u{30fa}').contains(&character)) {
        return false;
    }
    whatlang::detect_script(text).is_some_and(|script| scripts.contains(&script))
}

/// The scripts of the languages that the benchmarks of the field have, and some more.
fn scripts_of(language: &Language) -> Option<&'static [Script]> {
    let scripts: &[Script] = match language.as_str() {
        "ar" | "fa" | "ur" | "ps" => &[Script::Arabic],
        "bn" | "as" => &[Script::Bengali],
        "hi" | "mr" | "ne" => &[Script::Devanagari],
        "ja" => &[Script::Hiragana, Script::Katakana, Script::Mandarin],
        "ko" => &[Script::Hangul],
        "ru" | "uk" | "bg" | "be" | "mk" | "kk" => &[Script::Cyrillic],
        "te" => &[Script::Telugu],
        "th" => &[Script::Thai],
        "zh" => &[Script::Mandarin],
        "am" => &[Script::Ethiopic],
        "el" => &[Script::Greek],
        "gu" => &[Script::Gujarati],
        "he" => &[Script::Hebrew],
        "ta" => &[Script::Tamil],
        "en" | "es" | "fi" | "fr" | "id" | "sw" | "de" | "yo" | "it" | "pt" | "nl" | "pl" | "cs" | "da" | "sv"
        | "no" | "tr" | "vi" | "hu" | "ro" | "et" | "lv" | "lt" | "ms" | "so" | "ha" | "ig" | "zu" | "ca" | "hr"
        | "sk" | "sl" => &[Script::Latin],
        _ => return None,
    };
    Some(scripts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One sentence in each language: water boils at one hundred degrees.
    const SENTENCES: [(&str, &str); 16] = [
        ("ar", "يغلي الماء عند درجة حرارة مئة مئوية."),
        ("bn", "জল একশো ডিগ্রি সেলসিয়াসে ফোটে।"),
        ("en", "Water boils at one hundred degrees Celsius at sea level."),
        ("es", "El agua hierve a cien grados centígrados al nivel del mar."),
        ("fa", "آب در صد درجه سانتی‌گراد به جوش می‌آید."),
        ("fi", "Vesi kiehuu sadassa celsiusasteessa merenpinnan tasolla."),
        ("fr", "L'eau bout à cent degrés Celsius au niveau de la mer."),
        ("hi", "पानी सौ डिग्री सेल्सियस पर उबलता है।"),
        ("id", "Air mendidih pada suhu seratus derajat Celsius di permukaan laut."),
        ("ja", "水は摂氏百度で沸騰します。"),
        ("ko", "물은 섭씨 백 도에서 끓는다."),
        ("ru", "Вода кипит при ста градусах Цельсия."),
        ("sw", "Maji huchemka kwa nyuzi joto mia moja kwenye usawa wa bahari."),
        ("te", "నీరు వంద డిగ్రీల సెల్సియస్ వద్ద మరుగుతుంది."),
        ("th", "น้ำเดือดที่อุณหภูมิหนึ่งร้อยองศาเซลเซียส"),
        ("zh", "水在一百摄氏度时沸腾。"),
    ];

    fn language(tag: &str) -> Language {
        Language::new(tag).unwrap()
    }

    #[test]
    fn scripts_agree_with_their_languages_and_not_with_others() {
        let agree = |text: &str, tag: &str| scripts_agree(text, &language(tag));
        for (tag, text) in SENTENCES {
            assert!(agree(text, tag), "{tag}");
            assert_eq!(agree(text, "te"), tag == "te", "{tag}");
        }
        assert!(!agree("水は摂氏百度で沸騰します。", "zh"), "kana is not Chinese");
        assert!(agree("沸騰", "ja"));
        assert!(!agree("100 %", "en"));
        assert!(agree("World Wide Web ను ఎవరు కనుగొన్నారు మరియు ఎప్పుడు?", "te"), "a foreign name does not spoil a text");
        assert!(!agree("World Wide Web ను", "te"));
    }

    #[test]
    fn the_check_is_what_the_configuration_says() {
        let (th, unknown) = (language("th"), language("xx"));
        let open = |check, tag: &Language| Checker::open(check, None, [tag].into_iter());
        assert!(open(LanguageCheck::None, &unknown).unwrap().agrees("x", &th));
        assert!(!open(LanguageCheck::Script, &th).unwrap().agrees("x", &th));
        let message = open(LanguageCheck::Script, &unknown).unwrap_err().to_string();
        assert!(message.contains("the script of `xx` is not known"), "{message}");
        let message = open(LanguageCheck::Fasttext, &th).unwrap_err().to_string();
        assert!(message.contains("lid.176.ftz"), "{message}");
        let nowhere = Some(Path::new("nowhere/lid.ftz"));
        let message = Checker::open(LanguageCheck::Fasttext, nowhere, [&th].into_iter()).unwrap_err().to_string();
        assert!(message.contains("no such file"), "{message}");
    }

    /// fasttext-predict 0.9.2.4 (Python 3.11), `load_model("lid.176.ftz").predict(text)`, for the sentences above.
    const PREDICTED: [(&str, f32); 16] = [
        ("ar", 0.9815),
        ("bn", 0.9457),
        ("en", 0.8904),
        ("es", 0.8026),
        ("fa", 0.9977),
        ("fi", 0.3071),
        ("fr", 0.9348),
        ("hi", 0.9945),
        ("ms", 0.5594),
        ("ja", 1.0000),
        ("ko", 1.0000),
        ("ru", 0.7820),
        ("sw", 0.6343),
        ("te", 0.9992),
        ("th", 0.9997),
        ("zh", 0.9975),
    ];

    #[test]
    fn the_cached_model_finds_what_the_original_program_finds() {
        let Some(path) = crate::fetch::cached("lid.176.ftz", "lid.176.ftz") else {
            eprintln!("skipped: lid.176.ftz is not in the cache");
            return;
        };
        let identifier = Identifier::open(&path).unwrap();
        for ((tag, text), (expected, probability)) in SENTENCES.into_iter().zip(PREDICTED) {
            let (found, measured) = identifier.identify(text).unwrap();
            let agrees = found == language(expected) && (measured - probability).abs() < 2e-3;
            assert!(agrees, "{tag}: {found} {measured}");
        }
        assert_eq!(identifier.identify(""), None);
    }
}
