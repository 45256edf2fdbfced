//! Lengths and term frequencies in a byte each.

/// The length in one byte, as Lucene's `SmallFloat.intToByte4`: exact below 40, then four significant bits.
pub(super) fn round_length(length: u32) -> u8 {
    const EXACT: u32 = 24;
    if length < EXACT { length as u8 } else { EXACT as u8 + round_to_four_bits(length - EXACT) }
}

/// The length that a byte stands for, Lucene's `SmallFloat.byte4ToInt`.
pub(super) fn rounded_length(byte: u8) -> u32 {
    const EXACT: u8 = 24;
    if byte < EXACT {
        return u32::from(byte);
    }
    let (exponent, mantissa) = ((byte - EXACT) >> 3, u32::from((byte - EXACT) & 7));
    let value = if exponent == 0 { mantissa } else { (mantissa | 8) << (exponent - 1) };
    u32::from(EXACT) + value
}

fn round_to_four_bits(value: u32) -> u8 {
    let bits = u32::BITS - value.leading_zeros();
    if bits < 4 {
        return value as u8;
    }
    let shift = bits - 4;
    (((shift + 1) << 3) | ((value >> shift) & 7)) as u8
}

/// A term's frequency in one byte: exact up to 127, then four significant bits, up to 7.5 million.
pub(super) fn round_frequency(frequency: u32) -> u8 {
    if frequency < 128 {
        return frequency as u8;
    }
    let shift = u32::BITS - frequency.leading_zeros() - 4;
    if shift > 19 { u8::MAX } else { (128 + ((shift - 4) << 3) + ((frequency >> shift) & 7)) as u8 }
}

pub(super) fn rounded_frequency(byte: u8) -> u32 {
    if byte < 128 {
        return u32::from(byte);
    }
    let (exponent, mantissa) = (u32::from(byte - 128) >> 3, u32::from(byte & 7));
    (mantissa | 8) << (exponent + 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Lucene 9, `SmallFloat.byte4ToInt(SmallFloat.intToByte4(i))` for these lengths.
    #[test]
    fn lengths_are_rounded_as_lucene_does() {
        let rounded = |length| rounded_length(round_length(length));
        assert_eq!([0, 1, 23, 24, 31, 39, 40].map(rounded), [0, 1, 23, 24, 31, 39, 40]);
        assert_eq!([41, 42, 55, 56, 59, 60, 100, 1000].map(rounded), [40, 42, 54, 56, 56, 60, 96, 984]);
        assert_eq!(round_length(u32::MAX >> 1), u8::MAX);
    }

    proptest! {
        #[test]
        fn frequencies_are_exact_when_small_and_near_when_large(frequency in 1_u32..5_000_000) {
            let rounded = rounded_frequency(round_frequency(frequency));
            prop_assert!(rounded <= frequency && frequency - rounded <= frequency / 8);
            prop_assert!(frequency >= 128 || rounded == frequency);
        }

        #[test]
        fn every_byte_of_a_length_survives(byte in 0_u8..=255) {
            prop_assert_eq!(round_length(rounded_length(byte)), byte);
        }
    }
}
