//! The plain chains: words in lower case, and for scripts without spaces bigrams of characters.
//!
//! They need no list and no rule of any language.

use std::borrow::Cow;
use std::ops::Range;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfkc_quick};
use unicode_segmentation::UnicodeSegmentation;

/// Visits the words of UAX 29 that have a letter or digit, in lower case.
pub(super) fn words(text: &str, visit: &mut dyn FnMut(&str)) {
    Words { text, lowered: String::new(), visit }.plain();
}

/// The same after NFKC; words of scripts without spaces become bigrams of their characters, and a character between two
/// words of other scripts stands alone.
pub(super) fn bigrams(text: &str, visit: &mut dyn FnMut(&str)) {
    Words { text: &compose(text), lowered: String::new(), visit }.bigrams();
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
            if word.starts_with(is_marked) {
                // UAX 29 gives a consonant with its marks as a word of its own.
                last = Some(self.pair(last, start..start + word.len()));
            } else if word.starts_with(is_joined) {
                for (offset, character) in word.char_indices() {
                    let range = start + offset..start + offset + character.len_utf8();
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

/// Whether a character belongs to an unspaced script with combining vowels and tones: Thai, Lao, Myanmar, Khmer.
fn is_marked(character: char) -> bool {
    matches!(u32::from(character), 0x0E00..=0x0E4F | 0x0E80..=0x0ECF | 0x1000..=0x103F | 0x1780..=0x17DF)
}

/// Whether a character belongs to a script of whole characters whose words are joined: kana, Hangul, Han.
fn is_joined(character: char) -> bool {
    matches!(u32::from(character),
        0x1100..=0x11FF | 0xAC00..=0xD7AF | 0x3005..=0x3007 | 0x3041..=0x30FF | 0x31F0..=0x31FF
        | 0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xF900..=0xFAFF | 0x2_0000..=0x3_FFFF)
}
