//! Searching: every query of a split against all passages of its language, with vectors or with BM25, to TREC runs.
//!
//! The artefact of the stage `search` holds `LANG.SPLIT.trec`; that of `fuse` looks the same, and [`open_run`] reads
//! both. Languages without queries in the split are left out.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::artefact::{self, Artefact, Draft, Outcome, Recipe, Summary};
use crate::corpus::Language;
use crate::dataset::{Dataset, Partition, Split};
use crate::encode::{self, Vectors, VectorsOf};
use crate::engine::Sieve;
use crate::error::{Error, Result};
use crate::index::bm25::{self, Bm25Index};
use crate::index::exact::{Member, Search, Similarity, top_k_of_sum};
use crate::progress::Progress;
use crate::run::{Ranking, Run, RunNames};

/// Name of the stage.
pub const STAGE: &str = "search";
const FORMAT: u32 = 1;
/// Queries between two reports of a lexical search.
const REPORT: usize = 256;

/// How deep, and with how much memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SearchConfig {
    /// Passages kept of every query.
    pub depth: usize,
    /// Bytes for the tiles and lists of an exact search. Results do not depend on it, so it is no part of the key.
    #[serde(skip_serializing)]
    pub memory: usize,
}

impl Default for SearchConfig {
    fn default() -> Self {
        Self { depth: 100, memory: DEFAULT_MEMORY }
    }
}

/// Bytes for the tiles and lists of an exact search, where nobody says otherwise.
pub const DEFAULT_MEMORY: usize = 256 << 20;

impl SearchConfig {
    /// Checks the ranges.
    pub fn validate(&self) -> Result<()> {
        match self.depth {
            0 => Err(Error::config("`search.depth`: expected 1 or more, got 0")),
            _ => Ok(()),
        }
    }
}

#[derive(Serialize)]
struct StageConfig<'a> {
    method: &'a str,
    split: Split,
    search: &'a SearchConfig,
}

fn recipe(method: &str, dataset: &Dataset, split: Split, config: &SearchConfig) -> Result<Recipe> {
    config.validate()?;
    let config = StageConfig { method, split, search: config };
    Ok(Recipe::new(STAGE, FORMAT, &config)?.input_key("dataset", &dataset.key))
}

/// What [`dense`] searches with.
#[derive(Debug, Clone, Copy)]
pub struct DenseInputs<'a> {
    /// The vectors: an artefact of `encode`.
    pub embeddings: &'a Artefact,
    /// What looks at the passages first; the result is the same with and without.
    pub sieve: Option<&'a dyn Sieve>,
}

/// Exact search by dot product.
pub fn dense(
    dataset: &Dataset,
    DenseInputs { embeddings, sieve }: DenseInputs<'_>,
    split: Split,
    config: &SearchConfig,
    out: &Path,
    progress: &Progress<'_>,
) -> Result<Artefact> {
    expect_input(embeddings, &[encode::STAGE], dataset)?;
    let recipe = recipe("dense", dataset, split, config)?.input("embeddings", embeddings);
    write_runs(dataset, split, recipe, out, |partition| {
        let queries = Vectors::open(embeddings, &partition.language, VectorsOf::Queries(split))?;
        let passages = Vectors::open(embeddings, &partition.language, VectorsOf::Passages)?;
        let (queries, passages) = (queries.matrix(), passages.matrix());
        let task = format!("search {}", partition.language);
        let id_ranks = &partition.corpus.id_ranks();
        let search = Search { depth: config.depth, id_ranks, memory: config.memory, task: &task, progress, sieve };
        top_k_of_sum(&[Member { queries, passages, weight: 1.0, similarity: Similarity::Dot }], search)
    })
}

/// Search with the BM25 indexes of an artefact of `index`.
pub fn lexical(
    dataset: &Dataset,
    index: &Artefact,
    split: Split,
    config: &SearchConfig,
    out: &Path,
    progress: &Progress<'_>,
) -> Result<Artefact> {
    expect_input(index, &[bm25::STAGE], dataset)?;
    let recipe = recipe("bm25", dataset, split, config)?.input("index", index);
    write_runs(dataset, split, recipe, out, |partition| {
        let bm25 = Bm25Index::open(&index.path(&bm25::file_name(&partition.language)))?;
        let queries = &partition.split(split)?.queries;
        let texts: Vec<&str> = queries.iter().map(|(_, query)| query.text.as_str()).collect();
        let id_ranks = partition.corpus.id_ranks();
        progress.begin(&format!("search {}", partition.language), texts.len(), "queries");
        let search = |part: &[&str]| {
            let rankings = bm25.search(part, config.depth, &id_ranks);
            progress.advance(part.len());
            rankings
        };
        Ok(texts.chunks(REPORT).flat_map(search).collect())
    })
}

/// Refuses an artefact of another stage or of another data set.
pub(crate) fn expect_input(artefact: &Artefact, stages: &[&str], dataset: &Dataset) -> Result<()> {
    let manifest = artefact.manifest();
    if !stages.contains(&manifest.stage.as_str()) {
        let message =
            format!("expected an artefact of `{}`, this one is of `{}`", stages.join("` or `"), manifest.stage);
        return Err(Error::file(artefact.folder(), message));
    }
    match manifest.inputs.get("dataset") {
        Some(key) if *key != dataset.key => {
            Err(Error::file(artefact.folder(), "made from another data set; make it again from this one"))
        }
        _ => Ok(()),
    }
}

/// The run of a language and split inside an artefact.
pub fn run_file(language: &Language, split: Split) -> String {
    format!("{language}.{}.trec", split.name())
}

/// Writes one run for every language that has the split; `rank` gives a ranking for each of its queries.
pub(crate) fn write_runs(
    dataset: &Dataset,
    split: Split,
    recipe: Recipe,
    out: &Path,
    rank: impl Fn(&Partition) -> Result<Vec<Ranking>>,
) -> Result<Artefact> {
    let mut draft = match artefact::draft(out, recipe)? {
        Outcome::UpToDate(artefact) => return Ok(artefact),
        Outcome::Write(draft) => draft,
    };
    let mut summary = Summary::default();
    for partition in dataset.partitions.iter().filter(|partition| partition.has(split)) {
        let run = write_run(&mut draft, partition, split, &rank)?;
        let rankings = run.rankings();
        summary.count("queries", rankings.len());
        summary.count("queries without a passage", rankings.iter().filter(|ranking| ranking.is_empty()).count());
        summary.count("rows", rankings.iter().map(Vec::len).sum());
    }
    if summary.counts.is_empty() {
        return Err(Error::data(format!("no language of the data set has {} queries", split.name())));
    }
    draft.commit(summary)
}

/// Writes the run of one language, or reads it where it was finished before an interruption.
fn write_run(
    draft: &mut Draft,
    partition: &Partition,
    split: Split,
    rank: impl Fn(&Partition) -> Result<Vec<Ranking>>,
) -> Result<Run> {
    let (file, queries, corpus) =
        (run_file(&partition.language, split), &partition.split(split)?.queries, &partition.corpus);
    let path = draft.path(&file);
    if draft.is_finished(&file) {
        return Run::read(&path, queries, corpus);
    }
    let run = Run::new(rank(partition)?, &corpus.id_ranks());
    draft.write(&file, |output| run.write(output, RunNames { path: &path, queries, corpus, tag: "motherlode" }))?;
    Ok(run)
}

/// Reads the run of a language and split from an artefact of `search` or `fuse`.
///
/// # Errors
/// The artefact has no such run, or it does not fit the data set.
pub fn open_run(artefact: &Artefact, dataset: &Dataset, language: &Language, split: Split) -> Result<Run> {
    let file = run_file(language, split);
    if !artefact.has(&file) {
        return Err(Error::file(artefact.path(&file), "the artefact has no such run; search this split too"));
    }
    let partition = dataset.partition(language)?;
    Run::read(&artefact.path(&file), &partition.split(split)?.queries, &partition.corpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(embeddings: &Artefact) -> DenseInputs<'_> {
        DenseInputs { embeddings, sieve: None }
    }
    use crate::encode::fixture::{WordVectors, dataset, embeddings, english};
    use crate::index::bm25::{Bm25Config, IndexInputs};
    use crate::queries::QueryIndex;

    const ENGINE: WordVectors = WordVectors { seed: 1, dimension: 16 };

    #[test]
    fn dense_runs_are_the_order_of_dot_products() {
        let folder = tempfile::tempdir().unwrap();
        let dataset = dataset(folder.path());
        let vectors = embeddings(folder.path(), &dataset, &ENGINE);
        let config = SearchConfig { depth: 3, ..SearchConfig::default() };
        let silent = Progress::silent();
        let out = folder.path().join("run");
        let artefact = dense(&dataset, with(&vectors), Split::Dev, &config, &out, &silent).unwrap();
        let run = open_run(&artefact, &dataset, &english(), Split::Dev).unwrap();
        assert_eq!(artefact.summary().counts["rows"], 6);
        let passages = Vectors::open(&vectors, &english(), VectorsOf::Passages).unwrap();
        let queries = Vectors::open(&vectors, &english(), VectorsOf::Queries(Split::Dev)).unwrap();
        let scores: Vec<f32> = (0..passages.matrix().rows())
            .map(|row| Similarity::Dot.of(queries.matrix().row(0), passages.matrix().row(row)))
            .collect();
        let best = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        assert!((run.ranking(QueryIndex(0))[0].score - best).abs() < 1e-4);
        let less_memory = SearchConfig { memory: 1, ..config };
        let again = dense(&dataset, with(&vectors), Split::Dev, &less_memory, &out, &silent).unwrap();
        assert_eq!(again.key(), artefact.key(), "memory is no part of the key");
        assert!(
            open_run(&artefact, &dataset, &english(), Split::Train).unwrap_err().to_string().contains("no such run")
        );
    }

    #[test]
    fn lexical_runs_list_matching_passages_only() {
        let folder = tempfile::tempdir().unwrap();
        let dataset = dataset(folder.path());
        let silent = Progress::silent();
        let index = bm25::index(
            IndexInputs { dataset: &dataset, dictionary: None },
            &Bm25Config::default(),
            &folder.path().join("index"),
            &silent,
        )
        .unwrap();
        let config = SearchConfig::default();
        let artefact = lexical(&dataset, &index, Split::Train, &config, &folder.path().join("run"), &silent).unwrap();
        let run = open_run(&artefact, &dataset, &english(), Split::Train).unwrap();
        let corpus = &dataset.partitions[0].corpus;
        assert_eq!(corpus.id(run.ranking(QueryIndex(1))[0].passage), "p3");
        assert!(run.ranking(QueryIndex(1)).iter().all(|scored| corpus.id(scored.passage) != "p6"));
        let wrong = dense(&dataset, with(&index), Split::Train, &config, &folder.path().join("x"), &silent);
        assert!(wrong.unwrap_err().to_string().contains("expected an artefact of `encode`"));
    }

    #[test]
    fn a_depth_of_zero_is_refused() {
        let config = SearchConfig { depth: 0, ..SearchConfig::default() };
        assert!(config.validate().unwrap_err().to_string().contains("`search.depth`"));
    }
}
