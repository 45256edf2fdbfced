//! The loop with a toy engine: a bag of token vectors, trained with momentum, that can fail at any operation.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand::RngExt;

use super::checkpoint::{StepRecord, ValidationRecord};
use super::loss::Prefix;
use super::model::Model;
use super::teacher::TeacherKind;
use super::*;
use crate::artefact::{Draft, Summary, draft};
use crate::batch::weights::WeightConfig;
use crate::batch::{Exposure, Row, Step};
use crate::corpus::{CorpusWriter, Language, Passage};
use crate::engine::{Embeddings, Encoder, Footprint, LoadOptions, TokenBatch, Trainable, TrainableLm, Training};
use crate::error::Error;
use crate::judge::{Judgement, QueryJudgements, Verdict};
use crate::mine::{Candidate, QueryCandidates};
use crate::sample::{Example, Negative, Provenance};
use crate::text::tokenize::tiny::write_tiny_tokenizer;
use crate::topic::{Topic, Topics};
use crate::untied::{PASSAGE_MODEL, QUERY_MODEL};

const DIMENSION: usize = 8;
const SUBJECTS: usize = 6;
/// To this the toy cuts longer gradients.
const MOST_NORM: f32 = 50.0;
const LANGUAGES: [&str; 2] = ["fi", "sw"];

/// Fails at one operation, counted over everything the engine and its model do.
#[derive(Debug, Clone, Default)]
struct Fuse {
    done: Arc<AtomicUsize>,
    /// The operation that fails, counted from 1; 0 is none.
    fails: usize,
}

impl Fuse {
    fn burn(&self) -> Result<()> {
        let operation = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if operation == self.fails { Err(Error::data(format!("interrupted at operation {operation}"))) } else { Ok(()) }
    }
}

struct ToyEngine(Fuse);

struct Toy {
    fuse: Fuse,
    table: Vec<f32>,
    gradient: Vec<f32>,
    momentum: Vec<f32>,
}

impl Toy {
    fn new(vocabulary: usize, fuse: Fuse) -> Self {
        let mut random = crate::random::keyed(3, "toy", "");
        let table = (0..vocabulary * DIMENSION).map(|_| random.random::<f32>() - 0.5).collect();
        let nothing = vec![0.0; vocabulary * DIMENSION];
        Self { fuse, table, gradient: nothing.clone(), momentum: nothing }
    }
}

impl Encoder for Toy {
    fn dimension(&self) -> usize {
        DIMENSION
    }

    fn encode(&self, batch: &TokenBatch) -> Result<Embeddings> {
        self.fuse.burn()?;
        let mut vectors = Embeddings::zeros(batch.len(), DIMENSION);
        for index in 0..batch.len() {
            for token in batch.sequence(index) {
                let row = &self.table[*token as usize * DIMENSION..][..DIMENSION];
                vectors.row_mut(index).iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
        }
        Ok(vectors)
    }
}

impl Trainable for Toy {
    fn forward(&mut self, batch: &TokenBatch, _step: u64) -> Result<Embeddings> {
        self.encode(batch)
    }

    fn backward(&mut self, batch: &TokenBatch, gradient: &Embeddings, _step: u64) -> Result<()> {
        self.fuse.burn()?;
        for index in 0..batch.len() {
            for token in batch.sequence(index) {
                let row = &mut self.gradient[*token as usize * DIMENSION..][..DIMENSION];
                row.iter_mut().zip(gradient.row(index)).for_each(|(sum, value)| *sum += value);
            }
        }
        Ok(())
    }
}

impl Training for Toy {
    fn gradient_norm(&mut self) -> Result<f32> {
        self.fuse.burn()?;
        Ok(self.gradient.iter().map(|value| value * value).sum::<f32>().sqrt())
    }

    fn apply(&mut self, rate: f32, norm: f32) -> Result<()> {
        let clip = (norm / MOST_NORM).max(1.0);
        for (place, gradient) in self.gradient.iter_mut().enumerate() {
            self.momentum[place] = 0.9 * self.momentum[place] + *gradient / clip;
            self.table[place] -= rate * self.momentum[place];
            *gradient = 0.0;
        }
        Ok(())
    }

    fn write_state(&self, output: &mut dyn Write) -> Result<()> {
        output.write_all(bytemuck::cast_slice(&self.table)).unwrap();
        self.fuse.burn()?;
        output.write_all(bytemuck::cast_slice(&self.momentum)).unwrap();
        Ok(())
    }

    fn restore(&mut self, input: &mut dyn Read) -> Result<()> {
        self.fuse.burn()?;
        input.read_exact(bytemuck::cast_slice_mut(&mut self.table)).unwrap();
        input.read_exact(bytemuck::cast_slice_mut(&mut self.momentum)).unwrap();
        Ok(())
    }

    fn save(&self, folder: &Path) -> Result<()> {
        std::fs::write(folder.join("model.safetensors"), bytemuck::cast_slice(&self.table)).unwrap();
        self.fuse.burn()?;
        std::fs::write(folder.join("config.json"), "{}\n").unwrap();
        Ok(())
    }
}

impl Engine for ToyEngine {
    fn encoder(&self, _folder: &Path, _options: &LoadOptions) -> Result<Box<dyn Encoder>> {
        unreachable!("training opens a trainable")
    }

    fn trainable(&self, folder: &Path, _options: &LoadOptions) -> Result<Box<dyn Trainable>> {
        self.0.burn()?;
        let config: serde_json::Value =
            serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
        Ok(Box::new(Toy::new(config["vocab_size"].as_u64().unwrap() as usize, self.0.clone())))
    }

    fn trainable_lm(&self, _: &Path, _: &LoadOptions) -> Result<Box<dyn TrainableLm>> {
        unreachable!("training opens a trainable")
    }

    fn encoding_footprint(&self, _folder: &Path, _options: &LoadOptions, _longest: usize) -> Result<Footprint> {
        unreachable!("training opens a trainable")
    }

    /// A byte a token.
    fn training_footprint(&self, _folder: &Path, options: &LoadOptions, lengths: &[usize]) -> Result<Footprint> {
        let footprint = Footprint { activations: lengths.iter().sum::<usize>() as u64, ..Footprint::default() };
        match options.memory {
            Some(memory) if options.beside + footprint.total() > memory => Err(Error::config("`memory`: too little")),
            _ => Ok(footprint),
        }
    }
}

fn write_artefact(folder: &Path, stage: &str, fill: impl FnOnce(&mut Draft)) -> Artefact {
    let Outcome::Write(mut files) = draft(folder, Recipe::new(stage, 1, &()).unwrap()).unwrap() else {
        panic!("the folder is new")
    };
    fill(&mut files);
    files.commit(Summary::default()).unwrap()
}

fn language(tag: &str) -> Language {
    Language::new(tag).unwrap()
}

/// Two languages with six subjects each: query `q2` asks with the words `a2 t0`, its passage `p2` answers `b2 t0`.
struct Fixture {
    folder: tempfile::TempDir,
    dataset: Dataset,
    batches: Artefact,
    examples: Artefact,
    topics: Artefact,
    candidates: Artefact,
    judgements: Artefact,
    encoder: EncoderConfig,
}

impl Fixture {
    fn new() -> Self {
        Self::with_steps(steps())
    }

    fn with_steps(steps: Vec<Step>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let dataset = Dataset::open(&write_artefact(&at("dataset"), "fetch", write_dataset)).unwrap();
        let topic = |_: &str| (0..SUBJECTS as u32).map(|passage| Topic(passage % 2)).collect();
        let topics = Topics {
            labels: vec!["even".into(), "odd".into()],
            passages: LANGUAGES.iter().map(|tag| (language(tag), topic(tag))).collect(),
        };
        let fixture = Self {
            dataset,
            batches: write_artefact(&at("batches"), "batch", |draft| write_batches(draft, steps)),
            examples: write_artefact(&at("examples"), "sample", write_examples),
            topics: write_artefact(&at("topics"), "topic", |draft| draft.write_lines("topics.json", [topics]).unwrap()),
            candidates: write_artefact(&at("candidates"), "mine", write_candidates),
            judgements: write_artefact(&at("judgements"), "judge", write_judgements),
            encoder: EncoderConfig { batch_tokens: 16, ..EncoderConfig::default() },
            folder,
        };
        write_base(&fixture.base());
        fixture
    }

    /// Whose base has an encoder of queries and one of passages.
    fn untied() -> Self {
        let fixture = Self::new();
        std::fs::remove_dir_all(fixture.base()).unwrap();
        [QUERY_MODEL, PASSAGE_MODEL].iter().for_each(|name| write_base(&fixture.base().join(name)));
        fixture
    }

    fn base(&self) -> PathBuf {
        self.folder.path().join("base")
    }

    fn train(&self, config: &TrainConfig, out: &str, fuse: &Fuse) -> Result<Artefact> {
        let notes = ["the base's weights were rounded".to_owned()];
        let base = BaseModel { folder: &self.base(), name: "toy/base", key: "0123", notes: &notes };
        let inputs = TrainInputs {
            dataset: &self.dataset,
            batches: &self.batches,
            examples: &self.examples,
            topics: &self.topics,
            candidates: Some(&self.candidates),
            judgements: Some(&self.judgements),
            base,
            encoder: &self.encoder,
            engine: &ToyEngine(fuse.clone()),
            watched: Some(&self.folder.path().join("watched")),
        };
        train(&inputs, config, 1, &self.folder.path().join(out), &Progress::silent())
    }

    fn refuse(&self, config: &TrainConfig) -> String {
        self.train(config, "refused", &Fuse::default()).unwrap_err().to_string()
    }
}

/// A base model but for its weights.
fn write_base(folder: &Path) {
    std::fs::create_dir_all(folder.join("1_Pooling")).unwrap();
    let texts: Vec<String> =
        (0..SUBJECTS).map(|subject| format!("a{subject} b{subject} t0 t1 query: passage:")).collect();
    let vocabulary = write_tiny_tokenizer(folder, &texts).unwrap();
    let config = serde_json::json!({"vocab_size": vocabulary, "hidden_size": DIMENSION, "intermediate_size": 1,
        "num_hidden_layers": 1, "num_attention_heads": 1});
    let write = |name: &str, content: &str| std::fs::write(folder.join(name), content).unwrap();
    write("config.json", &config.to_string());
    write("1_Pooling/config.json", r#"{"pooling_mode_mean_tokens": true}"#);
    write("1_Pooling/code.py", "raise SystemExit");
    write("sentence_bert_config.json", r#"{"max_seq_length": 512, "do_lower_case": false}"#);
    write("config_sentence_transformers.json", r#"{"prompts": {"query": "query: ", "passage": "passage: "}}"#);
}

fn write_dataset(draft: &mut Draft) {
    for tag in LANGUAGES {
        let path = draft.path(&format!("{tag}/passages.bin"));
        let corpus = |output: &mut std::io::BufWriter<std::fs::File>| {
            let mut writer = CorpusWriter::new(output, &path)?;
            for subject in 0..SUBJECTS {
                let (id, text) = (format!("p{subject}"), format!("b{subject} t{}", subject % 2));
                writer.push(Passage { id: &id, title: "", text: &text })?;
            }
            writer.finish()
        };
        draft.write(&format!("{tag}/passages.bin"), corpus).unwrap();
        let (mut queries, mut qrels) = (String::new(), String::new());
        for subject in 0..SUBJECTS {
            for kind in ["q", "v"] {
                queries += &format!("{kind}{subject}\ta{subject} t{}\n", subject % 2);
                qrels += &format!("{kind}{subject} Q0 p{subject} 1\n");
            }
        }
        for (name, text) in [("queries", queries), ("qrels", qrels)] {
            let write = |output: &mut std::io::BufWriter<std::fs::File>| {
                output.write_all(text.as_bytes()).unwrap();
                Ok(12)
            };
            draft.write(&format!("{tag}/{name}.train.tsv"), write).unwrap();
        }
    }
}

fn write_batches(draft: &mut Draft, steps: Vec<Step>) {
    draft.write_lines("batches.jsonl", steps).unwrap();
    let language = LANGUAGES.iter().map(|tag| (language(tag), 90)).collect();
    draft.write_lines("exposure.json", [Exposure { language, topic: vec![120, 60] }]).unwrap();
}

fn write_examples(draft: &mut Draft) {
    let example = |subject: usize| Example {
        query: format!("v{subject}"),
        positives: vec![format!("p{subject}")],
        relevant: vec![format!("p{subject}")],
        negatives: Vec::new(),
    };
    for tag in LANGUAGES {
        draft.write_lines(&format!("{tag}.validation.jsonl"), (0..SUBJECTS).map(example)).unwrap();
    }
}

fn write_candidates(draft: &mut Draft) {
    let candidate = |passage: usize, rank: u32| Candidate {
        passage: format!("p{passage}"),
        rank,
        score: 0.5,
        model_score: 0.5 / rank as f32,
        human_grade: None,
        evidence: Vec::new(),
    };
    let line = |kind: &str, subject: usize| QueryCandidates {
        query: format!("{kind}{subject}"),
        positives: vec![(format!("p{subject}"), 0.9)],
        candidates: vec![candidate((subject + 1) % SUBJECTS, 1), candidate((subject + 2) % SUBJECTS, 2)],
    };
    for tag in LANGUAGES {
        let lines = (0..SUBJECTS).flat_map(|subject| [line("q", subject), line("v", subject)]);
        draft.write_lines(&format!("{tag}.jsonl"), lines).unwrap();
    }
}

fn write_judgements(draft: &mut Draft) {
    let judgement = |passage: usize, verdict| Judgement {
        passage: format!("p{passage}"),
        verdict,
        accuracy: Some(1),
        completeness: Some(0),
        screened: None,
        ledger: Vec::new(),
    };
    let line = |subject: usize| QueryJudgements {
        query: format!("q{subject}"),
        judgements: vec![
            judgement((subject + 1) % SUBJECTS, Verdict::Negative),
            judgement((subject + 2) % SUBJECTS, Verdict::Unknown),
        ],
    };
    for tag in LANGUAGES {
        draft.write_lines(&format!("{tag}.jsonl"), (0..SUBJECTS).map(line)).unwrap();
    }
}

/// Three epochs of four steps: three queries of one language each.
fn steps() -> Vec<Step> {
    let row = |tag: &str, subject: usize| Row {
        language: language(tag),
        query: format!("q{subject}"),
        positive: format!("p{subject}"),
        negatives: vec![
            Negative { passage: format!("p{}", (subject + 1) % SUBJECTS), provenance: Provenance::Judged },
            Negative { passage: format!("p{}", (subject + 4) % SUBJECTS), provenance: Provenance::Random },
        ],
        masked: Vec::new(),
    };
    let step = |step: usize| {
        let (tag, first) = (LANGUAGES[step % 2], step / 2 % 2);
        let rows = (0..3).map(|number| row(tag, 2 * number + first)).collect();
        Step { step: step as u64, epoch: step as u32 / 4, rows }
    };
    (0..12).map(step).collect()
}

fn quick() -> TrainConfig {
    TrainConfig { rate: 0.02, temperature: 0.2, checkpoint_every: 5, ..TrainConfig::default() }
}

/// Every file of an artefact but the one that tells how long it took.
fn contents(artefact: &Artefact) -> BTreeMap<String, Vec<u8>> {
    let manifest = std::iter::once("manifest.json".to_owned());
    let files = artefact.manifest().files.iter().map(|file| file.path.clone()).chain(manifest);
    files.map(|name| (name.clone(), std::fs::read(artefact.path(&name)).unwrap())).collect()
}

#[test]
fn training_improves_validation_and_logs_every_step() {
    let fixture = Fixture::new();
    let artefact = fixture.train(&quick(), "out", &Fuse::default()).unwrap();
    let log: Vec<StepRecord> = artefact.read_lines("log.jsonl").unwrap();
    let validations: Vec<ValidationRecord> = artefact.read_lines("validation.jsonl").unwrap();
    assert_eq!(log.len(), 12);
    assert_eq!((log[4].step, log[4].epoch, log[4].language.as_str()), (4, 1, "fi"));
    assert_eq!(log[0].shares.keys().collect::<Vec<_>>(), ["in-batch", "judged", "random"]);
    assert_eq!(validations.iter().map(|validation| validation.step).collect::<Vec<_>>(), [0, 4, 8, 12]);
    let values: Vec<f64> = validations.iter().map(|validation| validation.macro_average).collect();
    assert!(values.iter().skip(1).any(|value| *value > values[0] + 0.05), "{values:?}");
    assert!(log[11].loss < log[0].loss);
    let best = artefact.summary().values["best step"] as u64;
    let first_best =
        validations.iter().max_by(|a, b| a.macro_average.total_cmp(&b.macro_average).then(b.step.cmp(&a.step)));
    assert_eq!(first_best.unwrap().step, best);
    assert!(artefact.summary().notes.contains(&"the base's weights were rounded".to_owned()));
    assert!(!fixture.folder.path().join("out/.scratch").exists());
}

#[test]
fn the_folder_is_a_whole_model_without_foreign_code() {
    let fixture = Fixture::new();
    let artefact = fixture.train(&quick(), "out", &Fuse::default()).unwrap();
    for file in ["model.safetensors", "config.json", "tokenizer.json", "modules.json", "1_Pooling/config.json"] {
        assert!(artefact.has(file), "{file}");
    }
    assert!(!artefact.has("1_Pooling/code.py"));
    let json = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(artefact.path(name)).unwrap()).unwrap()
    };
    assert_eq!(json("sentence_bert_config.json")["max_seq_length"], 256);
    let settings = json("config_sentence_transformers.json");
    assert_eq!(settings["prompts"]["document"], "passage: ");
    assert_eq!(settings["similarity_fn_name"], "cosine");
    assert_eq!(json("modules.json").as_array().unwrap().len(), 3);
    let card = std::fs::read_to_string(artefact.path("README.md")).unwrap();
    for part in ["toy/base", "- fi\n- sw\n", "rounded", "| mean |", "steps: 12 of 12"] {
        assert!(card.contains(part), "{card}");
    }
    assert!(!card.contains(fixture.folder.path().to_str().unwrap()));
}

#[test]
fn a_model_of_two_encoders_stays_one() {
    let fixture = Fixture::untied();
    let artefact = fixture.train(&quick(), "out", &Fuse::default()).unwrap();
    for name in [QUERY_MODEL, PASSAGE_MODEL] {
        for file in ["model.safetensors", "config.json", "tokenizer.json", "modules.json", "1_Pooling/config.json"] {
            assert!(artefact.has(&format!("{name}/{file}")) && !artefact.has(file), "{name}/{file}");
        }
    }
    let weights = [QUERY_MODEL, PASSAGE_MODEL].map(|name| artefact.path(&format!("{name}/model.safetensors")));
    let [queries, passages] = weights.map(|path| std::fs::read(path).unwrap());
    assert!(queries != passages, "each has learnt from its own texts");
    let values = &artefact.summary().values;
    assert!(values["validation nDCG@10"] > values["validation nDCG@10, untouched"] + 0.05);
    let card = std::fs::read_to_string(artefact.path("README.md")).unwrap();
    assert!(card.contains("\"this folder/query_model\"") && card.contains("\"this folder/passage_model\""), "{card}");
}

#[test]
fn two_encoders_see_their_own_texts_and_are_clipped_together() {
    let fixture = Fixture::untied();
    let engine = ToyEngine(Fuse::default());
    let options = LoadOptions { memory: Some(20), ..LoadOptions::default() };
    let open = |lengths: [&[usize]; 2]| Model::open(&engine, &fixture.base(), &options, lengths);
    let (mut model, footprint) = open([&[3, 4], &[13]]).unwrap();
    assert_eq!(footprint.total(), 20);
    assert!(open([&[3, 4], &[14]]).is_err(), "the second has what the first leaves");

    let sequences: [&[u32]; 4] = [&[1, 2], &[3], &[1, 4, 4], &[2, 3]];
    let (batch, queries) = (sequences.into_iter().collect::<TokenBatch>(), 2);
    let gradient = Embeddings::new(DIMENSION, (0..4 * DIMENSION).map(|place| place as f32 - 9.0).collect()).unwrap();
    let parts = [0..queries, queries..4].map(|range| (batch.slice(range.clone()), gradient.slice(range)));
    let mut alone = [QUERY_MODEL, PASSAGE_MODEL]
        .map(|name| engine.trainable(&fixture.base().join(name), &LoadOptions::default()).unwrap());
    for step in 0..2 {
        let vectors = model.forward(&batch, queries, step).unwrap();
        model.backward(&batch, queries, &gradient, step).unwrap();
        let mut norms = Vec::new();
        let mut start = 0;
        for (one, (batch, gradient)) in alone.iter_mut().zip(&parts) {
            let expected = one.forward(batch, step).unwrap();
            assert_eq!(vectors.slice(start..start + batch.len()), expected);
            one.backward(batch, gradient, step).unwrap();
            norms.push(one.gradient_norm().unwrap());
            start += batch.len();
        }
        let norm = model.gradient_norm().unwrap();
        assert!((norm - norms[0].hypot(norms[1])).abs() < 1e-3 * norm, "{norm}, {norms:?}");
        assert!(norm > MOST_NORM, "clipping shows: {norm}");
        model.apply(0.1, norm).unwrap();
        alone.iter_mut().for_each(|one| one.apply(0.1, norm).unwrap());
    }
    let mut state = Vec::new();
    model.write_state(&mut state).unwrap();
    let (mut again, _) = open([&[1], &[1]]).unwrap();
    again.restore(&mut state.as_slice()).unwrap();
    for (index, one) in alone.iter().enumerate() {
        for model in [&model, &again] {
            assert_eq!(model.encoders()[index].encode(&batch).unwrap(), one.encode(&batch).unwrap());
        }
    }
}

#[test]
fn interrupted_wherever_it_ends_in_the_same_bytes() {
    let config = quick();
    for (fixture, stride) in [(Fixture::new(), 3), (Fixture::untied(), 11)] {
        let whole = Fuse::default();
        let expected = contents(&fixture.train(&config, "straight", &whole).unwrap());
        let operations = whole.done.load(Ordering::Relaxed);
        assert!(operations > 60, "{operations}");
        for fails in (1..=operations).step_by(stride) {
            let out = format!("interrupted-{fails}");
            let error = fixture.train(&config, &out, &Fuse { fails, ..Fuse::default() }).unwrap_err();
            assert!(error.to_string().contains("interrupted"), "{error}");
            let again = fixture.train(&config, &out, &Fuse { fails: 1 + fails % 7, ..Fuse::default() });
            assert!(again.is_err());
            let resumed = contents(&fixture.train(&config, &out, &Fuse::default()).unwrap());
            for (name, bytes) in &expected {
                assert!(resumed[name] == *bytes, "{name} differs after an interruption at operation {fails}");
            }
        }
    }
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before() {
    let fixture = Fixture::new();
    let config = TrainConfig { checkpoint_every: 1, ..quick() };
    let expected = contents(&fixture.train(&config, "straight", &Fuse::default()).unwrap());
    fixture.train(&config, "damaged", &Fuse { fails: 60, ..Fuse::default() }).unwrap_err();
    let scratch = fixture.folder.path().join("damaged.partial/.scratch");
    let mut checkpoints = crate::artefact::entries(&scratch).unwrap();
    checkpoints.retain(|path| path.extension().is_some_and(|extension| extension == "checkpoint"));
    assert_eq!(checkpoints.len(), 2);
    let mut bytes = std::fs::read(&checkpoints[1]).unwrap();
    let middle = bytes.len() - 100;
    bytes[middle] ^= 1;
    std::fs::write(&checkpoints[1], bytes).unwrap();
    assert_eq!(contents(&fixture.train(&config, "damaged", &Fuse::default()).unwrap()), expected);
}

#[test]
fn what_is_done_is_up_to_date() {
    let fixture = Fixture::new();
    let first = fixture.train(&quick(), "out", &Fuse::default()).unwrap();
    let fuse = Fuse::default();
    assert_eq!(fixture.train(&quick(), "out", &fuse).unwrap().key(), first.key());
    assert_eq!(fuse.done.load(Ordering::Relaxed), 0);
}

#[test]
fn the_untouched_model_wins_ties_and_says_so() {
    let fixture = Fixture::new();
    let artefact = fixture.train(&TrainConfig { rate: 1e-30, ..quick() }, "out", &Fuse::default()).unwrap();
    assert_eq!(artefact.summary().counts["steps"], 12);
    assert!(artefact.summary().notes.iter().any(|note| note.contains("these are the untouched weights")));
    let bytes = std::fs::read(artefact.path("model.safetensors")).unwrap();
    let untouched = Toy::new(bytes.len() / 4 / DIMENSION, Fuse::default()).table;
    assert_eq!(bytes, bytemuck::cast_slice::<f32, u8>(&untouched));
}

#[test]
fn patience_ends_a_training_that_brings_nothing() {
    let fixture = Fixture::new();
    let validation = ValidationConfig { every: Every::Steps(2), patience: 2, pool: Pool::Reduced };
    let config = TrainConfig { rate: 1e-30, validation, ..quick() };
    let artefact = fixture.train(&config, "out", &Fuse::default()).unwrap();
    assert_eq!(artefact.summary().counts["steps"], 4);
    let notes = artefact.summary().notes.join("\n");
    assert!(notes.contains("stopped after step 4 of 12") && notes.contains("a reduced pool of 12 passages"), "{notes}");
}

#[test]
fn without_validation_queries_the_last_weights_stand() {
    let mut fixture = Fixture::new();
    fixture.examples = write_artefact(&fixture.folder.path().join("none"), "sample", |_| ());
    let artefact = fixture.train(&quick(), "out", &Fuse::default()).unwrap();
    assert!(artefact.summary().notes.iter().any(|note| note.contains("weights of the last step")));
    assert!(artefact.has("model.safetensors"));
}

#[test]
fn a_loss_that_is_not_finite_names_step_and_language_and_keeps_the_state() {
    let fixture = Fixture::new();
    let warmup = schedule::Warmup::Share(0.0);
    let config = TrainConfig { rate: 1e38, temperature: 1e-6, warmup, checkpoint_every: 1, ..quick() };
    let message = fixture.refuse(&config);
    for part in ["batches.jsonl:2: step 1 (sw; queries q", "is NaN", "`train.rate`"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(fixture.folder.path().join("refused.partial/.scratch/000000000001.checkpoint").exists());
}

#[test]
fn only_the_ratio_of_the_weights_counts() {
    let fixture = Fixture::new();
    for reading in [loss::Reading::Negative, loss::Reading::Query, loss::Reading::PaperMean] {
        let log = |alpha: f64, beta: f64| {
            let weights = WeightConfig { alpha, beta, ..WeightConfig::default() };
            let config = TrainConfig { reading, weights, ..quick() };
            let artefact = fixture.train(&config, &format!("{reading:?}-{alpha}-{beta}"), &Fuse::default()).unwrap();
            std::fs::read_to_string(artefact.path("log.jsonl")).unwrap()
        };
        let expected = log(0.45, 0.4);
        assert_eq!(log(0.9, 0.8), expected);
        assert_ne!(log(0.1, 0.8), expected);
    }
}

#[test]
fn every_option_of_the_loss_trains() {
    let fixture = Fixture::new();
    for (number, teacher) in [TeacherKind::Untouched, TeacherKind::Judge].into_iter().enumerate() {
        let config = TrainConfig {
            matryoshka: vec![Prefix { dimension: 4, weight: 0.5 }],
            distillation: Some(DistillationConfig { teacher, weight: 0.5, temperature: 0.5 }),
            query_negatives: true,
            reading: loss::Reading::Query,
            ..quick()
        };
        let artefact = fixture.train(&config, &format!("out-{number}"), &Fuse::default()).unwrap();
        let log: Vec<StepRecord> = artefact.read_lines("log.jsonl").unwrap();
        assert!(log[11].loss < log[0].loss);
    }
}

#[test]
fn what_does_not_fit_is_refused_before_training() {
    let change = |change: fn(&mut Vec<Step>)| {
        let mut steps = steps();
        change(&mut steps);
        Fixture::with_steps(steps).refuse(&quick())
    };
    let message = change(|steps| steps[3].rows[0].positive = "p99".into());
    assert!(message.contains("batches.jsonl:4") && message.contains("p99"), "{message}");
    let message = change(|steps| steps[1].rows[2].query = "q99".into());
    assert!(message.contains("batches.jsonl:2") && message.contains("q99"), "{message}");
    assert!(change(|steps| drop(steps.remove(1))).contains("expected step 1"));
    assert!(change(Vec::clear).contains("the plan has no step"));

    let mut fixture = Fixture::new();
    fixture.candidates = write_artefact(&fixture.folder.path().join("empty"), "mine", |_| ());
    assert!(fixture.refuse(&TrainConfig { memory: Some(100), ..quick() }).contains("`memory`: too little"));
}
