//! Training: kept activations, the backward pass, optimiser steps, and the state from which training continues.

use std::io::{Read, Write};
use std::path::Path;

use motherlode::engine::{Embeddings, Encoder, LoadOptions, Pass, StepReport, TokenBatch, Trainable};
use motherlode::{Error, Result};
use rayon::prelude::*;
use serde_json::Value;

use crate::block::{self, Linears, Span};
use crate::config::ModelFolder;
use crate::kernel::dropout::{Dropout, Site};
use crate::kernel::embedding::Tables;
use crate::kernel::lanes::add;
use crate::kernel::matrix::Panels;
use crate::kernel::normalise::{self, AffineGradient};
use crate::network::{Network, SpanMemory};
use crate::optimizer::{Gradient, Optimizer};
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
    kept: Option<(TokenBatch, Masks)>,
    config: Value,
}

/// What of a pass determines its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Masks {
    step: u64,
    chunk: u32,
}

impl CpuTrainable {
    pub(crate) fn open(folder: &Path, options: &LoadOptions) -> Result<Self> {
        let folder = ModelFolder::open(folder, options)?;
        let layout = crate::layout::Layout::new(&folder.shape);
        let optimizer = Optimizer::new(options.optimizer.clone(), &layout, folder.shape.vocabulary)?;
        let network = Network::open(&folder, options.precision)?;
        let mut trainable = Self {
            panels: (0..folder.shape.layers).map(|_| Linears::default()).collect(),
            gradient: Gradient::new(&layout, folder.shape.vocabulary),
            network,
            optimizer,
            dropout: options.optimizer.dropout,
            seed: options.seed,
            memory: Vec::new(),
            kept: None,
            config: folder.config,
        };
        trainable.weights_changed();
        Ok(trainable)
    }

    fn weights_changed(&mut self) {
        self.kept = None;
        self.network.pack();
        let Network { layout, weights, shape, unit, .. } = &self.network;
        self.panels.par_iter_mut().enumerate().for_each(|(layer, panels)| {
            panels.pack_backward(&layout.block(weights, layer), shape, *unit);
        });
    }

    fn masks(&self, pass: Pass) -> Dropout {
        Dropout::new(self.dropout, self.seed, pass.step, pass.chunk)
    }

    /// Runs the forward pass and keeps its activations.
    fn keep(&mut self, batch: &TokenBatch, pass: Pass) -> Result<Embeddings> {
        self.network.check(batch)?;
        let spans = Span::cut(batch, self.masks(pass));
        if self.memory.len() < spans.len() {
            self.memory.resize_with(spans.len(), || SpanMemory::keeping(self.network.shape.layers));
        }
        let mut embeddings = Embeddings::zeros(batch.len(), self.network.shape.hidden);
        let rows = self.network.rows(&spans, embeddings.values_mut());
        let network = &self.network;
        spans.par_iter().zip(&mut self.memory).zip(rows).for_each(|((span, memory), rows)| {
            network.forward(span, memory, rows);
        });
        self.kept = Some((batch.clone(), Masks { step: pass.step, chunk: pass.chunk }));
        Ok(embeddings)
    }

    fn is_kept(&self, batch: &TokenBatch, pass: Pass) -> bool {
        let masks = Masks { step: pass.step, chunk: pass.chunk };
        self.kept.as_ref().is_some_and(|(kept, made)| *made == masks && kept == batch)
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
    }

    /// Takes the gradient through one block: first along the tokens, a span at a time, then to the parameters.
    fn block_backward(&mut self, spans: &[Span], layer: usize) {
        let block = self.network.block(layer, &self.panels);
        spans.par_iter().zip(&mut self.memory).for_each(|(span, memory)| {
            let SpanMemory { blocks, deltas, scratch, gradient, .. } = memory;
            block.backward(span, &blocks[layer], deltas, scratch, gradient);
        });
        let deltas: Vec<_> = self.memory[..spans.len()].iter().map(|memory| &memory.deltas).collect();
        block::accumulate(self.network.layout.block_mut(&mut self.gradient.values, layer), &deltas);
    }

    /// Takes the gradient from the first block's input to the embeddings.
    fn embeddings_backward(&mut self, spans: &[Span]) {
        let hidden = self.network.shape.hidden;
        let weight = self.network.layout.embeddings(&self.network.weights).norm_weight;
        spans.par_iter().zip(&mut self.memory).for_each(|(span, memory)| {
            span.dropout.apply(Site::Embeddings, span.first_token, hidden, &mut memory.gradient);
            memory.norm.clear();
            memory.norm.resize(2 * hidden, 0.0);
            let (of_weight, of_bias) = memory.norm.split_at_mut(hidden);
            let sums = AffineGradient { weight: of_weight, bias: of_bias };
            normalise::backward(&mut memory.gradient, weight, &memory.embedding_norm, sums);
        });
        for (span, memory) in spans.iter().zip(&self.memory) {
            self.gradient.touch(span.ids);
            let parts = self.network.layout.embeddings_mut(&mut self.gradient.values);
            add(parts.norm_weight, &memory.norm[..hidden]);
            add(parts.norm_bias, &memory.norm[hidden..]);
            let mut tables = Tables {
                word: parts.word,
                position: parts.position,
                kind: &mut parts.kind[..hidden],
                hidden,
                first_position: self.network.shape.first_position,
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
        self.network.encode(batch, Dropout::OFF)
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
        for layer in (0..self.network.shape.layers).rev() {
            self.block_backward(&spans, layer);
        }
        self.embeddings_backward(&spans);
        Ok(())
    }

    fn step(&mut self, rate: f32) -> Result<StepReport> {
        let Network { layout, weights, .. } = &mut self.network;
        let report = self.optimizer.step(layout, weights, &mut self.gradient, rate)?;
        self.weights_changed();
        Ok(report)
    }

    /// Format: [`MAGIC`], number of parameters and steps (u64), weights, first and second moments (f32); little-endian.
    fn write_state(&self, output: &mut dyn Write) -> Result<()> {
        let write = |output: &mut dyn Write| {
            output.write_all(MAGIC)?;
            output.write_all(&(self.network.weights.len() as u64).to_le_bytes())?;
            output.write_all(&self.optimizer.steps.to_le_bytes())?;
            let parts = [&self.network.weights, &self.optimizer.first, &self.optimizer.second];
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
        let (expected, got) = (self.network.weights.len() as u64, u64::from_le_bytes(parameters));
        if expected != got {
            return Err(Error::shape("training state", format!("{expected} parameters"), got));
        }
        let parts = [&mut self.network.weights, &mut self.optimizer.first, &mut self.optimizer.second];
        parts.into_iter().try_for_each(|part| read_values(input, part)).map_err(unread)?;
        self.optimizer.steps = u64::from_le_bytes(steps);
        self.optimizer.revive(self.network.layout.words());
        self.gradient.clear();
        self.weights_changed();
        Ok(())
    }

    fn save(&self, folder: &Path) -> Result<()> {
        weights::write(&folder.join("model.safetensors"), &self.network.layout, &self.network.weights)?;
        write_json(&folder.join("config.json"), &self.config)
    }
}

#[cfg(test)]
mod tests;
