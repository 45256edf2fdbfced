//! BERT and XLM-RoBERTa.

use std::path::Path;

use motherlode::{Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Gelu, head_width, refuse_unknown};
use crate::kernel::mask::Mask;
use crate::kernel::normalise::Kind;
use crate::names;
use crate::shape::{Activation, Biases, Layer, Norm, Output, Placement, PositionTables, Shape};

#[derive(Debug, Deserialize)]
pub(super) struct BertConfig {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    type_vocab_size: usize,
    layer_norm_eps: f32,
    #[serde(rename = "hidden_act")]
    _activation: Gelu,
    #[serde(default, rename = "position_embedding_type")]
    _positions: Positions,
    pad_token_id: Option<usize>,
    #[serde(default)]
    is_decoder: bool,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
enum Positions {
    #[default]
    #[serde(rename = "absolute")]
    Absolute,
}

impl BertConfig {
    /// Positions of XLM-RoBERTa start behind the padding id.
    pub(super) fn shape(self, path: &Path, behind_padding: bool) -> Result<Shape> {
        refuse_unknown(path, &self.others)?;
        if self.is_decoder {
            return Err(Error::file(path, "expected an encoder, got `is_decoder` true"));
        }
        let first_position = if behind_padding { self.pad_token_id.unwrap_or(1) + 1 } else { 0 };
        let positions = self.max_position_embeddings;
        if positions <= first_position {
            let message = format!("expected `max_position_embeddings` above {first_position}, got {positions}");
            return Err(Error::file(path, message));
        }
        if self.type_vocab_size == 0 {
            return Err(Error::file(path, "expected `type_vocab_size` of at least 1, got 0"));
        }
        Ok(Shape {
            output: Output::Vectors,
            names: &names::BERT,
            vocabulary: self.vocab_size,
            hidden: self.hidden_size,
            heads: self.num_attention_heads,
            groups: self.num_attention_heads,
            width: head_width(path, self.hidden_size, self.num_attention_heads)?,
            inner: self.intermediate_size,
            longest: positions - first_position,
            tables: PositionTables { positions, first_position, kinds: self.type_vocab_size },
            norm: Norm { kind: Kind::Layer, bias: true, epsilon: self.layer_norm_eps, embeddings: true },
            placement: Placement::After,
            head_norms: false,
            activation: Activation::Gelu,
            biases: Biases { projection: true, merge: true, feed_forward: true },
            thetas: Vec::new(),
            layers: vec![Layer { mask: Mask::NONE, rotary: None, attention_norm: true }; self.num_hidden_layers],
        })
    }
}
