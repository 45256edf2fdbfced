//! One transformer block over the tokens of a span, forward and backward, written on the kernels.

use std::ops::Range;

use motherlode::engine::TokenBatch;
use rayon::prelude::*;

use crate::config::Shape;
use crate::kernel::attention::{self, Attention};
use crate::kernel::dropout::{Dropout, Site};
use crate::kernel::gelu;
use crate::kernel::lanes::{add, add_columns};
use crate::kernel::matrix::{Finish, Packing, Panels, Start, Unit, View, ViewMut, multiply, multiply_then};
use crate::kernel::normalise::{self, Affine, AffineGradient, Normalised};
use crate::layout::BlockParameters;

/// Rows of a weight gradient that one job computes.
const GRADIENT_ROWS: usize = 96;

/// Consecutive sequences of a batch that one thread takes through the encoder.
#[derive(Debug)]
pub(crate) struct Span<'a> {
    pub(crate) ids: &'a [u32],
    /// Where each sequence stands in `ids`.
    pub(crate) sequences: Vec<Range<usize>>,
    /// The place of the first token in the batch.
    pub(crate) first_token: usize,
    pub(crate) dropout: Dropout,
}

impl<'a> Span<'a> {
    /// The most tokens of a span that holds more than one sequence: its activations stay in the caches.
    const MOST_TOKENS: usize = 256;
    /// Spans are not made smaller than this for the sake of parallelism.
    const LEAST_TOKENS: usize = 64;
    /// As many spans as possible of a small batch, such that up to 16 threads have work.
    const WANTED: usize = 16;

    /// Cuts `batch` into spans; where, depends on nothing but the lengths of its sequences.
    pub(crate) fn cut(batch: &'a TokenBatch, dropout: Dropout) -> Vec<Self> {
        let limit = (batch.tokens() / Self::WANTED).clamp(Self::LEAST_TOKENS, Self::MOST_TOKENS);
        let (mut spans, mut first) = (Vec::new(), 0);
        while first < batch.len() {
            let start = batch.range(first).start;
            let fitting = (first + 1..batch.len()).take_while(|index| batch.range(*index).end - start <= limit).count();
            let sequences = first..first + 1 + fitting;
            spans.push(Self::of(batch, sequences.clone(), dropout));
            first = sequences.end;
        }
        spans
    }

    fn of(batch: &'a TokenBatch, sequences: Range<usize>, dropout: Dropout) -> Self {
        let first_token = batch.range(sequences.start).start;
        let ids = &batch.ids()[first_token..batch.range(sequences.end - 1).end];
        let relative = |range: Range<usize>| range.start - first_token..range.end - first_token;
        Self { ids, sequences: sequences.map(|index| relative(batch.range(index))).collect(), first_token, dropout }
    }
}

/// One thing for each of the four linear maps of a block.
#[derive(Debug, Default)]
pub(crate) struct Linears<T> {
    /// To queries, keys and values.
    pub(crate) projection: T,
    /// From the heads' contexts back to H.
    pub(crate) merge: T,
    /// From H to the inner width F.
    pub(crate) expand: T,
    /// From F back to H.
    pub(crate) contract: T,
}

impl Linears<Panels> {
    /// Packs the weights for the forward pass: y = x · Wᵀ.
    pub(crate) fn pack_forward(&mut self, weights: &BlockParameters<&[f32]>, shape: &Shape, unit: Unit) {
        self.projection.pack(View::new(weights.projection_weight, shape.hidden).transposed(), unit);
        self.merge.pack(View::new(weights.merge_weight, shape.hidden).transposed(), unit);
        self.expand.pack(View::new(weights.expand_weight, shape.hidden).transposed(), unit);
        self.contract.pack(View::new(weights.contract_weight, shape.inner).transposed(), unit);
    }

    /// Packs the weights for the backward pass: ∂x = ∂y · W.
    pub(crate) fn pack_backward(&mut self, weights: &BlockParameters<&[f32]>, shape: &Shape, unit: Unit) {
        self.projection.pack(View::new(weights.projection_weight, shape.hidden), unit);
        self.merge.pack(View::new(weights.merge_weight, shape.hidden), unit);
        self.expand.pack(View::new(weights.expand_weight, shape.hidden), unit);
        self.contract.pack(View::new(weights.contract_weight, shape.inner), unit);
    }
}

/// What a block's forward pass leaves for its backward pass; all matrices have a row for each token.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Whether a backward pass will follow.
    for_backward: bool,
    /// The block's input, H.
    pub(crate) input: Vec<f32>,
    /// Queries, keys and values, 3 H.
    projected: Vec<f32>,
    /// What the heads attended to, H.
    context: Vec<f32>,
    attention_norm: Normalised,
    /// The output of the attention part, H.
    middle: Vec<f32>,
    /// The inner values before GELU, F.
    expanded: Vec<f32>,
    output_norm: Normalised,
}

impl Kept {
    /// Memory for a pass that a backward pass follows.
    pub(crate) fn for_backward() -> Self {
        Self { for_backward: true, ..Self::default() }
    }
}

/// What the backward pass of one span through a block leaves for the gradients of its parameters.
#[derive(Debug, Default)]
pub(crate) struct Deltas {
    /// ∂loss/∂output of each linear map.
    outputs: Linears<Vec<f32>>,
    /// The input of each linear map, packed.
    inputs: Linears<Panels>,
    /// The gradients of weight and bias of the attention's normalisation, then of the output's.
    norms: Vec<f32>,
}

/// Working memory of one thread.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Tokens × H.
    pub(crate) narrow: Vec<f32>,
    /// Tokens × F.
    wide: Vec<f32>,
    packing: Packing,
    attention: attention::Scratch,
}

/// A block's parameters.
#[derive(Debug)]
pub(crate) struct Block<'a> {
    pub(crate) shape: &'a Shape,
    /// Counted from 0.
    pub(crate) layer: usize,
    pub(crate) weights: BlockParameters<&'a [f32]>,
    /// The weights, packed for the direction of the pass.
    pub(crate) panels: &'a Linears<Panels>,
    /// What computes the products.
    pub(crate) unit: Unit,
}

impl Block<'_> {
    /// Takes `kept.input` through the block; `output` becomes tokens × H.
    pub(crate) fn forward(&self, span: &Span, kept: &mut Kept, scratch: &mut Scratch, output: &mut Vec<f32>) {
        self.attend(span, kept, scratch);
        self.feed_forward(span, kept, scratch, output);
    }

    /// middle = norm(input + dropout(merge(attention(projection(input)))))
    fn attend(&self, span: &Span, kept: &mut Kept, scratch: &mut Scratch) {
        let Scratch { narrow, packing, attention, .. } = scratch;
        let weights = &self.weights;
        linear(&kept.input, &self.panels.projection, weights.projection_bias, &mut kept.projected, packing);
        kept.context.resize(kept.input.len(), 0.0);
        self.attention(span).forward(&kept.projected, &mut kept.context, attention);
        linear(&kept.context, &self.panels.merge, weights.merge_bias, narrow, packing);
        span.dropout.apply(Site::Attention { layer: self.layer }, span.first_token, self.shape.hidden, narrow);
        add(narrow, &kept.input);
        kept.middle.resize(kept.input.len(), 0.0);
        normalise::forward(narrow, self.attention_norm(), &mut kept.attention_norm, &mut kept.middle);
    }

    /// output = norm(middle + dropout(contract(gelu(expand(middle)))))
    fn feed_forward(&self, span: &Span, kept: &mut Kept, scratch: &mut Scratch, output: &mut Vec<f32>) {
        let Scratch { narrow, wide, packing, .. } = scratch;
        let (inner, left) = (self.shape.inner, View::new(&kept.middle, self.shape.hidden));
        let (start, size) = (Start::Bias(self.weights.expand_bias), span.ids.len() * inner);
        wide.resize(size, 0.0);
        let activated = ViewMut::new(wide, inner);
        if kept.for_backward {
            kept.expanded.resize(size, 0.0);
            let (out, finish) = (ViewMut::new(&mut kept.expanded, inner), Finish::GeluBeside(activated));
            multiply_then(out, finish, start, left, &self.panels.expand, packing);
        } else {
            multiply_then(activated, Finish::Gelu, start, left, &self.panels.expand, packing);
        }
        linear(wide, &self.panels.contract, self.weights.contract_bias, narrow, packing);
        span.dropout.apply(Site::FeedForward { layer: self.layer }, span.first_token, self.shape.hidden, narrow);
        add(narrow, &kept.middle);
        output.resize(kept.middle.len(), 0.0);
        normalise::forward(narrow, self.output_norm(), &mut kept.output_norm, output);
    }

    /// Turns ∂loss/∂output in `gradient` into ∂loss/∂input, and leaves in `deltas` what the parameters' gradients need.
    pub(crate) fn backward(
        &self,
        span: &Span,
        kept: &Kept,
        deltas: &mut Deltas,
        scratch: &mut Scratch,
        gradient: &mut [f32],
    ) {
        deltas.norms.clear();
        deltas.norms.resize(4 * self.shape.hidden, 0.0);
        self.feed_forward_backward(span, kept, deltas, scratch, gradient);
        self.attend_backward(span, kept, deltas, scratch, gradient);
    }

    fn feed_forward_backward(
        &self,
        span: &Span,
        kept: &Kept,
        deltas: &mut Deltas,
        scratch: &mut Scratch,
        gradient: &mut [f32],
    ) {
        let (hidden, inner) = (self.shape.hidden, self.shape.inner);
        let Deltas { outputs, inputs, norms } = deltas;
        let (weight, bias) = norms[2 * hidden..].split_at_mut(hidden);
        let sums = AffineGradient { weight, bias };
        normalise::backward(gradient, self.weights.output_norm_weight, &kept.output_norm, sums);
        copy(gradient, &mut outputs.contract);
        let site = Site::FeedForward { layer: self.layer };
        span.dropout.apply(site, span.first_token, hidden, &mut outputs.contract);
        outputs.expand.resize(kept.expanded.len(), 0.0);
        let left = View::new(&outputs.contract, hidden);
        let out = ViewMut::new(&mut outputs.expand, inner);
        multiply(out, Start::Zero, left, &self.panels.contract, &mut scratch.packing);
        scratch.wide.resize(kept.expanded.len(), 0.0);
        gelu::backward(&kept.expanded, &mut outputs.expand, &mut scratch.wide);
        inputs.contract.pack(View::new(&scratch.wide, inner), self.unit);
        inputs.expand.pack(View::new(&kept.middle, hidden), self.unit);
        let left = View::new(&outputs.expand, inner);
        let out = ViewMut::new(gradient, hidden);
        multiply(out, Start::Current, left, &self.panels.expand, &mut scratch.packing);
    }

    fn attend_backward(
        &self,
        span: &Span,
        kept: &Kept,
        deltas: &mut Deltas,
        scratch: &mut Scratch,
        gradient: &mut [f32],
    ) {
        let hidden = self.shape.hidden;
        let Deltas { outputs, inputs, norms } = deltas;
        let Scratch { narrow, packing, attention, .. } = scratch;
        let (weight, bias) = norms[..2 * hidden].split_at_mut(hidden);
        let sums = AffineGradient { weight, bias };
        normalise::backward(gradient, self.weights.attention_norm_weight, &kept.attention_norm, sums);
        copy(gradient, &mut outputs.merge);
        span.dropout.apply(Site::Attention { layer: self.layer }, span.first_token, hidden, &mut outputs.merge);
        narrow.resize(gradient.len(), 0.0);
        let left = View::new(&outputs.merge, hidden);
        multiply(ViewMut::new(narrow, hidden), Start::Zero, left, &self.panels.merge, packing);
        inputs.merge.pack(View::new(&kept.context, hidden), self.unit);
        outputs.projection.resize(kept.projected.len(), 0.0);
        self.attention(span).backward(&kept.projected, &kept.context, narrow, &mut outputs.projection, attention);
        inputs.projection.pack(View::new(&kept.input, hidden), self.unit);
        let left = View::new(&outputs.projection, 3 * hidden);
        multiply(ViewMut::new(gradient, hidden), Start::Current, left, &self.panels.projection, packing);
    }

    fn attention<'b>(&self, span: &'b Span) -> Attention<'b> {
        Attention {
            hidden: self.shape.hidden,
            heads: self.shape.heads,
            layer: self.layer,
            sequences: &span.sequences,
            first_token: span.first_token,
            dropout: span.dropout,
            unit: self.unit,
        }
    }

    fn attention_norm(&self) -> Affine<'_> {
        Affine {
            weight: self.weights.attention_norm_weight,
            bias: self.weights.attention_norm_bias,
            epsilon: self.shape.epsilon,
        }
    }

    fn output_norm(&self) -> Affine<'_> {
        Affine {
            weight: self.weights.output_norm_weight,
            bias: self.weights.output_norm_bias,
            epsilon: self.shape.epsilon,
        }
    }
}

/// out = x · Wᵀ + bias.
fn linear(x: &[f32], weight: &Panels, bias: &[f32], out: &mut Vec<f32>, packing: &mut Packing) {
    let tokens = x.len() / weight.depth();
    out.resize(tokens * bias.len(), 0.0);
    let out = ViewMut::new(out, bias.len());
    multiply(out, Start::Bias(bias), View::new(x, weight.depth()), weight, packing);
}

fn copy(from: &[f32], to: &mut Vec<f32>) {
    to.clear();
    to.extend_from_slice(from);
}

/// A few rows of a linear map's gradient, to which every span adds in order.
struct GradientRows<'a> {
    weight: &'a mut [f32],
    bias: &'a mut [f32],
    first_row: usize,
    outputs: usize,
    part: fn(&Deltas) -> (&[f32], &Panels),
}

impl GradientRows<'_> {
    /// ∂W += ∂yᵀ · x, and the bias's gradient += the sum of ∂y over the tokens.
    fn add(&mut self, deltas: &Deltas, packing: &mut Packing) {
        let (outputs, inputs) = (self.part)(deltas);
        let rows = self.bias.len();
        let left = View::new(outputs, self.outputs).transposed().rows(self.first_row, rows);
        let width = self.weight.len() / rows;
        multiply(ViewMut::new(self.weight, width), Start::Current, left, inputs, packing);
        add_columns(self.bias, outputs, self.outputs, self.first_row);
    }
}

/// Adds to `gradient` what the spans left in `deltas`, in parallel over rows and in the order of the spans.
pub(crate) fn accumulate(gradient: BlockParameters<&mut [f32]>, deltas: &[&Deltas]) {
    let mut jobs = Vec::new();
    let mut push = |weight, bias, part| jobs.extend(gradient_rows(weight, bias, part));
    push(gradient.projection_weight, gradient.projection_bias, |deltas| {
        (&deltas.outputs.projection, &deltas.inputs.projection)
    });
    push(gradient.merge_weight, gradient.merge_bias, |deltas| (&deltas.outputs.merge, &deltas.inputs.merge));
    push(gradient.expand_weight, gradient.expand_bias, |deltas| (&deltas.outputs.expand, &deltas.inputs.expand));
    push(gradient.contract_weight, gradient.contract_bias, |deltas| {
        (&deltas.outputs.contract, &deltas.inputs.contract)
    });
    jobs.into_par_iter().for_each_init(Packing::default, |packing, mut job| {
        deltas.iter().for_each(|deltas| job.add(deltas, packing));
    });
    let hidden = gradient.output_norm_bias.len();
    let norms = [
        gradient.attention_norm_weight,
        gradient.attention_norm_bias,
        gradient.output_norm_weight,
        gradient.output_norm_bias,
    ];
    for (index, norm) in norms.into_iter().enumerate() {
        deltas.iter().for_each(|deltas| add(norm, &deltas.norms[index * hidden..(index + 1) * hidden]));
    }
}

fn gradient_rows<'a>(
    weight: &'a mut [f32],
    bias: &'a mut [f32],
    part: fn(&Deltas) -> (&[f32], &Panels),
) -> impl Iterator<Item = GradientRows<'a>> {
    let (outputs, inputs) = (bias.len(), weight.len() / bias.len());
    let tiles = weight.chunks_mut(GRADIENT_ROWS * inputs).zip(bias.chunks_mut(GRADIENT_ROWS));
    tiles.enumerate().map(move |(index, (weight, bias))| GradientRows {
        weight,
        bias,
        first_row: index * GRADIENT_ROWS,
        outputs,
        part,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_hold_every_sequence_once_and_in_order() {
        let lengths = [3, 200, 100, 1, 600, 20, 20];
        let batch: TokenBatch = lengths.iter().map(|length| vec![*length as u32; *length]).collect();
        let spans = Span::cut(&batch, Dropout::OFF);
        let mut found = Vec::new();
        for span in &spans {
            assert_eq!(span.ids, &batch.ids()[span.first_token..span.first_token + span.ids.len()]);
            assert!(span.sequences.len() == 1 || span.ids.len() <= Span::MOST_TOKENS);
            found.extend(span.sequences.iter().map(|sequence| span.ids[sequence.clone()].len()));
        }
        assert_eq!(found, lengths);
        assert!(Span::cut(&TokenBatch::default(), Dropout::OFF).is_empty());
    }
}
