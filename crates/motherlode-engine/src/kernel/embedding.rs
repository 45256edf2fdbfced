//! Token embeddings: gather rows of the tables, and scatter gradients to them.

use std::ops::Range;

use super::lanes::add_scaled;

/// The tables of which a token's embedding is the sum; every token is of type 0.
#[derive(Debug)]
pub struct Tables<T> {
    /// Vocabulary × hidden.
    pub word: T,
    /// Positions × hidden; empty if positions are not embedded.
    pub position: T,
    /// The row of type 0; empty if types are not embedded.
    pub kind: T,
    /// Length of a row.
    pub hidden: usize,
    /// The row of the first position.
    pub first_position: usize,
}

/// The place of row `index` of a table.
fn row(index: usize, hidden: usize) -> Range<usize> {
    index * hidden..(index + 1) * hidden
}

/// Every token, with its position in its sequence.
fn places(sequences: &[Range<usize>]) -> impl Iterator<Item = (usize, usize)> {
    sequences.iter().flat_map(|sequence| sequence.clone().enumerate())
}

impl Tables<&[f32]> {
    /// Writes word + position + type for every token; `sequences` are ranges of `ids`.
    pub fn gather(&self, ids: &[u32], sequences: &[Range<usize>], out: &mut [f32]) {
        for (position, token) in places(sequences) {
            let out = &mut out[row(token, self.hidden)];
            out.copy_from_slice(&self.word[row(ids[token] as usize, self.hidden)]);
            if !self.position.is_empty() {
                add_scaled(out, 1.0, &self.position[row(self.first_position + position, self.hidden)]);
            }
            add_scaled(out, 1.0, self.kind);
        }
    }
}

impl Tables<&mut [f32]> {
    /// Adds ∂loss/∂embedding of every token to the rows that it came from.
    pub fn scatter(&mut self, ids: &[u32], sequences: &[Range<usize>], gradient: &[f32]) {
        for (position, token) in places(sequences) {
            let gradient = &gradient[row(token, self.hidden)];
            add_scaled(&mut self.word[row(ids[token] as usize, self.hidden)], 1.0, gradient);
            if !self.position.is_empty() {
                add_scaled(&mut self.position[row(self.first_position + position, self.hidden)], 1.0, gradient);
            }
            add_scaled(self.kind, 1.0, gradient);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gather_adds_the_rows_and_scatter_adds_to_them() {
        let (word, position) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [10.0, 10.0, 20.0, 20.0, 30.0, 30.0]);
        let tables = Tables {
            word: &word[..],
            position: &position[..],
            kind: &[100.0, 200.0][..],
            hidden: 2,
            first_position: 1,
        };
        let (ids, sequences) = ([2, 0, 2], [0..2, 2..3]);
        let mut out = [0.0; 6];
        tables.gather(&ids, &sequences, &mut out);
        assert_eq!(out, [125.0, 226.0, 131.0, 232.0, 125.0, 226.0]);

        let (mut word, mut position, mut kind) = ([0.0; 6], [0.0; 6], [0.0; 2]);
        let mut gradients = Tables {
            word: &mut word[..],
            position: &mut position[..],
            kind: &mut kind[..],
            hidden: 2,
            first_position: 1,
        };
        gradients.scatter(&ids, &sequences, &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0]);
        assert_eq!(word, [4.0, 8.0, 0.0, 0.0, 17.0, 34.0]);
        assert_eq!(position, [0.0, 0.0, 17.0, 34.0, 4.0, 8.0]);
        assert_eq!(kind, [21.0, 42.0]);
    }

    #[test]
    fn words_alone_do() {
        let word = [1.0, 2.0, 3.0, 4.0];
        let tables = Tables { word: &word[..], position: &[], kind: &[], hidden: 2, first_position: 0 };
        let mut out = [f32::NAN; 4];
        tables.gather(&[1, 0], &[0..2], &mut out);
        assert_eq!(out, [3.0, 4.0, 1.0, 2.0]);
        let mut word = [0.0; 4];
        let mut gradients =
            Tables { word: &mut word[..], position: &mut [], kind: &mut [], hidden: 2, first_position: 0 };
        gradients.scatter(&[1, 1], &[0..2], &[1.0, 2.0, 4.0, 8.0]);
        assert_eq!(word, [0.0, 0.0, 5.0, 10.0]);
    }
}
