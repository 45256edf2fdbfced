//! The steps of the chains.

use frostem::{Algorithm, Stemmer};

use super::stop::{LISTS, StopWords};
use super::{arabic, characters, english, indic, indic_stem, indonesian, japanese, romance};

/// One step of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Splits: words of UAX 29 in lower case.
    PlainWords,
    /// Splits: the same after NFKC, with bigrams of scripts without spaces.
    PlainBigrams,
    /// Zero-width non-joiners become spaces.
    Joiners,
    /// Splits: words as Lucene's `StandardTokenizer` sees them.
    Words,
    /// Splits: at white space.
    Spaces,
    /// Splits: words of Thai by a dictionary.
    ThaiWords,
    /// Splits: words of Japanese in their base forms, by a dictionary that must be given.
    JapaneseWords,
    /// Half- and full-width characters get their usual width.
    Width,
    /// Lower case.
    Lowercase,
    /// Neighbouring Han, kana and Hangul become bigrams.
    Bigrams,
    /// Digits of all scripts become those of ASCII.
    Digits,
    /// English `'s` is taken off.
    Possessive,
    /// French elided articles are taken off.
    Elision,
    /// Stop words are left out.
    Stop(StopWords),
    /// Arabic spelling variants become one.
    ArabicNormal,
    /// Persian spelling variants become one.
    PersianNormal,
    /// Letters of Indian scripts that are written in parts are composed.
    IndicNormal,
    /// Hindi spelling variants become one.
    HindiNormal,
    /// Bengali spelling variants become one.
    BengaliNormal,
    /// Telugu spelling variants become one.
    TeluguNormal,
    /// Light stems of Arabic.
    ArabicStem,
    /// Light stems of Persian.
    PersianStem,
    /// Light stems of Hindi.
    HindiStem,
    /// Light stems of Bengali.
    BengaliStem,
    /// Light stems of Telugu.
    TeluguStem,
    /// Porter's stems of English.
    EnglishStem,
    /// Light stems of French.
    FrenchStem,
    /// Light stems of Spanish.
    SpanishStem,
    /// Stems of Indonesian.
    IndonesianStem,
    /// Snowball's stems of Finnish.
    FinnishStem,
    /// Snowball's stems of Russian.
    RussianStem,
    /// Katakana without a prolonged sound at the end.
    KatakanaStem,
}

use Step::{
    ArabicNormal, ArabicStem, BengaliNormal, BengaliStem, Bigrams, Digits, Elision, EnglishStem, FinnishStem,
    FrenchStem, HindiNormal, HindiStem, IndicNormal, IndonesianStem, JapaneseWords, Joiners, KatakanaStem, Lowercase,
    PersianNormal, PersianStem, PlainBigrams, PlainWords, Possessive, RussianStem, Spaces, SpanishStem, Stop,
    TeluguNormal, TeluguStem, ThaiWords, Width, Words,
};

/// Every step with its name, stop words apart.
const NAMES: [(Step, &str); 31] = [
    (PlainWords, "plain-words"),
    (PlainBigrams, "plain-bigrams"),
    (Joiners, "joiners"),
    (Words, "words"),
    (Spaces, "spaces"),
    (ThaiWords, "thai-words"),
    (JapaneseWords, "japanese-words"),
    (Width, "width"),
    (Lowercase, "lowercase"),
    (Bigrams, "bigrams"),
    (Digits, "digits"),
    (Possessive, "possessive"),
    (Elision, "elision"),
    (ArabicNormal, "arabic-normal"),
    (PersianNormal, "persian-normal"),
    (IndicNormal, "indic-normal"),
    (HindiNormal, "hindi-normal"),
    (BengaliNormal, "bengali-normal"),
    (TeluguNormal, "telugu-normal"),
    (ArabicStem, "arabic-stem"),
    (PersianStem, "persian-stem"),
    (HindiStem, "hindi-stem"),
    (BengaliStem, "bengali-stem"),
    (TeluguStem, "telugu-stem"),
    (EnglishStem, "english-stem"),
    (FrenchStem, "french-stem"),
    (SpanishStem, "spanish-stem"),
    (IndonesianStem, "indonesian-stem"),
    (FinnishStem, "finnish-stem"),
    (RussianStem, "russian-stem"),
    (KatakanaStem, "katakana-stem"),
];

impl Step {
    pub(super) fn name(self) -> String {
        if let Stop(words) = self {
            let list = LISTS.iter().find(|(_, list)| *list == words).map_or("", |(name, _)| name);
            return format!("stop-{list}");
        }
        NAMES.iter().find(|(step, _)| *step == self).map_or("", |(_, name)| name).to_owned()
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        match name.strip_prefix("stop-") {
            Some(list) => LISTS.iter().find(|(name, _)| *name == list).map(|(_, words)| Stop(*words)),
            None => NAMES.iter().find(|(_, other)| *other == name).map(|(step, _)| *step),
        }
    }

    pub(super) fn splits(self) -> bool {
        matches!(self, PlainWords | PlainBigrams | Words | Spaces | ThaiWords | JapaneseWords)
    }

    pub(super) fn stems(self) -> bool {
        matches!(
            self,
            ArabicStem
                | PersianStem
                | HindiStem
                | BengaliStem
                | TeluguStem
                | EnglishStem
                | FrenchStem
                | SpanishStem
                | IndonesianStem
                | FinnishStem
                | RussianStem
                | KatakanaStem
        )
    }

    /// Changes a word; false if it is left out.
    pub(super) fn apply(self, term: &mut Vec<char>) -> bool {
        match self {
            Width => characters::width(term),
            Lowercase => characters::lowercase(term),
            Digits => characters::digits(term),
            Possessive => english::strip_possessive(term),
            Elision => romance::elide(term),
            Stop(words) => return !words.contains(term),
            ArabicNormal => arabic::normalise_arabic(term),
            PersianNormal => arabic::normalise_persian(term),
            IndicNormal => indic::compose(term),
            HindiNormal => indic::normalise_hindi(term),
            BengaliNormal => indic::normalise_bengali(term),
            TeluguNormal => indic::normalise_telugu(term),
            ArabicStem => arabic::stem_arabic(term),
            PersianStem => arabic::stem_persian(term),
            HindiStem => indic_stem::stem_hindi(term),
            BengaliStem => indic_stem::stem_bengali(term),
            TeluguStem => indic_stem::stem_telugu(term),
            EnglishStem => english::stem(term),
            FrenchStem => romance::stem_french(term),
            SpanishStem => romance::stem_spanish(term),
            IndonesianStem => indonesian::stem(term),
            FinnishStem => snowball(Algorithm::Finnish, term),
            RussianStem => snowball(Algorithm::Russian, term),
            KatakanaStem => japanese::stem_katakana(term),
            PlainWords | PlainBigrams | Joiners | Words | Spaces | ThaiWords | JapaneseWords | Bigrams => {}
        }
        true
    }
}

fn snowball(algorithm: Algorithm, term: &mut Vec<char>) {
    let word: String = term.iter().collect();
    term.clear();
    term.extend(Stemmer::new(algorithm).stem(&word).chars());
}
