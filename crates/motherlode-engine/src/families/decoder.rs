//! Llama, Mistral, Qwen2 and Qwen3 as encoders.

use std::path::Path;

use motherlode::{Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Family, LayerType, RotaryConfig, head_width, need, of_every_layer, refuse_unknown};
use crate::kernel::gated::Gate;
use crate::kernel::mask::Mask;
use crate::kernel::normalise::Kind;
use crate::names;
use crate::shape::{Activation, Biases, Layer, Norm, Output, Placement, PositionTables, Shape};

#[derive(Debug, Deserialize)]
pub(super) struct DecoderConfig {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    intermediate_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: f32,
    #[serde(rename = "hidden_act")]
    _activation: Silu,
    rope_theta: Option<f64>,
    rope_scaling: Option<RotaryConfig>,
    rope_parameters: Option<RotaryConfig>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<LayerType>>,
    is_causal: Option<bool>,
    pretraining_tp: Option<usize>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
enum Silu {
    #[serde(rename = "silu")]
    Silu,
}

impl DecoderConfig {
    pub(super) fn shape(self, path: &Path, family: Family) -> Result<Shape> {
        self.check(path, family)?;
        let rotary = self.rope_parameters.as_ref().or(self.rope_scaling.as_ref());
        let theta = match (rotary, self.rope_theta) {
            (Some(rotary), None) => rotary.theta(path)?,
            (Some(rotary), Some(theta)) => rotary.plain(path).map(|()| theta)?,
            (None, theta) => need(path, "rope_theta", theta)?,
        };
        let heads = self.num_attention_heads;
        let width = match self.head_dim {
            Some(width) => width,
            None if family == Family::Qwen3 => return need(path, "head_dim", None),
            None => head_width(path, self.hidden_size, heads)?,
        };
        let groups = match self.num_key_value_heads {
            Some(groups) => groups,
            None if family == Family::Llama => heads,
            None => return need(path, "num_key_value_heads", None),
        };
        Ok(Shape {
            output: Output::Vectors,
            names: &names::DECODER,
            vocabulary: self.vocab_size,
            hidden: self.hidden_size,
            heads,
            groups,
            width,
            inner: self.intermediate_size,
            longest: self.max_position_embeddings,
            tables: PositionTables::default(),
            norm: Norm { kind: Kind::RootMeanSquare, bias: false, epsilon: self.rms_norm_eps, embeddings: false },
            placement: Placement::Before,
            head_norms: family == Family::Qwen3,
            activation: Activation::Gated(Gate::Silu),
            biases: Biases {
                projection: self.attention_bias || family == Family::Qwen2,
                merge: self.attention_bias,
                feed_forward: self.mlp_bias,
            },
            thetas: vec![theta],
            layers: self.layers(path, family)?,
        })
    }

    fn check(&self, path: &Path, family: Family) -> Result<()> {
        refuse_unknown(path, &self.others)?;
        let windows = matches!(family, Family::Qwen2 | Family::Qwen3);
        let foreign = [
            ("attention_bias", self.attention_bias && matches!(family, Family::Mistral | Family::Qwen2)),
            ("mlp_bias", self.mlp_bias && family != Family::Llama),
            ("use_sliding_window", self.use_sliding_window == Some(true) && !windows),
            ("sliding_window", self.sliding_window.is_some() && family == Family::Llama),
            ("sliding_window", self.sliding_window == Some(0)),
            ("layer_types", self.layer_types.is_some() && !windows),
            ("head_dim", self.head_dim.is_some() && family == Family::Qwen2),
            ("pretraining_tp", self.pretraining_tp.is_some_and(|parts| parts > 1)),
        ];
        match foreign.iter().find(|(_, present)| *present) {
            Some((key, _)) => {
                Err(Error::file(path, format!("`{key}` has a value that models of this family ignore or lack")))
            }
            None => Ok(()),
        }
    }

    fn layers(&self, path: &Path, family: Family) -> Result<Vec<Layer>> {
        let causal = self.is_causal.unwrap_or(true);
        let full = if causal { Mask::CAUSAL } else { Mask::NONE };
        let window = match family {
            Family::Qwen2 | Family::Qwen3 if self.use_sliding_window != Some(true) => None,
            _ => self.sliding_window,
        };
        // As transformers draws windows: the token itself counts in a causal one, but not in the other.
        let reach = |window: usize| {
            if causal { Mask { before: window - 1, after: 0 } } else { Mask { before: window, after: window } }
        };
        let sliding = window.map(reach);
        let kinds = match (&self.layer_types, family) {
            (Some(kinds), _) => of_every_layer(path, kinds, self.num_hidden_layers)?,
            (None, Family::Mistral) => vec![LayerType::Sliding; self.num_hidden_layers],
            (None, _) if window.is_some() => {
                let first = need(path, "max_window_layers", self.max_window_layers)?;
                let kind = |layer: usize| if layer < first { LayerType::Full } else { LayerType::Sliding };
                (0..self.num_hidden_layers).map(kind).collect()
            }
            (None, _) => vec![LayerType::Full; self.num_hidden_layers],
        };
        let mask = |kind| match (kind, sliding) {
            (LayerType::Full, _) => Ok(full),
            (LayerType::Sliding, Some(mask)) => Ok(mask),
            (LayerType::Sliding, None) if family == Family::Mistral => Ok(full),
            (LayerType::Sliding, None) => need(path, "sliding_window", None),
        };
        let layer = |kind| Ok(Layer { mask: mask(kind)?, rotary: Some(0), attention_norm: true });
        kinds.into_iter().map(layer).collect()
    }
}
