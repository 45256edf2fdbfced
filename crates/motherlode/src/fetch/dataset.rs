//! Reads a data set in a public layout, checks all of it, then writes the artefact that [`crate::dataset`] opens.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use hf_hub::RepoType;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::artefact::{self, Artefact, Draft, Outcome, Recipe, Summary};
use crate::corpus::{Corpus, CorpusWriter, Language};
use crate::dataset::{Dataset, Split};
use crate::error::{Error, Result};
use crate::progress::Progress;

use super::check::{Checked, Checker};
use super::hub::{Hub, Repository};
use super::rows::{LanguageFiles, VisitJudgement, VisitPassage, VisitQuery};
use super::{beir, miracl, parquet};

const FORMAT: u32 = 1;

/// How the files of a data set lie and what their columns are called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// `LANG/{corpus.jsonl[.gz], topics.SPLIT.tsv, qrels.SPLIT.tsv}`, or the folders of MIRACL's release.
    #[default]
    Miracl,
    /// `corpus.jsonl`, `queries.jsonl`, `qrels/SPLIT.tsv`; one language.
    Beir,
    /// `corpus.parquet`, `queries.SPLIT.parquet`, `qrels.SPLIT.parquet`; one language, or a folder for each.
    Parquet,
}

/// What happens to a query of which no passage is judged relevant (grade 1 or above).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WithoutPositives {
    /// The data set is refused.
    #[default]
    Error,
    /// The query and its judgements are left out, and counted.
    Skip,
}

/// Which data set, and what of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatasetConfig {
    /// A folder, or `hub:OWNER/NAME` for a data set on the model hub.
    pub source: String,
    /// The same for the passages, where they lie elsewhere; empty: in `source`.
    pub corpus: String,
    /// The branch, tag or commit on the hub.
    pub revision: String,
    /// How the files lie.
    pub layout: Layout,
    /// The languages to read; empty: all that are found. A layout of one language needs it named here.
    pub languages: Vec<Language>,
    /// What the file names call the queries to learn from.
    pub train_split: String,
    /// What the file names call the queries that are scored at the end.
    pub dev_split: String,
    /// Keep at most so many train queries a language, chosen by seed.
    pub train_queries: Option<usize>,
    /// What happens to a query without a relevant passage.
    pub queries_without_positives: WithoutPositives,
}

impl Default for DatasetConfig {
    fn default() -> Self {
        Self {
            source: String::new(),
            corpus: String::new(),
            revision: "main".into(),
            layout: Layout::default(),
            languages: Vec::new(),
            train_split: "train".into(),
            dev_split: "dev".into(),
            train_queries: None,
            queries_without_positives: WithoutPositives::default(),
        }
    }
}

impl DatasetConfig {
    /// Refuses a configuration without a source, with a repeated language, or with one name for both splits.
    pub fn validate(&self) -> Result<()> {
        if self.source.is_empty() {
            return Err(Error::config("`dataset.source`: expected a folder or hub:OWNER/NAME, it is empty"));
        }
        if self.train_split == self.dev_split {
            let message = format!("`dataset.dev_split`: `{}` is the train split too; name another", self.dev_split);
            return Err(Error::config(message));
        }
        if self.train_queries == Some(0) {
            return Err(Error::config("`dataset.train_queries`: expected 1 or more, got 0; leave it out for all"));
        }
        let mut seen = HashSet::new();
        match self.languages.iter().find(|language| !seen.insert(*language)) {
            Some(twice) => Err(Error::config(format!("`dataset.languages`: `{twice}` stands twice"))),
            None => Ok(()),
        }
    }

    /// As it goes into the key: a folder counts by its content, not by where it lies.
    fn recorded(&self) -> Self {
        let mut recorded = self.clone();
        recorded.source = super::recorded_name(&self.source);
        recorded.corpus = super::recorded_name(&self.corpus);
        recorded
    }
}

/// Where queries and passages lie.
#[derive(Debug)]
pub(super) struct Folders {
    /// Holds queries and judgements.
    pub(super) queries: PathBuf,
    /// Holds the passages; often the same folder.
    pub(super) corpus: PathBuf,
}

/// What the file names call the splits.
#[derive(Debug)]
pub(super) struct SplitNames {
    train: String,
    dev: String,
}

impl SplitNames {
    pub(super) fn new(config: &DatasetConfig) -> Self {
        Self { train: config.train_split.clone(), dev: config.dev_split.clone() }
    }

    /// The name of a split in file names.
    pub(super) fn of(&self, split: Split) -> &str {
        match split {
            Split::Train => &self.train,
            Split::Dev => &self.dev,
        }
    }
}

/// Writes the data set's artefact into `out`; `seed` decides which train queries stay where they are limited.
///
/// # Errors
/// Whatever is wrong with the files, before anything is written: bytes that are not UTF-8, lines of another form,
/// missing or repeated ids, empty texts, judgements of unknown queries or passages, queries without positives,
/// truncated gzip or Parquet files, an empty corpus, no queries.
pub fn dataset(config: &DatasetConfig, seed: u64, out: &Path, progress: &Progress<'_>) -> Result<Artefact> {
    dataset_from(config, &Hub::from_environment(), seed, out, progress)
}

pub(super) fn dataset_from(
    config: &DatasetConfig,
    hub: &Hub,
    seed: u64,
    out: &Path,
    progress: &Progress<'_>,
) -> Result<Artefact> {
    config.validate()?;
    let names = SplitNames::new(config);
    let folders = folders(config, hub, &names, progress)?;
    let files = match config.layout {
        Layout::Miracl => miracl::locate(&folders, &config.languages, &names)?,
        Layout::Beir => beir::locate(&folders, &config.languages, &names)?,
        Layout::Parquet => parquet::locate(&folders, &config.languages, &names)?,
    };
    let recipe = recipe(config, seed, &folders, &files)?;
    if let Some(artefact) = up_to_date(out, &recipe)? {
        return Ok(artefact);
    }
    progress.begin("check the data set", files.iter().map(|files| files.corpus.len()).sum(), "corpus files");
    let checker = Checker { config, seed, progress };
    let checked: Vec<Result<Checked>> = files.par_iter().map(|files| checker.language(files)).collect();
    let checked = checked.into_iter().collect::<Result<Vec<_>>>()?;
    match artefact::draft(out, recipe)? {
        Outcome::UpToDate(artefact) => Ok(artefact),
        Outcome::Write(draft) => write(draft, config.layout, &files, checked, progress),
    }
}

/// The folders of the sources; what lies on the hub is downloaded, only the files of the asked languages.
fn folders(config: &DatasetConfig, hub: &Hub, names: &SplitNames, progress: &Progress<'_>) -> Result<Folders> {
    let folder = |source: &str| -> Result<PathBuf> {
        let Some(name) = source.strip_prefix(super::HUB) else { return local(source) };
        let (name, revision) = (name.to_owned(), config.revision.clone());
        let repository = Repository { name, kind: RepoType::Dataset, revision };
        let wanted = |path: &str| config.layout.is_needed(path, &config.languages, names);
        Ok(hub.snapshot(&repository, wanted, progress)?.folder)
    };
    let queries = folder(&config.source)?;
    let corpus = if config.corpus.is_empty() { queries.clone() } else { folder(&config.corpus)? };
    Ok(Folders { queries, corpus })
}

fn local(source: &str) -> Result<PathBuf> {
    let path = PathBuf::from(source);
    if path.is_dir() {
        return Ok(path);
    }
    Err(Error::file(path, "expected the folder of a data set, there is none; name a folder or hub:OWNER/NAME"))
}

/// The key holds the digest of every file that is read, by its path inside the source.
fn recipe(config: &DatasetConfig, seed: u64, folders: &Folders, files: &[LanguageFiles]) -> Result<Recipe> {
    let mut paths: Vec<&Path> = files.iter().flat_map(LanguageFiles::all).collect();
    paths.sort_unstable();
    paths.dedup();
    let digests = paths.par_iter().map(|path| artefact::hash_file(path)).collect::<Result<Vec<_>>>()?;
    let mut recipe = Recipe::new(Dataset::STAGE, FORMAT, &config.recorded())?.seed(seed);
    for (path, digest) in paths.iter().zip(&digests) {
        let (role, inside) = match path.strip_prefix(&folders.queries) {
            Ok(inside) => ("source", inside),
            Err(_) => ("corpus", path.strip_prefix(&folders.corpus).unwrap_or(path)),
        };
        recipe = recipe.input_key(&format!("{role}/{}", inside.display()), digest);
    }
    Ok(recipe)
}

/// The artefact that is there already, if it is the one that `recipe` makes.
pub(super) fn up_to_date(out: &Path, recipe: &Recipe) -> Result<Option<Artefact>> {
    if !out.join("manifest.json").exists() {
        return Ok(None);
    }
    let artefact = Artefact::open(out)?;
    Ok((artefact.key() == recipe.key()).then_some(artefact))
}

/// The files were found good: writes them, language after language. What was finished before an interruption stays.
fn write(
    mut draft: Draft,
    layout: Layout,
    files: &[LanguageFiles],
    checked: Vec<Checked>,
    progress: &Progress<'_>,
) -> Result<Artefact> {
    progress.begin("write the data set", files.len(), "languages");
    let mut summary = Summary::default();
    for (files, checked) in files.iter().zip(checked) {
        write_language(&mut draft, layout, files, &checked)?;
        for (name, count) in checked.summary.counts {
            summary.count(name, count as usize);
        }
        checked.summary.notes.into_iter().for_each(|note| summary.note(note));
        progress.advance(1);
    }
    draft.commit(summary)
}

fn write_language(draft: &mut Draft, layout: Layout, files: &LanguageFiles, checked: &Checked) -> Result<()> {
    let language = &files.language;
    let passages = format!("{language}/passages.bin");
    let path = draft.path(&passages);
    draft.write(&passages, |output| {
        let mut writer = CorpusWriter::new(output, &path)?;
        for file in &files.corpus {
            layout.passages(file, &mut |_, passage| writer.push(passage))?;
        }
        writer.finish()
    })?;
    let corpus = Corpus::open(&path)?;
    for (split, rows) in &checked.splits {
        let name = format!("{language}/queries.{}.tsv", split.name());
        let path = draft.path(&name);
        draft.write(&name, |output| rows.queries.write_tsv(output, &path))?;
        let name = format!("{language}/qrels.{}.tsv", split.name());
        let path = draft.path(&name);
        let qrels = rows.qrels(&corpus)?;
        draft.write(&name, |output| qrels.write(output, &path, &rows.queries, &corpus))?;
    }
    Ok(())
}

impl Layout {
    /// Whether a file of a hub repository belongs to the asked languages and splits.
    fn is_needed(self, path: &str, languages: &[Language], names: &SplitNames) -> bool {
        match self {
            Self::Miracl => miracl::is_needed(path, languages, names),
            Self::Beir => beir::is_needed(path, names),
            Self::Parquet => parquet::is_needed(path, languages, names),
        }
    }

    /// Reads the passages of one file.
    pub(super) fn passages(self, path: &Path, visit: &mut VisitPassage<'_>) -> Result<()> {
        match self {
            Self::Miracl => miracl::passages(path, visit),
            Self::Beir => beir::passages(path, visit),
            Self::Parquet => parquet::passages(path, visit),
        }
    }

    /// Reads the queries of one file.
    pub(super) fn queries(self, path: &Path, visit: &mut VisitQuery<'_>) -> Result<()> {
        match self {
            Self::Miracl => miracl::queries(path, visit),
            Self::Beir => beir::queries(path, visit),
            Self::Parquet => parquet::queries(path, visit),
        }
    }

    /// Reads the judgements of one file.
    pub(super) fn judgements(self, path: &Path, visit: &mut VisitJudgement<'_>) -> Result<()> {
        match self {
            Self::Miracl => miracl::judgements(path, visit),
            Self::Beir => beir::judgements(path, visit),
            Self::Parquet => parquet::judgements(path, visit),
        }
    }

    /// Whether one file holds the queries of all splits, so that the judgements say which belong to a split.
    pub(super) fn shares_queries(self) -> bool {
        self == Self::Beir
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;
    use crate::corpus::PassageIndex;

    const CORPUS: &str = r#"{"docid": "a#0", "title": "Maji", "text": "Maji huchemka kwa nyuzi 100."}
{"docid": "a#1", "title": "", "text": "Chumvi huongeza kiwango."}
{"docid": "b#0", "title": "Mto", "text": "Mto Nile ni mrefu."}
"#;

    /// A small good data set in Swahili.
    fn good() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let sw = folder.path().join("data/sw");
        fs::create_dir_all(&sw).unwrap();
        fs::write(sw.join("corpus.jsonl"), CORPUS).unwrap();
        fs::write(sw.join("topics.train.tsv"), "1\tMaji huchemka lini?\n2\tMto gani ni mrefu?\n").unwrap();
        fs::write(sw.join("qrels.train.tsv"), "1\tQ0\ta#0\t1\n1\tQ0\ta#1\t0\n2\tQ0\tb#0\t1\n").unwrap();
        fs::write(sw.join("topics.dev.tsv"), "3\tChumvi hufanya nini?\n").unwrap();
        fs::write(sw.join("qrels.dev.tsv"), "3\tQ0\ta#1\t1\n").unwrap();
        folder
    }

    fn fetch_with(folder: &Path, change: impl FnOnce(&mut DatasetConfig)) -> Result<Artefact> {
        let mut config = DatasetConfig { source: folder.join("data").display().to_string(), ..Default::default() };
        change(&mut config);
        dataset(&config, 7, &folder.join("out"), &Progress::silent())
    }

    fn fetch(folder: &Path) -> Result<Artefact> {
        fetch_with(folder, |_| ())
    }

    /// The message for the good data set with one file changed; nothing may have been written.
    fn refused(file: &str, content: impl AsRef<[u8]>) -> String {
        let folder = good();
        fs::write(folder.path().join("data/sw").join(file), content).unwrap();
        let message = fetch(folder.path()).unwrap_err().to_string();
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["data"], "nothing is written before everything is checked");
        message
    }

    fn expect(message: &str, parts: &[&str]) {
        assert!(parts.iter().all(|part| message.contains(part)), "{message}\nexpected {parts:?}");
    }

    #[test]
    fn a_good_data_set_opens_and_is_counted() {
        let folder = good();
        let artefact = fetch(folder.path()).unwrap();
        let counts = &artefact.summary().counts;
        let count = |name: &str| counts[&format!("sw: {name}")];
        assert_eq!((count("passages"), count("train queries"), count("dev queries")), (3, 2, 1));
        assert_eq!((count("train judgements"), count("train judgements of grade 0")), (3, 1));
        let data = Dataset::open(&artefact).unwrap();
        let partition = &data.partitions[0];
        assert_eq!(partition.corpus.passage(PassageIndex(0)).title, "Maji");
        let train = partition.split(Split::Train).unwrap();
        let query = train.queries.find("1").unwrap();
        assert_eq!(train.qrels.grade(query, PassageIndex(1)), Some(0));
        assert_eq!(train.queries.query(query).text, "Maji huchemka lini?");
    }

    #[test]
    fn it_is_up_to_date_until_a_file_changes() {
        let folder = good();
        let first = fetch(folder.path()).unwrap();
        let manifest = fs::metadata(first.path("manifest.json")).unwrap().modified().unwrap();
        assert_eq!(fetch(folder.path()).unwrap().key(), first.key());
        assert_eq!(fs::metadata(first.path("manifest.json")).unwrap().modified().unwrap(), manifest);
        fs::write(folder.path().join("data/sw/corpus.jsonl"), CORPUS.replace("mrefu", "mrefu sana")).unwrap();
        assert_ne!(fetch(folder.path()).unwrap().key(), first.key());
    }

    #[test]
    fn the_same_data_elsewhere_has_the_same_key() {
        let (one, other) = (good(), good());
        assert_eq!(fetch(one.path()).unwrap().key(), fetch(other.path()).unwrap().key());
    }

    #[test]
    fn train_queries_are_limited_and_counted() {
        let folder = good();
        let artefact = fetch_with(folder.path(), |config| config.train_queries = Some(1)).unwrap();
        assert_eq!(artefact.summary().counts["sw: train queries"], 1);
        assert_eq!(artefact.summary().counts["sw: train queries dropped: not chosen"], 1);
        assert_eq!(artefact.summary().counts["sw: dev queries"], 1);
    }

    #[test]
    fn several_gzip_members_are_one_corpus_and_a_cut_one_is_refused() {
        let folder = good();
        let sw = folder.path().join("data/sw");
        fs::remove_file(sw.join("corpus.jsonl")).unwrap();
        let mut bytes = Vec::new();
        for line in CORPUS.split_inclusive('\n') {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(line.as_bytes()).unwrap();
            bytes.extend(encoder.finish().unwrap());
        }
        fs::write(sw.join("corpus.jsonl.gz"), &bytes).unwrap();
        assert_eq!(fetch(folder.path()).unwrap().summary().counts["sw: passages"], 3);
        fs::write(sw.join("corpus.jsonl.gz"), &bytes[..bytes.len() - 9]).unwrap();
        expect(&fetch(folder.path()).unwrap_err().to_string(), &["corpus.jsonl.gz:", "truncated", "get it again"]);
    }

    #[test]
    fn the_release_layout_has_the_corpus_elsewhere_in_numbered_files() {
        let folder = good();
        let (data, sw) = (folder.path().join("data"), folder.path().join("data/sw"));
        let release = data.join("miracl-v1.0-sw");
        let corpus = folder.path().join("passages/miracl-corpus-v1.0-sw");
        for (kind, split) in [("topics", "train"), ("topics", "dev"), ("qrels", "train"), ("qrels", "dev")] {
            fs::create_dir_all(release.join(kind)).unwrap();
            let to = release.join(kind).join(format!("{kind}.miracl-v1.0-sw-{split}.tsv"));
            fs::rename(sw.join(format!("{kind}.{split}.tsv")), to).unwrap();
        }
        fs::remove_dir_all(&sw).unwrap();
        fs::create_dir_all(&corpus).unwrap();
        let lines: Vec<&str> = CORPUS.split_inclusive('\n').collect();
        for (number, line) in [(0, lines[0]), (1, lines[1]), (2, ""), (10, "")] {
            fs::write(corpus.join(format!("docs-{number}.jsonl")), line).unwrap();
        }
        let passages = folder.path().join("passages").display().to_string();
        let gap = fetch_with(folder.path(), |config| config.corpus = passages.clone()).unwrap_err().to_string();
        expect(&gap, &["docs-3.jsonl.gz", "no such file"]);
        fs::remove_file(corpus.join("docs-10.jsonl")).unwrap();
        fs::write(corpus.join("docs-2.jsonl"), lines[2]).unwrap();
        let artefact = fetch_with(folder.path(), |config| config.corpus = passages.clone()).unwrap();
        let data = Dataset::open(&artefact).unwrap();
        assert_eq!(data.partitions[0].corpus.id(PassageIndex(2)), "b#0");
        assert!(artefact.manifest().inputs.keys().any(|role| role == "corpus/miracl-corpus-v1.0-sw/docs-2.jsonl"));
    }

    #[test]
    fn passages_of_another_form_are_refused() {
        expect(&refused("corpus.jsonl", b"{\"docid\": \"a\xff\"}"), &["corpus.jsonl:1:", "utf-8", "convert"]);
        expect(&refused("corpus.jsonl", "{\"docid\": \"a\", "), &["corpus.jsonl:1:", "JSON object", "column"]);
        expect(&refused("corpus.jsonl", r#"{"title": "t", "text": "x"}"#), &["corpus.jsonl:1:", "`docid`"]);
        expect(&refused("corpus.jsonl", r#"{"_id": "a", "text": "x"}"#), &["`_id`", "beir"]);
        expect(&refused("corpus.jsonl", r#"{"docid": "", "text": "x"}"#), &["`docid`", "empty"]);
        expect(&refused("corpus.jsonl", r#"{"docid": "a b", "text": "x"}"#), &["without white space"]);
        expect(&refused("corpus.jsonl", r#"{"docid": 7, "text": "x"}"#), &["corpus.jsonl:1:", "expected a string"]);
        expect(&refused("corpus.jsonl", r#"{"docid": "a", "text": " "}"#), &["`a`", "empty"]);
        expect(&refused("corpus.jsonl", ""), &["corpus.jsonl", "corpus is empty"]);
    }

    #[test]
    fn a_repeated_id_names_both_lines() {
        let twice = format!("{CORPUS}\n{}", CORPUS.lines().nth(1).unwrap());
        expect(&refused("corpus.jsonl", twice), &["corpus.jsonl:5:", "`a#1`", "corpus.jsonl:2 already"]);
        expect(
            &refused("topics.train.tsv", "1\tx\n2\ty\n1\tz\n"),
            &["topics.train.tsv:3:", "query id `1`", "topics.train.tsv:1 already"],
        );
        expect(&refused("qrels.dev.tsv", "3\tQ0\ta#1\t1\n3\tQ0\ta#1\t0\n"), &["qrels.dev.tsv:2:", "in line 1 already"]);
    }

    #[test]
    fn judgements_of_unknown_things_are_refused() {
        expect(&refused("qrels.dev.tsv", "9\tQ0\ta#1\t1\n"), &["qrels.dev.tsv:1:", "no query has the id `9`"]);
        expect(&refused("qrels.dev.tsv", "3\tQ0\tz#1\t1\n"), &["qrels.dev.tsv:1:", "no passage has the id `z#1`"]);
        expect(&refused("qrels.dev.tsv", "3\ta#1\t1\n"), &["expected 4 columns", "got 3"]);
        expect(&refused("qrels.dev.tsv", "3\tQ0\ta#1\thigh\n"), &["whole number", "`high`"]);
    }

    #[test]
    fn queries_of_another_form_are_refused() {
        expect(&refused("topics.dev.tsv", "3 x\n"), &["topics.dev.tsv:1:", "no tab"]);
        expect(&refused("topics.dev.tsv", "3\t \n"), &["topics.dev.tsv:1:", "empty"]);
    }

    #[test]
    fn a_query_without_a_positive_is_refused_or_left_out() {
        let without = "1\tQ0\ta#0\t0\n2\tQ0\tb#0\t1\n";
        expect(
            &refused("qrels.train.tsv", without),
            &["topics.train.tsv:1:", "query `1` is without", "queries_without_positives"],
        );
        let folder = good();
        fs::write(folder.path().join("data/sw/qrels.train.tsv"), without).unwrap();
        let skip = |config: &mut DatasetConfig| config.queries_without_positives = WithoutPositives::Skip;
        let artefact = fetch_with(folder.path(), skip).unwrap();
        assert_eq!(artefact.summary().counts["sw: train queries dropped: no positive"], 1);
        assert_eq!(artefact.summary().counts["sw: train judgements"], 1);
    }

    #[test]
    fn missing_files_are_named() {
        let folder = good();
        let sw = folder.path().join("data/sw");
        fs::remove_file(sw.join("qrels.dev.tsv")).unwrap();
        expect(&fetch(folder.path()).unwrap_err().to_string(), &["qrels.dev.tsv", "no such file"]);
        fs::remove_file(sw.join("topics.dev.tsv")).unwrap();
        let artefact = fetch(folder.path()).unwrap();
        assert_eq!(artefact.summary().notes, ["`sw` has no dev queries"]);
        fs::remove_file(sw.join("qrels.train.tsv")).unwrap();
        fs::remove_file(sw.join("topics.train.tsv")).unwrap();
        expect(&fetch(folder.path()).unwrap_err().to_string(), &["`sw`", "expected queries"]);
        let asked = |config: &mut DatasetConfig| config.languages = vec![Language::new("ko").unwrap()];
        expect(&fetch_with(folder.path(), asked).unwrap_err().to_string(), &["no corpus for `ko`"]);
        fs::remove_dir_all(sw).unwrap();
        expect(&fetch(folder.path()).unwrap_err().to_string(), &["no language found"]);
    }

    #[test]
    fn contradictory_configurations_are_refused() {
        let folder = good();
        let message = |change: fn(&mut DatasetConfig)| fetch_with(folder.path(), change).unwrap_err().to_string();
        expect(&message(|config| config.source.clear()), &["dataset.source"]);
        expect(&message(|config| config.dev_split = "train".into()), &["dataset.dev_split"]);
        expect(&message(|config| config.train_queries = Some(0)), &["dataset.train_queries"]);
        expect(&message(|config| config.languages = vec![Language::new("sw").unwrap(); 2]), &["`sw` stands twice"]);
    }

    #[test]
    fn the_shared_small_miracl_is_read_whole() {
        let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
        let Some(shared) = above.map(|folder| folder.join("shared/data/mini-miracl")).find(|path| path.exists()) else {
            eprintln!("skipped: there is no shared/data/mini-miracl");
            return;
        };
        let folder = tempfile::tempdir().unwrap();
        let config = DatasetConfig { source: shared.display().to_string(), ..Default::default() };
        let artefact = dataset(&config, 7, &folder.path().join("out"), &Progress::silent()).unwrap();
        let total = |kind: &str| -> u64 {
            let counts = artefact.summary().counts.iter();
            counts.filter(|(name, _)| name.ends_with(kind)).map(|(_, count)| count).sum()
        };
        assert_eq!((total(": passages"), total(": train queries"), total(": dev queries")), (33_091, 29_486, 6_377));
    }
}
