//! What the spans of a batch leave for the gradients of a block's parameters, and how it is added up.

use rayon::prelude::*;

use crate::kernel::lanes::{add, add_columns};
use crate::kernel::matrix::{Packing, Panels, Start, View, ViewMut, multiply};
use crate::kernel::normalise::AffineGradient;
use crate::layout::{BlockParameters, Linears};
use crate::shape::Shape;

/// Rows of a weight gradient that one job computes.
pub(crate) const GRADIENT_ROWS: usize = 96;

/// What the backward pass of one span through a block leaves for the gradients of its parameters.
#[derive(Debug, Default)]
pub(crate) struct Deltas {
    /// ∂loss/∂output of each linear map.
    pub(crate) outputs: Linears<Vec<f32>>,
    pub(crate) sources: Sources,
    pub(crate) norms: NormDeltas,
}

/// What the gradients of weights or of adapters are made of.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// The input of each linear map, packed; not of maps whose weights are frozen.
    pub(crate) inputs: Linears<Panels>,
    /// The gradient of all adapters of the block.
    pub(crate) adapters: Vec<f32>,
}

/// The gradients of a block's normalisations.
#[derive(Debug, Default)]
pub(crate) struct NormDeltas {
    pub(crate) attention: NormDelta,
    pub(crate) output: NormDelta,
    pub(crate) query: NormDelta,
    pub(crate) key: NormDelta,
}

/// The gradients of a normalisation's weight and bias, that of the bias also where there is none.
#[derive(Debug, Default)]
pub(crate) struct NormDelta {
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

impl NormDelta {
    /// Zeros of `width` values, to which a backward pass adds.
    pub(crate) fn cleared(&mut self, width: usize) -> AffineGradient<'_> {
        for part in [&mut self.weight, &mut self.bias] {
            part.clear();
            part.resize(width, 0.0);
        }
        AffineGradient { weight: &mut self.weight, bias: &mut self.bias }
    }
}

/// A few rows of a linear map's gradient, to which every span adds in order.
struct GradientRows<'a> {
    weight: &'a mut [f32],
    bias: &'a mut [f32],
    first_row: usize,
    inputs: usize,
    outputs: usize,
    part: fn(&Deltas) -> (&[f32], &Panels),
}

impl GradientRows<'_> {
    /// ∂W += ∂yᵀ · x, and the bias's gradient += the sum of ∂y over the tokens.
    fn add(&mut self, deltas: &Deltas, packing: &mut Packing) {
        let (outputs, inputs) = (self.part)(deltas);
        let rows = self.weight.len() / self.inputs;
        let left = View::new(outputs, self.outputs).transposed().rows(self.first_row, rows);
        multiply(ViewMut::new(self.weight, self.inputs), Start::Current, left, inputs, packing);
        add_columns(self.bias, outputs, self.outputs, self.first_row);
    }
}

/// Adds to `gradient` what the spans left in `deltas`, in parallel over rows and in the order of the spans.
pub(crate) fn accumulate(shape: &Shape, gradient: &mut BlockParameters<&mut [f32]>, deltas: &[&Deltas]) {
    let mut jobs = Vec::new();
    let mut push = |weight, bias, inputs, part| jobs.extend(gradient_rows(weight, bias, inputs, part));
    let (hidden, context) = (shape.hidden, shape.context());
    push(&mut *gradient.projection_weight, &mut *gradient.projection_bias, hidden, |deltas| {
        (&deltas.outputs.projection, &deltas.sources.inputs.projection)
    });
    push(&mut *gradient.merge_weight, &mut *gradient.merge_bias, context, |deltas| {
        (&deltas.outputs.merge, &deltas.sources.inputs.merge)
    });
    push(&mut *gradient.expand_weight, &mut *gradient.expand_bias, hidden, |deltas| {
        (&deltas.outputs.expand, &deltas.sources.inputs.expand)
    });
    push(&mut *gradient.contract_weight, &mut *gradient.contract_bias, shape.inner, |deltas| {
        (&deltas.outputs.contract, &deltas.sources.inputs.contract)
    });
    jobs.sort_by_key(|job| std::cmp::Reverse(job.weight.len()));
    jobs.into_iter().par_bridge().for_each_init(Packing::default, |packing, mut job| {
        deltas.iter().for_each(|deltas| job.add(deltas, packing));
    });
    for deltas in deltas {
        add(gradient.attention_norm_weight, &deltas.norms.attention.weight);
        add(gradient.attention_norm_bias, &deltas.norms.attention.bias);
        add(gradient.output_norm_weight, &deltas.norms.output.weight);
        add(gradient.output_norm_bias, &deltas.norms.output.bias);
        add(gradient.query_norm, &deltas.norms.query.weight);
        add(gradient.key_norm, &deltas.norms.key.weight);
    }
}

fn gradient_rows<'a>(
    weight: &'a mut [f32],
    bias: &'a mut [f32],
    inputs: usize,
    part: fn(&Deltas) -> (&[f32], &Panels),
) -> impl Iterator<Item = GradientRows<'a>> {
    let outputs = weight.len() / inputs;
    // A map without a bias has an empty piece of one in every job.
    let biases = bias.chunks_mut(GRADIENT_ROWS).chain(std::iter::repeat_with(<&mut [f32]>::default));
    let tiles = weight.chunks_mut(GRADIENT_ROWS * inputs).zip(biases);
    tiles.enumerate().map(move |(index, (weight, bias))| GradientRows {
        weight,
        bias,
        first_row: index * GRADIENT_ROWS,
        inputs,
        outputs,
        part,
    })
}
