//! The file of an index, little endian.
//!
//! The magic `MLBM2503`; nine numbers of 8 bytes (passages, passages with a term, terms, bytes of all postings, tokens, k1
//! and b as f64, bytes of the analyser's name, bytes of all terms); the postings of each term; the analyser's name; the
//! terms in byte order; where each term ends (u64); where each term's postings end (u64). Every section is padded to 8
//! bytes, the postings of a term to 4.
//!
//! The postings of a term are its passages (u32), ascending, and then for each (u16) the rounded length of the passage in
//! the high byte and the rounded term frequency in the low one. Before those of a frequent term stands its table of
//! windows: for each window of passages where its postings end (u32), then for each the highest impact in it (f32).

use std::ops::Range;

pub(super) const MAGIC: &[u8; 8] = b"MLBM2503";
pub(super) const HEADER: usize = 80;
/// Bytes of a posting: the passage, and the weight.
pub(super) const PASSAGE: usize = 4;
pub(super) const WEIGHT: usize = 2;
/// Passages of a window: their sums of scores, 32 KiB, stay in a core's nearest cache.
pub(super) const WINDOW: usize = 1 << 12;
/// Bytes of a window in a table: where its postings end, and their highest impact.
const ENTRY: usize = 8;
/// Postings a window, on average, from which on a term has a table; it then takes a twelfth of its postings at most.
const FREQUENT: usize = 16;

/// The numbers behind the magic.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Numbers {
    pub(super) passages: u64,
    pub(super) counted: u64,
    pub(super) terms: u64,
    pub(super) posting_bytes: u64,
    pub(super) tokens: u64,
    pub(super) k1: f64,
    pub(super) b: f64,
    pub(super) name_bytes: u64,
    pub(super) term_bytes: u64,
}

impl Numbers {
    pub(super) fn to_array(self) -> [u64; 9] {
        [
            self.passages,
            self.counted,
            self.terms,
            self.posting_bytes,
            self.tokens,
            self.k1.to_bits(),
            self.b.to_bits(),
            self.name_bytes,
            self.term_bytes,
        ]
    }

    pub(super) fn from_array(numbers: [u64; 9]) -> Self {
        let [passages, counted, terms, posting_bytes, tokens, k1, b, name_bytes, term_bytes] = numbers;
        let (k1, b) = (f64::from_bits(k1), f64::from_bits(b));
        Self { passages, counted, terms, posting_bytes, tokens, k1, b, name_bytes, term_bytes }
    }
}

/// Where the sections of the file begin.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) postings: usize,
    pub(super) name: Range<usize>,
    pub(super) terms: Range<usize>,
    pub(super) term_ends: usize,
    pub(super) posting_ends: usize,
    pub(super) end: usize,
}

impl Layout {
    pub(super) fn new(numbers: &Numbers) -> Self {
        let mut end = HEADER;
        let mut section = |bytes: u64| {
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            let start = end;
            end = start.saturating_add(bytes).checked_next_multiple_of(8).unwrap_or(usize::MAX);
            start..start.saturating_add(bytes)
        };
        let postings = section(numbers.posting_bytes).start;
        let (name, terms) = (section(numbers.name_bytes), section(numbers.term_bytes));
        let term_ends = section(numbers.terms.saturating_mul(8)).start;
        let posting_ends = section(numbers.terms.saturating_mul(8)).start;
        Self { postings, name, terms, term_ends, posting_ends, end }
    }
}

/// Windows of a corpus.
pub(super) fn windows_in(passages: u64) -> usize {
    (passages as usize).div_ceil(WINDOW)
}

/// Bytes of the table before so many postings.
pub(super) fn table_bytes(postings: usize, windows: usize) -> usize {
    if postings < FREQUENT * windows { 0 } else { ENTRY * windows }
}

/// Bytes that so many postings take, with their table.
pub(super) fn block_bytes(postings: usize, windows: usize) -> usize {
    table_bytes(postings, windows) + (postings * (PASSAGE + WEIGHT)).next_multiple_of(PASSAGE)
}

/// How many postings take so many bytes.
pub(super) fn postings_in(bytes: usize, windows: usize) -> usize {
    let table = if bytes < block_bytes(FREQUENT * windows, windows) { 0 } else { ENTRY * windows };
    (bytes - table) / (PASSAGE + WEIGHT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_block_tells_its_postings() {
        for windows in 1..20 {
            for postings in 0..1000 {
                assert_eq!(postings_in(block_bytes(postings, windows), windows), postings);
            }
        }
    }
}
