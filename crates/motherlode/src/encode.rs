//! From texts to vectors: tokens, prefixes and batches around an [`Encoder`], and the artefact that keeps the vectors.
//!
//! The stage writes `LANG/passages.f32` and `LANG/queries.SPLIT.f32`: rows in the order of the data set, row-major f32,
//! little endian, nothing else; the dimension stands in the summary. Each file is finished on its own, so a stage that
//! was interrupted goes on with the next. [`Vectors`] maps them.

use std::io::Write;
use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::artefact::{self, Artefact, Draft, Outcome, Recipe, Summary};
use crate::corpus::{Language, Passage, PassageIndex};
use crate::dataset::{Dataset, Partition, Split};
use crate::engine::{Embeddings, Encoder, Engine, Footprint, LoadOptions, Precision, TokenBatch};
use crate::error::{Error, Result};
use crate::mapped::MappedFile;
use crate::progress::Progress;
use crate::text::prompts::Prompts;
use crate::text::tokenize::Tokenizer;
use crate::untied::{self, Encoders};

/// Name of the stage.
pub const STAGE: &str = "encode";
const FORMAT: u32 = 1;
/// Texts that are tokenised, sorted by length and encoded before the next are read.
const WINDOW: usize = 4096;
const DIMENSION: &str = "dimension";

/// How an encoder is used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EncoderConfig {
    /// Keep only the first n layers; all if absent.
    pub layers: Option<usize>,
    /// What the matrix products are computed in, for encoding and for training: `f32` or `bf16`.
    pub precision: Precision,
    /// Tokens of a query, special ones included; the rest is cut off.
    pub query_length: usize,
    /// Tokens of a passage.
    pub passage_length: usize,
    /// Tokens that are encoded at a time, about.
    pub batch_tokens: usize,
    /// Put before every query, instead of what the model's folder says.
    pub query_prefix: Option<String>,
    /// Put before every passage, instead of what the model's folder says.
    pub passage_prefix: Option<String>,
}

impl Default for EncoderConfig {
    fn default() -> Self {
        Self {
            layers: None,
            precision: Precision::F32,
            query_length: 64,
            passage_length: 256,
            batch_tokens: 8192,
            query_prefix: None,
            passage_prefix: None,
        }
    }
}

impl EncoderConfig {
    /// How an encoder is read for this.
    fn options(&self) -> LoadOptions {
        LoadOptions { layers: self.layers, precision: self.precision, ..LoadOptions::default() }
    }

    /// Checks the ranges.
    pub fn validate(&self) -> Result<()> {
        let positive = [
            ("layers", self.layers.unwrap_or(1)),
            ("query_length", self.query_length),
            ("passage_length", self.passage_length),
            ("batch_tokens", self.batch_tokens),
        ];
        match positive.into_iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => Err(Error::config(format!("`encoder.{name}`: expected 1 or more, got 0"))),
            None => Ok(()),
        }
    }
}

/// What an encoder reads: prefixed, tokenised, cut to length.
pub struct EncoderInput {
    tokenizer: Tokenizer,
    /// That of passages, where an encoder of their own has one.
    passage_tokenizer: Option<Tokenizer>,
    prompts: Prompts,
    query_length: usize,
    passage_length: usize,
}

impl EncoderInput {
    /// Reads tokenizer and prompts of a model's folder.
    pub fn open(folder: &Path, config: &EncoderConfig) -> Result<Self> {
        config.validate()?;
        let Encoders { queries, passages } = untied::encoders(folder)?;
        let mut prompts = Prompts::open(&queries)?;
        if let Some(passages) = &passages {
            prompts.passage = Prompts::open(passages)?.passage;
        }
        if let Some(prefix) = &config.query_prefix {
            prompts.query.clone_from(prefix);
        }
        if let Some(prefix) = &config.passage_prefix {
            prompts.passage.clone_from(prefix);
        }
        let (query_length, passage_length) = (config.query_length, config.passage_length);
        let passage_tokenizer = passages.map(|passages| Tokenizer::open(&passages)).transpose()?;
        Ok(Self { tokenizer: Tokenizer::open(&queries)?, passage_tokenizer, prompts, query_length, passage_length })
    }

    /// The tokens of queries, in order.
    pub fn queries(&self, texts: &[&str]) -> Result<TokenBatch> {
        let texts: Vec<String> = texts.iter().map(|text| format!("{}{text}", self.prompts.query)).collect();
        self.tokenizer.encode(&texts, self.query_length)
    }

    /// The tokens of passages, in order: title, blank, text.
    pub fn passages(&self, passages: &[Passage<'_>]) -> Result<TokenBatch> {
        let text = |passage: &Passage<'_>| format!("{}{}", self.prompts.passage, passage.joined(" "));
        let texts: Vec<String> = passages.iter().map(text).collect();
        self.passage_tokenizer.as_ref().unwrap_or(&self.tokenizer).encode(&texts, self.passage_length)
    }
}

/// What encoding takes with the model in `folder`.
///
/// # Errors
/// It does not fit into the memory.
pub fn footprint(engine: &dyn Engine, folder: &Path, config: &EncoderConfig) -> Result<Footprint> {
    let options = config.options();
    let Encoders { queries, passages } = untied::encoders(folder)?;
    let Some(passages) = passages else {
        return engine.encoding_footprint(&queries, &options, config.query_length.max(config.passage_length));
    };
    let first = engine.encoding_footprint(&queries, &options, config.query_length)?;
    let options = LoadOptions { beside: first.total(), ..options };
    Ok(first.beside(engine.encoding_footprint(&passages, &options, config.passage_length)?))
}

/// An encoder that takes texts.
pub struct TextEncoder {
    input: EncoderInput,
    encoder: Box<dyn Encoder>,
    /// That of passages, where they have one of their own.
    passage_encoder: Option<Box<dyn Encoder>>,
    batch_tokens: usize,
}

impl TextEncoder {
    /// Opens the model in `folder`.
    pub fn open(engine: &dyn Engine, folder: &Path, config: &EncoderConfig) -> Result<Self> {
        let input = EncoderInput::open(folder, config)?;
        // Refuses what there is no memory for, before the weights are read.
        footprint(engine, folder, config)?;
        let options = config.options();
        let Encoders { queries, passages } = untied::encoders(folder)?;
        let encoder = engine.encoder(&queries, &options)?;
        let passage_encoder = passages.map(|passages| engine.encoder(&passages, &options)).transpose()?;
        if let Some(other) = &passage_encoder {
            untied::check_dimensions(folder, [encoder.dimension(), other.dimension()])?;
        }
        Ok(Self { input, encoder, passage_encoder, batch_tokens: config.batch_tokens })
    }

    /// Number of tokens that the encoder reads of each of these passages.
    pub fn count_tokens(&self, passages: &[Passage<'_>]) -> Result<Vec<usize>> {
        Ok(self.input.passages(passages)?.lengths())
    }

    /// Length of the vectors.
    pub fn dimension(&self) -> usize {
        self.encoder.dimension()
    }

    /// One vector a query, in order.
    pub fn queries(&self, texts: &[&str]) -> Result<Embeddings> {
        encode_batches(&*self.encoder, &self.input.queries(texts)?, self.batch_tokens)
    }

    /// One vector a passage, in order.
    pub fn passages(&self, passages: &[Passage<'_>]) -> Result<Embeddings> {
        let encoder = self.passage_encoder.as_ref().unwrap_or(&self.encoder);
        encode_batches(&**encoder, &self.input.passages(passages)?, self.batch_tokens)
    }
}

/// One vector a sequence, in order, encoded in batches of about `batch_tokens` tokens of sequences of like length.
///
/// # Errors
/// The encoder fails, or gives a value that is not finite.
pub fn encode_batches(encoder: &dyn Encoder, tokens: &TokenBatch, batch_tokens: usize) -> Result<Embeddings> {
    let mut order: Vec<usize> = (0..tokens.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(tokens.range(*index).len()));
    let mut vectors = Embeddings::zeros(tokens.len(), encoder.dimension());
    let mut rest = order.as_slice();
    while !rest.is_empty() {
        let (batch, others) = rest.split_at(fitting(tokens, rest, batch_tokens));
        let encoded = encoder.encode(&batch.iter().map(|index| tokens.sequence(*index)).collect())?;
        if (encoded.rows(), encoded.dimension()) != (batch.len(), vectors.dimension()) {
            let got = format!("{} × {}", encoded.rows(), encoded.dimension());
            return Err(Error::shape("encoder output", format!("{} × {}", batch.len(), vectors.dimension()), got));
        }
        for (row, index) in batch.iter().enumerate() {
            vectors.row_mut(*index).copy_from_slice(encoded.row(row));
        }
        rest = others;
    }
    Matrix::from(&vectors).check_finite("encoded")?;
    Ok(vectors)
}

/// How many sequences from the front of `order` fit into a batch; at least one.
fn fitting(tokens: &TokenBatch, order: &[usize], batch_tokens: usize) -> usize {
    let mut sum = 0;
    let fits = |index: &&usize| {
        sum += tokens.range(**index).len();
        sum <= batch_tokens
    };
    order.iter().take_while(fits).count().max(1)
}

/// What the stage encodes, and with what.
#[derive(Clone, Copy)]
pub struct EncodeInputs<'a> {
    /// The texts.
    pub dataset: &'a Dataset,
    /// The splits whose queries are encoded.
    pub splits: &'a [Split],
    /// Opens the model.
    pub engine: &'a dyn Engine,
    /// The model's folder.
    pub model: &'a Path,
    /// The digest of the model.
    pub model_key: &'a str,
}

#[derive(Serialize)]
struct StageConfig<'a> {
    encoder: &'a EncoderConfig,
    splits: &'a [Split],
}

/// Encodes all passages, and the queries of the asked splits where a language has them: the stage `encode`.
pub fn encode(
    inputs: EncodeInputs<'_>,
    config: &EncoderConfig,
    out: &Path,
    progress: &Progress<'_>,
) -> Result<Artefact> {
    config.validate()?;
    let mut splits = inputs.splits.to_vec();
    splits.sort_unstable();
    splits.dedup();
    let recipe = Recipe::new(STAGE, FORMAT, &StageConfig { encoder: config, splits: &splits })?
        .input_key("dataset", &inputs.dataset.key)
        .input_key("model", inputs.model_key);
    let mut draft = match artefact::draft(out, recipe)? {
        Outcome::UpToDate(artefact) => return Ok(artefact),
        Outcome::Write(draft) => draft,
    };
    let mut summary = Summary::default();
    if let Some(device) = inputs.engine.device(&untied::encoders(inputs.model)?.queries, &config.options())? {
        progress.say(&format!("encoding on {device}"));
        summary.note(format!("encoded on {device}"));
    }
    let encoder = TextEncoder::open(inputs.engine, inputs.model, config)?;
    summary.value(DIMENSION, encoder.dimension() as f64);
    for partition in &inputs.dataset.partitions {
        write_passages(&mut draft, partition, &encoder, progress)?;
        summary.count("passages", partition.corpus.len());
        for split in splits.iter().filter(|split| partition.has(**split)) {
            write_queries(&mut draft, partition, *split, &encoder)?;
            summary.count(format!("queries {}", split.name()), partition.split(*split)?.queries.len());
        }
    }
    draft.commit(summary)
}

fn write_passages(
    draft: &mut Draft,
    partition: &Partition,
    encoder: &TextEncoder,
    progress: &Progress<'_>,
) -> Result<()> {
    let file = VectorsOf::Passages.file(&partition.language);
    let (path, corpus) = (draft.path(&file), &partition.corpus);
    progress.begin(&format!("encode {}", partition.language), corpus.len(), "passages");
    draft.write(&file, |output| {
        let indices: Vec<PassageIndex> = corpus.indices().collect();
        for window in indices.chunks(WINDOW) {
            let passages: Vec<Passage<'_>> = window.iter().map(|index| corpus.passage(*index)).collect();
            let vectors = encoder.passages(&passages)?;
            output.write_all(bytemuck::cast_slice(vectors.values())).map_err(Error::io(&path))?;
            progress.advance(window.len());
        }
        Ok(corpus.len() as u64)
    })
}

fn write_queries(draft: &mut Draft, partition: &Partition, split: Split, encoder: &TextEncoder) -> Result<()> {
    let file = VectorsOf::Queries(split).file(&partition.language);
    let path = draft.path(&file);
    let queries = &partition.split(split)?.queries;
    draft.write(&file, |output| {
        let texts: Vec<&str> = queries.iter().map(|(_, query)| query.text.as_str()).collect();
        for window in texts.chunks(WINDOW) {
            let vectors = encoder.queries(window)?;
            output.write_all(bytemuck::cast_slice(vectors.values())).map_err(Error::io(&path))?;
        }
        Ok(texts.len() as u64)
    })
}

/// Which vectors of a language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VectorsOf {
    /// Those of all passages.
    Passages,
    /// Those of a split's queries.
    Queries(Split),
}

impl VectorsOf {
    /// The file inside the artefact.
    pub fn file(self, language: &Language) -> String {
        match self {
            Self::Passages => format!("{language}/passages.f32"),
            Self::Queries(split) => format!("{language}/queries.{}.f32", split.name()),
        }
    }
}

/// Vectors of an artefact of `encode`, mapped.
#[derive(Debug)]
pub struct Vectors {
    file: MappedFile,
    dimension: usize,
}

impl Vectors {
    /// Maps the vectors of a language.
    ///
    /// # Errors
    /// The artefact is of another stage or does not have them, the file has another size than its manifest says. That the
    /// values are finite was checked when they were written.
    pub fn open(artefact: &Artefact, language: &Language, of: VectorsOf) -> Result<Self> {
        let name = of.file(language);
        let missing = || Error::file(artefact.path(&name), "the artefact has no such vectors; encode this split too");
        let manifest = artefact.manifest();
        let record = manifest.files.iter().find(|record| record.path == name).ok_or_else(missing)?;
        let dimension = manifest.summary.values.get(DIMENSION).copied().unwrap_or_default() as usize;
        let file = MappedFile::open(&artefact.path(&name))?;
        let vectors = Self { file, dimension };
        let expected = record.rows as usize * dimension * size_of::<f32>();
        if dimension == 0 || vectors.file.bytes().len() != expected {
            let got = vectors.file.bytes().len();
            return Err(Error::shape(vectors.file.path().display().to_string(), format!("{expected} bytes"), got));
        }
        vectors.file.values::<f32>(0, record.rows as usize * dimension)?;
        Ok(vectors)
    }

    /// The vectors, n × d.
    pub fn matrix(&self) -> Matrix<'_> {
        let count = self.file.bytes().len() / size_of::<f32>();
        let values = self.file.values(0, count).expect("checked when opened");
        Matrix { dimension: self.dimension, values }
    }
}

/// A borrowed n × d matrix of vectors, row-major.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    dimension: usize,
    values: &'a [f32],
}

impl<'a> Matrix<'a> {
    /// Wraps `values`, whose length must be a multiple of `dimension`.
    pub fn new(dimension: usize, values: &'a [f32]) -> Result<Self> {
        if dimension == 0 || !values.len().is_multiple_of(dimension) {
            return Err(Error::shape("matrix", format!("rows of {dimension}"), format!("{} values", values.len())));
        }
        Ok(Self { dimension, values })
    }

    /// Length of a vector, d.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Number of vectors, n.
    pub fn rows(&self) -> usize {
        self.values.len() / self.dimension
    }

    /// Vector `index`.
    pub fn row(&self, index: usize) -> &'a [f32] {
        &self.values[index * self.dimension..(index + 1) * self.dimension]
    }

    /// All values, row after row.
    pub fn values(&self) -> &'a [f32] {
        self.values
    }

    /// The vectors `range`.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        Self {
            dimension: self.dimension,
            values: &self.values[range.start * self.dimension..range.end * self.dimension],
        }
    }

    /// Refuses NaN and infinities; `what` names the vectors in the message, which counts them from 0.
    pub fn check_finite(&self, what: &str) -> Result<()> {
        let rows = (1_usize << 16).div_ceil(self.dimension);
        (0..self.rows().div_ceil(rows)).into_par_iter().try_for_each(|part| {
            let start = part * rows;
            self.slice(start..(start + rows).min(self.rows())).check_finite_from(what, start)
        })
    }

    /// As [`check_finite`](Self::check_finite), on one thread, with `first` as the number of the first vector.
    pub fn check_finite_from(&self, what: &str, first: usize) -> Result<()> {
        // One comparison that is false for NaN too, and counting instead of ending early, so that many values are compared at
        // a time.
        let finite = |values: &[f32]| {
            values.iter().map(|value| u64::from(value.abs() < f32::INFINITY)).sum::<u64>() == values.len() as u64
        };
        if finite(self.values) {
            return Ok(());
        }
        let row = (0..self.rows()).find(|row| !finite(self.row(*row))).unwrap_or_default();
        let message = format!("{what} vector {} has a value that is not finite; encode again", first + row);
        Err(Error::data(message))
    }
}

impl<'a> From<&'a Embeddings> for Matrix<'a> {
    fn from(embeddings: &'a Embeddings) -> Self {
        Self { dimension: embeddings.dimension(), values: embeddings.values() }
    }
}

/// A small data set and an encoder that needs no weights, for the tests of this and later rooms.
#[cfg(test)]
pub(crate) mod fixture {
    use super::*;
    use crate::artefact::draft;
    use crate::corpus::CorpusWriter;
    use crate::engine::{Footprint, Trainable, TrainableLm};
    use crate::text::tokenize::tiny::write_tiny_tokenizer;

    /// Id, title and text; `p2` and `p5` are twins.
    pub(crate) const PASSAGES: [(&str, &str, &str); 8] = [
        ("p1", "Lions", "lions live in the savanna and hunt zebras"),
        ("p2", "Zebras", "zebras are striped animals of the savanna"),
        ("p3", "Rivers", "the longest river of africa is the nile"),
        ("p4", "Nile", "the nile flows through egypt to the sea"),
        ("p5", "Copy", "Zebras are  STRIPED animals of the savanna"),
        ("p6", "", "bread is baked from flour and water"),
        ("p7", "Hunting", "lions hunt at night in the savanna"),
        ("p8", "", "zebras hunt nothing in the savanna"),
    ];
    const QUERIES: &str = "q1\twho hunts zebras in the savanna\nq2\tlongest river of africa\n";
    const QRELS: &str = "q1 Q0 p2 1\nq1 Q0 p7 0\nq2 Q0 p3 1\nq2 Q0 p4 1\n";

    /// One language, `en`, with the same queries in both splits.
    pub(crate) fn dataset(folder: &Path) -> Dataset {
        let recipe = Recipe::new(Dataset::STAGE, 1, &()).unwrap();
        let Outcome::Write(mut draft) = draft(&folder.join("dataset"), recipe).unwrap() else { panic!("is new") };
        let path = draft.path("en/passages.bin");
        draft
            .write("en/passages.bin", |output| {
                let mut writer = CorpusWriter::new(output, &path)?;
                PASSAGES.iter().try_for_each(|(id, title, text)| writer.push(Passage { id, title, text }))?;
                writer.finish()
            })
            .unwrap();
        for split in Split::ALL {
            for (name, content) in [("queries", QUERIES), ("qrels", QRELS)] {
                let file = format!("en/{name}.{}.tsv", split.name());
                let write = |output: &mut std::io::BufWriter<std::fs::File>| {
                    output.write_all(content.as_bytes()).map_err(Error::io(&file))?;
                    Ok(1)
                };
                draft.write(&file, write).unwrap();
            }
        }
        Dataset::open(&draft.commit(Summary::default()).unwrap()).unwrap()
    }

    pub(crate) fn english() -> Language {
        Language::new("en").unwrap()
    }

    /// Writes a tokenizer and encodes the data set; `scale` sets the length of the vectors, `seed` their direction.
    pub(crate) fn embeddings(folder: &Path, dataset: &Dataset, engine: &WordVectors) -> Artefact {
        let name = format!("{}-{}", engine.seed, engine.dimension);
        let model = folder.join(format!("model-{name}"));
        std::fs::create_dir_all(&model).unwrap();
        write_tiny_tokenizer(&model, &PASSAGES.map(|passage| passage.2)).unwrap();
        let inputs = EncodeInputs { dataset, splits: &Split::ALL, engine, model: &model, model_key: &name };
        encode(inputs, &EncoderConfig::default(), &folder.join(name.clone()), &Progress::silent()).unwrap()
    }

    /// Sums a fixed random vector for each token.
    #[derive(Clone, Copy)]
    pub(crate) struct WordVectors {
        pub(crate) seed: u64,
        pub(crate) dimension: usize,
    }

    impl Encoder for WordVectors {
        fn dimension(&self) -> usize {
            self.dimension
        }

        fn encode(&self, batch: &TokenBatch) -> Result<Embeddings> {
            use rand::RngExt;
            let mut vectors = Embeddings::zeros(batch.len(), self.dimension);
            for row in 0..batch.len() {
                for token in batch.sequence(row) {
                    let mut random = crate::random::keyed(self.seed, "token", &token.to_string());
                    vectors.row_mut(row).iter_mut().for_each(|value| *value += random.random::<f32>() - 0.5);
                }
            }
            Ok(vectors)
        }
    }

    impl Engine for WordVectors {
        fn encoder(&self, _: &Path, _: &LoadOptions) -> Result<Box<dyn Encoder>> {
            Ok(Box::new(*self))
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
}

#[cfg(test)]
mod tests {
    use super::fixture::{PASSAGES, WordVectors, dataset, embeddings, english};
    use super::*;
    use crate::config::{from_table, parse_table};

    const ENGINE: WordVectors = WordVectors { seed: 1, dimension: 8 };

    #[test]
    fn vectors_come_back_in_the_order_of_the_data_set() {
        let folder = tempfile::tempdir().unwrap();
        let dataset = dataset(folder.path());
        let artefact = embeddings(folder.path(), &dataset, &ENGINE);
        let vectors = Vectors::open(&artefact, &english(), VectorsOf::Passages).unwrap();
        let encoder = TextEncoder::open(&ENGINE, &folder.path().join("model-1-8"), &EncoderConfig::default()).unwrap();
        assert_eq!(vectors.matrix().rows(), PASSAGES.len());
        for (row, (id, title, text)) in PASSAGES.iter().enumerate() {
            let alone = encoder.passages(&[Passage { id, title, text }]).unwrap();
            assert_eq!(vectors.matrix().row(row), alone.row(0));
        }
        let queries = Vectors::open(&artefact, &english(), VectorsOf::Queries(Split::Dev)).unwrap();
        assert_eq!(queries.matrix().row(1), encoder.queries(&["longest river of africa"]).unwrap().row(0));
        assert_eq!(artefact.summary().counts["queries dev"], 2);
    }

    #[test]
    fn batches_change_nothing_and_prefixes_do() {
        let folder = tempfile::tempdir().unwrap();
        embeddings(folder.path(), &dataset(folder.path()), &ENGINE);
        let texts = ["lions", "the longest river of africa is the nile", "", "zebras hunt"];
        let encode = |config: EncoderConfig| {
            TextEncoder::open(&ENGINE, &folder.path().join("model-1-8"), &config).unwrap().queries(&texts).unwrap()
        };
        let expected = encode(EncoderConfig::default());
        assert_eq!(encode(EncoderConfig { batch_tokens: 1, ..EncoderConfig::default() }), expected);
        let prefixed = encode(EncoderConfig { query_prefix: Some("lions ".into()), ..EncoderConfig::default() });
        assert_ne!(prefixed, expected);
    }

    #[test]
    fn missing_and_broken_vectors_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let artefact = embeddings(folder.path(), &dataset(folder.path()), &ENGINE);
        let swahili = Language::new("sw").unwrap();
        let error = Vectors::open(&artefact, &swahili, VectorsOf::Passages).unwrap_err().to_string();
        assert!(error.contains("no such vectors"), "{error}");
        let path = artefact.path("en/passages.f32");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..40]).unwrap();
        let error = Vectors::open(&artefact, &english(), VectorsOf::Passages).unwrap_err().to_string();
        assert!(error.contains("expected 256 bytes, got 40"), "{error}");
    }

    #[test]
    fn an_encoder_that_gives_nan_is_refused() {
        struct Broken;
        impl Encoder for Broken {
            fn dimension(&self) -> usize {
                2
            }
            fn encode(&self, batch: &TokenBatch) -> Result<Embeddings> {
                Embeddings::new(2, vec![f32::NAN; 2 * batch.len()])
            }
        }
        let tokens: TokenBatch = [vec![1, 2]].into_iter().collect();
        assert!(encode_batches(&Broken, &tokens, 10).unwrap_err().to_string().contains("not finite"));
    }

    #[test]
    fn the_precision_reads_as_it_is_written_in_a_recipe_and_others_are_refused() {
        let read = |text: &str| from_table::<EncoderConfig>("encoder", parse_table("recipe", text).unwrap());
        assert_eq!(read("precision = 'bf16'").unwrap().precision, Precision::Bf16);
        assert_eq!(read("query_length = 8").unwrap().precision, Precision::F32);
        let message = read("precision = 'fp8'").unwrap_err().to_string();
        assert!(message.contains("precision") && message.contains("bf16"), "{message}");
    }

    #[test]
    fn lengths_of_zero_are_refused() {
        let config = EncoderConfig { query_length: 0, ..EncoderConfig::default() };
        assert!(config.validate().unwrap_err().to_string().contains("`encoder.query_length`"));
    }
}
