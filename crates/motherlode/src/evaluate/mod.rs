//! Evaluation: measures equal to `trec_eval`'s, and tests of whether a difference is one.
//!
//! [`evaluate`] reads a data set and a run (`LANG.SPLIT.trec`) and writes `LANG.jsonl`, a [`QueryMeasures`] a line, and
//! `measures.json`, a [`MeasureTable`]. [`compare`] reads such artefacts and writes a [`Comparison`]. A query is scored
//! if people judged any passage for it. Neither ranks anything: `search` and `fuse` do.
//!
//! *Errors*: a run of another stage or without a language of the data set; a line that is no line of a run or of the
//! truth; queries on which the model was selected; systems that were scored on different queries.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::artefact::{self, Artefact, Outcome, Recipe, Summary};
use crate::corpus::Language;
use crate::dataset::{Dataset, Partition, Split};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::qrels::Qrels;
use crate::queries::QueryIndex;
use crate::run::Run;

pub mod compare;
mod guard;
mod loaded;
pub mod measures;
mod render;
pub mod significance;
mod table;
mod truth;

pub use compare::{CompareConfig, Comparison, System, compare};
pub use measures::{Graded, Measure};
pub use table::{Judgements, LanguageMeasures, MeasureTable, QueryMeasures, Values};

/// The name of the stage.
pub const STAGE: &str = "evaluate";

const FORMAT: u32 = 1;

/// How runs are measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluateConfig {
    /// The measures, such as `nDCG@10`.
    pub measures: Vec<Measure>,
    /// Judged queries without a ranking count 0, as with `trec_eval -c`; otherwise they are left out of the means.
    pub complete: bool,
}

impl Default for EvaluateConfig {
    fn default() -> Self {
        let measures =
            vec![Measure::Ndcg(10), Measure::Recall(100), Measure::ReciprocalRank(10), Measure::AveragePrecision];
        Self { measures, complete: true }
    }
}

impl EvaluateConfig {
    /// Checks that there is a measure and none stands twice.
    pub fn validate(&self) -> Result<()> {
        if self.measures.is_empty() {
            return Err(Error::config("`evaluate.measures`: expected at least one, such as nDCG@10"));
        }
        let twice = |(at, measure): &(usize, &Measure)| self.measures[..*at].contains(measure);
        match self.measures.iter().enumerate().find(twice) {
            Some((_, measure)) => Err(Error::config(format!("`evaluate.measures`: {measure} stands twice"))),
            None => Ok(()),
        }
    }
}

/// What is measured.
#[derive(Clone, Copy)]
pub struct EvaluateInputs<'a> {
    /// Queries and judgements.
    pub dataset: &'a Dataset,
    /// The run: an artefact of `search` or `fuse`.
    pub run: &'a Artefact,
    /// Whose queries are scored.
    pub split: Split,
    /// Languages and ids of the queries on which the model was selected; empty where none was.
    pub selection: &'a [(Language, String)],
    /// A table of every relevant pair, `language, split, query id, passage id, labelled | hidden`, with tabs between:
    /// gives a second set of measures. Only made data sets have one.
    pub truth: Option<&'a Path>,
}

/// Measures every language of a run and writes the artefact `out`.
///
/// Recall@k is left out, with a note, where k is more than a quarter of the corpus: it would say nothing there. A
/// macro mean is given for the measures that every language has.
pub fn evaluate(
    inputs: &EvaluateInputs<'_>,
    config: &EvaluateConfig,
    out: &Path,
    progress: &Progress<'_>,
) -> Result<Artefact> {
    config.validate()?;
    let partitions = scored_partitions(inputs)?;
    for partition in &partitions {
        guard::refuse_selected(partition, inputs.split, inputs.selection)?;
    }
    let mut draft = match artefact::draft(out, recipe(inputs, config)?)? {
        Outcome::UpToDate(artefact) => return Ok(artefact),
        Outcome::Write(draft) => draft,
    };
    let mut truth = inputs.truth.map(|path| truth::read(path, &partitions, inputs.split)).transpose()?;
    progress.begin("evaluate", partitions.len(), "languages");
    let (mut summary, mut languages) = (Summary::default(), BTreeMap::new());
    for partition in partitions {
        let truth = truth.as_mut().and_then(|truth| truth.remove(&partition.language));
        let scored = ScoredLanguage::measure(inputs, config, partition, truth.as_ref())?;
        scored.summarise(&mut summary);
        if !scored.rows.is_empty() {
            draft.write_lines(&format!("{}.jsonl", partition.language), &scored.rows)?;
            languages.insert(partition.language.clone(), scored.means());
        }
        progress.advance(1);
    }
    for partition in &inputs.dataset.partitions {
        if partition.has(inputs.split) && !languages.contains_key(&partition.language) {
            summary.note(format!("{}: not scored; no mean counts it", partition.language));
        }
    }
    finish(draft, summary, MeasureTable::new(inputs.split, config.complete, languages))
}

fn finish(mut draft: artefact::Draft, mut summary: Summary, table: MeasureTable) -> Result<Artefact> {
    if table.languages.is_empty() {
        return Err(Error::data(format!("no {} query was judged; there is nothing to measure", table.split.name())));
    }
    for (measure, value) in &table.mean {
        summary.value(format!("macro mean {measure}"), *value);
    }
    for (measure, value) in table.truth.iter().flatten() {
        summary.value(format!("macro mean {measure} against truth"), *value);
    }
    write_json(&mut draft, MeasureTable::FILE, &table)?;
    draft.commit(summary)
}

/// Writes one value as readable JSON into a draft.
fn write_json(draft: &mut artefact::Draft, file: &str, value: &impl Serialize) -> Result<()> {
    let path = draft.path(file);
    draft.write(file, |output| {
        serde_json::to_writer_pretty(&mut *output, value).map_err(|error| Error::file(&path, error.to_string()))?;
        output.write_all(b"\n").map_err(Error::io(&path))?;
        Ok(1)
    })
}

fn recipe(inputs: &EvaluateInputs<'_>, config: &EvaluateConfig) -> Result<Recipe> {
    let config = serde_json::json!({ "evaluate": config, "split": inputs.split });
    let recipe =
        Recipe::new(STAGE, FORMAT, &config)?.input_key("dataset", &inputs.dataset.key).input("run", inputs.run);
    match inputs.truth {
        Some(path) => Ok(recipe.input_key("truth", &artefact::hash_file(path)?)),
        None => Ok(recipe),
    }
}

/// The partitions that the run has a ranking file for; all of them belong to the data set.
fn scored_partitions<'a>(inputs: &EvaluateInputs<'a>) -> Result<Vec<&'a Partition>> {
    let manifest = inputs.run.manifest();
    if !["search", "fuse"].contains(&manifest.stage.as_str()) {
        let message = format!("expected an artefact of `search` or `fuse`, this one is of `{}`", manifest.stage);
        return Err(Error::file(inputs.run.folder(), message));
    }
    let suffix = format!(".{}.trec", inputs.split.name());
    let mut partitions = Vec::new();
    for file in &manifest.files {
        if let Some(language) = file.path.strip_suffix(&suffix) {
            partitions.push(inputs.dataset.partition(&Language::new(language)?)?);
        }
    }
    if partitions.is_empty() {
        let message = format!("holds no `LANG{suffix}`; search the {} queries first", inputs.split.name());
        return Err(Error::file(inputs.run.folder(), message));
    }
    Ok(partitions)
}

/// One language with its queries measured.
struct ScoredLanguage<'a> {
    partition: &'a Partition,
    rows: Vec<QueryMeasures>,
    notes: Vec<String>,
    repeated: usize,
}

impl<'a> ScoredLanguage<'a> {
    fn measure(
        inputs: &EvaluateInputs<'_>,
        config: &EvaluateConfig,
        partition: &'a Partition,
        truth: Option<&Qrels>,
    ) -> Result<Self> {
        let judged = partition.split(inputs.split)?;
        let path = inputs.run.path(&format!("{}.{}.trec", partition.language, inputs.split.name()));
        let run = Run::read(&path, &judged.queries, &partition.corpus)?;
        let mut notes = Vec::new();
        let measures = meaningful(config, partition, &run, &mut notes);
        let scorer = Scorer { run: &run, qrels: &judged.qrels, truth, measures: &measures };
        let queries: Vec<(QueryIndex, &str)> =
            judged.queries.iter().map(|(index, query)| (index, query.id.as_str())).collect();
        let counts = |index: QueryIndex| {
            !judged.qrels.judged(index).is_empty() && (config.complete || !run.ranking(index).is_empty())
        };
        let scored = queries.par_iter().filter(|(index, _)| counts(*index));
        let rows = scored.map(|(index, id)| scorer.query(*index, id)).collect();
        Ok(Self { partition, rows, notes, repeated: guard::repeated_queries(partition, inputs.split)?.len() })
    }

    fn summarise(&self, summary: &mut Summary) {
        summary.count("queries", self.rows.len());
        summary.count("queries without a ranking", self.rows.iter().filter(|row| row.retrieved == 0).count());
        summary.count("queries whose text another split asks too", self.repeated);
        for note in &self.notes {
            summary.note(note.clone());
        }
    }

    fn means(&self) -> LanguageMeasures {
        let found: Vec<&QueryMeasures> = self.rows.iter().filter(|row| row.retrieved > 0).collect();
        let unjudged: usize = found.iter().map(|row| row.unjudged).sum();
        let truth: Option<Vec<&Values>> = self.rows.iter().map(|row| row.truth.as_ref()).collect();
        LanguageMeasures {
            passages: self.partition.corpus.len(),
            queries: self.rows.len(),
            found: found.len(),
            unjudged_at_10: if found.is_empty() { 0.0 } else { unjudged as f64 / found.len() as f64 },
            mean: table::mean_of_values(self.rows.iter().map(|row| &row.values)),
            truth: truth.map(table::mean_of_values),
        }
    }
}

/// The configured measures without those that say nothing of a corpus this small; notes say which.
fn meaningful(config: &EvaluateConfig, partition: &Partition, run: &Run, notes: &mut Vec<String>) -> Vec<Measure> {
    let (passages, language) = (partition.corpus.len(), &partition.language);
    let depth = run.rankings().iter().map(Vec::len).max().unwrap_or(0);
    let mut keep = |measure: &Measure| {
        let Measure::Recall(k) = *measure else { return true };
        if 4 * k > passages {
            notes.push(format!("{language}: {measure} is left out, {k} is over a quarter of {passages} passages"));
            return false;
        }
        if depth < k {
            notes.push(format!("{language}: {measure} is measured on a run that is only {depth} deep"));
        }
        true
    };
    config.measures.iter().copied().filter(|measure| keep(measure)).collect()
}

#[derive(Clone, Copy)]
struct Scorer<'a> {
    run: &'a Run,
    qrels: &'a Qrels,
    truth: Option<&'a Qrels>,
    measures: &'a [Measure],
}

impl Scorer<'_> {
    fn query(&self, index: QueryIndex, id: &str) -> QueryMeasures {
        let ranking = self.run.ranking(index);
        let graded = Graded::new(ranking, self.qrels.judged(index));
        QueryMeasures {
            query: id.to_owned(),
            retrieved: ranking.len(),
            unjudged: graded.unjudged(10),
            values: graded.values(self.measures),
            truth: self.truth.map(|truth| Graded::new(ranking, truth.judged(index)).values(self.measures)),
        }
    }
}
