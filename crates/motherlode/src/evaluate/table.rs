//! What `evaluate` writes and `compare` and the report read: measures per query and their means.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Measure;
use crate::artefact::Artefact;
use crate::corpus::Language;
use crate::dataset::Split;
use crate::error::{Error, Result};

/// Values by measure.
pub type Values = BTreeMap<Measure, f64>;

/// Which judgements a value was measured against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judgements {
    /// The data set's qrels.
    Qrels,
    /// The hidden truth that a made data set brings along.
    Truth,
}

/// The measures of one query: a line of `LANG.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueryMeasures {
    /// The query's id.
    pub query: String,
    /// Number of passages found; 0 where the run has no ranking, and then every measure is 0.
    pub retrieved: usize,
    /// Passages among the first 10 that nobody judged.
    pub unjudged: usize,
    /// Against the qrels.
    pub values: Values,
    /// Against the truth, where one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truth: Option<Values>,
}

impl QueryMeasures {
    /// Reads the queries of a language, in the order of the data set.
    pub fn read(artefact: &Artefact, language: &Language) -> Result<Vec<Self>> {
        artefact.read_lines(&format!("{language}.jsonl"))
    }

    /// The values against the qrels or the truth.
    pub fn values(&self, judgements: Judgements) -> Option<&Values> {
        match judgements {
            Judgements::Qrels => Some(&self.values),
            Judgements::Truth => self.truth.as_ref(),
        }
    }
}

/// The means of one language.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LanguageMeasures {
    /// Passages of the corpus.
    pub passages: usize,
    /// Queries that were scored.
    pub queries: usize,
    /// Those of them that have a ranking.
    pub found: usize,
    /// Mean number of unjudged passages among the first 10, over the queries with a ranking.
    pub unjudged_at_10: f64,
    /// Means over the scored queries, against the qrels.
    pub mean: Values,
    /// The same against the truth, where one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truth: Option<Values>,
}

/// All means: `measures.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasureTable {
    /// Whose queries were scored.
    pub split: Split,
    /// Whether queries without a ranking count 0 (`trec_eval -c`) or are left out.
    pub complete: bool,
    /// Per language.
    pub languages: BTreeMap<Language, LanguageMeasures>,
    /// Unweighted means over the languages, of the measures that every language has.
    pub mean: Values,
    /// The same against the truth, where one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truth: Option<Values>,
}

impl MeasureTable {
    /// The file's name in the artefact.
    pub const FILE: &str = "measures.json";

    /// Reads the table of an artefact of `evaluate`.
    pub fn read(artefact: &Artefact) -> Result<Self> {
        let path = artefact.path(Self::FILE);
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        serde_json::from_str(&text).map_err(|error| Error::file(&path, format!("{error}; evaluate again")))
    }

    /// The macro means over these languages.
    pub(super) fn new(split: Split, complete: bool, languages: BTreeMap<Language, LanguageMeasures>) -> Self {
        let mean = mean_of_values(languages.values().map(|language| &language.mean));
        let truth: Vec<&Values> = languages.values().filter_map(|language| language.truth.as_ref()).collect();
        let truth = (!truth.is_empty()).then(|| mean_of_values(truth));
        Self { split, complete, languages, mean, truth }
    }
}

/// The mean of each measure that all rows have.
pub(super) fn mean_of_values<'a>(rows: impl IntoIterator<Item = &'a Values>) -> Values {
    let rows: Vec<&Values> = rows.into_iter().collect();
    let Some(first) = rows.first() else { return Values::new() };
    let mean = |measure: &Measure| {
        let values: Option<Vec<f64>> = rows.iter().map(|row| row.get(measure).copied()).collect();
        values.map(|values| (*measure, super::significance::mean(&values)))
    };
    first.keys().filter_map(mean).collect()
}
