//! Words of Thai, which writes none apart: by a dictionary, as Java's `BreakIterator` finds them.
//!
//! Source: Lucene, `ThaiTokenizer` over the JDK's word iterator for Thai, whose search is written here anew, over the
//! words that it knows (`thai.txt`, made by `tests/golden/thai_words.py` from a list under CC0). It may know a few more, so
//! that words are near to Lucene's, not always the same.

use std::collections::{HashMap, HashSet};
use std::iter::Peekable;
use std::str::CharIndices;
use std::sync::LazyLock;

use icu_properties::CodePointMapData;
use icu_properties::props::{GeneralCategory, Script};

use super::characters::is_digit;
use super::words::Kind;

/// Words as paths from a root; a node is a number.
struct Dictionary {
    next: HashMap<(u32, char), u32, foldhash::fast::RandomState>,
    is_word: Vec<bool>,
}

const ROOT: u32 = 0;

static DICTIONARY: LazyLock<Dictionary> = LazyLock::new(|| {
    let mut dictionary = Dictionary { next: HashMap::default(), is_word: vec![false] };
    for word in include_str!("thai.txt").lines() {
        let end = word.chars().fold(ROOT, |node, letter| dictionary.grow(node, letter));
        dictionary.is_word[end as usize] = true;
    }
    dictionary
});

impl Dictionary {
    fn grow(&mut self, node: u32, letter: char) -> u32 {
        let new = self.is_word.len() as u32;
        let node = *self.next.entry((node, letter)).or_insert(new);
        if node == new {
            self.is_word.push(false);
        }
        node
    }
}

/// Calls `visit` with every word and its first byte in the text.
pub(super) fn split<'t>(text: &'t str, visit: &mut dyn FnMut(&'t str, usize, Kind)) {
    let mut rest = text.char_indices().peekable();
    while let Some((start, first)) = rest.peek().copied() {
        if is_thai(first) {
            let run = take(text, &mut rest, is_thai);
            let offsets: Vec<usize> = run.char_indices().map(|(offset, _)| offset).chain([run.len()]).collect();
            let mut from = 0;
            for end in Search::new(&run.chars().collect::<Vec<char>>()).ends() {
                give(&run[offsets[from]..offsets[end]], start + offsets[from], visit);
                from = end;
            }
        } else {
            give(other_word(text, &mut rest), start, visit);
        }
    }
}

/// Letters and marks of Thai, without digits and the sign of the currency.
fn is_thai(character: char) -> bool {
    matches!(character, '\u{E01}'..='\u{E3A}' | '\u{E40}'..='\u{E4E}')
}

/// A search for words that fill a run of Thai letters: depth first, the longest word first.
///
/// Where no words fill the run, the breaks that came farthest are taken, and the search goes on one letter behind the
/// place where they ended; nothing is broken there, so that the unknown letters and the next word are one.
struct Search<'a> {
    run: &'a [char],
    /// Breaks that are taken for now, and ends of words that were passed by.
    breaks: Vec<usize>,
    passed: Vec<usize>,
    /// Breaks from which no words led to the end.
    wrong: HashSet<usize, foldhash::fast::RandomState>,
    farthest: usize,
    best: Option<Vec<usize>>,
}

impl<'a> Search<'a> {
    fn new(run: &'a [char]) -> Self {
        let wrong = HashSet::default();
        Self { run, breaks: Vec::new(), passed: Vec::new(), wrong, farthest: 0, best: None }
    }

    /// Where the words end.
    fn ends(mut self) -> Vec<usize> {
        let dictionary = &*DICTIONARY;
        let (mut place, mut node) = (0, ROOT);
        loop {
            let is_word = dictionary.is_word[node as usize];
            if place == self.run.len() && is_word {
                break;
            }
            if is_word {
                self.passed.push(place);
            }
            let letter = self.run.get(place);
            let next = letter.and_then(|letter| dictionary.next.get(&(node, *letter)));
            node = next.copied().unwrap_or(ROOT);
            if next.is_some() {
                place += 1;
                continue;
            }
            match self.turn(place) {
                Some(other) if other < self.run.len() => place = other,
                _ => {
                    self.breaks.pop();
                    break;
                }
            }
        }
        self.breaks.push(self.run.len());
        self.breaks.dedup();
        self.breaks
    }

    /// Where to go on after no word could be read on at a place; none if all is read as far as it can be.
    fn turn(&mut self, place: usize) -> Option<usize> {
        if place > self.farthest {
            self.farthest = place;
            self.best = Some(self.breaks.clone());
        }
        while self.passed.pop_if(|end| self.wrong.contains(end)).is_some() {}
        if let Some(end) = self.passed.pop() {
            while let Some(later) = self.breaks.pop_if(|later| end < *later) {
                self.wrong.insert(later);
            }
            self.breaks.push(end);
            return Some(end);
        }
        if let Some(best) = &self.best {
            self.breaks.clone_from(best);
            return (self.farthest < self.run.len()).then_some(self.farthest + 1);
        }
        if place > 0 && self.breaks.last() != Some(&place) {
            self.breaks.push(place);
        }
        self.breaks.push(place + 1);
        Some(place + 1)
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
        let after = text[place..].chars().nth(1).filter(|character| !is_thai(*character));
        if continues(last, next) || (is_sign(last) && is_digit(next)) {
            last = next;
        } else if let Some(after) = after.filter(|after| joins(last, next, *after)) {
            rest.next();
            last = after;
        } else {
            break;
        }
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
    is_of_word(last) && !is_thai(next) && is_of_word(next) || (is_digit(last) && is_percent)
}

/// Whether `next` holds what is before it and what comes after together: letters by a hyphen, digits by a comma, both by
/// a full stop or a straight quote.
fn joins(last: char, next: char, after: char) -> bool {
    let is_of_both = matches!(next, '.' | '"' | '\'');
    let is_of_letters =
        is_of_both || matches!(next, '\u{AD}' | '\u{2027}') || category(next) == GeneralCategory::DashPunctuation;
    let is_of_digits = is_of_both || matches!(next, ',' | '\u{66B}');
    (is_of_letters && is_letter(last) && is_letter(after)) || (is_of_digits && is_digit(last) && is_digit(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Golden: `tests/golden/lucene.py --show th TEXT`, which leaves stop words out.
    #[test]
    fn words_are_those_of_java() {
        let mut words = Vec::new();
        split("ฉันรักภาษาไทย พ.ศ. 2533 (เกิด) $3.5 10% 1,000.5 2nd-hand 100-200", &mut |word, _, _| words.push(word));
        let expected = ["ฉัน", "รัก", "ภาษา", "ไทย", "พ", "ศ", "2533", "เกิด", "10%", "1,000.5", "2nd-hand", "100", "200"];
        assert_eq!(words, expected);
    }
}
