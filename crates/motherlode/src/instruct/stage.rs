//! The stage: select, translate, balance, learn, and the artefact that this makes.

use std::path::Path;

use super::balance::{Balanced, balance};
use super::config::InstructConfig;
use super::export::{Material, export};
use super::learn::{Learner, options};
use super::lesson::{Lesson, exchange, lessons};
use super::read::read;
use super::select::select;
use super::translate::{Translated, translate};
use super::{Dropped, Instruction, Reason};
use crate::artefact::{self, Artefact, Outcome, Recipe, Summary, entries, hash_file};
use crate::corpus::Language;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::lines;
use crate::llm::Llm;
use crate::llm::chat::Chat;
use crate::progress::Progress;
use crate::text::language::{Checker, LanguageCheck};

/// The name of the stage.
pub const STAGE: &str = "instruct";
const FORMAT: u32 = 1;

/// What `instruct` reads.
#[derive(Clone, Copy)]
pub struct InstructInputs<'a> {
    /// The Alpaca-format file.
    pub instructions: &'a Path,
    /// The model to begin with: a folder of Hugging Face's layout with a chat template.
    pub model: &'a Path,
    /// How the model is called in the card.
    pub name: &'a str,
    /// The digest of its content, as [`model_key`] tells it.
    pub model_key: &'a str,
    /// A fastText language identification model, for `instruct.language_check = "fasttext"`.
    pub language_model: Option<&'a Path>,
    /// Opens the model.
    pub engine: &'a dyn Engine,
}

/// The digest of a model's folder: its artefact's key, or else one of its configurations, tokenizer and weights.
///
/// # Errors
/// There is no such folder, or no model in it; an artefact that was changed.
pub fn model_key(folder: &Path) -> Result<String> {
    if folder.join("manifest.json").exists() {
        return Ok(Artefact::open(folder)?.key().to_owned());
    }
    let mut hasher = blake3::Hasher::new();
    let taken = |path: &Path| {
        path.extension().is_some_and(|kind| ["json", "safetensors", "jinja"].iter().any(|taken| kind == *taken))
    };
    let files: Vec<_> = entries(folder)?.into_iter().filter(|path| path.is_file() && taken(path)).collect();
    if files.is_empty() {
        return Err(Error::file(folder, "expected a model of Hugging Face's layout, got no file of one"));
    }
    for path in files {
        hasher.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        hasher.update(hash_file(&path)?.as_bytes());
    }
    Ok(hasher.finalize().to_hex().as_str()[..32].to_owned())
}

/// Translates the instructions, tunes the model on them and writes the artefact `out`.
///
/// # Errors
/// A configuration, file or model that does not fit, before anything is asked; answers that nobody can give; too little
/// memory; a loss, gradient or weight that is not finite (the last checkpoint stays).
pub fn instruct(
    inputs: &InstructInputs,
    config: &InstructConfig,
    seed: u64,
    llm: &Llm,
    out: &Path,
    progress: &Progress,
) -> Result<Artefact> {
    config.validate()?;
    let draft = match artefact::draft(out, recipe(inputs, config, seed)?)? {
        Outcome::UpToDate(artefact) => return Ok(artefact),
        Outcome::Write(draft) => draft,
    };
    let school = School::open(inputs, config, seed)?;
    let lessons = school.lessons(llm, progress)?;
    let scratch = draft.scratch()?;
    let mut learner = Learner::open(inputs.engine, inputs.model, &lessons.lessons, (config, seed), scratch, progress)?;
    learner.run(progress)?;
    export(draft, inputs, config, &lessons, &learner)
}

/// Asks for all translations and writes nothing: with an [`Llm::collecting`] it lays out a batch.
pub fn rehearse(
    inputs: &InstructInputs,
    config: &InstructConfig,
    seed: u64,
    llm: &Llm,
    progress: &Progress,
) -> Result<()> {
    config.validate()?;
    let School { selected, checker, .. } = School::open(inputs, config, seed)?;
    translate(selected, config, &checker, llm, progress).map(drop)
}

fn recipe(inputs: &InstructInputs, config: &InstructConfig, seed: u64) -> Result<Recipe> {
    let mut recipe = Recipe::new(STAGE, FORMAT, config)?
        .seed(seed)
        .input_key("instructions", &hash_file(inputs.instructions)?)
        .input_key("model", inputs.model_key);
    if let (LanguageCheck::Fasttext, Some(path)) = (config.language_check, inputs.language_model) {
        recipe = recipe.input_key("language model", &hash_file(path)?);
    }
    Ok(recipe)
}

/// What was read and checked before anything is asked.
struct School<'a> {
    config: &'a InstructConfig,
    seed: u64,
    selected: Vec<Instruction>,
    dropped: Vec<Dropped>,
    checker: Checker,
    chat: Chat,
    read: usize,
}

impl<'a> School<'a> {
    fn open(inputs: &InstructInputs, config: &'a InstructConfig, seed: u64) -> Result<Self> {
        let all = read(inputs.instructions)?;
        let read = all.len();
        let selected = select(all, config, seed);
        let Some(first) = selected.kept.first() else {
            let message = format!("none of {read} instructions is taken by `instruct.select`; choose another rule");
            return Err(Error::file(inputs.instructions, message));
        };
        let checker = Checker::open(config.language_check, inputs.language_model, config.languages.iter())?;
        let chat = Chat::open_folder(inputs.model)?;
        exchange(first, &chat).map_err(|error| Error::file(inputs.model, error.to_string()))?;
        check_length(inputs.model, config)?;
        // Whether it is a model that can be trained, and whether one instruction fits into memory.
        let options = options(config, seed);
        inputs.engine.language_training_footprint(inputs.model, &options, &[config.max_tokens])?;
        Ok(Self { config, seed, selected: selected.kept, dropped: selected.dropped, checker, chat, read })
    }

    /// Translates, drops what is too long, balances and sets aside.
    fn lessons(self, llm: &Llm, progress: &Progress) -> Result<Material> {
        let Self { config, seed, selected, mut dropped, checker, chat, read } = self;
        let taken = selected.len();
        let Translated { kept, dropped: failed } = translate(selected, config, &checker, llm, progress)?;
        dropped.extend(failed);
        let (kept, long) = lessons(kept, &chat, config.max_tokens)?;
        dropped.extend(long);
        let Balanced { lessons, dropped: surplus, left_out } = balance(kept, config, seed);
        dropped.extend(surplus);
        if lessons.is_empty() {
            return Err(Error::data(format!(
                "no instruction is left to learn of {taken} that were selected; {}",
                most_common(&dropped)
            )));
        }
        let summary = summary(&lessons, &dropped, &left_out, (read, taken));
        Ok(Material { lessons, dropped, summary })
    }
}

/// Refuses `instruct.max_tokens` beyond what the model reads.
fn check_length(folder: &Path, config: &InstructConfig) -> Result<()> {
    let path = folder.join("config.json");
    match lines::json(&path)?["max_position_embeddings"].as_u64() {
        Some(longest) if config.max_tokens as u64 > longest => Err(Error::config(format!(
            "`instruct.max_tokens`: expected at most {longest}, which the model reads, got {}",
            config.max_tokens
        ))),
        _ => Ok(()),
    }
}

/// The reason for which most were dropped.
fn most_common(dropped: &[Dropped]) -> String {
    let count = |reason: Reason| dropped.iter().filter(|it| it.reason == reason).count();
    match dropped.iter().map(|it| it.reason).max_by_key(|reason| (count(*reason), *reason)) {
        Some(reason) => format!("most were dropped for this reason: {} ({})", reason.words(), count(reason)),
        None => "none was dropped".to_owned(),
    }
}

/// What went in, what is learnt, and what was dropped per reason.
fn summary(kept: &[Lesson], dropped: &[Dropped], left_out: &[Language], (read, taken): (usize, usize)) -> Summary {
    let mut summary = Summary::default();
    summary.count("instructions in the file", read);
    summary.count("instructions selected", taken);
    for Lesson { instruction: it, .. } in kept {
        summary.count(if it.validation { "set aside" } else { "learnt" }, 1);
        summary.count(format!("{}: instructions", it.language), 1);
    }
    for it in dropped {
        summary.count(format!("dropped: {}", it.reason.words()), 1);
        summary.count(format!("{}: dropped: {}", it.language, it.reason.words()), 1);
    }
    for language in left_out {
        summary
            .note(format!("{language} is not learnt: too few of its instructions are left (dropped.jsonl says why)"));
    }
    let unpaid = dropped.iter().filter(|it| it.reason == Reason::Budget).count();
    if unpaid > 0 {
        summary.note(format!(
            "the budget ended before {unpaid} translations; with a larger one, remove this folder and run again"
        ));
    }
    summary
}
