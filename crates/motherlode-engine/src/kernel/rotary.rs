//! Rotary positions: pairs of a head's values are turned by an angle that grows with the token's position.
//!
//! Source: Su et al., "RoFormer" (2021), with the pairs of Hugging Face's models: value i of a head goes with value
//! i + width / 2, and turns by position / θ^(2 i / width).

use std::ops::Range;

/// Sine and cosine of every angle.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotary {
    /// Values of a head.
    width: usize,
    /// For each position the cosines of the pairs, then their sines: positions × width.
    table: Vec<f32>,
}

/// The rows whose heads are turned.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// Values of a row.
    pub stride: usize,
    /// Heads at the start of a row that are turned.
    pub heads: usize,
    /// Where each sequence stands among the rows.
    pub sequences: &'a [Range<usize>],
    /// Position of the first row of each sequence.
    pub starts: &'a [usize],
}

impl<'a> Rows<'a> {
    /// Every row of the sequences, with its position.
    #[inline(always)]
    fn places(self) -> impl Iterator<Item = (usize, usize)> + 'a {
        let sequences = self.sequences.iter().zip(self.starts);
        sequences.flat_map(|(rows, start)| rows.clone().enumerate().map(move |(index, row)| (start + index, row)))
    }
}

impl Rotary {
    /// Angles for the positions below `positions` of heads of `width` values, an even number.
    pub fn new(theta: f64, width: usize, positions: usize) -> Self {
        // As PyTorch computes them: frequencies and angles are rounded to f32.
        let frequency = |pair: usize| (1.0 / theta.powf((2 * pair) as f64 / width as f64)) as f32;
        let frequencies: Vec<f32> = (0..width / 2).map(frequency).collect();
        let mut table = Vec::with_capacity(positions * width);
        for position in 0..positions {
            let angles = frequencies.iter().map(|frequency| f64::from(position as f32 * frequency));
            table.extend(angles.clone().map(|angle| angle.cos() as f32));
            table.extend(angles.map(|angle| angle.sin() as f32));
        }
        Self { width, table }
    }

    /// Turns the heads of `values` by their positions.
    pub fn forward(&self, values: &mut [f32], rows: Rows) {
        turn_rows(self, values, rows, 1.0);
    }

    /// Turns ∂loss/∂out into ∂loss/∂values: turns back.
    pub fn backward(&self, gradient: &mut [f32], rows: Rows) {
        turn_rows(self, gradient, rows, -1.0);
    }
}

vectorised! {
    fn turn_rows<'a>(rotary: &'a Rotary, values: &'a mut [f32], rows: Rows<'a>, direction: f32) {
        let width = rotary.width;
        for (position, row) in rows.places() {
            let (cosines, sines) = rotary.table[position * width..(position + 1) * width].split_at(width / 2);
            let start = row * rows.stride;
            for head in values[start..start + rows.heads * width].chunks_exact_mut(width) {
                let (left, right) = head.split_at_mut(width / 2);
                for ((left, right), (cosine, sine)) in left.iter_mut().zip(right).zip(cosines.iter().zip(sines)) {
                    let sine = direction * sine;
                    (*left, *right) = (*left * cosine - *right * sine, *right * cosine + *left * sine);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::{assert_close, assert_slope, noise};

    const ROWS: Rows = Rows { stride: 11, heads: 2, sequences: &[0..3, 3..8], starts: &[0, 2] };

    fn run(values: &[f32]) -> Vec<f32> {
        let mut values = values.to_vec();
        Rotary::new(100.0, 4, 7).forward(&mut values, ROWS);
        values
    }

    /// The definition with complex numbers, in double precision.
    fn plain(values: &[f32]) -> Vec<f32> {
        let mut out = values.to_vec();
        for (position, row) in (0..3).enumerate().chain((2..7).zip(3..8)) {
            for (head, pair) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let angle = position as f64 / 100_f64.powf(pair as f64 / 2.0);
                let places = [0, 2].map(|part| row * 11 + head * 4 + pair + part);
                let [x, y] = places.map(|place| f64::from(values[place]));
                out[places[0]] = (x * angle.cos() - y * angle.sin()) as f32;
                out[places[1]] = (y * angle.cos() + x * angle.sin()) as f32;
            }
        }
        out
    }

    #[test]
    fn forward_agrees_with_the_definition_and_leaves_other_columns_alone() {
        let values = noise(1, 8 * 11);
        assert_close(&run(&values), &plain(&values), 1e-6);
    }

    #[test]
    fn backward_is_the_slope_of_forward() {
        let (values, upstream) = (noise(1, 8 * 11), noise(2, 8 * 11));
        let mut gradient = upstream.clone();
        Rotary::new(100.0, 4, 7).backward(&mut gradient, ROWS);
        assert_slope(&values, &gradient, |values| {
            run(values).iter().zip(&upstream).map(|(out, up)| f64::from(*out) * f64::from(*up)).sum()
        });
    }
}
