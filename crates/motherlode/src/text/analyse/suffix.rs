//! What the stemmers share: terms are slices of characters, and endings are compared and exchanged.

/// Whether a term ends in a text.
pub(super) fn ends_with(term: &[char], suffix: &str) -> bool {
    let mut term = term.iter().rev();
    suffix.chars().rev().all(|character| term.next() == Some(&character))
}

/// Whether a term starts with a text.
pub(super) fn starts_with(term: &[char], prefix: &str) -> bool {
    let mut term = term.iter();
    prefix.chars().all(|character| term.next() == Some(&character))
}

/// Takes so many characters off the end.
pub(super) fn strip(term: &mut Vec<char>, characters: usize) {
    term.truncate(term.len() - characters);
}

/// Puts `with` in the place of an ending that the term has.
pub(super) fn exchange(term: &mut Vec<char>, suffix: &str, with: &str) {
    strip(term, suffix.chars().count());
    term.extend(with.chars());
}

/// Endings by length, the longest first, those of one length in one text.
pub(super) type Endings = &'static [(usize, &'static str)];

/// Takes off the longest ending of a list, if at least two characters stay.
pub(super) fn strip_longest(term: &mut Vec<char>, endings: Endings) {
    let fits = |length: usize, endings: &str| {
        term.len() > length + 1 && endings.split(' ').any(|ending| ends_with(term, ending))
    };
    if let Some((length, _)) = endings.iter().find(|(length, endings)| fits(*length, endings)) {
        strip(term, *length);
    }
}
