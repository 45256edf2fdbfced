//! Mining: from a fused run to candidates for hard negatives, with every positive and its twins removed.
//!
//! Reads the fused run, the members' runs (for evidence) and the vectors of the untouched model that is to be tuned (for
//! the scores that the baseline miners need). Writes `LANG.jsonl`, one line of [`QueryCandidates`] a query.

pub mod filter;

use serde::{Deserialize, Serialize};

use crate::artefact::{Artefact, Outcome, Recipe, Summary, draft};
use crate::dataset::{Dataset, Partition, Split};
use crate::encode::{Vectors, VectorsOf};
use crate::error::{Error, Result};
use crate::index::exact::Similarity;
use crate::progress::Progress;
use crate::queries::QueryIndex;
use crate::run::Run;
use crate::search::open_run;

pub use candidates::{Lists, Miners, Removed};

/// What one retriever said of a candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The retriever's name in the recipe.
    pub retriever: String,
    /// Its rank in that retriever's list, from 1.
    pub rank: u32,
    /// That retriever's score.
    pub score: f32,
}

/// A passage that may become a hard negative of a query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The passage's id.
    pub passage: String,
    /// Rank in the fused list after positives were removed, from 1.
    pub rank: u32,
    /// Score of the fused list.
    pub score: f32,
    /// Cosine (or dot product) under the untouched model that is to be tuned.
    pub model_score: f32,
    /// Grade by people, where they judged the pair; always 0 or below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub human_grade: Option<i32>,
    /// What each retriever that listed it said.
    pub evidence: Vec<Evidence>,
}

/// The candidates of one query: a line of `LANG.jsonl` in the artefact of `mine`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueryCandidates {
    /// The query's id.
    pub query: String,
    /// Its positives with their score under the untouched model, best first.
    pub positives: Vec<(String, f32)>,
    /// The candidates by rank.
    pub candidates: Vec<Candidate>,
}

/// The knobs of section `[mine]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MineConfig {
    /// K: candidates a query.
    pub depth: usize,
    /// Further candidates behind the first K, which fill up queries that fall short of negatives.
    pub deeper: usize,
    /// How the untouched model compares vectors.
    pub similarity: Similarity,
}

impl Default for MineConfig {
    fn default() -> Self {
        Self { depth: 40, deeper: 0, similarity: Similarity::Cosine }
    }
}

impl MineConfig {
    /// Checks ranges.
    pub fn validate(&self) -> Result<()> {
        if self.depth == 0 { Err(Error::config("`mine.depth`: expected 1 or more, got 0")) } else { Ok(()) }
    }
}

/// What is mined.
#[derive(Clone, Copy)]
pub struct MineInputs<'a> {
    /// The data set.
    pub dataset: &'a Dataset,
    /// Which queries.
    pub split: Split,
    /// The fused run.
    pub fused: &'a Artefact,
    /// The members' names and runs.
    pub members: &'a [(&'a str, &'a Artefact)],
    /// Vectors of the untouched model that is to be tuned.
    pub embeddings: &'a Artefact,
}

/// Writes the candidates as an artefact of stage `mine`.
///
/// # Errors
/// A run or vectors that do not belong to the data set.
pub fn mine(inputs: MineInputs<'_>, config: &MineConfig, out: &Path, progress: &Progress<'_>) -> Result<Artefact> {
    config.validate()?;
    let mut recipe = Recipe::new("mine", 1, config)?.input_key("dataset", &inputs.dataset.key);
    recipe = recipe.input("fused", inputs.fused).input("embeddings", inputs.embeddings).input_key("split", inputs.split.name());
    for (name, run) in inputs.members {
        recipe = recipe.input(&format!("member {name}"), run);
    }
    let mut draft = match draft(out, recipe)? {
        Outcome::UpToDate(artefact) => return Ok(artefact),
        Outcome::Write(draft) => draft,
    };
    let mut summary = Summary::default();
    let mut agreement = agreement::Agreement::new(inputs.members.iter().map(|(name, _)| *name));
    for partition in inputs.dataset.partitions.iter().filter(|partition| partition.has(inputs.split)) {
        let mined = mine_partition(inputs, config, partition, &mut agreement, progress)?;
        count(&mut summary, config, &mined);
        draft.write_lines(&format!("{}.jsonl", partition.language), mined.into_iter().map(|(candidates, _)| candidates))?;
    }
    agreement.report(&mut summary);
    draft.commit(summary)
}

fn mine_partition(
    inputs: MineInputs<'_>,
    config: &MineConfig,
    partition: &Partition,
    agreement: &mut agreement::Agreement<'_>,
    progress: &Progress<'_>,
) -> Result<Vec<(QueryCandidates, Removed)>> {
    let judged = partition.split(inputs.split)?;
    let fused = open_run(inputs.fused, inputs.dataset, &partition.language, inputs.split)?;
    let names = inputs.members.iter().map(|(name, _)| *name);
    let runs: Vec<Run> = inputs.members.iter().map(|(_, run)| open_run(run, inputs.dataset, &partition.language, inputs.split)).collect::<Result<_>>()?;
    let passages = Vectors::open(inputs.embeddings, &partition.language, VectorsOf::Passages)?;
    let queries = Vectors::open(inputs.embeddings, &partition.language, VectorsOf::Queries(inputs.split))?;
    let miners = Miners::new(partition, &judged.qrels, passages.matrix(), config);
    progress.begin(&format!("mine {}", partition.language), judged.queries.len(), "queries");
    let lists = |query: QueryIndex| {
        let members = names.clone().zip(runs.iter().map(move |run| run.ranking(query))).collect();
        Lists { fused: fused.ranking(query), members }
    };
    let indices: Vec<QueryIndex> = judged.queries.iter().map(|(query, _)| query).collect();
    let mined = indices.par_iter().map(|query| {
        let found = miners.candidates(*query, &judged.queries.query(*query).id, &lists(*query), queries.matrix().row(query.at()));
        progress.advance(1);
        found
    });
    let mined: Vec<(QueryCandidates, Removed)> = mined.collect();
    for (query, (candidates, _)) in indices.iter().zip(&mined) {
        agreement.add(&lists(*query), candidates, config.depth);
    }
    Ok(mined)
}

fn count(summary: &mut Summary, config: &MineConfig, mined: &[(QueryCandidates, Removed)]) {
    summary.count("queries", mined.len());
    for (query, removed) in mined {
        summary.count("candidates", query.candidates.len());
        summary.count("removed: positive by id", removed.by_id);
        summary.count("removed: positive by text", removed.by_text);
        summary.count("queries with fewer candidates than asked", usize::from(query.candidates.len() < config.depth));
        summary.count("candidates that people judged not relevant", query.candidates.iter().filter(|c| c.human_grade.is_some()).count());
    }
}
