//! Evaluation: measures equal to `trec_eval`'s, and tests of whether a difference is one.
//!
//! [`evaluate`] reads a data set and a run (`LANG.SPLIT.trec`) and writes `LANG.jsonl`, a [`QueryMeasures`] a line, and
//! `measures.json`, a [`MeasureTable`]. [`compare()`] reads such artefacts and writes a [`Comparison`]. A query is scored
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
pub mod files;
mod guard;
mod loaded;
pub mod measures;
mod render;
pub mod significance;
mod table;
#[cfg(test)]
mod testing;
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
    finish(draft, summary, &MeasureTable::new(inputs.split, config.complete, languages))
}

fn finish(mut draft: artefact::Draft, mut summary: Summary, table: &MeasureTable) -> Result<Artefact> {
    if table.languages.is_empty() {
        return Err(Error::data(format!("no {} query was judged; there is nothing to measure", table.split.name())));
    }
    for (measure, value) in &table.mean {
        summary.value(format!("macro mean {measure}"), *value);
    }
    for (measure, value) in table.truth.iter().flatten() {
        summary.value(format!("macro mean {measure} against truth"), *value);
    }
    write_json(&mut draft, MeasureTable::FILE, table)?;
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

#[cfg(test)]
mod tests {
    use super::testing::{Language as Made, dataset, run};
    use super::*;

    const SWAHILI: Made<'_> = Made {
        tag: "sw",
        passages: 40,
        train: "t1\tSwali la kwanza\n",
        dev: "q1\tswali  la kwanza\nq2\tb\nq3\tc\nq4\td\n",
        qrels: "q1 Q0 p1 1\nq1 Q0 p2 0\nq2 Q0 p3 1\nq3 Q0 p5 1\n",
    };

    fn ranked() -> Vec<(&'static str, String)> {
        let sw = "q1 Q0 p0 1 3 x\nq1 Q0 p1 2 2 x\nq2 Q0 p3 1 1 x\nq4 Q0 p3 1 1 x\n";
        vec![("sw.dev.trec", sw.to_owned())]
    }

    fn scored(change: impl FnOnce(&mut EvaluateInputs<'_>), config: &EvaluateConfig) -> Result<MeasureTable> {
        let folder = tempfile::tempdir().unwrap();
        let (data, run) = (dataset(folder.path(), &[SWAHILI]), run(folder.path(), "run", &ranked()));
        let mut inputs = EvaluateInputs { dataset: &data, run: &run, split: Split::Dev, selection: &[], truth: None };
        change(&mut inputs);
        let artefact = evaluate(&inputs, config, &folder.path().join("out"), &Progress::silent())?;
        MeasureTable::read(&artefact)
    }

    fn config(measures: &[&str], complete: bool) -> EvaluateConfig {
        EvaluateConfig { measures: measures.iter().map(|name| name.parse().unwrap()).collect(), complete }
    }

    fn close(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-12, "{value} is not {expected}");
    }

    #[test]
    fn means_count_judged_queries_with_and_without_a_ranking() {
        let language = Language::new("sw").unwrap();
        let table = scored(|_| (), &config(&["MRR@10", "Recall@10", "Recall@11"], true)).unwrap();
        let sw = &table.languages[&language];
        assert_eq!((sw.queries, sw.found, sw.passages), (3, 2, 40));
        close(sw.mean[&Measure::ReciprocalRank(10)], 0.5);
        close(sw.unjudged_at_10, 0.5);
        assert!(!sw.mean.contains_key(&Measure::Recall(11)), "more than a quarter of the corpus");
        close(table.mean[&Measure::Recall(10)], 2.0 / 3.0);
        let table = scored(|_| (), &config(&["MRR@10"], false)).unwrap();
        close(table.languages[&language].mean[&Measure::ReciprocalRank(10)], 0.75);
    }

    #[test]
    fn the_summary_counts_and_notes() {
        let folder = tempfile::tempdir().unwrap();
        let other = Made { tag: "te", ..SWAHILI };
        let (data, run) = (dataset(folder.path(), &[SWAHILI, other]), run(folder.path(), "run", &ranked()));
        let inputs = EvaluateInputs { dataset: &data, run: &run, split: Split::Dev, selection: &[], truth: None };
        let out = folder.path().join("out");
        let artefact = evaluate(&inputs, &EvaluateConfig::default(), &out, &Progress::silent()).unwrap();
        let counts = &artefact.summary().counts;
        assert_eq!(counts["queries"], 3);
        assert_eq!(counts["queries without a ranking"], 1);
        assert_eq!(counts["queries whose text another split asks too"], 1);
        let notes = artefact.summary().notes.join("\n");
        assert!(notes.contains("sw: Recall@100 is left out") && notes.contains("te: not scored"), "{notes}");
        let rows = QueryMeasures::read(&artefact, &Language::new("sw").unwrap()).unwrap();
        assert_eq!(rows.iter().map(|row| row.query.as_str()).collect::<Vec<_>>(), ["q1", "q2", "q3"]);
        let again = evaluate(&inputs, &EvaluateConfig::default(), &out, &Progress::silent()).unwrap();
        assert_eq!(again.key(), artefact.key());
    }

    #[test]
    fn queries_that_chose_the_model_are_refused() {
        let chosen = |id: &str| vec![(Language::new("sw").unwrap(), id.to_owned())];
        let config = EvaluateConfig::default();
        let selection = chosen("q2");
        let message = scored(|inputs| inputs.selection = leak(selection), &config).unwrap_err().to_string();
        assert!(message.contains("selected on 1 of the sw queries") && message.contains("`q2`"), "{message}");
        let selection = chosen("t1");
        scored(|inputs| inputs.selection = leak(selection), &config).unwrap();
    }

    fn leak<T>(values: Vec<T>) -> &'static [T] {
        Vec::leak(values)
    }

    #[test]
    fn the_truth_gives_a_second_set_of_measures() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("truth.tsv");
        let table = |text: &str| {
            std::fs::write(&path, text).unwrap();
            scored(|inputs| inputs.truth = Some(leak(vec![path.clone()])[0].as_path()), &config(&["MRR@10"], true))
        };
        let pairs =
            "sw\tdev\tq1\tp1\tlabelled\nsw\tdev\tq1\tp0\thidden\nsw\ttrain\tt1\tp9\thidden\nte\tdev\tx\ty\thidden\n";
        let truth = table(pairs).unwrap().truth.unwrap();
        close(truth[&Measure::ReciprocalRank(10)], 1.0 / 3.0);
        for (line, expected) in [
            ("sw\tdev\tq1\tp1\tmaybe\n", "truth.tsv:1: expected `language<TAB>split"),
            ("sw\ttest\tq1\tp1\thidden\n", "expected the split train or dev, got `test`"),
            ("sw\tdev\tq9\tp1\thidden\n", "no query has the id `q9`"),
            ("sw\tdev\tq1\tp99\thidden\n", "no passage has the id `p99`"),
        ] {
            let message = table(line).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn a_run_of_another_stage_or_without_the_split_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (data, run) = (dataset(folder.path(), &[SWAHILI]), run(folder.path(), "run", &ranked()));
        let mut inputs = EvaluateInputs { dataset: &data, run: &run, split: Split::Train, selection: &[], truth: None };
        let out = folder.path().join("out");
        let fail = |inputs: &EvaluateInputs<'_>| {
            evaluate(inputs, &EvaluateConfig::default(), &out, &Progress::silent()).unwrap_err().to_string()
        };
        let message = fail(&inputs);
        assert!(message.contains("holds no `LANG.train.trec`"), "{message}");
        let data_artefact = Artefact::open(&folder.path().join("data")).unwrap();
        inputs.run = &data_artefact;
        let message = fail(&inputs);
        assert!(message.contains("expected an artefact of `search` or `fuse`, this one is of `fetch`"), "{message}");
    }

    #[test]
    fn the_configuration_is_checked() {
        assert!(config(&[], true).validate().is_err());
        assert!(config(&["MAP", "map"], true).validate().unwrap_err().to_string().contains("MAP stands twice"));
        EvaluateConfig::default().validate().unwrap();
        let table = crate::config::parse_table("x", "measures = ['nDCG@10', 'F1@3']").unwrap();
        let message = crate::config::from_table::<EvaluateConfig>("evaluate", table).unwrap_err().to_string();
        assert!(message.contains("unknown measure `F1@3`"), "{message}");
    }
}
