//! What is trained, whatever stands on the blocks: kept or recomputed activations, the backward pass down to the
//! embeddings, optimiser steps, and the state from which training continues.

use std::io::{Read, Write};

use motherlode::engine::{LoadOptions, Recomputation};
use motherlode::{Error, Result};
use rayon::prelude::*;

use crate::adapter::Adapters;
use crate::block::norm_backward;
use crate::config::ModelFolder;
use crate::footprint::Planner;
use crate::gradient::accumulate;
use crate::kernel::dropout::{Dropout, Site};
use crate::kernel::embedding::Tables;
use crate::kernel::lanes::add;
use crate::kernel::matrix::Panels;
use crate::layout::Linears;
use crate::network::{Network, SpanMemory, Worker};
use crate::optimizer::{Gradient, Optimizer};
use crate::peft;
use crate::shape::Placement;
use crate::span::{Masks, Span, longest_first};
use crate::state;

/// A network in training.
#[derive(Debug)]
pub(crate) struct Learner {
    pub(crate) network: Network,
    /// The blocks' matrices, packed for the backward pass.
    panels: Vec<Linears<Panels>>,
    pub(crate) gradient: Gradient,
    optimizer: Optimizer,
    dropout: f32,
    seed: u64,
    pub(crate) planner: Planner,
    /// Activations of the spans that `keep` took through the network last.
    pub(crate) memory: Vec<SpanMemory>,
}

impl Learner {
    /// Reads the network in `folder`, and the adapters that are trained if `options` ask for some.
    pub(crate) fn open(folder: &ModelFolder, options: &LoadOptions) -> Result<Self> {
        let planner = Planner::new(&folder.shape, options)?;
        let (merged, adapters) = adapters(folder, options)?;
        let mut network = Network::open(folder, merged.as_ref(), options.precision)?;
        network.adapters = adapters;
        let (layout, _) = network.trained();
        let vocabulary = if network.adapters.is_some() { 0 } else { folder.shape.vocabulary };
        let mut learner = Self {
            panels: folder.shape.layers.iter().map(|_| Linears::default()).collect(),
            gradient: Gradient::new(layout, vocabulary),
            optimizer: Optimizer::new(options.optimizer.clone(), layout, vocabulary)?,
            network,
            dropout: options.optimizer.dropout,
            seed: options.seed,
            planner,
            memory: Vec::new(),
        };
        learner.pack_backward();
        Ok(learner)
    }

    fn weights_changed(&mut self) {
        if self.network.adapters.is_none() {
            self.network.pack();
            self.pack_backward();
        }
    }

    fn pack_backward(&mut self) {
        let Network { layout, weights, shape, unit, .. } = &self.network;
        self.panels.par_iter_mut().enumerate().for_each(|(layer, panels)| {
            panels.pack_backward(&layout.block(weights, layer), shape, *unit);
        });
    }

    /// The dropout masks of a step.
    pub(crate) fn masks(&self, step: u64) -> Masks {
        let masks = |rate| Dropout::new(rate, self.seed, step);
        let adapters = self.network.adapters.as_ref().map_or(0.0, |adapters| adapters.config.dropout);
        Masks { activations: masks(self.dropout), adapters: masks(adapters) }
    }

    /// Makes the memory of the spans ready for spans of so many tokens. What earlier, longer ones have left stays, unless
    /// it is too much.
    fn make_room(&mut self, spans: &[Span], recomputation: Recomputation) {
        let rooms = self.memory.iter().map(|memory| memory.room).chain(std::iter::repeat(0));
        let count = spans.len().max(self.memory.len());
        let tokens = spans.iter().map(|span| span.ids.len()).chain(std::iter::repeat(0));
        let sizes: Vec<usize> = tokens.zip(rooms).take(count).map(|(tokens, room)| tokens.max(room)).collect();
        let of_another_kind =
            self.memory.first().is_some_and(|memory| memory.blocks.is_empty() != recomputation.layers);
        if of_another_kind || !self.planner.holds(&sizes, recomputation.layers) {
            self.memory.clear();
        }
        let layers = self.network.shape.layers.len();
        if self.memory.len() < spans.len() {
            self.memory.resize_with(spans.len(), || SpanMemory::keeping(layers, recomputation.layers));
        }
        for (memory, span) in self.memory.iter_mut().zip(spans) {
            memory.room = memory.room.max(span.ids.len());
        }
    }

    /// Takes the spans through the network and keeps of it what `recomputation` says, with the token vectors.
    pub(crate) fn keep(&mut self, spans: &[Span], recomputation: Recomputation) {
        self.make_room(spans, recomputation);
        let network = &self.network;
        let jobs = spans.iter().zip(&mut self.memory);
        longest_first(
            jobs,
            |(span, _)| span.ids.len(),
            |(span, memory)| {
                network.workers.with(|Worker { kept, scratch, .. }| {
                    kept.for_backward = false;
                    network.forward(span, memory, kept, scratch);
                });
            },
        );
    }

    /// Takes ∂loss/∂token vectors, which stands in the memory of each span, back to the parameters.
    pub(crate) fn backward(&mut self, spans: &[Span]) {
        if self.network.shape.placement == Placement::Before {
            self.final_norm_backward(spans.len());
        }
        for layer in (0..self.network.shape.layers.len()).rev() {
            self.block_backward(spans, layer);
        }
        if self.network.adapters.is_none() {
            self.embeddings_backward(spans);
        }
    }

    /// Takes the gradient through the normalisation after the last block.
    fn final_norm_backward(&mut self, spans: usize) {
        let Network { layout, weights, .. } = &self.network;
        let [weight, _] = layout.final_norm(weights);
        self.memory[..spans].par_iter_mut().for_each(|memory| {
            norm_backward(&mut memory.way.gradient, weight, &memory.final_norm, &mut memory.norms[1]);
        });
        if self.network.adapters.is_some() {
            return;
        }
        let [of_weight, of_bias] = layout.final_norm_mut(&mut self.gradient.values);
        for memory in &self.memory[..spans] {
            add(of_weight, &memory.norms[1].weight);
            add(of_bias, &memory.norms[1].bias);
        }
    }

    /// Takes the gradient through one block: first along the tokens, a span at a time, then to the parameters.
    fn block_backward(&mut self, spans: &[Span], layer: usize) {
        let (network, block) = (&self.network, self.network.block(layer, &self.panels));
        let jobs = spans.iter().zip(&mut self.memory);
        longest_first(
            jobs,
            |(span, _)| span.ids.len(),
            |(span, memory)| {
                network.workers.with(|Worker { kept, scratch, .. }| {
                    let SpanMemory { inputs, blocks, way, .. } = memory;
                    let kept = if let Some(kept) = blocks.get(layer) {
                        kept
                    } else {
                        kept.for_backward = true;
                        network.forward_block(layer).forward_again(span, &inputs[layer], kept, scratch);
                        &*kept
                    };
                    block.backward(span, &inputs[layer], kept, way, scratch);
                });
            },
        );
        if let Some(adapters) = &self.network.adapters {
            let gradient = &mut self.gradient.values[adapters.place(layer)];
            self.memory[..spans.len()].iter().for_each(|memory| add(gradient, &memory.way.deltas.sources.adapters));
            return;
        }
        let deltas: Vec<_> = self.memory[..spans.len()].iter().map(|memory| &memory.way.deltas).collect();
        let Network { layout, shape, .. } = &self.network;
        accumulate(shape, &mut layout.block_mut(&mut self.gradient.values, layer), &deltas);
    }

    /// Takes the gradient from the first block's input to the embeddings.
    fn embeddings_backward(&mut self, spans: &[Span]) {
        let Network { shape, layout, weights, .. } = &self.network;
        let (hidden, weight) = (shape.hidden, layout.embeddings(weights).norm_weight);
        let jobs = spans.iter().zip(&mut self.memory);
        longest_first(
            jobs,
            |(span, _)| span.ids.len(),
            |(span, memory)| {
                span.dropout.apply(Site::Embeddings, span.first_token, hidden, &mut memory.way.gradient);
                if shape.norm.embeddings {
                    norm_backward(&mut memory.way.gradient, weight, &memory.embedding_norm, &mut memory.norms[0]);
                }
            },
        );
        for (span, memory) in spans.iter().zip(&self.memory) {
            self.gradient.touch(span.ids);
            let parts = layout.embeddings_mut(&mut self.gradient.values);
            add(parts.norm_weight, &memory.norms[0].weight);
            add(parts.norm_bias, &memory.norms[0].bias);
            let kind = parts.kind.len().min(hidden);
            let mut tables = Tables {
                word: parts.word,
                position: parts.position,
                kind: &mut parts.kind[..kind],
                hidden,
                first_position: shape.tables.first_position,
            };
            tables.scatter(span.ids, &span.sequences, &memory.way.gradient);
        }
    }

    /// The norm of the gradient; one that is not finite is an error, and cleared.
    pub(crate) fn gradient_norm(&mut self) -> Result<f32> {
        let (layout, _) = self.network.trained();
        self.optimizer.norm(layout, &mut self.gradient)
    }

    /// Clips the gradient as part of one of this norm, moves the weights and clears the gradient.
    pub(crate) fn apply(&mut self, rate: f32, norm: f32) {
        let (layout, weights) = self.network.trained_mut();
        self.optimizer.step(layout, weights, &mut self.gradient, (rate, norm));
        self.weights_changed();
    }

    /// Writes what [`restore`](Self::restore) reads.
    pub(crate) fn write_state(&self, output: &mut dyn Write) -> Result<()> {
        let (_, weights) = self.network.trained();
        state::write(output, self.optimizer.steps, [weights, &self.optimizer.first, &self.optimizer.second])
    }

    /// After an error the encoder must not be used: part of the state may have been read.
    pub(crate) fn restore(&mut self, input: &mut dyn Read) -> Result<()> {
        let (layout, weights) = self.network.trained_mut();
        let parts = [weights, &mut self.optimizer.first, &mut self.optimizer.second];
        self.optimizer.steps = state::read(input, parts)?;
        self.optimizer.revive(layout.words());
        self.gradient.clear();
        self.weights_changed();
        Ok(())
    }
}

/// Adapters that are merged into the weights, and adapters that are trained.
fn adapters(folder: &ModelFolder, options: &LoadOptions) -> Result<(Option<Adapters>, Option<Adapters>)> {
    let read = options.adapter.as_ref().map(|path| peft::read(path, &folder.shape)).transpose()?;
    let Some(config) = &options.lora else { return Ok((read, None)) };
    let mut trained = Adapters::new(config, &folder.shape, options.seed)?;
    if let (Some(read), Some(path)) = (read, &options.adapter) {
        if read.layout.tensors != trained.layout.tensors || read.scale().to_bits() != trained.scale().to_bits() {
            let message = "rank, α or targets are not those of `lora`; set them to those of adapter_config.json";
            return Err(Error::file(path, message));
        }
        trained.weights = read.weights;
    }
    Ok((None, Some(trained)))
}
