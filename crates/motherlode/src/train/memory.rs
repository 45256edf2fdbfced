//! How many tokens a pass may take so that its activations fit into memory.

use serde::Deserialize;

use super::TrainInputs;
use crate::error::{Error, Result};

/// The sizes in `config.json` that activations grow with.
#[derive(Debug, Deserialize)]
struct Shape {
    hidden_size: u64,
    intermediate_size: u64,
    num_hidden_layers: u64,
    num_attention_heads: u64,
}

impl Shape {
    /// Bytes that backward needs of one token in a sequence of `length` tokens: in every layer about twelve vectors of
    /// the hidden size, two of the inner size, and a row of attention probabilities a head; each value f32.
    fn bytes_per_token(&self, length: u64) -> u64 {
        let values = 12 * self.hidden_size + 2 * self.intermediate_size + self.num_attention_heads * length;
        4 * values * self.num_hidden_layers
    }
}

/// The most tokens whose activations fit into `bytes`, at least 1.
///
/// # Errors
/// The model's `config.json` is missing or lacks a size.
pub(super) fn tokens_within(bytes: u64, inputs: &TrainInputs<'_>) -> Result<usize> {
    let path = inputs.base.folder.join("config.json");
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    let mut shape: Shape =
        serde_json::from_str(&text).map_err(|error| Error::file(&path, format!("expected an encoder's sizes: {error}")))?;
    shape.num_hidden_layers = inputs.encoder.layers.map_or(shape.num_hidden_layers, |layers| layers as u64);
    let longest = inputs.encoder.query_length.max(inputs.encoder.passage_length) as u64;
    Ok((bytes / shape.bytes_per_token(longest).max(1)).max(1) as usize)
}
