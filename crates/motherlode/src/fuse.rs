//! Fusion: the lists of several retrievers become one list a query.
//!
//! `concat` scores every passage by the weighted mean of the members' cosines, which is the cosine of their concatenated
//! unit vectors, over the whole corpus. `rrf` and `combsum` see the members' lists alone, so BM25 may be among them.
//! Reads runs or embeddings; writes a run.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::artefact::{Artefact, Recipe};
use crate::corpus::PassageIndex;
use crate::dataset::{Dataset, Partition, Split};
use crate::encode::{Matrix, Vectors, VectorsOf};
use crate::error::{Error, Result};
use crate::index::exact::{self, Search, Similarity, top_k_of_sum};
use crate::progress::Progress;
use crate::run::{Ranking, Scored, rank_order};
use crate::search::{DEFAULT_MEMORY, open_run, write_runs};

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
    /// Bytes for the tiles of `concat`. Results do not depend on it, so it is no part of the key.
    #[serde(skip_serializing)]
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
            memory: DEFAULT_MEMORY,
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
    check_members(inputs.members, config)?;
    let recipe = Recipe::new("fuse", 1, config)?.input_key("dataset", &inputs.dataset.key);
    let recipe = recipe.input_key("split", inputs.split.name());
    let recipe = inputs.members.iter().fold(recipe, |recipe, member| match (config.method, member.embeddings) {
        (Method::Concat, Some(embeddings)) => recipe.input(member.name, embeddings),
        _ => recipe.input(member.name, member.run),
    });
    write_runs(inputs.dataset, inputs.split, recipe, out, |partition| fuse_partition(partition, inputs, config, progress))
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

fn fuse_partition(partition: &Partition, inputs: FuseInputs<'_>, config: &FuseConfig, progress: &Progress<'_>) -> Result<Vec<Ranking>> {
    let (language, split) = (&partition.language, inputs.split);
    let open = |member: &Member<'_>| -> Result<_> {
        let run = open_run(member.run, inputs.dataset, language, split)?;
        let vectors = |artefact| Ok((Vectors::open(artefact, language, VectorsOf::Queries(split))?, Vectors::open(artefact, language, VectorsOf::Passages)?));
        Ok((run, member.embeddings.filter(|_| config.method == Method::Concat).map(vectors).transpose()?))
    };
    let opened: Vec<_> = inputs.members.iter().map(open).collect::<Result<_>>()?;
    let heard = inputs.members.iter().zip(&opened).map(|(member, (run, vectors))| Heard {
        name: member.name,
        rankings: run.rankings(),
        vectors: vectors.as_ref().map(|(queries, passages): &(Vectors, Vectors)| (queries.matrix(), passages.matrix())),
    });
    fuse_rankings(heard.collect(), config, &partition.corpus.id_ranks(), progress)
}

/// What one member has to say of some queries.
pub struct Heard<'a> {
    /// Its name in the recipe.
    pub name: &'a str,
    /// Its list for every query, in rank order.
    pub rankings: &'a [Ranking],
    /// For `concat`: vectors of the queries and of all passages.
    pub vectors: Option<(Matrix<'a>, Matrix<'a>)>,
}

/// One list for every query, to the configured depth, in rank order.
pub fn fuse_rankings(mut members: Vec<Heard<'_>>, config: &FuseConfig, id_ranks: &[u32], progress: &Progress<'_>) -> Result<Vec<Ranking>> {
    members.sort_by_key(|member| member.name);
    let weights = weights(&members, config);
    if config.method == Method::Concat {
        return concat(&members, &weights, config, (id_ranks, progress));
    }
    let queries = members.first().map_or(0, |member| member.rankings.len());
    let fused = (0..queries).into_par_iter().map(|query| {
        let lists: Vec<&[Scored]> = members.iter().map(|member| member.rankings[query].as_slice()).collect();
        let mut fused = fuse_lists(&lists, &weights, config);
        fused.sort_unstable_by(|a, b| rank_order(a, b, id_ranks));
        fused.truncate(config.depth);
        fused
    });
    Ok(fused.collect())
}

/// Σ w·cos / Σ w over all passages: exact search over the sum of the members' similarities.
fn concat(members: &[Heard<'_>], weights: &[f64], config: &FuseConfig, search: (&[u32], &Progress<'_>)) -> Result<Vec<Ranking>> {
    let total: f64 = weights.iter().sum();
    let part = |(member, weight): (&Heard<'_>, &f64)| {
        let (queries, passages) = member.vectors?;
        Some(exact::Member { queries, passages, weight: (weight / total) as f32, similarity: Similarity::Cosine })
    };
    let parts: Option<Vec<exact::Member<'_>>> = members.iter().zip(weights).map(part).collect();
    let parts = parts.ok_or_else(|| Error::config("`fuse.method = \"concat\"` needs vectors of every member"))?;
    let (id_ranks, progress) = search;
    top_k_of_sum(&parts, Search { depth: config.depth, id_ranks, memory: config.memory, task: "fuse", progress })
}

fn weights(members: &[Heard<'_>], config: &FuseConfig) -> Vec<f64> {
    let weight = |member: &Heard<'_>| match config.weighting {
        Weighting::Equal => 1.0,
        Weighting::ByHand => config.weights.get(member.name).copied().unwrap_or(1.0),
        Weighting::InverseSpread => 1.0 / mean_spread(member.rankings),
    };
    members.iter().map(weight).collect()
}

/// The standard deviation of scores within a list, averaged over the lists of two passages and more.
fn mean_spread(rankings: &[Ranking]) -> f64 {
    let spreads: Vec<f64> = rankings.iter().filter(|list| list.len() > 1).map(|list| moments(list).1).collect();
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
