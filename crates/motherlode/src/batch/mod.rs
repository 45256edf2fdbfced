//! Batches: which queries, positives and negatives share a step, decided by seed before training begins.
//!
//! Reads the training examples of `sample` and the topics of `topic`. Writes `batches.jsonl`, a [`Step`] a line, and
//! `exposure.json`, how often each language and topic stands among the negatives of all steps.

pub mod exposure;
mod material;
mod plan;
pub mod weights;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::artefact::{self, Artefact, Outcome, Recipe};
use crate::corpus::Language;
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::sample::{Example, Negative};
use crate::topic::Topics;

pub use exposure::Exposure;
pub use plan::{Plan, plan};

/// The name of the stage.
pub const STAGE: &str = "batch";
const FORMAT: u32 = 1;
/// The file of steps.
pub const FILE: &str = "batches.jsonl";

/// One query of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The query's language; equal for all rows of a step unless `batch.language = "mixed"`.
    pub language: Language,
    /// The query's id.
    pub query: String,
    /// The positive of this draw.
    pub positive: String,
    /// The negatives of this draw.
    pub negatives: Vec<Negative>,
    /// Columns of the step whose passage must not count as a negative of this row (see [`Step::columns`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub masked: Vec<u32>,
}

/// One optimiser step: a line of `batches.jsonl` in the artefact of `batch`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Counted from 0 over the whole training.
    pub step: u64,
    /// Counted from 0.
    pub epoch: u32,
    /// The queries of the step.
    pub rows: Vec<Row>,
}

impl Step {
    /// The distinct passages of the step with their language, in order of first use: the columns of the score matrix.
    /// A passage that occurs twice is one column and is encoded once.
    pub fn columns(&self) -> Vec<(&Language, &str)> {
        let mut columns = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for row in &self.rows {
            let passages = std::iter::once(row.positive.as_str())
                .chain(row.negatives.iter().map(|negative| negative.passage.as_str()));
            columns.extend(passages.map(|passage| (&row.language, passage)).filter(|column| seen.insert(*column)));
        }
        columns
    }
}

/// Whether the queries of a step share a language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LanguagePolicy {
    /// One language per step.
    #[default]
    Single,
    /// A language is drawn for each query; for the ablation.
    Mixed,
}

/// Whether the queries of a step are spread over topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TopicPolicy {
    /// Topics are drawn for each query, with a cap per step.
    #[default]
    Balance,
    /// Queries come as shuffled; for the ablation.
    Ignore,
}

/// What happens when a query brings a passage that is relevant to another query of the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Collisions {
    /// Up to 16 queries of the same queue are tried in its place; if each collides, the first is taken and masked.
    #[default]
    Avoid,
    /// The cell (query, passage) is masked.
    Mask,
}

/// The knobs of `batch`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchConfig {
    /// Queries per step, B.
    pub queries: usize,
    /// Negatives that a query brings to a step.
    pub negatives: usize,
    /// Epochs of ⌈n/B⌉ steps.
    pub epochs: u32,
    /// Whether the queries of a step share a language.
    pub language: LanguagePolicy,
    /// γ: a language of n queries is drawn in proportion to n^γ; 1 proportional, 0 uniform.
    pub language_gamma: f64,
    /// Whether the queries of a step are spread over topics.
    pub topic: TopicPolicy,
    /// δ: a topic of m queries is drawn in proportion to m^δ; 1 proportional, 0 uniform.
    pub topic_delta: f64,
    /// What happens when a query brings a passage that is relevant to another query of the step.
    pub collisions: Collisions,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self {
            queries: 24,
            negatives: 7,
            epochs: 20,
            language: LanguagePolicy::default(),
            language_gamma: 0.5,
            topic: TopicPolicy::default(),
            topic_delta: 0.5,
            collisions: Collisions::default(),
        }
    }
}

impl BatchConfig {
    /// Checks the ranges.
    pub fn validate(&self) -> Result<()> {
        if self.queries == 0 || self.epochs == 0 {
            let name = if self.queries == 0 { "queries" } else { "epochs" };
            return Err(Error::config(format!("`batch.{name}`: expected at least 1, got 0")));
        }
        if self.queries == 1 && self.negatives == 0 {
            return Err(Error::config("`batch.negatives`: expected at least 1 where a step has one query, got 0"));
        }
        for (name, value) in [("language_gamma", self.language_gamma), ("topic_delta", self.topic_delta)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::config(format!("`batch.{name}`: expected 0 to 1, got {value}")));
            }
        }
        Ok(())
    }
}

/// What `batch` reads.
#[derive(Debug, Clone, Copy)]
pub struct BatchInputs<'a> {
    /// The passages, for their topics.
    pub dataset: &'a Dataset,
    /// The artefact of `sample`.
    pub examples: &'a Artefact,
    /// The artefact of `topic`.
    pub topics: &'a Artefact,
}

/// All steps of the training, as an artefact.
///
/// # Errors
/// No examples, an example without a positive, or passages that the data set or the topics do not have.
pub fn batch(
    inputs: &BatchInputs,
    config: &BatchConfig,
    seed: u64,
    out: &Path,
    progress: &Progress,
) -> Result<Artefact> {
    config.validate()?;
    let recipe = Recipe::new(STAGE, FORMAT, config)?.seed(seed).input_key("dataset", &inputs.dataset.key);
    let recipe = recipe.input("examples", inputs.examples).input("topics", inputs.topics);
    let mut draft = match artefact::draft(out, recipe)? {
        Outcome::UpToDate(artefact) => return Ok(artefact),
        Outcome::Write(draft) => draft,
    };
    let topics = Topics::open(inputs.topics)?;
    let examples = read_examples(inputs.examples)?;
    let plan = plan(&examples, |language, passage| topics.of(inputs.dataset, language, passage), config, seed)?;
    progress.begin("batch", plan.len(), "steps");
    let told = plan.steps().inspect(|_| progress.advance(1));
    draft.write_lines(FILE, told)?;
    let exposure = plan.exposure();
    draft.write_lines(exposure::FILE, [&exposure])?;
    let mut summary = plan.summary(&topics.labels);
    exposure.summarise(&topics.labels, &mut summary);
    draft.commit(summary)
}

/// The training examples of every language in the artefact of `sample`.
pub fn read_examples(artefact: &Artefact) -> Result<BTreeMap<Language, Vec<Example>>> {
    let mut examples = BTreeMap::new();
    for file in &artefact.manifest().files {
        if let Some(language) = file.path.strip_suffix(".train.jsonl") {
            examples.insert(Language::new(language)?, artefact.read_lines(&file.path)?);
        }
    }
    Ok(examples)
}
