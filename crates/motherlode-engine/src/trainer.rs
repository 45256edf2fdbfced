//! An encoder in training: pooling on the network's token vectors, forward and backward.

use std::io::{Read, Write};
use std::path::Path;

use motherlode::Result;
use motherlode::engine::{ADAPTER, Embeddings, Encoder, LoadOptions, Recomputation, TokenBatch, Trainable, Training};
use serde_json::Value;

use crate::config::ModelFolder;
use crate::kernel::buffer::resize;
use crate::learner::Learner;
use crate::network::Network;
use crate::peft;
use crate::span::{Masks, Span, longest_first};
use crate::tiny::write_json;
use crate::weights;

/// An encoder in training.
#[derive(Debug)]
pub(crate) struct CpuTrainable {
    learner: Learner,
    /// The batch whose activations are kept, its step, and what of it is to be computed again.
    kept: Option<(TokenBatch, u64, Recomputation)>,
    config: Value,
}

impl CpuTrainable {
    pub(crate) fn open(folder: &Path, options: &LoadOptions) -> Result<Self> {
        let folder = ModelFolder::open(folder, options)?;
        Ok(Self { learner: Learner::open(&folder, options)?, kept: None, config: folder.config })
    }

    /// The accumulated gradient.
    #[cfg(test)]
    pub(crate) fn gradient(&self) -> &[f32] {
        &self.learner.gradient.values
    }

    /// Writes the vectors of spans whose token vectors are kept.
    fn pool(&self, spans: &[Span], out: &mut [f32]) {
        let Learner { network, memory, .. } = &self.learner;
        for ((span, memory), rows) in spans.iter().zip(memory).zip(network.rows(spans, out)) {
            network.head.forward(&memory.hidden, &span.sequences, rows);
        }
    }

    /// The backward pass of spans whose activations are kept; `gradient` is ∂loss/∂embeddings.
    fn spans_backward(&mut self, spans: &[Span], mut gradient: &[f32]) {
        let Learner { network, memory, .. } = &mut self.learner;
        let (head, hidden) = (network.head, network.shape.hidden);
        let rows = spans.iter().map(|span| {
            let (rows, others) = gradient.split_at(span.sequences.len() * hidden);
            gradient = others;
            rows
        });
        let jobs = spans.iter().zip(memory).zip(rows);
        longest_first(
            jobs,
            |((span, _), _)| span.ids.len(),
            |((span, memory), rows)| {
                let gradient = &mut memory.way.gradient;
                resize(gradient, memory.hidden.len(), 0.0);
                head.backward(&memory.hidden, &span.sequences, rows, gradient);
            },
        );
        self.learner.backward(spans);
    }
}

impl Encoder for CpuTrainable {
    fn dimension(&self) -> usize {
        self.learner.network.shape.hidden
    }

    fn encode(&self, batch: &TokenBatch) -> Result<Embeddings> {
        self.learner.network.encode(batch, Masks::OFF)
    }
}

impl Trainable for CpuTrainable {
    fn forward(&mut self, batch: &TokenBatch, step: u64) -> Result<Embeddings> {
        self.learner.network.shape.check_batch(batch)?;
        let masks = self.learner.masks(step);
        let spans = Span::cut(batch, masks);
        let recomputation = self.learner.planner.recomputation(&spans)?;
        if recomputation.groups > 1 {
            return self.learner.network.encode(batch, masks);
        }
        self.learner.keep(&spans, recomputation);
        self.kept = Some((batch.clone(), step, recomputation));
        let mut embeddings = Embeddings::zeros(batch.len(), self.dimension());
        self.pool(&spans, embeddings.values_mut());
        Ok(embeddings)
    }

    fn backward(&mut self, batch: &TokenBatch, gradient: &Embeddings, step: u64) -> Result<()> {
        self.learner.network.shape.check_gradient(batch, gradient)?;
        let spans = Span::cut(batch, self.learner.masks(step));
        let kept = self.kept.take().filter(|(kept, of_step, _)| *of_step == step && kept == batch);
        let is_kept = kept.is_some();
        let recomputation = match kept {
            Some((_, _, recomputation)) => recomputation,
            None => self.learner.planner.recomputation(&spans)?,
        };
        let mut rest = gradient.values();
        for group in self.learner.planner.groups(&spans, recomputation) {
            let spans = &spans[group];
            let sequences: usize = spans.iter().map(|span| span.sequences.len()).sum();
            let (gradient, others) = rest.split_at(sequences * self.dimension());
            rest = others;
            if !is_kept {
                self.learner.keep(spans, recomputation);
            }
            self.spans_backward(spans, gradient);
        }
        Ok(())
    }
}

impl Training for CpuTrainable {
    fn gradient_norm(&mut self) -> Result<f32> {
        self.learner.gradient_norm()
    }

    fn apply(&mut self, rate: f32, norm: f32) -> Result<()> {
        self.kept = None;
        self.learner.apply(rate, norm);
        Ok(())
    }

    fn write_state(&self, output: &mut dyn Write) -> Result<()> {
        self.learner.write_state(output)
    }

    fn restore(&mut self, input: &mut dyn Read) -> Result<()> {
        self.kept = None;
        self.learner.restore(input)
    }

    fn save(&self, folder: &Path) -> Result<()> {
        let Network { layout, weights, adapters, shape, .. } = &self.learner.network;
        let path = folder.join(weights::WEIGHTS);
        if let Some(adapters) = adapters {
            weights::write_parts(&path, layout, adapters.merged(layout, weights))?;
            peft::write(&folder.join(ADAPTER), adapters, shape)?;
        } else {
            weights::write(&path, layout, weights)?;
        }
        write_json(&folder.join("config.json"), &self.config)
    }
}

#[cfg(test)]
mod families;
#[cfg(test)]
mod tests;
