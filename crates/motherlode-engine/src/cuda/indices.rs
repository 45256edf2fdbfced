//! Which tokens belong together: to a sequence, or to a row of a table.

use std::sync::Arc;

use motherlode::Result;

use super::memory::{Backend, Buffer};

/// The sequences of a batch, laid end to end.
#[derive(Debug)]
pub(crate) struct Sequences {
    pub(crate) tokens: usize,
    pub(crate) count: usize,
    /// The first token of each sequence, and the number of all tokens.
    pub(super) starts: Buffer<i32>,
    /// Rows of a block of attention.
    pub(super) tile: usize,
    /// The sequence and the first row in it of each block of attention.
    pub(super) tiles: Buffer<i32>,
}

impl Sequences {
    /// No sequences yet, and blocks of attention of so many rows.
    pub(crate) fn new(backend: &Arc<dyn Backend>, tile: usize) -> Self {
        Self { tokens: 0, count: 0, starts: Buffer::new(backend), tile, tiles: Buffer::new(backend) }
    }

    /// Makes it sequences of these lengths.
    pub(crate) fn set(&mut self, lengths: &[usize]) -> Result<()> {
        let (mut starts, mut tiles) = (vec![0], Vec::new());
        for (index, length) in lengths.iter().enumerate() {
            starts.push(starts[index] + *length as i32);
            tiles.extend((0..*length).step_by(self.tile).flat_map(|first| [index as i32, first as i32]));
        }
        (self.tokens, self.count) = (lengths.iter().sum(), lengths.len());
        self.starts.write(&starts)?;
        self.tiles.write(&tiles)
    }
}

/// Which tokens have a gradient for which rows of a table: for each row its tokens, in order.
#[derive(Debug)]
pub(crate) struct Scattering {
    pub(super) count: usize,
    pub(super) rows: Buffer<i32>,
    /// Where the tokens of each row begin in `order`, and its length.
    pub(super) starts: Buffer<i32>,
    pub(super) order: Buffer<i32>,
}

impl Scattering {
    /// No tokens yet.
    pub(crate) fn new(backend: &Arc<dyn Backend>) -> Self {
        let buffer = || Buffer::new(backend);
        Self { count: 0, rows: buffer(), starts: buffer(), order: buffer() }
    }

    /// Token i has a gradient for row `rows[i]`.
    pub(crate) fn set(&mut self, rows: &[i32]) -> Result<()> {
        let mut order: Vec<i32> = (0..rows.len() as i32).collect();
        order.sort_by_key(|token| rows[*token as usize]);
        let (mut distinct, mut starts) = (Vec::new(), Vec::new());
        for (place, token) in order.iter().enumerate() {
            let row = rows[*token as usize];
            if distinct.last() != Some(&row) {
                distinct.push(row);
                starts.push(place as i32);
            }
        }
        starts.push(order.len() as i32);
        self.count = distinct.len();
        self.rows.write(&distinct)?;
        self.starts.write(&starts)?;
        self.order.write(&order)
    }
}
