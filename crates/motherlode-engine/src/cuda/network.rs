//! An encoder of BERT's family in the memory of a graphics card: embeddings, blocks and pooling, forward and
//! backward.
//!
//! The counterpart of `crate::network` and `crate::block`. A whole batch goes through at once. Operands of matrix
//! products are rounded to bfloat16 where `Precision` says so; all else is f32. There are no dropout and no adapters.

use std::ops::Range;
use std::sync::Arc;

use motherlode::Result;
use motherlode::engine::{Precision, TokenBatch};

use super::indices::{Scattering, Sequences};
use super::kernels::{Attended, Attention, Kernels, Norm, Normalised, Operands, Sizes, Tables};
use super::memory::{Backend, Buffer, View, ViewMut};
use crate::kernel::pooling::Head;
use crate::layout::{BlockParameters, Layout};
use crate::shape::Shape;

/// An encoder on a card.
#[derive(Debug)]
pub(crate) struct CardNetwork {
    pub(crate) kernels: Kernels,
    pub(crate) shape: Shape,
    pub(crate) head: Head,
    pub(crate) layout: Layout,
    pub(crate) weights: Buffer<f32>,
    /// The parameters of the blocks, rounded; none in f32.
    rounded: Option<Buffer<u16>>,
}

/// A batch on the card.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) sequences: Sequences,
    ids: Buffer<i32>,
    /// Rows of the table of positions.
    positions: Buffer<i32>,
    /// Both, where the backward pass sorts them.
    rows: [Vec<i32>; 2],
}

impl Batch {
    pub(crate) fn new(backend: &Arc<dyn Backend>, batch: &TokenBatch, first_position: usize) -> Result<Self> {
        let lengths = batch.lengths();
        let ids: Vec<i32> = batch.ids().iter().map(|id| *id as i32).collect();
        let rows = |length: &usize| first_position as i32..(first_position + length) as i32;
        let positions: Vec<i32> = lengths.iter().flat_map(rows).collect();
        Ok(Self {
            sequences: Sequences::new(backend, &lengths)?,
            ids: Buffer::of(backend, &ids)?,
            positions: Buffer::of(backend, &positions)?,
            rows: [ids, positions],
        })
    }

    fn tokens(&self) -> usize {
        self.sequences.tokens
    }
}

/// What a block's forward pass leaves for its backward pass, beside its input; all matrices have a row for each
/// token.
#[derive(Debug)]
struct Kept {
    projected: Buffer<f32>,
    context: Buffer<f32>,
    logarithms: Buffer<f32>,
    attention_norm: Normalised,
    middle: Buffer<f32>,
    expanded: Buffer<f32>,
    output_norm: Normalised,
}

impl Kept {
    fn new(backend: &Arc<dyn Backend>) -> Self {
        let buffer = || Buffer::new(backend);
        Self {
            projected: buffer(),
            context: buffer(),
            logarithms: buffer(),
            attention_norm: Normalised::new(backend),
            middle: buffer(),
            expanded: buffer(),
            output_norm: Normalised::new(backend),
        }
    }
}

/// What a pass through the encoder leaves.
#[derive(Debug)]
pub(crate) struct Pass {
    embedding_norm: Normalised,
    /// The input of each block; of one block after the other if there is no way back.
    inputs: Vec<Buffer<f32>>,
    /// What each block keeps, or the block in hand.
    kept: Vec<Kept>,
    /// The token vectors, tokens × H.
    hidden: Buffer<f32>,
}

impl Pass {
    /// Memory for a pass that keeps this many inputs and blocks.
    pub(crate) fn new(backend: &Arc<dyn Backend>, inputs: usize, blocks: usize) -> Self {
        Self {
            embedding_norm: Normalised::new(backend),
            inputs: (0..inputs).map(|_| Buffer::new(backend)).collect(),
            kept: (0..blocks).map(|_| Kept::new(backend)).collect(),
            hidden: Buffer::new(backend),
        }
    }
}

/// Working memory.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// Tokens × H.
    narrow: Buffer<f32>,
    /// Tokens × F.
    wide: Buffer<f32>,
    /// Tokens × F.
    wide_gradient: Buffer<f32>,
    /// ∂loss/∂activations, tokens × H.
    gradient: Buffer<f32>,
    /// ∂loss/∂contexts.
    of_context: Buffer<f32>,
    /// ∂loss/∂queries, keys and values.
    of_projected: Buffer<f32>,
    means: Buffer<f32>,
    parts: Buffer<f32>,
    /// Operands of a product.
    rounded: [Buffer<u16>; 2],
}

impl Scratch {
    pub(crate) fn new(backend: &Arc<dyn Backend>) -> Self {
        let buffer = || Buffer::new(backend);
        Self {
            narrow: buffer(),
            wide: buffer(),
            wide_gradient: buffer(),
            gradient: buffer(),
            of_context: buffer(),
            of_projected: buffer(),
            means: buffer(),
            parts: buffer(),
            rounded: [Buffer::new(backend), Buffer::new(backend)],
        }
    }
}

/// A linear map: its weight, outputs × inputs, and its bias, by their places among the parameters.
struct Linear {
    weight: Range<usize>,
    bias: Range<usize>,
}

impl Linear {
    fn outputs(&self) -> usize {
        self.bias.len()
    }

    fn inputs(&self) -> usize {
        self.weight.len() / self.bias.len()
    }
}

/// The four linear maps of a block: to queries, keys and values, back from contexts, and into and out of the inner
/// values.
fn linears(places: &BlockParameters<Range<usize>>) -> [Linear; 4] {
    [
        (&places.projection_weight, &places.projection_bias),
        (&places.merge_weight, &places.merge_bias),
        (&places.expand_weight, &places.expand_bias),
        (&places.contract_weight, &places.contract_bias),
    ]
    .map(|(weight, bias)| Linear { weight: weight.clone(), bias: bias.clone() })
}

impl CardNetwork {
    /// Copies `weights` to the card.
    pub(crate) fn new(
        backend: &Arc<dyn Backend>,
        shape: Shape,
        head: Head,
        weights: &[f32],
        precision: Precision,
    ) -> Result<Self> {
        let rounded = (precision == Precision::Bf16).then(|| Buffer::new(backend));
        let (layout, kernels) = (Layout::new(&shape), Kernels { backend: backend.clone() });
        let mut network = Self { kernels, shape, head, layout, weights: Buffer::of(backend, weights)?, rounded };
        network.weights_changed()?;
        Ok(network)
    }

    /// Rounds the parameters of the blocks again.
    pub(crate) fn weights_changed(&mut self) -> Result<()> {
        let Some(rounded) = &mut self.rounded else { return Ok(()) };
        let first = self.layout.place(0).start;
        rounded.resize(self.weights.length() - first)?;
        self.kernels.round(self.weights.part(first..self.weights.length()), rounded.view_mut())
    }

    /// Takes a batch through the encoder, to the token vectors in `pass`.
    pub(crate) fn forward(&self, batch: &Batch, pass: &mut Pass, scratch: &mut Scratch) -> Result<()> {
        self.embed(batch, pass, scratch)?;
        let Pass { inputs, kept, hidden, .. } = pass;
        for layer in 0..self.shape.layers.len() {
            let (input, block) = (layer.min(inputs.len() - 1), layer.min(kept.len() - 1));
            std::mem::swap(&mut inputs[input], hidden);
            self.block_forward(layer, batch, &mut kept[block], scratch, (&inputs[input], hidden))?;
        }
        Ok(())
    }

    /// Writes the vectors of the sequences of a batch whose token vectors are in `pass`.
    pub(crate) fn pool(&self, batch: &Batch, pass: &Pass, out: ViewMut<f32>) -> Result<()> {
        self.kernels.pool(self.head, pass.hidden.view(), &batch.sequences, out)
    }

    fn embed(&self, batch: &Batch, pass: &mut Pass, scratch: &mut Scratch) -> Result<()> {
        let places = self.layout.embedding_places();
        let [word, position] = [places.word, places.position].map(|place| self.weights.part(place));
        let kind = self.weights.part(places.kind.start..places.kind.start + self.shape.hidden);
        let size = batch.tokens() * self.shape.hidden;
        scratch.narrow.resize(size)?;
        pass.hidden.resize(size)?;
        let tables = Tables { word, position, kind };
        self.kernels.gather(tables, &batch.ids, &batch.positions, scratch.narrow.view_mut())?;
        let norm = self.norm(&places.norm_weight, &places.norm_bias);
        self.kernels.normalise(scratch.narrow.view(), None, norm, &mut pass.embedding_norm, pass.hidden.view_mut())
    }

    /// Takes `input` through a block, to `output`.
    fn block_forward(
        &self,
        layer: usize,
        batch: &Batch,
        kept: &mut Kept,
        scratch: &mut Scratch,
        (input, output): (&Buffer<f32>, &mut Buffer<f32>),
    ) -> Result<()> {
        let (places, kernels) = (self.layout.block_places(layer), &self.kernels);
        let [projection, merge, expand, contract] = linears(&places);
        let Kept { projected, context, logarithms, attention_norm, middle, expanded, output_norm } = kept;
        let Scratch { narrow, wide, rounded, .. } = scratch;
        self.linear(&projection, input, projected, rounded)?;
        kernels.add_bias(projected.view_mut(), self.weights.part(projection.bias))?;
        context.resize(batch.tokens() * self.shape.context())?;
        logarithms.resize(batch.tokens() * self.shape.heads)?;
        kernels.attend(self.attention(batch), projected.view(), context.view_mut(), logarithms.view_mut())?;
        self.linear(&merge, context, narrow, rounded)?;
        middle.resize(input.length())?;
        let others = Some([self.weights.part(merge.bias), input.view()]);
        let norm = self.norm(&places.attention_norm_weight, &places.attention_norm_bias);
        kernels.normalise(narrow.view(), others, norm, attention_norm, middle.view_mut())?;
        self.linear(&expand, middle, expanded, rounded)?;
        wide.resize(expanded.length())?;
        kernels.gelu(expanded.view_mut(), self.weights.part(expand.bias), wide.view_mut())?;
        self.linear(&contract, wide, narrow, rounded)?;
        output.resize(input.length())?;
        let others = Some([self.weights.part(contract.bias), middle.view()]);
        let norm = self.norm(&places.output_norm_weight, &places.output_norm_bias);
        kernels.normalise(narrow.view(), others, norm, output_norm, output.view_mut())
    }

    /// Adds to `gradient` what ∂loss/∂vectors, which is overwritten, brings; `pass` is what `forward` of the same
    /// batch left.
    pub(crate) fn backward(
        &self,
        batch: &Batch,
        pass: &mut Pass,
        scratch: &mut Scratch,
        of_vectors: ViewMut<f32>,
        gradient: &mut Buffer<f32>,
    ) -> Result<()> {
        let layers = self.shape.layers.len();
        scratch.gradient.resize(pass.hidden.length())?;
        let out = scratch.gradient.view_mut();
        self.kernels.pool_backward(self.head, pass.hidden.view(), &batch.sequences, of_vectors, out)?;
        for layer in (0..layers).rev() {
            let Pass { inputs, kept, hidden, .. } = pass;
            let index = layer.min(kept.len() - 1);
            if kept.len() < layers {
                // The token vectors have been used; what the block puts out takes their place.
                self.block_forward(layer, batch, &mut kept[index], scratch, (&inputs[layer], hidden))?;
            }
            self.block_backward(layer, batch, (&inputs[layer], &kept[index]), scratch, gradient)?;
        }
        self.embed_backward(batch, pass, scratch, gradient)
    }

    /// Takes the gradient in `scratch` back through a block, and adds that of its parameters.
    fn block_backward(
        &self,
        layer: usize,
        batch: &Batch,
        (input, kept): (&Buffer<f32>, &Kept),
        scratch: &mut Scratch,
        gradient: &mut Buffer<f32>,
    ) -> Result<()> {
        let (places, kernels) = (self.layout.block_places(layer), &self.kernels);
        let [projection, merge, expand, contract] = linears(&places);
        let weight = &places.output_norm_weight;
        self.norm_backward(weight, &places.output_norm_bias, &kept.output_norm, scratch, gradient)?;
        let Scratch { gradient: way, wide, wide_gradient, parts, rounded, .. } = scratch;
        self.linear_backward(&contract, way, (wide_gradient, false), rounded)?;
        wide.resize(kept.expanded.length())?;
        kernels.gelu_backward(kept.expanded.view(), wide_gradient.view_mut(), wide.view_mut())?;
        self.add_gradient(&contract, [way, wide], gradient, parts, rounded)?;
        self.linear_backward(&expand, wide_gradient, (way, true), rounded)?;
        self.add_gradient(&expand, [wide_gradient, &kept.middle], gradient, parts, rounded)?;
        let weight = &places.attention_norm_weight;
        self.norm_backward(weight, &places.attention_norm_bias, &kept.attention_norm, scratch, gradient)?;
        let Scratch { gradient: way, of_context, of_projected, means, parts, rounded, .. } = scratch;
        self.linear_backward(&merge, way, (of_context, false), rounded)?;
        self.add_gradient(&merge, [way, &kept.context], gradient, parts, rounded)?;
        of_projected.resize(kept.projected.length())?;
        let Kept { projected, context, logarithms, .. } = kept;
        let attended = Attended { projected: projected.view(), context: context.view(), logarithms: logarithms.view() };
        let (attention, out) = (self.attention(batch), of_projected.view_mut());
        kernels.attend_backward(attention, attended, of_context.view(), means, out)?;
        self.linear_backward(&projection, of_projected, (way, true), rounded)?;
        self.add_gradient(&projection, [of_projected, input], gradient, parts, rounded)
    }

    /// Takes the gradient in `scratch` from the first block's input to the embeddings.
    fn embed_backward(
        &self,
        batch: &Batch,
        pass: &Pass,
        scratch: &mut Scratch,
        gradient: &mut Buffer<f32>,
    ) -> Result<()> {
        let (places, hidden) = (self.layout.embedding_places(), self.shape.hidden);
        self.norm_backward(&places.norm_weight, &places.norm_bias, &pass.embedding_norm, scratch, gradient)?;
        let Scratch { gradient: way, parts, .. } = scratch;
        for (place, rows) in [places.word, places.position].into_iter().zip(&batch.rows) {
            let rows = Scattering::new(&self.kernels.backend, rows)?;
            self.kernels.scatter(way.view(), &rows, hidden, gradient.part_mut(place))?;
        }
        let kind = gradient.part_mut(places.kind.start..places.kind.start + hidden);
        self.kernels.add_columns(way.view(), None, parts, kind)
    }

    /// Takes the gradient in `scratch` back through a normalisation, and adds that of its weight and bias.
    fn norm_backward(
        &self,
        weight: &Range<usize>,
        bias: &Range<usize>,
        saved: &Normalised,
        scratch: &mut Scratch,
        gradient: &mut Buffer<f32>,
    ) -> Result<()> {
        let Scratch { gradient: way, parts, .. } = scratch;
        let gamma = self.weights.part(weight.clone());
        let sums = gradient.parts_mut([weight.clone(), bias.clone()]);
        self.kernels.normalise_backward(way, saved, gamma, sums, parts)
    }

    /// out = x · Wᵀ, without the bias.
    fn linear(
        &self,
        map: &Linear,
        x: &Buffer<f32>,
        out: &mut Buffer<f32>,
        rounded: &mut [Buffer<u16>; 2],
    ) -> Result<()> {
        let (columns, depth) = (map.outputs(), map.inputs());
        let sizes = Sizes { rows: x.length() / depth, columns, depth, transposed: [false, true] };
        out.resize(sizes.rows * columns)?;
        self.multiply_weight(sizes, map, x, (out, false), rounded)
    }

    /// out = ∂loss/∂y · W, or this is added to `out`.
    fn linear_backward(
        &self,
        map: &Linear,
        gradient: &Buffer<f32>,
        (out, add): (&mut Buffer<f32>, bool),
        rounded: &mut [Buffer<u16>; 2],
    ) -> Result<()> {
        let (columns, depth) = (map.inputs(), map.outputs());
        let sizes = Sizes { rows: gradient.length() / depth, columns, depth, transposed: [false, false] };
        out.resize(sizes.rows * columns)?;
        self.multiply_weight(sizes, map, gradient, (out, add), rounded)
    }

    fn multiply_weight(
        &self,
        sizes: Sizes,
        map: &Linear,
        left: &Buffer<f32>,
        (out, add): (&mut Buffer<f32>, bool),
        scratch: &mut [Buffer<u16>; 2],
    ) -> Result<()> {
        let operands = if let Some(weights) = &self.rounded {
            let first = self.layout.place(0).start;
            let left = self.round(left, &mut scratch[0])?;
            Operands::Bfloat16([left, weights.part(map.weight.start - first..map.weight.end - first)])
        } else {
            Operands::Single([left.view(), self.weights.part(map.weight.clone())])
        };
        self.kernels.multiply(sizes, operands, add, out.view_mut())
    }

    /// Adds the gradients of a linear map's weight and bias, of ∂loss/∂y and x; `linear_backward` of the same ∂loss/∂y came
    /// just before and left it rounded in `scratch`.
    fn add_gradient(
        &self,
        map: &Linear,
        [of_output, input]: [&Buffer<f32>; 2],
        gradient: &mut Buffer<f32>,
        parts: &mut Buffer<f32>,
        scratch: &mut [Buffer<u16>; 2],
    ) -> Result<()> {
        self.kernels.add_columns(of_output.view(), None, parts, gradient.part_mut(map.bias.clone()))?;
        let (rows, columns, depth) = (map.outputs(), map.inputs(), input.length() / map.inputs());
        let sizes = Sizes { rows, columns, depth, transposed: [true, false] };
        let operands = if self.rounded.is_some() {
            let [left, right] = scratch;
            Operands::Bfloat16([left.view(), self.round(input, right)?])
        } else {
            Operands::Single([of_output.view(), input.view()])
        };
        self.kernels.multiply(sizes, operands, true, gradient.part_mut(map.weight.clone()))
    }

    fn round<'a>(&self, values: &Buffer<f32>, out: &'a mut Buffer<u16>) -> Result<View<'a, u16>> {
        out.resize(values.length())?;
        self.kernels.round(values.view(), out.view_mut())?;
        Ok(out.view())
    }

    fn norm(&self, weight: &Range<usize>, bias: &Range<usize>) -> Norm<'_> {
        let [weight, bias] = [weight, bias].map(|place| self.weights.part(place.clone()));
        Norm { weight, bias, epsilon: self.shape.norm.epsilon }
    }

    fn attention<'a>(&self, batch: &'a Batch) -> Attention<'a> {
        Attention { heads: self.shape.heads, width: self.shape.width, sequences: &batch.sequences }
    }
}
