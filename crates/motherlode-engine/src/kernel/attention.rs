//! Multi-head attention over sequences laid end to end, forward and backward, one sequence and head at a time.
//!
//! Queries, keys and values of a token stand side by side in one row of 3 × hidden values. Only the probabilities of
//! one sequence and head exist at a time; backward computes them again.

use std::ops::Range;

use super::dropout::{Dropout, Site};
use super::lanes::{dot, exp, max, sum};
use super::matrix::{Panels, Start, View, ViewMut, multiply};

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
}

/// Working memory.
#[derive(Debug, Default)]
pub struct Scratch {
    scores: Vec<f32>,
    slopes: Vec<f32>,
    panels: Panels,
    packing: Vec<f32>,
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
            head.probabilities(projected, scratch);
            head.drop(&mut scratch.scores);
            let Scratch { scores, panels, packing, .. } = scratch;
            panels.pack(head.part(projected, Part::Value));
            multiply(head.output(context), Start::Zero, head.square(scores), panels, packing);
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
            let Scratch { scores, slopes, panels, packing } = scratch;
            panels.pack(head.part(projected, Part::Key));
            multiply(head.part_mut(out, Part::Query), Start::Zero, head.square(slopes), panels, packing);
            panels.pack(head.part(projected, Part::Query));
            multiply(head.part_mut(out, Part::Key), Start::Zero, head.square(slopes).transposed(), panels, packing);
            head.drop(scores);
            panels.pack(head.columns(gradient));
            multiply(head.part_mut(out, Part::Value), Start::Zero, head.square(scores).transposed(), panels, packing);
        }
    }
}

impl Head<'_> {
    /// Writes the probabilities, before dropout, to `scratch.scores`: length × length, a row for each query.
    fn probabilities(&self, projected: &[f32], scratch: &mut Scratch) {
        let length = self.tokens.len();
        let Scratch { scores, panels, packing, .. } = scratch;
        scores.resize(length * length, 0.0);
        panels.pack(self.part(projected, Part::Key).transposed());
        multiply(ViewMut::new(scores, length), Start::Zero, self.part(projected, Part::Query), panels, packing);
        softmax(scores, length, self.attention.scale());
    }

    /// Writes ∂loss/∂scores to `scratch.slopes`; `scratch.scores` holds the probabilities P, before dropout.
    ///
    /// With D the row sums of gradient ∘ context, and ∂P the gradient of P: ∂scores = P ∘ (∂P − D) / √width.
    fn slopes(&self, projected: &[f32], context: &[f32], gradient: &[f32], scratch: &mut Scratch) {
        let length = self.tokens.len();
        let Scratch { scores, slopes, panels, packing } = scratch;
        slopes.resize(length * length, 0.0);
        panels.pack(self.part(projected, Part::Value).transposed());
        multiply(ViewMut::new(slopes, length), Start::Zero, self.columns(gradient), panels, packing);
        self.drop(slopes);
        let rows = scores.chunks_exact(length).zip(slopes.chunks_exact_mut(length));
        for (token, (probabilities, slopes)) in self.tokens.clone().zip(rows) {
            let place = self.place(token, self.attention.hidden, 0);
            let mean = dot(&gradient[place.clone()], &context[place]);
            softmax_backward(probabilities, slopes, mean, self.attention.scale());
        }
    }

    fn drop(&self, probabilities: &mut [f32]) {
        let site = Site::Probabilities { layer: self.attention.layer, head: self.index };
        let first = self.attention.first_token + self.tokens.start;
        self.attention.dropout.apply(site, first, self.tokens.len(), probabilities);
    }

    fn square<'b>(&self, values: &'b [f32]) -> View<'b> {
        View::new(values, self.tokens.len())
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

    fn output<'b>(&self, context: &'b mut [f32]) -> ViewMut<'b> {
        let hidden = self.attention.hidden;
        ViewMut::new(&mut context[self.place(self.tokens.start, hidden, 0).start..], hidden)
    }
}

vectorised! {
    /// Replaces each row of `length` scores by the softmax of scale × scores.
    fn softmax<'a>(scores: &'a mut [f32], length: usize, scale: f32) {
        for row in scores.chunks_exact_mut(length) {
            let greatest = max(row);
            for score in row.iter_mut() {
                *score = exp((*score - greatest) * scale);
            }
            let share = sum(row).recip();
            for score in row {
                *score *= share;
            }
        }
    }
}

vectorised! {
    /// Turns the gradient of one row of probabilities, whose mean under them is `mean`, into that of the scores.
    fn softmax_backward<'a>(probabilities: &'a [f32], gradient: &'a mut [f32], mean: f32, scale: f32) {
        for (gradient, probability) in gradient.iter_mut().zip(probabilities) {
            *gradient = probability * (*gradient - mean) * scale;
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
        Attention { hidden: HIDDEN, heads: 2, layer: 1, sequences, first_token: 0, dropout }
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
