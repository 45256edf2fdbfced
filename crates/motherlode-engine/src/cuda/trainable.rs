//! Encoders on a card as the library sees them: not trained, and in training.

use std::io::{Read, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use motherlode::Result;
use motherlode::engine::{
    Embeddings, Encoder, LoadOptions, OptimizerConfig, Recomputation, TokenBatch, Trainable, Training,
};
use serde_json::Value;

use super::kernels::Element;
use super::memory::{Backend, Buffer, Links, add_up};
use super::network::{Batch, CardNetwork, Keeping, Pass, Scratch};
use super::plan::CardPlan;
use crate::config::ModelFolder;
use crate::layout::Layout;
use crate::tiny::write_json;
use crate::{optimizer, peft, state, weights};

/// An encoder that is not trained.
#[derive(Debug)]
pub(crate) struct CardEncoder<A> {
    network: CardNetwork<A>,
    plan: CardPlan,
    /// Bytes that stay while it works.
    taken: u64,
    work: Mutex<Work<A>>,
}

/// Memory that one batch after the other is taken through.
#[derive(Debug)]
struct Work<A> {
    /// What `pass` keeps.
    keeping: Keeping,
    /// The batch in hand.
    on_card: Batch,
    /// Its vectors, or ∂loss/∂vectors.
    vectors: Buffer<f32>,
    pass: Pass<A>,
    scratch: Scratch<A>,
    /// The batch of training whose activations are kept, its step, and what of it is to be computed again.
    kept: Option<(TokenBatch, u64, Recomputation)>,
}

impl<A: Element> Work<A> {
    fn new(backend: &Arc<dyn Backend>) -> Self {
        let keeping = Keeping::NOTHING;
        Self {
            keeping,
            on_card: Batch::new::<A>(backend),
            vectors: Buffer::new(backend),
            pass: Pass::new(backend, keeping),
            scratch: Scratch::new(backend),
            kept: None,
        }
    }

    /// Makes `pass` keep so much; what it has kept is lost.
    fn keep(&mut self, backend: &Arc<dyn Backend>, keeping: Keeping) {
        self.kept = None;
        if self.keeping != keeping {
            // The old memory goes before the new one comes.
            self.pass = Pass::new(backend, Keeping { inputs: 0, blocks: 0, way_back: false });
            self.pass = Pass::new(backend, keeping);
            self.keeping = keeping;
        }
    }
}

impl<A: Element> CardEncoder<A> {
    /// Reads the weights of `folder`, with its adapters and those of `options` merged into them, and copies them to
    /// the card.
    ///
    /// # Errors
    /// The weights cannot be read, or the card has no memory for them.
    pub(crate) fn open(backend: &Arc<dyn Backend>, folder: &ModelFolder, options: &LoadOptions) -> Result<Self> {
        let (layout, plan) =
            (Layout::new(&folder.shape), CardPlan::new(&folder.shape, options, backend.free_memory()?));
        let mut values = weights::read(&folder.weights, &layout)?;
        for path in folder.adapter.iter().chain(&options.adapter) {
            peft::read(path, &folder.shape)?.merge(&layout, &mut values);
        }
        let network = CardNetwork::new(backend, folder.shape.clone(), folder.head, &values)?;
        let (taken, work) = (plan.weights(), Mutex::new(Work::new(backend)));
        Ok(Self { network, plan, taken, work })
    }

    fn backend(&self) -> &Arc<dyn Backend> {
        &self.network.kernels.backend
    }

    fn work(&self) -> MutexGuard<'_, Work<A>> {
        self.work.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The vectors of `batch`, whose `groups` go through the encoder one after the other.
    fn encode_groups(&self, batch: &TokenBatch, groups: Vec<Range<usize>>) -> Result<Embeddings> {
        let mut work = self.work();
        work.keep(self.backend(), Keeping::NOTHING);
        let mut vectors = Vec::with_capacity(batch.len() * self.dimension());
        for group in groups {
            vectors.extend(self.pass(&batch.slice(group), &mut work)?);
        }
        Embeddings::new(self.dimension(), vectors)
    }

    /// Takes a batch through the encoder, and returns its vectors.
    fn pass(&self, batch: &TokenBatch, work: &mut Work<A>) -> Result<Vec<f32>> {
        let Work { on_card, vectors, pass, scratch, .. } = work;
        on_card.set(batch, self.network.shape.tables.first_position)?;
        self.network.forward(on_card, pass, scratch)?;
        vectors.resize(batch.len() * self.dimension())?;
        self.network.pool(on_card, pass, vectors.view_mut())?;
        vectors.read()
    }
}

impl<A: Element> Encoder for CardEncoder<A> {
    fn dimension(&self) -> usize {
        self.network.shape.hidden
    }

    fn encode(&self, batch: &TokenBatch) -> Result<Embeddings> {
        self.network.shape.check_batch(batch)?;
        if batch.is_empty() {
            return Ok(Embeddings::zeros(0, self.dimension()));
        }
        self.encode_groups(batch, self.plan.encoded(&batch.lengths(), self.taken))
    }
}

/// An encoder in training.
#[derive(Debug)]
pub(crate) struct CardTrainable<A> {
    encoder: CardEncoder<A>,
    gradient: Buffer<f32>,
    first: Buffer<f32>,
    second: Buffer<f32>,
    /// Optimiser steps done.
    steps: u64,
    optimizer: OptimizerConfig,
    config: Value,
}

impl<A: Element> CardTrainable<A> {
    /// Reads an encoder for training.
    pub(crate) fn open(backend: &Arc<dyn Backend>, folder: &ModelFolder, options: &LoadOptions) -> Result<Self> {
        optimizer::check(&options.optimizer)?;
        let mut encoder = CardEncoder::open(backend, folder, options)?;
        encoder.taken += encoder.plan.optimizer();
        let zeros = || Buffer::zeros(backend, encoder.network.weights.length());
        let (gradient, first, second) = (zeros()?, zeros()?, zeros()?);
        let (optimizer, config) = (options.optimizer.clone(), folder.config.clone());
        Ok(Self { encoder, gradient, first, second, steps: 0, optimizer, config })
    }

    /// Adds the gradients of several cards up, for each of them.
    pub(crate) fn share_gradients(cards: &mut [Self], links: &dyn Links) -> Result<()> {
        let mut gradients: Vec<_> = cards.iter_mut().map(|card| &mut card.gradient).collect();
        add_up(links, &mut gradients)
    }

    /// Copies weights, moments and steps from another card.
    pub(crate) fn copy_state(&mut self, from: &Self) -> Result<()> {
        self.encoder.work().kept = None;
        self.steps = from.steps;
        self.first.write(&from.first.read()?)?;
        self.second.write(&from.second.read()?)?;
        self.gradient.clear()?;
        self.encoder.network.weights.write(&from.encoder.network.weights.read()?)?;
        self.encoder.network.weights_changed()
    }

    /// Takes a batch through the encoder, keeps of it what `recomputation` says, and returns its vectors.
    fn keep(&self, batch: &TokenBatch, recomputation: Recomputation) -> Result<Vec<f32>> {
        let layers = self.encoder.network.shape.layers.len();
        let mut work = self.encoder.work();
        let blocks = if recomputation.layers { 1 } else { layers };
        work.keep(self.encoder.backend(), Keeping { inputs: layers, blocks, way_back: true });
        self.encoder.pass(batch, &mut work)
    }

    /// The backward pass of the batch in hand, whose activations are kept; `gradient` is ∂loss/∂vectors.
    fn kept_backward(&mut self, gradient: &[f32]) -> Result<()> {
        let Self { encoder, gradient: sums, .. } = self;
        let mut work = encoder.work();
        let Work { on_card, vectors, pass, scratch, .. } = &mut *work;
        vectors.write(gradient)?;
        encoder.network.backward(on_card, pass, scratch, vectors.view_mut(), sums)
    }
}

impl<A: Element> Encoder for CardTrainable<A> {
    fn dimension(&self) -> usize {
        self.encoder.dimension()
    }

    fn encode(&self, batch: &TokenBatch) -> Result<Embeddings> {
        self.encoder.encode(batch)
    }
}

impl<A: Element> Trainable for CardTrainable<A> {
    fn forward(&mut self, batch: &TokenBatch, step: u64) -> Result<Embeddings> {
        self.encoder.network.shape.check_batch(batch)?;
        if batch.is_empty() {
            return Ok(Embeddings::zeros(0, self.dimension()));
        }
        let (plan, lengths) = (&self.encoder.plan, batch.lengths());
        let recomputation = plan.recomputation(&lengths)?;
        if recomputation.groups > 1 {
            // The groups of the backward pass, so that products of the same sizes give the same vectors again.
            return self.encoder.encode_groups(batch, plan.groups(&lengths, recomputation));
        }
        let vectors = self.keep(batch, recomputation)?;
        self.encoder.work().kept = Some((batch.clone(), step, recomputation));
        Embeddings::new(self.dimension(), vectors)
    }

    fn backward(&mut self, batch: &TokenBatch, gradient: &Embeddings, step: u64) -> Result<()> {
        self.encoder.network.shape.check_gradient(batch, gradient)?;
        if batch.is_empty() {
            return Ok(());
        }
        let kept = self.encoder.work().kept.take();
        if kept.is_some_and(|(kept, of_step, _)| of_step == step && kept == *batch) {
            return self.kept_backward(gradient.values());
        }
        let lengths = batch.lengths();
        let recomputation = self.encoder.plan.recomputation(&lengths)?;
        for group in self.encoder.plan.groups(&lengths, recomputation) {
            self.keep(&batch.slice(group.clone()), recomputation)?;
            self.kept_backward(gradient.slice(group).values())?;
        }
        Ok(())
    }
}

impl<A: Element> Training for CardTrainable<A> {
    fn gradient_norm(&mut self) -> Result<f32> {
        let norm = self.encoder.network.kernels.norm(self.gradient.view())?;
        if !norm.is_finite() {
            self.gradient.clear()?;
            return Err(optimizer::not_finite(self.steps));
        }
        Ok(norm)
    }

    fn apply(&mut self, rate: f32, norm: f32) -> Result<()> {
        self.encoder.work().kept = None;
        let network = &mut self.encoder.network;
        self.steps += 1;
        let step = optimizer::constants(&self.optimizer, self.steps, rate, norm);
        for tensor in &network.layout.tensors {
            let buffers = [&mut network.weights, &mut self.first, &mut self.second, &mut self.gradient];
            let [weights, first, second, gradient] = buffers.map(|buffer| buffer.part_mut(tensor.place.clone()));
            network.kernels.adamw(&step, tensor.decays, weights, [first, second], gradient)?;
        }
        network.weights_changed()
    }

    fn write_state(&self, output: &mut dyn Write) -> Result<()> {
        let [weights, first, second] = [&self.encoder.network.weights, &self.first, &self.second].map(Buffer::read);
        state::write(output, self.steps, [&weights?, &first?, &second?])
    }

    fn restore(&mut self, input: &mut dyn Read) -> Result<()> {
        self.encoder.work().kept = None;
        let zeros = || vec![0.0; self.gradient.length()];
        let (mut weights, mut first, mut second) = (zeros(), zeros(), zeros());
        self.steps = state::read(input, [&mut weights, &mut first, &mut second])?;
        self.first.write(&first)?;
        self.second.write(&second)?;
        self.gradient.clear()?;
        self.encoder.network.weights.write(&weights)?;
        self.encoder.network.weights_changed()
    }

    fn save(&self, folder: &Path) -> Result<()> {
        let CardNetwork { layout, weights, .. } = &self.encoder.network;
        weights::write(&folder.join(weights::WEIGHTS), layout, &weights.read()?)?;
        write_json(&folder.join("config.json"), &self.config)
    }
}

#[cfg(test)]
mod tests;
