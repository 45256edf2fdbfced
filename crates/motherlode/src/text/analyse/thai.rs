//! Words of Thai, which writes none apart: by ICU's dictionary; between them words as Java's `BreakIterator` sees them.
//!
//! Source: Lucene, `ThaiTokenizer` over the JDK's `BreakIterator.getWordInstance`. The JDK's dictionary and search are not
//! ICU's, so the words are near to Lucene's, not the same.

use std::iter::Peekable;
use std::str::CharIndices;

use icu_properties::CodePointMapData;
use icu_properties::props::{GeneralCategory, Script};
use icu_segmenter::WordSegmenter;
use icu_segmenter::options::WordBreakInvariantOptions;

use super::characters::is_digit;
use super::words::{Kind, is_complex};

/// Calls `visit` with every word and its first byte in the text.
pub(super) fn split<'t>(text: &'t str, visit: &mut dyn FnMut(&'t str, usize, Kind)) {
    let segmenter = WordSegmenter::new_dictionary(WordBreakInvariantOptions::default());
    let mut rest = text.char_indices().peekable();
    while let Some((start, first)) = rest.peek().copied() {
        if is_complex(first) {
            let run = take(text, &mut rest, is_complex);
            let mut from = 0;
            for end in segmenter.segment_str(run).filter(|end| *end > 0) {
                give(&run[from..end], start + from, visit);
                from = end;
            }
        } else {
            give(other_word(text, &mut rest), start, visit);
        }
    }
}

/// Visits a stretch if it begins with a letter or digit, as `ThaiTokenizer` does.
fn give<'t>(word: &'t str, start: usize, visit: &mut dyn FnMut(&'t str, usize, Kind)) {
    if word.starts_with(|first: char| is_letter(first) || is_digit(first)) {
        visit(word, start, Kind::Word);
    }
}

/// Takes the characters that fit, at least one.
fn take<'t>(text: &'t str, rest: &mut Peekable<CharIndices<'_>>, fits: impl Fn(char) -> bool) -> &'t str {
    let start = rest.next().map_or(text.len(), |(start, _)| start);
    while rest.next_if(|(_, character)| fits(*character)).is_some() {}
    &text[start..rest.peek().map_or(text.len(), |(end, _)| *end)]
}

/// The next stretch that is not Thai: ideographs, kana of one kind, a word, a number with its sign, or one other character.
fn other_word<'t>(text: &'t str, rest: &mut Peekable<CharIndices<'_>>) -> &'t str {
    let (start, first) = rest.peek().copied().unwrap_or((text.len(), ' '));
    let script = |character: char| CodePointMapData::<Script>::new().get(character);
    if matches!(script(first), Script::Han | Script::Hiragana | Script::Katakana) {
        return take(text, rest, |character| script(character) == script(first));
    }
    let mut last = first;
    rest.next();
    while let Some((place, next)) = rest.peek().copied() {
        let after = text[place..].chars().nth(1).filter(|character| !is_complex(*character));
        if !(continues(last, next) || joins(last, next, after) || (is_sign(last) && is_digit(next))) {
            break;
        }
        last = next;
        rest.next();
    }
    &text[start..rest.peek().map_or(text.len(), |(end, _)| *end)]
}

fn category(character: char) -> GeneralCategory {
    CodePointMapData::<GeneralCategory>::new().get(character)
}

fn is_letter(character: char) -> bool {
    character.is_ascii_alphabetic() || (!character.is_ascii() && character.is_alphabetic())
}

fn is_of_word(character: char) -> bool {
    let is_mark = matches!(category(character), GeneralCategory::NonspacingMark | GeneralCategory::SpacingMark);
    let is_number = matches!(category(character), GeneralCategory::LetterNumber | GeneralCategory::OtherNumber);
    is_letter(character) || is_digit(character) || is_mark || is_number
}

/// What may stand before a number and belongs to it.
fn is_sign(character: char) -> bool {
    matches!(character, '#' | '.') || category(character) == GeneralCategory::CurrencySymbol
}

fn continues(last: char, next: char) -> bool {
    let is_percent = matches!(next, '%' | '¢' | '٪' | '‰' | '‱');
    is_of_word(last) && !is_complex(next) && is_of_word(next) || (is_digit(last) && is_percent)
}

/// Whether `next` holds what is before it and what comes after together: letters by a hyphen, digits by a comma, both by
/// a full stop or a straight quote.
fn joins(last: char, next: char, after: Option<char>) -> bool {
    let Some(after) = after else { return false };
    let is_of_both = matches!(next, '.' | '"' | '\'');
    let is_of_letters =
        is_of_both || matches!(next, '\u{AD}' | '\u{2027}') || category(next) == GeneralCategory::DashPunctuation;
    let is_of_digits = is_of_both || matches!(next, ',' | '\u{66B}');
    (is_of_letters && is_letter(last) && is_letter(after)) || (is_of_digits && is_digit(last) && is_digit(after))
}
