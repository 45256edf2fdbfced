//! The trained model as a complete sentence-transformers folder: weights, tokenizer, pooling, prompts, model card.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::checkpoint::LoopState;
use super::{TrainConfig, TrainInputs};
use crate::artefact::{Artefact, Draft, Summary, entries};
use crate::engine::ADAPTER;
use crate::error::Result;
use crate::index::exact::Similarity;
use crate::lines;
use crate::text::prompts::{PROMPTS_FILE, Prompts};
use crate::untied::{self, PASSAGE_MODEL, QUERY_MODEL};

/// Files that are taken over as they are, where the base model has them.
const COPIED: [&str; 8] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "sentencepiece.bpe.model",
    "spiece.model",
    "vocab.txt",
    "merges.txt",
];
const MODULES: &str = "modules.json";
const LENGTHS: &str = "sentence_bert_config.json";

/// What a finished training has to show.
pub(super) struct Trained<'a> {
    /// The folder with the chosen weights, as the engine saved them.
    pub(super) weights: PathBuf,
    /// The logs.
    pub(super) state: &'a LoopState,
    /// Planned steps.
    pub(super) planned: u64,
    /// What the stage counted.
    pub(super) summary: Summary,
}

/// Fills the draft and finishes it.
pub(super) fn export(
    mut draft: Draft,
    inputs: &TrainInputs<'_>,
    config: &TrainConfig,
    trained: &Trained<'_>,
) -> Result<Artefact> {
    let base = inputs.base.folder;
    let is_untied = untied::encoders(base)?.passages.is_some();
    if is_untied {
        for name in [QUERY_MODEL, PASSAGE_MODEL] {
            let (base, weights, place) = (&base.join(name), &trained.weights.join(name), &format!("{name}/"));
            Encoder { base, weights, place }.export(&mut draft, inputs, config)?;
        }
    } else {
        Encoder { base, weights: &trained.weights, place: "" }.export(&mut draft, inputs, config)?;
    }
    let card = model_card(inputs, trained, is_untied);
    draft.write_text("README.md", &card)?;
    draft.write_lines("log.jsonl", &trained.state.log)?;
    draft.write_lines("validation.jsonl", &trained.state.validations)?;
    draft.commit(trained.summary.clone())
}

/// An encoder of the model.
struct Encoder<'a> {
    /// The folder of the base model's.
    base: &'a Path,
    /// The folder in which the engine saved it.
    weights: &'a Path,
    /// What its files' names begin with.
    place: &'a str,
}

impl Encoder<'_> {
    fn export(&self, draft: &mut Draft, inputs: &TrainInputs<'_>, config: &TrainConfig) -> Result<()> {
        let Self { base, place, .. } = *self;
        for (name, path) in saved(self.weights)? {
            draft.copy(&format!("{place}{name}"), &path)?;
        }
        for name in COPIED.into_iter().filter(|name| base.join(name).exists()) {
            draft.copy(&format!("{place}{name}"), &base.join(name))?;
        }
        self.write_modules(draft, config.similarity)?;
        write_json(draft, &format!("{place}{LENGTHS}"), &lengths(base, inputs)?)?;
        write_json(draft, &format!("{place}{PROMPTS_FILE}"), &prompts(base, inputs, config.similarity)?)
    }

    /// Takes over the list of modules and their folders; a base without one is mean-pooled, and scaled for cosine.
    fn write_modules(&self, draft: &mut Draft, similarity: Similarity) -> Result<()> {
        let Self { base, place, .. } = *self;
        let module = |number: usize, path: &str, kind: &str| {
            let kind = format!("sentence_transformers.models.{kind}");
            json!({ "idx": number, "name": number.to_string(), "path": path, "type": kind })
        };
        let present = read_json(&base.join(MODULES))?;
        let modules = present.unwrap_or_else(|| {
            let mut modules = vec![module(0, "", "Transformer"), module(1, "1_Pooling", "Pooling")];
            if similarity == Similarity::Cosine {
                modules.push(module(2, "2_Normalize", "Normalize"));
            }
            Value::Array(modules)
        });
        write_json(draft, &format!("{place}{MODULES}"), &modules)?;
        let folders = modules.as_array().into_iter().flatten().filter_map(|module| module["path"].as_str());
        for folder in folders.filter(|folder| is_module_folder(folder) && base.join(folder).is_dir()) {
            for path in entries(&base.join(folder))?.into_iter().filter(|path| is_plain(path)) {
                let name = format!("{place}{folder}/{}", path.file_name().unwrap_or_default().to_string_lossy());
                draft.copy(&name, &path)?;
            }
        }
        Ok(())
    }
}

/// What the engine saved: files, and the files of the folder of adapters.
fn saved(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let named = |path: PathBuf| (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), path);
    let mut files: Vec<(String, PathBuf)> = entries(folder)?.into_iter().map(named).collect();
    files.retain(|(name, _)| name != ADAPTER);
    let adapter = folder.join(ADAPTER);
    let adapters = if adapter.exists() { entries(&adapter)? } else { Vec::new() };
    files.extend(adapters.into_iter().map(named).map(|(name, path)| (format!("{ADAPTER}/{name}"), path)));
    Ok(files)
}

fn write_json(draft: &mut Draft, name: &str, value: &Value) -> Result<()> {
    draft.write_text(name, &format!("{value:#}\n"))
}

fn read_json(path: &Path) -> Result<Option<Value>> {
    path.exists().then(|| lines::json(path)).transpose()
}

/// A folder right below the model's, so that no list of modules reaches outside.
fn is_module_folder(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '\\']) && !name.starts_with('.')
}

/// Never code, never pickles.
fn is_plain(path: &Path) -> bool {
    path.is_file() && path.extension().is_some_and(|extension| extension == "json" || extension == "safetensors")
}

/// `max_seq_length` is the longer of what queries and passages were cut to while training.
fn lengths(base: &Path, inputs: &TrainInputs<'_>) -> Result<Value> {
    let mut lengths = read_json(&base.join(LENGTHS))?.unwrap_or_else(|| json!({ "do_lower_case": false }));
    lengths["max_seq_length"] = inputs.encoder.query_length.max(inputs.encoder.passage_length).into();
    Ok(lengths)
}

/// The prompts that training used, under the names that sentence-transformers looks for.
fn prompts(base: &Path, inputs: &TrainInputs<'_>, similarity: Similarity) -> Result<Value> {
    let path = base.join(PROMPTS_FILE);
    let mut content = read_json(&path)?.unwrap_or_else(|| json!({ "default_prompt_name": null }));
    let mut used = Prompts::open(base)?;
    used.query = inputs.encoder.query_prefix.clone().unwrap_or(used.query);
    used.passage = inputs.encoder.passage_prefix.clone().unwrap_or(used.passage);
    let mut prompts = Map::new();
    for (name, prompt) in [("query", &used.query), ("document", &used.passage), ("passage", &used.passage)] {
        prompts.insert(name.to_owned(), prompt.as_str().into());
    }
    content["prompts"] = prompts.into();
    content["similarity_fn_name"] = match similarity {
        Similarity::Cosine => "cosine".into(),
        Similarity::Dot => "dot".into(),
    };
    Ok(content)
}

/// The README of a model folder: what it is, where it comes from, how it validated.
fn model_card(inputs: &TrainInputs<'_>, trained: &Trained<'_>, is_untied: bool) -> String {
    let state = trained.state;
    let languages: BTreeSet<&str> =
        state.log.iter().map(|record| record.language.as_str()).filter(|language| *language != "mixed").collect();
    let mut card = String::from("---\nlibrary_name: sentence-transformers\npipeline_tag: sentence-similarity\n");
    card.push_str("tags:\n- sentence-transformers\n- dense-retrieval\n- motherlode\n");
    if !languages.is_empty() {
        card.push_str("language:\n");
        languages.iter().for_each(|language| _ = writeln!(card, "- {language}"));
    }
    _ = writeln!(card, "---\n\n# Fine-tuned from {}\n", inputs.base.name);
    _ = writeln!(
        card,
        "A dense retriever, fine-tuned by Motherlode from `{}` (key `{}`) on the batches `{}`.\n",
        inputs.base.name,
        inputs.base.key,
        inputs.batches.key()
    );
    let chosen = state.best.unwrap_or(state.step);
    _ = writeln!(
        card,
        "- steps: {} of {} planned; these are the weights after step {chosen}",
        state.step, trained.planned
    );
    _ = writeln!(
        card,
        "- queries are cut at {} tokens, passages at {}",
        inputs.encoder.query_length, inputs.encoder.passage_length
    );
    trained.summary.notes.iter().for_each(|note| _ = writeln!(card, "- {note}"));
    card.push_str(&validation_table(state));
    card.push_str("\n```python\nfrom sentence_transformers import SentenceTransformer\n\n");
    let [queries, passages] = if is_untied {
        [QUERY_MODEL, PASSAGE_MODEL].iter().for_each(|name| {
            _ = writeln!(card, "{name} = SentenceTransformer(\"this folder/{name}\")");
        });
        [QUERY_MODEL, PASSAGE_MODEL]
    } else {
        card.push_str("model = SentenceTransformer(\"this folder\")\n");
        ["model"; 2]
    };
    _ = writeln!(
        card,
        "similarity = {queries}.similarity({queries}.encode_query([\"…\"]), {passages}.encode_document([\"…\"]))\n```"
    );
    card
}

fn validation_table(state: &LoopState) -> String {
    let (Some(first), Some(best)) = (state.validations.first(), state.best_validation()) else { return String::new() };
    let mut table = String::from("\nnDCG@10 on the validation queries, by which the weights were chosen:\n\n");
    table.push_str("| language | untouched | these weights |\n| --- | --- | --- |\n");
    for (language, value) in &best.languages {
        let untouched = first.languages.get(language).copied().unwrap_or_default();
        _ = writeln!(table, "| {language} | {untouched:.4} | {value:.4} |");
    }
    _ = writeln!(table, "| mean | {:.4} | {:.4} |", first.macro_average, best.macro_average);
    table
}
