//! What `evaluate` writes and `compare` and the report read: measures per query and their means.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::pool::{self, Pool};
use super::render::aligned;
use super::significance::mean;
use super::{Graded, Measure};
use crate::artefact::{Artefact, Summary};
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
    /// The measures of a ranking against the qrels.
    pub(super) fn new(id: &str, graded: &Graded, measures: &[Measure]) -> Self {
        Self {
            query: id.to_owned(),
            retrieved: graded.retrieved(),
            unjudged: graded.unjudged(10),
            values: graded.values(measures),
            truth: None,
        }
    }

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
    /// Passages of the corpus that was ranked, and of the declared one.
    pub pool: Pool,
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

impl LanguageMeasures {
    /// The means of queries, of which there is at least one.
    pub(super) fn new(pool: Pool, rows: &[QueryMeasures]) -> Self {
        let found: Vec<&QueryMeasures> = rows.iter().filter(|row| row.retrieved > 0).collect();
        let unjudged: Vec<f64> = found.iter().map(|row| row.unjudged as f64).collect();
        let truth: Option<Vec<&Values>> = rows.iter().map(|row| row.truth.as_ref()).collect();
        Self {
            pool,
            queries: rows.len(),
            found: found.len(),
            unjudged_at_10: mean(&unjudged),
            mean: mean_of_values(rows.iter().map(|row| &row.values)),
            truth: truth.map(mean_of_values),
        }
    }
}

/// All means: `measures.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasureTable {
    /// Whose queries were scored; none where only files of a run and qrels were at hand.
    pub split: Option<Split>,
    /// Whether queries without a ranking count 0 (`trec_eval -c`) or are left out.
    pub complete: bool,
    /// Per language.
    pub languages: BTreeMap<Language, LanguageMeasures>,
    /// Unweighted means over the languages, of the measures that every language has.
    pub mean: Values,
    /// Mean number of unjudged passages among the first 10, averaged over the languages.
    pub unjudged_at_10: f64,
    /// Means against the truth, where one was given.
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
    pub(super) fn new(split: Option<Split>, complete: bool, languages: BTreeMap<Language, LanguageMeasures>) -> Self {
        let means = mean_of_values(languages.values().map(|language| &language.mean));
        let truth: Vec<&Values> = languages.values().filter_map(|language| language.truth.as_ref()).collect();
        let truth = (!truth.is_empty()).then(|| mean_of_values(truth));
        let unjudged: Vec<f64> = languages.values().map(|language| language.unjudged_at_10).collect();
        Self { split, complete, languages, mean: means, unjudged_at_10: mean(&unjudged), truth }
    }

    /// What was ranked, by language.
    pub fn pools(&self) -> BTreeMap<Language, Pool> {
        self.languages.iter().map(|(language, means)| (language.clone(), means.pool)).collect()
    }

    /// The means against the qrels as a table aligned by spaces: languages down, measures across, the macro mean last.
    pub fn to_text(&self) -> String {
        let measures: BTreeSet<Measure> = self.languages.values().flat_map(|row| row.mean.keys().copied()).collect();
        let mut head = ["", "queries", "found", "unjudged@10"].map(str::to_owned).to_vec();
        head.extend(measures.iter().map(ToString::to_string));
        let row = |name: &str, counts: (usize, usize), unjudged: f64, mean: &Values| {
            let mut cells = vec![name.to_owned(), counts.0.to_string(), counts.1.to_string(), format!("{unjudged:.2}")];
            let value = |measure| mean.get(measure).map_or_else(|| "–".to_owned(), |value| format!("{value:.4}"));
            cells.extend(measures.iter().map(value));
            cells
        };
        let mut grid = vec![head];
        for (language, means) in &self.languages {
            let counts = (means.queries, means.found);
            grid.push(row(language.as_str(), counts, means.unjudged_at_10, &means.mean));
        }
        if self.languages.len() > 1 {
            let sum = |of: fn(&LanguageMeasures) -> usize| self.languages.values().map(of).sum::<usize>();
            let counts = (sum(|means| means.queries), sum(|means| means.found));
            grid.push(row("macro", counts, self.unjudged_at_10, &self.mean));
        }
        let label = pool::label(&self.pools()).map_or_else(String::new, |label| format!("\n{label}\n"));
        aligned(&grid) + &label
    }
}

/// Everything that was measured of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurements {
    /// The means.
    pub table: MeasureTable,
    /// The queries of every language.
    pub queries: BTreeMap<Language, Vec<QueryMeasures>>,
    /// What was counted on the way.
    pub summary: Summary,
}

impl Measurements {
    /// Reads an artefact of `evaluate`.
    pub fn read(artefact: &Artefact) -> Result<Self> {
        let table = MeasureTable::read(artefact)?;
        let rows = |language: &Language| Ok((language.clone(), QueryMeasures::read(artefact, language)?));
        let queries = table.languages.keys().map(rows).collect::<Result<_>>()?;
        Ok(Self { table, queries, summary: artefact.summary().clone() })
    }
}

/// The mean of each measure that all rows have.
pub(super) fn mean_of_values<'a>(rows: impl IntoIterator<Item = &'a Values>) -> Values {
    let rows: Vec<&Values> = rows.into_iter().collect();
    let Some(first) = rows.first() else { return Values::new() };
    let of = |measure: &Measure| {
        let values: Option<Vec<f64>> = rows.iter().map(|row| row.get(measure).copied()).collect();
        values.map(|values| (*measure, mean(&values)))
    };
    first.keys().filter_map(of).collect()
}
