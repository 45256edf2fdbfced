//! A language model in training: the cross-entropy of the next tokens, forward and backward.

use std::io::{Read, Write};
use std::path::Path;

use motherlode::engine::{ADAPTER, LoadOptions, TokenBatch, TrainableLm, Training};
use motherlode::{Error, Result};
use serde_json::Value;

use crate::config::ModelFolder;
use crate::kernel::buffer::resize;
use crate::kernel::lanes::add;
use crate::language_head::{LanguageHead, ROWS, Rows};
use crate::layout::{HEAD, Layout};
use crate::learner::Learner;
use crate::network::Network;
use crate::peft;
use crate::shape::Output;
use crate::span::{Masks, Span};
use crate::tiny::write_json;
use crate::weights;

/// What stands before the names of all tensors but the head's.
pub(crate) const PREFIX: &str = "model.";

/// A language model in training.
#[derive(Debug)]
pub(crate) struct CpuTrainableLm {
    learner: Learner,
    head: LanguageHead,
    /// The gradient of word embeddings that are the head's weight too, from the head: added last, so that sums do not
    /// depend on the groups.
    of_words: Vec<f32>,
    config: Value,
}

/// A token that is predicted.
#[derive(Debug, Clone, Copy)]
struct Prediction {
    /// Which of the spans of a group.
    span: usize,
    /// The place in the span of the token before it, from which it is predicted.
    before: usize,
    token: u32,
}

impl CpuTrainableLm {
    pub(crate) fn open(folder: &Path, options: &LoadOptions) -> Result<Self> {
        let folder = ModelFolder::language_model(folder, options)?;
        let learner = Learner::open(&folder, options)?;
        let head = LanguageHead::new(folder.shape.vocabulary, folder.shape.hidden, learner.network.unit);
        Ok(Self { learner, head, of_words: Vec::new(), config: folder.config })
    }

    /// Mean loss of the tokens that `predicted` marks; with `learns`, its gradient is added.
    fn pass(&mut self, batch: &TokenBatch, predicted: &[bool], masks: Masks, learns: bool) -> Result<f64> {
        self.learner.network.shape.check_batch(batch)?;
        let count = check(batch, predicted)?;
        let spans = Span::cut(batch, masks);
        let recomputation = self.learner.planner.recomputation(&spans)?;
        let mut sum = 0.0;
        for group in self.learner.planner.groups(&spans, recomputation) {
            let spans = &spans[group];
            self.learner.keep(spans, recomputation);
            let scale = learns.then(|| (count as f32).recip());
            self.predict(&predictions(spans, predicted), spans.len(), scale, &mut sum);
            if learns {
                self.learner.backward(spans);
            }
        }
        if learns {
            self.add_of_words();
        }
        let loss = sum / count as f64;
        if !loss.is_finite() {
            self.learner.gradient.clear();
            return Err(Error::data(format!("the loss is {loss}; lower the learning rate")));
        }
        Ok(loss)
    }

    /// Adds to `loss` those of `predictions` from the token vectors of the first `spans` spans in memory. With a `scale`, the
    /// slopes of the loss times it are left there, and added to the gradient of the head's weight.
    fn predict(&mut self, predictions: &[Prediction], spans: usize, scale: Option<f32>, loss: &mut f64) {
        let tied = self.is_tied();
        let Learner { network, memory, gradient, .. } = &mut self.learner;
        let (hidden, place) = (network.shape.hidden, network.layout.head());
        let frozen = network.adapters.is_some();
        if scale.is_some() {
            for memory in &mut memory[..spans] {
                resize(&mut memory.way.gradient, memory.hidden.len(), 0.0);
                memory.way.gradient.fill(0.0);
            }
            if tied {
                resize(&mut self.of_words, place.len(), 0.0);
            }
        }
        let weight = &network.weights[place.clone()];
        let (mut vectors, mut slopes) = (Vec::new(), Vec::new());
        let of_spans = predictions.chunk_by(|left, right| left.span == right.span);
        for block in of_spans.flat_map(|of_span| of_span.chunks(ROWS)) {
            vectors.clear();
            for Prediction { span, before, .. } in block {
                vectors.extend_from_slice(&memory[*span].hidden[before * hidden..(before + 1) * hidden]);
            }
            let targets: Vec<u32> = block.iter().map(|prediction| prediction.token).collect();
            let rows = Rows { vectors: &vectors, targets: &targets };
            *loss += self.head.forward(weight, rows);
            let Some(scale) = scale else { continue };
            slopes.resize(vectors.len(), 0.0);
            let of_weight = match (frozen, tied) {
                (true, _) => None,
                (false, true) => Some(&mut self.of_words[..]),
                (false, false) => Some(&mut gradient.values[place.clone()]),
            };
            self.head.backward(weight, rows, scale, of_weight, &mut slopes);
            for (Prediction { span, before, .. }, slopes) in block.iter().zip(slopes.chunks_exact(hidden)) {
                memory[*span].way.gradient[before * hidden..(before + 1) * hidden].copy_from_slice(slopes);
            }
        }
    }

    /// Whether the word embeddings are trained as the head's weight too.
    fn is_tied(&self) -> bool {
        self.learner.network.adapters.is_none() && self.learner.network.shape.output == Output::Tied
    }

    /// Adds what the head brings to the gradient of the word embeddings.
    fn add_of_words(&mut self) {
        if self.is_tied() {
            let Learner { network, gradient, .. } = &mut self.learner;
            gradient.touch_all();
            add(&mut gradient.values[network.layout.head()], &self.of_words);
            self.of_words.fill(0.0);
        }
    }
}

/// The tokens of `spans` that `predicted`, a mark for each token of the batch, asks for.
fn predictions(spans: &[Span], predicted: &[bool]) -> Vec<Prediction> {
    let of_span = |(span, tokens): (usize, &Span)| {
        let marks = &predicted[tokens.first_token..tokens.first_token + tokens.ids.len()];
        let places =
            tokens.sequences.iter().flat_map(|sequence| sequence.clone().skip(1)).filter(|place| marks[*place]);
        places.map(|place| Prediction { span, before: place - 1, token: tokens.ids[place] }).collect::<Vec<_>>()
    };
    spans.iter().enumerate().flat_map(of_span).collect()
}

/// The number of tokens that are predicted.
fn check(batch: &TokenBatch, predicted: &[bool]) -> Result<usize> {
    if predicted.len() != batch.tokens() {
        return Err(Error::shape(
            "predicted tokens",
            format!("a mark for each of {} tokens", batch.tokens()),
            predicted.len(),
        ));
    }
    let first = (0..batch.len()).find(|index| predicted[batch.range(*index).start]);
    if let Some(index) = first {
        let message =
            format!("sequence {index} of the batch: the first token cannot be predicted, nothing is before it");
        return Err(Error::data(message));
    }
    match predicted.iter().filter(|predicted| **predicted).count() {
        0 => Err(Error::data("no token of the batch is predicted; leave out examples without an answer")),
        count => Ok(count),
    }
}

impl TrainableLm for CpuTrainableLm {
    fn loss(&mut self, batch: &TokenBatch, predicted: &[bool]) -> Result<f64> {
        self.pass(batch, predicted, Masks::OFF, false)
    }

    fn loss_and_gradient(&mut self, batch: &TokenBatch, predicted: &[bool], step: u64) -> Result<f64> {
        let masks = self.learner.masks(step);
        self.pass(batch, predicted, masks, true)
    }

    fn save_adapters(&self, folder: &Path) -> Result<()> {
        let Network { adapters, shape, .. } = &self.learner.network;
        let none = || Error::data("no adapters are trained, but all weights; save the model whole");
        peft::write(folder, adapters.as_ref().ok_or_else(none)?, shape)
    }
}

impl Training for CpuTrainableLm {
    fn gradient_norm(&mut self) -> Result<f32> {
        self.learner.gradient_norm()
    }

    fn apply(&mut self, rate: f32, norm: f32) -> Result<()> {
        self.learner.apply(rate, norm);
        Ok(())
    }

    fn write_state(&self, output: &mut dyn Write) -> Result<()> {
        self.learner.write_state(output)
    }

    fn restore(&mut self, input: &mut dyn Read) -> Result<()> {
        self.learner.restore(input)
    }

    fn save(&self, folder: &Path) -> Result<()> {
        let Network { layout, weights, adapters, shape, .. } = &self.learner.network;
        let path = folder.join(weights::WEIGHTS);
        let named = named(layout);
        if let Some(adapters) = adapters {
            weights::write_parts(&path, &named, adapters.merged(layout, weights))?;
            peft::write(&folder.join(ADAPTER), adapters, shape)?;
        } else {
            weights::write(&path, &named, weights)?;
        }
        write_json(&folder.join("config.json"), &self.config)
    }
}

/// The tensors under the names that they have in a language model.
pub(crate) fn named(layout: &Layout) -> Layout {
    let mut tensors = layout.tensors.clone();
    for tensor in tensors.iter_mut().filter(|tensor| tensor.name != HEAD) {
        tensor.name = format!("{PREFIX}{}", tensor.name);
    }
    Layout::of(tensors)
}

#[cfg(test)]
mod tests;
