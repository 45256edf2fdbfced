//! Low-rank adapters beside the linear maps of the blocks: y = x · Wᵀ + scale · dropout(x) · Aᵀ · Bᵀ, W being frozen.
//!
//! Source: Hu et al., "LoRA: low-rank adaptation of large language models" (2021), with the scale α / r, names and
//! files of the Python package `peft`.

use std::borrow::Cow;
use std::ops::Range;

use motherlode::engine::LoraConfig;
use motherlode::{Error, Result, random};
use rand::RngExt;

use crate::kernel::buffer::{copy, resize};
use crate::kernel::dropout::Site;
use crate::kernel::lanes::add;
use crate::kernel::matrix::{Packing, Panels, Start, Unit, View, ViewMut, multiply};
use crate::layout::{BlockParameters, Layout, Linears, Map, Tensor};
use crate::shape::Shape;
use crate::span::Span;

/// All adapters of an encoder.
#[derive(Debug)]
pub(crate) struct Adapters {
    pub(crate) config: LoraConfig,
    /// Where the matrices A and B of every adapter stand in the weights.
    pub(crate) layout: Layout,
    pub(crate) weights: Vec<f32>,
    layers: Vec<LayerPlace>,
}

/// The adapters of one layer.
#[derive(Debug)]
struct LayerPlace {
    place: Range<usize>,
    adapters: Linears<Vec<Adapter>>,
}

/// An adapter of some outputs of a linear map.
#[derive(Debug, Clone)]
struct Adapter {
    /// Counted within the layer.
    index: usize,
    outputs: Range<usize>,
    inputs: usize,
    /// A, r × inputs, in the layer's weights.
    down: Range<usize>,
    /// B, outputs × r, in the layer's weights.
    up: Range<usize>,
}

impl Adapters {
    /// Fresh adapters of the modules that `config` names: A is drawn from ±1 / √inputs, B is zero.
    ///
    /// # Errors
    /// A target that no linear map has; a setting out of its range.
    pub(crate) fn new(config: &LoraConfig, shape: &Shape, seed: u64) -> Result<Self> {
        let mut adapters = Self::zero(config, shape)?;
        for tensor in adapters.layout.tensors.iter().filter(|tensor| tensor.name.ends_with("lora_A.weight")) {
            let reach = (tensor.shape[1] as f32).sqrt().recip();
            let mut random = random::keyed(seed, "lora", &tensor.name);
            adapters.weights[tensor.place.clone()].fill_with(|| random.random_range(-reach..reach));
        }
        Ok(adapters)
    }

    /// Adapters of zeros.
    pub(crate) fn zero(config: &LoraConfig, shape: &Shape) -> Result<Self> {
        config.validate()?;
        let mut builder = Builder { config, tensors: Vec::new(), layers: Vec::new() };
        (0..shape.layers.len()).for_each(|layer| builder.layer(shape, layer));
        let named = |target: &&String| !builder.tensors.iter().any(|tensor| is_target(module(&tensor.name), target));
        if let Some(target) = config.targets.iter().find(named) {
            let parts: Vec<String> = all_parts(shape).collect();
            let message =
                format!("lora.targets: `{target}` is no linear map of this model; expected {}", parts.join(", "));
            return Err(Error::config(message));
        }
        let Builder { tensors, layers, .. } = builder;
        let layout = Layout::of(tensors);
        Ok(Self { config: config.clone(), weights: vec![0.0; layout.parameters()], layout, layers })
    }

    /// What a block that multiplies with `unit` needs of them.
    pub(crate) fn layer(&self, layer: usize, unit: Unit) -> LayerAdapters<'_> {
        let LayerPlace { place, adapters } = &self.layers[layer];
        LayerAdapters {
            layer,
            adapters,
            weights: &self.weights[place.clone()],
            scale: self.scale(),
            rank: self.config.rank,
            unit,
        }
    }

    /// Where the adapters of a layer stand in the weights.
    pub(crate) fn place(&self, layer: usize) -> Range<usize> {
        self.layers[layer].place.clone()
    }

    /// α / r.
    pub(crate) fn scale(&self) -> f32 {
        self.config.alpha / self.config.rank as f32
    }

    /// W += scale · B · A in an encoder's weights, in f32.
    pub(crate) fn merge(&self, layout: &Layout, weights: &mut [f32]) {
        (0..self.layers.len()).for_each(|layer| self.merge_layer(layout, layer, &mut weights[layout.place(layer)]));
    }

    /// All weights with the adapters merged into them, in parts: one layer's at a time are copied.
    pub(crate) fn merged<'a>(
        &'a self,
        layout: &'a Layout,
        weights: &'a [f32],
    ) -> impl Iterator<Item = Cow<'a, [f32]>> + 'a {
        let layers = self.layers.len();
        let (first, last) = (layout.place(0).start, layout.place(layers - 1).end);
        let merged = move |layer: usize| {
            let mut block = weights[layout.place(layer)].to_vec();
            self.merge_layer(layout, layer, &mut block);
            Cow::Owned(block)
        };
        let before = std::iter::once(Cow::Borrowed(&weights[..first]));
        before.chain((0..layers).map(merged)).chain(std::iter::once(Cow::Borrowed(&weights[last..])))
    }

    /// W += scale · B · A in the weights `block` of one layer.
    fn merge_layer(&self, layout: &Layout, layer: usize, block: &mut [f32]) {
        let own = self.layer(layer, Unit::single());
        let BlockParameters { projection_weight, merge_weight, expand_weight, contract_weight, .. } =
            layout.block_of(block, layer);
        own.merge(&own.adapters.projection, projection_weight);
        own.merge(&own.adapters.merge, merge_weight);
        own.merge(&own.adapters.expand, expand_weight);
        own.merge(&own.adapters.contract, contract_weight);
    }
}

/// The name of the module that an adapter's tensor belongs to.
fn module(tensor: &str) -> &str {
    tensor.trim_end_matches(".lora_A.weight").trim_end_matches(".lora_B.weight")
}

/// Whether `target` names the module or the end of its path, as in `peft`.
fn is_target(module: &str, target: &str) -> bool {
    module.strip_suffix(target).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The linear maps of a layer by what stands behind the layer's number.
pub(crate) fn all_parts(shape: &Shape) -> impl Iterator<Item = String> {
    let names = shape.names;
    let parts = names.projection.iter().chain([&names.merge]).chain(names.expand).chain([&names.contract]);
    parts.map(|part| (*part).to_owned())
}

/// Lays out adapter after adapter.
struct Builder<'a> {
    config: &'a LoraConfig,
    tensors: Vec<Tensor>,
    layers: Vec<LayerPlace>,
}

impl Builder<'_> {
    fn end(&self) -> usize {
        self.tensors.last().map_or(0, |tensor| tensor.place.end)
    }

    fn layer(&mut self, shape: &Shape, layer: usize) {
        let (start, mut index) = (self.end(), 0);
        let parts = shape.parts(layer);
        let mut of = |modules: &[(String, usize)], inputs| self.map(modules, inputs, start, &mut index);
        let adapters = Linears {
            projection: of(&parts.projection, shape.hidden),
            merge: of(&parts.merge, shape.context()),
            expand: of(&parts.expand, shape.hidden),
            contract: of(&parts.contract, shape.inner),
        };
        self.layers.push(LayerPlace { place: start..self.end(), adapters });
    }

    /// The adapters of one linear map, which is made of `modules` with so many outputs each.
    fn map(&mut self, modules: &[(String, usize)], inputs: usize, start: usize, index: &mut usize) -> Vec<Adapter> {
        let (targets, rank) = (&self.config.targets, self.config.rank);
        let (mut first, mut adapters) = (0, Vec::new());
        for (name, outputs) in modules {
            if targets.is_empty() || targets.iter().any(|target| is_target(name, target)) {
                let down = self.push(format!("{name}.lora_A.weight"), [rank, inputs]);
                let up = self.push(format!("{name}.lora_B.weight"), [*outputs, rank]);
                let within = |place: Range<usize>| place.start - start..place.end - start;
                let outputs = first..first + outputs;
                adapters.push(Adapter { index: *index, outputs, inputs, down: within(down), up: within(up) });
                *index += 1;
            }
            first += outputs;
        }
        adapters
    }

    fn push(&mut self, name: String, shape: [usize; 2]) -> Range<usize> {
        let place = self.end()..self.end() + shape[0] * shape[1];
        self.tensors.push(Tensor { name, shape: shape.to_vec(), place: place.clone(), decays: true });
        place
    }
}

/// The adapters of one layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerAdapters<'a> {
    layer: usize,
    adapters: &'a Linears<Vec<Adapter>>,
    weights: &'a [f32],
    scale: f32,
    rank: usize,
    unit: Unit,
}

/// Working memory.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Tokens × inputs.
    dropped: Vec<f32>,
    /// Tokens × r.
    low: Vec<f32>,
    /// Tokens × r.
    low_gradient: Vec<f32>,
    panels: Panels,
    packing: Packing,
}

/// Both sides of a linear map on the way back.
#[derive(Debug)]
pub(crate) struct Sides<'a> {
    /// The input, tokens × inputs.
    pub(crate) input: &'a [f32],
    /// ∂loss/∂output, tokens × outputs.
    pub(crate) output: &'a [f32],
    /// What stands in `gradient` before.
    pub(crate) start: Start<'a>,
    /// ∂loss/∂input, tokens × inputs, to be written.
    pub(crate) gradient: &'a mut [f32],
}

impl LayerAdapters<'_> {
    /// Number of values of all adapters of the layer.
    pub(crate) fn parameters(&self) -> usize {
        self.weights.len()
    }

    /// Adds the adapters' part to the outputs `out` of a linear map of `x`.
    pub(crate) fn forward(&self, map: Map, span: &Span, x: &[f32], out: &mut [f32], scratch: &mut Scratch) {
        for adapter in self.adapters.of(map) {
            let stride = out.len() / (x.len() / adapter.inputs);
            self.low(adapter, span, x, scratch);
            let Scratch { low, panels, packing, .. } = scratch;
            panels.pack(View::new(&self.weights[adapter.up.clone()], self.rank).transposed(), self.unit);
            let out = ViewMut::new(&mut out[adapter.outputs.start..], stride);
            multiply(out, Start::Current, View::new(low, self.rank), panels, packing);
        }
    }

    /// scale · dropout(x) · Aᵀ to `scratch.low`, and dropout(x) to `scratch.dropped`.
    fn low(&self, adapter: &Adapter, span: &Span, x: &[f32], scratch: &mut Scratch) {
        let Scratch { dropped, low, panels, packing, .. } = scratch;
        copy(x, dropped);
        span.adapter_dropout.apply(self.site(adapter), span.first_token, adapter.inputs, dropped);
        panels.pack(View::new(&self.weights[adapter.down.clone()], adapter.inputs).transposed(), self.unit);
        resize(low, x.len() / adapter.inputs * self.rank, 0.0);
        multiply(ViewMut::new(low, self.rank), Start::Zero, View::new(dropped, adapter.inputs), panels, packing);
        low.iter_mut().for_each(|value| *value *= self.scale);
    }

    fn site(&self, adapter: &Adapter) -> Site {
        Site::Adapter { layer: self.layer, index: adapter.index }
    }

    /// Writes the gradients of the adapters of a map to their place in `gradient`, which is the layer's, and adds their
    /// part of ∂loss/∂input to `sides`.
    pub(crate) fn backward(
        &self,
        map: Map,
        span: &Span,
        sides: &mut Sides,
        gradient: &mut [f32],
        scratch: &mut Scratch,
    ) {
        for adapter in self.adapters.of(map) {
            let tokens = sides.input.len() / adapter.inputs;
            let stride = sides.output.len() / tokens;
            self.low(adapter, span, sides.input, scratch);
            let Scratch { dropped, low, low_gradient, panels, packing } = scratch;
            let outputs = &sides.output[adapter.outputs.start..];
            let outputs = View::strided(outputs, tokens, adapter.outputs.len(), stride);

            panels.pack(View::new(low, self.rank), self.unit);
            let out = ViewMut::new(&mut gradient[adapter.up.clone()], self.rank);
            multiply(out, Start::Zero, outputs.transposed(), panels, packing);

            panels.pack(View::new(&self.weights[adapter.up.clone()], self.rank), self.unit);
            resize(low_gradient, low.len(), 0.0);
            multiply(ViewMut::new(low_gradient, self.rank), Start::Zero, outputs, panels, packing);
            low_gradient.iter_mut().for_each(|value| *value *= self.scale);

            panels.pack(View::new(dropped, adapter.inputs), self.unit);
            let out = ViewMut::new(&mut gradient[adapter.down.clone()], adapter.inputs);
            multiply(out, Start::Zero, View::new(low_gradient, self.rank).transposed(), panels, packing);

            panels.pack(View::new(&self.weights[adapter.down.clone()], adapter.inputs), self.unit);
            let out = ViewMut::new(dropped, adapter.inputs);
            multiply(out, Start::Zero, View::new(low_gradient, self.rank), panels, packing);
            span.adapter_dropout.apply(self.site(adapter), span.first_token, adapter.inputs, dropped);
            add(sides.gradient, dropped);
        }
    }

    /// weight += scale · B · A, row after row of the map's matrix.
    fn merge(&self, adapters: &[Adapter], weight: &mut [f32]) {
        for adapter in adapters {
            let up: Vec<f32> = self.weights[adapter.up.clone()].iter().map(|value| value * self.scale).collect();
            let down = Panels::of(View::new(&self.weights[adapter.down.clone()], adapter.inputs), self.unit);
            let out = ViewMut::new(&mut weight[adapter.outputs.start * adapter.inputs..], adapter.inputs);
            multiply(out, Start::Current, View::new(&up, self.rank), &down, &mut Packing::default());
        }
    }
}
