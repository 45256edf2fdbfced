//! Judging: a language model says which candidates answer the query after all.

mod prompt;

use serde::{Deserialize, Serialize};

/// What became of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Combined grade 0: a negative.
    Negative,
    /// Combined grade 1: neither negative nor positive.
    Excluded,
    /// Combined grade 2: answers the query; an extra positive candidate.
    FalseNegative,
    /// The model's replies could not be read: never a negative, never lost.
    Unknown,
    /// The language's canaries failed, so its verdicts do not count.
    Abstained,
    /// No verdict was bought: the budget was spent, or judging is off.
    Unjudged,
    /// People judged the pair not relevant; the model was not asked.
    Human,
}

/// The fate of one candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// The passage's id.
    pub passage: String,
    /// What became of it.
    pub verdict: Verdict,
    /// Information Accuracy, 0 to 2, of the vote that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<u8>,
    /// Information Completeness, 0 to 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completeness: Option<u8>,
    /// Keys of the ledger's entries, one a vote.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ledger: Vec<String>,
}

/// The judgements of one query's candidates, by rank: a line of `LANG.jsonl` in the artefact of `judge`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueryJudgements {
    /// The query's id.
    pub query: String,
    /// One judgement for every candidate, in the candidates' order.
    pub judgements: Vec<Judgement>,
}

impl Verdict {
    /// Whether a judge that answered counts the passage as relevant to some degree (grade 1 or 2).
    pub fn is_eliminated(self) -> bool {
        matches!(self, Self::Excluded | Self::FalseNegative)
    }
}
