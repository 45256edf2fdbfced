//! The measures, equal to `trec_eval`'s.
//!
//! A passage is relevant from grade 1 on; an unjudged passage counts as not relevant, and so does a negative grade.
//! Rankings come sorted by THE tie rule ([`crate::run::rank_order`]), which is `trec_eval`'s. Every measure is 0 for a
//! query without relevant passages and for one without a ranking.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::corpus::PassageIndex;
use crate::error::{Error, Result};
use crate::run::Scored;

/// A measure of one ranking. In files and configurations a string such as `nDCG@10`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Measure {
    /// Normalised discounted cumulative gain of the first k, with the grade as gain. Source: `trec_eval` `ndcg_cut`.
    Ndcg(usize),
    /// Share of the relevant passages that are among the first k. Source: `trec_eval` `recall`.
    Recall(usize),
    /// One over the rank of the first relevant passage, 0 if it is beyond k. Source: `trec_eval` `recip_rank` with `-M k`.
    ReciprocalRank(usize),
    /// Mean over the relevant passages of the precision at their rank. Source: `trec_eval` `map`.
    AveragePrecision,
    /// Share of k that is relevant, however few were found. Source: `trec_eval` `P`.
    Precision(usize),
    /// Share of the first k that was judged; of those found, where fewer than k were. Source: `ir_measures` `Judged`.
    Judged(usize),
}

impl Measure {
    /// The value for one query, in [0, 1].
    pub fn of(self, graded: &Graded) -> f64 {
        match self {
            Self::Ndcg(k) => graded.ndcg(k),
            Self::Recall(k) => ratio(graded.relevant_found(k), graded.ideal.len()),
            Self::ReciprocalRank(k) => graded.reciprocal_rank(k),
            Self::AveragePrecision => graded.average_precision(),
            Self::Precision(k) => ratio(graded.relevant_found(k), k),
            Self::Judged(k) => ratio(graded.judged_found(k), k.min(graded.retrieved)),
        }
    }

    fn name(self) -> (&'static str, Option<usize>) {
        match self {
            Self::Ndcg(k) => ("nDCG", Some(k)),
            Self::Recall(k) => ("Recall", Some(k)),
            Self::ReciprocalRank(k) => ("MRR", Some(k)),
            Self::AveragePrecision => ("MAP", None),
            Self::Precision(k) => ("P", Some(k)),
            Self::Judged(k) => ("judged", Some(k)),
        }
    }
}

impl std::fmt::Display for Measure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            (name, Some(k)) => formatter.pad(&format!("{name}@{k}")),
            (name, None) => formatter.pad(name),
        }
    }
}

impl From<Measure> for String {
    fn from(measure: Measure) -> Self {
        measure.to_string()
    }
}

impl TryFrom<String> for Measure {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl FromStr for Measure {
    type Err = Error;

    /// Reads `nDCG@10`, `Recall@100`, `MRR@10`, `MAP`, `P@5`, `judged@10`, in any case.
    fn from_str(text: &str) -> Result<Self> {
        let unknown = || {
            let expected = "expected nDCG@k, Recall@k, MRR@k, P@k or judged@k with k from 1, or MAP";
            Error::config(format!("unknown measure `{text}`; {expected}"))
        };
        let (name, k) = match text.split_once('@') {
            Some((name, k)) => (name, k.parse().ok().filter(|k| *k >= 1)),
            None if text.eq_ignore_ascii_case("map") => return Ok(Self::AveragePrecision),
            None => return Err(unknown()),
        };
        let k = k.ok_or_else(unknown)?;
        match name.to_ascii_lowercase().as_str() {
            "ndcg" => Ok(Self::Ndcg(k)),
            "recall" => Ok(Self::Recall(k)),
            "mrr" => Ok(Self::ReciprocalRank(k)),
            "p" => Ok(Self::Precision(k)),
            "judged" => Ok(Self::Judged(k)),
            _ => Err(unknown()),
        }
    }
}

/// A ranking seen through its judgements: all that a measure needs, made once for all measures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graded {
    /// Ranks (from 0) and grades of the judged passages that were found, by rank.
    hits: Vec<(usize, i32)>,
    /// Number of passages found.
    retrieved: usize,
    /// Positive grades of all judged passages, descending.
    ideal: Vec<i32>,
}

impl Graded {
    /// Looks up the grades of a ranking that is sorted by THE tie rule.
    pub fn new(ranking: &[Scored], grades: &BTreeMap<PassageIndex, i32>) -> Self {
        let grade_at = |(rank, scored): (usize, &Scored)| grades.get(&scored.passage).map(|grade| (rank, *grade));
        Self::from_hits(
            ranking.iter().enumerate().filter_map(grade_at).collect(),
            ranking.len(),
            grades.values().copied(),
        )
    }

    /// Takes the (rank from 0, grade) of the judged passages that were found, by rank; how many passages were found;
    /// and the grades of all judged passages.
    pub fn from_hits(hits: Vec<(usize, i32)>, retrieved: usize, judged: impl Iterator<Item = i32>) -> Self {
        let mut ideal: Vec<i32> = judged.filter(|grade| *grade >= 1).collect();
        ideal.sort_unstable_by(|a, b| b.cmp(a));
        Self { hits, retrieved, ideal }
    }

    /// The value of each measure.
    pub fn values(&self, measures: &[Measure]) -> BTreeMap<Measure, f64> {
        measures.iter().map(|measure| (*measure, measure.of(self))).collect()
    }

    /// Number of passages found.
    pub fn retrieved(&self) -> usize {
        self.retrieved
    }

    /// Number of the first k passages that nobody judged.
    pub fn unjudged(&self, k: usize) -> usize {
        k.min(self.retrieved) - self.judged_found(k)
    }

    fn first(&self, k: usize) -> impl Iterator<Item = (usize, i32)> {
        self.hits.iter().copied().take_while(move |(rank, _)| *rank < k)
    }

    /// Ranks (from 0) of the relevant passages among the first k.
    fn relevant(&self, k: usize) -> impl Iterator<Item = usize> {
        self.first(k).filter(|(_, grade)| *grade >= 1).map(|(rank, _)| rank)
    }

    fn relevant_found(&self, k: usize) -> usize {
        self.relevant(k).count()
    }

    fn judged_found(&self, k: usize) -> usize {
        self.first(k).count()
    }

    fn ndcg(&self, k: usize) -> f64 {
        let discounted = |(rank, grade): (usize, i32)| f64::from(grade) / (rank as f64 + 2.0).log2();
        let gain: f64 = self.first(k).filter(|(_, grade)| *grade >= 1).map(discounted).sum();
        let ideal: f64 = self.ideal.iter().copied().take(k).enumerate().map(discounted).sum();
        if ideal > 0.0 { gain / ideal } else { 0.0 }
    }

    fn reciprocal_rank(&self, k: usize) -> f64 {
        self.relevant(k).next().map_or(0.0, |rank| 1.0 / (rank as f64 + 1.0))
    }

    fn average_precision(&self) -> f64 {
        let precisions = self.relevant(usize::MAX).enumerate().map(|(before, rank)| ratio(before + 1, rank + 1));
        let sum: f64 = precisions.sum();
        if self.ideal.is_empty() { 0.0 } else { sum / self.ideal.len() as f64 }
    }
}

/// nDCG of the first `k` passages, with the grade as gain.
///
/// *Order and ties*: `ranking` is sorted by THE tie rule.
/// *Source*: `trec_eval` `ndcg_cut`: linear gain, negative grades count 0, the ideal is made of all judged passages.
pub fn ndcg(ranking: &[Scored], grades: &BTreeMap<PassageIndex, i32>, k: usize) -> f64 {
    Measure::Ndcg(k).of(&Graded::new(&ranking[..k.min(ranking.len())], grades))
}

fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranking(passages: &[u32]) -> Vec<Scored> {
        let score = |rank: usize| -(rank as f32);
        passages.iter().enumerate().map(|(rank, p)| Scored { passage: PassageIndex(*p), score: score(rank) }).collect()
    }

    fn grades(pairs: &[(u32, i32)]) -> BTreeMap<PassageIndex, i32> {
        pairs.iter().map(|(passage, grade)| (PassageIndex(*passage), *grade)).collect()
    }

    fn close(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-12, "{value} is not {expected}");
    }

    #[test]
    fn ndcg_has_linear_gain_and_an_ideal_of_all_judged() {
        let value = ndcg(&ranking(&[5, 1, 2]), &grades(&[(1, 1), (2, 3), (3, 2), (5, -1)]), 2);
        close(value, (1.0 / 3f64.log2()) / (3.0 + 2.0 / 3f64.log2()));
    }

    #[test]
    fn measures_of_one_ranking_by_hand() {
        let graded = Graded::new(&ranking(&[9, 1, 8, 2]), &grades(&[(1, 1), (2, 2), (3, 1), (8, 0)]));
        close(Measure::Recall(2).of(&graded), 1.0 / 3.0);
        close(Measure::ReciprocalRank(10).of(&graded), 0.5);
        close(Measure::ReciprocalRank(1).of(&graded), 0.0);
        close(Measure::AveragePrecision.of(&graded), (0.5 + 0.5) / 3.0);
        close(Measure::Precision(5).of(&graded), 0.4);
        close(Measure::Judged(10).of(&graded), 0.75);
        assert_eq!(graded.unjudged(10), 1);
    }

    #[test]
    fn nothing_relevant_and_nothing_found_are_zero() {
        let all = ["nDCG@10", "Recall@5", "MRR@10", "MAP", "P@3", "judged@10"];
        for measure in all.map(|name| name.parse::<Measure>().unwrap()) {
            close(measure.of(&Graded::new(&[], &grades(&[(1, 1)]))), 0.0);
            close(measure.of(&Graded::new(&ranking(&[1]), &grades(&[]))), 0.0);
        }
    }

    #[test]
    fn names_read_back_and_wrong_ones_are_refused() {
        for name in ["nDCG@10", "Recall@100", "MRR@10", "MAP", "P@5", "judged@10"] {
            assert_eq!(name.parse::<Measure>().unwrap().to_string(), name);
        }
        assert_eq!("ndcg@10".parse::<Measure>().unwrap(), Measure::Ndcg(10));
        for name in ["nDCG", "nDCG@0", "nDCG@x", "MAP@3", "F1@2", ""] {
            let message = name.parse::<Measure>().unwrap_err().to_string();
            assert!(message.contains("expected nDCG@k"), "{message}");
        }
    }
}
