//! Our side of `benches/run mine`: from ready embeddings to the candidates of every query, artefacts written.
//!
//! `mine prepare FOLDER` makes the data set of `FOLDER/source` (MIRACL's layout, texts of the words `w0000` to `w3999`) and
//! its embeddings; `mine serve FOLDER K` measures.

mod side;

use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use motherlode::artefact::Artefact;
use motherlode::dataset::{Dataset, Split};
use motherlode::encode::{EncodeInputs, EncoderConfig, encode};
use motherlode::engine::{Embeddings, Encoder, Engine, Footprint, LoadOptions, TokenBatch, Trainable, TrainableLm};
use motherlode::fetch::{self, DatasetConfig};
use motherlode::mine::{Member, MineConfig, MineInputs, mine};
use motherlode::progress::{Progress, Watcher};
use motherlode::random::keyed;
use motherlode::search::{DenseInputs, SearchConfig, dense};
use motherlode::text::tokenize::tiny::write_tiny_tokenizer;
use motherlode::{Error, Result};
use rand::RngExt;
use serde_json::{Value, json};

const DIMENSION: usize = 384;
const WORDS: usize = 4000;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["prepare", folder] => prepare(Path::new(folder)),
        ["serve", folder, depth] => {
            let depth = depth.parse::<usize>().map_err(|_| Error::config(format!("`{depth}`: expected a number")))?;
            serve(Path::new(folder), depth)
        }
        _ => Err(Error::config("expected: mine prepare FOLDER, or mine serve FOLDER K")),
    }
}

fn prepare(folder: &Path) -> Result<()> {
    let source = folder.join("source").display().to_string();
    let (config, silent) = (DatasetConfig { source, ..DatasetConfig::default() }, Progress::silent());
    let dataset = fetch::dataset(&config, 1, &folder.join("dataset"), &silent)?;
    let model = folder.join("model");
    std::fs::create_dir_all(&model).map_err(Error::io(&model))?;
    let words: Vec<String> = (0..WORDS).map(|word| format!("w{word:04}")).collect();
    let engine = WordVectors::new(write_tiny_tokenizer(&model, &words)?);
    let inputs = EncodeInputs {
        dataset: &Dataset::open(&dataset)?,
        splits: &[Split::Train],
        engine: &engine,
        model: &model,
        model_key: "word vectors",
    };
    encode(inputs, &EncoderConfig::default(), &folder.join("embeddings"), &silent).map(drop)
}

fn serve(folder: &Path, depth: usize) -> Result<()> {
    let dataset = Dataset::open(&Artefact::open(&folder.join("dataset"))?)?;
    let embeddings = Artefact::open(&folder.join("embeddings"))?;
    let (run, mined) = (folder.join("run"), folder.join("mined"));
    side::serve(&json!({}), || {
        for old in [&run, &mined].into_iter().filter(|old| old.exists()) {
            std::fs::remove_dir_all(old).map_err(Error::io(old))?;
        }
        let (start, scored) = (Instant::now(), LastScore(Mutex::new(Instant::now())));
        // One passage more for the positive, and one more as sentence-transformers asks for.
        let search = SearchConfig { depth: depth + 2, ..SearchConfig::default() };
        let inputs = DenseInputs { embeddings: &embeddings, sieve: None };
        let run = dense(&dataset, inputs, Split::Train, &search, &run, &Progress::new(&scored))?;
        let members = [Member { name: "words", run: &run }];
        let inputs = MineInputs { dataset: &dataset, fused: &run, members: &members, embeddings: &embeddings };
        mine(inputs, &MineConfig { depth, ..MineConfig::default() }, &mined, &Progress::silent())?;
        Ok(measured(start, &scored))
    })
}

fn measured(start: Instant, scored: &LastScore) -> Value {
    let last = *scored.0.lock().expect("nobody panicked holding it");
    json!({"seconds": start.elapsed().as_secs_f64(), "after_scores": last.elapsed().as_secs_f64()})
}

/// When the search was done with its last block of passages.
struct LastScore(Mutex<Instant>);

impl Watcher for LastScore {
    fn begin(&self, _: &str, _: u64, _: &'static str) {}

    fn advance(&self, _: u64) {
        *self.0.lock().expect("nobody panicked holding it") = Instant::now();
    }

    fn say(&self, _: &str) {}
}

/// The unit vector along the sum of a random vector a token: texts that share words are near.
#[derive(Clone)]
struct WordVectors {
    /// Vocabulary × d.
    table: Vec<f32>,
}

impl WordVectors {
    fn new(vocabulary: usize) -> Self {
        let mut random = keyed(1, "words", "table");
        Self { table: (0..vocabulary * DIMENSION).map(|_| random.random::<f32>() - 0.5).collect() }
    }
}

impl Encoder for WordVectors {
    fn dimension(&self) -> usize {
        DIMENSION
    }

    fn encode(&self, batch: &TokenBatch) -> Result<Embeddings> {
        let mut vectors = Embeddings::zeros(batch.len(), DIMENSION);
        for row in 0..batch.len() {
            let vector = vectors.row_mut(row);
            for token in batch.sequence(row) {
                let start = *token as usize * DIMENSION;
                vector.iter_mut().zip(&self.table[start..]).for_each(|(sum, value)| *sum += value);
            }
            let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
            vector.iter_mut().for_each(|value| *value /= length);
        }
        Ok(vectors)
    }
}

impl Engine for WordVectors {
    fn encoder(&self, _: &Path, _: &LoadOptions) -> Result<Box<dyn Encoder>> {
        Ok(Box::new(self.clone()))
    }

    fn trainable(&self, _: &Path, _: &LoadOptions) -> Result<Box<dyn Trainable>> {
        Err(Error::data("word vectors cannot be trained"))
    }

    fn trainable_lm(&self, _: &Path, _: &LoadOptions) -> Result<Box<dyn TrainableLm>> {
        Err(Error::data("word vectors cannot be trained"))
    }

    fn encoding_footprint(&self, _: &Path, _: &LoadOptions, _: usize) -> Result<Footprint> {
        Ok(Footprint::default())
    }

    fn training_footprint(&self, _: &Path, _: &LoadOptions, _: &[usize]) -> Result<Footprint> {
        Err(Error::data("word vectors cannot be trained"))
    }
}
