//! Fusing: several retrievers' lists of one split become one.
//!
//! `concat` reads vectors of `encode`, `rrf` and `combsum` read runs of `search`; the artefact of the stage `fuse` looks
//! like one of `search`. No result depends on the order of the members: they are taken in the order of their names, and the
//! parts of a score are summed in ascending order.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::artefact::{Artefact, Recipe};
use crate::corpus::PassageIndex;
use crate::dataset::{Dataset, Partition, Split};
use crate::encode::{self, Matrix, Vectors, VectorsOf};
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
    /// Σ w · normalised score over the lists that have the passage.
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
/// Source: Fox and Shaw, TREC-2; ranx `comb_sum` with `min_max` or `zmuv`.
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
    fn weight(&self, name: &str, lists: impl FnOnce() -> Result<Vec<Ranking>>) -> Result<f64> {
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
    let weight = |(name, rankings): &(&str, &[Ranking])| config.weight(name, || Ok(rankings.to_vec()));
    let weights: Vec<f64> = members.iter().map(weight).collect::<Result<_>>()?;
    let fuse_one = |query: usize| {
        let member = |((_, rankings), weight): (&(&str, &'_ [Ranking]), &f64)| (rankings[query].clone(), *weight);
        let lists: Vec<(Ranking, f64)> = members.iter().zip(&weights).map(member).collect();
        let lists: Vec<Weighted<'_>> =
            lists.iter().map(|(ranking, weight)| Weighted { ranking, weight: *weight }).collect();
        fuse_lists(config, &lists, id_ranks)
    };
    (0..members.first().map_or(0, |(_, rankings)| rankings.len())).map(fuse_one).collect()
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
    fuse_vectors(&members, config, &partition.corpus.id_ranks(), progress)
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
    progress: &Progress<'_>,
) -> Result<Vec<Ranking>> {
    let search = Search { depth: config.depth, id_ranks, memory: config.memory, task: "fuse", progress };
    let mut parts = Vec::with_capacity(members.len());
    for MemberVectors { name, queries, passages } in members.iter().copied() {
        let mut part = exact::Member { queries, passages, weight: 1.0, similarity: Similarity::Cosine };
        part.weight = config.weight(name, || top_k_of_sum(&[part], search))? as f32;
        parts.push(part);
    }
    let total: f32 = parts.iter().map(|part| part.weight).sum();
    for part in &mut parts {
        part.weight /= total;
    }
    top_k_of_sum(&parts, search)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::Corpus;
    use crate::encode::fixture::{PASSAGES, WordVectors, dataset, embeddings, english};
    use crate::index::bm25::{self, Bm25Config};
    use crate::queries::QueryIndex;
    use crate::search::SearchConfig;
    use proptest::prelude::*;

    fn list(scores: &[(u32, f32)]) -> Ranking {
        scores.iter().map(|(passage, score)| Scored { passage: PassageIndex(*passage), score: *score }).collect()
    }

    fn weighted(ranking: &Ranking, weight: f64) -> Weighted<'_> {
        Weighted { ranking, weight }
    }

    fn assert_near(found: &Ranking, expected: &[(u32, f32)]) {
        assert_eq!(found.len(), expected.len());
        for (found, (passage, score)) in found.iter().zip(expected) {
            assert!(found.passage.0 == *passage && (found.score - score).abs() < 1e-6, "{found:?} {expected:?}");
        }
    }

    /// Golden, ranx 0.3.21 (`d1` is passage 1, and so on):
    /// ```python
    /// from ranx import Run, fuse
    /// a = {"q": {"d1": 12.5, "d2": 11.0, "d3": 7.25, "d4": 7.0}}
    /// b = {"q": {"d2": 0.91, "d5": 0.885, "d1": 0.82}}
    /// fuse([Run(a), Run(b)], norm=None, method="rrf", params={"k": 60})
    /// fuse([Run(a), Run(b)], norm="min-max", method="sum")
    /// fuse([Run(a), Run(b)], norm="zmuv", method="sum")
    /// ```
    #[test]
    fn rrf_and_combsum_equal_ranx() {
        let a = list(&[(1, 12.5), (2, 11.0), (3, 7.25), (4, 7.0)]);
        let b = list(&[(2, 0.91), (5, 0.885), (1, 0.82)]);
        let (lists, id_ranks) = ([weighted(&a, 1.0), weighted(&b, 1.0)], [0, 1, 2, 3, 4, 5]);
        let expected = [(2, 0.032_522_475), (1, 0.032_266_458), (5, 0.016_129_032), (3, 0.015_873_016), (4, 0.015_625)];
        assert_near(&rrf(&lists, 60.0, 10, &id_ranks), &expected);
        let expected = [(2, 1.727_272_7), (1, 1.0), (5, 0.722_222_2), (3, 0.045_454_547), (4, 0.0)];
        assert_near(&combsum(&lists, Normalisation::MinMax, 10, &id_ranks), &expected);
        let expected = [(2, 1.668_684_6), (5, 0.351_499_82), (1, -0.072_141_39), (3, -0.921_371_7), (4, -1.026_671_3)];
        assert_near(&combsum(&lists, Normalisation::ZNorm, 10, &id_ranks), &expected);
        assert_eq!(rrf(&lists, 60.0, 2, &id_ranks).len(), 2);
    }

    #[test]
    fn weights_count_and_ties_fall_to_the_higher_id() {
        let (a, b) = (list(&[(0, 2.0), (1, 1.0)]), list(&[(1, 2.0), (0, 1.0)]));
        let order = |weight| {
            let fused = rrf(&[weighted(&a, weight), weighted(&b, 1.0)], 60.0, 10, &[7, 3]);
            fused.iter().map(|scored| scored.passage.0).collect::<Vec<_>>()
        };
        assert_eq!(order(1.0), [0, 1], "a tie: passage 0 has the higher id");
        assert_eq!(order(0.5), [1, 0]);
        let constant = list(&[(0, 1.0), (1, 1.0)]);
        let fused = combsum(&[weighted(&constant, 1.0)], Normalisation::ZNorm, 10, &[7, 3]);
        assert_near(&fused, &[(0, 0.0), (1, 0.0)]);
    }

    proptest! {
        #[test]
        fn the_order_of_lists_does_not_matter(
            scores in prop::collection::vec(prop::collection::btree_map(0_u32..30, -5.0_f32..5.0, 0..20), 1..5),
            shift in 0_usize..4,
            min_max in any::<bool>(),
        ) {
            let id_ranks: Vec<u32> = (0..30).rev().collect();
            let rankings: Vec<Ranking> = scores
                .iter()
                .map(|scores| {
                    let mut ranking = list(&scores.iter().map(|(p, s)| (*p, *s)).collect::<Vec<_>>());
                    ranking.sort_by(|a, b| rank_order(a, b, &id_ranks));
                    ranking
                })
                .collect();
            let mut lists: Vec<Weighted<'_>> =
                rankings.iter().enumerate().map(|(n, ranking)| weighted(ranking, 0.3 + n as f64)).collect();
            let normalisation = if min_max { Normalisation::MinMax } else { Normalisation::ZNorm };
            let before = (rrf(&lists, 60.0, 10, &id_ranks), combsum(&lists, normalisation, 10, &id_ranks));
            lists.rotate_left(shift % rankings.len());
            lists.reverse();
            let after = (rrf(&lists, 60.0, 10, &id_ranks), combsum(&lists, normalisation, 10, &id_ranks));
            prop_assert_eq!(before, after);
        }
    }

    #[test]
    fn spreads_are_inverted_and_constant_scores_refused() {
        let rankings = [list(&[(0, 1.0), (1, 3.0)]), list(&[(0, 5.0), (1, 11.0)]), list(&[(0, 9.0)])];
        assert!((inverse_spread("a", &rankings).unwrap() - 0.5).abs() < 1e-12);
        assert!(inverse_spread("a", &rankings[2..]).unwrap_err().to_string().contains("`a` do not differ"));
    }

    const SMALL: WordVectors = WordVectors { seed: 1, dimension: 8 };
    const LARGE: WordVectors = WordVectors { seed: 2, dimension: 24 };

    /// The weighted mean cosine of every passage with the first query, by hand.
    fn brute_force(members: &[(&Artefact, f64)], corpus: &Corpus) -> Ranking {
        let mut scores = vec![0.0; PASSAGES.len()];
        let total: f64 = members.iter().map(|(_, weight)| weight).sum();
        for (artefact, weight) in members {
            let queries = Vectors::open(artefact, &english(), VectorsOf::Queries(Split::Dev)).unwrap();
            let passages = Vectors::open(artefact, &english(), VectorsOf::Passages).unwrap();
            for (row, score) in scores.iter_mut().enumerate() {
                let cosine = Similarity::Cosine.of(queries.matrix().row(0), passages.matrix().row(row));
                *score += weight * f64::from(cosine) / total;
            }
        }
        let mut ranking = list(&(0..).zip(&scores).map(|(row, score)| (row, *score as f32)).collect::<Vec<_>>());
        ranking.sort_by(|a, b| rank_order(a, b, &corpus.id_ranks()));
        ranking
    }

    #[test]
    fn concat_is_the_weighted_mean_cosine_over_the_whole_corpus() {
        let folder = tempfile::tempdir().unwrap();
        let dataset = dataset(folder.path());
        let (a, b) = (embeddings(folder.path(), &dataset, &SMALL), embeddings(folder.path(), &dataset, &LARGE));
        let corpus = &dataset.partitions[0].corpus;
        let members = [Member { name: "small", artefact: &a }, Member { name: "large", artefact: &b }];
        let fused = |members: &[Member<'_>], config: &FuseConfig, out: &str| {
            let inputs = FuseInputs { dataset: &dataset, split: Split::Dev, members };
            let artefact = fuse(inputs, config, &folder.path().join(out), &Progress::silent()).unwrap();
            let run = open_run(&artefact, &dataset, &english(), Split::Dev).unwrap();
            (run.ranking(QueryIndex(0)).to_vec(), artefact.key().to_owned())
        };
        let config = FuseConfig { weights: [("large".to_owned(), 3.0)].into(), ..FuseConfig::default() };
        let found = fused(&members, &config, "a");
        let expected = brute_force(&[(&a, 1.0), (&b, 3.0)], corpus);
        assert_near(&found.0, &expected.iter().map(|s| (s.passage.0, s.score)).collect::<Vec<_>>());
        assert_eq!(fused(&[members[1], members[0]], &config, "b"), found, "members are taken by name");
        let spread = FuseConfig { weighting: Weighting::InverseSpread, ..FuseConfig::default() };
        assert_eq!(fused(&members, &spread, "c").0.len(), PASSAGES.len());
    }

    #[test]
    fn runs_of_both_kinds_are_fused_and_wrong_members_refused() {
        let folder = tempfile::tempdir().unwrap();
        let dataset = dataset(folder.path());
        let (silent, at) = (Progress::silent(), |name: &str| folder.path().join(name));
        let vectors = embeddings(folder.path(), &dataset, &SMALL);
        let index = bm25::index(&dataset, &Bm25Config::default(), &at("index"), &silent).unwrap();
        let config = SearchConfig::default();
        let dense = search::dense(&dataset, &vectors, Split::Train, &config, &at("dense"), &silent).unwrap();
        let lexical = search::lexical(&dataset, &index, Split::Train, &config, &at("lexical"), &silent).unwrap();
        let run = |members: &[Member<'_>], config: &FuseConfig| {
            let inputs = FuseInputs { dataset: &dataset, split: Split::Train, members };
            fuse(inputs, config, &at("fused"), &silent).map_err(|error| error.to_string())
        };
        let (a, b) = (Member { name: "dense", artefact: &dense }, Member { name: "bm25", artefact: &lexical });
        let rrf = FuseConfig { method: Method::Rrf, ..FuseConfig::default() };
        assert_eq!(run(&[a, b], &rrf).unwrap().summary().counts["rows"], 2 * PASSAGES.len() as u64);
        assert!(run(&[a, b], &FuseConfig::default()).unwrap_err().contains("expected an artefact of `encode`"));
        assert!(run(&[a, a], &rrf).unwrap_err().contains("two retrievers are named `dense`"));
        assert!(run(&[], &rrf).unwrap_err().contains("at least one"));
        let unknown = FuseConfig { weights: [("x".to_owned(), 1.0)].into(), ..rrf };
        assert!(run(&[a, b], &unknown).unwrap_err().contains("`fuse.weights.x`"));
    }

    #[test]
    fn values_out_of_range_are_refused() {
        let fails = |config: FuseConfig| config.validate().unwrap_err().to_string();
        assert!(fails(FuseConfig { depth: 0, ..FuseConfig::default() }).contains("`fuse.depth`"));
        assert!(fails(FuseConfig { rrf_k: -1.0, ..FuseConfig::default() }).contains("`fuse.rrf_k`"));
        let weights = [("a".to_owned(), 0.0)].into();
        assert!(fails(FuseConfig { weights, ..FuseConfig::default() }).contains("`fuse.weights.a`"));
    }
}
