//! Multi-head attention over sequences laid end to end, forward and backward, one tile of queries at a time.
//!
//! The queries of all heads, the keys and the values of all groups of a token stand side by side in one row. Only the
//! probabilities of one tile exist at a time; backward computes them again.

use std::ops::Range;

use super::dropout::{Dropout, Site};
use super::lanes::{dot, exp, max, sum};
use super::mask::Mask;
use super::matrix::{Panels, Start, View, ViewMut, multiply};

/// What attention is computed over.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// Number of heads.
    pub heads: usize,
    /// Number of heads of keys and values, each of which serves `heads / groups` heads in a row.
    pub groups: usize,
    /// Values of a head.
    pub width: usize,
    /// Which keys a query sees.
    pub mask: Mask,
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

/// Some queries of one sequence and head, and the keys that any of them sees.
struct Tile<'a> {
    attention: &'a Attention<'a>,
    /// The tokens of the sequence.
    tokens: Range<usize>,
    /// Places in the sequence.
    queries: Range<usize>,
    /// Places in the sequence.
    keys: Range<usize>,
    head: usize,
}

/// The three parts of a row of queries, keys and values.
#[derive(Clone, Copy)]
enum Part {
    Query,
    Key,
    Value,
}

impl<'a> Attention<'a> {
    fn tiles(&'a self) -> impl Iterator<Item = Tile<'a>> {
        let heads = move |tokens: &'a Range<usize>| (0..self.heads).map(move |head| (tokens, head));
        self.sequences.iter().flat_map(heads).flat_map(move |(tokens, head)| {
            self.mask.tiles(tokens.len()).map(move |(queries, keys)| Tile {
                attention: self,
                tokens: tokens.clone(),
                queries,
                keys,
                head,
            })
        })
    }

    fn scale(&self) -> f32 {
        (self.width as f32).sqrt().recip()
    }

    /// Values of a row of queries, keys and values.
    fn stride(&self) -> usize {
        (self.heads + 2 * self.groups) * self.width
    }

    /// context = softmax(queries · keysᵀ / √width) · values for every sequence and head.
    ///
    /// Shapes: `projected` tokens × (heads + 2 groups) width, `context` tokens × heads · width.
    pub fn forward(&self, projected: &[f32], context: &mut [f32], scratch: &mut Scratch) {
        for tile in self.tiles() {
            tile.probabilities(projected, scratch);
            tile.drop(&mut scratch.scores);
            let Scratch { scores, panels, packing, .. } = scratch;
            panels.pack(tile.part(projected, Part::Value));
            multiply(tile.output(context), Start::Zero, tile.matrix(scores), panels, packing);
        }
    }

    /// Turns ∂loss/∂context into ∂loss/∂projected, which overwrites `out`.
    ///
    /// Shapes: as in [`forward`](Self::forward); `gradient` as `context`, `out` as `projected`.
    pub fn backward(
        &self,
        projected: &[f32],
        context: &[f32],
        gradient: &[f32],
        out: &mut [f32],
        scratch: &mut Scratch,
    ) {
        out.fill(0.0);
        for tile in self.tiles() {
            tile.probabilities(projected, scratch);
            tile.slopes(projected, context, gradient, scratch);
            let Scratch { scores, slopes, panels, packing } = scratch;
            panels.pack(tile.part(projected, Part::Key));
            multiply(tile.part_mut(out, Part::Query), Start::Zero, tile.matrix(slopes), panels, packing);
            panels.pack(tile.part(projected, Part::Query));
            let left = tile.matrix(slopes).transposed();
            multiply(tile.part_mut(out, Part::Key), Start::Current, left, panels, packing);
            tile.drop(scores);
            panels.pack(tile.columns(gradient));
            let left = tile.matrix(scores).transposed();
            multiply(tile.part_mut(out, Part::Value), Start::Current, left, panels, packing);
        }
    }
}

impl Tile<'_> {
    /// Writes the probabilities, before dropout, to `scratch.scores`: queries × keys.
    fn probabilities(&self, projected: &[f32], scratch: &mut Scratch) {
        let keys = self.keys.len();
        let Scratch { scores, panels, packing, .. } = scratch;
        scores.resize(self.queries.len() * keys, 0.0);
        panels.pack(self.part(projected, Part::Key).transposed());
        multiply(ViewMut::new(scores, keys), Start::Zero, self.part(projected, Part::Query), panels, packing);
        for (query, row) in self.queries.clone().zip(scores.chunks_exact_mut(keys)) {
            let seen = self.attention.mask.keys(query, self.tokens.len());
            let seen = seen.start - self.keys.start..seen.end - self.keys.start;
            row[..seen.start].fill(0.0);
            row[seen.end..].fill(0.0);
            softmax(&mut row[seen], self.attention.scale());
        }
    }

    /// Writes ∂loss/∂scores to `scratch.slopes`; `scratch.scores` holds the probabilities P, before dropout.
    ///
    /// With D the row sums of gradient ∘ context, and ∂P the gradient of P: ∂scores = P ∘ (∂P − D) / √width.
    fn slopes(&self, projected: &[f32], context: &[f32], gradient: &[f32], scratch: &mut Scratch) {
        let keys = self.keys.len();
        let Scratch { scores, slopes, panels, packing } = scratch;
        slopes.resize(scores.len(), 0.0);
        panels.pack(self.part(projected, Part::Value).transposed());
        multiply(ViewMut::new(slopes, keys), Start::Zero, self.columns(gradient), panels, packing);
        self.drop(slopes);
        let rows = scores.chunks_exact(keys).zip(slopes.chunks_exact_mut(keys));
        for (query, (probabilities, slopes)) in self.queries.clone().zip(rows) {
            let start = self.start_in_context(query);
            let place = start..start + self.attention.width;
            let mean = dot(&gradient[place.clone()], &context[place]);
            softmax_backward(probabilities, slopes, mean, self.attention.scale());
        }
    }

    fn drop(&self, probabilities: &mut [f32]) {
        let site = Site::Probabilities { layer: self.attention.layer, head: self.head };
        let first = self.attention.first_token + self.tokens.start + self.queries.start;
        self.attention.dropout.apply(site, first, self.keys.len(), probabilities);
    }

    /// Queries × keys.
    fn matrix<'b>(&self, values: &'b [f32]) -> View<'b> {
        View::new(values, self.keys.len())
    }

    /// Where the first row of a part of the projections begins, and its rows.
    fn place(&self, part: Part) -> (usize, usize) {
        let Attention { heads, groups, width, .. } = *self.attention;
        let group = self.head * groups / heads;
        let (rows, index) = match part {
            Part::Query => (&self.queries, self.head),
            Part::Key => (&self.keys, heads + group),
            Part::Value => (&self.keys, heads + groups + group),
        };
        ((self.tokens.start + rows.start) * self.attention.stride() + index * width, rows.len())
    }

    fn part<'b>(&self, projected: &'b [f32], part: Part) -> View<'b> {
        let (start, rows) = self.place(part);
        View::strided(&projected[start..], rows, self.attention.width, self.attention.stride())
    }

    fn part_mut<'b>(&self, projected: &'b mut [f32], part: Part) -> ViewMut<'b> {
        ViewMut::new(&mut projected[self.place(part).0..], self.attention.stride())
    }

    /// Where the values of `query` and this head begin in the contexts.
    fn start_in_context(&self, query: usize) -> usize {
        ((self.tokens.start + query) * self.attention.heads + self.head) * self.attention.width
    }

    fn columns<'b>(&self, values: &'b [f32]) -> View<'b> {
        let Attention { heads, width, .. } = *self.attention;
        View::strided(&values[self.start_in_context(self.queries.start)..], self.queries.len(), width, heads * width)
    }

    fn output<'b>(&self, context: &'b mut [f32]) -> ViewMut<'b> {
        let start = self.start_in_context(self.queries.start);
        ViewMut::new(&mut context[start..], self.attention.heads * self.attention.width)
    }
}

vectorised! {
    /// Replaces the scores of one query by the softmax of scale × scores.
    fn softmax<'a>(scores: &'a mut [f32], scale: f32) {
        let greatest = max(scores);
        for score in scores.iter_mut() {
            *score = exp((*score - greatest) * scale);
        }
        let share = sum(scores).recip();
        for score in scores {
            *score *= share;
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

    const TOKENS: usize = 9;
    const WIDTH: usize = 3;
    const SEQUENCES: [Range<usize>; 2] = [0..4, 4..9];

    /// Heads, groups and mask of every kind of attention.
    const KINDS: [(usize, usize, Mask); 5] = [
        (2, 2, Mask::NONE),
        (4, 2, Mask::CAUSAL),
        (3, 1, Mask { before: 1, after: 0 }),
        (2, 1, Mask { before: 1, after: 2 }),
        (2, 2, Mask::CAUSAL),
    ];

    fn attention((heads, groups, mask): (usize, usize, Mask), dropout: Dropout) -> Attention<'static> {
        Attention { heads, groups, width: WIDTH, mask, layer: 1, sequences: &SEQUENCES, first_token: 0, dropout }
    }

    fn run(attention: &Attention, projected: &[f32]) -> Vec<f32> {
        let mut context = vec![0.0; TOKENS * attention.heads * WIDTH];
        attention.forward(projected, &mut context, &mut Scratch::default());
        context
    }

    /// Attention by its definition, without dropout.
    fn plain(attention: &Attention, projected: &[f32]) -> Vec<f32> {
        let Attention { heads, groups, mask, .. } = *attention;
        let at = |token: usize, index: usize| &projected[token * attention.stride() + index * WIDTH..][..WIDTH];
        let mut context = Vec::new();
        for (query, head) in (0..TOKENS).flat_map(|query| (0..heads).map(move |head| (query, head))) {
            let tokens = SEQUENCES.iter().find(|tokens| tokens.contains(&query)).unwrap().clone();
            let seen =
                |key: &usize| key.saturating_add(mask.before) >= query && *key <= query.saturating_add(mask.after);
            let keys: Vec<usize> = tokens.filter(seen).collect();
            let group = head / (heads / groups);
            let score = |key: &usize| dot(at(query, head), at(*key, heads + group)) / 3_f32.sqrt();
            let weights: Vec<f32> = keys.iter().map(|key| score(key).exp()).collect();
            context.extend((0..WIDTH).map(|column| {
                let values = keys.iter().map(|key| at(*key, heads + groups + group)[column]);
                values.zip(&weights).map(|(value, weight)| value * weight).sum::<f32>() / weights.iter().sum::<f32>()
            }));
        }
        context
    }

    #[test]
    fn forward_agrees_with_the_definition() {
        for kind in KINDS {
            let attention = attention(kind, Dropout::OFF);
            let projected = noise(1, TOKENS * attention.stride());
            assert_close(&run(&attention, &projected), &plain(&attention, &projected), 1e-6);
        }
    }

    #[test]
    fn backward_is_the_slope_of_forward_with_and_without_dropout() {
        for (kind, dropout) in
            KINDS.into_iter().flat_map(|kind| [(kind, Dropout::OFF), (kind, Dropout::new(0.3, 1, 2, 3))])
        {
            let attention = attention(kind, dropout);
            let projected = noise(1, TOKENS * attention.stride());
            let upstream = noise(2, TOKENS * attention.heads * WIDTH);
            let mut gradient = vec![f32::NAN; projected.len()];
            let context = run(&attention, &projected);
            attention.backward(&projected, &context, &upstream, &mut gradient, &mut Scratch::default());
            assert_slope(&projected, &gradient, |projected| {
                let context = run(&attention, projected);
                context.iter().zip(&upstream).map(|(out, up)| f64::from(*out) * f64::from(*up)).sum()
            });
        }
    }

    /// Sequences of more than one tile.
    #[test]
    fn tiles_do_not_show() {
        let length = 2 * Mask::TILE + 40;
        let sequences = [0..length];
        for mask in [Mask::CAUSAL, Mask { before: 70, after: 0 }, Mask { before: 150, after: 30 }] {
            let all = Attention {
                heads: 2,
                groups: 1,
                width: WIDTH,
                mask,
                layer: 0,
                sequences: &sequences,
                first_token: 0,
                dropout: Dropout::OFF,
            };
            let projected = noise(1, length * all.stride());
            let mut context = vec![0.0; length * 2 * WIDTH];
            all.forward(&projected, &mut context, &mut Scratch::default());
            let upstream = noise(2, context.len());
            let mut gradient = vec![0.0; projected.len()];
            all.backward(&projected, &context, &upstream, &mut gradient, &mut Scratch::default());
            let places = [0, Mask::TILE - 1, Mask::TILE, length - 1];
            for place in places.map(|token| token * all.stride()..token * all.stride() + 2) {
                for index in place {
                    let loss = |by: f32| -> f64 {
                        let (mut moved, mut context) = (projected.clone(), context.clone());
                        moved[index] += by;
                        all.forward(&moved, &mut context, &mut Scratch::default());
                        context.iter().zip(&upstream).map(|(out, up)| f64::from(*out) * f64::from(*up)).sum()
                    };
                    let slope = ((loss(1e-2) - loss(-1e-2)) / 2e-2) as f32;
                    assert!((slope - gradient[index]).abs() < 1e-3, "{slope} and {}", gradient[index]);
                }
            }
        }
    }
}
