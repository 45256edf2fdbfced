//! Training: kept activations, the backward pass, optimiser steps, and the state from which training continues.

use std::io::{Read, Write};
use std::path::Path;

use motherlode::engine::{ADAPTER, Embeddings, Encoder, LoadOptions, Pass, StepReport, TokenBatch, Trainable};
use motherlode::{Error, Result};
use rayon::prelude::*;
use serde_json::Value;

use crate::adapter::Adapters;
use crate::block::norm_backward;
use crate::config::ModelFolder;
use crate::gradient::accumulate;
use crate::kernel::dropout::{Dropout, Site};
use crate::kernel::embedding::Tables;
use crate::kernel::lanes::add;
use crate::kernel::matrix::Panels;
use crate::layout::Linears;
use crate::network::{Network, SpanMemory};
use crate::optimizer::{Gradient, Optimizer};
use crate::peft;
use crate::shape::Placement;
use crate::span::{Masks, Span};
use crate::tiny::write_json;
use crate::weights::{self, read_values, write_values};

/// What opens a training state; the last byte is the version of the format.
const MAGIC: &[u8; 8] = b"MLSTATE\x01";

/// An encoder in training.
#[derive(Debug)]
pub(crate) struct CpuTrainable {
    network: Network,
    /// The blocks' matrices, packed for the backward pass.
    panels: Vec<Linears<Panels>>,
    gradient: Gradient,
    optimizer: Optimizer,
    dropout: f32,
    seed: u64,
    /// Activations of the spans of the last pass that kept them.
    memory: Vec<SpanMemory>,
    /// The batch of that pass, its step and its chunk.
    kept: Option<(TokenBatch, u64, u32)>,
    config: Value,
}

impl CpuTrainable {
    pub(crate) fn open(folder: &Path, options: &LoadOptions) -> Result<Self> {
        let folder = ModelFolder::open(folder, options)?;
        let (merged, adapters) = adapters(&folder, options)?;
        let mut network = Network::open(&folder, merged.as_ref(), options.precision)?;
        network.adapters = adapters;
        let (layout, _) = network.trained();
        let vocabulary = if network.adapters.is_some() { 0 } else { folder.shape.vocabulary };
        let mut trainable = Self {
            panels: folder.shape.layers.iter().map(|_| Linears::default()).collect(),
            gradient: Gradient::new(layout, vocabulary),
            optimizer: Optimizer::new(options.optimizer.clone(), layout, vocabulary)?,
            network,
            dropout: options.optimizer.dropout,
            seed: options.seed,
            memory: Vec::new(),
            kept: None,
            config: folder.config,
        };
        trainable.pack_backward();
        Ok(trainable)
    }

    fn weights_changed(&mut self) {
        self.kept = None;
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

    fn masks(&self, pass: Pass) -> Masks {
        let masks = |rate| Dropout::new(rate, self.seed, pass.step, pass.chunk);
        let adapters = self.network.adapters.as_ref().map_or(0.0, |adapters| adapters.config.dropout);
        Masks { activations: masks(self.dropout), adapters: masks(adapters) }
    }

    /// Runs the forward pass and keeps its activations.
    fn keep(&mut self, batch: &TokenBatch, pass: Pass) -> Result<Embeddings> {
        self.network.check(batch)?;
        let spans = Span::cut(batch, self.masks(pass));
        if self.memory.len() < spans.len() {
            self.memory.resize_with(spans.len(), || SpanMemory::keeping(self.network.shape.layers.len()));
        }
        let mut embeddings = Embeddings::zeros(batch.len(), self.network.shape.hidden);
        let rows = self.network.rows(&spans, embeddings.values_mut());
        let network = &self.network;
        spans.par_iter().zip(&mut self.memory).zip(rows).for_each(|((span, memory), rows)| {
            network.forward(span, memory, rows);
        });
        self.kept = Some((batch.clone(), pass.step, pass.chunk));
        Ok(embeddings)
    }

    fn is_kept(&self, batch: &TokenBatch, pass: Pass) -> bool {
        let kept = self.kept.as_ref();
        kept.is_some_and(|(kept, step, chunk)| (*step, *chunk) == (pass.step, pass.chunk) && kept == batch)
    }

    /// Takes ∂loss/∂embeddings to the last block's output.
    fn head_backward(&mut self, spans: &[Span], gradient: &Embeddings) {
        let (head, hidden) = (self.network.head, self.network.shape.hidden);
        let mut first = 0;
        let starts = spans.iter().map(|span| {
            first += span.sequences.len();
            (first - span.sequences.len()) * hidden
        });
        let starts: Vec<usize> = starts.collect();
        spans.par_iter().zip(&mut self.memory).zip(starts).for_each(|((span, memory), start)| {
            let rows = &gradient.values()[start..start + span.sequences.len() * hidden];
            memory.gradient.resize(memory.hidden.len(), 0.0);
            head.backward(&memory.hidden, &span.sequences, rows, &mut memory.gradient);
        });
        if self.network.shape.placement == Placement::Before {
            self.final_norm_backward(spans.len());
        }
    }

    /// Takes the gradient through the normalisation after the last block.
    fn final_norm_backward(&mut self, spans: usize) {
        let Network { layout, weights, .. } = &self.network;
        let [weight, _] = layout.final_norm(weights);
        self.memory[..spans].par_iter_mut().for_each(|memory| {
            norm_backward(&mut memory.gradient, weight, &memory.final_norm, &mut memory.norms[1]);
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
        let block = self.network.block(layer, &self.panels);
        spans.par_iter().zip(&mut self.memory).for_each(|(span, memory)| {
            let SpanMemory { blocks, deltas, scratch, gradient, .. } = memory;
            block.backward(span, &blocks[layer], deltas, scratch, gradient);
        });
        if let Some(adapters) = &self.network.adapters {
            let gradient = &mut self.gradient.values[adapters.place(layer)];
            self.memory[..spans.len()].iter().for_each(|memory| add(gradient, &memory.deltas.sources.adapters));
            return;
        }
        let deltas: Vec<_> = self.memory[..spans.len()].iter().map(|memory| &memory.deltas).collect();
        let Network { layout, shape, .. } = &self.network;
        accumulate(shape, &mut layout.block_mut(&mut self.gradient.values, layer), &deltas);
    }

    /// Takes the gradient from the first block's input to the embeddings.
    fn embeddings_backward(&mut self, spans: &[Span]) {
        let Network { shape, layout, weights, .. } = &self.network;
        let (hidden, weight) = (shape.hidden, layout.embeddings(weights).norm_weight);
        spans.par_iter().zip(&mut self.memory).for_each(|(span, memory)| {
            span.dropout.apply(Site::Embeddings, span.first_token, hidden, &mut memory.gradient);
            if shape.norm.embeddings {
                norm_backward(&mut memory.gradient, weight, &memory.embedding_norm, &mut memory.norms[0]);
            }
        });
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
            tables.scatter(span.ids, &span.sequences, &memory.gradient);
        }
    }
}

impl Encoder for CpuTrainable {
    fn dimension(&self) -> usize {
        self.network.shape.hidden
    }

    fn encode(&self, batch: &TokenBatch) -> Result<Embeddings> {
        self.network.encode(batch, Masks::OFF)
    }
}

impl Trainable for CpuTrainable {
    fn forward(&mut self, batch: &TokenBatch, pass: Pass) -> Result<Embeddings> {
        if pass.keep { self.keep(batch, pass) } else { self.network.encode(batch, self.masks(pass)) }
    }

    fn backward(&mut self, batch: &TokenBatch, gradient: &Embeddings, pass: Pass) -> Result<()> {
        let (expected, got) = ((batch.len(), self.dimension()), (gradient.rows(), gradient.dimension()));
        if expected != got {
            return Err(Error::shape("gradient of the embeddings", format!("{expected:?}"), format!("{got:?}")));
        }
        if !self.is_kept(batch, pass) {
            self.keep(batch, pass)?;
        }
        let spans = Span::cut(batch, self.masks(pass));
        self.head_backward(&spans, gradient);
        for layer in (0..self.network.shape.layers.len()).rev() {
            self.block_backward(&spans, layer);
        }
        if self.network.adapters.is_none() {
            self.embeddings_backward(&spans);
        }
        Ok(())
    }

    fn step(&mut self, rate: f32) -> Result<StepReport> {
        let (layout, weights) = self.network.trained_mut();
        let report = self.optimizer.step(layout, weights, &mut self.gradient, rate)?;
        self.weights_changed();
        Ok(report)
    }

    /// Format: [`MAGIC`], number of parameters and steps (u64), weights, first and second moments (f32); little-endian.
    fn write_state(&self, output: &mut dyn Write) -> Result<()> {
        let write = |output: &mut dyn Write| {
            output.write_all(MAGIC)?;
            let (_, weights) = self.network.trained();
            output.write_all(&(weights.len() as u64).to_le_bytes())?;
            output.write_all(&self.optimizer.steps.to_le_bytes())?;
            let parts = [weights, &self.optimizer.first, &self.optimizer.second];
            parts.into_iter().try_for_each(|part| write_values(output, part))
        };
        write(output).map_err(|error| Error::data(format!("training state not written: {error}")))
    }

    /// After an error the encoder must not be used: part of the state may have been read.
    fn restore(&mut self, input: &mut dyn Read) -> Result<()> {
        let unread = |error: std::io::Error| Error::data(format!("training state not read: {error}; it is truncated"));
        let mut header = [[0; 8]; 3];
        header.iter_mut().try_for_each(|field| input.read_exact(field)).map_err(unread)?;
        let [magic, parameters, steps] = header;
        if magic != *MAGIC {
            return Err(Error::data("training state: expected a state that this version wrote, got something else"));
        }
        let (layout, weights) = self.network.trained_mut();
        let (expected, got) = (weights.len() as u64, u64::from_le_bytes(parameters));
        if expected != got {
            return Err(Error::shape("training state", format!("{expected} parameters"), got));
        }
        let parts = [weights, &mut self.optimizer.first, &mut self.optimizer.second];
        parts.into_iter().try_for_each(|part| read_values(input, part)).map_err(unread)?;
        self.optimizer.steps = u64::from_le_bytes(steps);
        self.optimizer.revive(layout.words());
        self.gradient.clear();
        self.weights_changed();
        Ok(())
    }

    fn save(&self, folder: &Path) -> Result<()> {
        let Network { layout, weights, adapters, shape, .. } = &self.network;
        let path = folder.join(weights::WEIGHTS);
        if let Some(adapters) = adapters {
            let mut merged = weights.clone();
            adapters.merge(layout, &mut merged);
            weights::write(&path, layout, &merged)?;
            peft::write(&folder.join(ADAPTER), adapters, shape)?;
        } else {
            weights::write(&path, layout, weights)?;
        }
        write_json(&folder.join("config.json"), &self.config)
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

#[cfg(test)]
mod families;
#[cfg(test)]
mod tests;
