//! Mining: from a fused run to candidates for hard negatives, with every positive and its twins removed.

pub mod filter;

use serde::{Deserialize, Serialize};

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
