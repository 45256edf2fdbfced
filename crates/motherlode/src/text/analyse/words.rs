//! From a text to words: by the boundaries of UAX 29 as Lucene's `StandardTokenizer` sees them, or by white space.

use std::ops::RangeInclusive;

use icu_properties::props::{ExtendedPictographic, GeneralCategory, LineBreak, RegionalIndicator, Script, WordBreak};
use icu_properties::{CodePointMapData, CodePointSetData};
use unicode_segmentation::UnicodeSegmentation;

/// Longest word in UTF-16 units, as Lucene counts; the rest is a word of its own.
const LONGEST: usize = 255;

/// What a word is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Letters and digits, or a pictogram.
    Word,
    /// Han, kana or Hangul alone: what bigrams are made of.
    Joined,
}

/// Calls `visit` with every word, its first byte in the text, and its kind.
///
/// One ideograph or hiragana is a word, as are a run of katakana, one of Hangul, one of Thai, Lao, Khmer or Myanmar, and
/// a pictogram. Source: Lucene 9, `StandardTokenizer` (UAX 29 over Unicode 12.1).
pub(super) fn split<'t>(text: &'t str, visit: &mut dyn FnMut(&'t str, usize, Kind)) {
    let mut complex: Option<std::ops::Range<usize>> = None;
    for (start, segment) in text.split_word_bound_indices() {
        if let Some(run) = &mut complex {
            if run.end == start && segment.starts_with(is_complex) {
                run.end += segment.len();
                continue;
            }
            shorten(&text[run.clone()], run.start, Kind::Word, visit);
            complex = None;
        }
        if segment.starts_with(is_complex) {
            complex = Some(start..start + segment.len());
        } else if let Some(kind) = kind(segment) {
            shorten(segment, start, kind, visit);
        }
    }
    if let Some(run) = complex {
        shorten(&text[run.clone()], run.start, Kind::Word, visit);
    }
}

/// Calls `visit` with everything between white space, as Java's `Character.isWhitespace` has it: without no-break spaces.
pub(super) fn split_at_spaces<'t>(text: &'t str, visit: &mut dyn FnMut(&'t str, usize, Kind)) {
    let is_space = |character: char| match character {
        '\u{1C}'..='\u{1F}' => true,
        '\u{85}' | '\u{A0}' | '\u{2007}' | '\u{202F}' => false,
        other => other.is_whitespace(),
    };
    let mut start = 0;
    for piece in text.split(is_space) {
        // What split between this piece and the next has its own length.
        if !piece.is_empty() {
            shorten(piece, start, Kind::Word, visit);
        }
        start += piece.len();
        start += text[start..].chars().next().map_or(0, char::len_utf8);
    }
}

fn shorten<'t>(word: &'t str, start: usize, kind: Kind, visit: &mut dyn FnMut(&'t str, usize, Kind)) {
    if word.len() <= LONGEST {
        return visit(word, start, kind);
    }
    let (mut from, mut length) = (0, 0);
    for (place, character) in word.char_indices() {
        if length + character.len_utf16() > LONGEST {
            visit(&word[from..place], start + from, kind);
            (from, length) = (place, 0);
        }
        length += character.len_utf16();
    }
    visit(&word[from..], start + from, kind);
}

/// The kind of a segment, none if it is not a word.
fn kind(segment: &str) -> Option<Kind> {
    if segment.is_ascii() {
        return segment.bytes().any(|byte| byte.is_ascii_alphanumeric()).then_some(Kind::Word);
    }
    if segment.chars().all(|character| is_joined(character) || is_extension(character))
        && segment.starts_with(is_joined)
    {
        return Some(Kind::Joined);
    }
    segment.contains(is_of_words).then_some(Kind::Word)
}

/// Whether a character is written without spaces and split by dictionaries: Thai, Lao, Khmer, Myanmar and others.
fn is_complex(character: char) -> bool {
    !character.is_ascii() && CodePointMapData::<LineBreak>::new().get(character) == LineBreak::ComplexContext
}

/// Ideographs, kana and Hangul; the iteration mark 々 is a letter to UAX 29 and so a word of its own.
fn is_joined(character: char) -> bool {
    if character.is_ascii() {
        return false;
    }
    let script = CodePointMapData::<Script>::new().get(character);
    match word_break(character) {
        WordBreak::Katakana => true,
        WordBreak::ALetter => script == Script::Hangul,
        _ => script == Script::Han || script == Script::Hiragana,
    }
}

/// The class in UAX 29; the cedilla alone became a letter only after the version that Lucene has.
fn word_break(character: char) -> WordBreak {
    if character == '\u{b8}' { WordBreak::Other } else { CodePointMapData::<WordBreak>::new().get(character) }
}

fn is_extension(character: char) -> bool {
    matches!(word_break(character), WordBreak::Extend | WordBreak::Format | WordBreak::ZWJ)
}

/// Whether a segment with this character is a word.
fn is_of_words(character: char) -> bool {
    matches!(
        word_break(character),
        WordBreak::ALetter | WordBreak::HebrewLetter | WordBreak::Numeric | WordBreak::Katakana
    ) || CodePointMapData::<GeneralCategory>::new().get(character) == GeneralCategory::DecimalNumber
        || is_pictograph(character)
        || CodePointSetData::new::<RegionalIndicator>().contains(character)
}

/// `Extended_Pictographic` as it was before Unicode 17, which kept emoji alone: so Lucene knows it.
fn is_pictograph(character: char) -> bool {
    const NO_EMOJI: [RangeInclusive<char>; 12] = [
        '\u{2388}'..='\u{2388}',
        '\u{2600}'..='\u{2605}',
        '\u{2607}'..='\u{2612}',
        '\u{2614}'..='\u{2685}',
        '\u{2690}'..='\u{2705}',
        '\u{2708}'..='\u{2712}',
        '\u{2763}'..='\u{2767}',
        '\u{1f000}'..='\u{1f0ff}',
        '\u{1f249}'..='\u{1f3fa}',
        '\u{1f400}'..='\u{1f53d}',
        '\u{1f546}'..='\u{1f64f}',
        '\u{1f680}'..='\u{1f6ff}',
    ];
    CodePointSetData::new::<ExtendedPictographic>().contains(character)
        || NO_EMOJI.iter().any(|range| range.contains(&character))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        let mut words = Vec::new();
        split(text, &mut |word, start, _| {
            assert_eq!(&text[start..start + word.len()], word);
            words.push(word);
        });
        words
    }

    /// Golden: `tests/golden/lucene.py --show ar TEXT`.
    #[test]
    fn words_are_those_of_the_standard_tokenizer() {
        let text = "© 😀 👨‍👩‍👧 🇫🇷 ✓ x_y _ can't 3.14 3,4 a.b ภาษาไทย ภาษา 2019년 한국어abc 漢字 ② ½";
        let expected = [
            "©",
            "😀",
            "👨‍👩‍👧",
            "🇫🇷",
            "x_y",
            "can't",
            "3.14",
            "3,4",
            "a.b",
            "ภาษาไทย",
            "ภาษา",
            "2019년",
            "한국어abc",
            "漢",
            "字",
        ];
        assert_eq!(words(text), expected);
    }

    #[test]
    fn spaces_are_those_of_java() {
        let mut words = Vec::new();
        split_at_spaces("Kitabu,  vya\u{A0}x\u{3000}y\n", &mut |word, start, _| words.push((word, start)));
        assert_eq!(words, [("Kitabu,", 0), ("vya\u{A0}x", 9), ("y", 18)]);
    }

    #[test]
    fn long_words_are_cut() {
        let long = "é".repeat(300);
        assert_eq!(words(&long).iter().map(|word| word.chars().count()).collect::<Vec<_>>(), [255, 45]);
    }
}
