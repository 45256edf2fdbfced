//! The whole encoder: embeddings, blocks, pooling; forward over a batch in parallel over spans of sequences.

use std::sync::Mutex;

use motherlode::Result;
use motherlode::engine::{Embeddings, Precision, TokenBatch};
use rayon::prelude::*;

use crate::adapter::Adapters;
use crate::block::{Block, Kept, Scratch, WayBack, norm_forward};
use crate::config::ModelFolder;
use crate::gradient::NormDelta;
use crate::kernel::buffer::{copy, resize};
use crate::kernel::dropout::Site;
use crate::kernel::embedding::Tables;
use crate::kernel::matrix::{Panels, Unit};
use crate::kernel::normalise::Normalised;
use crate::kernel::pooling::Head;
use crate::kernel::rotary::Rotary;
use crate::layout::{EmbeddingParameters, Layout, Linears};
use crate::peft;
use crate::shape::{Placement, Shape};
use crate::span::{self, Masks, Span};
use crate::weights;

/// An encoder in memory.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) shape: Shape,
    pub(crate) head: Head,
    pub(crate) layout: Layout,
    pub(crate) weights: Vec<f32>,
    /// Adapters in training; those of an encoder that is not trained are merged into its weights.
    pub(crate) adapters: Option<Adapters>,
    /// One for each θ of the shape.
    pub(crate) rotaries: Vec<Rotary>,
    /// What computes the products.
    pub(crate) unit: Unit,
    /// The blocks' matrices, packed for the forward pass.
    pub(crate) panels: Vec<Linears<Panels>>,
    pub(crate) workers: Workers,
}

/// What one span leaves on its way through the encoder, and what it brings on its way back.
#[derive(Debug, Default)]
pub(crate) struct SpanMemory {
    /// The input of each block, tokens × H; a pass without a way back has one, used by every block in turn.
    pub(crate) inputs: Vec<Vec<f32>>,
    /// What each block keeps; empty if blocks are computed again on the way back, or if there is none.
    pub(crate) blocks: Vec<Kept>,
    pub(crate) embedding_norm: Normalised,
    /// The token vectors, tokens × H.
    pub(crate) hidden: Vec<f32>,
    pub(crate) final_norm: Normalised,
    pub(crate) way: WayBack,
    /// The gradients of the embeddings' and of the final normalisation.
    pub(crate) norms: [NormDelta; 2],
    /// The most tokens that it has held.
    pub(crate) room: usize,
}

impl SpanMemory {
    /// Memory for a pass with a way back through `blocks` blocks; these are computed `again` then, or kept.
    pub(crate) fn keeping(blocks: usize, again: bool) -> Self {
        let kept = |_| Kept::for_backward();
        Self {
            inputs: vec![Vec::new(); blocks],
            blocks: if again { Vec::new() } else { (0..blocks).map(kept).collect() },
            ..Self::default()
        }
    }
}

/// What one thread works in.
#[derive(Debug)]
pub(crate) struct Worker {
    /// For a pass without a way back.
    passing: SpanMemory,
    /// What the block in hand keeps, where a span has no memory for it.
    pub(crate) kept: Kept,
    pub(crate) scratch: Scratch,
}

/// The working memory of threads, of which there is as much as threads have worked at a time.
#[derive(Debug, Default)]
pub(crate) struct Workers(Mutex<Vec<Worker>>);

impl Workers {
    /// Does `work` in memory that no other thread has.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut Worker) -> R) -> R {
        let free = || self.0.lock().expect("no thread panics while it holds the lock");
        let spare = free().pop();
        let mut worker = spare.unwrap_or_else(|| Worker {
            passing: SpanMemory { inputs: vec![Vec::new()], ..SpanMemory::default() },
            kept: Kept::default(),
            scratch: Scratch::default(),
        });
        let result = work(&mut worker);
        free().push(worker);
        result
    }
}

impl Network {
    /// Reads the weights of `folder`, merges its adapters and `merged` into them, and computes in `precision`.
    pub(crate) fn open(folder: &ModelFolder, merged: Option<&Adapters>, precision: Precision) -> Result<Self> {
        let layout = Layout::new(&folder.shape);
        let mut weights = weights::read(&folder.weights, &layout)?;
        let own = folder.adapter.as_ref().map(|path| peft::read(path, &folder.shape)).transpose()?;
        own.iter().chain(merged).for_each(|adapters| adapters.merge(&layout, &mut weights));
        let (shape, head, workers) = (folder.shape.clone(), folder.head, Workers::default());
        let panels = shape.layers.iter().map(|_| Linears::default()).collect();
        let rotaries = shape.thetas.par_iter().map(|theta| Rotary::new(*theta, shape.width, shape.longest)).collect();
        let unit = Unit::of(precision);
        let mut network = Self { shape, head, layout, weights, adapters: None, rotaries, unit, panels, workers };
        network.pack();
        Ok(network)
    }

    /// What is trained: the adapters, or all weights.
    pub(crate) fn trained(&self) -> (&Layout, &[f32]) {
        match &self.adapters {
            Some(adapters) => (&adapters.layout, &adapters.weights),
            None => (&self.layout, &self.weights),
        }
    }

    /// What is trained: the adapters, or all weights.
    pub(crate) fn trained_mut(&mut self) -> (&Layout, &mut [f32]) {
        match &mut self.adapters {
            Some(adapters) => (&adapters.layout, &mut adapters.weights),
            None => (&self.layout, &mut self.weights),
        }
    }

    /// Packs the matrices again, after the weights changed.
    pub(crate) fn pack(&mut self) {
        let Self { panels, layout, weights, shape, unit, .. } = self;
        panels.par_iter_mut().enumerate().for_each(|(layer, panels)| {
            panels.pack_forward(&layout.block(weights, layer), shape, *unit);
        });
    }

    /// One vector a sequence. The batch is cut into spans, each of which one thread takes through all blocks.
    pub(crate) fn encode(&self, batch: &TokenBatch, masks: Masks) -> Result<Embeddings> {
        self.shape.check_batch(batch)?;
        let spans = Span::cut(batch, masks);
        let mut embeddings = Embeddings::zeros(batch.len(), self.shape.hidden);
        let rows = self.rows(&spans, embeddings.values_mut());
        span::longest_first(
            spans.iter().zip(rows),
            |(span, _)| span.ids.len(),
            |(span, rows)| {
                self.workers.with(|worker| {
                    let Worker { passing, kept, scratch } = worker;
                    kept.for_backward = false;
                    self.forward(span, passing, kept, scratch);
                    self.head.forward(&passing.hidden, &span.sequences, rows);
                });
            },
        );
        Ok(embeddings)
    }

    /// The rows of the output that belong to each span.
    pub(crate) fn rows<'a>(&self, spans: &[Span], mut values: &'a mut [f32]) -> Vec<&'a mut [f32]> {
        let cut = |span: &Span| {
            let (rows, rest) = std::mem::take(&mut values).split_at_mut(span.sequences.len() * self.shape.hidden);
            values = rest;
            rows
        };
        spans.iter().map(cut).collect()
    }

    /// Takes one span through the encoder, to `memory.hidden`. A block for which `memory` has no place uses `kept`.
    pub(crate) fn forward(&self, span: &Span, memory: &mut SpanMemory, kept: &mut Kept, scratch: &mut Scratch) {
        self.embed(span, memory, scratch);
        let SpanMemory { inputs, blocks, hidden, final_norm, .. } = memory;
        for layer in 0..self.shape.layers.len() {
            let place = layer.min(inputs.len() - 1);
            std::mem::swap(&mut inputs[place], hidden);
            let kept = blocks.get_mut(layer).unwrap_or(&mut *kept);
            self.forward_block(layer).forward(span, &inputs[place], kept, scratch, hidden);
        }
        if self.shape.placement == Placement::Before {
            let [weight, bias] = self.layout.final_norm(&self.weights);
            copy(hidden, &mut scratch.narrow);
            norm_forward(&scratch.narrow, self.shape.norm.affine(weight, bias), final_norm, hidden);
        }
    }

    fn embed(&self, span: &Span, memory: &mut SpanMemory, scratch: &mut Scratch) {
        let parameters = self.layout.embeddings(&self.weights);
        let hidden = self.shape.hidden;
        let gather = |sum: &mut Vec<f32>| {
            resize(sum, span.ids.len() * hidden, 0.0);
            self.tables(&parameters).gather(span.ids, &span.sequences, sum);
        };
        if self.shape.norm.embeddings {
            gather(&mut scratch.narrow);
            let affine = self.shape.norm.affine(parameters.norm_weight, parameters.norm_bias);
            norm_forward(&scratch.narrow, affine, &mut memory.embedding_norm, &mut memory.hidden);
        } else {
            gather(&mut memory.hidden);
        }
        span.dropout.apply(Site::Embeddings, span.first_token, hidden, &mut memory.hidden);
    }

    fn tables<'a>(&self, parameters: &EmbeddingParameters<&'a [f32]>) -> Tables<&'a [f32]> {
        Tables {
            word: parameters.word,
            position: parameters.position,
            kind: &parameters.kind[..parameters.kind.len().min(self.shape.hidden)],
            hidden: self.shape.hidden,
            first_position: self.shape.tables.first_position,
        }
    }

    /// Block `layer` as a forward pass computes it.
    pub(crate) fn forward_block(&self, layer: usize) -> Block<'_> {
        self.block(layer, &self.panels)
    }

    /// Block `layer` with matrices packed for one of the two directions.
    pub(crate) fn block<'a>(&'a self, layer: usize, panels: &'a [Linears<Panels>]) -> Block<'a> {
        Block {
            shape: &self.shape,
            layer,
            rotary: self.shape.layers[layer].rotary.map(|index| &self.rotaries[index]),
            weights: self.layout.block(&self.weights, layer),
            panels: &panels[layer],
            adapters: self.adapters.as_ref().map(|adapters| adapters.layer(layer, self.unit)),
            unit: self.unit,
        }
    }
}
