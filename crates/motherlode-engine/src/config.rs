//! What a model's folder says about an encoder: its shape, its modules, its pooling.
//!
//! Reads a sentence-transformers folder, or a Hugging Face folder to which `1_Pooling/config.json` was added. Nothing
//! is guessed: a value that this engine does not compute is refused, with what it takes.

use std::fs;
use std::path::{Path, PathBuf};

use motherlode::engine::LoadOptions;
use motherlode::{Error, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::families;
use crate::kernel::pooling::{Head, Pooling};
use crate::peft;
use crate::shape::Shape;

#[derive(Debug, Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

/// An encoder's folder, read and checked except for its weights.
#[derive(Debug, Clone)]
pub(crate) struct ModelFolder {
    /// The folder of the weights.
    pub(crate) weights: PathBuf,
    pub(crate) shape: Shape,
    pub(crate) head: Head,
    /// Adapters that lie beside the weights and belong to the model.
    pub(crate) adapter: Option<PathBuf>,
    /// `config.json` as it stands there, with the number of layers that are kept.
    pub(crate) config: Value,
}

impl ModelFolder {
    /// Reads the configuration files of `folder` and keeps as many layers as `options` say.
    pub(crate) fn open(folder: &Path, options: &LoadOptions) -> Result<Self> {
        let modules = Modules::read(folder)?;
        let path = modules.transformer.join("config.json");
        let mut config: Value = read_json(&path)?;
        let mut shape = families::read(&path, &config)?;
        keep_layers(folder, &mut shape, &mut config, options.layers)?;
        let head = Head {
            pooling: read_pooling(&modules.pooling, shape.hidden)?,
            normalise: modules.normalise,
            hidden: shape.hidden,
        };
        Ok(Self { adapter: adapter(&modules.transformer), weights: modules.transformer, shape, head, config })
    }
}

impl ModelFolder {
    /// Reads the configuration of a language model in a Hugging Face folder; what is said of pooling means nothing there.
    pub(crate) fn language_model(folder: &Path, options: &LoadOptions) -> Result<Self> {
        let path = folder.join("config.json");
        let mut config: Value = read_json(&path)?;
        let mut shape = families::read_language_model(&path, &config)?;
        keep_layers(folder, &mut shape, &mut config, options.layers)?;
        let head = Head { pooling: Pooling::Last, normalise: false, hidden: shape.hidden };
        Ok(Self { adapter: adapter(folder), weights: folder.to_path_buf(), shape, head, config })
    }
}

/// The folder itself, if adapters lie in it: transformers lays them over the weights, too.
fn adapter(folder: &Path) -> Option<PathBuf> {
    folder.join(peft::CONFIG).exists().then(|| folder.to_path_buf())
}

/// Drops the layers behind the first `asked` ones.
fn keep_layers(folder: &Path, shape: &mut Shape, config: &mut Value, asked: Option<usize>) -> Result<()> {
    let (present, Some(layers)) = (shape.layers.len(), asked) else { return Ok(()) };
    if !(1..=present).contains(&layers) {
        let message = format!("{}: expected `layers` from 1 to {present}, got {layers}", folder.display());
        return Err(Error::config(message));
    }
    shape.layers.truncate(layers);
    config["num_hidden_layers"] = layers.into();
    if let Some(kinds) = config.get_mut("layer_types").and_then(Value::as_array_mut) {
        kinds.truncate(layers);
    }
    Ok(())
}

/// Reads a JSON file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).map_err(Error::io(path))?;
    serde_json::from_str(&text).map_err(|error| refuse(path, &error))
}

fn refuse(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::file(path, format!("not a configuration of an encoder that this engine computes: {error}"))
}

/// Where the parts of a sentence-transformers model lie.
struct Modules {
    transformer: PathBuf,
    /// The pooling configuration.
    pooling: PathBuf,
    normalise: bool,
}

impl Modules {
    fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("modules.json");
        if !path.exists() {
            return Self::without_list(folder);
        }
        let modules: Vec<Module> = read_json(&path)?;
        let kinds: Vec<&str> = modules.iter().map(|module| module.kind.rsplit('.').next().unwrap_or("")).collect();
        let normalise = match kinds.as_slice() {
            ["Transformer", "Pooling"] => false,
            ["Transformer", "Pooling", "Normalize"] => true,
            other => {
                let expected = "expected the modules Transformer, Pooling and perhaps Normalize";
                return Err(Error::file(&path, format!("{expected}, got {}", other.join(", "))));
            }
        };
        Ok(Self {
            transformer: folder.join(&modules[0].path),
            pooling: folder.join(&modules[1].path).join("config.json"),
            normalise,
        })
    }

    fn without_list(folder: &Path) -> Result<Self> {
        let pooling = folder.join("1_Pooling").join("config.json");
        if !pooling.exists() {
            let message = "expected modules.json or 1_Pooling/config.json, which say how token vectors become the \
                           vector of a text, got neither; add them as sentence-transformers writes them";
            return Err(Error::file(folder, message));
        }
        let normalise = folder.join("2_Normalize").is_dir();
        Ok(Self { transformer: folder.to_path_buf(), pooling, normalise })
    }
}

/// Reads the pooling mode in either of the two spellings of sentence-transformers.
fn read_pooling(path: &Path, hidden: usize) -> Result<Pooling> {
    let config: Value = read_json(path)?;
    if let Some(width) = config["word_embedding_dimension"].as_u64()
        && width != hidden as u64
    {
        return Err(Error::shape(format!("{}: word_embedding_dimension", path.display()), hidden, width));
    }
    if config["include_prompt"] == Value::Bool(false) {
        return Err(Error::file(path, "expected prompts to be pooled with the text, got `include_prompt` false"));
    }
    match pooling_modes(&config).as_slice() {
        ["cls" | "cls_token"] => Ok(Pooling::Cls),
        ["mean" | "mean_tokens"] => Ok(Pooling::Mean),
        ["lasttoken"] => Ok(Pooling::Last),
        modes => Err(Error::file(
            path,
            format!("expected pooling of the cls token, the last token or the mean of the tokens, got {modes:?}"),
        )),
    }
}

fn pooling_modes(config: &Value) -> Vec<&str> {
    if let Some(mode) = config["pooling_mode"].as_str() {
        return vec![mode];
    }
    let flags = config.as_object().into_iter().flatten();
    flags
        .filter(|(_, on)| **on == Value::Bool(true))
        .filter_map(|(name, _)| name.strip_prefix("pooling_mode_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiny::write_tiny_encoder;

    fn tiny() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        write_tiny_encoder(folder.path(), 20, 8, 3, 1).unwrap();
        folder
    }

    fn edit(folder: &Path, file: &str, change: impl FnOnce(&mut Value)) {
        let path = folder.join(file);
        let mut value: Value = read_json(&path).unwrap();
        change(&mut value);
        fs::write(path, value.to_string()).unwrap();
    }

    fn error(folder: &Path) -> String {
        ModelFolder::open(folder, &LoadOptions::default()).unwrap_err().to_string()
    }

    #[test]
    fn reads_shapes_pooling_and_normalisation() {
        let folder = tiny();
        let model = ModelFolder::open(folder.path(), &LoadOptions { layers: Some(2), ..Default::default() }).unwrap();
        assert_eq!((model.shape.vocabulary, model.shape.hidden, model.shape.layers.len()), (20, 8, 2));
        assert_eq!(model.config["num_hidden_layers"], 2);
        assert_eq!(model.head.pooling, Pooling::Mean);
        assert!(model.head.normalise);
    }

    #[test]
    fn positions_start_behind_the_padding_id_for_xlm_roberta_only() {
        let folder = tiny();
        let open = || ModelFolder::open(folder.path(), &LoadOptions::default()).unwrap().shape;
        edit(folder.path(), "config.json", |config| config["pad_token_id"] = 3.into());
        assert_eq!(open().tables.first_position, 0);
        edit(folder.path(), "config.json", |config| config["model_type"] = "xlm-roberta".into());
        let shape = open();
        assert_eq!((shape.tables.first_position, shape.longest), (4, shape.tables.positions - 4));
    }

    #[test]
    fn unsupported_values_are_refused_by_name() {
        for (key, value, expected) in [
            ("model_type", Value::from("gpt2"), "`gpt2`"),
            ("hidden_act", "relu".into(), "`relu`"),
            ("position_embedding_type", "relative_key".into(), "`relative_key`"),
            ("num_attention_heads", 3.into(), "a multiple"),
            ("hidden_size", 0.into(), "`hidden_size`"),
            ("vocab_size", Value::Null, "null"),
            ("is_decoder", true.into(), "`is_decoder`"),
        ] {
            let folder = tiny();
            edit(folder.path(), "config.json", |config| config[key] = value);
            let error = error(folder.path());
            assert!(error.contains("config.json") && error.contains(expected), "{key}: {error}");
        }
    }

    #[test]
    fn layers_outside_the_model_are_refused() {
        let folder = tiny();
        for layers in [0, 4] {
            let options = LoadOptions { layers: Some(layers), ..Default::default() };
            let error = ModelFolder::open(folder.path(), &options).unwrap_err().to_string();
            assert!(error.contains("from 1 to 3") && error.contains(&format!("got {layers}")), "{error}");
        }
    }

    #[test]
    fn a_folder_that_does_not_say_how_to_pool_is_refused_with_the_remedy() {
        let folder = tiny();
        fs::remove_file(folder.path().join("modules.json")).unwrap();
        let model = ModelFolder::open(folder.path(), &LoadOptions::default()).unwrap();
        assert!(model.head.normalise);
        fs::remove_dir(folder.path().join("2_Normalize")).unwrap();
        let model = ModelFolder::open(folder.path(), &LoadOptions::default()).unwrap();
        assert!(!model.head.normalise);
        fs::remove_file(folder.path().join("1_Pooling/config.json")).unwrap();
        assert!(error(folder.path()).contains("add them as sentence-transformers writes them"));
    }

    #[test]
    fn other_modules_and_poolings_are_refused() {
        let folder = tiny();
        edit(folder.path(), "1_Pooling/config.json", |config| config["pooling_mode_max_tokens"] = true.into());
        assert!(error(folder.path()).contains("max_tokens"));
        edit(folder.path(), "1_Pooling/config.json", |config| *config = serde_json::json!({"pooling_mode": "cls"}));
        let model = ModelFolder::open(folder.path(), &LoadOptions::default()).unwrap();
        assert_eq!(model.head.pooling, Pooling::Cls);
        edit(folder.path(), "modules.json", |modules| modules[2]["type"] = "sentence_transformers.models.Dense".into());
        assert!(error(folder.path()).contains("Dense"));
    }
}
