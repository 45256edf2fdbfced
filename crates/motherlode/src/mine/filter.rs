//! The baseline miners: rules over the scores of the untouched model, each over the same candidates.

use serde::{Deserialize, Serialize};

use super::{Candidate, QueryCandidates};
use crate::error::{Error, Result};

/// Which positive's score a candidate is held against.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Anchor {
    /// The highest-scoring positive, as in the paper.
    #[default]
    Max,
    /// The lowest-scoring positive, as in sentence-transformers.
    Min,
}

/// Which candidates become negatives without a judge. Scores are those of the untouched model; its order is
/// descending score, ties by the candidates' rank.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Miner {
    /// All candidates in the order of the fused list.
    #[default]
    Ensemble,
    /// All candidates in the untouched model's order.
    TopK,
    /// The untouched model's order without its first `skip`.
    Shifted {
        /// How many to drop; the paper's 10.
        skip: usize,
    },
    /// Score below `threshold`.
    Absolute {
        /// The paper's 0.6 (for BGE-M3).
        threshold: f32,
    },
    /// Score below s⁺ − `margin`.
    Margin {
        /// The paper's 0.15.
        margin: f32,
        /// Which positive gives s⁺.
        #[serde(default)]
        anchor: Anchor,
    },
    /// Score below s⁺ − (1 − `share`)·|s⁺|, which is share·s⁺ where s⁺ is positive, and right where it is not.
    Percentage {
        /// The paper's 0.9.
        share: f32,
        /// Which positive gives s⁺.
        #[serde(default)]
        anchor: Anchor,
    },
}

impl Miner {
    /// Checks ranges.
    pub fn validate(&self) -> Result<()> {
        let value = match *self {
            Self::Absolute { threshold } => threshold,
            Self::Margin { margin, .. } => margin,
            Self::Percentage { share, .. } if !(0.0..=1.0).contains(&share) => f32::NAN,
            _ => 0.0,
        };
        if value.is_finite() { Ok(()) } else { Err(Error::config("`sample.miner`: a threshold is out of range; a share is from 0 to 1")) }
    }

    /// The paper's percentage rule, also the default for candidates without a verdict.
    pub fn percentage() -> Self {
        Self::Percentage { share: 0.9, anchor: Anchor::Max }
    }
}

/// Positions of the candidates that the miner keeps, in its order.
///
/// A query without a scored positive has no anchor; `margin` and `percentage` then keep nothing.
pub fn keep(miner: &Miner, query: &QueryCandidates) -> Vec<usize> {
    if *miner == Miner::Ensemble {
        return (0..query.candidates.len()).collect();
    }
    let mut order: Vec<usize> = (0..query.candidates.len()).collect();
    order.sort_by(|a, b| query.candidates[*b].model_score.total_cmp(&query.candidates[*a].model_score).then(a.cmp(b)));
    if let Miner::Shifted { skip } = miner {
        order.drain(..(*skip).min(order.len()));
    }
    order.retain(|position| passes(miner, query, &query.candidates[*position]));
    order
}

/// Whether a candidate's score is low enough under the rule.
pub fn passes(miner: &Miner, query: &QueryCandidates, candidate: &Candidate) -> bool {
    let limit = match *miner {
        Miner::Ensemble | Miner::TopK | Miner::Shifted { .. } => return true,
        Miner::Absolute { threshold } => Some(threshold),
        Miner::Margin { margin, anchor } => anchor_score(query, anchor).map(|positive| positive - margin),
        Miner::Percentage { share, anchor } => {
            anchor_score(query, anchor).map(|positive| positive - (1.0 - share) * positive.abs())
        }
    };
    limit.is_some_and(|limit| candidate.model_score < limit)
}

fn anchor_score(query: &QueryCandidates, anchor: Anchor) -> Option<f32> {
    let scores = query.positives.iter().map(|(_, score)| *score);
    match anchor {
        Anchor::Max => scores.max_by(f32::total_cmp),
        Anchor::Min => scores.min_by(f32::total_cmp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn query(positives: &[f32], scores: &[f32]) -> QueryCandidates {
        let candidate = |(index, score): (usize, &f32)| Candidate {
            passage: format!("d{index}"),
            rank: index as u32 + 1,
            score: 1.0 / (index + 1) as f32,
            model_score: *score,
            human_grade: None,
            evidence: Vec::new(),
        };
        QueryCandidates {
            query: "q".into(),
            positives: positives.iter().enumerate().map(|(i, score)| (format!("p{i}"), *score)).collect(),
            candidates: scores.iter().enumerate().map(candidate).collect(),
        }
    }

    #[test]
    fn each_rule_keeps_what_it_says() {
        let query = query(&[0.8, 0.5], &[0.3, 0.79, 0.65, 0.7]);
        assert_eq!(keep(&Miner::Ensemble, &query), [0, 1, 2, 3]);
        assert_eq!(keep(&Miner::TopK, &query), [1, 3, 2, 0]);
        assert_eq!(keep(&Miner::Shifted { skip: 1 }, &query), [3, 2, 0]);
        assert_eq!(keep(&Miner::Shifted { skip: 9 }, &query), Vec::<usize>::new());
        assert_eq!(keep(&Miner::Absolute { threshold: 0.66 }, &query), [2, 0]);
        assert_eq!(keep(&Miner::Margin { margin: 0.11, anchor: Anchor::Max }, &query), [2, 0]);
        assert_eq!(keep(&Miner::percentage(), &query), [3, 2, 0]);
        assert_eq!(keep(&Miner::Percentage { share: 0.9, anchor: Anchor::Min }, &query), [0]);
    }

    #[test]
    fn equal_scores_keep_the_candidates_order() {
        assert_eq!(keep(&Miner::TopK, &query(&[0.9], &[0.5, 0.5, 0.6])), [2, 0, 1]);
    }

    proptest! {
        /// The percentage rule must not turn round where scores are negative (sentence-transformers pull request 3821).
        #[test]
        fn percentage_always_asks_for_less_than_the_positive(positive in -1.0_f32..1.0, score in -1.0_f32..1.0) {
            let query = query(&[positive], &[score]);
            for position in keep(&Miner::percentage(), &query) {
                prop_assert!(query.candidates[position].model_score < positive);
            }
        }
    }
}
