//! What `config.json` of each family says about an encoder's shape.
//!
//! Every key is read, or known not to change the vectors, or refused: nothing is ignored.

mod bert;
mod decoder;
mod modern_bert;

use std::path::Path;

use motherlode::{Error, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use self::bert::BertConfig;
use self::decoder::DecoderConfig;
use self::modern_bert::ModernBertConfig;
use crate::shape::{Output, Placement, Shape};

/// Keys that say how a model was made, is trained, generates or classifies, but not what its token vectors are.
const WITHOUT_INFLUENCE: &[&str] = &[
    "_attn_implementation_autoset",
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "attention_probs_dropout_prob",
    "bos_token_id",
    "classifier_activation",
    "classifier_bias",
    "classifier_dropout",
    "classifier_pooling",
    "cls_token_id",
    "decoder_bias",
    "deterministic_flash_attn",
    "directionality",
    "dtype",
    "embedding_dropout",
    "eos_token_id",
    "finetuning_task",
    "gradient_checkpointing",
    "hidden_dropout_prob",
    "id2label",
    "initializer_cutoff_factor",
    "initializer_range",
    "label2id",
    "layer_norm_eps",
    "mask_token_id",
    "max_window_layers",
    "mlp_dropout",
    "model_type",
    "num_labels",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "pad_token_id",
    "pooler_fc_size",
    "pooler_num_attention_heads",
    "pooler_num_fc_layers",
    "pooler_size_per_head",
    "pooler_type",
    "position_embedding_type",
    "problem_type",
    "reference_compile",
    "repad_logits_with_grad",
    "return_dict",
    "sep_token_id",
    "sentence_transformers",
    "sparse_pred_ignore_index",
    "sparse_prediction",
    "tie_word_embeddings",
    "tokenizer_class",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "unk_token_id",
    "use_bfloat16",
    "use_cache",
];

/// Keys that change nothing as long as they have this value.
const ONLY: &[(&str, Value)] = &[
    ("add_cross_attention", Value::Bool(false)),
    ("gradient_checkpointing_kwargs", Value::Null),
    ("is_encoder_decoder", Value::Bool(false)),
    ("quantization_config", Value::Null),
];

/// The architectures that this engine computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Family {
    Bert,
    #[serde(rename = "xlm-roberta")]
    XlmRoberta,
    ModernBert,
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
}

#[derive(Debug, Deserialize)]
struct Kinship {
    model_type: Family,
}

#[derive(Debug, Deserialize)]
enum Gelu {
    #[serde(rename = "gelu")]
    Gelu,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum LayerType {
    #[serde(rename = "full_attention")]
    Full,
    #[serde(rename = "sliding_attention")]
    Sliding,
}

#[derive(Debug, Deserialize)]
struct RotaryConfig {
    rope_theta: Option<f64>,
    #[serde(alias = "type")]
    rope_type: Option<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// The shape that `config`, read from `path`, describes.
///
/// # Errors
/// A family, a key or a value that this engine does not compute.
pub(crate) fn read(path: &Path, config: &Value) -> Result<Shape> {
    let shape = match parse::<Kinship>(path, config)?.model_type {
        Family::Bert => parse::<BertConfig>(path, config)?.shape(path, false)?,
        Family::XlmRoberta => parse::<BertConfig>(path, config)?.shape(path, true)?,
        Family::ModernBert => parse::<ModernBertConfig>(path, config)?.shape(path)?,
        // Without the key transformers takes a window of its own.
        Family::Mistral if config.get("sliding_window").is_none() => need(path, "sliding_window", None)?,
        family => parse::<DecoderConfig>(path, config)?.shape(path, family)?,
    };
    shape.check(path)?;
    Ok(shape)
}

/// As [`read`], of a language model: a decoder that sees what is before a token alone.
pub(crate) fn read_language_model(path: &Path, config: &Value) -> Result<Shape> {
    let shape = read(path, config)?;
    if shape.placement != Placement::Before || shape.layers.iter().any(|layer| layer.mask.after > 0) {
        let message = "expected a causal language model (Llama, Mistral, Qwen2, Qwen3), got an encoder";
        return Err(Error::file(path, message));
    }
    // Where the key is missing these families of transformers have a head of their own.
    let tied = config["tie_word_embeddings"] == Value::Bool(true);
    Ok(Shape { output: if tied { Output::Tied } else { Output::Untied }, ..shape })
}

fn parse<T: DeserializeOwned>(path: &Path, config: &Value) -> Result<T> {
    serde_path_to_error::deserialize(config).map_err(|error| {
        Error::file(path, format!("not a configuration of an encoder that this engine computes: {error}"))
    })
}

/// Refuses keys that are not known to be without influence.
fn refuse_unknown(path: &Path, others: &Map<String, Value>) -> Result<()> {
    let known = |key: &str, value: &Value| {
        WITHOUT_INFLUENCE.contains(&key) || ONLY.iter().any(|(only, expected)| *only == key && value == expected)
    };
    match others.iter().find(|(key, value)| !known(key, value)) {
        None => Ok(()),
        Some((key, _)) if key == "auto_map" => Err(Error::file(
            path,
            "expected a model of transformers' own, got `auto_map`: code of the model's folder is not run; remove the \
             key if the vectors are the same without that code",
        )),
        Some((key, value)) => Err(Error::file(
            path,
            format!(
                "got `{key}` {value}, which this engine does not compute; remove it if it does not change the vectors"
            ),
        )),
    }
}

fn head_width(path: &Path, hidden: usize, heads: usize) -> Result<usize> {
    if heads == 0 || !hidden.is_multiple_of(heads) {
        let message = format!("expected `hidden_size` a multiple of `num_attention_heads`, got {hidden} and {heads}");
        return Err(Error::file(path, message));
    }
    Ok(hidden / heads)
}

impl RotaryConfig {
    /// θ of rotary positions that are not scaled.
    fn theta(&self, path: &Path) -> Result<f64> {
        self.plain(path)?;
        need(path, "rope_theta", self.rope_theta)
    }

    fn plain(&self, path: &Path) -> Result<()> {
        if let Some(kind) = self.rope_type.as_ref().filter(|kind| *kind != "default") {
            let message = format!("expected rotary positions that are not scaled, got `rope_type` `{kind}`");
            return Err(Error::file(path, message));
        }
        match self.others.iter().find(|(key, value)| *key != "partial_rotary_factor" || value.as_f64() != Some(1.0)) {
            Some((key, value)) => {
                Err(Error::file(path, format!("expected rotary positions of θ alone, got `{key}` {value}")))
            }
            None => Ok(()),
        }
    }
}

fn of_every_layer(path: &Path, kinds: &[LayerType], layers: usize) -> Result<Vec<LayerType>> {
    if kinds.len() != layers {
        let message = format!("expected `layer_types` of {layers} layers, got {}", kinds.len());
        return Err(Error::file(path, message));
    }
    Ok(kinds.to_vec())
}

fn need<T>(path: &Path, key: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| Error::file(path, format!("expected `{key}`, got none")))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    /// The configuration of a fixture, changed by `edits`; null removes a key.
    fn config(family: &str, edits: Value) -> Value {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(family).join("config.json");
        let mut config: Value = fs::read_to_string(path).unwrap().parse().unwrap();
        let Value::Object(edits) = edits else { panic!("edits are an object") };
        for (key, value) in edits {
            match value {
                Value::Null => _ = config.as_object_mut().unwrap().remove(&key),
                value => config[&key] = value,
            }
        }
        config
    }

    fn error(family: &str, edits: Value) -> String {
        read(Path::new("config.json"), &config(family, edits)).unwrap_err().to_string()
    }

    fn shape(family: &str, edits: Value) -> Shape {
        read(Path::new("config.json"), &config(family, edits)).unwrap()
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        for (family, edits, expected) in [
            ("bert", json!({"unheard_of": 1}), "`unheard_of` 1"),
            ("bert", json!({"auto_map": {"AutoModel": "code.Model"}}), "`auto_map`"),
            ("bert", json!({"add_cross_attention": true}), "`add_cross_attention`"),
            ("llama", json!({"quantization_config": {"bits": 4}}), "`quantization_config`"),
            ("llama", json!({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}), "`yarn`"),
            ("llama", json!({"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": null}), "`linear`"),
            ("llama", json!({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}), "`partial_rotary"),
            ("llama", json!({"rope_parameters": null}), "expected `rope_theta`, got none"),
            ("llama", json!({"hidden_act": "gelu"}), "`gelu`"),
            ("llama", json!({"pretraining_tp": 2}), "`pretraining_tp`"),
            ("llama", json!({"head_dim": 5}), "even number"),
            ("qwen2", json!({"num_key_value_heads": 3}), "a multiple of `num_key_value_heads`"),
            ("qwen2", json!({"num_key_value_heads": null}), "expected `num_key_value_heads`, got none"),
            ("qwen2", json!({"layer_types": ["full_attention"]}), "`layer_types` of 2 layers, got 1"),
            ("qwen2", json!({"layer_types": ["full_attention", "linear_attention"]}), "`linear_attention`"),
            ("qwen2", json!({"attention_bias": true}), "`attention_bias`"),
            ("qwen3", json!({"head_dim": null}), "expected `head_dim`, got none"),
            ("qwen3", json!({"mlp_bias": true}), "`mlp_bias`"),
            ("mistral", json!({"sliding_window": null}), "expected `sliding_window`, got none"),
            ("mistral", json!({"sliding_window": 0}), "`sliding_window`"),
            ("modern-bert", json!({"hidden_activation": "relu"}), "`relu`"),
            ("modern-bert", json!({"rope_parameters": null}), "expected `rope_parameters`, got none"),
            ("modern-bert", json!({"layer_types": null}), "expected `layer_types`, got none"),
        ] {
            let error = error(family, edits);
            assert!(error.starts_with("config.json") && error.contains(expected), "{expected}: {error}");
        }
    }

    #[test]
    fn older_spellings_mean_the_same() {
        let shape_of = |edits| format!("{:?}", shape("llama", edits));
        let older = json!({"rope_parameters": null, "rope_theta": 1000.0, "rope_scaling": {"type": "default"}});
        assert_eq!(shape_of(older), shape_of(json!({})));
        let older = json!({
            "rope_parameters": null, "layer_types": null, "global_rope_theta": 160_000.0, "local_rope_theta": 100.0,
            "global_attn_every_n_layers": 3, "position_embedding_type": "absolute", "layer_norm_eps": 1e-5,
        });
        assert_eq!(format!("{:?}", shape("modern-bert", older)), format!("{:?}", shape("modern-bert", json!({}))));
    }

    #[test]
    fn masks_follow_windows_and_directions() {
        use crate::kernel::mask::Mask;
        let masks =
            |family, edits| -> Vec<Mask> { shape(family, edits).layers.iter().map(|layer| layer.mask).collect() };
        assert_eq!(masks("qwen2", json!({})), [Mask::CAUSAL; 2]);
        assert_eq!(masks("qwen2", json!({"is_causal": false})), [Mask::NONE; 2]);
        assert_eq!(masks("qwen3", json!({})), [Mask::CAUSAL, Mask { before: 3, after: 0 }]);
        let older = json!({"layer_types": null, "max_window_layers": 0, "is_causal": false});
        assert_eq!(masks("qwen3", older), [Mask { before: 4, after: 4 }; 2]);
        assert_eq!(masks("mistral", json!({})), [Mask { before: 4, after: 0 }; 2]);
        let local = Mask { before: 3, after: 3 };
        assert_eq!(masks("modern-bert", json!({})), [Mask::NONE, local, local, Mask::NONE]);
    }
}
