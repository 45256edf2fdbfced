//! Multi-head attention over sequences laid end to end, forward and backward, one sequence and head at a time.
//!
//! Queries, keys and values of a token stand side by side in one row of 3 × hidden values. Only the scores of a few
//! queries of one sequence and head exist at a time; backward computes them again, for all its queries.

use std::ops::Range;

use super::dropout::{Dropout, Site};
use super::lanes::{LANES, dot, exp, max, sum};
use super::matrix::{Packing, Panels, Start, Unit, View, ViewMut, multiply};

/// Queries whose scores exist at a time in the forward pass: they stay in the caches from one product to the next.
const QUERIES: usize = 64;

/// What attention is computed over.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// Values of a token, H; a multiple of `heads`.
    pub hidden: usize,
    /// Number of heads.
    pub heads: usize,
    /// The layer, counted from 0.
    pub layer: usize,
    /// Where each sequence stands among the tokens of this call.
    pub sequences: &'a [Range<usize>],
    /// The place of the first token of this call in its batch.
    pub first_token: usize,
    /// Masks on the probabilities.
    pub dropout: Dropout,
    /// What computes the products.
    pub unit: Unit,
}

/// Working memory.
#[derive(Debug, Default)]
pub struct Scratch {
    scores: Vec<f32>,
    slopes: Vec<f32>,
    /// What each query's row of exponentials is multiplied by.
    shares: Vec<f32>,
    keys: Panels,
    panels: Panels,
    packing: Packing,
}

/// One sequence and head: the same columns of the same rows everywhere.
struct Head<'a> {
    attention: &'a Attention<'a>,
    tokens: Range<usize>,
    index: usize,
}

/// The three parts of a row of queries, keys and values.
#[derive(Clone, Copy)]
enum Part {
    Query,
    Key,
    Value,
}

impl<'a> Attention<'a> {
    fn heads(&'a self) -> impl Iterator<Item = Head<'a>> {
        let heads = move |tokens: &'a Range<usize>| {
            (0..self.heads).map(move |index| Head { attention: self, tokens: tokens.clone(), index })
        };
        self.sequences.iter().flat_map(heads)
    }

    fn width(&self) -> usize {
        self.hidden / self.heads
    }

    fn scale(&self) -> f32 {
        (self.width() as f32).sqrt().recip()
    }

    /// context = softmax(queries · keysᵀ / √width) · values for every sequence and head.
    ///
    /// Shapes: `projected` tokens × 3 hidden, `context` tokens × hidden.
    pub fn forward(&self, projected: &[f32], context: &mut [f32], scratch: &mut Scratch) {
        for head in self.heads() {
            scratch.keys.pack(head.part(projected, Part::Key).transposed(), self.unit);
            scratch.panels.pack(head.part(projected, Part::Value), self.unit);
            for first in (0..head.tokens.len()).step_by(QUERIES) {
                let queries = first..head.tokens.len().min(first + QUERIES);
                head.exponentials(projected, queries.clone(), scratch);
                head.drop(queries.start, &mut scratch.scores);
                let Scratch { scores, shares, panels, packing, .. } = scratch;
                let mut context = head.output(context, queries.start);
                multiply(context.reborrow(), Start::Zero, head.rows(scores), panels, packing);
                context.scale_rows(self.width(), shares);
            }
        }
    }

    /// Turns ∂loss/∂context into ∂loss/∂projected, which overwrites `out`.
    ///
    /// Shapes: as in [`forward`](Self::forward); `gradient` and `context` tokens × hidden, `out` tokens × 3 hidden.
    pub fn backward(
        &self,
        projected: &[f32],
        context: &[f32],
        gradient: &[f32],
        out: &mut [f32],
        scratch: &mut Scratch,
    ) {
        for head in self.heads() {
            head.probabilities(projected, scratch);
            head.slopes(projected, context, gradient, scratch);
            let Scratch { scores, slopes, panels, packing, .. } = scratch;
            panels.pack(head.part(projected, Part::Key), self.unit);
            multiply(head.part_mut(out, Part::Query), Start::Zero, head.rows(slopes), panels, packing);
            panels.pack(head.part(projected, Part::Query), self.unit);
            multiply(head.part_mut(out, Part::Key), Start::Zero, head.rows(slopes).transposed(), panels, packing);
            head.drop(0, scores);
            panels.pack(head.columns(gradient), self.unit);
            multiply(head.part_mut(out, Part::Value), Start::Zero, head.rows(scores).transposed(), panels, packing);
        }
    }
}

impl Head<'_> {
    /// Writes e to the power of scaled score − greatest scaled score to `scratch.scores`, a row for each of `queries`,
    /// and 1 / its sum to `scratch.shares`. `scratch.keys` holds the keys.
    fn exponentials(&self, projected: &[f32], queries: Range<usize>, scratch: &mut Scratch) {
        let (length, stride) = (self.tokens.len(), self.stride());
        let Scratch { scores, shares, keys, packing, .. } = scratch;
        scores.resize(queries.len() * stride, 0.0);
        shares.resize(queries.len(), 0.0);
        let left = self.part(projected, Part::Query).rows(queries.start, queries.len());
        multiply(ViewMut::new(scores, stride), Start::Zero, left, keys, packing);
        softmax(scores, length, stride, self.attention.scale(), shares);
    }

    /// Writes the probabilities, before dropout, to `scratch.scores`: a row for each query.
    fn probabilities(&self, projected: &[f32], scratch: &mut Scratch) {
        scratch.keys.pack(self.part(projected, Part::Key).transposed(), self.attention.unit);
        self.exponentials(projected, 0..self.tokens.len(), scratch);
        let Scratch { scores, shares, .. } = scratch;
        ViewMut::new(scores, self.stride()).scale_rows(self.stride(), shares);
    }

    /// Writes ∂loss/∂scores to `scratch.slopes`; `scratch.scores` holds the probabilities P, before dropout.
    ///
    /// With D the row sums of gradient ∘ context, and ∂P the gradient of P: ∂scores = P ∘ (∂P − D) / √width.
    fn slopes(&self, projected: &[f32], context: &[f32], gradient: &[f32], scratch: &mut Scratch) {
        let stride = self.stride();
        let Scratch { scores, slopes, panels, packing, .. } = scratch;
        slopes.resize(self.tokens.len() * stride, 0.0);
        panels.pack(self.part(projected, Part::Value).transposed(), self.attention.unit);
        multiply(ViewMut::new(slopes, stride), Start::Zero, self.columns(gradient), panels, packing);
        self.drop(0, slopes);
        let rows = scores.chunks_exact(stride).zip(slopes.chunks_exact_mut(stride));
        for (token, (probabilities, slopes)) in self.tokens.clone().zip(rows) {
            let place = self.place(token, self.attention.hidden, 0);
            let mean = dot(&gradient[place.clone()], &context[place]);
            softmax_backward(probabilities, slopes, mean, self.attention.scale());
        }
    }

    /// Applies the masks of the queries from `first` on.
    fn drop(&self, first: usize, probabilities: &mut [f32]) {
        let site = Site::Probabilities { layer: self.attention.layer, head: self.index };
        let first = self.attention.first_token + self.tokens.start + first;
        self.attention.dropout.apply(site, first, self.stride(), probabilities);
    }

    /// Distance of the rows of scores, which are filled up to whole vector registers.
    fn stride(&self) -> usize {
        self.tokens.len().next_multiple_of(LANES)
    }

    /// The rows of scores without what they were filled up with.
    fn rows<'b>(&self, values: &'b [f32]) -> View<'b> {
        View::strided(values, values.len() / self.stride(), self.tokens.len(), self.stride())
    }

    /// Where the values of this head stand in the row of `token`, of `stride` values, from `offset` on.
    fn place(&self, token: usize, stride: usize, offset: usize) -> Range<usize> {
        let start = token * stride + offset + self.index * self.attention.width();
        start..start + self.attention.width()
    }

    fn part<'b>(&self, projected: &'b [f32], part: Part) -> View<'b> {
        let hidden = self.attention.hidden;
        let start = self.place(self.tokens.start, 3 * hidden, part as usize * hidden).start;
        View::strided(&projected[start..], self.tokens.len(), self.attention.width(), 3 * hidden)
    }

    fn part_mut<'b>(&self, projected: &'b mut [f32], part: Part) -> ViewMut<'b> {
        let hidden = self.attention.hidden;
        let start = self.place(self.tokens.start, 3 * hidden, part as usize * hidden).start;
        ViewMut::new(&mut projected[start..], 3 * hidden)
    }

    fn columns<'b>(&self, values: &'b [f32]) -> View<'b> {
        let hidden = self.attention.hidden;
        let start = self.place(self.tokens.start, hidden, 0).start;
        View::strided(&values[start..], self.tokens.len(), self.attention.width(), hidden)
    }

    /// The context of the queries from `first` on.
    fn output<'b>(&self, context: &'b mut [f32], first: usize) -> ViewMut<'b> {
        let hidden = self.attention.hidden;
        ViewMut::new(&mut context[self.place(self.tokens.start + first, hidden, 0).start..], hidden)
    }
}

vectorised! {
    /// Replaces the first `length` of each row of `stride` scores by e to the power of scale × (score − greatest), what
    /// follows in the row by almost nothing, and writes 1 / the sum of each row to `shares`.
    fn softmax<'a>(scores: &'a mut [f32], length: usize, stride: usize, scale: f32, shares: &'a mut [f32]) {
        for (row, share) in scores.chunks_exact_mut(stride).zip(shares) {
            row[length..].fill(f32::NEG_INFINITY);
            let greatest = max(row);
            for scores in row.as_chunks_mut::<LANES>().0 {
                for score in scores {
                    *score = exp((*score - greatest) * scale);
                }
            }
            *share = sum(row).recip();
        }
    }
}

vectorised! {
    /// Turns the gradient of one row of probabilities, whose mean under them is `mean`, into that of the scores.
    fn softmax_backward<'a>(probabilities: &'a [f32], gradient: &'a mut [f32], mean: f32, scale: f32) {
        let chunks = gradient.as_chunks_mut::<LANES>().0.iter_mut().zip(probabilities.as_chunks::<LANES>().0);
        for (gradient, probability) in chunks {
            for (gradient, probability) in gradient.iter_mut().zip(probability) {
                *gradient = probability * (*gradient - mean) * scale;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::{assert_close, assert_slope, noise};

    const HIDDEN: usize = 6;
    const TOKENS: usize = 9;

    fn attention(sequences: &[Range<usize>], dropout: Dropout) -> Attention<'_> {
        Attention { hidden: HIDDEN, heads: 2, layer: 1, sequences, first_token: 0, dropout, unit: Unit::single() }
    }

    fn run(projected: &[f32], dropout: Dropout) -> Vec<f32> {
        let mut context = vec![0.0; TOKENS * HIDDEN];
        attention(&[0..4, 4..9], dropout).forward(projected, &mut context, &mut Scratch::default());
        context
    }

    /// Attention by its definition, without dropout.
    fn plain(projected: &[f32]) -> Vec<f32> {
        let mut context = vec![0.0; TOKENS * HIDDEN];
        let at = |token: usize, part: usize, column: usize| projected[token * 3 * HIDDEN + part * HIDDEN + column];
        for (tokens, columns) in [(0..4, 0..3), (0..4, 3..6), (4..9, 0..3), (4..9, 3..6)] {
            for query in tokens.clone() {
                let score = |key| columns.clone().map(|c| at(query, 0, c) * at(key, 1, c)).sum::<f32>() / 3_f32.sqrt();
                let weights: Vec<f32> = tokens.clone().map(|key| score(key).exp()).collect();
                for column in columns.clone() {
                    let total: f32 =
                        tokens.clone().zip(&weights).map(|(key, weight)| weight * at(key, 2, column)).sum();
                    context[query * HIDDEN + column] = total / weights.iter().sum::<f32>();
                }
            }
        }
        context
    }

    #[test]
    fn forward_agrees_with_the_definition() {
        let projected = noise(1, TOKENS * 3 * HIDDEN);
        assert_close(&run(&projected, Dropout::OFF), &plain(&projected), 1e-6);
    }

    #[test]
    fn backward_is_the_slope_of_forward_with_and_without_dropout() {
        for dropout in [Dropout::OFF, Dropout::new(0.3, 1, 2, 3)] {
            let (projected, upstream) = (noise(1, TOKENS * 3 * HIDDEN), noise(2, TOKENS * HIDDEN));
            let mut gradient = vec![0.0; projected.len()];
            let context = run(&projected, dropout);
            let sequences = [0..4, 4..9];
            let attention = attention(&sequences, dropout);
            attention.backward(&projected, &context, &upstream, &mut gradient, &mut Scratch::default());
            assert_slope(&projected, &gradient, |projected| {
                run(projected, dropout).iter().zip(&upstream).map(|(out, up)| f64::from(*out) * f64::from(*up)).sum()
            });
        }
    }
}
