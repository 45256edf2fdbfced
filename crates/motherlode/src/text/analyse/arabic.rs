//! Arabic and Persian: spelling variants and light stems.

use super::suffix::{ends_with, starts_with, strip};

/// Alef without hamza or madda, yeh with dots, heh for teh marbuta; no vowel signs, no tatweel.
///
/// Source: Lucene, `ArabicNormalizer`, after Larkey, Ballesteros and Connell, Light Stemming for Arabic Information
/// Retrieval.
pub(super) fn normalise_arabic(term: &mut Vec<char>) {
    term.retain(|character| !matches!(character, '\u{640}' | '\u{64B}'..='\u{652}'));
    for character in term {
        *character = match *character {
            '\u{622}' | '\u{623}' | '\u{625}' => '\u{627}',
            '\u{649}' => '\u{64A}',
            '\u{629}' => '\u{647}',
            other => other,
        };
    }
}

/// Yeh, kaf and heh of Persian keyboards become the Arabic ones; no hamza above.
///
/// Source: Lucene, `PersianNormalizer`.
pub(super) fn normalise_persian(term: &mut Vec<char>) {
    term.retain(|character| *character != '\u{654}');
    for character in term {
        *character = match *character {
            '\u{6CC}' | '\u{6D2}' => '\u{64A}',
            '\u{6A9}' => '\u{643}',
            '\u{6C0}' | '\u{6C1}' => '\u{647}',
            other => other,
        };
    }
}

/// Article, conjunction and prepositions: at most one is taken off.
const PREFIXES: [&str; 7] = ["ال", "وال", "بال", "كال", "فال", "لل", "و"];
/// Endings, each taken off in turn.
const SUFFIXES: [&str; 10] = ["ها", "ان", "ات", "ون", "ين", "يه", "ية", "ه", "ة", "ي"];

/// The light10 stem.
///
/// Source: Larkey, Ballesteros and Connell, as in Lucene's `ArabicStemmer`: two characters stay, three after a lone waw.
pub(super) fn stem_arabic(term: &mut Vec<char>) {
    let fits = |prefix: &&str| {
        let length = prefix.chars().count();
        let kept = if length == 1 { 3 } else { 2 };
        term.len() >= length + kept && starts_with(term, prefix)
    };
    if let Some(prefix) = PREFIXES.iter().copied().find(|prefix| fits(prefix)) {
        term.drain(..prefix.chars().count());
    }
    strip_each(term, &SUFFIXES);
}

/// Persian endings, each taken off in turn; the last is the zero-width non-joiner.
const PERSIAN_SUFFIXES: [&str; 8] = ["ات", "ان", "ترين", "تر", "يي", "ي", "ها", "\u{200C}"];

/// The light stem of Persian. Source: Lucene, `PersianStemmer`.
pub(super) fn stem_persian(term: &mut Vec<char>) {
    strip_each(term, &PERSIAN_SUFFIXES);
}

fn strip_each(term: &mut Vec<char>, suffixes: &[&str]) {
    for suffix in suffixes {
        let length = suffix.chars().count();
        if term.len() >= length + 2 && ends_with(term, suffix) {
            strip(term, length);
        }
    }
}
