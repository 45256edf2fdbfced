//! Hindi, Bengali and Telugu: composed letters and spelling variants.

/// Two or three characters and the one that they make.
type Composition = (char, char, Option<char>, char);

const DEVANAGARI: [Composition; 34] = [
    ('\u{905}', '\u{93E}', Some('\u{945}'), '\u{911}'),
    ('\u{905}', '\u{93E}', Some('\u{946}'), '\u{912}'),
    ('\u{905}', '\u{93E}', Some('\u{947}'), '\u{913}'),
    ('\u{905}', '\u{93E}', Some('\u{948}'), '\u{914}'),
    ('\u{905}', '\u{93E}', None, '\u{906}'),
    ('\u{905}', '\u{945}', None, '\u{972}'),
    ('\u{905}', '\u{946}', None, '\u{904}'),
    ('\u{905}', '\u{949}', None, '\u{911}'),
    ('\u{905}', '\u{94A}', None, '\u{912}'),
    ('\u{905}', '\u{94B}', None, '\u{913}'),
    ('\u{905}', '\u{94C}', None, '\u{914}'),
    ('\u{906}', '\u{945}', None, '\u{911}'),
    ('\u{906}', '\u{946}', None, '\u{912}'),
    ('\u{906}', '\u{947}', None, '\u{913}'),
    ('\u{906}', '\u{948}', None, '\u{914}'),
    ('\u{909}', '\u{941}', None, '\u{90A}'),
    ('\u{90F}', '\u{945}', None, '\u{90D}'),
    ('\u{90F}', '\u{946}', None, '\u{90E}'),
    ('\u{90F}', '\u{947}', None, '\u{910}'),
    ('\u{915}', '\u{93C}', None, '\u{958}'),
    ('\u{916}', '\u{93C}', None, '\u{959}'),
    ('\u{917}', '\u{93C}', None, '\u{95A}'),
    ('\u{91C}', '\u{93C}', None, '\u{95B}'),
    ('\u{921}', '\u{93C}', None, '\u{95C}'),
    ('\u{922}', '\u{93C}', None, '\u{95D}'),
    ('\u{928}', '\u{93C}', None, '\u{929}'),
    ('\u{92B}', '\u{93C}', None, '\u{95E}'),
    ('\u{92F}', '\u{93C}', None, '\u{95F}'),
    ('\u{930}', '\u{93C}', None, '\u{931}'),
    ('\u{933}', '\u{93C}', None, '\u{934}'),
    ('\u{93E}', '\u{945}', None, '\u{949}'),
    ('\u{93E}', '\u{946}', None, '\u{94A}'),
    ('\u{93E}', '\u{947}', None, '\u{94B}'),
    ('\u{93E}', '\u{948}', None, '\u{94C}'),
];
const BENGALI: [Composition; 7] = [
    ('\u{985}', '\u{9BE}', None, '\u{986}'),
    ('\u{9A1}', '\u{9BC}', None, '\u{9DC}'),
    ('\u{9A2}', '\u{9BC}', None, '\u{9DD}'),
    ('\u{9A4}', '\u{9CD}', Some('\u{200D}'), '\u{9CE}'),
    ('\u{9AF}', '\u{9BC}', None, '\u{9DF}'),
    ('\u{9C7}', '\u{9BE}', None, '\u{9CB}'),
    ('\u{9C7}', '\u{9D7}', None, '\u{9CC}'),
];
const TELUGU: [Composition; 6] = [
    ('\u{C12}', '\u{C4C}', None, '\u{C14}'),
    ('\u{C12}', '\u{C55}', None, '\u{C13}'),
    ('\u{C2C}', '\u{C41}', Some('\u{C41}'), '\u{C0B}'),
    ('\u{C35}', '\u{C41}', None, '\u{C2E}'),
    ('\u{C46}', '\u{C55}', None, '\u{C47}'),
    ('\u{C46}', '\u{C56}', None, '\u{C48}'),
];

/// Composes letters that are written in parts; a letter after a composed one may be composed too.
///
/// Source: Lucene, `IndicNormalizer`, after the Unicode Standard 5.2, chapter 9; here for the three scripts of our
/// languages.
pub(super) fn compose(term: &mut Vec<char>) {
    let mut place = 0;
    while place + 1 < term.len() {
        let table: &[Composition] = match term[place] {
            '\u{900}'..='\u{97F}' => &DEVANAGARI,
            '\u{980}'..='\u{9FF}' => &BENGALI,
            '\u{C00}'..='\u{C7F}' => &TELUGU,
            _ => &[],
        };
        let third = term.get(place + 2).copied();
        let fits = |(first, second, last, _): &&Composition| {
            term[place] == *first && term[place + 1] == *second && (last.is_none() || *last == third)
        };
        if let Some((_, _, last, composed)) = table.iter().find(fits) {
            term[place] = *composed;
            term.drain(place + 1..place + 2 + usize::from(last.is_some()));
        }
        place += 1;
    }
}

/// Rewrites a term from left to right; `step` pushes what it keeps of each character and may take the next ones.
fn rewrite(
    term: &mut Vec<char>,
    step: impl Fn(char, &mut std::iter::Peekable<std::vec::IntoIter<char>>) -> Option<char>,
) {
    let mut rest = std::mem::take(term).into_iter().peekable();
    while let Some(character) = rest.next() {
        term.extend(step(character, &mut rest));
    }
}

/// Short vowels for long ones, anusvara for chandrabindu and a dead n; no nukta, virama, joiners.
///
/// Source: Lucene, `HindiNormalizer`, after Pingali and Varma, Word normalization in Indian languages, and Larkey,
/// Connell and AbdulJaleel, Hindi CLIR in Thirty Days.
pub(super) fn normalise_hindi(term: &mut Vec<char>) {
    rewrite(term, |character, rest| match character {
        '\u{928}' if rest.next_if_eq(&'\u{94D}').is_some() => Some('\u{902}'),
        '\u{93C}' | '\u{94D}' | '\u{200C}' | '\u{200D}' => None,
        '\u{901}' => Some('\u{902}'),
        '\u{929}' => Some('\u{928}'),
        '\u{931}' => Some('\u{930}'),
        '\u{934}' => Some('\u{933}'),
        '\u{958}' => Some('\u{915}'),
        '\u{959}' => Some('\u{916}'),
        '\u{95A}' => Some('\u{917}'),
        '\u{95B}' => Some('\u{91C}'),
        '\u{95C}' => Some('\u{921}'),
        '\u{95D}' => Some('\u{922}'),
        '\u{95E}' => Some('\u{92B}'),
        '\u{95F}' => Some('\u{92F}'),
        '\u{945}' | '\u{946}' | '\u{948}' => Some('\u{947}'),
        '\u{949}' | '\u{94A}' | '\u{94C}' => Some('\u{94B}'),
        '\u{90D}' | '\u{90E}' | '\u{910}' => Some('\u{90F}'),
        '\u{911}' | '\u{912}' | '\u{914}' => Some('\u{913}'),
        '\u{906}' | '\u{972}' => Some('\u{905}'),
        '\u{908}' => Some('\u{907}'),
        '\u{90A}' => Some('\u{909}'),
        '\u{960}' => Some('\u{90B}'),
        '\u{961}' => Some('\u{90C}'),
        '\u{940}' => Some('\u{93F}'),
        '\u{942}' => Some('\u{941}'),
        '\u{944}' => Some('\u{943}'),
        '\u{963}' => Some('\u{962}'),
        other => Some(other),
    });
}

/// Short vowels for long ones, anusvara for chandrabindu; no visarga, no joiners.
///
/// Source: Lucene, `TeluguNormalizer`.
pub(super) fn normalise_telugu(term: &mut Vec<char>) {
    rewrite(term, |character, rest| match character {
        '\u{C46}' if rest.next_if_eq(&'\u{C56}').is_some() => Some('\u{C48}'),
        '\u{C12}' if rest.next_if_eq(&'\u{C55}').is_some() => Some('\u{C13}'),
        '\u{C12}' if rest.next_if_eq(&'\u{C4C}').is_some() => Some('\u{C14}'),
        '\u{C03}' | '\u{200C}' | '\u{200D}' => None,
        '\u{C00}' | '\u{C01}' => Some('\u{C02}'),
        '\u{C14}' => Some('\u{C13}'),
        '\u{C10}' => Some('\u{C0F}'),
        '\u{C06}' => Some('\u{C05}'),
        '\u{C08}' => Some('\u{C07}'),
        '\u{C0A}' => Some('\u{C09}'),
        '\u{C40}' => Some('\u{C3F}'),
        '\u{C42}' => Some('\u{C41}'),
        '\u{C47}' => Some('\u{C46}'),
        '\u{C4B}' => Some('\u{C4A}'),
        other => Some(other),
    });
}

const VIRAMA: char = '\u{9CD}';

/// Letters that sound alike become one; conjuncts with ya and ba are dissolved.
///
/// Source: Lucene, `BengaliNormalizer`, after UzZaman and Khan, A Double Metaphone Encoding for Bangla and its
/// Application in Spelling Checker, with all that it does to conjuncts in the middle of a word.
pub(super) fn normalise_bengali(term: &mut Vec<char>) {
    let mut place = 0;
    while place < term.len() {
        let after_virama = place > 0 && term[place - 1] == VIRAMA;
        place = match term[place] {
            '\u{981}' => {
                term.remove(place);
                place
            }
            '\u{995}' if term[place + 1..].starts_with(&[VIRAMA, '\u{9BF}']) => {
                let kept = usize::from(place > 0);
                term[place + kept] = '\u{996}';
                term.drain(place + 1 + kept..place + 3);
                place + 1
            }
            '\u{9AF}' if after_virama => dissolve_ya(term, place),
            '\u{9AC}' if after_virama => dissolve_ba(term, place),
            '\u{983}' => replace_visarga(term, place),
            letter => {
                term[place] = alike(letter);
                place + 1
            }
        };
    }
}

fn alike(letter: char) -> char {
    match letter {
        '\u{9C0}' => '\u{9BF}',
        '\u{9C2}' => '\u{9C1}',
        '\u{999}' => '\u{982}',
        '\u{9B6}' | '\u{9B7}' => '\u{9B8}',
        '\u{9A3}' => '\u{9A8}',
        '\u{9DC}' | '\u{9DD}' => '\u{9B0}',
        '\u{9CE}' => '\u{9A4}',
        other => other,
    }
}

/// Ya after a virama: behind the first letter an e for it and a following aa, elsewhere nothing. Gives the next place.
fn dissolve_ya(term: &mut Vec<char>, place: usize) -> usize {
    if place == 2 {
        term[place - 1] = '\u{9C7}';
        let with_aa = usize::from(term.get(place + 1) == Some(&'\u{9BE}'));
        term.drain(place..=place + with_aa);
        place
    } else {
        term.drain(place - 1..=place);
        place - 1
    }
}

/// Ba after a virama: behind the first letter or another conjunct nothing, elsewhere the letter before it once more.
fn dissolve_ba(term: &mut Vec<char>, place: usize) -> usize {
    if place == 2 || (place >= 5 && term[place - 3] == VIRAMA) {
        term.drain(place - 1..=place);
        place - 1
    } else if place > 2 {
        term[place - 1] = term[place - 2];
        term.remove(place);
        place
    } else {
        place + 1
    }
}

/// Visarga: ha at the end of short words, nothing at the end of others, elsewhere the letter after it once more.
fn replace_visarga(term: &mut Vec<char>, place: usize) -> usize {
    match term.get(place + 1) {
        Some(next) => term[place] = *next,
        None if term.len() <= 3 => term[place] = '\u{9B9}',
        None => {
            term.remove(place);
        }
    }
    place + 1
}
