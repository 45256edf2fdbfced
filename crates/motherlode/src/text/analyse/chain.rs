//! The chains by name, and which steps each has.

use serde::{Deserialize, Serialize};

use super::step::Step::{
    self, ArabicNormal, ArabicStem, BengaliNormal, BengaliStem, Bigrams, Digits, Elision, EnglishStem, FinnishStem,
    FrenchStem, HindiNormal, HindiStem, IndicNormal, IndonesianStem, JapaneseWords, Joiners, KatakanaStem, Lowercase,
    PersianNormal, PersianStem, PlainBigrams, PlainWords, Possessive, RussianStem, Spaces, SpanishStem, Stop,
    TeluguNormal, TeluguStem, ThaiWords, Width, Words,
};
use super::stop::StopWords;
use crate::corpus::Language;

/// A chain by its name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Chain {
    /// That of the language: Anserini's for the sixteen of MIRACL (bigrams for `ja`), `words` for others, `plain` for
    /// Khmer, Lao and Burmese.
    #[default]
    ByLanguage,
    /// Words in lower case; bigrams for languages that are written without spaces and for Korean.
    Plain,
    /// Words in lower case, without regard to a language.
    Words,
    /// What stands between spaces, as it is written: Anserini's for Swahili.
    Spaces,
    /// Bigrams of Han, kana and Hangul: Lucene's `CJKAnalyzer`.
    Bigrams,
    /// Lucene's `ArabicAnalyzer`.
    Arabic,
    /// Lucene's `BengaliAnalyzer`.
    Bengali,
    /// Anserini's `DefaultEnglishAnalyzer`: 33 stop words and Porter's stems.
    English,
    /// Lucene's `FinnishAnalyzer`.
    Finnish,
    /// Lucene's `FrenchAnalyzer`.
    French,
    /// Lucene's `HindiAnalyzer`.
    Hindi,
    /// Lucene's `IndonesianAnalyzer`.
    Indonesian,
    /// Lucene's `JapaneseAnalyzer`, over a dictionary that must be given; near to it, not the same.
    Japanese,
    /// Lucene's `PersianAnalyzer` up to 9: no stems.
    Persian,
    /// Lucene's `PersianAnalyzer` since 10, that of Anserini 2: with stems.
    PersianStemmed,
    /// Lucene's `RussianAnalyzer`.
    Russian,
    /// Lucene's `SpanishAnalyzer`.
    Spanish,
    /// Lucene's `TeluguAnalyzer`.
    Telugu,
    /// Lucene's `ThaiAnalyzer`, over most of the words that Java knows.
    Thai,
}

impl Chain {
    /// The steps for a language, of which only `by-language` and `plain` take notice.
    pub(super) fn steps(self, language: &Language) -> &'static [Step] {
        match self {
            Self::ByLanguage => Self::of(language).steps(language),
            Self::Plain if is_unspaced(language) => &[PlainBigrams],
            Self::Plain => &[PlainWords],
            Self::Words => &[Words, Lowercase],
            Self::Spaces => &[Spaces],
            Self::Bigrams => &[Words, Width, Lowercase, Bigrams, Stop(StopWords::Cjk)],
            Self::Arabic => &[Words, Lowercase, Digits, Stop(StopWords::Arabic), ArabicNormal, ArabicStem],
            Self::Bengali => {
                &[Words, Lowercase, Digits, IndicNormal, BengaliNormal, Stop(StopWords::Bengali), BengaliStem]
            }
            Self::English => &[Words, Possessive, Lowercase, Stop(StopWords::English), EnglishStem],
            Self::Finnish => &[Words, Lowercase, Stop(StopWords::Finnish), FinnishStem],
            Self::French => &[Words, Elision, Lowercase, Stop(StopWords::French), FrenchStem],
            Self::Hindi => &[Words, Lowercase, Digits, IndicNormal, HindiNormal, Stop(StopWords::Hindi), HindiStem],
            Self::Indonesian => &[Words, Lowercase, Stop(StopWords::Indonesian), IndonesianStem],
            Self::Japanese => &[JapaneseWords, Stop(StopWords::Japanese), KatakanaStem, Lowercase],
            Self::Persian => &PERSIAN[..7],
            Self::PersianStemmed => &PERSIAN,
            Self::Russian => &[Words, Lowercase, Stop(StopWords::Russian), RussianStem],
            Self::Spanish => &[Words, Lowercase, Stop(StopWords::Spanish), SpanishStem],
            Self::Telugu => &[Words, Digits, IndicNormal, TeluguNormal, Stop(StopWords::Telugu), TeluguStem],
            Self::Thai => &[ThaiWords, Lowercase, Digits, Stop(StopWords::Thai)],
        }
    }

    fn of(language: &Language) -> Self {
        match primary(language) {
            "ar" => Self::Arabic,
            "bn" => Self::Bengali,
            "en" => Self::English,
            "es" => Self::Spanish,
            "fa" => Self::Persian,
            "fi" => Self::Finnish,
            "fr" => Self::French,
            "hi" => Self::Hindi,
            "id" => Self::Indonesian,
            "ja" | "ko" | "zh" => Self::Bigrams,
            "ru" => Self::Russian,
            "sw" => Self::Spaces,
            "te" => Self::Telugu,
            "th" => Self::Thai,
            _ if is_unspaced(language) => Self::Plain,
            _ => Self::Words,
        }
    }
}

static PERSIAN: [Step; 8] =
    [Joiners, Words, Lowercase, Digits, ArabicNormal, PersianNormal, Stop(StopWords::Persian), PersianStem];

fn primary(language: &Language) -> &str {
    language.as_str().split('-').next().unwrap_or_default()
}

/// Whether a language is written without spaces between words, or its particles stick to words.
fn is_unspaced(language: &Language) -> bool {
    ["ja", "km", "ko", "lo", "my", "th", "zh"].contains(&primary(language))
}
