//! Multi-head attention over sequences laid end to end, forward and backward, one tile of queries at a time.
//!
//! The queries of all heads, the keys and the values of all groups of a token stand side by side in one row. Only the
//! scores of a few queries of one sequence and head exist at a time; backward computes them again, for a whole tile.

use std::ops::Range;

use super::buffer::resize;
use super::dropout::{Dropout, Site};
use super::lanes::{LANES, dot, exp, max, sum};
use super::mask::Mask;
use super::matrix::{Packing, Panels, Start, Unit, View, ViewMut, multiply};

/// Queries whose scores exist at a time in the forward pass: they stay in the caches from one product to the next.
pub(super) const QUERIES: usize = 64;

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

impl Scratch {
    /// Bytes that sequences of up to `longest` tokens take, in both directions or forward alone.
    pub(crate) fn bytes(mask: Mask, longest: usize, width: usize, unit: Unit, backward: bool) -> usize {
        let tiles = || mask.tiles(longest);
        let queries = tiles().map(|(queries, _)| queries.len()).max().unwrap_or(0);
        let keys = tiles().map(|(_, keys)| keys.len()).max().unwrap_or(0);
        let rows = if backward { 2 * queries } else { queries.min(QUERIES) };
        let scores = size_of::<f32>() * (rows * keys.next_multiple_of(LANES) + queries);
        let forward = Panels::bytes(keys, width, unit);
        let panels = [Panels::bytes(width, keys, unit), Panels::bytes(queries, width, unit)];
        let panels = if backward { panels.into_iter().fold(forward, usize::max) } else { forward };
        scores + Panels::bytes(width, keys, unit) + panels + Packing::bytes(queries.max(keys), unit)
    }
}

/// Some queries of one sequence and head, all of them if they see all keys, and the keys that any of them sees.
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
            scratch.keys.pack(tile.part(projected, Part::Key).transposed(), self.unit);
            scratch.panels.pack(tile.part(projected, Part::Value), self.unit);
            for first in tile.queries.clone().step_by(QUERIES) {
                let queries = first..tile.queries.end.min(first + QUERIES);
                tile.exponentials(projected, queries.clone(), scratch);
                tile.drop(queries.start, &mut scratch.scores);
                let Scratch { scores, shares, panels, packing, .. } = scratch;
                let mut context = tile.output(context, queries.start);
                multiply(context.reborrow(), Start::Zero, tile.rows(scores), panels, packing);
                context.scale_rows(self.width, shares);
            }
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
        // Otherwise several tiles, or several heads, have a part in the gradient of a key.
        let alone = self.mask == Mask::NONE && self.groups == self.heads;
        let start = if alone { Start::Zero } else { Start::Current };
        if !alone {
            out.fill(0.0);
        }
        for tile in self.tiles() {
            tile.probabilities(projected, scratch);
            tile.slopes(projected, context, gradient, scratch);
            let Scratch { scores, slopes, panels, packing, .. } = scratch;
            panels.pack(tile.part(projected, Part::Key), self.unit);
            multiply(tile.part_mut(out, Part::Query), Start::Zero, tile.rows(slopes), panels, packing);
            panels.pack(tile.part(projected, Part::Query), self.unit);
            multiply(tile.part_mut(out, Part::Key), start, tile.rows(slopes).transposed(), panels, packing);
            tile.drop(tile.queries.start, scores);
            panels.pack(tile.columns(gradient), self.unit);
            multiply(tile.part_mut(out, Part::Value), start, tile.rows(scores).transposed(), panels, packing);
        }
    }
}

impl Tile<'_> {
    /// Writes e to the power of scaled score − greatest scaled score to `scratch.scores`, a row for each of `queries`,
    /// and 1 / its sum to `scratch.shares`. `scratch.keys` holds the keys; those that a query does not see have 0.
    fn exponentials(&self, projected: &[f32], queries: Range<usize>, scratch: &mut Scratch) {
        let (count, stride) = (self.keys.len(), self.stride());
        let Scratch { scores, shares, keys, packing, .. } = scratch;
        resize(scores, queries.len() * stride, 0.0);
        resize(shares, queries.len(), 0.0);
        let left = self.part(projected, Part::Query).rows(queries.start - self.queries.start, queries.len());
        multiply(ViewMut::new(scores, stride), Start::Zero, left, keys, packing);
        self.hide(queries.clone(), scores, f32::NEG_INFINITY);
        softmax(scores, count, stride, self.attention.scale(), shares);
        self.hide(queries, scores, 0.0);
    }

    /// Writes `value` in the place of the keys that a query does not see, to the rows of `queries`.
    fn hide(&self, queries: Range<usize>, scores: &mut [f32], value: f32) {
        if self.attention.mask == Mask::NONE {
            return;
        }
        for (query, row) in queries.zip(scores.chunks_exact_mut(self.stride())) {
            let seen = self.attention.mask.keys(query, self.tokens.len());
            row[..seen.start - self.keys.start].fill(value);
            row[seen.end - self.keys.start..].fill(value);
        }
    }

    /// Writes the probabilities, before dropout, to `scratch.scores`: a row for each query.
    fn probabilities(&self, projected: &[f32], scratch: &mut Scratch) {
        scratch.keys.pack(self.part(projected, Part::Key).transposed(), self.attention.unit);
        self.exponentials(projected, self.queries.clone(), scratch);
        let Scratch { scores, shares, .. } = scratch;
        ViewMut::new(scores, self.stride()).scale_rows(self.stride(), shares);
    }

    /// Writes ∂loss/∂scores to `scratch.slopes`; `scratch.scores` holds the probabilities P, before dropout.
    ///
    /// With D the row sums of gradient ∘ context, and ∂P the gradient of P: ∂scores = P ∘ (∂P − D) / √width.
    fn slopes(&self, projected: &[f32], context: &[f32], gradient: &[f32], scratch: &mut Scratch) {
        let stride = self.stride();
        let Scratch { scores, slopes, panels, packing, .. } = scratch;
        resize(slopes, scores.len(), 0.0);
        panels.pack(self.part(projected, Part::Value).transposed(), self.attention.unit);
        multiply(ViewMut::new(slopes, stride), Start::Zero, self.columns(gradient), panels, packing);
        self.drop(self.queries.start, slopes);
        let rows = scores.chunks_exact(stride).zip(slopes.chunks_exact_mut(stride));
        for (query, (probabilities, slopes)) in self.queries.clone().zip(rows) {
            let start = self.start_in_context(query);
            let place = start..start + self.attention.width;
            let mean = dot(&gradient[place.clone()], &context[place]);
            softmax_backward(probabilities, slopes, mean, self.attention.scale());
        }
    }

    /// Applies the masks of the queries from `first` on.
    fn drop(&self, first: usize, probabilities: &mut [f32]) {
        let site = Site::Probabilities { layer: self.attention.layer, head: self.head };
        let first = self.attention.first_token + self.tokens.start + first;
        self.attention.dropout.apply(site, first, self.stride(), probabilities);
    }

    /// Distance of the rows of scores, which are filled up to whole vector registers.
    fn stride(&self) -> usize {
        self.keys.len().next_multiple_of(LANES)
    }

    /// The rows of scores without what they were filled up with.
    fn rows<'b>(&self, values: &'b [f32]) -> View<'b> {
        View::strided(values, values.len() / self.stride(), self.keys.len(), self.stride())
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

    /// The context of the queries from `first` on.
    fn output<'b>(&self, context: &'b mut [f32], first: usize) -> ViewMut<'b> {
        let start = self.start_in_context(first);
        ViewMut::new(&mut context[start..], self.attention.heads * self.attention.width)
    }
}

vectorised! {
    /// Replaces the first `length` of each row of `stride` scores by e to the power of scale × (score − greatest), what
    /// follows in the row by almost nothing, and writes 1 / the sum of each row to `shares`.
    pub(super) fn softmax<'a>(scores: &'a mut [f32], length: usize, stride: usize, scale: f32, shares: &'a mut [f32]) {
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
        let (sequences, unit) = (&SEQUENCES, Unit::single());
        Attention { heads, groups, width: WIDTH, mask, layer: 1, sequences, first_token: 0, dropout, unit }
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
            KINDS.into_iter().flat_map(|kind| [(kind, Dropout::OFF), (kind, Dropout::new(0.3, 1, 2))])
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
                unit: Unit::single(),
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
