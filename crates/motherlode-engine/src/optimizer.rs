//! `AdamW` over all parameters of an encoder, in one parallel pass.
//!
//! The word embeddings are by far the largest tensor, and a batch touches few of their rows. Rows without a gradient
//! get exactly what a dense step gives them, but without reading the gradient; rows that never had one have moments
//! of zero, so that only weight decay moves them.

use std::ops::Range;

use motherlode::engine::OptimizerConfig;
use motherlode::{Error, Result};
use rayon::prelude::*;

use crate::kernel::adamw::{Step, Stretch, apply, apply_decay, apply_zero};
use crate::kernel::lanes::dot;
use crate::layout::{Layout, Tensor};

/// Parameters that one job moves.
const STRETCH: usize = 1 << 15;
/// Gradients of a norm's partial sums.
const PARTIAL: usize = 1 << 12;
/// Rows of word embeddings of a norm's partial sums.
const PARTIAL_ROWS: usize = 64;

/// The sum of the gradients of a step's chunks.
#[derive(Debug)]
pub(crate) struct Gradient {
    pub(crate) values: Vec<f32>,
    /// Word embeddings that have a gradient, by row.
    touched: Vec<bool>,
}

impl Gradient {
    pub(crate) fn new(layout: &Layout, vocabulary: usize) -> Self {
        Self { values: vec![0.0; layout.parameters()], touched: vec![false; vocabulary] }
    }

    /// Notes that the rows of `ids` have a gradient.
    pub(crate) fn touch(&mut self, ids: &[u32]) {
        ids.iter().for_each(|id| self.touched[*id as usize] = true);
    }

    /// Notes that all rows have a gradient.
    pub(crate) fn touch_all(&mut self) {
        self.touched.fill(true);
    }

    /// Euclidean norm of all gradients.
    fn norm(&self, words: &Range<usize>) -> f32 {
        let square = |part: &[f32]| f64::from(dot(part, part));
        let length = row_length(words, self.touched.len());
        let rows =
            self.values[words.clone()].par_chunks(PARTIAL_ROWS * length).zip(self.touched.par_chunks(PARTIAL_ROWS));
        let of_rows = |(rows, touched): (&[f32], &[bool])| -> f64 {
            let touched = rows.chunks_exact(length).zip(touched).filter(|(_, touched)| **touched);
            touched.map(|(row, _)| square(row)).sum()
        };
        let rows: Vec<f64> = rows.map(of_rows).collect();
        let rest: Vec<f64> = self.values[words.end..].par_chunks(PARTIAL).map(square).collect();
        rows.iter().chain(&rest).sum::<f64>().sqrt() as f32
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.values.fill(0.0);
        self.touched.fill(false);
    }
}

/// Moments and step count.
#[derive(Debug)]
pub(crate) struct Optimizer {
    config: OptimizerConfig,
    /// Steps done.
    pub(crate) steps: u64,
    pub(crate) first: Vec<f32>,
    pub(crate) second: Vec<f32>,
    /// Word embeddings whose moments are not all zero, by row.
    alive: Vec<bool>,
}

impl Optimizer {
    pub(crate) fn new(config: OptimizerConfig, layout: &Layout, vocabulary: usize) -> Result<Self> {
        check(&config)?;
        let moments = || vec![0.0; layout.parameters()];
        Ok(Self { config, steps: 0, first: moments(), second: moments(), alive: vec![false; vocabulary] })
    }

    /// The norm of `gradient`.
    ///
    /// # Errors
    /// It is not finite; the gradient is cleared.
    pub(crate) fn norm(&self, layout: &Layout, gradient: &mut Gradient) -> Result<f32> {
        let norm = gradient.norm(&layout.words());
        if !norm.is_finite() {
            gradient.clear();
            return Err(not_finite(self.steps));
        }
        Ok(norm)
    }

    /// Clips `gradient` as part of one of this norm, clears it, and moves `weights` at `rate`.
    pub(crate) fn step(
        &mut self,
        layout: &Layout,
        weights: &mut [f32],
        gradient: &mut Gradient,
        (rate, norm): (f32, f32),
    ) {
        self.steps += 1;
        let step = constants(&self.config, self.steps, rate, norm);
        let words = layout.words();
        self.move_words(&step, &mut weights[words.clone()], gradient);
        for tensor in layout.tensors.iter().filter(|tensor| tensor.place.start >= words.end) {
            self.move_tensor(&step, tensor, &mut weights[tensor.place.clone()], gradient);
        }
    }

    fn move_tensor(&mut self, step: &Step, tensor: &Tensor, weights: &mut [f32], gradient: &mut Gradient) {
        let place = tensor.place.clone();
        let moments = self.first[place.clone()].par_chunks_mut(STRETCH);
        let moments = moments.zip(self.second[place.clone()].par_chunks_mut(STRETCH));
        let stretches = weights.par_chunks_mut(STRETCH).zip(moments);
        let gradients = gradient.values[place].par_chunks_mut(STRETCH);
        stretches.zip(gradients).for_each(|((weights, (first, second)), gradient)| {
            apply(step, Stretch { weights, first, second }, gradient, tensor.decays);
        });
    }

    fn move_words(&mut self, step: &Step, weights: &mut [f32], gradient: &mut Gradient) {
        let hidden = row_length(&(0..weights.len()), self.alive.len());
        let rows = STRETCH.div_ceil(hidden);
        let stretch = rows * hidden;
        let moments = self.first[..weights.len()].par_chunks_mut(stretch);
        let moments = moments.zip(self.second[..weights.len()].par_chunks_mut(stretch));
        let states = self.alive.par_chunks_mut(rows).zip(gradient.touched.par_chunks_mut(rows));
        let gradients = gradient.values[..weights.len()].par_chunks_mut(stretch).zip(states);
        let jobs = weights.par_chunks_mut(stretch).zip(moments).zip(gradients);
        jobs.for_each(|((weights, (first, second)), (gradient, (alive, touched)))| {
            Words { stretch: Stretch { weights, first, second }, gradient, alive, touched }.step(step, hidden);
        });
    }

    /// Finds out from the moments which rows are alive, after they were read from a file.
    pub(crate) fn revive(&mut self, words: Range<usize>) {
        let hidden = row_length(&words, self.alive.len());
        let moments = self.first[words.clone()].par_chunks(hidden).zip(self.second[words].par_chunks(hidden));
        let is_alive = |(first, second): (&[f32], &[f32])| first.iter().chain(second).any(|value| value.to_bits() != 0);
        self.alive.par_iter_mut().zip(moments).for_each(|(alive, moments)| *alive = is_alive(moments));
    }
}

/// Values of a row of the word embeddings; 1 if there are none, as among adapters.
fn row_length(words: &Range<usize>, rows: usize) -> usize {
    words.len().checked_div(rows).unwrap_or(1)
}

/// A few rows of the word embeddings.
struct Words<'a> {
    stretch: Stretch<'a>,
    gradient: &'a mut [f32],
    alive: &'a mut [bool],
    touched: &'a mut [bool],
}

impl Words<'_> {
    fn step(self, step: &Step, hidden: usize) {
        let Stretch { weights, first, second } = self.stretch;
        let moments = first.chunks_exact_mut(hidden).zip(second.chunks_exact_mut(hidden));
        let rows = weights.chunks_exact_mut(hidden).zip(moments).zip(self.gradient.chunks_exact_mut(hidden));
        let states = self.alive.iter_mut().zip(self.touched);
        for (((weights, (first, second)), gradient), (alive, touched)) in rows.zip(states) {
            *alive |= *touched;
            match (std::mem::take(touched), *alive) {
                (true, _) => apply(step, Stretch { weights, first, second }, gradient, true),
                (false, true) => apply_zero(step, Stretch { weights, first, second }),
                (false, false) => apply_decay(step, weights),
            }
        }
    }
}

/// The error of a gradient that is not finite, after so many steps.
pub(crate) fn not_finite(steps: u64) -> Error {
    Error::data(format!("the gradient after {steps} steps is not finite; lower the learning rate"))
}

/// What step number `steps`, counted from 1, does at `rate` with a gradient of this norm.
pub(crate) fn constants(config: &OptimizerConfig, steps: u64, rate: f32, norm: f32) -> Step {
    let OptimizerConfig { beta1, beta2, epsilon, weight_decay, max_gradient_norm, .. } = *config;
    let correction = |beta: f32| 1.0 - f64::from(beta).powf(steps as f64);
    let clip = if max_gradient_norm > 0.0 { (max_gradient_norm / (norm + 1e-6)).min(1.0) } else { 1.0 };
    Step {
        beta1,
        beta2,
        epsilon,
        rate: (f64::from(rate) / correction(beta1)) as f32,
        correction: correction(beta2).sqrt() as f32,
        decay: 1.0 - rate * weight_decay,
        clip,
    }
}

/// Refuses settings out of range.
pub(crate) fn check(config: &OptimizerConfig) -> Result<()> {
    let share = |value: f32| (0.0..1.0).contains(&value);
    let amount = |value: f32| value.is_finite() && value >= 0.0;
    let ranges = [
        ("beta1", config.beta1, share(config.beta1), "from 0 to below 1"),
        ("beta2", config.beta2, share(config.beta2), "from 0 to below 1"),
        ("dropout", config.dropout, share(config.dropout), "from 0 to below 1"),
        ("epsilon", config.epsilon, amount(config.epsilon) && config.epsilon > 0.0, "above 0"),
        ("weight_decay", config.weight_decay, amount(config.weight_decay), "0 or more"),
        ("max_gradient_norm", config.max_gradient_norm, amount(config.max_gradient_norm), "0 or more"),
    ];
    match ranges.iter().find(|(_, _, valid, _)| !valid) {
        Some((name, value, _, range)) => {
            Err(Error::config(format!("optimizer.{name}: expected a number {range}, got {value}")))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::noise;

    /// 300 words of 4 values, and a matrix.
    fn layout() -> Layout {
        let config = serde_json::json!({
            "model_type": "bert", "vocab_size": 300, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 6, "hidden_act": "gelu", "max_position_embeddings": 5, "type_vocab_size": 2,
            "layer_norm_eps": 1e-12,
        });
        Layout::new(&crate::families::read("config.json".as_ref(), &config).unwrap())
    }

    #[test]
    fn rows_without_a_gradient_move_as_in_a_dense_step_bit_for_bit() {
        let layout = layout();
        let run = |dense: bool| {
            let config = OptimizerConfig { weight_decay: 0.1, max_gradient_norm: 0.5, ..Default::default() };
            let mut optimizer = Optimizer::new(config, &layout, 300).unwrap();
            let mut gradient = Gradient::new(&layout, 300);
            let mut weights = noise(1, layout.parameters());
            for step in 0..6_u32 {
                let ids: Vec<u32> = (0..5 * (step % 3)).map(|index| (index * 31 + step) % 300).collect();
                gradient.touch(&ids);
                for id in &ids {
                    gradient.values[*id as usize * 4..][..4].copy_from_slice(&noise(u64::from(*id + step), 4));
                }
                let rest = layout.words().end;
                gradient.values[rest..].copy_from_slice(&noise(u64::from(step), layout.parameters() - rest));
                if dense {
                    gradient.touch_all();
                }
                let norm = optimizer.norm(&layout, &mut gradient).unwrap();
                optimizer.step(&layout, &mut weights, &mut gradient, (1e-2, norm));
                assert!(gradient.values.iter().all(|value| *value == 0.0));
            }
            (weights, optimizer.first, optimizer.second)
        };
        assert!(run(false) == run(true));
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let default = OptimizerConfig::default();
        for (name, config) in [
            ("beta1", OptimizerConfig { beta1: 1.0, ..default.clone() }),
            ("beta2", OptimizerConfig { beta2: -0.1, ..default.clone() }),
            ("dropout", OptimizerConfig { dropout: 1.0, ..default.clone() }),
            ("epsilon", OptimizerConfig { epsilon: 0.0, ..default.clone() }),
            ("weight_decay", OptimizerConfig { weight_decay: f32::NAN, ..default.clone() }),
            ("max_gradient_norm", OptimizerConfig { max_gradient_norm: f32::INFINITY, ..default.clone() }),
        ] {
            assert!(check(&config).unwrap_err().to_string().contains(&format!("optimizer.{name}")));
        }
        assert!(check(&default).is_ok());
    }
}
