//! The loop: steps over shuffled lessons, a validation before the first and after every epoch, checkpoints in between.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::InstructConfig;
use super::lesson::{Lesson, pack};
use crate::corpus::Language;
use crate::engine::{Engine, LoadOptions, TrainableLm};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::random;
use crate::train::checkpoint::{Checkpoints, Progressed};
use crate::train::schedule::{Decay, Schedule};

/// One optimiser step: a line of `log.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LearnRecord {
    /// Counted from 0.
    pub step: u64,
    /// Counted from 0.
    pub epoch: u32,
    /// Mean −ln p of the answers' tokens.
    pub loss: f64,
    /// Learning rate.
    pub rate: f32,
    /// Euclidean norm of the gradient before clipping.
    pub gradient_norm: f32,
    /// Tokens of the answers.
    pub predicted: usize,
    /// Tokens in all.
    pub tokens: usize,
}

/// The losses of the lessons that were set aside: a line of `validation.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LossRecord {
    /// Optimiser steps before it; 0 is the untouched model.
    pub step: u64,
    /// Mean over the languages.
    pub loss: f64,
    /// Mean −ln p of the answers' tokens of each language.
    pub languages: BTreeMap<Language, f64>,
}

/// What the loop knows between two steps.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct LearnState {
    step: u64,
    pub(super) log: Vec<LearnRecord>,
    pub(super) validations: Vec<LossRecord>,
}

impl Progressed for LearnState {
    fn step(&self) -> u64 {
        self.step
    }

    /// The last weights are the ones that count.
    fn best(&self) -> Option<u64> {
        None
    }
}

/// A training between two steps.
pub(super) struct Learner<'a> {
    config: &'a InstructConfig,
    seed: u64,
    lessons: &'a [Lesson],
    /// The lessons that are learnt, and those that are set aside by language.
    learnt: Vec<usize>,
    aside: BTreeMap<&'a Language, Vec<usize>>,
    /// Those that are learnt, in this epoch's order; empty before the first step.
    order: Vec<usize>,
    checkpoints: Checkpoints<LearnState>,
    pub(super) model: Box<dyn TrainableLm>,
    schedule: Schedule,
    pub(super) state: LearnState,
}

/// How the model is read.
pub(super) fn options(config: &InstructConfig, seed: u64) -> LoadOptions {
    LoadOptions {
        precision: config.precision,
        optimizer: config.optimizer.clone(),
        seed,
        lora: Some(config.lora.clone()),
        memory: config.memory,
        ..LoadOptions::default()
    }
}

impl<'a> Learner<'a> {
    /// Checks that the largest step fits into memory, reads the model and takes up the last checkpoint in `scratch`.
    pub(super) fn open(
        engine: &dyn Engine,
        folder: &Path,
        lessons: &'a [Lesson],
        (config, seed): (&'a InstructConfig, u64),
        scratch: PathBuf,
        progress: &Progress,
    ) -> Result<Self> {
        let options = options(config, seed);
        let mut lengths: Vec<usize> = lessons.iter().map(Lesson::len).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.truncate(config.step_examples);
        let footprint = engine.language_training_footprint(folder, &options, &lengths)?;
        progress.say(&format!("memory for the largest step at most {footprint}"));
        let mut model = engine.trainable_lm(folder, &options)?;
        let checkpoints = Checkpoints::new(scratch);
        let state: LearnState = checkpoints.restore(&mut *model)?.unwrap_or_default();
        let (mut learnt, mut aside) = (Vec::new(), BTreeMap::<_, Vec<usize>>::new());
        for (index, Lesson { instruction, .. }) in lessons.iter().enumerate() {
            if instruction.validation {
                aside.entry(&instruction.language).or_default().push(index);
            } else {
                learnt.push(index);
            }
        }
        let total = learnt.len().div_ceil(config.step_examples) as u64 * u64::from(config.epochs);
        let schedule = Schedule::new(config.rate, config.warmup, total).falling(Decay::Cosine);
        Ok(Self { config, seed, lessons, learnt, aside, order: Vec::new(), checkpoints, model, schedule, state })
    }

    /// Steps of an epoch.
    fn epoch_steps(&self) -> u64 {
        self.learnt.len().div_ceil(self.config.step_examples) as u64
    }

    /// Steps in all.
    pub(super) fn total(&self) -> u64 {
        self.epoch_steps() * u64::from(self.config.epochs)
    }

    /// Goes on to the last step.
    pub(super) fn run(&mut self, progress: &Progress) -> Result<()> {
        self.begin(progress);
        loop {
            if self.state.step.is_multiple_of(self.epoch_steps()) && self.validate(progress)? {
                self.begin(progress);
            }
            if self.state.step == self.total() {
                return Ok(());
            }
            let step = self.state.step;
            let last = || "the last checkpoint before it is kept; lower `instruct.rate`";
            self.step().map_err(|error| Error::data(format!("step {step}: {error}; {}", last())))?;
            progress.advance(1);
            if self.state.step.is_multiple_of(self.config.checkpoint_every) {
                self.checkpoints.write(&self.state, &*self.model)?;
            }
        }
    }

    fn begin(&self, progress: &Progress) {
        progress.begin("instruct", self.total() as usize, "steps");
        progress.advance(self.state.step as usize);
    }

    /// The loss of each language's lessons that are set aside, unless it was measured; whether it was measured now.
    fn validate(&mut self, progress: &Progress) -> Result<bool> {
        let step = self.state.step;
        if self.aside.is_empty() || self.state.validations.last().is_some_and(|last| last.step == step) {
            return Ok(false);
        }
        progress.begin("validate", self.aside.len(), "languages");
        let mut languages = BTreeMap::new();
        for (language, lessons) in &self.aside {
            let mut sums = (0.0, 0);
            for lessons in lessons.chunks(self.config.step_examples) {
                let (batch, predicted) = pack(lessons.iter().map(|index| &self.lessons[*index]));
                let count = predicted.iter().filter(|predicted| **predicted).count();
                sums = (sums.0 + self.model.loss(&batch, &predicted)? * count as f64, sums.1 + count);
            }
            languages.insert((*language).clone(), sums.0 / sums.1 as f64);
            progress.advance(1);
        }
        let loss = languages.values().sum::<f64>() / languages.len() as f64;
        progress.say(&format!("step {step}: validation loss {loss:.4}"));
        self.state.validations.push(LossRecord { step, loss, languages });
        self.checkpoints.write(&self.state, &*self.model)?;
        Ok(true)
    }

    /// One optimiser step.
    fn step(&mut self) -> Result<()> {
        let step = self.state.step;
        let epoch = (step / self.epoch_steps()) as u32;
        if self.order.is_empty() || step.is_multiple_of(self.epoch_steps()) {
            self.order = shuffled(&self.learnt, self.lessons, self.seed, epoch);
        }
        let start = (step % self.epoch_steps()) as usize * self.config.step_examples;
        let end = self.order.len().min(start + self.config.step_examples);
        let (batch, marks) = pack(self.order[start..end].iter().map(|index| &self.lessons[*index]));
        let loss = self.model.loss_and_gradient(&batch, &marks, step)?;
        let rate = self.schedule.rate(step);
        let gradient_norm = self.model.step(rate)?.gradient_norm;
        let predicted = marks.iter().filter(|mark| **mark).count();
        let tokens = batch.tokens();
        self.state.log.push(LearnRecord { step, epoch, loss, rate, gradient_norm, predicted, tokens });
        self.state.step += 1;
        Ok(())
    }
}

/// The lessons of an epoch, in the order of a random number that each has for itself.
fn shuffled(learnt: &[usize], lessons: &[Lesson], seed: u64, epoch: u32) -> Vec<usize> {
    let mut order = learnt.to_vec();
    order.sort_by_cached_key(|index| {
        let it = &lessons[*index].instruction;
        let name = format!("{epoch}/{}/{}", it.language, it.id);
        (random::keyed(seed, "instruct order", &name).random::<u64>(), name)
    });
    order
}
