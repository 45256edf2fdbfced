//! The sizes and kinds of parts of an encoder: by these data alone the families differ.

use std::path::Path;

use motherlode::engine::{Embeddings, TokenBatch};
use motherlode::{Error, Result};

use crate::kernel::gated::Gate;
use crate::kernel::mask::Mask;
use crate::kernel::normalise::{Affine, Kind};
use crate::names::Names;

/// What an encoder looks like.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) output: Output,
    /// What Hugging Face calls the tensors.
    pub(crate) names: &'static Names,
    /// Rows of the word embeddings.
    pub(crate) vocabulary: usize,
    /// Values of a token's vector, H.
    pub(crate) hidden: usize,
    /// Attention heads.
    pub(crate) heads: usize,
    /// Heads of keys and values; `heads` is a multiple.
    pub(crate) groups: usize,
    /// Values of a head.
    pub(crate) width: usize,
    /// Values of a token inside the feed-forward part, F.
    pub(crate) inner: usize,
    /// Tokens of the longest sequence.
    pub(crate) longest: usize,
    pub(crate) tables: PositionTables,
    pub(crate) norm: Norm,
    pub(crate) placement: Placement,
    /// Whether queries and keys are normalised, head by head.
    pub(crate) head_norms: bool,
    pub(crate) activation: Activation,
    pub(crate) biases: Biases,
    /// θ of each kind of rotary positions.
    pub(crate) thetas: Vec<f64>,
    /// In what the layers differ.
    pub(crate) layers: Vec<Layer>,
}

/// What is computed of the vectors of the tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// Nothing: they are pooled.
    Vectors,
    /// Logits, by the word embeddings.
    Tied,
    /// Logits, by weights of their own.
    Untied,
}

/// Learnt embeddings of positions and of token types, in rows; none is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PositionTables {
    pub(crate) positions: usize,
    /// The row of the first token's position.
    pub(crate) first_position: usize,
    pub(crate) kinds: usize,
}

/// The normalisations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Norm {
    pub(crate) kind: Kind,
    pub(crate) bias: bool,
    pub(crate) epsilon: f32,
    /// Whether the embeddings are normalised.
    pub(crate) embeddings: bool,
}

/// Where the two parts of a block, attention and feed-forward, have their normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// x + part(norm(x)), and a normalisation after the last block.
    Before,
    /// norm(x + part(x)).
    After,
}

/// The activation of the feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    Gelu,
    Gated(Gate),
}

/// Which linear maps have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Biases {
    /// To queries, keys and values.
    pub(crate) projection: bool,
    /// From the heads' contexts back to H.
    pub(crate) merge: bool,
    /// From H to F and back.
    pub(crate) feed_forward: bool,
}

/// What is one layer's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(crate) mask: Mask,
    /// Which of the shape's θ its rotary positions have.
    pub(crate) rotary: Option<usize>,
    /// Whether the attention part has a normalisation.
    pub(crate) attention_norm: bool,
}

impl Norm {
    /// A normalisation with this weight and bias.
    pub(crate) fn affine<'a>(self, weight: &'a [f32], bias: &'a [f32]) -> Affine<'a> {
        Affine { kind: self.kind, weight, bias, epsilon: self.epsilon }
    }
}

impl Shape {
    /// Values of a token's queries, keys and values.
    pub(crate) fn projected(&self) -> usize {
        (self.heads + 2 * self.groups) * self.width
    }

    /// Values of a token's contexts, all heads'.
    pub(crate) fn context(&self) -> usize {
        self.heads * self.width
    }

    /// Values of a token before the activation.
    pub(crate) fn expanded(&self) -> usize {
        match self.activation {
            Activation::Gelu => self.inner,
            Activation::Gated(_) => 2 * self.inner,
        }
    }

    /// Refuses a gradient that is not one of the vectors of `batch`, and what [`check_batch`](Self::check_batch) refuses.
    pub(crate) fn check_gradient(&self, batch: &TokenBatch, gradient: &Embeddings) -> Result<()> {
        let (expected, got) = ((batch.len(), self.hidden), (gradient.rows(), gradient.dimension()));
        if expected != got {
            return Err(Error::shape("gradient of the embeddings", format!("{expected:?}"), format!("{got:?}")));
        }
        self.check_batch(batch)
    }

    /// Refuses empty and over-long sequences and unknown tokens.
    pub(crate) fn check_batch(&self, batch: &TokenBatch) -> Result<()> {
        for index in 0..batch.len() {
            let (sequence, longest) = (batch.sequence(index), self.longest);
            if sequence.is_empty() || sequence.len() > longest {
                let what = format!("sequence {index} of the batch");
                return Err(Error::shape(what, format!("1 to {longest} tokens"), sequence.len()));
            }
            if let Some(token) = sequence.iter().find(|token| **token as usize >= self.vocabulary) {
                let what = format!("sequence {index} of the batch");
                let vocabulary = format!("token ids below the vocabulary's size {}", self.vocabulary);
                return Err(Error::shape(what, vocabulary, token));
            }
        }
        Ok(())
    }

    /// Refuses sizes that are zero or do not fit together; `path` is where they come from.
    pub(crate) fn check(&self, path: &Path) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocabulary),
            ("hidden_size", self.hidden),
            ("num_hidden_layers", self.layers.len()),
            ("num_attention_heads", self.heads),
            ("num_key_value_heads", self.groups),
            ("head_dim", self.width),
            ("intermediate_size", self.inner),
            ("max_position_embeddings", self.longest),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(Error::file(path, format!("expected `{name}` of at least 1, got 0")));
        }
        if !self.heads.is_multiple_of(self.groups) {
            let (heads, groups) = (self.heads, self.groups);
            let message =
                format!("expected `num_attention_heads` a multiple of `num_key_value_heads`, got {heads} and {groups}");
            return Err(Error::file(path, message));
        }
        if !self.thetas.is_empty() && !self.width.is_multiple_of(2) {
            let message =
                format!("expected heads of an even number of values for rotary positions, got {}", self.width);
            return Err(Error::file(path, message));
        }
        Ok(())
    }
}
