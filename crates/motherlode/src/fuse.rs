//! Fusing: several retrievers' lists of one split become one.
//!
//! `concat` reads vectors of `encode`, `rrf` and `combsum` read runs of `search`; the artefact of the stage `fuse` looks
//! like one of `search`. No result depends on the order of the members: they are taken in the order of their names, and the
//! parts of a score are summed in ascending order.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::artefact::{Artefact, Recipe};
use crate::corpus::PassageIndex;
use crate::dataset::{Dataset, Partition, Split};
use crate::encode::{self, Matrix, Vectors, VectorsOf};
use crate::engine::Sieve;
use crate::error::{Error, Result};
use crate::index::exact::{self, Search, Similarity, top_k_of_sum};
use crate::progress::Progress;
use crate::run::{Ranking, Run, Scored, rank_order};
use crate::search::{self, DEFAULT_MEMORY, expect_input, open_run, write_runs};

/// Name of the stage.
pub const STAGE: &str = "fuse";
const FORMAT: u32 = 1;
/// Spreads are not taken for smaller than this, as in ranx.
const SMALLEST_SPREAD: f64 = 1e-9;

/// How lists become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Σ w cos / Σ w over all passages: the cosine of the members' concatenated unit vectors.
    Concat,
    /// Reciprocal rank fusion: Σ w / (k + rank).
    Rrf,
    /// Σ w · normalised score over the lists that have the passage; with weights other than 1, ranx's weighted sum.
    Combsum,
}

/// How `combsum` brings the scores of one list to a common scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Normalisation {
    /// The lowest score of a list becomes 0, the highest 1.
    MinMax,
    /// Less the mean, over the standard deviation.
    ZNorm,
    /// Scores as they are.
    None,
}

/// What a member counts before the weights given by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weighting {
    /// 1.
    Equal,
    /// One over the standard deviation of its list's scores, on average over the queries of the language.
    InverseSpread,
}

/// How retrievers are fused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FuseConfig {
    /// How lists become one.
    pub method: Method,
    /// k of `rrf`.
    pub rrf_k: f64,
    /// How `combsum` normalises scores.
    pub normalisation: Normalisation,
    /// What a member counts.
    pub weighting: Weighting,
    /// Factors by the member's name; 1 where a name is absent.
    pub weights: BTreeMap<String, f64>,
    /// Passages kept of every query.
    pub depth: usize,
    /// Bytes for the tiles and lists of `concat`. Results do not depend on it, so it is no part of the key.
    #[serde(skip_serializing)]
    pub memory: usize,
}

impl Default for FuseConfig {
    fn default() -> Self {
        Self {
            method: Method::Concat,
            rrf_k: 60.0,
            normalisation: Normalisation::MinMax,
            weighting: Weighting::Equal,
            weights: BTreeMap::new(),
            depth: 100,
            memory: DEFAULT_MEMORY,
        }
    }
}

impl FuseConfig {
    /// Checks the ranges.
    pub fn validate(&self) -> Result<()> {
        if self.depth == 0 {
            return Err(Error::config("`fuse.depth`: expected 1 or more, got 0"));
        }
        if !(self.rrf_k >= 0.0 && self.rrf_k.is_finite()) {
            return Err(Error::config(format!("`fuse.rrf_k`: expected 0 or more, got {}", self.rrf_k)));
        }
        match self.weights.iter().find(|(_, weight)| !(**weight > 0.0 && weight.is_finite())) {
            Some((name, weight)) => Err(Error::config(format!(
                "`fuse.weights.{name}`: expected more than 0, got {weight}; or leave it out of the ensemble"
            ))),
            None => Ok(()),
        }
    }
}

/// One list for a query, and what it counts.
#[derive(Debug, Clone, Copy)]
pub struct Weighted<'a> {
    /// The list, in rank order.
    pub ranking: &'a [Scored],
    /// What its parts of a score are multiplied with.
    pub weight: f64,
}

/// Reciprocal rank fusion of one query's lists: Σ weight / (k + rank), ranks from 1.
///
/// Source: Cormack, Clarke and Büttcher, SIGIR 2009; ranx `rrf`.
pub fn rrf(lists: &[Weighted<'_>], k: f64, depth: usize, id_ranks: &[u32]) -> Ranking {
    let parts = lists.iter().flat_map(|list| {
        let part = |(place, scored): (usize, &Scored)| (scored.passage, list.weight / (k + place as f64 + 1.0));
        list.ranking.iter().enumerate().map(part)
    });
    sum(parts.collect(), depth, id_ranks)
}

/// The sum of normalised scores over the lists that have the passage.
///
/// Source: Fox and Shaw, TREC-2; ranx `comb_sum` and `wsum` with `min_max` or `zmuv`.
pub fn combsum(lists: &[Weighted<'_>], normalisation: Normalisation, depth: usize, id_ranks: &[u32]) -> Ranking {
    let parts = lists.iter().flat_map(|list| {
        let (origin, scale) = normalisation.origin_and_scale(list.ranking);
        let part = move |scored: &Scored| (scored.passage, list.weight * (f64::from(scored.score) - origin) / scale);
        list.ranking.iter().map(part)
    });
    sum(parts.collect(), depth, id_ranks)
}

/// Fuses one query's lists as the configuration says.
///
/// # Errors
/// The method is `concat`, which needs vectors, not lists.
pub fn fuse_lists(config: &FuseConfig, lists: &[Weighted<'_>], id_ranks: &[u32]) -> Result<Ranking> {
    match config.method {
        Method::Rrf => Ok(rrf(lists, config.rrf_k, config.depth, id_ranks)),
        Method::Combsum => Ok(combsum(lists, config.normalisation, config.depth, id_ranks)),
        Method::Concat => Err(Error::config("`fuse.method`: `concat` fuses vectors, not lists; use rrf or combsum")),
    }
}

impl Normalisation {
    /// What is taken from every score, and what it is then divided by.
    fn origin_and_scale(self, ranking: &[Scored]) -> (f64, f64) {
        let scores = || ranking.iter().map(|scored| f64::from(scored.score));
        let (origin, scale) = match self {
            Self::None => return (0.0, 1.0),
            Self::MinMax => {
                let lowest = scores().fold(f64::INFINITY, f64::min);
                (lowest, scores().fold(f64::NEG_INFINITY, f64::max) - lowest)
            }
            Self::ZNorm => mean_and_deviation(ranking),
        };
        (origin, scale.max(SMALLEST_SPREAD))
    }
}

/// Mean and standard deviation (over n) of a list's scores; zeros for an empty list.
fn mean_and_deviation(ranking: &[Scored]) -> (f64, f64) {
    let count = ranking.len().max(1) as f64;
    let mean = ranking.iter().map(|scored| f64::from(scored.score)).sum::<f64>() / count;
    let square = ranking.iter().map(|scored| (f64::from(scored.score) - mean).powi(2)).sum::<f64>() / count;
    (mean, square.sqrt())
}

/// Adds up each passage's parts and keeps the best; parts are added in ascending order, so that the order of lists does not
/// matter.
fn sum(mut parts: Vec<(PassageIndex, f64)>, depth: usize, id_ranks: &[u32]) -> Ranking {
    parts.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.total_cmp(&b.1)));
    let score = |group: &[(PassageIndex, f64)]| group.iter().map(|(_, part)| part).sum::<f64>() as f32 + 0.0;
    let mut ranking: Ranking =
        parts.chunk_by(|a, b| a.0 == b.0).map(|group| Scored { passage: group[0].0, score: score(group) }).collect();
    ranking.sort_unstable_by(|a, b| rank_order(a, b, id_ranks));
    ranking.truncate(depth);
    ranking
}

/// One over the mean standard deviation of the scores in a retriever's lists; lists of fewer than two scores do not count.
///
/// # Errors
/// No list has two different scores.
pub fn inverse_spread(name: &str, rankings: &[Ranking]) -> Result<f64> {
    let spreads: Vec<f64> =
        rankings.iter().filter(|ranking| ranking.len() > 1).map(|ranking| mean_and_deviation(ranking).1).collect();
    let mean = spreads.iter().sum::<f64>() / spreads.len().max(1) as f64;
    if mean > 0.0 {
        return Ok(1.0 / mean);
    }
    Err(Error::data(format!(
        "the scores of `{name}` do not differ, so `fuse.weighting = \"inverse-spread\"` has no meaning"
    )))
}

/// A retriever of the ensemble.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// Its name in the recipe.
    pub name: &'a str,
    /// For `concat` its vectors, an artefact of `encode`; else its runs.
    pub artefact: &'a Artefact,
}

/// What is fused.
#[derive(Debug, Clone, Copy)]
pub struct FuseInputs<'a> {
    /// The data set that all members searched.
    pub dataset: &'a Dataset,
    /// The split that is fused.
    pub split: Split,
    /// The ensemble.
    pub members: &'a [Member<'a>],
    /// What looks at the passages first in an exact search.
    pub sieve: Option<&'a dyn Sieve>,
}

#[derive(Serialize)]
struct StageConfig<'a> {
    split: Split,
    fuse: &'a FuseConfig,
}

/// Fuses the members' lists of a split: the stage `fuse`.
pub fn fuse(inputs: FuseInputs<'_>, config: &FuseConfig, out: &Path, progress: &Progress<'_>) -> Result<Artefact> {
    config.validate()?;
    let members = in_order(inputs, config)?;
    let stage = StageConfig { split: inputs.split, fuse: config };
    let mut recipe = Recipe::new(STAGE, FORMAT, &stage)?.input_key("dataset", &inputs.dataset.key);
    for member in &members {
        recipe = recipe.input(&format!("member {}", member.name), member.artefact);
    }
    let inputs = FuseInputs { members: &members, ..inputs };
    write_runs(inputs.dataset, inputs.split, recipe, out, |partition| match config.method {
        Method::Concat => concat(inputs, config, partition, progress),
        Method::Rrf | Method::Combsum => fuse_runs(inputs, config, partition),
    })
}

/// The members by name, checked.
fn in_order<'a>(inputs: FuseInputs<'a>, config: &FuseConfig) -> Result<Vec<Member<'a>>> {
    let stages: &[&str] = if config.method == Method::Concat { &[encode::STAGE] } else { &[search::STAGE, STAGE] };
    let mut members = inputs.members.to_vec();
    members.sort_by_key(|member| member.name);
    if members.is_empty() {
        return Err(Error::config("`fuse`: expected at least one retriever"));
    }
    if let Some(pair) = members.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(Error::config(format!("two retrievers are named `{}`; give each its own name", pair[0].name)));
    }
    if let Some(name) = config.weights.keys().find(|name| members.iter().all(|member| member.name != name.as_str())) {
        return Err(Error::config(format!("`fuse.weights.{name}`: no retriever has this name")));
    }
    members.iter().try_for_each(|member| expect_input(member.artefact, stages, inputs.dataset))?;
    Ok(members)
}

impl FuseConfig {
    /// What a member counts, given its lists.
    fn weight<'a>(&self, name: &str, lists: impl FnOnce() -> Result<Cow<'a, [Ranking]>>) -> Result<f64> {
        let by_hand = self.weights.get(name).copied().unwrap_or(1.0);
        match self.weighting {
            Weighting::Equal => Ok(by_hand),
            Weighting::InverseSpread => Ok(by_hand * inverse_spread(name, &lists()?)?),
        }
    }
}

fn fuse_runs(inputs: FuseInputs<'_>, config: &FuseConfig, partition: &Partition) -> Result<Vec<Ranking>> {
    let open = |member: &Member<'_>| open_run(member.artefact, inputs.dataset, &partition.language, inputs.split);
    let runs: Vec<Run> = inputs.members.iter().map(open).collect::<Result<_>>()?;
    let lists: Vec<(&str, &[Ranking])> =
        inputs.members.iter().zip(&runs).map(|(member, run)| (member.name, run.rankings())).collect();
    fuse_rankings(&lists, config, &partition.corpus.id_ranks())
}

/// Fuses the members' rankings of the same queries, each member by its name, by `rrf` or `combsum`.
///
/// *Order*: one list a query, to the configured depth, in rank order. Independent of the order of the members.
///
/// # Errors
/// The method is `concat`; a spread that is zero.
pub fn fuse_rankings(members: &[(&str, &[Ranking])], config: &FuseConfig, id_ranks: &[u32]) -> Result<Vec<Ranking>> {
    let mut members = members.to_vec();
    members.sort_by_key(|(name, _)| *name);
    let weight = |(name, rankings): &(&str, &[Ranking])| config.weight(name, || Ok(Cow::Borrowed(*rankings)));
    let weights: Vec<f64> = members.iter().map(weight).collect::<Result<_>>()?;
    let fuse_one = |query: usize| {
        let lists = members.iter().zip(&weights);
        let lists: Vec<Weighted<'_>> =
            lists.map(|((_, rankings), weight)| Weighted { ranking: &rankings[query], weight: *weight }).collect();
        fuse_lists(config, &lists, id_ranks)
    };
    let queries = members.first().map_or(0, |(_, rankings)| rankings.len());
    (0..queries).into_par_iter().map(fuse_one).collect()
}

fn concat(
    inputs: FuseInputs<'_>,
    config: &FuseConfig,
    partition: &Partition,
    progress: &Progress<'_>,
) -> Result<Vec<Ranking>> {
    let mut vectors = Vec::new();
    for member in inputs.members {
        let queries = Vectors::open(member.artefact, &partition.language, VectorsOf::Queries(inputs.split))?;
        let passages = Vectors::open(member.artefact, &partition.language, VectorsOf::Passages)?;
        vectors.push((member.name, queries, passages));
    }
    let members: Vec<MemberVectors<'_>> = vectors
        .iter()
        .map(|(name, queries, passages)| MemberVectors { name, queries: queries.matrix(), passages: passages.matrix() })
        .collect();
    fuse_vectors(&members, config, &partition.corpus.id_ranks(), inputs.sieve, progress)
}

/// What `concat` needs of a member.
#[derive(Debug, Clone, Copy)]
pub struct MemberVectors<'a> {
    /// Its name in the recipe.
    pub name: &'a str,
    /// Vectors of the queries, n × d.
    pub queries: Matrix<'a>,
    /// Vectors of all passages, m × d.
    pub passages: Matrix<'a>,
}

/// Exact search by Σ w cos / Σ w: tiles of the members' scores are added, so their concatenation is never made.
pub fn fuse_vectors(
    members: &[MemberVectors<'_>],
    config: &FuseConfig,
    id_ranks: &[u32],
    sieve: Option<&dyn Sieve>,
    progress: &Progress<'_>,
) -> Result<Vec<Ranking>> {
    let search = Search { depth: config.depth, id_ranks, memory: config.memory, task: "fuse", progress, sieve };
    let mut parts = Vec::with_capacity(members.len());
    for MemberVectors { name, queries, passages } in members.iter().copied() {
        let mut part = exact::Member { queries, passages, weight: 1.0, similarity: Similarity::Cosine };
        part.weight = config.weight(name, || top_k_of_sum(&[part], search).map(Cow::Owned))? as f32;
        parts.push(part);
    }
    let total: f32 = parts.iter().map(|part| part.weight).sum();
    for part in &mut parts {
        part.weight /= total;
    }
    top_k_of_sum(&parts, search)
}

#[cfg(test)]
mod tests;
