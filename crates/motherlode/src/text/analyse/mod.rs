//! From a text to the terms that BM25 counts.
//!
//! An [`Analyser`] is a chain of [`Step`]s: one splits a text into words, the others change each word or leave it out. The
//! chains of the sixteen MIRACL languages are those that Anserini 0.25 (Lucene 9.9) uses for them; `tests/golden/lucene.py`
//! asks it. The chain's name, with its version, stands in the index, so an index is searched with the terms it was made of.

mod arabic;
mod chain;
mod characters;
mod english;
mod indic;
mod indic_stem;
mod indonesian;
mod japanese;
mod plain;
mod romance;
mod step;
mod stop;
mod suffix;
mod thai;
mod words;

#[cfg(test)]
pub(crate) mod golden;

use std::borrow::Cow;

pub use self::chain::Chain;
pub use self::japanese::JapaneseDictionary;
pub use self::step::Step;
pub use self::stop::StopWords;
use self::words::Kind;
use crate::corpus::Language;

/// Grows whenever any step gives other terms than before.
const VERSION: u32 = 2;

/// Turns text into terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Analyser {
    steps: Vec<Step>,
    dictionary: Option<JapaneseDictionary>,
}

impl Analyser {
    /// A chain as it is for a language.
    pub fn new(chain: Chain, language: &Language) -> Self {
        Self { steps: chain.steps(language).to_vec(), dictionary: None }
    }

    /// The same chain with a dictionary.
    #[must_use]
    pub fn with_dictionary(mut self, dictionary: JapaneseDictionary) -> Self {
        self.dictionary = Some(dictionary);
        self
    }

    /// The dictionary, where there is one.
    pub fn dictionary(&self) -> Option<&JapaneseDictionary> {
        self.dictionary.as_ref()
    }

    /// Whether the chain can take no text before it has a dictionary.
    pub fn lacks_dictionary(&self) -> bool {
        self.dictionary.is_none() && self.steps.contains(&Step::JapaneseWords)
    }

    /// The same chain, if not `stop_words` with all words, if not `stemming` with whole words.
    #[must_use]
    pub fn with(mut self, stop_words: bool, stemming: bool) -> Self {
        self.steps.retain(|step| (stop_words || !matches!(step, Step::Stop(_))) && (stemming || !step.stems()));
        self
    }

    /// The chain with this name, none if there is none in this version.
    pub fn named(name: &str) -> Option<Self> {
        let (steps, version) = name.split_once('/')?;
        let steps: Vec<Step> = steps.split('+').map(Step::named).collect::<Option<_>>()?;
        let splits = steps.iter().filter(|step| step.splits()).count() == 1;
        (version == VERSION.to_string() && splits).then_some(Self { steps, dictionary: None })
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
        let joined = self.steps.contains(&Step::Joiners) && text.contains('\u{200C}');
        let text = if joined { Cow::Owned(text.replace('\u{200C}', " ")) } else { Cow::Borrowed(text) };
        let (before, _) = self.halves();
        if self.steps.contains(&Step::Bigrams) {
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
            Some(Step::PlainWords) => plain::words(&text, visit),
            Some(Step::PlainBigrams) => plain::bigrams(&text, visit),
            Some(Step::Spaces) => words::split_at_spaces(&text, &mut |word, _, _| visit(word)),
            Some(Step::JapaneseWords) => {
                self.dictionary.as_ref().expect("whoever takes this chain gives it a dictionary").words(&text, visit);
            }
            Some(Step::ThaiWords) => thai::split(&text, &mut |word, _, _| visit(word)),
            _ => words::split(&text, &mut |word, _, _| visit(word)),
        }
    }

    /// The steps before neighbouring characters are made pairs, and those after; all are after where none are.
    fn halves(&self) -> (&[Step], &[Step]) {
        let middle = self.steps.iter().position(|step| *step == Step::Bigrams).unwrap_or_default();
        self.steps.split_at(middle)
    }

    /// Whether [`term`](Self::term) gives every word back as it is.
    pub fn keeps_words(&self) -> bool {
        self.halves().1.iter().all(|step| step.splits() || *step == Step::Bigrams)
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
