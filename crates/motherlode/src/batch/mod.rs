//! Batches: which queries, positives and negatives share a step, decided by seed before training begins.

use serde::{Deserialize, Serialize};

use crate::corpus::Language;
use crate::sample::Negative;

/// One query of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The query's language; equal for all rows of a step unless `batch.language = "mixed"`.
    pub language: Language,
    /// The query's id.
    pub query: String,
    /// The positive of this draw.
    pub positive: String,
    /// The negatives of this draw.
    pub negatives: Vec<Negative>,
    /// Columns of the step whose passage must not count as a negative of this row (see [`Step::columns`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub masked: Vec<u32>,
}

/// One optimiser step: a line of `batches.jsonl` in the artefact of `batch`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Counted from 0 over the whole training.
    pub step: u64,
    /// Counted from 0.
    pub epoch: u32,
    /// The queries of the step.
    pub rows: Vec<Row>,
}

impl Step {
    /// The distinct passages of the step with their language, in order of first use: the columns of the score matrix.
    /// A passage that occurs twice is one column and is encoded once.
    pub fn columns(&self) -> Vec<(&Language, &str)> {
        let mut columns = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for row in &self.rows {
            let passages = std::iter::once(row.positive.as_str())
                .chain(row.negatives.iter().map(|negative| negative.passage.as_str()));
            columns.extend(passages.map(|passage| (&row.language, passage)).filter(|column| seen.insert(*column)));
        }
        columns
    }
}
