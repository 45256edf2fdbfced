//! Attention of the next tokens of a sequence over those before them, whose keys and values are kept; forward only.
//!
//! What a token sees does not depend on how its sequence was cut into passes, bit for bit, with one exception: a pass of
//! one token takes a way of its own, which reads keys and values once and rounds nothing to bfloat16.

use std::ops::Range;

use super::attention::{QUERIES, softmax};
use super::lanes::{GROUP, LANES, add_scaled, dot};
use super::matrix::{Packing, Panels, Start, Unit, View, ViewMut, multiply};

/// Rows of scores are filled up to multiples of this, so that their sums do not depend on where they end.
const STRIDE: usize = GROUP * LANES;

/// The keys and values of consecutive tokens, tokens × groups · width each.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// Attention of one sequence.
#[derive(Debug, Clone, Copy)]
pub struct Continued {
    /// Number of heads.
    pub heads: usize,
    /// Number of heads of keys and values, each of which serves `heads / groups` heads in a row.
    pub groups: usize,
    /// Values of a head.
    pub width: usize,
    /// What computes the products.
    pub unit: Unit,
}

/// Working memory.
#[derive(Debug, Default)]
pub struct Scratch {
    scores: Vec<f32>,
    shares: Vec<f32>,
    gathered: Vec<f32>,
    keys: Panels,
    values: Panels,
    packing: Packing,
}

impl Continued {
    /// Values of a row of queries, keys and values.
    fn stride(&self) -> usize {
        (self.heads + 2 * self.groups) * self.width
    }

    fn scale(&self) -> f32 {
        (self.width as f32).sqrt().recip()
    }

    /// Appends the keys and values of some rows of `projected` (as in [`forward`](Self::forward)) to `memory`.
    pub fn remember(&self, projected: &[f32], tokens: Range<usize>, memory: &mut Memory) {
        let (queries, kept) = (self.heads * self.width, self.groups * self.width);
        for row in projected[tokens.start * self.stride()..tokens.end * self.stride()].chunks_exact(self.stride()) {
            memory.keys.extend_from_slice(&row[queries..queries + kept]);
            memory.values.extend_from_slice(&row[queries + kept..]);
        }
    }

    /// context = softmax(queries · keysᵀ / √width) · values for the rows `tokens` of a sequence whose tokens, these ones
    /// the last, are in `memories`; each sees itself and what is before it.
    ///
    /// Shapes: `projected` rows × (heads + 2 groups) width, `context` rows × heads · width.
    pub fn forward(
        &self,
        projected: &[f32],
        tokens: Range<usize>,
        memories: &[&Memory],
        context: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let width = self.groups * self.width;
        let seen = memories.iter().map(|memory| memory.keys.len() / width).sum::<usize>();
        let context = &mut context[tokens.start * self.heads * self.width..tokens.end * self.heads * self.width];
        let projected = &projected[tokens.start * self.stride()..tokens.end * self.stride()];
        scratch.scores.resize(QUERIES.min(tokens.len()) * seen.next_multiple_of(STRIDE), 0.0);
        if tokens.len() == 1 {
            for head in 0..self.heads {
                self.one(head, projected, memories, context, scratch);
            }
            return;
        }
        for group in 0..self.groups {
            self.gather(group, memories.iter().map(|memory| memory.keys.as_slice()), &mut scratch.gathered);
            scratch.keys.pack(View::new(&scratch.gathered, self.width).transposed(), self.unit);
            self.gather(group, memories.iter().map(|memory| memory.values.as_slice()), &mut scratch.gathered);
            scratch.values.pack(View::new(&scratch.gathered, self.width), self.unit);
            let heads = self.heads / self.groups;
            for head in group * heads..(group + 1) * heads {
                self.head(head, seen, projected, context, scratch);
            }
        }
    }

    /// Puts one group's part of every row of `parts` one behind the other.
    fn gather<'a>(&self, group: usize, parts: impl Iterator<Item = &'a [f32]>, out: &mut Vec<f32>) {
        out.clear();
        for row in parts.flat_map(|part| part.chunks_exact(self.groups * self.width)) {
            out.extend_from_slice(&row[group * self.width..(group + 1) * self.width]);
        }
    }

    /// All queries of one head; `scratch` has the keys and values of its group.
    fn head(&self, head: usize, seen: usize, projected: &[f32], context: &mut [f32], scratch: &mut Scratch) {
        let (stride, place) = (seen.next_multiple_of(STRIDE), head * self.width);
        let queries = projected.len() / self.stride();
        let Scratch { scores, shares, keys, values, packing, .. } = scratch;
        for first in (0..queries).step_by(QUERIES) {
            let count = QUERIES.min(queries - first);
            let scores = &mut scores[..count * stride];
            let left = View::strided(&projected[first * self.stride() + place..], count, self.width, self.stride());
            multiply(ViewMut::new(scores, stride), Start::Zero, left, keys, packing);
            let last = |query: usize| seen - queries + first + query + 1;
            hide(scores, stride, f32::NEG_INFINITY, last);
            shares.resize(count, 0.0);
            softmax(scores, seen, stride, self.scale(), shares);
            hide(scores, stride, 0.0, last);
            let mut out =
                ViewMut::new(&mut context[first * self.heads * self.width + place..], self.heads * self.width);
            let left = View::strided(scores, count, seen, stride);
            multiply(out.reborrow(), Start::Zero, left, values, packing);
            out.scale_rows(self.width, shares);
        }
    }

    /// The only query of one head.
    fn one(&self, head: usize, projected: &[f32], memories: &[&Memory], context: &mut [f32], scratch: &mut Scratch) {
        let group = head * self.groups / self.heads;
        let place = head * self.width..(head + 1) * self.width;
        let (mut length, row) = (0, self.groups * self.width);
        let column = group * self.width;
        for memory in memories {
            let count = memory.keys.len() / row;
            let scores = &mut scratch.scores[length..length + count];
            score(&projected[place.clone()], &memory.keys, row, column, scores);
            length += count;
        }
        let share = &mut [0.0];
        let stride = scratch.scores.len();
        softmax(&mut scratch.scores, length, stride, self.scale(), share);
        let context = &mut context[place];
        context.fill(0.0);
        let mut scores = scratch.scores.as_slice();
        for memory in memories {
            let (of_memory, rest) = scores.split_at(memory.keys.len() / row);
            blend(of_memory, share[0], &memory.values, row, column, context);
            scores = rest;
        }
    }
}

/// Writes `value` behind the keys that each row of scores sees.
fn hide(scores: &mut [f32], stride: usize, value: f32, seen: impl Fn(usize) -> usize) {
    for (query, row) in scores.chunks_exact_mut(stride).enumerate() {
        row[seen(query)..].fill(value);
    }
}

vectorised! {
    /// scores = keys · query, where a key stands in every row of `keys`, `row` values long, from `column` on.
    fn score<'a>(query: &'a [f32], keys: &'a [f32], row: usize, column: usize, scores: &'a mut [f32]) {
        for (score, key) in scores.iter_mut().zip(keys.chunks_exact(row)) {
            *score = dot(query, &key[column..column + query.len()]);
        }
    }
}

vectorised! {
    /// context += share · weights · values, likewise.
    fn blend<'a>(weights: &'a [f32], share: f32, values: &'a [f32], row: usize, column: usize, context: &'a mut [f32]) {
        for (weight, value) in weights.iter().zip(values.chunks_exact(row)) {
            add_scaled(context, weight * share, &value[column..column + context.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::attention::{self, Attention};
    use crate::kernel::dropout::Dropout;
    use crate::kernel::mask::Mask;
    use crate::kernel::testing::{assert_close, noise};

    const TOKENS: usize = 150;
    const ATTENTION: Continued = Continued { heads: 4, groups: 2, width: 3, unit: Unit::Single(pulp::Arch::Scalar) };

    /// All contexts, computed in passes of these many tokens.
    fn run(projected: &[f32], passes: &[usize]) -> Vec<f32> {
        let mut context = vec![0.0; TOKENS * 12];
        let (mut memories, mut start) = (Vec::new(), 0);
        for length in passes {
            let mut memory = Memory::default();
            ATTENTION.remember(projected, start..start + length, &mut memory);
            memories.push(memory);
            let lent: Vec<&Memory> = memories.iter().collect();
            ATTENTION.forward(projected, start..start + length, &lent, &mut context, &mut Scratch::default());
            start += length;
        }
        assert_eq!(start, TOKENS);
        context
    }

    /// The whole sequence at once, with the kernel that encoders use.
    fn whole(projected: &[f32]) -> Vec<f32> {
        let attention = Attention {
            heads: 4,
            groups: 2,
            width: 3,
            mask: Mask::CAUSAL,
            layer: 0,
            sequences: &[0..TOKENS],
            first_token: 0,
            dropout: Dropout::OFF,
            unit: ATTENTION.unit,
        };
        let mut context = vec![0.0; TOKENS * 12];
        attention.forward(projected, &mut context, &mut attention::Scratch::default());
        context
    }

    #[test]
    fn passes_of_any_length_are_attention_over_the_whole_sequence() {
        let projected = noise(1, TOKENS * ATTENTION.stride());
        let expected = whole(&projected);
        for passes in [&[TOKENS][..], &[100, 50], &[2, 70, 78], &[147, 1, 1, 1]] {
            assert_close(&run(&projected, passes), &expected, 1e-5);
        }
    }

    #[test]
    fn where_a_sequence_is_cut_changes_no_bit() {
        let projected = noise(2, TOKENS * ATTENTION.stride());
        assert_eq!(run(&projected, &[TOKENS]), run(&projected, &[33, 67, 50]));
    }
}
