//! From a text to the terms that BM25 counts.
//!
//! An [`Analyser`] is a chain of [`Step`]s: one splits a text into words, the others change each word or leave it out. The
//! chains of the sixteen MIRACL languages are those that Anserini 0.25 (Lucene 9.9) uses for them; `tests/golden/lucene.py`
//! asks it. The chain's name, with its version, stands in the index, so an index is searched with the terms it was made of.

mod arabic;
mod characters;
mod english;
mod indic;
mod indic_stem;
mod indonesian;
mod plain;
mod romance;
mod stop;
mod suffix;
mod thai;
mod words;

#[cfg(test)]
pub(crate) mod golden;

use std::borrow::Cow;

use frostem::{Algorithm, Stemmer};
use serde::{Deserialize, Serialize};

use self::stop::LISTS;
pub use self::stop::StopWords;
use self::words::Kind;
use crate::corpus::Language;

/// Grows whenever any step gives other terms than before.
const VERSION: u32 = 2;

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
    /// Lucene's `PersianAnalyzer` up to 9.9: no stems.
    Persian,
    /// Lucene's `PersianAnalyzer` since 9.10, that of Anserini 2: with stems.
    PersianStemmed,
    /// Lucene's `RussianAnalyzer`.
    Russian,
    /// Lucene's `SpanishAnalyzer`.
    Spanish,
    /// Lucene's `TeluguAnalyzer`.
    Telugu,
    /// Lucene's `ThaiAnalyzer`, over ICU's dictionary instead of Java's.
    Thai,
}

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
}

use Step::{
    ArabicNormal, ArabicStem, BengaliNormal, BengaliStem, Bigrams, Digits, Elision, EnglishStem, FinnishStem,
    FrenchStem, HindiNormal, HindiStem, IndicNormal, IndonesianStem, Joiners, Lowercase, PersianNormal, PersianStem,
    PlainBigrams, PlainWords, Possessive, RussianStem, Spaces, SpanishStem, Stop, TeluguNormal, TeluguStem, ThaiWords,
    Width, Words,
};

/// Every step with its name, stop words apart.
const NAMES: [(Step, &str); 29] = [
    (PlainWords, "plain-words"),
    (PlainBigrams, "plain-bigrams"),
    (Joiners, "joiners"),
    (Words, "words"),
    (Spaces, "spaces"),
    (ThaiWords, "thai-words"),
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
];

impl Chain {
    /// The steps for a language, of which only `by-language` and `plain` take notice.
    fn steps(self, language: &Language) -> &'static [Step] {
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

impl Step {
    fn name(self) -> String {
        if let Stop(words) = self {
            let list = LISTS.iter().find(|(_, list)| *list == words).map_or("", |(name, _)| name);
            return format!("stop-{list}");
        }
        NAMES.iter().find(|(step, _)| *step == self).map_or("", |(_, name)| name).to_owned()
    }

    fn named(name: &str) -> Option<Self> {
        match name.strip_prefix("stop-") {
            Some(list) => LISTS.iter().find(|(name, _)| *name == list).map(|(_, words)| Stop(*words)),
            None => NAMES.iter().find(|(_, other)| *other == name).map(|(step, _)| *step),
        }
    }

    fn splits(self) -> bool {
        matches!(self, PlainWords | PlainBigrams | Words | Spaces | ThaiWords)
    }

    fn stems(self) -> bool {
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
        )
    }

    /// Changes a word; false if it is left out.
    fn apply(self, term: &mut Vec<char>) -> bool {
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
            PlainWords | PlainBigrams | Joiners | Words | Spaces | ThaiWords | Bigrams => {}
        }
        true
    }
}

fn snowball(algorithm: Algorithm, term: &mut Vec<char>) {
    let word: String = term.iter().collect();
    term.clear();
    term.extend(Stemmer::new(algorithm).stem(&word).chars());
}

/// Turns text into terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Analyser {
    steps: Vec<Step>,
}

impl Analyser {
    /// A chain as it is for a language.
    pub fn new(chain: Chain, language: &Language) -> Self {
        Self { steps: chain.steps(language).to_vec() }
    }

    /// The same chain, if not `stop_words` with all words, if not `stemming` with whole words.
    #[must_use]
    pub fn with(mut self, stop_words: bool, stemming: bool) -> Self {
        self.steps.retain(|step| (stop_words || !matches!(step, Stop(_))) && (stemming || !step.stems()));
        self
    }

    /// The chain with this name, none if there is none in this version.
    pub fn named(name: &str) -> Option<Self> {
        let (steps, version) = name.split_once('/')?;
        let steps: Vec<Step> = steps.split('+').map(Step::named).collect::<Option<_>>()?;
        let splits = steps.iter().filter(|step| step.splits()).count() == 1;
        (version == VERSION.to_string() && splits).then_some(Self { steps })
    }

    /// The steps in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The name of the chain with its version, such as `words+lowercase/2`.
    pub fn name(&self) -> String {
        let steps: Vec<String> = self.steps.iter().map(|step| step.name()).collect();
        format!("{}/{VERSION}", steps.join("+"))
    }

    /// Calls `visit` with every word, in text order; [`term`](Self::term) makes a word a term, whatever stands beside it.
    pub fn words(&self, text: &str, visit: &mut dyn FnMut(&str)) {
        let joined = self.steps.contains(&Joiners) && text.contains('\u{200C}');
        let text = if joined { Cow::Owned(text.replace('\u{200C}', " ")) } else { Cow::Borrowed(text) };
        let (before, _) = self.halves();
        if self.steps.contains(&Bigrams) {
            let mut pairs = Pairs { last: None, term: String::new(), visit };
            let mut letters = Vec::new();
            words::split(&text, &mut |word, start, kind| {
                letters.clear();
                letters.extend(word.chars());
                before.iter().for_each(|step| {
                    step.apply(&mut letters);
                });
                pairs.take(&letters, start..start + word.len(), kind);
            });
            pairs.end();
            return;
        }
        match self.steps.iter().find(|step| step.splits()) {
            Some(PlainWords) => plain::words(&text, visit),
            Some(PlainBigrams) => plain::bigrams(&text, visit),
            Some(Spaces) => words::split_at_spaces(&text, &mut |word, _, _| visit(word)),
            Some(ThaiWords) => thai::split(&text, &mut |word, _, _| visit(word)),
            _ => words::split(&text, &mut |word, _, _| visit(word)),
        }
    }

    /// The steps before neighbouring characters are made pairs, and those after; all are after where none are.
    fn halves(&self) -> (&[Step], &[Step]) {
        let middle = self.steps.iter().position(|step| *step == Bigrams).unwrap_or_default();
        self.steps.split_at(middle)
    }

    /// Whether [`term`](Self::term) gives every word back as it is.
    pub fn keeps_words(&self) -> bool {
        self.halves().1.iter().all(|step| step.splits() || *step == Bigrams)
    }

    /// Puts the term of a word into `term`; false if the word is left out.
    pub fn term(&self, word: &str, letters: &mut Vec<char>, term: &mut String) -> bool {
        letters.clear();
        letters.extend(word.chars());
        let is_kept = self.halves().1.iter().all(|step| step.apply(letters));
        term.clear();
        term.extend(letters.iter());
        is_kept
    }

    /// Calls `visit` with every term, in text order, repeated terms repeatedly.
    pub fn analyse(&self, text: &str, visit: &mut dyn FnMut(&str)) {
        let (mut letters, mut term) = (Vec::new(), String::new());
        self.words(text, &mut |word| {
            if self.term(word, &mut letters, &mut term) {
                visit(&term);
            }
        });
    }

    /// All terms, in text order.
    pub fn terms(&self, text: &str) -> Vec<String> {
        let mut terms = Vec::new();
        self.analyse(text, &mut |term| terms.push(term.to_owned()));
        terms
    }
}

/// Makes pairs of neighbouring characters; one without neighbours stands alone. Source: Lucene, `CJKBigramFilter`.
struct Pairs<'a> {
    /// The character that was read last, where it ends in the text, and whether it is part of a pair already.
    last: Option<(char, usize, bool)>,
    term: String,
    visit: &'a mut dyn FnMut(&str),
}

impl Pairs<'_> {
    fn take(&mut self, word: &[char], range: std::ops::Range<usize>, kind: Kind) {
        if kind == Kind::Word || self.last.is_some_and(|(_, end, _)| end != range.start) {
            self.end();
        }
        if kind == Kind::Word {
            return self.give(word);
        }
        for character in word {
            let before = self.last.map(|(before, _, _)| before);
            if let Some(before) = before {
                self.give(&[before, *character]);
            }
            self.last = Some((*character, range.end, before.is_some()));
        }
    }

    fn end(&mut self) {
        if let Some((character, _, false)) = self.last.take() {
            self.give(&[character]);
        }
    }

    fn give(&mut self, letters: &[char]) {
        self.term.clear();
        self.term.extend(letters);
        (self.visit)(&self.term);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(chain: Chain, language: &str, text: &str) -> Vec<String> {
        Analyser::new(chain, &Language::new(language).unwrap()).terms(text)
    }

    #[test]
    fn plain_words_are_lower_case_and_keep_inner_punctuation() {
        assert_eq!(
            terms(Chain::Plain, "en", "The U.S. can't: 3.14, Straße — ΣΑΣ!"),
            ["the", "u.s", "can't", "3.14", "straße", "σασ"]
        );
        assert_eq!(terms(Chain::Plain, "hi", "हिन्दी में।"), ["हिन्दी", "में"]);
        assert_eq!(terms(Chain::Plain, "en", " \n "), [""; 0]);
    }

    #[test]
    fn plain_bigrams_are_of_neighbours() {
        assert_eq!(terms(Chain::Plain, "zh", "北京大学 PKU 人。天"), ["北京", "京大", "大学", "pku", "人", "天"]);
        assert_eq!(terms(Chain::Plain, "ja", "ﾊﾟﾘは雨"), ["パリ", "リは", "は雨"]);
        assert_eq!(terms(Chain::Plain, "ko", "한국어 는"), ["한국", "국어", "는"]);
        assert_eq!(terms(Chain::Plain, "zh", "ＡＢＣ１２"), ["abc12"]);
        assert_eq!(terms(Chain::Plain, "th", "ที่นี่ 123"), ["ที่นี่", "123"]);
        assert_eq!(terms(Chain::Plain, "th", "กรุงเทพ")[0], "กรุ");
    }

    #[test]
    fn a_name_gives_its_chain_back() {
        let english = Analyser::new(Chain::ByLanguage, &Language::new("en").unwrap());
        assert_eq!(english.name(), "words+possessive+lowercase+stop-en+english-stem/2");
        assert_eq!(Analyser::named(&english.name()), Some(english.clone()));
        assert_eq!(english.with(false, false).name(), "words+possessive+lowercase/2");
        assert_eq!(Analyser::named("words+lowercase/1"), None);
        assert_eq!(Analyser::named("words+stop-xx/2"), None);
        assert_eq!(Analyser::named("lowercase/2"), None);
    }

    #[test]
    fn steps_can_be_left_out() {
        let english = Analyser::new(Chain::English, &Language::new("en").unwrap());
        assert_eq!(english.clone().terms("The dogs' owner's running"), ["dog", "owner", "run"]);
        assert_eq!(english.clone().with(false, true).terms("The dogs"), ["the", "dog"]);
        assert_eq!(english.with(true, false).terms("The dogs"), ["dogs"]);
    }

    #[test]
    fn persian_has_stems_on_request() {
        assert_eq!(terms(Chain::Persian, "fa", "کتاب‌های ایرانی"), ["كتاب", "ايراني"]);
        assert_eq!(terms(Chain::PersianStemmed, "fa", "کتاب‌های ایرانی"), ["كتاب", "ايران"]);
    }
}
