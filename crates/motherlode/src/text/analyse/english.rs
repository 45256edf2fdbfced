//! English: possessives and the stemmer of Porter.

use super::suffix::{ends_with, exchange, strip};

/// Takes off `'s`, with any of three apostrophes. Source: Lucene, `EnglishPossessiveFilter`.
pub(super) fn strip_possessive(term: &mut Vec<char>) {
    if let [.., '\'' | '\u{2019}' | '\u{FF07}', 's' | 'S'] = term[..] {
        strip(term, 2);
    }
}

/// Double suffixes become single ones, where the stem has a measure of 1 or more.
const DOUBLE: [(&str, &str); 21] = [
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("logi", "log"),
];
const SINGLE: [(&str, &str); 7] =
    [("icate", "ic"), ("ative", ""), ("alize", "al"), ("iciti", "ic"), ("ical", "ic"), ("ful", ""), ("ness", "")];
/// Taken off where the stem has a measure of 2 or more; `ion` only after s or t.
const LAST: [&str; 19] = [
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism", "ate", "iti",
    "ous", "ive", "ize",
];

/// Porter's stem.
///
/// Source: Porter, An algorithm for suffix stripping, 1980, with the departures of his own later versions (`bli`, `logi`,
/// words of two letters stay), as in Lucene's `PorterStemmer`; Snowball's `porter` has none of them.
pub(super) fn stem(term: &mut Vec<char>) {
    if term.len() < 3 {
        return;
    }
    plural(term);
    participle(term);
    if ends_with(term, "y") && has_vowel(stem_before(term, "y")) {
        exchange(term, "y", "i");
    }
    exchange_first(term, &DOUBLE);
    exchange_first(term, &SINGLE);
    strip_last(term);
    final_letters(term);
}

fn plural(term: &mut Vec<char>) {
    match term[..] {
        [.., 's', 's', 'e', 's'] | [.., 'i', 'e', 's'] => strip(term, 2),
        [.., 's', 's'] => {}
        [.., 's'] => strip(term, 1),
        _ => {}
    }
}

fn participle(term: &mut Vec<char>) {
    if ends_with(term, "eed") {
        if measure(stem_before(term, "eed")) > 0 {
            strip(term, 1);
        }
        return;
    }
    let Some(ending) = ["ed", "ing"].into_iter().find(|ending| ends_with(term, ending)) else { return };
    if !has_vowel(stem_before(term, ending)) {
        return;
    }
    exchange(term, ending, "");
    if ["at", "bl", "iz"].into_iter().any(|ending| ends_with(term, ending)) {
        term.push('e');
    } else if ends_in_double_consonant(term) {
        if !matches!(term.last(), Some('l' | 's' | 'z')) {
            strip(term, 1);
        }
    } else if measure(term) == 1 && ends_in_short_syllable(term) {
        term.push('e');
    }
}

/// Exchanges the first ending of a list that the term has, if what comes before has a measure.
fn exchange_first(term: &mut Vec<char>, endings: &[(&str, &str)]) {
    if let Some((ending, with)) = endings.iter().find(|(ending, _)| ends_with(term, ending))
        && measure(stem_before(term, ending)) > 0
    {
        exchange(term, ending, with);
    }
}

fn strip_last(term: &mut Vec<char>) {
    let fits = |ending: &&&str| {
        ends_with(term, ending) && (**ending != "ion" || matches!(stem_before(term, ending).last(), Some('s' | 't')))
    };
    if let Some(ending) = LAST.iter().find(fits)
        && measure(stem_before(term, ending)) > 1
    {
        exchange(term, ending, "");
    }
}

/// Takes off a last e, and one l of two.
fn final_letters(term: &mut Vec<char>) {
    let syllables = measure(term);
    if ends_with(term, "e") && (syllables > 1 || (syllables == 1 && !ends_in_short_syllable(stem_before(term, "e")))) {
        strip(term, 1);
    }
    if ends_with(term, "l") && ends_in_double_consonant(term) && measure(term) > 1 {
        strip(term, 1);
    }
}

fn stem_before<'a>(term: &'a [char], ending: &str) -> &'a [char] {
    &term[..term.len() - ending.len()]
}

fn is_consonant(term: &[char], place: usize) -> bool {
    match term[place] {
        'a' | 'e' | 'i' | 'o' | 'u' => false,
        'y' => place == 0 || !is_consonant(term, place - 1),
        _ => true,
    }
}

/// How often a vowel is followed by a consonant.
fn measure(term: &[char]) -> usize {
    let consonant = |place: &usize| is_consonant(term, *place);
    (1..term.len()).filter(|place| consonant(place) && !consonant(&(place - 1))).count()
}

fn has_vowel(term: &[char]) -> bool {
    (0..term.len()).any(|place| !is_consonant(term, place))
}

fn ends_in_double_consonant(term: &[char]) -> bool {
    matches!(term, [.., before, last] if before == last) && is_consonant(term, term.len() - 1)
}

/// Consonant, vowel, consonant other than w, x, y, as in `hop`.
fn ends_in_short_syllable(term: &[char]) -> bool {
    let length = term.len();
    length > 2
        && is_consonant(term, length - 1)
        && !is_consonant(term, length - 2)
        && is_consonant(term, length - 3)
        && !matches!(term[length - 1], 'w' | 'x' | 'y')
}
