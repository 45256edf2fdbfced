//! Evaluation: measures equal to `trec_eval`'s, and tests of whether a difference is one.
//!
//! [`evaluate`] reads a data set and a run (`LANG.SPLIT.trec`) and writes `LANG.jsonl`, a [`QueryMeasures`] a line,
//! `measures.json`, a [`MeasureTable`], and `overlaps.jsonl`, what the guard of `sample` finds. [`files`] does the same
//! for run and qrels files alone. [`compare()`] reads such artefacts and writes a [`Comparison`]. A query is scored if
//! people judged any passage for it. Nothing here ranks: `search` and `fuse` do.
//!
//! *Errors*: a run of another stage or without a language of the data set; a line that is no line of a run or of the
//! truth; queries on which the model was selected; a pool smaller than the declared corpus; with `guard = "strict"` an
//! overlap; systems that were scored on different queries.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::artefact::{self, Artefact, Outcome, Recipe, Summary};
use crate::corpus::{Language, PassageIndex};
use crate::dataset::{Dataset, Partition, Split};
use crate::error::{Error, Result};
use crate::fuse;
use crate::progress::Progress;
use crate::qrels::Qrels;
use crate::queries::QueryIndex;
use crate::run::Run;
use crate::sample::guard::{self as overlap, Guard};
use crate::search::{self, run_file};

pub mod compare;
pub mod files;
mod guard;
mod loaded;
pub mod measures;
pub mod pool;
mod render;
pub mod significance;
mod table;
#[cfg(test)]
mod testing;
mod truth;

pub use compare::{CompareConfig, Comparison, System, compare};
pub use measures::{Graded, Measure};
pub use pool::{Collection, Pool};
pub use table::{Judgements, LanguageMeasures, MeasureTable, Measurements, QueryMeasures, Values};

/// The name of the stage.
pub const STAGE: &str = "evaluate";

const FORMAT: u32 = 2;

/// How runs are measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluateConfig {
    /// The measures, such as `nDCG@10`.
    pub measures: Vec<Measure>,
    /// Judged queries without a ranking count 0, as with `trec_eval -c`; otherwise they are left out of the means.
    pub complete: bool,
    /// The collection whose whole corpus is declared to be ranked.
    pub collection: Option<Collection>,
    /// Passages of the declared corpus by language, where it is no such collection; these numbers win.
    pub corpus_passages: BTreeMap<Language, usize>,
    /// Whether a corpus smaller than the declared one is scored all the same; the result is labelled.
    pub reduced_pool: bool,
    /// What happens when dev and train queries overlap, dev positives were trained on, or passages stand under several
    /// ids.
    pub guard: Guard,
}

impl Default for EvaluateConfig {
    fn default() -> Self {
        let measures =
            vec![Measure::Ndcg(10), Measure::Recall(100), Measure::ReciprocalRank(10), Measure::AveragePrecision];
        Self {
            measures,
            complete: true,
            collection: None,
            corpus_passages: BTreeMap::new(),
            reduced_pool: false,
            guard: Guard::default(),
        }
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
    /// The artefact of `sample` on which the model was trained and selected; none where it was not tuned here.
    pub examples: Option<&'a Artefact>,
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
    config.check_pool(partitions.iter().copied())?;
    for partition in &partitions {
        guard::refuse_selected(partition, inputs.split, inputs.examples)?;
    }
    let mut draft = match artefact::draft(out, recipe(inputs, config)?)? {
        Outcome::UpToDate(artefact) => return Ok(artefact),
        Outcome::Write(draft) => draft,
    };
    let mut summary = Summary::default();
    let findings = guard::findings(&partitions, inputs)?;
    overlap::count_or_refuse(&findings, config.guard, STAGE, &mut summary)?;
    draft.write_lines(overlap::FILE, findings)?;
    let mut truth = inputs.truth.map(|path| truth::read(path, &partitions, inputs.split)).transpose()?;
    progress.begin("evaluate", partitions.len(), "languages");
    let mut measured = Measured::default();
    for partition in partitions {
        let truth = truth.as_mut().and_then(|truth| truth.remove(&partition.language));
        measure(inputs, config, partition, truth.as_ref(), &mut measured, &mut summary)?;
        progress.advance(1);
    }
    for partition in &inputs.dataset.partitions {
        if partition.has(inputs.split) && !measured.languages.contains_key(&partition.language) {
            summary.note(format!("{}: not scored; no mean counts it", partition.language));
        }
    }
    measured.commit(draft, summary, Some(inputs.split), config)
}

/// Languages that were measured.
#[derive(Default)]
struct Measured {
    languages: BTreeMap<Language, (Pool, Vec<QueryMeasures>)>,
}

impl Measured {
    /// Takes the queries of a language, and counts them.
    fn add(&mut self, language: &Language, pool: Pool, rows: Vec<QueryMeasures>, summary: &mut Summary) {
        summary.count("queries", rows.len());
        summary.count("queries without a ranking", rows.iter().filter(|row| row.retrieved == 0).count());
        summary.count("unjudged passages among the first 10", rows.iter().map(|row| row.unjudged).sum());
        if !rows.is_empty() {
            self.languages.insert(language.clone(), (pool, rows));
        }
    }

    fn table(&self, split: Option<Split>, config: &EvaluateConfig) -> Result<MeasureTable> {
        if self.languages.is_empty() {
            let message =
                "no query to be scored was judged; there is nothing to measure. Do run and qrels belong together?";
            return Err(Error::data(message));
        }
        let means = |(language, (pool, rows)): (&Language, &(Pool, Vec<QueryMeasures>))| {
            (language.clone(), LanguageMeasures::new(*pool, rows))
        };
        Ok(MeasureTable::new(split, config.complete, self.languages.iter().map(means).collect()))
    }

    fn commit(
        self,
        mut draft: artefact::Draft,
        mut summary: Summary,
        split: Option<Split>,
        config: &EvaluateConfig,
    ) -> Result<Artefact> {
        let table = self.table(split, config)?;
        for (language, (_, rows)) in self.languages {
            draft.write_lines(&format!("{language}.jsonl"), &rows)?;
        }
        for (measure, value) in &table.mean {
            summary.value(format!("macro mean {measure}"), *value);
        }
        for (measure, value) in table.truth.iter().flatten() {
            summary.value(format!("macro mean {measure} against truth"), *value);
        }
        summary.value("macro mean of unjudged passages among the first 10", table.unjudged_at_10);
        if let Some(label) = pool::label(&table.pools()) {
            summary.note(label);
        }
        write_json(&mut draft, MeasureTable::FILE, &table)?;
        draft.commit(summary)
    }
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
    let recipe = inputs.examples.into_iter().fold(recipe, |recipe, examples| recipe.input("examples", examples));
    match inputs.truth {
        Some(path) => Ok(recipe.input_key("truth", &artefact::hash_file(path)?)),
        None => Ok(recipe),
    }
}

/// The partitions that the run has a ranking file for; all of them belong to the data set.
fn scored_partitions<'a>(inputs: &EvaluateInputs<'a>) -> Result<Vec<&'a Partition>> {
    let manifest = inputs.run.manifest();
    if ![search::STAGE, fuse::STAGE].contains(&manifest.stage.as_str()) {
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

/// Measures the queries of one language.
fn measure(
    inputs: &EvaluateInputs<'_>,
    config: &EvaluateConfig,
    partition: &Partition,
    truth: Option<&Qrels>,
    measured: &mut Measured,
    summary: &mut Summary,
) -> Result<()> {
    let judged = partition.split(inputs.split)?;
    let path = inputs.run.path(&run_file(&partition.language, inputs.split));
    let run = Run::read(&path, &judged.queries, &partition.corpus)?;
    let measures = meaningful(config, partition, &run, summary);
    let scorer = Scorer { run: &run, qrels: &judged.qrels, truth, measures: &measures };
    let counts = |index: QueryIndex| {
        !judged.qrels.judged(index).is_empty() && (config.complete || !run.ranking(index).is_empty())
    };
    let queries: Vec<(QueryIndex, &str)> =
        judged.queries.iter().map(|(index, query)| (index, query.id.as_str())).collect();
    let scored = queries.par_iter().filter(|(index, _)| counts(*index));
    let rows = scored.map(|(index, id)| scorer.query(*index, id)).collect();
    if let Some(note) = judged_pool(partition, &judged.qrels) {
        summary.note(note);
    }
    measured.add(&partition.language, config.pool(partition), rows, summary);
    Ok(())
}

/// A remark where at least half of the corpus is judged: such a pool holds few passages that only look relevant.
fn judged_pool(partition: &Partition, qrels: &Qrels) -> Option<String> {
    let queries = (0..qrels.queries() as u32).map(QueryIndex);
    let judged: BTreeSet<PassageIndex> = queries.flat_map(|query| qrels.judged(query).keys().copied()).collect();
    let (judged, passages) = (judged.len(), partition.corpus.len());
    (2 * judged >= passages).then(|| {
        let language = &partition.language;
        format!("{language}: {judged} of {passages} passages are judged; over a whole corpus scores would be lower")
    })
}

/// The configured measures without those that say nothing of a corpus this small; notes say which.
fn meaningful(config: &EvaluateConfig, partition: &Partition, run: &Run, summary: &mut Summary) -> Vec<Measure> {
    let (passages, language) = (partition.corpus.len(), &partition.language);
    let depth = run.rankings().iter().map(Vec::len).max().unwrap_or(0);
    let mut keep = |measure: &Measure| {
        let Measure::Recall(k) = *measure else { return true };
        if 4 * k > passages {
            summary.note(format!("{language}: {measure} is left out, {k} is over a quarter of {passages} passages"));
            return false;
        }
        if depth < k {
            summary.note(format!("{language}: {measure} is measured on a run that is only {depth} deep"));
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
        let truth = self.truth.map(|truth| Graded::new(ranking, truth.judged(index)).values(self.measures));
        QueryMeasures { truth, ..QueryMeasures::new(id, &graded, self.measures) }
    }
}

#[cfg(test)]
mod tests;
