//! The little that is kept of every line: read without the rest, which is skipped.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::judge::Verdict;

/// Of a line of `mine`.
#[derive(Deserialize)]
pub(super) struct CandidateFacts<'a> {
    #[serde(borrow)]
    pub(super) query: Cow<'a, str>,
    pub(super) positives: Vec<(IgnoredAny, f32)>,
    pub(super) candidates: Vec<ModelScore>,
}

/// Of a candidate.
#[derive(Deserialize)]
pub(super) struct ModelScore {
    pub(super) model_score: f32,
}

/// Of a line of `judge`.
#[derive(Deserialize)]
pub(super) struct JudgementFacts<'a> {
    #[serde(borrow)]
    pub(super) query: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) judgements: Vec<VerdictFact<'a>>,
}

/// Of a judgement.
#[derive(Deserialize)]
pub(super) struct VerdictFact<'a> {
    #[serde(borrow)]
    pub(super) passage: Cow<'a, str>,
    pub(super) verdict: Verdict,
}

/// Of a candidate, where nothing was judged.
#[derive(Deserialize)]
pub(super) struct PassageFacts<'a> {
    #[serde(borrow)]
    pub(super) candidates: Vec<PassageFact<'a>>,
}

/// Which passage, and whether people judged it.
#[derive(Deserialize)]
pub(super) struct PassageFact<'a> {
    #[serde(borrow)]
    pub(super) passage: Cow<'a, str>,
    #[serde(default)]
    pub(super) human_grade: Option<i32>,
}

/// Of a line of `mine`: all passages that a query lists.
#[derive(Deserialize)]
pub(super) struct ListedFacts<'a> {
    #[serde(borrow)]
    pub(super) positives: Vec<(Cow<'a, str>, IgnoredAny)>,
    #[serde(borrow)]
    pub(super) candidates: Vec<PassageFact<'a>>,
}

/// Of a line of `sample`.
#[derive(Deserialize)]
pub(super) struct ExampleFacts<'a> {
    #[serde(borrow)]
    pub(super) query: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) positives: Vec<Cow<'a, str>>,
}

/// Of a line of `generate`.
#[derive(Deserialize)]
pub(super) struct SupplementFacts<'a> {
    #[serde(borrow)]
    pub(super) query: Cow<'a, str>,
}

/// Of a line of `batch`.
#[derive(Deserialize)]
pub(super) struct StepFacts<'a> {
    #[serde(borrow)]
    pub(super) rows: Vec<RowFacts<'a>>,
}

/// Of a line of `batch`, with what its rows bring.
#[derive(Deserialize)]
pub(super) struct UsedStep<'a> {
    #[serde(borrow)]
    pub(super) rows: Vec<UsedRow<'a>>,
}

/// Of a row of a step, with what it brings.
#[derive(Deserialize)]
pub(super) struct UsedRow<'a> {
    #[serde(borrow)]
    pub(super) language: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) query: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) positive: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) negatives: Vec<PassageFact<'a>>,
}

/// Of a row of a step.
#[derive(Deserialize)]
pub(super) struct RowFacts<'a> {
    #[serde(borrow)]
    pub(super) language: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) query: Cow<'a, str>,
}
