//! Steps that look at single characters: lower case, digits, width.

use unicode_normalization::char::{compose, decompose_compatible};

/// Zeros of all decimal digits beyond ASCII; the other nine follow each. Source: Unicode 14, general category Nd.
const ZEROS: &[u32] = &[
    0x0660, 0x06F0, 0x07C0, 0x0966, 0x09E6, 0x0A66, 0x0AE6, 0x0B66, 0x0BE6, 0x0C66, 0x0CE6, 0x0D66, 0x0DE6, 0x0E50,
    0x0ED0, 0x0F20, 0x1040, 0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90, 0x1B50, 0x1BB0, 0x1C40, 0x1C50,
    0xA620, 0xA8D0, 0xA900, 0xA9D0, 0xA9F0, 0xAA50, 0xABF0, 0xFF10, 0x104A0, 0x10D30, 0x11066, 0x110F0, 0x11136,
    0x111D0, 0x112F0, 0x11450, 0x114D0, 0x11650, 0x116C0, 0x11730, 0x118E0, 0x11950, 0x11C50, 0x11D50, 0x11DA0,
    0x16A60, 0x16AC0, 0x16B50, 0x1D7CE, 0x1D7D8, 0x1D7E2, 0x1D7EC, 0x1D7F6, 0x1E140, 0x1E2F0, 0x1E950, 0x1FBF0,
];

/// Lower case, one character for one, as Java's `Character.toLowerCase`.
pub(super) fn lowercase(term: &mut [char]) {
    for character in term {
        *character = if character.is_ascii() {
            character.to_ascii_lowercase()
        } else {
            character.to_lowercase().next().unwrap_or(*character)
        };
    }
}

/// Whether a character is a decimal digit of any script.
pub(super) fn is_digit(character: char) -> bool {
    character.is_ascii_digit() || digit(character).is_some()
}

fn digit(character: char) -> Option<u32> {
    let code = u32::from(character);
    let zero = *ZEROS.get(ZEROS.partition_point(|zero| *zero <= code).checked_sub(1)?)?;
    (code - zero < 10).then_some(code - zero)
}

/// Decimal digits of all scripts become those of ASCII. Source: Lucene, `DecimalDigitFilter`.
pub(super) fn digits(term: &mut [char]) {
    for character in term.iter_mut().filter(|character| !character.is_ascii()) {
        if let Some(value) = digit(*character) {
            *character = char::from(b'0' + value as u8);
        }
    }
}

/// Full-width ASCII and half-width kana get their usual width. Source: Lucene, `CJKWidthFilter`.
pub(super) fn width(term: &mut Vec<char>) {
    if !term.iter().any(|character| ('\u{FF01}'..='\u{FF9F}').contains(character)) {
        return;
    }
    let source = std::mem::take(term);
    for character in source {
        match character {
            '\u{FF01}'..='\u{FF5E}' | '\u{FF65}'..='\u{FF9F}' => {
                decompose_compatible(character, |usual| join_mark(term, usual));
            }
            _ => term.push(character),
        }
    }
}

/// Appends a character; a voicing mark joins the kana before it.
fn join_mark(term: &mut Vec<char>, character: char) {
    let is_mark = matches!(character, '\u{3099}' | '\u{309A}');
    match term.last_mut() {
        Some(last @ '\u{30A6}'..='\u{30FD}') if is_mark => match compose(*last, character) {
            Some(voiced) => *last = voiced,
            None => term.push(character),
        },
        _ => term.push(character),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(change: impl Fn(&mut Vec<char>), text: &str) -> String {
        let mut term: Vec<char> = text.chars().collect();
        change(&mut term);
        term.into_iter().collect()
    }

    #[test]
    fn characters_are_changed_one_for_one() {
        assert_eq!(changed(|term| lowercase(term), "İSTANBUL ΣΑΣ"), "istanbul σασ");
        assert_eq!(changed(|term| digits(term), "١٢٣ ۴ ९ x7"), "123 4 9 x7");
        assert_eq!(changed(width, "ＡＢｃ１ ｶﾞﾊﾟｱﾞ"), "ABc1 ガパア\u{3099}");
        assert!(is_digit('๕') && is_digit('5') && !is_digit('²'));
    }
}
