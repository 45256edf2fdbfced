//! Training: fine-tunes an encoder on planned batches and keeps the weights that validate best.
//!
//! Reads the data set, the plan (`batches.jsonl` of `batch`), the validation queries (`LANG.validation.jsonl` of
//! `sample`), the topics and a base model. Writes a complete sentence-transformers folder with `log.jsonl` (a line a
//! step) and `validation.jsonl` (a line a validation); the same, as it goes on, for TensorBoard and in `metrics.jsonl`. The untouched model is validated first and may win.
//!
//! Killed at any moment and started again, a training goes on from its last checkpoint and ends in the same bytes.

pub mod checkpoint;
mod config;
mod export;
pub mod loss;
mod model;
pub mod schedule;
mod steps;
pub mod teacher;
mod texts;
mod trainer;
mod validate;
mod watch;

use std::path::Path;

pub use self::config::{DistillationConfig, Every, Pool, TrainConfig, ValidationConfig};
use self::export::{Trained, export};
pub use self::model::footprint;
use self::trainer::Trainer;
use crate::artefact::{self, Artefact, Outcome, Recipe};
use crate::dataset::Dataset;
use crate::encode::EncoderConfig;
use crate::engine::Engine;
use crate::error::Result;
use crate::progress::Progress;

/// The name of the stage.
pub const STAGE: &str = "train";
const FORMAT: u32 = 1;

/// The model that is fine-tuned.
#[derive(Debug, Clone, Copy)]
pub struct BaseModel<'a> {
    /// A sentence-transformers folder.
    pub folder: &'a Path,
    /// How the model is called in the model card, such as `intfloat/multilingual-e5-small`.
    pub name: &'a str,
    /// The digest of its content.
    pub key: &'a str,
    /// What its reader must know, such as that its weights are rounded; the trained model says it, too.
    pub notes: &'a [String],
}

/// What `train` reads.
#[derive(Clone, Copy)]
pub struct TrainInputs<'a> {
    /// Passages, train queries and their judgements.
    pub dataset: &'a Dataset,
    /// The plan: the artefact of `batch`.
    pub batches: &'a Artefact,
    /// The validation queries: the artefact of `sample`.
    pub examples: &'a Artefact,
    /// The topics of the passages, for the weights: the artefact of `topic`.
    pub topics: &'a Artefact,
    /// The artefact of `mine`, for a reduced validation pool and for distillation from the untouched model.
    pub candidates: Option<&'a Artefact>,
    /// The artefact of `judge`, for distillation from the judge.
    pub judgements: Option<&'a Artefact>,
    /// The model to begin with.
    pub base: BaseModel<'a>,
    /// How texts are put to the encoder, and how much of it is kept.
    pub encoder: &'a EncoderConfig,
    /// Opens the model.
    pub engine: &'a dyn Engine,
    /// Where TensorBoard's event file and `metrics.jsonl` go while training runs, if anybody watches.
    pub watched: Option<&'a Path>,
}

/// Fine-tunes the base model and writes the best weights as a sentence-transformers folder into `out`.
///
/// # Errors
/// A configuration or input that does not fit; too little memory; a loss, gradient or weight that
/// is not finite (the last checkpoint stays).
pub fn train(
    inputs: &TrainInputs<'_>,
    config: &TrainConfig,
    seed: u64,
    out: &Path,
    progress: &Progress<'_>,
) -> Result<Artefact> {
    config.validate()?;
    let draft = match artefact::draft(out, recipe(inputs, config, seed)?)? {
        Outcome::UpToDate(artefact) => return Ok(artefact),
        Outcome::Write(draft) => draft,
    };
    let mut trainer = Trainer::open(inputs, config, seed, draft.scratch()?)?;
    trainer.run(progress)?;
    let (weights, planned) = (trainer.chosen_weights()?, trainer.steps.len());
    let summary = trainer.summary(inputs);
    export(draft, inputs, config, &Trained { weights, state: &trainer.state, planned, summary })
}

fn recipe(inputs: &TrainInputs<'_>, config: &TrainConfig, seed: u64) -> Result<Recipe> {
    let config = serde_json::json!({ "train": config, "encoder": inputs.encoder });
    let mut recipe = Recipe::new(STAGE, FORMAT, &config)?
        .seed(seed)
        .input_key("dataset", &inputs.dataset.key)
        .input_key("model", inputs.base.key)
        .input("batches", inputs.batches)
        .input("examples", inputs.examples)
        .input("topics", inputs.topics);
    for (role, artefact) in [("candidates", inputs.candidates), ("judgements", inputs.judgements)] {
        if let Some(artefact) = artefact {
            recipe = recipe.input(role, artefact);
        }
    }
    Ok(recipe)
}

#[cfg(test)]
mod tests;
