//! Stand-in.
use serde::{Deserialize, Serialize};

use super::QueryCandidates;

/// Stand-in.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Miner {
    /// All.
    #[default]
    TopK,
    /// Share.
    Percentage,
}

/// Stand-in.
pub fn keep(miner: &Miner, query: &QueryCandidates) -> Vec<usize> {
    let limit = query.positives.first().map_or(f32::INFINITY, |(_, score)| score - 0.1 * score.abs());
    let passes = |score: f32| *miner == Miner::TopK || score < limit;
    (0..query.candidates.len()).filter(|index| passes(query.candidates[*index].model_score)).collect()
}
