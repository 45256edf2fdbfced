//! Generation: queries that fall short of negatives get new ones, found through a query that a language model wrote.
//!
//! Reads the artefacts of `mine` and `judge` and the data set; writes `LANG.jsonl` (a [`QuerySupplement`] a line) and
//! `gains.json` (a [`Gain`] by language). For
//! every query with too few negatives a model summarises the positive with regard to the query and writes a new query
//! from the summary ([`write_queries`]). The new query goes through the same retrievers; whatever the first list did not
//! have is judged against the *original* query and its reference, like the first candidates. A language stops after a probe
//! that hardly ever brought a new negative (`generate.probe`, `generate.stop_below`).
//!
//! Fallible functions return [`Error::Data`](crate::Error::Data) where artefacts do not belong together, and the errors
//! of [`crate::llm`] and of whoever retrieves.

mod check;
mod config;
mod gain;
mod prompt;
mod stage;
#[cfg(test)]
mod tests;
mod write;

pub use config::{GenerateConfig, Method, Prompts};
pub use gain::Gain;
pub use stage::{Found, Retrieve, generate, rehearse, supplement};
pub use write::{GenerateInputs, Generated, Written, write_queries};

use serde::{Deserialize, Serialize};

use crate::judge::Judgement;
use crate::mine::Candidate;

/// Why a generated query was not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rejection {
    /// The model gave no usable text.
    Empty,
    /// It is the original query again.
    Copy,
    /// It is in another language.
    Language,
}

/// The supplement of one query: a line of `LANG.jsonl` in the artefact of `generate`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuerySupplement {
    /// The query's id.
    pub query: String,
    /// The query-centric summary of the positive; absent for `direct`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// The new query.
    pub generated: String,
    /// Why the new query was not used, if it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Rejection>,
    /// The share of its candidates that the first list did not have.
    pub novelty: f64,
    /// New candidates by rank, without positives and without the first list's.
    pub candidates: Vec<Candidate>,
    /// Their judgements, in the same order.
    pub judgements: Vec<Judgement>,
}
