//! The whole encoder: embeddings, blocks, pooling; forward over a batch in parallel over spans of sequences.

use std::sync::Mutex;

use motherlode::engine::{Embeddings, Precision, TokenBatch};
use motherlode::{Error, Result};
use rayon::prelude::*;

use crate::block::{Block, Deltas, Kept, Linears, Scratch, Span};
use crate::config::{ModelFolder, Shape};
use crate::kernel::dropout::{Dropout, Site};
use crate::kernel::embedding::Tables;
use crate::kernel::matrix::{Panels, Unit};
use crate::kernel::normalise::{self, Affine, Normalised};
use crate::kernel::pooling::Head;
use crate::layout::{EmbeddingParameters, Layout};
use crate::weights;

/// An encoder in memory.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) shape: Shape,
    pub(crate) head: Head,
    pub(crate) layout: Layout,
    pub(crate) weights: Vec<f32>,
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
    /// Output of the last block, tokens × H.
    pub(crate) hidden: Vec<f32>,
    pub(crate) scratch: Scratch,
    pub(crate) deltas: Deltas,
    /// ∂loss/∂activations on their way back, tokens × H.
    pub(crate) gradient: Vec<f32>,
    /// The gradients of weight and bias of the embeddings' normalisation.
    pub(crate) norm: Vec<f32>,
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
    /// Reads the weights of `folder`, to compute in `precision`.
    pub(crate) fn open(folder: &ModelFolder, precision: Precision) -> Result<Self> {
        let layout = Layout::new(&folder.shape);
        let weights = weights::read(&folder.weights, &layout)?;
        let panels = (0..folder.shape.layers).map(|_| Linears::default()).collect();
        let unit = match precision {
            Precision::F32 => Unit::single(),
            Precision::Bf16 => Unit::bfloat16(),
        };
        let (shape, head, memory) = (folder.shape.clone(), folder.head, Mutex::default());
        let mut network = Self { shape, head, layout, weights, unit, panels, memory };
        network.pack();
        Ok(network)
    }

    /// Packs the matrices again, after the weights changed.
    pub(crate) fn pack(&mut self) {
        let Self { panels, layout, weights, shape, unit, .. } = self;
        panels.par_iter_mut().enumerate().for_each(|(layer, panels)| {
            panels.pack_forward(&layout.block(weights, layer), shape, *unit);
        });
    }

    /// One vector a sequence. The batch is cut into spans, each of which one thread takes through all blocks.
    pub(crate) fn encode(&self, batch: &TokenBatch, dropout: Dropout) -> Result<Embeddings> {
        self.check(batch)?;
        let spans = Span::cut(batch, dropout);
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
        let SpanMemory { blocks, hidden, scratch, .. } = memory;
        for layer in 0..self.shape.layers {
            let last = blocks.len() - 1;
            let kept = &mut blocks[layer.min(last)];
            std::mem::swap(&mut kept.input, hidden);
            self.block(layer, &self.panels).forward(span, kept, scratch, hidden);
        }
        self.head.forward(hidden, &span.sequences, out);
    }

    fn embed(&self, span: &Span, memory: &mut SpanMemory) {
        let parameters = self.layout.embeddings(&self.weights);
        let hidden = self.shape.hidden;
        let sum = &mut memory.scratch.narrow;
        sum.resize(span.ids.len() * hidden, 0.0);
        self.tables(&parameters).gather(span.ids, &span.sequences, sum);
        let EmbeddingParameters { norm_weight: weight, norm_bias: bias, .. } = parameters;
        memory.hidden.resize(sum.len(), 0.0);
        let affine = Affine { weight, bias, epsilon: self.shape.epsilon };
        normalise::forward(sum, affine, &mut memory.embedding_norm, &mut memory.hidden);
        span.dropout.apply(Site::Embeddings, span.first_token, hidden, &mut memory.hidden);
    }

    fn tables<'a>(&self, parameters: &EmbeddingParameters<&'a [f32]>) -> Tables<&'a [f32]> {
        Tables {
            word: parameters.word,
            position: parameters.position,
            kind: &parameters.kind[..self.shape.hidden],
            hidden: self.shape.hidden,
            first_position: self.shape.first_position,
        }
    }

    /// Block `layer` with matrices packed for one of the two directions.
    pub(crate) fn block<'a>(&'a self, layer: usize, panels: &'a [Linears<Panels>]) -> Block<'a> {
        let weights = self.layout.block(&self.weights, layer);
        Block { shape: &self.shape, layer, weights, panels: &panels[layer], unit: self.unit }
    }

    /// Refuses empty and over-long sequences and unknown tokens.
    pub(crate) fn check(&self, batch: &TokenBatch) -> Result<()> {
        for index in 0..batch.len() {
            let (sequence, longest) = (batch.sequence(index), self.shape.longest());
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
