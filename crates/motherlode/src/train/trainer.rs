//! The loop: step after step, with validations and checkpoints in between.

use std::path::PathBuf;

use super::checkpoint::{Checkpoints, LoopState, StepRecord};
use super::loss::{LossInput, LossOptions, LossReport, contrastive};
use super::model::Model;
use super::schedule::Schedule;
use super::steps::{Preparation, Prepared, Steps};
use super::teacher::{Teacher, TeacherKind};
use super::texts::Texts;
use super::validate::Validation;
use super::watch::Watch;
use super::{Every, Pool, TrainConfig, TrainInputs, steps};
use crate::artefact::{Artefact, Summary};
use crate::batch::Step;
use crate::encode::EncoderInput;
use crate::engine::{Embeddings, Footprint, LoadOptions, Training};
use crate::error::{Error, Result};
use crate::memory;
use crate::progress::Progress;
use crate::untied;

/// A training between two steps.
pub(super) struct Trainer<'a> {
    config: &'a TrainConfig,
    pub(super) steps: Steps,
    preparation: Preparation<'a>,
    texts: Texts<'a>,
    validation: Validation<'a>,
    checkpoints: Checkpoints<LoopState>,
    watch: Option<Watch>,
    model: Model,
    schedule: Schedule,
    loss: LossOptions,
    /// Where the model computes.
    device: Option<String>,
    /// What the largest step takes at most.
    footprint: Footprint,
    pub(super) state: LoopState,
}

impl<'a> Trainer<'a> {
    /// Opens and checks everything, then takes up the last checkpoint in `scratch`.
    pub(super) fn open(inputs: &TrainInputs<'a>, config: &'a TrainConfig, seed: u64, scratch: PathBuf) -> Result<Self> {
        let texts = Texts::new(inputs.dataset, EncoderInput::open(inputs.base.folder, inputs.encoder)?);
        let (steps, weights) = steps::open(inputs, &config.weights)?;
        let teacher = match &config.distillation {
            None => Teacher::default(),
            Some(distillation) => Teacher::open(distillation.teacher, teacher_artefact(inputs, distillation.teacher))?,
        };
        let validation = Validation::open(inputs, config.validation.pool, config.similarity)?;
        let options = LoadOptions {
            layers: inputs.encoder.layers,
            precision: inputs.encoder.precision,
            optimizer: config.optimizer.clone(),
            seed,
            lora: config.lora.clone(),
            memory: config.memory,
            ..LoadOptions::default()
        };
        let [queries, passages] = steps.longest_lengths(inputs.encoder);
        let folder = inputs.base.folder;
        let device = inputs.engine.device(&untied::encoders(folder)?.queries, &options)?;
        let (mut model, footprint) = Model::open(inputs.engine, folder, &options, [&queries, &passages])?;
        let checkpoints = Checkpoints::new(scratch);
        let state = checkpoints.restore(&mut model)?.unwrap_or_default();
        let watch = inputs.watched.map(|folder| Watch::open(folder, &state)).transpose()?;
        Ok(Self {
            schedule: Schedule::new(config.rate, config.warmup, steps.len()),
            loss: config.loss(),
            config,
            steps,
            preparation: Preparation { dataset: inputs.dataset, weights, teacher },
            texts,
            validation,
            checkpoints,
            watch,
            model,
            device,
            footprint,
            state,
        })
    }

    /// Goes on to the last step, or until patience ends.
    pub(super) fn run(&mut self, progress: &Progress<'_>) -> Result<()> {
        if let Some(device) = &self.device {
            progress.say(&format!("training on {device}"));
        }
        progress.say(&format!("memory for the largest step at most {}", self.footprint));
        self.begin(progress);
        loop {
            if self.validation_is_due() && !self.state.is_validated() {
                self.validate(progress)?;
                self.begin(progress);
            }
            if self.is_over() {
                let peak = memory::peak().map(memory::readable);
                peak.iter().for_each(|peak| progress.say(&format!("peak memory of this process {peak}")));
                return Ok(());
            }
            self.step()?;
            progress.advance(1);
            if self.state.step.is_multiple_of(self.config.checkpoint_every) {
                let at = |error: Error| Error::data(format!("checkpoint after {} steps: {error}", self.state.step));
                self.checkpoints.write(&self.state, &self.model).map_err(at)?;
            }
        }
    }

    fn begin(&self, progress: &Progress<'_>) {
        progress.begin("train", self.steps.len() as usize, "steps");
        progress.advance(self.state.step as usize);
    }

    fn is_over(&self) -> bool {
        let patience = self.config.validation.patience;
        self.state.step == self.steps.len() || (patience > 0 && self.state.stale() >= patience)
    }

    fn validation_is_due(&self) -> bool {
        let step = self.state.step;
        let regular = match self.config.validation.every {
            Every::Steps(every) => step.is_multiple_of(every),
            Every::Epochs(every) => self.steps.ends_epochs(step, every),
        };
        !self.validation.is_empty() && (step == 0 || step == self.steps.len() || regular)
    }

    /// Validates, keeps the weights if they are the best so far, and writes a checkpoint.
    fn validate(&mut self, progress: &Progress<'_>) -> Result<()> {
        let step = self.state.step;
        let at = |error: Error| Error::data(format!("validation after {step} steps: {error}"));
        let record = self.validation.measure(step, self.model.encoders(), &self.texts, progress).map_err(at)?;
        progress.say(&format!("step {}: validation nDCG@10 {:.4}", record.step, record.macro_average));
        self.watch.iter_mut().try_for_each(|watch| watch.validated(&record))?;
        if self.state.validated(record) {
            self.checkpoints.save_best(self.state.step, &self.model)?;
        }
        self.checkpoints.write(&self.state, &self.model)
    }

    /// One optimiser step.
    fn step(&mut self) -> Result<()> {
        let index = self.state.step;
        let step = self.steps.step(index)?;
        let language = language_of(&step);
        let at = |error: Error| self.steps.refuse(&step, &language, &error);
        let prepared = self.preparation.prepare(&step, &mut self.texts).map_err(at)?;
        let job = Job { step: index, loss: &self.loss };
        let report = job.accumulate(&mut self.model, &prepared).map_err(at)?;
        let rate = self.schedule.rate(index);
        let gradient_norm = self.model.step(rate).map_err(at)?.gradient_norm;
        if !gradient_norm.is_finite() {
            return Err(at(not_finite("the norm of the gradient", f64::from(gradient_norm))));
        }
        let LossReport { loss, accuracy, shares, .. } = report;
        let epoch = step.epoch;
        let record = StepRecord { step: index, epoch, language, loss, rate, gradient_norm, accuracy, shares };
        self.watch.iter_mut().try_for_each(|watch| watch.stepped(&record))?;
        self.state.log.push(record);
        self.state.step += 1;
        Ok(())
    }

    /// The folder of the best validation's weights; without validation queries, of the last step's.
    pub(super) fn chosen_weights(&self) -> Result<PathBuf> {
        let chosen = self.state.best.unwrap_or(self.state.step);
        if self.state.best.is_none() {
            self.checkpoints.save_best(chosen, &self.model)?;
        }
        Ok(self.checkpoints.best(chosen))
    }

    /// What the stage has to tell.
    pub(super) fn summary(&self, inputs: &TrainInputs<'_>) -> Summary {
        let mut summary = Summary::default();
        summary.count("steps planned", self.steps.len() as usize);
        summary.count("steps", self.state.step as usize);
        summary.count("epochs planned", self.steps.epochs());
        summary.count("validation queries", self.validation.queries());
        summary.count("validation passages", self.validation.passages());
        let (least, most) = self.preparation.weights.weights.shift_range(f64::from(self.config.temperature));
        summary.value("least τ·ln ω", least);
        summary.value("greatest τ·ln ω", most);
        inputs.base.notes.iter().for_each(|note| summary.note(note));
        if let Some(device) = &self.device {
            summary.note(format!("trained on {device}"));
        }
        self.judge_outcome(&mut summary);
        if self.config.validation.pool == Pool::Reduced {
            let passages = self.validation.passages();
            summary.note(format!("validation searched a reduced pool of {passages} passages, not the whole corpus"));
        }
        summary
    }
}

impl Trainer<'_> {
    /// Whether fine-tuning helped, as far as validation can say.
    fn judge_outcome(&self, summary: &mut Summary) {
        let state = &self.state;
        let (Some(untouched), Some(best)) = (state.validations.first(), state.best_validation()) else {
            summary.note("there were no validation queries: these are the weights of the last step");
            return;
        };
        summary.value("validation nDCG@10, untouched", untouched.macro_average);
        summary.value("validation nDCG@10", best.macro_average);
        summary.value("best step", best.step as f64);
        if best.step == 0 {
            summary.note("no validation was better than the untouched model's: these are the untouched weights");
        }
        if state.step < self.steps.len() {
            let (step, planned, stale) = (state.step, self.steps.len(), state.stale());
            summary.note(format!("stopped after step {step} of {planned}: {stale} validations brought nothing better"));
        }
    }
}

fn teacher_artefact<'a>(inputs: &TrainInputs<'a>, kind: TeacherKind) -> Option<&'a Artefact> {
    match kind {
        TeacherKind::Untouched => inputs.candidates,
        TeacherKind::Judge => inputs.judgements,
    }
}

/// The language of a step's queries; `mixed` where there are several.
fn language_of(step: &Step) -> String {
    let first = &step.rows[0].language;
    if step.rows.iter().all(|row| row.language == *first) { first.to_string() } else { "mixed".to_owned() }
}

fn not_finite(what: &str, value: f64) -> Error {
    let remedy = "lower `train.rate` or raise `train.temperature`; the last checkpoint before it is kept";
    Error::data(format!("{what} is {value}; {remedy}"))
}

/// The forward and backward pass of one step.
pub(super) struct Job<'a> {
    pub(super) step: u64,
    pub(super) loss: &'a LossOptions,
}

impl Job<'_> {
    /// Adds the step's gradient to the model's and returns the loss.
    pub(super) fn accumulate(&self, model: &mut Model, prepared: &Prepared) -> Result<LossReport> {
        let split = prepared.rows.len();
        let vectors = model.forward(&prepared.tokens, split, self.step)?;
        let (queries, passages) = (vectors.slice(0..split), vectors.slice(split..vectors.rows()));
        let (rows, weights) = (prepared.rows.as_slice(), prepared.weights.as_slice());
        let report = contrastive(&LossInput { queries: &queries, passages: &passages, rows, weights }, self.loss)?;
        if !report.loss.is_finite() {
            return Err(not_finite("the loss", report.loss));
        }
        let gradient = [report.queries.values(), report.passages.values()].concat();
        let gradient = Embeddings::new(vectors.dimension(), gradient)?;
        model.backward(&prepared.tokens, split, &gradient, self.step)?;
        Ok(report)
    }
}
