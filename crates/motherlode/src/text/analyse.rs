//! From a text to the terms that BM25 counts.
//!
//! An [`Analyser`] is a named chain of [`Step`]s, chosen by language. The name, with its version, stands in the index
//! and in its artefact's key, so an index is never searched with terms made in another way.

use std::borrow::Cow;
use std::ops::Range;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfkc_quick};
use unicode_segmentation::UnicodeSegmentation;

use crate::corpus::Language;

/// Grows whenever any step gives other terms than before.
const VERSION: u32 = 1;

/// One step of a chain, in the order in which steps apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// NFKC: full-width letters and half-width kana become the usual ones.
    Width,
    /// Words by the boundaries of UAX 29, those without a letter or digit left out.
    Words,
    /// Lower case, character by character, as Lucene does it.
    Lowercase,
    /// Words of scripts without spaces become bigrams of their characters; a character between two words of other
    /// scripts stands alone, as in Lucene's `CJKBigramFilter`.
    Bigrams,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Width => "width",
            Self::Words => "words",
            Self::Lowercase => "lowercase",
            Self::Bigrams => "bigrams",
        }
    }
}

/// Languages, by primary subtag, that are written without spaces between words, or whose particles stick to words.
const UNSPACED: [&str; 7] = ["ja", "km", "ko", "lo", "my", "th", "zh"];

/// Turns text into terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Analyser {
    steps: &'static [Step],
}

impl Analyser {
    /// The chain of a language: words in lower case; for languages without spaces also character bigrams.
    pub fn new(language: &Language) -> Self {
        let primary = language.as_str().split('-').next().unwrap_or_default();
        let steps: &[Step] = if UNSPACED.contains(&primary) {
            &[Step::Width, Step::Words, Step::Lowercase, Step::Bigrams]
        } else {
            &[Step::Words, Step::Lowercase]
        };
        Self { steps }
    }

    /// The steps in order.
    pub fn steps(&self) -> &[Step] {
        self.steps
    }

    /// The name of the chain with its version, such as `words+lowercase/1`.
    pub fn name(&self) -> String {
        let steps: Vec<&str> = self.steps.iter().map(|step| step.name()).collect();
        format!("{}/{VERSION}", steps.join("+"))
    }

    /// Calls `visit` with every term, in text order, repeated terms repeatedly.
    pub fn analyse(&self, text: &str, visit: &mut dyn FnMut(&str)) {
        let text = if self.has(Step::Width) { compose(text) } else { Cow::Borrowed(text) };
        let mut words = Words { text: &text, lowered: String::new(), visit };
        if self.has(Step::Bigrams) { words.bigrams() } else { words.plain() }
    }

    /// All terms, in text order.
    pub fn terms(&self, text: &str) -> Vec<String> {
        let mut terms = Vec::new();
        self.analyse(text, &mut |term| terms.push(term.to_owned()));
        terms
    }

    fn has(&self, step: Step) -> bool {
        self.steps.contains(&step)
    }
}

fn compose(text: &str) -> Cow<'_, str> {
    match is_nfkc_quick(text.chars()) {
        IsNormalized::Yes => Cow::Borrowed(text),
        _ => Cow::Owned(text.nfkc().collect()),
    }
}

/// One text on its way through the chain.
struct Words<'a> {
    text: &'a str,
    lowered: String,
    visit: &'a mut dyn FnMut(&str),
}

/// The character of an unspaced script that was read last.
struct Unit {
    range: Range<usize>,
    /// Whether it is part of a bigram already.
    paired: bool,
}

impl<'a> Words<'a> {
    fn plain(&mut self) {
        let text = self.text;
        for word in text.unicode_words() {
            self.lowercase(word);
        }
    }

    fn bigrams(&mut self) {
        let text: &'a str = self.text;
        let mut last: Option<Unit> = None;
        for (start, word) in text.unicode_word_indices() {
            if word.starts_with(is_unspaced) {
                for (offset, character) in word.grapheme_indices(true) {
                    let range = start + offset..start + offset + character.len();
                    last = Some(self.pair(last, range));
                }
            } else {
                self.leave_alone(last.take());
                self.lowercase(word);
            }
        }
        self.leave_alone(last);
    }

    /// Gives the bigram of `last` and the character at `range`, if they are neighbours.
    fn pair(&mut self, last: Option<Unit>, range: Range<usize>) -> Unit {
        match last {
            Some(last) if last.range.end == range.start => {
                (self.visit)(&self.text[last.range.start..range.end]);
                Unit { range, paired: true }
            }
            last => {
                self.leave_alone(last);
                Unit { range, paired: false }
            }
        }
    }

    fn leave_alone(&mut self, unit: Option<Unit>) {
        if let Some(Unit { range, paired: false }) = unit {
            (self.visit)(&self.text[range]);
        }
    }

    fn lowercase(&mut self, word: &str) {
        self.lowered.clear();
        if word.is_ascii() {
            self.lowered.push_str(word);
            self.lowered.make_ascii_lowercase();
        } else {
            self.lowered.extend(word.chars().flat_map(char::to_lowercase));
        }
        (self.visit)(&self.lowered);
    }
}

/// Whether a character belongs to a script that is cut into bigrams: Thai, Lao, Myanmar, Khmer, kana, Hangul, Han.
fn is_unspaced(character: char) -> bool {
    matches!(u32::from(character),
        0x0E00..=0x0E4F | 0x0E80..=0x0ECF | 0x1000..=0x103F | 0x1780..=0x17DF
        | 0x1100..=0x11FF | 0xAC00..=0xD7AF
        | 0x3005..=0x3007 | 0x3041..=0x30FF | 0x31F0..=0x31FF
        | 0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xF900..=0xFAFF | 0x2_0000..=0x3_FFFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(language: &str, text: &str) -> Vec<String> {
        Analyser::new(&Language::new(language).unwrap()).terms(text)
    }

    #[test]
    fn words_are_lower_case_and_keep_inner_punctuation() {
        assert_eq!(
            terms("en", "The U.S. can't: 3.14, Straße — ΣΑΣ!"),
            ["the", "u.s", "can't", "3.14", "straße", "σασ"]
        );
        assert_eq!(terms("hi", "हिन्दी में।"), ["हिन्दी", "में"]);
        assert_eq!(terms("en", " \n "), [""; 0]);
    }

    #[test]
    fn unspaced_scripts_become_bigrams_of_neighbours() {
        assert_eq!(terms("zh", "北京大学 PKU 人。天"), ["北京", "京大", "大学", "pku", "人", "天"]);
        assert_eq!(terms("ja", "ﾊﾟﾘは雨"), ["パリ", "リは", "は雨"]);
        assert_eq!(terms("ko", "한국어 는"), ["한국", "국어", "는"]);
        assert_eq!(terms("zh", "ＡＢＣ１２"), ["abc12"]);
    }

    #[test]
    fn thai_marks_stay_with_their_consonant() {
        assert_eq!(terms("th", "ที่นี่ 123"), ["ที่นี่", "123"]);
        assert_eq!(terms("th", "กรุงเทพ")[0], "กรุ");
    }

    #[test]
    fn names_tell_chains_apart() {
        let name = |language| Analyser::new(&Language::new(language).unwrap()).name();
        assert_eq!(name("sw"), "words+lowercase/1");
        assert_eq!(name("zh-hant"), "width+words+lowercase+bigrams/1");
    }
}
