//! An encoder of BERT's family in the memory of a graphics card: embeddings, blocks and pooling, forward and
//! backward.
//!
//! The counterpart of `crate::network` and `crate::block`. A whole batch goes through at once. What is between two
//! matrix products is of the kind that `Precision` says, f32 or bfloat16; the sums to which blocks add, normalisations,
//! softmax, weights and their gradients are f32 in any case. There are no dropout and no adapters.

use std::ops::Range;
use std::sync::Arc;

use motherlode::Result;
use motherlode::engine::TokenBatch;

use super::indices::{Scattering, Sequences};
use super::kernels::{
    Added, Attended, Attention, Element, Kernels, Norm, Normalised, Operands, Parts, Sizes, Tables, Written,
};
use super::memory::{Backend, Buffer, View, ViewMut};
use crate::kernel::pooling::Head;
use crate::layout::{BlockParameters, Layout};
use crate::shape::Shape;

/// f32 numbers that are also operands of products: themselves, or beside them what they are rounded to.
#[derive(Debug)]
pub(crate) struct Stream<A> {
    values: Buffer<f32>,
    /// Empty where the values themselves are operands.
    rounded: Buffer<A>,
}

impl<A: Element> Stream<A> {
    fn new(backend: &Arc<dyn Backend>) -> Self {
        Self { values: Buffer::new(backend), rounded: Buffer::new(backend) }
    }

    fn resize(&mut self, length: usize) -> Result<()> {
        self.values.resize(length)?;
        self.rounded.resize(if A::ROUNDED { length } else { 0 })
    }

    fn operand(&self) -> View<'_, A> {
        A::operand(&self.values, &self.rounded).view()
    }

    fn written(&mut self) -> Written<'_, A> {
        Written { values: self.values.view_mut(), rounded: A::ROUNDED.then(|| self.rounded.view_mut()) }
    }
}

/// An encoder on a card, whose activations are numbers of kind `A`.
#[derive(Debug)]
pub(crate) struct CardNetwork<A> {
    pub(crate) kernels: Kernels,
    pub(crate) shape: Shape,
    pub(crate) head: Head,
    pub(crate) layout: Layout,
    pub(crate) weights: Buffer<f32>,
    /// The parameters of the blocks, rounded; empty where products do not want that.
    rounded: Buffer<A>,
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
    /// No sequences yet, for activations of a kind.
    pub(crate) fn new<A: Element>(backend: &Arc<dyn Backend>) -> Self {
        let sequences = Sequences::new(backend, A::TILE);
        Self { sequences, ids: Buffer::new(backend), positions: Buffer::new(backend), rows: Default::default() }
    }

    /// Copies a batch to the card, whose first position is that row of the table of positions.
    pub(crate) fn set(&mut self, batch: &TokenBatch, first_position: usize) -> Result<()> {
        let lengths = batch.lengths();
        let ids: Vec<i32> = batch.ids().iter().map(|id| *id as i32).collect();
        let rows = |length: &usize| first_position as i32..(first_position + length) as i32;
        let positions: Vec<i32> = lengths.iter().flat_map(rows).collect();
        self.sequences.set(&lengths)?;
        self.ids.write(&ids)?;
        self.positions.write(&positions)?;
        self.rows = [ids, positions];
        Ok(())
    }

    fn tokens(&self) -> usize {
        self.sequences.tokens
    }
}

/// What a block's forward pass leaves for its backward pass, beside its input; all matrices have a row for each
/// token.
#[derive(Debug)]
struct Kept<A> {
    projected: Buffer<A>,
    context: Buffer<A>,
    logarithms: Buffer<f32>,
    attention_norm: Normalised,
    middle: Stream<A>,
    expanded: Buffer<A>,
    output_norm: Normalised,
}

impl<A: Element> Kept<A> {
    fn new(backend: &Arc<dyn Backend>, way_back: bool) -> Self {
        let buffer = || Buffer::new(backend);
        Self {
            projected: buffer(),
            context: buffer(),
            logarithms: Buffer::new(backend),
            attention_norm: Normalised::new(backend, way_back),
            middle: Stream::new(backend),
            expanded: buffer(),
            output_norm: Normalised::new(backend, way_back),
        }
    }
}

/// What a pass keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keeping {
    /// Inputs of blocks.
    pub(crate) inputs: usize,
    /// Blocks whose inner values stay.
    pub(crate) blocks: usize,
    /// Whether there is a backward pass.
    pub(crate) way_back: bool,
}

impl Keeping {
    /// What encoding wants: one block after the other.
    pub(crate) const NOTHING: Self = Self { inputs: 1, blocks: 1, way_back: false };
}

/// What a pass through the encoder leaves.
#[derive(Debug)]
pub(crate) struct Pass<A> {
    embedding_norm: Normalised,
    /// The input of each block; of one block after the other if there is no way back.
    inputs: Vec<Stream<A>>,
    /// What each block keeps, or the block in hand.
    kept: Vec<Kept<A>>,
    /// The token vectors, tokens × H.
    hidden: Stream<A>,
}

impl<A: Element> Pass<A> {
    /// Memory for a pass that keeps so much.
    pub(crate) fn new(backend: &Arc<dyn Backend>, keeping: Keeping) -> Self {
        let Keeping { inputs, blocks, way_back } = keeping;
        Self {
            embedding_norm: Normalised::new(backend, way_back),
            inputs: (0..inputs).map(|_| Stream::new(backend)).collect(),
            kept: (0..blocks).map(|_| Kept::new(backend, way_back)).collect(),
            hidden: Stream::new(backend),
        }
    }
}

/// Working memory.
#[derive(Debug)]
pub(crate) struct Scratch<A> {
    /// Tokens × H.
    narrow: Buffer<A>,
    /// Tokens × F.
    wide: Buffer<A>,
    /// Tokens × F.
    wide_gradient: Buffer<A>,
    /// ∂loss/∂activations, tokens × H.
    gradient: Stream<A>,
    /// ∂loss/∂contexts.
    of_context: Buffer<A>,
    /// ∂loss/∂queries, keys and values.
    of_projected: Buffer<A>,
    means: Buffer<f32>,
    parts: Parts,
    places: Scattering,
}

impl<A: Element> Scratch<A> {
    pub(crate) fn new(backend: &Arc<dyn Backend>) -> Self {
        let buffer = || Buffer::new(backend);
        Self {
            narrow: buffer(),
            wide: buffer(),
            wide_gradient: buffer(),
            gradient: Stream::new(backend),
            of_context: buffer(),
            of_projected: buffer(),
            means: Buffer::new(backend),
            parts: Parts::new(backend),
            places: Scattering::new(backend),
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

impl<A: Element> CardNetwork<A> {
    /// Copies `weights` to the card.
    pub(crate) fn new(backend: &Arc<dyn Backend>, shape: Shape, head: Head, weights: &[f32]) -> Result<Self> {
        let (layout, kernels) = (Layout::new(&shape), Kernels { backend: backend.clone() });
        let weights = Buffer::of(backend, weights)?;
        let mut network = Self { kernels, shape, head, layout, weights, rounded: Buffer::new(backend) };
        network.weights_changed()?;
        Ok(network)
    }

    /// Rounds the parameters of the blocks again.
    pub(crate) fn weights_changed(&mut self) -> Result<()> {
        if !A::ROUNDED {
            return Ok(());
        }
        let first = self.layout.place(0).start;
        self.rounded.resize(self.weights.length() - first)?;
        self.kernels.round(self.weights.part(first..self.weights.length()), self.rounded.view_mut())
    }

    /// Parameters of a block as operands of products.
    fn parameters(&self, place: &Range<usize>) -> View<'_, A> {
        let first = if A::ROUNDED { self.layout.place(0).start } else { 0 };
        A::operand(&self.weights, &self.rounded).part(place.start - first..place.end - first)
    }

    /// Takes a batch through the encoder, to the token vectors in `pass`.
    pub(crate) fn forward(&self, batch: &Batch, pass: &mut Pass<A>, scratch: &mut Scratch<A>) -> Result<()> {
        self.embed(batch, pass)?;
        let Pass { inputs, kept, hidden, .. } = pass;
        for layer in 0..self.shape.layers.len() {
            let (input, block) = (layer.min(inputs.len() - 1), layer.min(kept.len() - 1));
            std::mem::swap(&mut inputs[input], hidden);
            self.block_forward(layer, batch, &mut kept[block], scratch, (&inputs[input], hidden))?;
        }
        Ok(())
    }

    /// Writes the vectors of the sequences of a batch whose token vectors are in `pass`.
    pub(crate) fn pool(&self, batch: &Batch, pass: &Pass<A>, out: ViewMut<f32>) -> Result<()> {
        self.kernels.pool(self.head, pass.hidden.values.view(), &batch.sequences, out)
    }

    /// Writes the embeddings where the first block's input will be, and what they are normalised to where the token
    /// vectors will be.
    fn embed(&self, batch: &Batch, pass: &mut Pass<A>) -> Result<()> {
        let places = self.layout.embedding_places();
        let [word, position] = [places.word, places.position].map(|place| self.weights.part(place));
        let kind = self.weights.part(places.kind.start..places.kind.start + self.shape.hidden);
        let size = batch.tokens() * self.shape.hidden;
        let Pass { embedding_norm, inputs, hidden, .. } = pass;
        let embeddings = &mut inputs[0].values;
        embeddings.resize(size)?;
        hidden.resize(size)?;
        let tables = Tables { word, position, kind };
        self.kernels.gather(tables, &batch.ids, &batch.positions, embeddings.view_mut())?;
        let norm = self.norm(&places.norm_weight, &places.norm_bias);
        self.kernels.normalise(embeddings.view(), None, norm, embedding_norm, hidden.written())
    }

    /// Takes `input` through a block, to `output`.
    fn block_forward(
        &self,
        layer: usize,
        batch: &Batch,
        kept: &mut Kept<A>,
        scratch: &mut Scratch<A>,
        (input, output): (&Stream<A>, &mut Stream<A>),
    ) -> Result<()> {
        let (places, kernels) = (self.layout.block_places(layer), &self.kernels);
        let [projection, merge, expand, contract] = linears(&places);
        let Kept { projected, context, logarithms, attention_norm, middle, expanded, output_norm } = kept;
        let Scratch { narrow, wide, .. } = scratch;
        self.linear(&projection, input.operand(), true, projected)?;
        context.resize(batch.tokens() * self.shape.context())?;
        logarithms.resize(batch.tokens() * self.shape.heads)?;
        kernels.attend(self.attention(batch), projected.view(), context.view_mut(), logarithms.view_mut())?;
        self.linear(&merge, context.view(), false, narrow)?;
        let norm = self.norm(&places.attention_norm_weight, &places.attention_norm_bias);
        self.add_and_normalise(input, (narrow, &merge), norm, attention_norm, middle)?;
        self.linear(&expand, middle.operand(), true, expanded)?;
        wide.resize(expanded.length())?;
        kernels.gelu(expanded.view(), wide.view_mut())?;
        self.linear(&contract, wide.view(), false, narrow)?;
        let norm = self.norm(&places.output_norm_weight, &places.output_norm_bias);
        self.add_and_normalise(middle, (narrow, &contract), norm, output_norm, output)
    }

    /// out = norm(residual + rows + the bias of the map that made the rows).
    fn add_and_normalise(
        &self,
        residual: &Stream<A>,
        (rows, map): (&Buffer<A>, &Linear),
        norm: Norm,
        saved: &mut Normalised,
        out: &mut Stream<A>,
    ) -> Result<()> {
        let residual = residual.values.view();
        let added = Added { rows: rows.view(), bias: self.weights.part(map.bias.clone()) };
        out.resize(residual.length())?;
        self.kernels.normalise(residual, Some(added), norm, saved, out.written())
    }

    /// Adds to `gradient` what ∂loss/∂vectors, which is overwritten, brings; `pass` is what `forward` of the same
    /// batch left.
    pub(crate) fn backward(
        &self,
        batch: &Batch,
        pass: &mut Pass<A>,
        scratch: &mut Scratch<A>,
        of_vectors: ViewMut<f32>,
        gradient: &mut Buffer<f32>,
    ) -> Result<()> {
        let layers = self.shape.layers.len();
        let hidden = &pass.hidden.values;
        scratch.gradient.resize(hidden.length())?;
        let out = scratch.gradient.values.view_mut();
        self.kernels.pool_backward(self.head, hidden.view(), &batch.sequences, of_vectors, out)?;
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
        (input, kept): (&Stream<A>, &Kept<A>),
        scratch: &mut Scratch<A>,
        gradient: &mut Buffer<f32>,
    ) -> Result<()> {
        let (places, kernels) = (self.layout.block_places(layer), &self.kernels);
        let [projection, merge, expand, contract] = linears(&places);
        let weight = &places.output_norm_weight;
        self.norm_backward(weight, &places.output_norm_bias, &kept.output_norm, scratch, gradient)?;
        let Scratch { gradient: way, wide, wide_gradient, parts, .. } = scratch;
        self.linear_backward(&contract, way.operand(), false, wide_gradient)?;
        wide.resize(kept.expanded.length())?;
        kernels.gelu_backward(kept.expanded.view(), wide_gradient.view_mut(), wide.view_mut())?;
        self.add_gradient(&contract, [way.operand(), wide.view()], gradient, parts)?;
        self.linear_backward(&expand, wide_gradient.view(), true, &mut way.values)?;
        self.add_gradient(&expand, [wide_gradient.view(), kept.middle.operand()], gradient, parts)?;
        let weight = &places.attention_norm_weight;
        self.norm_backward(weight, &places.attention_norm_bias, &kept.attention_norm, scratch, gradient)?;
        let Scratch { gradient: way, of_context, of_projected, means, parts, .. } = scratch;
        self.linear_backward(&merge, way.operand(), false, of_context)?;
        self.add_gradient(&merge, [way.operand(), kept.context.view()], gradient, parts)?;
        of_projected.resize(kept.projected.length())?;
        let Kept { projected, context, logarithms, .. } = kept;
        let attended = Attended { projected: projected.view(), context: context.view(), logarithms: logarithms.view() };
        let (attention, out) = (self.attention(batch), of_projected.view_mut());
        kernels.attend_backward(attention, attended, of_context.view(), means, out)?;
        self.linear_backward(&projection, of_projected.view(), true, &mut way.values)?;
        self.add_gradient(&projection, [of_projected.view(), input.operand()], gradient, parts)
    }

    /// Takes the gradient in `scratch` from the first block's input to the embeddings.
    fn embed_backward(
        &self,
        batch: &Batch,
        pass: &Pass<A>,
        scratch: &mut Scratch<A>,
        gradient: &mut Buffer<f32>,
    ) -> Result<()> {
        let (places, hidden) = (self.layout.embedding_places(), self.shape.hidden);
        self.norm_backward(&places.norm_weight, &places.norm_bias, &pass.embedding_norm, scratch, gradient)?;
        let Scratch { gradient: way, parts, places: of_rows, .. } = scratch;
        for (place, rows) in [places.word, places.position].into_iter().zip(&batch.rows) {
            of_rows.set(rows)?;
            self.kernels.scatter(way.values.view(), of_rows, hidden, gradient.part_mut(place))?;
        }
        let kind = gradient.part_mut(places.kind.start..places.kind.start + hidden);
        self.kernels.add_columns(way.values.view(), parts, kind)
    }

    /// Takes the gradient in `scratch` back through a normalisation, and adds that of its weight and bias.
    fn norm_backward(
        &self,
        weight: &Range<usize>,
        bias: &Range<usize>,
        saved: &Normalised,
        scratch: &mut Scratch<A>,
        gradient: &mut Buffer<f32>,
    ) -> Result<()> {
        let Scratch { gradient: way, parts, .. } = scratch;
        let gamma = self.weights.part(weight.clone());
        let sums = gradient.parts_mut([weight.clone(), bias.clone()]);
        self.kernels.normalise_backward(way.written(), saved, gamma, sums, parts)
    }

    /// out = x · Wᵀ, plus the bias if so asked.
    fn linear(&self, map: &Linear, x: View<A>, biased: bool, out: &mut Buffer<A>) -> Result<()> {
        let (columns, depth) = (map.outputs(), map.inputs());
        let sizes = Sizes { rows: x.length() / depth, columns, depth, transposed: [false, true] };
        out.resize(sizes.rows * columns)?;
        let bias = biased.then(|| self.parameters(&map.bias));
        let operands = Operands { left: x, right: self.parameters(&map.weight), bias };
        self.kernels.multiply(sizes, operands, false, out.view_mut())
    }

    /// out = ∂loss/∂y · W, or this is added to `out`.
    fn linear_backward<O: Element>(
        &self,
        map: &Linear,
        gradient: View<A>,
        add: bool,
        out: &mut Buffer<O>,
    ) -> Result<()> {
        let (columns, depth) = (map.inputs(), map.outputs());
        let sizes = Sizes { rows: gradient.length() / depth, columns, depth, transposed: [false, false] };
        out.resize(sizes.rows * columns)?;
        let operands = Operands { left: gradient, right: self.parameters(&map.weight), bias: None };
        self.kernels.multiply(sizes, operands, add, out.view_mut())
    }

    /// Adds the gradients of a linear map's weight and bias, of ∂loss/∂y and x.
    fn add_gradient(
        &self,
        map: &Linear,
        [of_output, input]: [View<A>; 2],
        gradient: &mut Buffer<f32>,
        parts: &mut Parts,
    ) -> Result<()> {
        self.kernels.add_columns(of_output, parts, gradient.part_mut(map.bias.clone()))?;
        let (rows, columns, depth) = (map.outputs(), map.inputs(), input.length() / map.inputs());
        let sizes = Sizes { rows, columns, depth, transposed: [true, false] };
        let operands = Operands { left: of_output, right: input, bias: None };
        self.kernels.multiply(sizes, operands, true, gradient.part_mut(map.weight.clone()))
    }

    fn norm(&self, weight: &Range<usize>, bias: &Range<usize>) -> Norm<'_> {
        let [weight, bias] = [weight, bias].map(|place| self.weights.part(place.clone()));
        Norm { weight, bias, epsilon: self.shape.norm.epsilon }
    }

    fn attention<'a>(&self, batch: &'a Batch) -> Attention<'a> {
        Attention { heads: self.shape.heads, width: self.shape.width, sequences: &batch.sequences }
    }
}
