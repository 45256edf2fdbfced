//! Adapters in the files of the Python package `peft`: `adapter_config.json` and `adapter_model.safetensors`.

use std::fs;
use std::path::Path;

use motherlode::engine::LoraConfig;
use motherlode::{Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::adapter::{Adapters, all_parts};
use crate::config::read_json;
use crate::layout::Layout;
use crate::shape::{Output, Shape};
use crate::tiny::write_json;
use crate::trainable_lm::PREFIX;
use crate::weights::{self, PREFIXES};

/// The file that makes a folder one of adapters.
pub(crate) const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// What `peft` puts before the name of a module.
const ROOT: &str = "base_model.model.";

/// Keys that do not change what an adapter computes.
const WITHOUT_INFLUENCE: [&str; 11] = [
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "inference_mode",
    "init_lora_weights",
    "loftq_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "task_type",
];

#[derive(Debug, Deserialize)]
struct AdapterConfig {
    #[serde(rename = "peft_type")]
    _kind: Kind,
    r: usize,
    lora_alpha: f32,
    #[serde(default)]
    lora_dropout: f32,
    target_modules: Targets,
    #[serde(default, rename = "bias")]
    _bias: Bias,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
enum Kind {
    #[serde(rename = "LORA")]
    Lora,
}

#[derive(Debug, Default, Deserialize)]
enum Bias {
    #[default]
    #[serde(rename = "none")]
    None,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Targets {
    Modules(Vec<String>),
    All(AllLinear),
}

#[derive(Debug, Deserialize)]
enum AllLinear {
    #[serde(rename = "all-linear")]
    AllLinear,
}

/// Reads the adapters in `folder`, for an encoder of this shape.
///
/// # Errors
/// Another kind of adapter than LoRA; a setting that this engine does not compute; weights that do not fit.
pub(crate) fn read(folder: &Path, shape: &Shape) -> Result<Adapters> {
    let path = folder.join(CONFIG);
    let config: AdapterConfig = read_json(&path)?;
    // What is off or empty changes nothing.
    let off = |value: &Value| match value {
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        value => matches!(value, Value::Null | Value::Bool(false)),
    };
    let unknown = |(key, value): &(&String, &Value)| !WITHOUT_INFLUENCE.contains(&key.as_str()) && !off(value);
    if let Some((key, value)) = config.others.iter().find(unknown) {
        return Err(Error::file(&path, format!("expected a plain LoRA adapter, got `{key}` {value}")));
    }
    let config = LoraConfig {
        rank: config.r,
        alpha: config.lora_alpha,
        dropout: config.lora_dropout,
        targets: match config.target_modules {
            Targets::Modules(modules) => modules,
            Targets::All(AllLinear::AllLinear) => Vec::new(),
        },
    };
    let mut adapters = Adapters::zero(&config, shape).map_err(|error| Error::file(&path, error.to_string()))?;
    let file = folder.join(WEIGHTS);
    adapters.weights = weights::read_files(
        std::slice::from_ref(&file),
        |shards, tensor| {
            let names = PREFIXES.iter().map(|prefix| format!("{ROOT}{prefix}{}", tensor.name));
            weights::first(shards, names).ok_or_else(|| {
                Error::file(&file, format!("no tensor `{ROOT}{}`; is it an adapter of another model?", tensor.name))
            })
        },
        &adapters.layout,
    )?;
    Ok(adapters)
}

/// Writes adapters of an encoder of this shape into a folder, which is made if there is none.
pub(crate) fn write(folder: &Path, adapters: &Adapters, shape: &Shape) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let LoraConfig { rank, alpha, dropout, ref targets } = adapters.config;
    let targets = if targets.is_empty() { all_parts(shape).collect() } else { targets.clone() };
    let language_model = shape.output != Output::Vectors;
    let prefix = if language_model { PREFIX } else { "" };
    let config = json!({
        "peft_type": "LORA",
        "task_type": if language_model { "CAUSAL_LM" } else { "FEATURE_EXTRACTION" },
        "base_model_name_or_path": null,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": dropout,
        "target_modules": targets,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
    });
    let mut tensors = adapters.layout.tensors.clone();
    tensors.iter_mut().for_each(|tensor| tensor.name = format!("{ROOT}{prefix}{}", tensor.name));
    weights::write(&folder.join(WEIGHTS), &Layout::of(tensors), &adapters.weights)?;
    write_json(&folder.join(CONFIG), &config)
}
