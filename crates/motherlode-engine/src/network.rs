//! The whole encoder: embeddings, blocks, pooling; forward over a batch in parallel over spans of sequences.

use std::sync::Mutex;

use motherlode::engine::{Embeddings, Precision, TokenBatch};
use motherlode::{Error, Result};
use rayon::prelude::*;

use crate::adapter::Adapters;
use crate::block::{Block, Kept, Scratch, norm_forward};
use crate::config::ModelFolder;
use crate::gradient::{Deltas, NormDelta};
use crate::kernel::dropout::Site;
use crate::kernel::embedding::Tables;
use crate::kernel::matrix::{Panels, Unit};
use crate::kernel::normalise::Normalised;
use crate::kernel::pooling::Head;
use crate::kernel::rotary::Rotary;
use crate::layout::{EmbeddingParameters, Layout, Linears};
use crate::shape::{Placement, Shape};
use crate::span::{Masks, Span};
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
    rotaries: Vec<Rotary>,
    /// What computes the products.
    pub(crate) unit: Unit,
    /// The blocks' matrices, packed for the forward pass.
    panels: Vec<Linears<Panels>>,
    /// Working memory of earlier calls.
    memory: Mutex<Vec<SpanMemory>>,
}

/// The activations and gradients of one span.
#[derive(Debug, Default)]
pub(crate) struct SpanMemory {
    /// What each block keeps; a pass that keeps nothing has one, used by every block in turn.
    pub(crate) blocks: Vec<Kept>,
    pub(crate) embedding_norm: Normalised,
    /// The token vectors, tokens × H.
    pub(crate) hidden: Vec<f32>,
    pub(crate) final_norm: Normalised,
    pub(crate) scratch: Scratch,
    pub(crate) deltas: Deltas,
    /// ∂loss/∂activations on their way back, tokens × H.
    pub(crate) gradient: Vec<f32>,
    /// The gradients of the embeddings' and of the final normalisation.
    pub(crate) norms: [NormDelta; 2],
}

impl SpanMemory {
    /// Memory for a pass that keeps nothing.
    fn passing() -> Self {
        Self { blocks: vec![Kept::default()], ..Self::default() }
    }

    /// Memory for a pass that keeps the activations of `blocks` blocks.
    pub(crate) fn keeping(blocks: usize) -> Self {
        Self { blocks: (0..blocks).map(|_| Kept::for_backward()).collect(), ..Self::default() }
    }
}

impl Network {
    /// Reads the weights of `folder`, merges `merged` into them, and computes in `precision`.
    pub(crate) fn open(folder: &ModelFolder, merged: Option<&Adapters>, precision: Precision) -> Result<Self> {
        let layout = Layout::new(&folder.shape);
        let mut weights = weights::read(&folder.weights, &layout)?;
        merged.into_iter().for_each(|adapters| adapters.merge(&layout, &mut weights));
        let (shape, head, memory) = (folder.shape.clone(), folder.head, Mutex::default());
        let panels = shape.layers.iter().map(|_| Linears::default()).collect();
        let rotaries = shape.thetas.par_iter().map(|theta| Rotary::new(*theta, shape.width, shape.longest)).collect();
        let unit = match precision {
            Precision::F32 => Unit::single(),
            Precision::Bf16 => Unit::bfloat16(),
        };
        let mut network = Self { shape, head, layout, weights, adapters: None, rotaries, unit, panels, memory };
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
        self.check(batch)?;
        let spans = Span::cut(batch, masks);
        let mut embeddings = Embeddings::zeros(batch.len(), self.shape.hidden);
        let rows = self.rows(&spans, embeddings.values_mut());
        spans.par_iter().zip(rows).for_each(|(span, rows)| {
            let mut memory = self.take_memory();
            self.forward(span, &mut memory, rows);
            self.memory.lock().expect("no thread panics while it holds the lock").push(memory);
        });
        Ok(embeddings)
    }

    fn take_memory(&self) -> SpanMemory {
        let spare = self.memory.lock().expect("no thread panics while it holds the lock").pop();
        spare.unwrap_or_else(SpanMemory::passing)
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

    /// Takes one span through the encoder; `out` receives its vectors.
    pub(crate) fn forward(&self, span: &Span, memory: &mut SpanMemory, out: &mut [f32]) {
        self.embed(span, memory);
        let SpanMemory { blocks, hidden, scratch, final_norm, .. } = memory;
        for layer in 0..self.shape.layers.len() {
            let last = blocks.len() - 1;
            let kept = &mut blocks[layer.min(last)];
            std::mem::swap(&mut kept.input, hidden);
            self.block(layer, &self.panels).forward(span, kept, scratch, hidden);
        }
        if self.shape.placement == Placement::Before {
            let [weight, bias] = self.layout.final_norm(&self.weights);
            std::mem::swap(hidden, &mut scratch.narrow);
            norm_forward(&scratch.narrow, self.shape.norm.affine(weight, bias), final_norm, hidden);
        }
        self.head.forward(hidden, &span.sequences, out);
    }

    fn embed(&self, span: &Span, memory: &mut SpanMemory) {
        let parameters = self.layout.embeddings(&self.weights);
        let hidden = self.shape.hidden;
        let sum = &mut memory.scratch.narrow;
        sum.resize(span.ids.len() * hidden, 0.0);
        self.tables(&parameters).gather(span.ids, &span.sequences, sum);
        if self.shape.norm.embeddings {
            let affine = self.shape.norm.affine(parameters.norm_weight, parameters.norm_bias);
            norm_forward(sum, affine, &mut memory.embedding_norm, &mut memory.hidden);
        } else {
            std::mem::swap(sum, &mut memory.hidden);
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

    /// Refuses empty and over-long sequences and unknown tokens.
    pub(crate) fn check(&self, batch: &TokenBatch) -> Result<()> {
        for index in 0..batch.len() {
            let (sequence, longest) = (batch.sequence(index), self.shape.longest);
            if sequence.is_empty() || sequence.len() > longest {
                let what = format!("sequence {index} of the batch");
                return Err(Error::shape(what, format!("1 to {longest} tokens"), sequence.len()));
            }
            if let Some(token) = sequence.iter().find(|token| **token as usize >= self.shape.vocabulary) {
                let what = format!("sequence {index} of the batch");
                let vocabulary = format!("token ids below the vocabulary's size {}", self.shape.vocabulary);
                return Err(Error::shape(what, vocabulary, token));
            }
        }
        Ok(())
    }
}
