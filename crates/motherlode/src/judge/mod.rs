//! Judging: a language model says which candidates answer the query after all.
//!
//! Reads the artefact of `mine` and the data set, and files of labels where there are any. Writes `LANG.jsonl` (a
//! [`QueryJudgements`] a line), `LANG.explained.jsonl` (every verdict with texts and reasons, for a person),
//! `canaries.json` ([`Canaries`] by language), `calibration.json` ([`Calibration`] by language) with the pairs behind it
//! in `calibration.jsonl` ([`CalibrationPair`]), `swaps.json` ([`Swaps`] by language) and, with a cheap judge,
//! `cascade.json` ([`Cascade`]). Every question goes through the [ledger](crate::llm). In this order: probes whose answer is
//! known ([canaries](Canaries)), pairs that people judged ([calibration](Calibration)), then the candidates, where a
//! budget may end the most important first. Two criteria of 0, 1 or 2 combine to a grade: 0 is a negative, 1 is excluded,
//! 2 is a false negative; a reply that cannot be read is asked for twice more and then `unknown`.
//!
//! Fallible functions return [`Error::Data`](crate::Error::Data) where inputs do not belong together, where every
//! language's canaries fail, and where the ledger lacks answers and no server is configured; and the errors of
//! [`crate::llm`].

mod ask;
mod calibrate;
mod canary;
mod cascade;
mod config;
mod explain;
pub(crate) mod kappa;
mod labels;
mod measure;
mod parse;
mod plan;
mod priority;
mod prompt;
pub(crate) mod rates;
mod reliability;
mod select;
mod stage;
mod swap;
#[cfg(test)]
pub(crate) mod tests;
mod verdict;

pub use calibrate::{CalibrationPair, Source};
pub use canary::{Canaries, Probe, abstained};
pub(crate) use cascade::thresholds_of;
pub use cascade::{Audit, Cascade, Thresholds};
pub use config::{CascadeConfig, JudgeConfig, Method, Order, Priority, Reference, UnjudgedRule};
pub(crate) use explain::why;
pub use labels::labels_digest;
pub(crate) use measure::grade_of;
pub use measure::{Band, Calibration, GradeCounts};
pub use plan::{JudgePlan, LanguagePlan, plan};
pub(crate) use prompt::passage_text;
pub use rates::{Corrected, Estimate, Rates};
pub use reliability::Bin;
pub use select::judge_candidates;
pub(crate) use select::{drawn, passage_named, query_named};
pub use stage::{JudgeInputs, judge, lists, rehearse};
pub use swap::{Swap, Swaps};

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::artefact::Artefact;
use crate::corpus::Language;
use crate::dataset::{Dataset, Split};
use crate::error::Result;
use crate::llm::Llm;

/// Who judges, and over which texts.
#[derive(Clone, Copy)]
pub struct Judge<'a> {
    /// The data set.
    pub dataset: &'a Dataset,
    /// The split of the queries.
    pub split: Split,
    /// The rules.
    pub config: &'a JudgeConfig,
    /// The model.
    pub llm: &'a Llm,
}

/// What the first candidates showed of the judge, and what further ones are judged by.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Standing {
    /// Languages whose verdicts do not count.
    pub abstained: BTreeSet<Language>,
    /// Where the cheap judge's word counts.
    pub thresholds: Option<Thresholds>,
}

impl Standing {
    /// What an artefact of `judge` says.
    pub fn read(judgements: &Artefact) -> Result<Self> {
        Ok(Self { abstained: abstained(judgements)?, thresholds: cascade::thresholds_of(judgements)? })
    }
}

/// What [`judge_candidates`] found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Judged {
    /// The judgements by language, in the order of the lists.
    pub lists: BTreeMap<Language, Vec<QueryJudgements>>,
    /// Pairs that were chosen to be judged.
    pub pairs: usize,
    /// Pairs of these that the budget did not reach.
    pub unpaid: usize,
}

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
    /// What the cheap judge said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub screened: Option<Screened>,
    /// Keys of the ledger's entries, one a vote.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ledger: Vec<String>,
}

/// The cheap judge's word on a candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Screened {
    /// The probability that it is relevant; absent where the reply had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// Whether this made the verdict, so that the large judge was not asked.
    pub decided: bool,
    /// Key of the ledger's entry.
    pub ledger: String,
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
    /// All verdicts.
    pub const ALL: [Self; 7] = [
        Self::Negative,
        Self::Excluded,
        Self::FalseNegative,
        Self::Unknown,
        Self::Abstained,
        Self::Unjudged,
        Self::Human,
    ];

    /// The name in files and summaries.
    pub fn name(self) -> &'static str {
        match self {
            Self::Negative => "negative",
            Self::Excluded => "excluded",
            Self::FalseNegative => "false-negative",
            Self::Unknown => "unknown",
            Self::Abstained => "abstained",
            Self::Unjudged => "unjudged",
            Self::Human => "human",
        }
    }

    /// The grade that it stands for: 0, 1 or 2; none where no judge's word counts.
    pub fn grade(self) -> Option<u8> {
        match self {
            Self::Negative => Some(0),
            Self::Excluded => Some(1),
            Self::FalseNegative => Some(2),
            _ => None,
        }
    }

    /// Whether a judge that answered counts the passage as relevant to some degree (grade 1 or 2).
    pub fn is_eliminated(self) -> bool {
        matches!(self, Self::Excluded | Self::FalseNegative)
    }
}
