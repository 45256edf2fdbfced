//! Fusion: the lists of several retrievers become one list a query.
//!
//! `concat` scores every passage by the weighted mean of the members' cosines, which is the cosine of their concatenated
//! unit vectors, over the whole corpus. `rrf` and `combsum` see the members' lists alone, so BM25 may be among them.
//! Reads runs or embeddings; writes a run.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::artefact::{Artefact, Outcome, Recipe, Summary, draft};
use crate::corpus::PassageIndex;
use crate::dataset::{Dataset, Partition, Split};
use crate::encode::Vectors;
use crate::error::{Error, Result};
use crate::index::exact::{Matrix, top_k};
use crate::progress::Progress;
use crate::run::{Ranking, Run, Scored, rank_order};
use crate::search::{open_run, write_run};

/// How lists become one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Σ w·cos / Σ w over all passages; every member must be dense.
    Concat,
    /// Reciprocal rank fusion: Σ w / (k + rank) over the lists that have the passage.
    #[default]
    Rrf,
    /// Σ w·s' over the lists that have the passage, s' the score normalised within its list.
    Combsum,
}

/// How `combsum` makes scores of different retrievers comparable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Normalisation {
    /// (s − min) / (max − min).
    #[default]
    MinMax,
    /// (s − mean) / standard deviation (of the population).
    ZScore,
}

/// How much each member counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weighting {
    /// All the same.
    #[default]
    Equal,
    /// As `weights` says, by the members' names.
    ByHand,
    /// 1/σ of each member's scores in its own lists, so that a member whose scores lie close together counts.
    InverseSpread,
}

/// The knobs of section `[fuse]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FuseConfig {
    /// How lists become one.
    pub method: Method,
    /// The k of `rrf`.
    pub k: f32,
    /// How `combsum` normalises.
    pub normalisation: Normalisation,
    /// How much each member counts.
    pub weighting: Weighting,
    /// Weights by member, for `by-hand`.
    pub weights: BTreeMap<String, f64>,
    /// How many passages a fused list keeps.
    pub depth: usize,
    /// Bytes that `concat` may use for vectors beyond the mapped files.
    pub memory: usize,
}

impl Default for FuseConfig {
    fn default() -> Self {
        Self {
            method: Method::default(),
            k: 60.0,
            normalisation: Normalisation::default(),
            weighting: Weighting::default(),
            weights: BTreeMap::new(),
            depth: 100,
            memory: 1 << 30,
        }
    }
}

impl FuseConfig {
    /// Checks ranges.
    pub fn validate(&self) -> Result<()> {
        if self.depth == 0 {
            return Err(Error::config("`fuse.depth`: expected 1 or more, got 0"));
        }
        if !(self.k >= 0.0 && self.k.is_finite()) {
            return Err(Error::config(format!("`fuse.k`: expected 0 or more, got {}", self.k)));
        }
        match self.weights.iter().find(|(_, weight)| !(**weight >= 0.0 && weight.is_finite())) {
            Some((name, weight)) => Err(Error::config(format!("`fuse.weights.{name}`: expected 0 or more, got {weight}"))),
            None => Ok(()),
        }
    }
}

/// One member of the ensemble.
#[derive(Clone, Copy)]
pub struct Member<'a> {
    /// Its name in the recipe.
    pub name: &'a str,
    /// Its run over the split.
    pub run: &'a Artefact,
    /// Its vectors, if it is dense.
    pub embeddings: Option<&'a Artefact>,
}

/// What is fused.
#[derive(Clone, Copy)]
pub struct FuseInputs<'a> {
    /// The data set.
    pub dataset: &'a Dataset,
    /// Which queries.
    pub split: Split,
    /// The retrievers, in any order.
    pub members: &'a [Member<'a>],
}

/// Writes the fused run as an artefact of stage `fuse`; does not depend on the order of the members.
///
/// # Errors
/// No member, `concat` with a member without vectors, a weight for a name that is no member.
pub fn fuse(inputs: FuseInputs<'_>, config: &FuseConfig, out: &Path, progress: &Progress<'_>) -> Result<Artefact> {
    config.validate()?;
    let mut members = inputs.members.to_vec();
    members.sort_by_key(|member| member.name);
    check_members(&members, config)?;
    let mut recipe = Recipe::new("fuse", 1, config)?.input_key("dataset", &inputs.dataset.key);
    recipe = recipe.input_key("split", inputs.split.name());
    for member in &members {
        recipe = recipe.input(member.name, if config.method == Method::Concat { member.embeddings.unwrap_or(member.run) } else { member.run });
    }
    let mut draft = match draft(out, recipe)? {
        Outcome::UpToDate(artefact) => return Ok(artefact),
        Outcome::Write(draft) => draft,
    };
    let mut summary = Summary::default();
    for partition in inputs.dataset.partitions.iter().filter(|partition| partition.has(inputs.split)) {
        let queries = partition.split(inputs.split)?.queries.len();
        progress.begin(&format!("fuse {}", partition.language), queries, "queries");
        let run = fuse_partition(partition, inputs.split, &members, config)?;
        summary.count("queries", queries);
        summary.count("ranked passages", run.rankings().iter().map(Vec::len).sum());
        write_run(&mut draft, partition, inputs.split, &run, "fused")?;
        progress.advance(queries);
    }
    draft.commit(summary)
}

fn check_members(members: &[Member<'_>], config: &FuseConfig) -> Result<()> {
    if members.is_empty() {
        return Err(Error::config("`fuse`: expected at least one retriever"));
    }
    if config.method == Method::Concat
        && let Some(lexical) = members.iter().find(|member| member.embeddings.is_none())
    {
        let name = lexical.name;
        return Err(Error::config(format!("`fuse.method = \"concat\"` needs vectors, and `{name}` has none; use rrf or combsum")));
    }
    match config.weights.keys().find(|name| !members.iter().any(|member| member.name == *name)) {
        Some(name) => Err(Error::config(format!("`fuse.weights.{name}`: no retriever has this name"))),
        None => Ok(()),
    }
}

fn fuse_partition(partition: &Partition, split: Split, members: &[Member<'_>], config: &FuseConfig) -> Result<Run> {
    let runs: Vec<Run> = members.iter().map(|member| open_run(member.run, partition, split)).collect::<Result<_>>()?;
    let weights = weights(members, &runs, config);
    let id_ranks = partition.corpus.id_ranks();
    if config.method == Method::Concat {
        return concat(partition, split, members, &Concat { weights, config, id_ranks: &id_ranks });
    }
    let queries = partition.split(split)?.queries.len();
    let rankings = (0..queries).into_par_iter().map(|query| {
        let lists: Vec<&[Scored]> = runs.iter().map(|run| run.rankings()[query].as_slice()).collect();
        fuse_lists(&lists, &weights, config)
    });
    let mut run = Run::new(rankings.collect(), &id_ranks);
    run.truncate(config.depth);
    Ok(run)
}

fn weights(members: &[Member<'_>], runs: &[Run], config: &FuseConfig) -> Vec<f64> {
    let by_hand = |member: &Member<'_>| config.weights.get(member.name).copied().unwrap_or(1.0);
    match config.weighting {
        Weighting::Equal => vec![1.0; members.len()],
        Weighting::ByHand => members.iter().map(by_hand).collect(),
        Weighting::InverseSpread => runs.iter().map(|run| 1.0 / mean_spread(run)).collect(),
    }
}

/// The standard deviation of scores within a list, averaged over the lists of two passages and more.
fn mean_spread(run: &Run) -> f64 {
    let spreads: Vec<f64> = run.rankings().iter().filter(|list| list.len() > 1).map(|list| moments(list).1).collect();
    (spreads.iter().sum::<f64>() / spreads.len().max(1) as f64).max(1e-9)
}

/// Mean and population standard deviation of a list's scores.
fn moments(list: &[Scored]) -> (f64, f64) {
    let count = list.len().max(1) as f64;
    let mean = list.iter().map(|scored| f64::from(scored.score)).sum::<f64>() / count;
    let variance = list.iter().map(|scored| (f64::from(scored.score) - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

/// Fuses one query's lists, each in rank order; the result is unordered. `weights` has one value a list.
pub fn fuse_lists(lists: &[&[Scored]], weights: &[f64], config: &FuseConfig) -> Ranking {
    let mut scores: BTreeMap<PassageIndex, f64> = BTreeMap::new();
    for (list, weight) in lists.iter().zip(weights) {
        let contributions = match config.method {
            Method::Combsum => normalised(list, config.normalisation),
            Method::Rrf | Method::Concat => (1..=list.len()).map(|rank| 1.0 / (f64::from(config.k) + rank as f64)).collect(),
        };
        for (scored, contribution) in list.iter().zip(contributions) {
            *scores.entry(scored.passage).or_default() += weight * contribution;
        }
    }
    scores.into_iter().map(|(passage, score)| Scored { passage, score: score as f32 }).collect()
}

/// The scores of a list on a common scale; a list of equal scores becomes zeros, as in ranx.
fn normalised(list: &[Scored], normalisation: Normalisation) -> Vec<f64> {
    let scores = || list.iter().map(|scored| f64::from(scored.score));
    let (origin, unit) = match normalisation {
        Normalisation::MinMax => {
            let (low, high) = scores().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), s| (low.min(s), high.max(s)));
            (low, high - low)
        }
        Normalisation::ZScore => moments(list),
    };
    scores().map(|score| (score - origin) / unit.max(1e-9)).collect()
}

struct Concat<'a> {
    weights: Vec<f64>,
    config: &'a FuseConfig,
    id_ranks: &'a [u32],
}

/// Exact search over the concatenation, a block of passages at a time, so that only one block is ever in memory.
fn concat(partition: &Partition, split: Split, members: &[Member<'_>], concat: &Concat<'_>) -> Result<Run> {
    let total: f64 = concat.weights.iter().sum();
    let scales: Vec<f32> = concat.weights.iter().map(|weight| (weight / total).sqrt() as f32).collect();
    let open = |what: &str| -> Result<Vec<Vectors>> {
        let artefacts = members.iter().map(|member| member.embeddings.expect("checked by check_members"));
        artefacts.map(|artefact| Vectors::open(artefact, &partition.language, what)).collect()
    };
    let (queries, passages) = (open(&format!("queries.{}", split.name()))?, open("passages")?);
    let dimension: usize = passages.iter().map(Vectors::dimension).sum();
    let query_matrix = concatenate(&queries, &scales, 0..queries[0].rows());
    let count = partition.corpus.len();
    let block = (concat.config.memory / (8 * dimension)).clamp(1, count.max(1));
    let mut rankings = vec![Ranking::new(); queries[0].rows()];
    for start in (0..count).step_by(block) {
        let rows = start..(start + block).min(count);
        let vectors = concatenate(&passages, &scales, rows.clone());
        let (left, right) = (Matrix::new(&query_matrix, dimension)?, Matrix::new(&vectors, dimension)?);
        let found = top_k(left, right, concat.config.depth, &concat.id_ranks[rows], concat.config.memory / 2)?;
        for (ranking, found) in rankings.iter_mut().zip(found) {
            let shifted = found.into_iter().map(|s| Scored { passage: PassageIndex(s.passage.0 + start as u32), ..s });
            ranking.extend(shifted);
            ranking.sort_unstable_by(|a, b| rank_order(a, b, concat.id_ranks));
            ranking.truncate(concat.config.depth);
        }
    }
    Ok(Run::new(rankings, concat.id_ranks))
}

/// Rows of the members' unit vectors side by side, each scaled; a zero vector stays zero.
fn concatenate(members: &[Vectors], scales: &[f32], rows: std::ops::Range<usize>) -> Vec<f32> {
    let dimension: usize = members.iter().map(Vectors::dimension).sum();
    let mut values = Vec::with_capacity(rows.len() * dimension);
    for row in rows {
        for (member, scale) in members.iter().zip(scales) {
            let vector = member.row(row);
            let norm = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt() as f32;
            values.extend(vector.iter().map(|x| x * (scale / norm.max(f32::MIN_POSITIVE))));
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(pairs: &[(u32, f32)]) -> Ranking {
        pairs.iter().map(|(passage, score)| Scored { passage: PassageIndex(*passage), score: *score }).collect()
    }

    fn score(ranking: &Ranking, passage: u32) -> f32 {
        ranking.iter().find(|scored| scored.passage.0 == passage).unwrap().score
    }

    /// By hand from the definitions of ranx (`rrf`, `sum` after `norm="min-max"` and `norm="zmuv"`) for the lists
    /// {d0: 3, d1: 2, d2: 1} and {d1: .9, d3: .5}.
    #[test]
    fn equals_ranx() {
        let (first, second) = (list(&[(0, 3.0), (1, 2.0), (2, 1.0)]), list(&[(1, 0.9), (3, 0.5)]));
        let fused = |method, normalisation| {
            let config = FuseConfig { method, normalisation, ..FuseConfig::default() };
            fuse_lists(&[&first, &second], &[1.0, 1.0], &config)
        };
        let rrf = fused(Method::Rrf, Normalisation::MinMax);
        assert!((score(&rrf, 1) - (1.0 / 62.0 + 1.0 / 61.0)).abs() < 1e-7);
        let min_max = fused(Method::Combsum, Normalisation::MinMax);
        assert!((score(&min_max, 1) - 1.5).abs() < 1e-6 && score(&min_max, 3).abs() < 1e-6);
        let z_score = fused(Method::Combsum, Normalisation::ZScore);
        assert!((score(&z_score, 0) - 1.224_744_9).abs() < 1e-6 && (score(&z_score, 1) - 1.0).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn no_order_of_members_matters(scores in prop::collection::vec(prop::collection::vec(0.0_f32..1.0, 0..6), 2..4)) {
            let lists: Vec<Ranking> = scores.iter().map(|scores| {
                let mut list: Ranking = scores.iter().enumerate().map(|(i, s)| Scored { passage: PassageIndex(i as u32), score: *s }).collect();
                list.sort_by(|a, b| b.score.total_cmp(&a.score));
                list
            }).collect();
            for method in [Method::Rrf, Method::Combsum] {
                let config = FuseConfig { method, ..FuseConfig::default() };
                let forward: Vec<&[Scored]> = lists.iter().map(Vec::as_slice).collect();
                let backward: Vec<&[Scored]> = lists.iter().rev().map(Vec::as_slice).collect();
                let weights = vec![1.0; lists.len()];
                let (a, b) = (fuse_lists(&forward, &weights, &config), fuse_lists(&backward, &weights, &config));
                for (a, b) in a.iter().zip(&b) {
                    prop_assert_eq!(a.passage, b.passage);
                    prop_assert!((a.score - b.score).abs() < 1e-6);
                }
            }
        }
    }
}
