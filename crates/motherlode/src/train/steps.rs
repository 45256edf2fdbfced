//! The plan as the loop reads it: a step's queries and columns as token sequences, what each column is, and what it weighs.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;

use super::TrainInputs;
use super::loss::LossRow;
use super::teacher::Teacher;
use super::texts::Texts;
use crate::artefact::Artefact;
use crate::batch::weights::{WeightConfig, Weights, weights};
use crate::batch::{self, Exposure, Step};
use crate::corpus::Language;
use crate::dataset::{Dataset, Split};
use crate::encode::EncoderConfig;
use crate::engine::TokenBatch;
use crate::error::{Error, Result};
use crate::lines;
use crate::topic::Topics;

/// The planned steps, read one at a time.
pub(super) struct Steps {
    path: PathBuf,
    /// Where each step's line begins.
    offsets: Vec<u64>,
    /// The first step of every epoch.
    epochs: Vec<u64>,
    /// The most queries of a step, and the most passages.
    most: (usize, usize),
}

impl Steps {
    /// Finds the lines of `batches.jsonl` and hands every step to `visit`, which may refuse it.
    ///
    /// # Errors
    /// A line that is no step, steps that are not numbered from 0 upwards, an empty plan or step.
    pub(super) fn open(batches: &Artefact, mut visit: impl FnMut(&Step) -> Result<()>) -> Result<Self> {
        let path = batches.path(batch::FILE);
        let (mut offsets, mut epochs, mut position, mut most) = (Vec::new(), Vec::new(), 0, (0, 0));
        lines::for_each(&path, |number, line| {
            let step = parse(line).and_then(|step| {
                if step.step == offsets.len() as u64 && !step.rows.is_empty() {
                    return visit(&step).map(|()| step);
                }
                Err(Error::data(format!("expected step {} with at least one row; plan the batches again", number - 1)))
            });
            let step = step.map_err(|error| Error::line(&path, number, error.to_string()))?;
            epochs.resize((step.epoch as usize + 1).max(epochs.len()), step.step);
            most = (most.0.max(step.rows.len()), most.1.max(step.columns().len()));
            offsets.push(position);
            position += line.len() as u64 + 1;
            Ok(())
        })?;
        if offsets.is_empty() {
            return Err(Error::file(&path, "the plan has no step; sample more queries or plan more epochs"));
        }
        Ok(Self { path, offsets, epochs, most })
    }

    /// Number of steps.
    pub(super) fn len(&self) -> u64 {
        self.offsets.len() as u64
    }

    /// Number of epochs.
    pub(super) fn epochs(&self) -> usize {
        self.epochs.len()
    }

    /// Lengths of queries and of passages in tokens, such that no step has longer sequences or more of them.
    pub(super) fn longest_lengths(&self, encoder: &EncoderConfig) -> [Vec<usize>; 2] {
        let (queries, passages) = self.most;
        [vec![encoder.query_length; queries], vec![encoder.passage_length; passages]]
    }

    /// What stopped the training at a step, with what the step was made of.
    pub(super) fn refuse(&self, step: &Step, language: &str, error: &Error) -> Error {
        let queries: Vec<&str> = step.rows.iter().map(|row| row.query.as_str()).collect();
        let message = format!("step {} ({language}; queries {}): {error}", step.step, queries.join(", "));
        Error::line(&self.path, step.step + 1, message)
    }

    /// Whether `every` epochs, or a multiple, are over when `step` begins.
    pub(super) fn ends_epochs(&self, step: u64, every: u32) -> bool {
        let ended = self.epochs.iter().position(|start| *start == step);
        ended.is_some_and(|ended| ended > 0 && ended.is_multiple_of(every as usize))
    }

    /// Step `index`.
    pub(super) fn step(&self, index: u64) -> Result<Step> {
        let mut file = BufReader::new(File::open(&self.path).map_err(Error::io(&self.path))?);
        file.seek(SeekFrom::Start(self.offsets[index as usize])).map_err(Error::io(&self.path))?;
        let mut line = String::new();
        file.read_line(&mut line).map_err(Error::io(&self.path))?;
        parse(&line).map_err(|error| Error::line(&self.path, index + 1, error.to_string()))
    }
}

fn parse(line: &str) -> Result<Step> {
    serde_json::from_str(line).map_err(|error| Error::data(format!("not a step ({error}); plan the batches again")))
}

/// Opens and checks the plan, and weighs the languages and topics of its passages.
pub(super) fn open(inputs: &TrainInputs<'_>, config: &WeightConfig) -> Result<(Steps, PlannedWeights)> {
    let topics = Topics::open(inputs.topics)?;
    let weights = weights(&Exposure::open(inputs.batches)?, config)?;
    let (mut sum, mut rows) = (0.0, 0);
    let steps = Steps::open(inputs.batches, |step| {
        check(step, inputs.dataset)?;
        for (language, passage) in step.columns() {
            topics.of(inputs.dataset, language, passage)?;
        }
        for row in &step.rows {
            let topic = topics.of(inputs.dataset, &row.language, &row.positive)?;
            sum += f64::from(weights.of(&row.language, topic));
            rows += 1;
        }
        Ok(())
    })?;
    Ok((steps, PlannedWeights { topics, weights, query_mean: (sum / f64::from(rows)) as f32 }))
}

/// Refuses a step that names what the data set has not.
fn check(step: &Step, dataset: &Dataset) -> Result<()> {
    for row in &step.rows {
        let queries = &dataset.partition(&row.language)?.split(Split::Train)?.queries;
        if queries.find(&row.query).is_none() {
            let message = format!("no train query of `{}` has the id `{}`", row.language, row.query);
            return Err(Error::data(format!("{message}; data set and batches must match")));
        }
    }
    Ok(())
}

/// The weights of the plan.
pub(super) struct PlannedWeights {
    topics: Topics,
    /// ω by the language and topic of a passage.
    pub(super) weights: Weights,
    /// Mean ω of the planned rows, by their positive's topic.
    query_mean: f32,
}

/// A step made ready for the encoder and the loss.
pub(super) struct Prepared {
    /// The rows' queries, then the columns' passages.
    pub(super) tokens: TokenBatch,
    /// What each column is to each row.
    pub(super) rows: Vec<LossRow>,
    /// ω of every column.
    pub(super) weights: Vec<f32>,
}

/// Where the parts of a step come from.
pub(super) struct Preparation<'a> {
    pub(super) dataset: &'a Dataset,
    pub(super) weights: PlannedWeights,
    pub(super) teacher: Teacher,
}

impl Preparation<'_> {
    /// Tokens, roles and weights of a step.
    pub(super) fn prepare(&self, step: &Step, texts: &mut Texts<'_>) -> Result<Prepared> {
        let columns = step.columns();
        let weights = columns.iter().map(|column| self.weight(*column)).collect::<Result<Vec<f32>>>()?;
        let place: HashMap<(&Language, &str), usize> = columns.iter().copied().zip(0..).collect();
        let mut rows = Vec::with_capacity(step.rows.len());
        for row in &step.rows {
            let column = |passage: &str| place[&(&row.language, passage)];
            let positive = column(&row.positive);
            let passages = std::iter::once(&row.positive).chain(row.negatives.iter().map(|n| &n.passage));
            rows.push(LossRow {
                positive,
                negatives: row.negatives.iter().map(|n| (column(&n.passage), n.provenance)).collect(),
                masked: row.masked.iter().map(|column| *column as usize).collect(),
                weight: weights[positive] / self.weights.query_mean,
                teacher: self.teacher.scores(&row.language, &row.query, passages),
            });
        }
        Ok(Prepared { tokens: texts.step(step)?, rows, weights })
    }

    fn weight(&self, (language, passage): (&Language, &str)) -> Result<f32> {
        let topic = self.weights.topics.of(self.dataset, language, passage)?;
        Ok(self.weights.weights.of(language, topic))
    }
}
