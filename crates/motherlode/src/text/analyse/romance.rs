//! French and Spanish: elided articles, light stems.

use super::suffix::{ends_with, exchange, strip};

/// What French elides before a vowel, and how an apostrophe may look.
const ELIDED: [&str; 13] = ["l", "m", "t", "qu", "n", "s", "j", "d", "c", "jusqu", "quoiqu", "lorsqu", "puisqu"];
const APOSTROPHES: [char; 2] = ['\'', '\u{2019}'];

/// Takes off an elided article or pronoun with its apostrophe, whatever its case. Source: Lucene, `ElisionFilter`.
pub(super) fn elide(term: &mut Vec<char>) {
    let Some(place) = term.iter().position(|character| APOSTROPHES.contains(character)) else { return };
    let article: String = term[..place].iter().flat_map(|character| character.to_lowercase()).collect();
    if ELIDED.contains(&article.as_str()) {
        term.drain(..=place);
    }
}

/// A rule of the French stemmer: for terms longer than so many characters, this ending becomes that one.
struct Rule(usize, &'static str, &'static str);

/// The first that fits is the last that is applied, but for those that [`GOES_ON`] names.
const FRENCH: [Rule; 28] = [
    Rule(9, "issement", "ir"),
    Rule(8, "issant", "ir"),
    Rule(6, "ement", "e"),
    Rule(11, "ficatrice", "fier"),
    Rule(10, "ficateur", "fier"),
    Rule(9, "catrice", "quer"),
    Rule(8, "cateur", "quer"),
    Rule(8, "atrice", "er"),
    Rule(7, "ateur", "er"),
    Rule(6, "trice", "teur"),
    Rule(5, "ième", ""),
    Rule(7, "teuse", "ter"),
    Rule(6, "teur", "ter"),
    Rule(5, "euse", "eu"),
    Rule(8, "ère", "er"),
    Rule(7, "ive", "if"),
    Rule(4, "folle", "fou"),
    Rule(4, "molle", "mou"),
    Rule(9, "nnelle", "n"),
    Rule(9, "nnel", "n"),
    Rule(4, "ète", "et"),
    Rule(8, "ique", ""),
    Rule(8, "esse", "e"),
    Rule(7, "inage", "in"),
    Rule(9, "isation", ""),
    Rule(9, "isateur", ""),
    Rule(8, "ation", ""),
    Rule(8, "ition", ""),
];
const GOES_ON: [&str; 3] = ["trice", "ète", "ique"];

/// The light stem of French.
///
/// Source: Savoy, Light Stemming Approaches for the French, Portuguese, German and Hungarian Languages (the UniNE
/// algorithm), as in Lucene's `FrenchLightStemmer`.
pub(super) fn stem_french(term: &mut Vec<char>) {
    strip_plural(term);
    for Rule(longer_than, suffix, with) in FRENCH {
        if term.len() > longer_than && ends_with(term, suffix) {
            exchange(term, suffix, with);
            match suffix {
                "ement" if term.len() > 3 && ends_with(term, "ive") => exchange(term, "ive", "if"),
                "isation" if term.len() > 5 && ends_with(term, "ual") => exchange(term, "ual", "uel"),
                _ => {}
            }
            if !GOES_ON.contains(&suffix) {
                break;
            }
        }
    }
    shorten_french(term);
}

fn strip_plural(term: &mut Vec<char>) {
    if term.len() > 5 && ends_with(term, "x") {
        if ends_with(term, "aux") && term[term.len() - 4] != 'e' {
            exchange(term, "aux", "al");
        } else {
            strip(term, 1);
        }
    }
    for plural in ["x", "s"] {
        if term.len() > 3 && ends_with(term, plural) {
            strip(term, 1);
        }
    }
}

/// Letters without accents and not doubled, no final e and r.
fn shorten_french(term: &mut Vec<char>) {
    if term.len() > 4 {
        for letter in &mut *term {
            *letter = match *letter {
                'à' | 'á' | 'â' => 'a',
                'ô' => 'o',
                'è' | 'é' | 'ê' => 'e',
                'ù' | 'û' => 'u',
                'î' => 'i',
                'ç' => 'c',
                other => other,
            };
        }
        term.dedup_by(|next, letter| next == letter && letter.is_alphabetic());
    }
    if term.len() > 4 && ends_with(term, "ie") {
        strip(term, 2);
    }
    if term.len() > 4 {
        for last in ["r", "e", "e"] {
            if ends_with(term, last) {
                strip(term, 1);
            }
        }
        if let [.., before, last] = term[..]
            && before == last
            && last.is_alphabetic()
        {
            strip(term, 1);
        }
    }
}

/// The light stem of Spanish.
///
/// Source: Savoy, Report on CLEF-2001 Experiments, as in Lucene's `SpanishLightStemmer`.
pub(super) fn stem_spanish(term: &mut Vec<char>) {
    if term.len() < 5 {
        return;
    }
    for letter in &mut *term {
        *letter = match *letter {
            'à' | 'á' | 'â' | 'ä' => 'a',
            'ò' | 'ó' | 'ô' | 'ö' => 'o',
            'è' | 'é' | 'ê' | 'ë' => 'e',
            'ù' | 'ú' | 'û' | 'ü' => 'u',
            'ì' | 'í' | 'î' | 'ï' => 'i',
            other => other,
        };
    }
    match term[..] {
        [.., 'o' | 'a' | 'e'] => strip(term, 1),
        [.., 'c', 'e', 's'] => exchange(term, "ces", "z"),
        [.., 'o' | 'a' | 'e', 's'] => strip(term, 2),
        _ => {}
    }
}
