//! What a recipe will take, before anything is spent: passages, tokens, calls, money, time, disk, memory.
//!
//! The data set is read (and checked) and the model fetched; a sample of passages is tokenized and encoded to measure
//! lengths and speed on this machine. Everything else is arithmetic on these numbers.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Instant;

use super::place::Workshop;
use super::settings::{Retriever, Settings, Variant};
use super::walk;
use crate::artefact::Artefact;
use crate::corpus::Passage;
use crate::dataset::{Dataset, Split};
use crate::encode::TextEncoder;
use crate::engine::{Footprint, LoadOptions};
use crate::error::Result;
use crate::memory::readable;
use crate::{encode, generate, judge, train};

/// Passages that are encoded to measure lengths and speed.
const SAMPLE: usize = 96;
/// Forward and backward pass in forward passes.
const TRAINING_COST: f64 = 3.0;
/// Characters a token of a judge's prompt, over languages.
const CHARACTERS_PER_TOKEN: f64 = 3.0;
/// Tokens of a judge's instructions and of its answer.
const PROMPT_TOKENS: f64 = 500.0;
const ANSWER_TOKENS: f64 = 16.0;

/// What one variant will take, if nothing of it is there yet.
#[derive(Debug, Clone, PartialEq)]
pub struct VariantPlan {
    /// The variant's name and seed.
    pub name: String,
    /// Passages of all languages.
    pub passages: usize,
    /// Train queries of all languages.
    pub queries: usize,
    /// Tokens to encode, for the tuned model before and after training and each dense retriever.
    pub tokens: f64,
    /// Tokens a second that this machine encodes, measured.
    pub rate: f64,
    /// What judging asks.
    pub judge: Asking,
    /// What generation asks at most: as if every query fell short, and everything found were new.
    pub generate: Asking,
    /// Optimiser steps.
    pub steps: usize,
    /// Tokens of one step, at most.
    pub step_tokens: f64,
    /// Bytes of vectors, runs and weights.
    pub disk: u64,
    /// Memory of encoding.
    pub encoding_memory: Footprint,
    /// Memory of training with steps of passages as long as those measured.
    pub training_memory: Footprint,
}

/// Requests to a language model.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Asking {
    /// Requests, votes included.
    pub calls: usize,
    /// Tokens of these requests and their answers, roughly.
    pub tokens: f64,
    /// What they cost at the recipe's prices.
    pub cost: f64,
}

impl Asking {
    fn and(self, other: Self) -> Self {
        Self { calls: self.calls + other.calls, tokens: self.tokens + other.tokens, cost: self.cost + other.cost }
    }
}

/// The plans of all variants.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan(Vec<VariantPlan>);

/// Plans every variant as if it were alone; arms share what they have in common, so the whole takes less than the sum.
pub fn plan(workshop: &Workshop<'_>, variants: &[Variant]) -> Result<Plan> {
    variants.iter().map(|variant| plan_variant(workshop, variant)).collect::<Result<_>>().map(Plan)
}

fn plan_variant(workshop: &Workshop<'_>, variant: &Variant) -> Result<VariantPlan> {
    let settings = &variant.settings;
    let (dataset, model) = walk::data_and_model(workshop, variant)?;
    let measured = measure(workshop, settings, &dataset, &model)?;
    let passages = dataset.partitions.iter().map(|partition| partition.corpus.len()).sum();
    let queries = count_queries(&dataset, Split::Train)?;
    let encoders = 2 + dense_models(settings);
    let all_queries = queries + count_queries(&dataset, Split::Dev)?;
    let batch = &settings.batch;
    let texts_a_step = batch.queries as f64 * (1.0 + batch.negatives as f64);
    let train_queries = (queries as f64 * (1.0 - settings.sample.validation_share)).ceil();
    let weights = model.manifest().files.iter().filter(|file| file.path.ends_with(".safetensors"));
    let weights: u64 = weights.map(|file| file.bytes).sum();
    let options = LoadOptions {
        layers: settings.encoder.layers,
        precision: settings.encoder.precision,
        lora: settings.train.lora.clone(),
        memory: settings.train.memory,
        ..LoadOptions::default()
    };
    let [of_queries, of_passages] = measured.step_lengths(settings);
    let (engine, folder) = (&**workshop.engine(), model.folder());
    let vectors = (passages + all_queries) * measured.dimension * 4 * encoders;
    Ok(VariantPlan {
        name: format!("{}, seed {}", variant.name, variant.seed),
        passages,
        queries,
        tokens: passages as f64 * measured.tokens() * encoders as f64,
        rate: measured.rate,
        judge: judging(settings, &dataset, queries, measured.characters),
        generate: generating(settings, queries, measured.characters),
        steps: (train_queries / batch.queries as f64).ceil() as usize * batch.epochs as usize,
        step_tokens: texts_a_step * measured.tokens(),
        disk: vectors as u64 + 5 * weights,
        encoding_memory: encode::footprint(engine, folder, &settings.encoder)?,
        training_memory: train::footprint(engine, folder, &options, [&of_queries, &of_passages])?,
    })
}

fn count_queries(dataset: &Dataset, split: Split) -> Result<usize> {
    let with = dataset.partitions.iter().filter(|partition| partition.has(split));
    with.map(|partition| Ok(partition.split(split)?.queries.len())).sum()
}

/// Distinct dense members other than the model to be tuned.
fn dense_models(settings: &Settings) -> usize {
    let own = format!("{:?}{:?}", settings.model, settings.encoder);
    let dense = settings.retriever.iter().filter_map(|retriever| match retriever {
        Retriever::Dense { model, encoder, .. } => Some(format!("{model:?}{encoder:?}")),
        Retriever::Lexical { .. } => None,
    });
    dense.filter(|member| *member != own).collect::<BTreeSet<_>>().len()
}

/// Candidates, canaries, calibration and swaps, each with every vote, and what a cheap judge sees of them: the large one is
/// counted as if it saw everything.
fn judging(settings: &Settings, dataset: &Dataset, queries: usize, characters: f64) -> Asking {
    let judge = &settings.judge;
    if judge.method == judge::Method::None {
        return Asking::default();
    }
    let depth = (judge.depth as usize).min(settings.mine.depth);
    let pairs = (queries * depth).min(judge.max_pairs.unwrap_or(usize::MAX));
    let probes = dataset.partitions.len() * 2 * (judge.canaries + judge.calibration);
    let swaps = 2 * dataset.partitions.len() * judge.swaps;
    let large = asking(settings, &judge.model, (pairs + probes + swaps) * judge.votes as usize, 2.0 * characters);
    match &judge.cascade {
        Some(cascade) => large.and(asking(settings, &cascade.model, pairs + probes, 2.0 * characters)),
        None => large,
    }
}

/// A query, perhaps with a summary before it, and verdicts on what it finds.
fn generating(settings: &Settings, queries: usize, characters: f64) -> Asking {
    let generate = &settings.generate;
    let written = match generate.method {
        _ if settings.judge.method == judge::Method::None => 0,
        generate::Method::None => 0,
        generate::Method::Direct => queries,
        generate::Method::BackForward => 2 * queries,
    };
    let judged = if written == 0 { 0 } else { queries * generate.depth * settings.judge.votes as usize };
    let writing = asking(settings, &generate.model, written, 2.0 * characters);
    writing.and(asking(settings, &settings.judge.model, judged, 2.0 * characters))
}

/// So many requests to a model with so many characters of passages each.
fn asking(settings: &Settings, model: &str, calls: usize, characters: f64) -> Asking {
    let prompt_tokens = calls as f64 * (PROMPT_TOKENS + characters / CHARACTERS_PER_TOKEN);
    let answer_tokens = calls as f64 * ANSWER_TOKENS;
    let cost = settings.llm.cost(model, prompt_tokens as u64, answer_tokens as u64);
    Asking { calls, tokens: prompt_tokens + answer_tokens, cost }
}

struct Measured {
    /// Tokens of each passage of the sample.
    lengths: Vec<usize>,
    characters: f64,
    rate: f64,
    dimension: usize,
}

impl Measured {
    /// Mean tokens of a passage.
    fn tokens(&self) -> f64 {
        self.lengths.iter().sum::<usize>() as f64 / self.lengths.len().max(1) as f64
    }

    /// Lengths of the sequences of one step: queries as long as may be, then passages like those of the sample.
    fn step_lengths(&self, settings: &Settings) -> [Vec<usize>; 2] {
        let (queries, negatives) = (settings.batch.queries, settings.batch.negatives);
        let passages = self.lengths.iter().copied().cycle().take(queries * (1 + negatives));
        [vec![settings.encoder.query_length; queries], passages.collect()]
    }
}

/// Encodes a sample of passages of all languages.
fn measure(workshop: &Workshop<'_>, settings: &Settings, dataset: &Dataset, model: &Artefact) -> Result<Measured> {
    let encoder = TextEncoder::open(&**workshop.engine(), model.folder(), &settings.encoder)?;
    let share = SAMPLE.div_ceil(dataset.partitions.len());
    let mut passages: Vec<Passage<'_>> = Vec::new();
    for partition in &dataset.partitions {
        let step = partition.corpus.len().div_ceil(share).max(1);
        passages.extend(partition.corpus.iter().step_by(step));
    }
    let lengths = encoder.count_tokens(&passages)?;
    let tokens: usize = lengths.iter().sum();
    let characters: usize =
        passages.iter().map(|passage| passage.title.chars().count() + passage.text.chars().count()).sum();
    let started = Instant::now();
    encoder.passages(&passages)?;
    let count = passages.len().max(1) as f64;
    Ok(Measured {
        lengths,
        characters: characters as f64 / count,
        rate: tokens as f64 / started.elapsed().as_secs_f64().max(1e-6),
        dimension: encoder.dimension(),
    })
}

impl VariantPlan {
    /// Seconds of encoding.
    pub fn encoding(&self) -> f64 {
        self.tokens / self.rate
    }

    /// Seconds of training.
    pub fn training(&self) -> f64 {
        self.steps as f64 * self.step_tokens * TRAINING_COST / self.rate
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|plan| write!(formatter, "{plan}"))
    }
}

impl fmt::Display for VariantPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.name)?;
        writeln!(f, "  data      {} passages, {} train queries", self.passages, self.queries)?;
        writeln!(
            f,
            "  encode    {:.2} M tokens at {:.0} tokens/s: {}",
            self.tokens / 1e6,
            self.rate,
            span(self.encoding())
        )?;
        writeln!(f, "  judge     {}", self.judge)?;
        let most = if self.generate.calls > 0 { "at most " } else { "" };
        writeln!(f, "  generate  {most}{}", self.generate)?;
        writeln!(
            f,
            "  train     {} steps of up to {:.0} tokens: {}",
            self.steps,
            self.step_tokens,
            span(self.training())
        )?;
        writeln!(f, "  disk      {}", readable(self.disk))?;
        writeln!(f, "  memory    encoding {}", self.encoding_memory)?;
        writeln!(f, "            training {}", self.training_memory)
    }
}

impl fmt::Display for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { calls, tokens, cost } = self;
        if *calls == 0 {
            return write!(f, "asks nothing");
        }
        let tokens = tokens / 1e6;
        write!(
            f,
            "{calls} calls less what the ledger has, about {tokens:.2} M tokens, cost {cost:.2} at the recipe's prices"
        )
    }
}

/// Seconds as a person reads them.
fn span(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}
