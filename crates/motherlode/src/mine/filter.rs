//! The baseline miners: rules that choose negatives among a query's candidates without a judge.
//!
//! All but `ensemble` rank the candidates by the score of the untouched model that is to be tuned, which is that model's
//! own list over them. Source of the rules: Moreira and others, `NV-Retriever`, section 3; thresholds for BGE-M3 from the paper.

use serde::{Deserialize, Serialize};

use super::QueryCandidates;
use crate::error::{Error, Result};

/// Which of a query's positives a threshold is relative to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Anchor {
    /// The positive with the highest score.
    #[default]
    Max,
    /// The positive with the lowest score.
    Min,
}

impl Anchor {
    /// The score that thresholds are relative to; none without positives.
    fn score(self, query: &QueryCandidates) -> Option<f32> {
        let scores = query.positives.iter().map(|(_, score)| *score);
        match self {
            Self::Max => scores.reduce(f32::max),
            Self::Min => scores.reduce(f32::min),
        }
    }
}

/// A rule, as in `{ rule = "margin", margin = 0.15 }`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Miner {
    /// Every candidate, in fused order.
    #[default]
    Ensemble,
    /// Every candidate, the highest model score first.
    TopK,
    /// Without the first few.
    Shifted {
        /// How many are skipped.
        #[serde(default = "default_skip")]
        skip: usize,
    },
    /// Only scores below a fixed one.
    Absolute {
        /// s < max.
        #[serde(default = "default_max")]
        max: f64,
    },
    /// Only scores below the positive's by a fixed difference.
    Margin {
        /// s < s⁺ − margin.
        #[serde(default = "default_margin")]
        margin: f64,
        /// Which s⁺.
        #[serde(default)]
        anchor: Anchor,
    },
    /// Only scores below the positive's by a share of it.
    Percentage {
        /// s < s⁺ − share · |s⁺|, which means the same for negative scores.
        #[serde(default = "default_share")]
        share: f64,
        /// Which s⁺.
        #[serde(default)]
        anchor: Anchor,
    },
}

fn default_skip() -> usize {
    10
}

fn default_max() -> f64 {
    0.6
}

fn default_margin() -> f64 {
    0.15
}

fn default_share() -> f64 {
    0.10
}

impl Miner {
    /// Checks the ranges.
    pub fn validate(&self) -> Result<()> {
        let (name, value, valid) = match self {
            Self::Ensemble | Self::TopK | Self::Shifted { .. } => return Ok(()),
            Self::Absolute { max } => ("max", *max, max.is_finite()),
            Self::Margin { margin, .. } => ("margin", *margin, margin.is_finite() && *margin >= 0.0),
            Self::Percentage { share, .. } => ("share", *share, (0.0..=1.0).contains(share)),
        };
        if valid { Ok(()) } else { Err(Error::config(format!("`miner.{name}`: {value} is out of range"))) }
    }

    /// The lowest score that a candidate of this query is refused for; none where every score passes.
    fn limit(&self, query: &QueryCandidates) -> Option<f64> {
        match self {
            Self::Ensemble | Self::TopK | Self::Shifted { .. } => None,
            Self::Absolute { max } => Some(*max),
            Self::Margin { margin, anchor } => anchor.score(query).map(|score| f64::from(score) - margin),
            Self::Percentage { share, anchor } => {
                anchor.score(query).map(|score| f64::from(score) - share * f64::from(score.abs()))
            }
        }
    }
}

/// The candidates that the rule keeps, as positions in `query.candidates`, the most wanted first.
///
/// Order: `ensemble` as fused; the others by model score descending, equal scores as fused. A query without positives has no
/// s⁺, so `margin` and `percentage` keep all of its candidates.
pub fn keep(miner: &Miner, query: &QueryCandidates) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..query.candidates.len()).collect();
    let score = |place: usize| query.candidates[place].model_score;
    if *miner != Miner::Ensemble {
        kept.sort_by(|a, b| score(*b).total_cmp(&score(*a)));
    }
    if let Miner::Shifted { skip } = miner {
        kept.drain(..(*skip).min(kept.len()));
    }
    if let Some(limit) = miner.limit(query) {
        kept.retain(|place| f64::from(score(*place)) < limit);
    }
    kept
}

/// What a rule left of a language's candidates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Yield {
    /// Queries.
    pub queries: usize,
    /// Candidates that were kept.
    pub kept: usize,
    /// Candidates that were removed.
    pub removed: usize,
    /// Queries with as many kept candidates as were wanted.
    pub sufficient: usize,
}

impl Yield {
    /// Counts what `miner` keeps where `wanted` negatives a query are needed.
    pub fn of<'a>(miner: &Miner, queries: impl IntoIterator<Item = &'a QueryCandidates>, wanted: usize) -> Self {
        let mut counted = Self::default();
        for query in queries {
            let kept = keep(miner, query).len();
            counted.queries += 1;
            counted.kept += kept;
            counted.removed += query.candidates.len() - kept;
            counted.sufficient += usize::from(kept >= wanted);
        }
        counted
    }

    /// Share of queries with enough candidates; 1 where there is no query.
    pub fn share(&self) -> f64 {
        if self.queries == 0 { 1.0 } else { self.sufficient as f64 / self.queries as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mine::Candidate;

    fn query(positives: &[f32], scores: &[f32]) -> QueryCandidates {
        let candidate = |(rank, score): (u32, &f32)| Candidate {
            passage: format!("p{rank}"),
            rank,
            score: 1.0 / rank as f32,
            model_score: *score,
            human_grade: None,
            evidence: Vec::new(),
        };
        QueryCandidates {
            query: "q".into(),
            positives: positives.iter().map(|score| ("+".to_owned(), *score)).collect(),
            candidates: (1..).zip(scores).map(candidate).collect(),
        }
    }

    #[test]
    fn each_rule_keeps_what_it_says() {
        let query = query(&[0.5, 0.8], &[0.7, 0.9, 0.62, 0.3, 0.73, 0.46]);
        let keep = |miner| keep(&miner, &query);
        assert_eq!(keep(Miner::Ensemble), [0, 1, 2, 3, 4, 5]);
        assert_eq!(keep(Miner::TopK), [1, 4, 0, 2, 5, 3]);
        assert_eq!(keep(Miner::Shifted { skip: 2 }), [0, 2, 5, 3]);
        assert_eq!(keep(Miner::Shifted { skip: 10 }), [0; 0]);
        assert_eq!(keep(Miner::Absolute { max: 0.6 }), [5, 3]);
        assert_eq!(keep(Miner::Margin { margin: 0.15, anchor: Anchor::Max }), [2, 5, 3]);
        assert_eq!(keep(Miner::Margin { margin: 0.1, anchor: Anchor::Min }), [3]);
        assert_eq!(keep(Miner::Percentage { share: 0.1, anchor: Anchor::Max }), [0, 2, 5, 3]);
        assert_eq!(keep(Miner::Percentage { share: 0.1, anchor: Anchor::Min }), [3]);
    }

    #[test]
    fn percentages_keep_their_sense_below_zero() {
        let query = query(&[-10.0], &[-10.5, -11.5, -9.0]);
        assert_eq!(keep(&Miner::Percentage { share: 0.1, anchor: Anchor::Max }, &query), [1]);
    }

    #[test]
    fn equal_scores_stay_in_fused_order_and_no_positive_means_no_limit() {
        let query = query(&[], &[0.5, 0.7, 0.5]);
        assert_eq!(keep(&Miner::Margin { margin: 0.1, anchor: Anchor::Max }, &query), [1, 0, 2]);
    }

    #[test]
    fn the_yield_counts_queries_with_enough() {
        let queries = [query(&[0.9], &[0.1, 0.8]), query(&[0.9], &[0.1, 0.2])];
        let counted = Yield::of(&Miner::Absolute { max: 0.6 }, &queries, 2);
        assert_eq!(counted, Yield { queries: 2, kept: 3, removed: 1, sufficient: 1 });
        assert!((counted.share() - 0.5).abs() < 1e-12);
    }

    #[test]
    fn rules_are_read_with_defaults_and_unknown_keys_refused() {
        let read = |text: &str| serde_json::from_str::<Miner>(text);
        assert_eq!(read(r#"{"rule": "shifted"}"#).unwrap(), Miner::Shifted { skip: 10 });
        let percentage = Miner::Percentage { share: 0.05, anchor: Anchor::Min };
        assert_eq!(read(r#"{"rule": "percentage", "share": 0.05, "anchor": "min"}"#).unwrap(), percentage);
        assert!(read(r#"{"rule": "margin", "skip": 1}"#).is_err());
        assert!(Miner::Margin { margin: -0.1, anchor: Anchor::Max }.validate().is_err());
        assert!(Miner::Percentage { share: 2.0, anchor: Anchor::Max }.validate().is_err());
    }
}
