//! Random encoders on disk, for tests and measurements of code that opens models.

use std::fs;
use std::path::Path;

use motherlode::artefact::write_whole;
use motherlode::{Error, Result, random};
use rand::RngExt;
use serde_json::{Value, json};

use crate::families;
use crate::layout::{Layout, Tensor};
use crate::trainable_lm::named;
use crate::weights;

/// Sequences may have this many tokens.
const POSITIONS: usize = 64;

/// Writes a random BERT encoder as a sentence-transformers folder: mean pooling, unit length, no tokenizer.
///
/// Heads are 4 values wide where `hidden` is a multiple of 4, else there is one; the feed-forward part has 4 × `hidden` values.
/// Word embeddings dominate, so that even the random model tells texts with different tokens apart.
pub fn write_tiny_encoder(folder: &Path, vocabulary: usize, hidden: usize, layers: usize, seed: u64) -> Result<()> {
    let config = json!({
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": if hidden.is_multiple_of(4) { hidden / 4 } else { 1 },
        "intermediate_size": 4 * hidden,
        "hidden_act": "gelu",
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
    });
    write_random_encoder(folder, &config, seed)
}

/// Writes a random language model of the Llama family: `config.json` and weights, no tokenizer.
///
/// Heads are 8 values wide, two to a group of keys; the feed-forward part has 2 × `hidden` values. The head is tied to the
/// word embeddings. Texts may have `longest` tokens.
pub fn write_tiny_language_model(
    folder: &Path,
    vocabulary: usize,
    (hidden, layers): (usize, usize),
    longest: usize,
    seed: u64,
) -> Result<()> {
    let config = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden / 8,
        "num_key_value_heads": hidden / 16,
        "head_dim": 8,
        "intermediate_size": 2 * hidden,
        "hidden_act": "silu",
        "max_position_embeddings": longest,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": true,
    });
    let path = folder.join("config.json");
    let layout = named(&Layout::new(&families::read_language_model(&path, &config)?));
    write_json(&path, &config)?;
    weights::write(&folder.join("model.safetensors"), &layout, &random_weights(&layout, seed))
}

/// Writes a random encoder with this `config.json` as a sentence-transformers folder: mean pooling, unit length, no tokenizer.
///
/// # Errors
/// A configuration that this engine does not compute.
pub fn write_random_encoder(folder: &Path, config: &Value, seed: u64) -> Result<()> {
    let layout = Layout::new(&families::read(&folder.join("config.json"), config)?);
    let modules: Vec<Value> = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
        .iter()
        .enumerate()
        .map(|(index, (path, kind))| {
            json!({"idx": index, "name": index.to_string(), "path": path, "type": format!("sentence_transformers.models.{kind}")})
        })
        .collect();
    let pooling = json!({"word_embedding_dimension": config["hidden_size"], "pooling_mode_mean_tokens": true});
    let normalise = folder.join("2_Normalize");
    fs::create_dir_all(&normalise).map_err(Error::io(&normalise))?;
    write_json(&folder.join("config.json"), config)?;
    write_json(&folder.join("modules.json"), &modules.into())?;
    write_json(&folder.join("1_Pooling").join("config.json"), &pooling)?;
    weights::write(&folder.join("model.safetensors"), &layout, &random_weights(&layout, seed))
}

/// Writes a JSON file, indented, whole or not at all.
pub(crate) fn write_json(path: &Path, value: &Value) -> Result<()> {
    write_whole(path, |output| {
        serde_json::to_writer_pretty(output, value).map_err(|error| Error::file(path, error.to_string()))
    })
}

fn random_weights(layout: &Layout, seed: u64) -> Vec<f32> {
    let mut values = vec![0.0; layout.parameters()];
    for tensor in &layout.tensors {
        let mut random = random::keyed(seed, "tiny encoder", &tensor.name);
        let (centre, spread) = distribution(tensor);
        for value in &mut values[tensor.place.clone()] {
            *value = centre + spread * random.random_range(-1.0..1.0_f32);
        }
    }
    values
}

/// Centre and greatest distance from it of the values of a tensor.
fn distribution(tensor: &Tensor) -> (f32, f32) {
    match tensor.name.as_str() {
        "embeddings.word_embeddings.weight" => (0.0, 1.0),
        name if name.starts_with("embeddings.") && tensor.decays => (0.0, 0.1),
        name if name.ends_with("weight") && !tensor.decays => (1.0, 0.1),
        _ if tensor.decays => (0.0, (tensor.shape[1] as f32).sqrt().recip()),
        _ => (0.0, 0.1),
    }
}
