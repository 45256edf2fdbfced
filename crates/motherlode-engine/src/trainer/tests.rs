//! Training on a tiny BERT: what holds for every encoder's passes, steps and states.

use std::fs;

use motherlode::engine::{OptimizerConfig, Precision, StepReport};
use rand::RngExt;

use super::*;
use crate::kernel::lanes::dot;
use crate::kernel::testing::{assert_close, noise};
use crate::tiny::write_tiny_encoder;

fn open(folder: &Path, optimizer: OptimizerConfig) -> CpuTrainable {
    CpuTrainable::open(folder, &LoadOptions { optimizer, seed: 5, ..Default::default() }).unwrap()
}

fn tiny_with(optimizer: OptimizerConfig) -> CpuTrainable {
    let folder = tempfile::tempdir().unwrap();
    write_tiny_encoder(folder.path(), 50, 16, 2, 3).unwrap();
    open(folder.path(), optimizer)
}

fn tiny_in(precision: Precision, optimizer: OptimizerConfig) -> CpuTrainable {
    let folder = tempfile::tempdir().unwrap();
    write_tiny_encoder(folder.path(), 50, 16, 2, 3).unwrap();
    CpuTrainable::open(folder.path(), &LoadOptions { optimizer, precision, seed: 5, ..Default::default() }).unwrap()
}

fn tiny() -> CpuTrainable {
    tiny_with(OptimizerConfig::default())
}

fn dropping() -> OptimizerConfig {
    OptimizerConfig { dropout: 0.2, ..Default::default() }
}

fn batch(seed: u64, sequences: usize) -> TokenBatch {
    let mut random = motherlode::random::keyed(seed, "batch", "");
    let mut sequence = || -> Vec<u32> {
        let length = random.random_range(1..40);
        (0..length).map(|_| random.random_range(0..50)).collect()
    };
    (0..sequences).map(|_| sequence()).collect()
}

fn upstream(seed: u64, batch: &TokenBatch) -> Embeddings {
    Embeddings::new(16, noise(seed, batch.len() * 16)).unwrap()
}

fn loss(outputs: &Embeddings, upstream: &Embeddings) -> f64 {
    outputs.values().iter().zip(upstream.values()).map(|(out, up)| f64::from(*out) * f64::from(*up)).sum()
}

/// One step on two batches of its own.
fn train_step(trainable: &mut CpuTrainable, step: u64) -> StepReport {
    for number in 0..2 {
        let batch = batch(100 + 2 * step + number, 20);
        trainable.forward(&batch, step).unwrap();
        trainable.backward(&batch, &upstream(step, &batch), step).unwrap();
    }
    trainable.step(1e-3).unwrap()
}

pub(super) fn state(trainable: &CpuTrainable) -> Vec<u8> {
    let mut bytes = Vec::new();
    trainable.write_state(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_gradient_is_clipped_as_part_of_a_longer_one() {
    let limited = |most| tiny_with(OptimizerConfig { max_gradient_norm: most, ..OptimizerConfig::default() });
    let accumulated = |mut trainable: CpuTrainable| {
        let batch = batch(3, 20);
        trainable.forward(&batch, 0).unwrap();
        trainable.backward(&batch, &upstream(0, &batch), 0).unwrap();
        trainable
    };
    let norm = accumulated(limited(0.0)).gradient_norm().unwrap();
    // As one that is four times as long, it is cut to a quarter of the limit.
    let (mut part, mut alone) = (accumulated(limited(0.5 * norm)), accumulated(limited(0.125 * norm)));
    part.apply(1e-3, 4.0 * norm).unwrap();
    alone.step(1e-3).unwrap();
    let [part, alone] = [&part, &alone].map(|trainable| trainable.encode(&batch(4, 9)).unwrap());
    let distance = part.values().iter().zip(alone.values()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(distance < 1e-6, "{distance}");
    let mut unclipped = accumulated(limited(0.0));
    unclipped.step(1e-3).unwrap();
    assert!(unclipped.encode(&batch(4, 9)).unwrap() != part, "clipping shows");
}

#[test]
fn the_gradient_is_the_slope_of_the_loss_for_every_kind_of_parameter() {
    for optimizer in [OptimizerConfig::default(), dropping()] {
        assert_slopes(&mut tiny_with(optimizer), &batch(1, 3));
    }
}

/// Checks gradients of every trained tensor against central differences.
pub(super) fn assert_slopes(trainable: &mut CpuTrainable, batch: &TokenBatch) {
    const STEP: f32 = 2e-3;
    let dimension = trainable.dimension();
    let upstream = Embeddings::new(dimension, noise(2, batch.len() * dimension)).unwrap();
    let outputs = trainable.forward(batch, 0).unwrap();
    trainable.backward(batch, &upstream, 0).unwrap();
    let terms = outputs.values().iter().zip(upstream.values()).map(|(out, up)| (out * up).abs());
    let rounding = 1e-7 * terms.sum::<f32>() / STEP;
    for tensor in trainable.learner.network.trained().0.tensors.clone() {
        let gradient = trainable.learner.gradient.values[tensor.place.clone()].to_vec();
        let scale = gradient.iter().fold(0.05_f32, |scale, value| scale.max(value.abs()));
        let mut order: Vec<usize> = (0..gradient.len()).collect();
        order.sort_by(|a, b| gradient[*b].abs().total_cmp(&gradient[*a].abs()));
        for index in order.into_iter().step_by(1 + gradient.len() / 7) {
            let mut moved = |by: f32| {
                let place = tensor.place.start + index;
                let before = trainable.learner.network.trained().1[place];
                trainable.learner.network.trained_mut().1[place] = before + by;
                trainable.learner.network.pack();
                let loss = loss(&trainable.forward(batch, 0).unwrap(), &upstream);
                trainable.learner.network.trained_mut().1[place] = before;
                loss
            };
            let slope = ((moved(STEP) - moved(-STEP)) / f64::from(2.0 * STEP)) as f32;
            let difference = (slope - gradient[index]).abs();
            assert!(
                difference < 5e-3 * scale + rounding,
                "{} at {index}: {} and {slope}",
                tensor.name,
                gradient[index]
            );
        }
    }
    trainable.learner.network.pack();
}

#[test]
fn a_backward_pass_does_not_need_the_forward_pass_just_before() {
    let batch = batch(1, 12);
    let gradient = |forward: bool, other_first: bool| {
        let mut trainable = tiny_with(dropping());
        if forward {
            trainable.forward(&batch, 3).unwrap();
        }
        if other_first {
            trainable.forward(&self::batch(9, 4), 3).unwrap();
        }
        trainable.backward(&batch, &upstream(2, &batch), 3).unwrap();
        trainable.learner.gradient.values
    };
    let kept = gradient(true, false);
    assert!(kept.iter().any(|value| *value != 0.0));
    assert_eq!(kept, gradient(false, false));
    assert_eq!(kept, gradient(true, true));
}

#[test]
fn steps_of_any_size_after_one_another_give_what_they_give_alone() {
    let gradient = |sizes: &[usize]| {
        let mut trainable = tiny();
        for sequences in sizes {
            trainable.learner.gradient.clear();
            let batch = batch(*sequences as u64, *sequences);
            trainable.forward(&batch, 0).unwrap();
            trainable.backward(&batch, &upstream(2, &batch), 0).unwrap();
        }
        trainable.learner.gradient.values
    };
    assert_eq!(gradient(&[3, 40, 7, 12]), gradient(&[12]));
}

#[test]
fn the_gradients_of_parts_add_up_to_that_of_the_whole_batch() {
    let all = batch(1, 20);
    let upstream = upstream(2, &all);
    let mut whole = tiny();
    whole.backward(&all, &upstream, 0).unwrap();
    let mut parts = tiny();
    for range in [0..7, 7..8, 8..20] {
        parts.backward(&all.slice(range.clone()), &upstream.slice(range), 0).unwrap();
    }
    assert_close(&whole.learner.gradient.values, &parts.learner.gradient.values, 1e-5);
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let run = |threads: usize, precision: Precision| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut trainable = tiny_in(precision, dropping());
            let reports: Vec<_> = (0..3).map(|step| train_step(&mut trainable, step)).collect();
            (reports, state(&trainable), trainable.encode(&batch(1, 30)).unwrap())
        })
    };
    for precision in [Precision::F32, Precision::Bf16x3, Precision::Bf16] {
        let one = run(1, precision);
        assert!(one == run(2, precision) && one == run(5, precision));
    }
}

#[test]
fn coarser_products_give_nearly_the_vectors_and_gradients_of_f32() {
    let (batch, optimizer) = (batch(1, 20), dropping());
    let run = |precision: Precision| {
        let mut trainable = tiny_in(precision, optimizer.clone());
        let vectors = trainable.forward(&batch, 0).unwrap();
        trainable.backward(&batch, &upstream(2, &batch), 0).unwrap();
        (vectors, trainable)
    };
    let (vectors, single) = run(Precision::F32);
    for (precision, tolerance, share) in [(Precision::Bf16x3, 2e-5, 1e-6), (Precision::Bf16, 2e-2, 1e-3)] {
        let (near, other) = run(precision);
        assert!(precision == Precision::Bf16x3 || vectors != near);
        assert_close(vectors.values(), near.values(), tolerance);
        let tensors = single.learner.network.layout.tensors.iter();
        for tensor in tensors.filter(|tensor| !tensor.name.ends_with("key.bias")) {
            let [exact, near] =
                [&single, &other].map(|trainable| &trainable.learner.gradient.values[tensor.place.clone()]);
            let cosine = dot(exact, near) / (dot(exact, exact) * dot(near, near)).sqrt();
            assert!(cosine > 1.0 - share, "{precision:?}, {}: cosine {cosine}", tensor.name);
        }
    }
}

#[test]
fn dropout_follows_its_step_and_encoding_has_none() {
    let (mut trainable, batch) = (tiny_with(dropping()), batch(1, 5));
    let first = trainable.forward(&batch, 0).unwrap();
    assert_eq!(first, trainable.forward(&batch, 0).unwrap());
    assert_ne!(first, trainable.forward(&batch, 1).unwrap());
    assert_eq!(trainable.encode(&batch).unwrap(), tiny().forward(&batch, 0).unwrap());
}

#[test]
fn training_continues_bit_for_bit_from_its_state() {
    let mut straight = tiny_with(dropping());
    for step in 0..2 {
        train_step(&mut straight, step);
    }
    let middle = state(&straight);
    let mut resumed = tiny_with(dropping());
    train_step(&mut resumed, 7);
    resumed.restore(&mut middle.as_slice()).unwrap();
    assert_eq!(state(&resumed), middle);
    for step in 2..4 {
        assert_eq!(train_step(&mut straight, step), train_step(&mut resumed, step));
    }
    assert_eq!(state(&straight), state(&resumed));
}

#[test]
fn states_that_are_truncated_or_of_something_else_are_refused() {
    let (mut trainable, folder) = (tiny(), tempfile::tempdir().unwrap());
    let bytes = state(&trainable);
    write_tiny_encoder(folder.path(), 51, 16, 2, 3).unwrap();
    let mut restore = |bytes: &[u8]| trainable.restore(&mut &*bytes).unwrap_err().to_string();
    assert!(restore(&bytes[..bytes.len() - 1]).contains("truncated"));
    assert!(restore(&bytes[..10]).contains("truncated"));
    assert!(restore(&[0; 100]).contains("expected a state that this version wrote"));
    assert!(restore(&state(&open(folder.path(), OptimizerConfig::default()))).contains("parameters, got"));
}

#[test]
fn a_saved_encoder_gives_the_same_vectors_with_the_layers_it_kept() {
    let (folder, batch) = (tempfile::tempdir().unwrap(), batch(1, 6));
    write_tiny_encoder(folder.path(), 50, 16, 3, 3).unwrap();
    let options = LoadOptions { layers: Some(2), ..Default::default() };
    let mut trainable = CpuTrainable::open(folder.path(), &options).unwrap();
    train_step(&mut trainable, 0);
    trainable.save(folder.path()).unwrap();
    let read = CpuTrainable::open(folder.path(), &LoadOptions::default()).unwrap();
    assert_eq!(read.learner.network.shape.layers.len(), 2);
    assert_eq!(read.encode(&batch).unwrap(), trainable.encode(&batch).unwrap());
    assert!(fs::read_dir(folder.path()).unwrap().all(|entry| !entry.unwrap().path().ends_with(".tmp")));
}

#[test]
fn a_gradient_that_is_not_finite_moves_nothing_and_is_forgotten() {
    let (mut trainable, batch) = (tiny(), batch(1, 3));
    let before = state(&trainable);
    let mut broken = upstream(2, &batch);
    broken.values_mut()[0] = f32::NAN;
    trainable.backward(&batch, &broken, 0).unwrap();
    assert!(trainable.step(1e-3).unwrap_err().to_string().contains("not finite"));
    assert_eq!(state(&trainable), before);
    assert!(trainable.step(0.0).unwrap().gradient_norm == 0.0);
}

#[test]
fn weights_that_are_not_finite_are_not_written() {
    let (mut trainable, folder) = (tiny(), tempfile::tempdir().unwrap());
    trainable.learner.network.weights[17] = f32::INFINITY;
    let message = trainable.write_state(&mut Vec::new()).unwrap_err().to_string();
    assert!(message.contains("expected finite numbers, got inf; lower the learning rate"), "{message}");
    let message = trainable.save(folder.path()).unwrap_err().to_string();
    assert!(message.contains("model.safetensors: expected finite numbers"), "{message}");
    assert!(!folder.path().join("model.safetensors").exists());
}

#[test]
fn a_gradient_of_another_shape_is_refused() {
    let (mut trainable, batch) = (tiny(), batch(1, 3));
    let error = trainable.backward(&batch, &Embeddings::zeros(2, 16), 0).unwrap_err().to_string();
    assert!(error.contains("expected (3, 16), got (2, 16)"), "{error}");
}
