//! The seam to the machine-learning engine: tokens in, vectors out; ids, files and losses never cross it.
//!
//! The library trains and encodes through these traits alone. `motherlode-engine` implements them; a test may
//! implement them in ten lines. Every loss is plain Rust on n × d matrices: an engine whose memory does not hold a whole
//! step forgets activations after the forward pass and computes them again, group by group, when the gradient comes.

use std::fmt;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::memory::readable;

/// Token sequences laid end to end, without padding.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenBatch {
    /// Token ids of all sequences, one after the other.
    ids: Vec<u32>,
    /// Where each sequence ends in `ids`; sequence `i` is `ids[ends[i - 1]..ends[i]]`.
    ends: Vec<usize>,
}

impl TokenBatch {
    /// Appends one sequence.
    pub fn push(&mut self, sequence: &[u32]) {
        self.ids.extend_from_slice(sequence);
        self.ends.push(self.ids.len());
    }

    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no sequence.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Number of tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// All token ids, sequence after sequence.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The place of sequence `index` in [`ids`](Self::ids).
    pub fn range(&self, index: usize) -> std::ops::Range<usize> {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        start..self.ends[index]
    }

    /// Number of tokens of each sequence.
    pub fn lengths(&self) -> Vec<usize> {
        (0..self.len()).map(|index| self.range(index).len()).collect()
    }

    /// The tokens of sequence `index`.
    pub fn sequence(&self, index: usize) -> &[u32] {
        &self.ids[self.range(index)]
    }

    /// A new batch of the sequences `range`, in order.
    #[must_use]
    pub fn slice(&self, range: std::ops::Range<usize>) -> Self {
        let mut part = Self::default();
        for index in range {
            part.push(self.sequence(index));
        }
        part
    }
}

impl<S: AsRef<[u32]>> FromIterator<S> for TokenBatch {
    fn from_iter<I: IntoIterator<Item = S>>(sequences: I) -> Self {
        let mut batch = Self::default();
        for sequence in sequences {
            batch.push(sequence.as_ref());
        }
        batch
    }
}

/// An n × d matrix of vectors, row-major, f32.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    dimension: usize,
    values: Vec<f32>,
}

impl Embeddings {
    /// Wraps `values`, whose length must be a multiple of `dimension`.
    pub fn new(dimension: usize, values: Vec<f32>) -> Result<Self> {
        if dimension == 0 || !values.len().is_multiple_of(dimension) {
            return Err(Error::shape("embeddings", format!("rows of {dimension}"), format!("{} values", values.len())));
        }
        Ok(Self { dimension, values })
    }

    /// `rows` vectors of zeros.
    pub fn zeros(rows: usize, dimension: usize) -> Self {
        Self { dimension, values: vec![0.0; rows * dimension] }
    }

    /// Length of a vector, d.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Number of vectors, n.
    pub fn rows(&self) -> usize {
        self.values.len() / self.dimension
    }

    /// Vector `index`.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.dimension..(index + 1) * self.dimension]
    }

    /// Vector `index`, to be written to.
    pub fn row_mut(&mut self, index: usize) -> &mut [f32] {
        &mut self.values[index * self.dimension..(index + 1) * self.dimension]
    }

    /// All values, row after row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All values, row after row, to be written to.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// A new matrix of the rows `range`.
    #[must_use]
    pub fn slice(&self, range: std::ops::Range<usize>) -> Self {
        Self {
            dimension: self.dimension,
            values: self.values[range.start * self.dimension..range.end * self.dimension].to_vec(),
        }
    }
}

/// Turns token sequences into vectors, pooled and (if the model says so) of unit length.
pub trait Encoder: Send + Sync {
    /// Length of the vectors, d.
    fn dimension(&self) -> usize;

    /// One vector a sequence, in order; the vector of a sequence does not depend on what else is in the batch.
    fn encode(&self, batch: &TokenBatch) -> Result<Embeddings>;
}

/// What the optimiser did in one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Euclidean norm of the accumulated gradient, before clipping.
    pub gradient_norm: f32,
}

/// How the optimiser works; the rate comes with every step.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Decay of the first moment, β₁ of `AdamW`.
    pub beta1: f32,
    /// Decay of the second moment, β₂.
    pub beta2: f32,
    /// ε in the denominator.
    pub epsilon: f32,
    /// Decoupled weight decay; not applied to biases and normalisation weights.
    pub weight_decay: f32,
    /// Gradients whose norm exceeds this are scaled down to it; 0 switches clipping off.
    pub max_gradient_norm: f32,
    /// Probability of dropping an activation while training; 0 is off.
    pub dropout: f32,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01, max_gradient_norm: 1.0, dropout: 0.0 }
    }
}

impl OptimizerConfig {
    /// Checks the ranges; `section` is the recipe's that holds these knobs.
    pub fn validate(&self, section: &str) -> Result<()> {
        let Self { beta1, beta2, epsilon, weight_decay, max_gradient_norm, dropout } = *self;
        let require = |name: &str, holds: bool, expected: &str, got: f32| {
            if holds {
                return Ok(());
            }
            Err(Error::config(format!("`{section}.optimizer.{name}`: expected {expected}, got {got}")))
        };
        for (name, value) in [("beta1", beta1), ("beta2", beta2), ("dropout", dropout)] {
            require(name, (0.0..1.0).contains(&value), "at least 0 and below 1", value)?;
        }
        for (name, value) in
            [("epsilon", epsilon), ("weight_decay", weight_decay), ("max_gradient_norm", max_gradient_norm)]
        {
            require(name, value >= 0.0 && value.is_finite(), "0 or a positive number", value)?;
        }
        Ok(())
    }
}

/// The folder within a model's in which adapters are written by themselves.
pub const ADAPTER: &str = "adapter";

/// Low-rank adapters: instead of an encoder's weights, small matrices beside its linear maps are trained.
///
/// Source: Hu et al., "LoRA: low-rank adaptation of large language models" (2021).
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoraConfig {
    /// r, the inner width of an adapter.
    pub rank: usize,
    /// α: what an adapter adds is multiplied by α / r.
    pub alpha: f32,
    /// Probability of dropping a value of an adapter's input while training.
    pub dropout: f32,
    /// Names of linear maps, or ends of their paths such as `q_proj`; all linear maps of the layers if empty.
    pub targets: Vec<String>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self { rank: 8, alpha: 16.0, dropout: 0.0, targets: Vec::new() }
    }
}

impl LoraConfig {
    /// Checks the ranges.
    pub fn validate(&self) -> Result<()> {
        let Self { rank, alpha, dropout, .. } = self;
        if *rank == 0 {
            return Err(Error::config("`lora.rank`: expected at least 1, got 0"));
        }
        if !(alpha.is_finite() && *alpha > 0.0) {
            return Err(Error::config(format!("`lora.alpha`: expected a positive number, got {alpha}")));
        }
        if !(0.0..1.0).contains(dropout) {
            return Err(Error::config(format!("`lora.dropout`: expected at least 0 and below 1, got {dropout}")));
        }
        Ok(())
    }
}

/// What all models in training have in common: weights that an accumulated gradient moves.
pub trait Training: Send {
    /// Euclidean norm of the accumulated gradient. Asked once for each step, when all of its gradient is there.
    ///
    /// # Errors
    /// A gradient that is not finite, which is cleared.
    fn gradient_norm(&mut self) -> Result<f32>;

    /// Clips the accumulated gradient as part of one whose norm is `norm`, moves the weights by one `AdamW` step at `rate`,
    /// and clears the gradient.
    fn apply(&mut self, rate: f32, norm: f32) -> Result<()>;

    /// One optimiser step of a model by itself: [`apply`](Self::apply) with the gradient's own norm.
    ///
    /// # Errors
    /// A gradient that is not finite; nothing has moved then.
    fn step(&mut self, rate: f32) -> Result<StepReport> {
        let gradient_norm = self.gradient_norm()?;
        self.apply(rate, gradient_norm)?;
        Ok(StepReport { gradient_norm })
    }

    /// Writes weights, optimiser moments and step count, such that [`restore`](Self::restore) continues bit for bit.
    ///
    /// # Errors
    /// A value that is not finite.
    fn write_state(&self, output: &mut dyn Write) -> Result<()>;

    /// Reads what [`write_state`](Self::write_state) wrote.
    fn restore(&mut self, input: &mut dyn Read) -> Result<()>;

    /// Writes the weights as `model.safetensors` with Hugging Face names, and `config.json`, into an existing folder.
    /// Adapters are merged into these weights, and written by themselves in the format of `peft` to [`ADAPTER`].
    ///
    /// # Errors
    /// A weight that is not finite.
    fn save(&self, folder: &Path) -> Result<()>;
}

/// An encoder that can be trained.
pub trait Trainable: Encoder + Training {
    /// As [`Encoder::encode`], with the dropout of training, whose masks depend on `step`: the optimiser steps so far.
    fn forward(&mut self, batch: &TokenBatch, step: u64) -> Result<Embeddings>;

    /// Adds to the gradient what `gradient` (n × d, ∂loss/∂embedding) of this batch brings; `step` as in `forward`.
    /// What `forward` could not keep is computed again; the result is the same, bit for bit.
    fn backward(&mut self, batch: &TokenBatch, gradient: &Embeddings, step: u64) -> Result<()>;
}

/// A language model that can be trained to write the answers of examples.
pub trait TrainableLm: Training {
    /// Mean −ln p, natural logarithm, of the tokens that `predicted` marks (a mark for each token of the batch), each given
    /// the tokens before it in its sequence; without dropout.
    ///
    /// # Errors
    /// A mark on the first token of a sequence, or none at all; a loss that is not finite.
    fn loss(&mut self, batch: &TokenBatch, predicted: &[bool]) -> Result<f64>;

    /// As [`loss`](Self::loss), with the dropout of training, and adds the loss's gradient; `step`: the optimiser steps so
    /// far. After an error the gradient is cleared.
    fn loss_and_gradient(&mut self, batch: &TokenBatch, predicted: &[bool], step: u64) -> Result<f64>;

    /// Writes the adapters alone, in the format of `peft`, into a folder, which is made if there is none.
    ///
    /// # Errors
    /// No adapters are trained; a value that is not finite.
    fn save_adapters(&self, folder: &Path) -> Result<()>;
}

/// What the operands of an encoder's matrix products are rounded to. Sums, weights in training and all that is not a
/// matrix product are f32 in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Not at all.
    #[default]
    F32,
    /// Sums of two bfloat16 values each, of whose four products the least is left out: vectors differ from f32's in the
    /// sixth digit, and take less time on a processor with AMX. Elsewhere it is `f32`.
    Bf16x3,
    /// bfloat16: several times as fast on a processor that multiplies it, about three digits.
    Bf16,
}

/// How an encoder is read from its folder.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoadOptions {
    /// Keep only the first n layers: a smaller, weaker encoder.
    pub layers: Option<usize>,
    /// What its matrix products are computed in.
    pub precision: Precision,
    /// For training: how the optimiser works, and the seed of the dropout masks.
    pub optimizer: OptimizerConfig,
    /// Seed of everything random in the engine.
    pub seed: u64,
    /// For training: adapters are trained, and the weights stay as they are.
    pub lora: Option<LoraConfig>,
    /// For training: bytes that it may take in all, weights included; without it, 9/10 of what is free on the machine.
    /// No result depends on it.
    pub memory: Option<u64>,
    /// Bytes of that memory, or of what is free, which another encoder is about to take.
    pub beside: u64,
    /// A folder in the format of `peft` whose adapters are laid over the weights: merged into them, or, with `lora`,
    /// what training begins with.
    pub adapter: Option<PathBuf>,
}

/// Bytes that work with an encoder takes at its peak, known from the sizes alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Footprint {
    /// The weights, in every order in which they are kept.
    pub weights: u64,
    /// The gradient and the moments of the optimiser.
    pub optimizer: u64,
    /// What is kept of forward passes for backward passes, and what these hand to the gradient.
    pub activations: u64,
    /// Working memory of the threads.
    pub scratch: u64,
    /// How the activations were made to fit.
    pub recomputation: Recomputation,
}

/// What is computed twice in a step of training, to save memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recomputation {
    /// Every layer is computed again just before its backward pass; only its input is kept.
    pub layers: bool,
    /// With more than one, the forward pass keeps nothing. Groups of sequences follow one after the other, each forward
    /// again and then backward.
    pub groups: usize,
}

impl Default for Recomputation {
    fn default() -> Self {
        Self { layers: false, groups: 1 }
    }
}

impl Footprint {
    /// What two encoders take side by side; how it was made to fit is told of the second.
    #[must_use]
    pub fn beside(self, other: Self) -> Self {
        Self {
            weights: self.weights + other.weights,
            optimizer: self.optimizer + other.optimizer,
            activations: self.activations + other.activations,
            scratch: self.scratch + other.scratch,
            recomputation: other.recomputation,
        }
    }

    /// All bytes.
    pub fn total(&self) -> u64 {
        let Self { weights, optimizer, activations, scratch, .. } = self;
        weights + optimizer + activations + scratch
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { weights, optimizer, activations, scratch, recomputation } = *self;
        let [total, weights, rest] = [self.total(), weights, activations + scratch].map(readable);
        if optimizer == 0 {
            return write!(formatter, "{total}: {weights} weights, {rest} activations");
        }
        let optimizer = readable(optimizer);
        write!(formatter, "{total}: {weights} weights, {optimizer} gradient and moments, {rest} activations")?;
        write!(formatter, " ({recomputation})")
    }
}

impl fmt::Display for Recomputation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.layers, self.groups) {
            (false, 1) => formatter.write_str("all kept"),
            (true, 1) => formatter.write_str("layers computed again"),
            (false, groups) => write!(formatter, "computed again in {groups} groups"),
            (true, groups) => write!(formatter, "computed again in {groups} groups, and layers in these"),
        }
    }
}

/// How a text goes on, as whoever asked decides from the scores of its next token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// With these tokens, at least one, after which is asked again.
    Tokens(Vec<u32>),
    /// Not at all.
    End,
}

/// Called with a group, a prompt of it and the score (logit) of every token that may come next: vocabulary values.
pub type Choose<'a> = dyn Fn(usize, usize, &[f32]) -> Next + Sync + 'a;

/// A decoder that continues texts.
pub trait LanguageModel: Send + Sync {
    /// Most tokens of a text, continuation included.
    fn longest(&self) -> usize;

    /// Number of tokens that it knows.
    fn vocabulary(&self) -> usize;

    /// Continues every prompt of every group until `choose` ends it.
    ///
    /// What the prompts of a group, and all prompts, have in common at their start is computed once. The scores do not
    /// depend on what else is asked, nor on the number of threads, bit for bit. `choose` is called from several threads;
    /// for one prompt, once after the other.
    ///
    /// # Errors
    /// An empty prompt, a text that grows longer than [`longest`](Self::longest), an unknown token.
    fn continue_texts(&self, groups: &[Vec<Vec<u32>>], choose: &Choose) -> Result<()>;
}

/// Looks at passages before an exact search does, scores them faster than the processor and rounds in its own way: what it lets
/// through is scored again.
pub trait Sieve: Sync + fmt::Debug {
    /// Takes the queries of a search: of each member the vectors, row after row, and their dimension.
    ///
    /// # Errors
    /// There is no memory for them.
    fn begin(&self, queries: &[(&[f32], usize)]) -> Result<()>;

    /// The query and the passage of every pair whose sum of dot products is not below the query's floor, in any order; sums that
    /// are no number, too. `passages` has the vectors of each member, row after row.
    ///
    /// # Errors
    /// There is no memory for so many scores.
    fn sift(&self, passages: &[&[f32]], floors: &[f32]) -> Result<Vec<[u32; 2]>>;
}

/// Opens models. The one thing a caller hands to the stages that encode or train.
pub trait Engine: Send + Sync {
    /// Where the encoder in `folder` will compute, for log and manifest, with the reason where it is not what was asked for;
    /// nothing where that is the processor and nobody asked for anything else.
    ///
    /// # Errors
    /// It cannot compute where it was asked to.
    fn device(&self, folder: &Path, options: &LoadOptions) -> Result<Option<String>> {
        let _ = (folder, options);
        Ok(None)
    }

    /// What looks at passages before an exact search does; none where that would not be faster.
    ///
    /// # Errors
    /// A device that was asked for is not there.
    fn sieve(&self) -> Result<Option<Box<dyn Sieve>>> {
        Ok(None)
    }

    /// Reads an encoder from a sentence-transformers or Hugging Face folder.
    fn encoder(&self, folder: &Path, options: &LoadOptions) -> Result<Box<dyn Encoder>>;

    /// Reads an encoder for training.
    fn trainable(&self, folder: &Path, options: &LoadOptions) -> Result<Box<dyn Trainable>>;

    /// Reads a causal language model for training, from a Hugging Face folder.
    fn trainable_lm(&self, folder: &Path, options: &LoadOptions) -> Result<Box<dyn TrainableLm>>;

    /// What encoding of sequences of up to `longest` tokens takes; the weights are not read.
    ///
    /// # Errors
    /// It does not fit into the memory.
    fn encoding_footprint(&self, folder: &Path, options: &LoadOptions, longest: usize) -> Result<Footprint>;

    /// What training takes whose largest step has sequences of `lengths` tokens; the weights are not read.
    ///
    /// # Errors
    /// No way to compute the step fits into the memory; the message says what would.
    fn training_footprint(&self, folder: &Path, options: &LoadOptions, lengths: &[usize]) -> Result<Footprint>;

    /// As [`training_footprint`](Self::training_footprint), of a language model.
    fn language_training_footprint(
        &self,
        folder: &Path,
        options: &LoadOptions,
        lengths: &[usize],
    ) -> Result<Footprint> {
        let _ = (options, lengths);
        Err(Error::file(folder, "this engine trains no language models"))
    }

    /// Reads a language model from a Hugging Face folder, to compute in `precision`.
    fn language_model_in(&self, folder: &Path, precision: Precision) -> Result<Box<dyn LanguageModel>> {
        let _ = precision;
        Err(Error::file(folder, "this engine has no language models"))
    }

    /// Reads a language model from an opened file, to compute in `precision`.
    fn language_model(&self, file: Arc<Gguf>, precision: Precision) -> Result<Box<dyn LanguageModel>> {
        let _ = precision;
        Err(file.wrong("this engine has no language models"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_ragged_and_sliceable() {
        let batch: TokenBatch = [vec![1, 2, 3], vec![], vec![4]].into_iter().collect();
        assert_eq!((batch.len(), batch.tokens()), (3, 4));
        assert_eq!(batch.sequence(0), [1, 2, 3]);
        assert!(batch.sequence(1).is_empty());
        assert_eq!(batch.slice(1..3).sequence(1), [4]);
    }

    #[test]
    fn embeddings_refuse_a_ragged_matrix() {
        assert!(Embeddings::new(3, vec![0.0; 7]).is_err());
        assert_eq!(Embeddings::new(3, vec![0.0; 6]).unwrap().rows(), 2);
    }
}
