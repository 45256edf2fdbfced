//! One transformer block over the tokens of a span, forward and backward, written on the kernels.
//!
//! Encoders and decoders differ here by data: where the normalisations stand, positions, masks, the activation.

use crate::adapter::{self, LayerAdapters, Sides};
use crate::gradient::{Deltas, NormDelta, Sources};
use crate::kernel::attention::{self, Attention};
use crate::kernel::buffer::{copy, resize};
use crate::kernel::dropout::Site;
use crate::kernel::lanes::add;
use crate::kernel::matrix::{Finish, Packing, Panels, Start, Unit, View, ViewMut, multiply, multiply_then};
use crate::kernel::normalise::{self, Affine, Normalised};
use crate::kernel::rotary::{Rotary, Rows};
use crate::kernel::{gated, gelu};
use crate::layout::{BlockParameters, Linears, Map};
use crate::shape::{Activation, Placement, Shape};
use crate::span::Span;

impl Linears<Panels> {
    /// Packs the weights for the forward pass: y = x · Wᵀ.
    pub(crate) fn pack_forward(&mut self, weights: &BlockParameters<&[f32]>, shape: &Shape, unit: Unit) {
        self.projection.pack(View::new(weights.projection_weight, shape.hidden).transposed(), unit);
        self.merge.pack(View::new(weights.merge_weight, shape.context()).transposed(), unit);
        self.expand.pack(View::new(weights.expand_weight, shape.hidden).transposed(), unit);
        self.contract.pack(View::new(weights.contract_weight, shape.inner).transposed(), unit);
    }

    /// Packs the weights for the backward pass: ∂x = ∂y · W.
    pub(crate) fn pack_backward(&mut self, weights: &BlockParameters<&[f32]>, shape: &Shape, unit: Unit) {
        self.projection.pack(View::new(weights.projection_weight, shape.hidden), unit);
        self.merge.pack(View::new(weights.merge_weight, shape.context()), unit);
        self.expand.pack(View::new(weights.expand_weight, shape.hidden), unit);
        self.contract.pack(View::new(weights.contract_weight, shape.inner), unit);
    }
}

/// What a block's forward pass leaves for its backward pass, beside its input; all matrices have a row for each token.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Whether a backward pass will follow.
    pub(crate) for_backward: bool,
    /// What attention is computed of, H; the input itself if no normalisation stands before.
    attended: Vec<f32>,
    /// Queries, keys and values.
    projected: Vec<f32>,
    /// What the heads attended to.
    context: Vec<f32>,
    attention_norm: Normalised,
    query_norm: Normalised,
    key_norm: Normalised,
    /// The output of the attention part, H.
    middle: Vec<f32>,
    /// What the feed-forward part is computed of, H; the middle itself if no normalisation stands before.
    fed: Vec<f32>,
    /// The inner values before the activation.
    expanded: Vec<f32>,
    output_norm: Normalised,
}

impl Kept {
    /// Memory for a pass that a backward pass follows.
    pub(crate) fn for_backward() -> Self {
        Self { for_backward: true, ..Self::default() }
    }
}

/// Working memory of one thread.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Tokens × H.
    pub(crate) narrow: Vec<f32>,
    /// What a block puts out when it is computed again, tokens × H.
    again: Vec<f32>,
    /// ∂loss/∂contexts, tokens × the heads' values.
    context: Vec<f32>,
    /// Tokens × F.
    wide: Vec<f32>,
    /// Tokens × F.
    wide_gradient: Vec<f32>,
    linear: LinearScratch,
    attention: attention::Scratch,
    heads: HeadScratch,
}

/// What a span carries from block to block in its backward pass.
#[derive(Debug, Default)]
pub(crate) struct WayBack {
    /// ∂loss/∂activations, tokens × H.
    pub(crate) gradient: Vec<f32>,
    /// What the gradients of the last block's parameters need.
    pub(crate) deltas: Deltas,
}

/// Working memory of a linear map.
#[derive(Debug, Default)]
struct LinearScratch {
    packing: Packing,
    adapter: adapter::Scratch,
}

/// The values of some heads, one head after the other.
#[derive(Debug, Default)]
struct HeadScratch {
    before: Vec<f32>,
    after: Vec<f32>,
}

/// A block's parameters.
#[derive(Debug)]
pub(crate) struct Block<'a> {
    pub(crate) shape: &'a Shape,
    /// Counted from 0.
    pub(crate) layer: usize,
    pub(crate) rotary: Option<&'a Rotary>,
    pub(crate) weights: BlockParameters<&'a [f32]>,
    /// The weights, packed for the direction of the pass.
    pub(crate) panels: &'a Linears<Panels>,
    /// If there are any, the weights themselves have no gradient.
    pub(crate) adapters: Option<LayerAdapters<'a>>,
    /// What computes the products.
    pub(crate) unit: Unit,
}

/// Some of the heads of queries, keys and values.
#[derive(Clone, Copy)]
struct Heads {
    first: usize,
    count: usize,
}

impl Block<'_> {
    /// Takes `input` through the block; `output` becomes tokens × H.
    pub(crate) fn forward(
        &self,
        span: &Span,
        input: &[f32],
        kept: &mut Kept,
        scratch: &mut Scratch,
        output: &mut Vec<f32>,
    ) {
        self.attend_alone(span, input, kept, scratch);
        self.feed_forward(span, kept, scratch, output);
    }

    /// Computes again what `forward` of the same input left in `kept` for the backward pass.
    pub(crate) fn forward_again(&self, span: &Span, input: &[f32], kept: &mut Kept, scratch: &mut Scratch) {
        self.attend_alone(span, input, kept, scratch);
        self.expand(span, kept, &mut scratch.wide, &mut scratch.linear);
        if self.shape.placement == Placement::After {
            let mut output = std::mem::take(&mut scratch.again);
            self.contract(span, kept, scratch, &mut output);
            scratch.again = output;
        }
    }

    /// The attention part, where the tokens of each sequence attend to one another alone.
    fn attend_alone(&self, span: &Span, input: &[f32], kept: &mut Kept, scratch: &mut Scratch) {
        let attention = self.attention(span);
        self.attend(span, input, kept, scratch, |projected, context, scratch| {
            attention.forward(projected, context, scratch);
        });
    }

    /// The attention part of the block: middle = norm(input + dropout(merge(attention(projection(input))))), or with the
    /// norm around the second input. `attention` makes contexts of queries, keys and values, turned by their positions.
    pub(crate) fn attend(
        &self,
        span: &Span,
        input: &[f32],
        kept: &mut Kept,
        scratch: &mut Scratch,
        attention: impl FnOnce(&[f32], &mut [f32], &mut attention::Scratch),
    ) {
        let Scratch { narrow, linear, attention: working, heads, .. } = scratch;
        if self.norm_before_attention() {
            norm_forward(input, self.attention_norm(), &mut kept.attention_norm, &mut kept.attended);
        }
        let source = if self.norm_before_attention() { &kept.attended } else { input };
        self.linear(Map::Projection, span, source, &mut kept.projected, linear);
        self.place(span, kept, heads);
        resize(&mut kept.context, span.ids.len() * self.shape.context(), 0.0);
        attention(&kept.projected, &mut kept.context, working);
        let after = self.shape.placement == Placement::After;
        let merged = if after { &mut *narrow } else { &mut kept.middle };
        self.linear(Map::Merge, span, &kept.context, merged, linear);
        span.dropout.apply(Site::Attention { layer: self.layer }, span.first_token, self.shape.hidden, merged);
        add(merged, input);
        if after {
            norm_forward(narrow, self.attention_norm(), &mut kept.attention_norm, &mut kept.middle);
        }
    }

    /// Normalises queries and keys, and turns them by their positions.
    fn place(&self, span: &Span, kept: &mut Kept, scratch: &mut HeadScratch) {
        if self.shape.head_norms {
            for (heads, weight, saved) in [
                (self.queries(), self.weights.query_norm, &mut kept.query_norm),
                (self.keys(), self.weights.key_norm, &mut kept.key_norm),
            ] {
                self.take_heads(&kept.projected, heads, &mut scratch.before);
                norm_forward(&scratch.before, self.shape.norm.affine(weight, &[]), saved, &mut scratch.after);
                self.put_heads(&scratch.after, heads, &mut kept.projected);
            }
        }
        if let Some(rotary) = self.rotary {
            rotary.forward(&mut kept.projected, self.turned(span));
        }
    }

    /// The feed-forward part of the block, from what `attend` left in `kept`; `output` becomes tokens × H.
    pub(crate) fn feed_forward(&self, span: &Span, kept: &mut Kept, scratch: &mut Scratch, output: &mut Vec<f32>) {
        self.expand(span, kept, &mut scratch.wide, &mut scratch.linear);
        self.contract(span, kept, scratch, output);
    }

    /// output = norm(middle + dropout(contract(activated))), or with the norm of `expand` instead; `activated` is
    /// `scratch.wide`.
    fn contract(&self, span: &Span, kept: &mut Kept, scratch: &mut Scratch, output: &mut Vec<f32>) {
        let Scratch { narrow, wide, linear, .. } = scratch;
        let after = self.shape.placement == Placement::After;
        let contracted = if after { &mut *narrow } else { &mut *output };
        self.linear(Map::Contract, span, wide, contracted, linear);
        span.dropout.apply(Site::FeedForward { layer: self.layer }, span.first_token, self.shape.hidden, contracted);
        add(contracted, &kept.middle);
        if after {
            norm_forward(narrow, self.output_norm(), &mut kept.output_norm, output);
        }
    }

    /// activated = activation(expand(middle)), or of the norm of it.
    fn expand(&self, span: &Span, kept: &mut Kept, activated: &mut Vec<f32>, scratch: &mut LinearScratch) {
        let Kept { for_backward, middle, fed, expanded, output_norm, .. } = kept;
        let before = self.shape.placement == Placement::Before;
        if before {
            norm_forward(middle, self.output_norm(), output_norm, fed);
        }
        let source = if before { fed } else { middle };
        if self.adapters.is_some() || self.shape.activation != Activation::Gelu {
            self.linear(Map::Expand, span, source, expanded, scratch);
            self.activate(expanded, activated);
            return;
        }
        let (inner, size) = (self.shape.inner, span.ids.len() * self.shape.inner);
        let (start, left, weight) =
            (self.start(Map::Expand), View::new(source, self.shape.hidden), &self.panels.expand);
        resize(activated, size, 0.0);
        let activated = ViewMut::new(activated, inner);
        if *for_backward {
            resize(expanded, size, 0.0);
            let (out, finish) = (ViewMut::new(expanded, inner), Finish::GeluBeside(activated));
            multiply_then(out, finish, start, left, weight, &mut scratch.packing);
        } else {
            multiply_then(activated, Finish::Gelu, start, left, weight, &mut scratch.packing);
        }
    }

    fn activate(&self, expanded: &[f32], out: &mut Vec<f32>) {
        resize(out, expanded.len() / self.shape.expanded() * self.shape.inner, 0.0);
        match self.shape.activation {
            Activation::Gelu => gelu::forward(expanded, out),
            Activation::Gated(gate) => gated::forward(gate, expanded, self.shape.inner, out),
        }
    }

    /// out = x · Wᵀ + bias, and what the adapters add.
    fn linear(&self, map: Map, span: &Span, x: &[f32], out: &mut Vec<f32>, scratch: &mut LinearScratch) {
        let (weight, start) = (self.panels.of(map), self.start(map));
        resize(out, span.ids.len() * weight.columns(), 0.0);
        let left = View::new(x, weight.depth());
        multiply(ViewMut::new(out, weight.columns()), start, left, weight, &mut scratch.packing);
        if let Some(adapters) = &self.adapters {
            adapters.forward(map, span, x, out, &mut scratch.adapter);
        }
    }

    /// What a linear map adds to its products.
    fn start(&self, map: Map) -> Start<'_> {
        let bias = self.weights.bias(map);
        if bias.is_empty() { Start::Zero } else { Start::Bias(bias) }
    }

    /// Turns ∂loss/∂output in `way.gradient` into ∂loss/∂input, and leaves in `way.deltas` what the parameters' gradients
    /// need; `input` is that of the forward pass.
    pub(crate) fn backward(&self, span: &Span, input: &[f32], kept: &Kept, way: &mut WayBack, scratch: &mut Scratch) {
        let adapters = self.adapters.map_or(0, |adapters| adapters.parameters());
        resize(&mut way.deltas.sources.adapters, adapters, 0.0);
        self.feed_forward_backward(span, kept, way, scratch);
        self.attend_backward(span, input, kept, way, scratch);
    }

    fn feed_forward_backward(&self, span: &Span, kept: &Kept, way: &mut WayBack, scratch: &mut Scratch) {
        let WayBack { deltas, gradient } = way;
        let (hidden, weight) = (self.shape.hidden, self.weights.output_norm_weight);
        let before = self.shape.placement == Placement::Before;
        let Deltas { outputs, norms, .. } = deltas;
        if !before {
            norm_backward(gradient, weight, &kept.output_norm, &mut norms.output);
        }
        copy(gradient, &mut outputs.contract);
        let site = Site::FeedForward { layer: self.layer };
        span.dropout.apply(site, span.first_token, hidden, &mut outputs.contract);
        self.contract_backward(span, &kept.expanded, deltas, scratch);
        let Deltas { outputs, sources, norms } = deltas;
        let (narrow, linear) = (&mut scratch.narrow, &mut scratch.linear);
        if before {
            resize(narrow, gradient.len(), 0.0);
            let mut sides = Sides { input: &kept.fed, output: &outputs.expand, start: Start::Zero, gradient: narrow };
            self.linear_backward(Map::Expand, span, &mut sides, sources, linear);
            norm_backward(narrow, weight, &kept.output_norm, &mut norms.output);
            add(gradient, narrow);
        } else {
            let mut sides = Sides { input: &kept.middle, output: &outputs.expand, start: Start::Current, gradient };
            self.linear_backward(Map::Expand, span, &mut sides, sources, linear);
        }
    }

    /// From ∂loss/∂output of the second linear map of the feed-forward part to that of the first.
    fn contract_backward(&self, span: &Span, expanded: &[f32], deltas: &mut Deltas, scratch: &mut Scratch) {
        let Deltas { outputs, sources, .. } = deltas;
        let Scratch { wide, wide_gradient, linear, .. } = scratch;
        let (inner, tokens) = (self.shape.inner, span.ids.len());
        resize(&mut outputs.expand, expanded.len(), 0.0);
        if self.adapters.is_none() && self.shape.activation == Activation::Gelu {
            // The activation again and its slope in one pass.
            let (out, left) =
                (ViewMut::new(&mut outputs.expand, inner), View::new(&outputs.contract, self.shape.hidden));
            multiply(out, Start::Zero, left, &self.panels.contract, &mut linear.packing);
            resize(wide, expanded.len(), 0.0);
            gelu::backward(expanded, &mut outputs.expand, wide);
            sources.inputs.contract.pack(View::new(wide, inner), self.unit);
            return;
        }
        self.activate(expanded, wide);
        resize(wide_gradient, tokens * inner, 0.0);
        let mut sides = Sides { input: wide, output: &outputs.contract, start: Start::Zero, gradient: wide_gradient };
        self.linear_backward(Map::Contract, span, &mut sides, sources, linear);
        match self.shape.activation {
            Activation::Gelu => {
                outputs.expand.copy_from_slice(wide_gradient);
                gelu::backward(expanded, &mut outputs.expand, wide);
            }
            Activation::Gated(gate) => gated::backward(gate, expanded, inner, wide_gradient, &mut outputs.expand),
        }
    }

    fn attend_backward(&self, span: &Span, input: &[f32], kept: &Kept, way: &mut WayBack, scratch: &mut Scratch) {
        let WayBack { deltas, gradient } = way;
        let (hidden, weight) = (self.shape.hidden, self.weights.attention_norm_weight);
        let Deltas { outputs, sources, norms } = deltas;
        let Scratch { narrow, context, linear, attention, heads, .. } = scratch;
        if self.shape.placement == Placement::After {
            norm_backward(gradient, weight, &kept.attention_norm, &mut norms.attention);
        }
        copy(gradient, &mut outputs.merge);
        span.dropout.apply(Site::Attention { layer: self.layer }, span.first_token, hidden, &mut outputs.merge);
        resize(context, kept.context.len(), 0.0);
        let mut sides = Sides { input: &kept.context, output: &outputs.merge, start: Start::Zero, gradient: context };
        self.linear_backward(Map::Merge, span, &mut sides, sources, linear);
        resize(&mut outputs.projection, kept.projected.len(), 0.0);
        self.attention(span).backward(&kept.projected, &kept.context, context, &mut outputs.projection, attention);
        let head_norms = [&mut norms.query, &mut norms.key];
        self.place_backward(span, kept, &mut outputs.projection, head_norms, heads);
        let output = &outputs.projection;
        if self.norm_before_attention() {
            resize(narrow, gradient.len(), 0.0);
            let mut sides = Sides { input: &kept.attended, output, start: Start::Zero, gradient: narrow };
            self.linear_backward(Map::Projection, span, &mut sides, sources, linear);
            norm_backward(narrow, weight, &kept.attention_norm, &mut norms.attention);
            add(gradient, narrow);
        } else {
            let mut sides = Sides { input, output, start: Start::Current, gradient };
            self.linear_backward(Map::Projection, span, &mut sides, sources, linear);
        }
    }

    /// Writes ∂loss/∂input of a linear map, and what the gradients of its parameters need.
    fn linear_backward(
        &self,
        map: Map,
        span: &Span,
        sides: &mut Sides,
        sources: &mut Sources,
        scratch: &mut LinearScratch,
    ) {
        let (weight, tokens) = (self.panels.of(map), span.ids.len());
        let out = ViewMut::new(sides.gradient, weight.columns());
        multiply(out, sides.start, View::new(sides.output, weight.depth()), weight, &mut scratch.packing);
        match &self.adapters {
            None => sources.inputs.of_mut(map).pack(View::new(sides.input, sides.input.len() / tokens), self.unit),
            Some(adapters) => adapters.backward(map, span, sides, &mut sources.adapters, &mut scratch.adapter),
        }
    }

    /// Takes the gradient of queries and keys back through positions and normalisations.
    fn place_backward(
        &self,
        span: &Span,
        kept: &Kept,
        gradient: &mut [f32],
        norms: [&mut NormDelta; 2],
        scratch: &mut HeadScratch,
    ) {
        if let Some(rotary) = self.rotary {
            rotary.backward(gradient, self.turned(span));
        }
        if self.shape.head_norms {
            let [of_queries, of_keys] = norms;
            for (heads, weight, saved, sums) in [
                (self.queries(), self.weights.query_norm, &kept.query_norm, of_queries),
                (self.keys(), self.weights.key_norm, &kept.key_norm, of_keys),
            ] {
                self.take_heads(gradient, heads, &mut scratch.before);
                norm_backward(&mut scratch.before, weight, saved, sums);
                self.put_heads(&scratch.before, heads, gradient);
            }
        }
    }

    fn queries(&self) -> Heads {
        Heads { first: 0, count: self.shape.heads }
    }

    fn keys(&self) -> Heads {
        Heads { first: self.shape.heads, count: self.shape.groups }
    }

    /// Queries and keys, which stand side by side.
    fn turned<'b>(&self, span: &'b Span) -> Rows<'b> {
        let Shape { heads, groups, .. } = self.shape;
        Rows { stride: self.shape.projected(), heads: heads + groups, sequences: &span.sequences, starts: &span.starts }
    }

    /// Copies the columns of some heads, token after token.
    fn take_heads(&self, projected: &[f32], heads: Heads, out: &mut Vec<f32>) {
        let columns = heads.first * self.shape.width..(heads.first + heads.count) * self.shape.width;
        resize(out, projected.len() / self.shape.projected() * columns.len(), 0.0);
        let rows = projected.chunks_exact(self.shape.projected()).zip(out.chunks_exact_mut(columns.len()));
        rows.for_each(|(row, out)| out.copy_from_slice(&row[columns.clone()]));
    }

    fn put_heads(&self, values: &[f32], heads: Heads, projected: &mut [f32]) {
        let columns = heads.first * self.shape.width..(heads.first + heads.count) * self.shape.width;
        let rows = projected.chunks_exact_mut(self.shape.projected()).zip(values.chunks_exact(columns.len()));
        rows.for_each(|(row, values)| row[columns.clone()].copy_from_slice(values));
    }

    fn attention<'b>(&self, span: &'b Span) -> Attention<'b> {
        Attention {
            heads: self.shape.heads,
            groups: self.shape.groups,
            width: self.shape.width,
            mask: self.shape.layers[self.layer].mask,
            layer: self.layer,
            sequences: &span.sequences,
            first_token: span.first_token,
            dropout: span.dropout,
            unit: self.unit,
        }
    }

    fn norm_before_attention(&self) -> bool {
        self.shape.placement == Placement::Before && self.shape.layers[self.layer].attention_norm
    }

    fn attention_norm(&self) -> Affine<'_> {
        self.shape.norm.affine(self.weights.attention_norm_weight, self.weights.attention_norm_bias)
    }

    fn output_norm(&self) -> Affine<'_> {
        self.shape.norm.affine(self.weights.output_norm_weight, self.weights.output_norm_bias)
    }
}

/// Normalises the rows of `x`, which are as long as the weight.
pub(crate) fn norm_forward(x: &[f32], affine: Affine, saved: &mut Normalised, out: &mut Vec<f32>) {
    resize(out, x.len(), 0.0);
    normalise::forward(x, affine, saved, out);
}

/// Takes `gradient` back through a normalisation, whose own gradient replaces `sums`.
pub(crate) fn norm_backward(gradient: &mut [f32], weight: &[f32], saved: &Normalised, sums: &mut NormDelta) {
    normalise::backward(gradient, weight, saved, sums.cleared(weight.len()));
}
