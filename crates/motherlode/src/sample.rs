//! Sampling: from qrels, candidates, judgements and supplements to training examples, each negative with its provenance.

use serde::{Deserialize, Serialize};

/// Where a negative came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Provenance {
    /// A candidate that the judge called a negative.
    Judged,
    /// A candidate of a generated query that the judge called a negative.
    Supplement,
    /// Judged not relevant by people.
    Human,
    /// A candidate beyond the first K that the judge called a negative.
    Deeper,
    /// A candidate chosen by a score rule (a baseline miner) without a judge.
    Mined,
    /// A candidate without a verdict that `judge.unjudged` let through.
    Unjudged,
    /// Drawn at random from the passages of the language.
    Random,
}

/// A negative of a training example.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Negative {
    /// The passage's id.
    pub passage: String,
    /// Where it came from.
    pub provenance: Provenance,
}

/// A query with its positives and negatives: a line of `LANG.train.jsonl` or `LANG.validation.jsonl` in the artefact of `sample`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// The query's id.
    pub query: String,
    /// Ids of its positives, in the order in which epochs take them.
    pub positives: Vec<String>,
    /// Passages that must never be a negative of this query: known positives, their twins, and whatever the judge graded 1 or 2.
    pub relevant: Vec<String>,
    /// Its negatives, the most wanted first.
    pub negatives: Vec<Negative>,
}
