//! ModernBERT.

use std::path::Path;

use motherlode::Result;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Gelu, LayerType, RotaryConfig, head_width, need, of_every_layer, refuse_unknown};
use crate::kernel::gated::Gate;
use crate::kernel::mask::Mask;
use crate::kernel::normalise::Kind;
use crate::names;
use crate::shape::{Activation, Biases, Layer, Norm, Output, Placement, PositionTables, Shape};

#[derive(Debug, Deserialize)]
pub(super) struct ModernBertConfig {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    norm_eps: f32,
    norm_bias: bool,
    attention_bias: bool,
    mlp_bias: bool,
    local_attention: usize,
    global_attn_every_n_layers: Option<usize>,
    layer_types: Option<Vec<LayerType>>,
    global_rope_theta: Option<f64>,
    local_rope_theta: Option<f64>,
    rope_parameters: Option<LayeredRotary>,
    #[serde(rename = "hidden_activation")]
    _activation: Gelu,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct LayeredRotary {
    full_attention: RotaryConfig,
    sliding_attention: RotaryConfig,
}

impl ModernBertConfig {
    pub(super) fn shape(self, path: &Path) -> Result<Shape> {
        refuse_unknown(path, &self.others)?;
        let thetas = match &self.rope_parameters {
            Some(rotary) => [&rotary.full_attention, &rotary.sliding_attention].map(|rotary| rotary.theta(path)),
            None => [self.global_rope_theta, self.local_rope_theta].map(|theta| need(path, "rope_parameters", theta)),
        };
        let reach = self.local_attention / 2;
        let local = Mask { before: reach, after: reach };
        let layer = |(index, kind): (usize, LayerType)| {
            let (mask, rotary) = if kind == LayerType::Full { (Mask::NONE, 0) } else { (local, 1) };
            Layer { mask, rotary: Some(rotary), attention_norm: index > 0 }
        };
        let layers = self.layer_types(path)?.into_iter().enumerate().map(layer).collect();
        Ok(Shape {
            output: Output::Vectors,
            names: &names::MODERN_BERT,
            vocabulary: self.vocab_size,
            hidden: self.hidden_size,
            heads: self.num_attention_heads,
            groups: self.num_attention_heads,
            width: head_width(path, self.hidden_size, self.num_attention_heads)?,
            inner: self.intermediate_size,
            longest: self.max_position_embeddings,
            tables: PositionTables::default(),
            norm: Norm { kind: Kind::Layer, bias: self.norm_bias, epsilon: self.norm_eps, embeddings: true },
            placement: Placement::Before,
            head_norms: false,
            activation: Activation::Gated(Gate::Gelu),
            biases: Biases { projection: self.attention_bias, merge: self.attention_bias, feed_forward: self.mlp_bias },
            thetas: thetas.into_iter().collect::<Result<_>>()?,
            layers,
        })
    }

    fn layer_types(&self, path: &Path) -> Result<Vec<LayerType>> {
        match (&self.layer_types, self.global_attn_every_n_layers) {
            (Some(kinds), _) => of_every_layer(path, kinds, self.num_hidden_layers),
            (None, Some(every)) if every > 0 => {
                let kind =
                    |layer: usize| if layer.is_multiple_of(every) { LayerType::Full } else { LayerType::Sliding };
                Ok((0..self.num_hidden_layers).map(kind).collect())
            }
            _ => need(path, "layer_types", None),
        }
    }
}
