//! Language models against transformers, and the laws that hold for their loss and its gradient.

use std::fs;
use std::path::PathBuf;

use motherlode::engine::{Engine, LoraConfig, OptimizerConfig, Precision};
use safetensors::SafeTensors;

use super::*;
use crate::CpuEngine;
use crate::kernel::testing::{assert_close, noise};

/// One whose head is tied to the word embeddings, and one with a head of its own.
const FAMILIES: [&str; 2] = ["qwen3-language", "llama-language"];

fn folder(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(family)
}

fn open(family: &str, options: LoadOptions) -> CpuTrainableLm {
    CpuTrainableLm::open(&folder(family), &LoadOptions { seed: 5, ..options }).unwrap()
}

/// With adapters of all linear maps, which have values everywhere, or without.
fn model(family: &str, adapted: bool, dropout: f32) -> CpuTrainableLm {
    let lora = adapted.then(|| LoraConfig { rank: 2, alpha: 2.0, dropout, ..Default::default() });
    let optimizer = OptimizerConfig { dropout: if adapted { 0.0 } else { dropout }, ..Default::default() };
    let mut model = open(family, LoadOptions { lora, optimizer, ..Default::default() });
    if adapted {
        let (_, weights) = model.learner.network.trained_mut();
        weights.iter_mut().zip(noise(9, 100_000)).for_each(|(weight, value)| *weight = 0.2 * value);
    }
    model
}

/// What `tests/golden/engine.py language` computed.
struct Golden {
    about: Value,
    bytes: Vec<u8>,
}

impl Golden {
    fn read(family: &str) -> Self {
        let about = fs::read_to_string(folder(family).join("golden.json")).unwrap().parse().unwrap();
        Self { about, bytes: fs::read(folder(family).join("golden.safetensors")).unwrap() }
    }

    fn tensor(&self, name: &str) -> Vec<f32> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let data = tensors.tensor(name).unwrap().data().to_vec();
        data.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    }

    fn examples(&self) -> (TokenBatch, Vec<bool>) {
        let sequences: Vec<Vec<u32>> = serde_json::from_value(self.about["sequences"].clone()).unwrap();
        let predicted: Vec<Vec<bool>> = serde_json::from_value(self.about["predicted"].clone()).unwrap();
        (sequences.into_iter().collect(), predicted.concat())
    }

    fn number(&self, name: &str) -> f32 {
        self.about[name].as_f64().unwrap() as f32
    }
}

/// More predicted tokens than rows that the head takes at a time.
fn examples() -> (TokenBatch, Vec<bool>) {
    let sequences: TokenBatch = (0..16_u32)
        .map(|seed| (0..20 - seed % 3).map(|place| (place * 7 + seed * 11) % 40).collect::<Vec<_>>())
        .collect();
    let marks = (0..sequences.len()).flat_map(|index| (0..sequences.range(index).len()).map(|place| place > 5));
    let marks: Vec<bool> = marks.collect();
    assert!(marks.iter().filter(|mark| **mark).count() > ROWS);
    (sequences, marks)
}

#[test]
fn losses_gradients_and_steps_agree_with_pytorch() {
    for family in FAMILIES {
        let golden = Golden::read(family);
        let optimizer = OptimizerConfig {
            weight_decay: golden.number("weight_decay"),
            max_gradient_norm: golden.number("max_gradient_norm"),
            ..Default::default()
        };
        let mut model = open(family, LoadOptions { optimizer, ..Default::default() });
        let (batch, predicted) = golden.examples();
        let losses = golden.tensor("losses");
        for (step, expected) in losses[..3].iter().enumerate() {
            let loss = model.loss_and_gradient(&batch, &predicted, step as u64).unwrap();
            assert!((loss - f64::from(*expected)).abs() < 1e-4, "{family}, step {step}: {loss} and {expected}");
            if step == 0 {
                for tensor in &model.learner.network.layout.tensors {
                    let expected = golden.tensor(&format!("gradient.{}", tensor.name));
                    let scale = expected.iter().fold(1e-2_f32, |scale, value| scale.max(value.abs()));
                    println!("{family} {}", tensor.name);
                    let gradient = &model.learner.gradient.values[tensor.place.clone()];
                    assert_close(gradient, &expected, 1e-4 * scale);
                }
            }
            model.step(golden.number("rate")).unwrap();
        }
        let loss = model.loss(&batch, &predicted).unwrap();
        assert!((loss - f64::from(losses[3])).abs() < 1e-3, "{family}: {loss} and {}", losses[3]);
    }
}

#[test]
fn the_gradient_is_the_slope_of_the_loss_with_dropout_for_weights_and_for_adapters() {
    const STEP: f32 = 4e-3;
    let (batch, predicted) = examples();
    for (family, adapted) in FAMILIES.into_iter().flat_map(|family| [(family, false), (family, true)]) {
        let mut model = model(family, adapted, 0.2);
        model.loss_and_gradient(&batch, &predicted, 3).unwrap();
        for tensor in model.learner.network.trained().0.tensors.clone() {
            let gradient = model.learner.gradient.values[tensor.place.clone()].to_vec();
            let scale = gradient.iter().fold(0.02_f32, |scale, value| scale.max(value.abs()));
            for index in (0..gradient.len()).step_by(1 + gradient.len() / 5) {
                let mut moved = |by: f32| {
                    let place = tensor.place.start + index;
                    let before = model.learner.network.trained().1[place];
                    model.learner.network.trained_mut().1[place] = before + by;
                    model.learner.network.pack();
                    let masks = model.learner.masks(3);
                    let loss = model.pass(&batch, &predicted, masks, false).unwrap();
                    model.learner.network.trained_mut().1[place] = before;
                    loss
                };
                let slope = ((moved(STEP) - moved(-STEP)) / f64::from(2.0 * STEP)) as f32;
                let difference = (slope - gradient[index]).abs();
                assert!(difference < 1e-2 * scale, "{} at {index}: {} and {slope}", tensor.name, gradient[index]);
            }
        }
    }
}

/// Gradient and loss with some limit of memory and some number of threads.
fn run(family: &str, options: &LoadOptions, threads: usize) -> (f64, Vec<f32>) {
    let (batch, predicted) = examples();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let mut model = open(family, options.clone());
        let loss = model.loss_and_gradient(&batch, &predicted, 1).unwrap();
        (loss, model.learner.gradient.values)
    })
}

#[test]
fn gradients_depend_neither_on_threads_nor_on_memory() {
    let (batch, _) = examples();
    let lengths = batch.lengths();
    for (family, adapted) in FAMILIES.into_iter().flat_map(|family| [(family, false), (family, true)]) {
        for precision in [Precision::F32, Precision::Bf16] {
            let lora = adapted.then(|| LoraConfig { dropout: 0.3, ..Default::default() });
            let options = LoadOptions { precision, lora, memory: Some(1 << 30), ..Default::default() };
            let expected = run(family, &options, 1);
            assert!(expected.1.iter().any(|value| *value != 0.0));
            assert!(expected == run(family, &options, 3), "{family}");
            let shape = ModelFolder::language_model(&folder(family), &options).unwrap().shape;
            let mut groups = 0;
            for limit in (0..400).map(|part| (1 << 22) + (part << 17)) {
                let options = LoadOptions { memory: Some(limit), ..options.clone() };
                let planner = crate::footprint::Planner::new(&shape, &options).unwrap();
                let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
                let Ok(footprint) = pool.install(|| planner.training(&lengths)) else { continue };
                if footprint.recomputation.groups != groups {
                    groups = footprint.recomputation.groups;
                    assert!(expected == run(family, &options, 2), "{family}, {}", footprint.recomputation);
                }
            }
            assert!(groups == 1);
        }
    }
}

/// What is saved stays in the folder that `MOTHERLODE_ADAPTED` names, for `tests/golden/engine.py check-language`.
#[test]
fn language_models_are_saved_whole_and_as_adapters() {
    let (temporary, kept) = (tempfile::tempdir().unwrap(), std::env::var_os("MOTHERLODE_ADAPTED"));
    let place = kept.map_or(temporary.path().to_path_buf(), PathBuf::from);
    for family in FAMILIES {
        let (batch, predicted) = Golden::read(family).examples();
        let out = place.join(family);
        fs::create_dir_all(&out).unwrap();
        let mut adapted = model(family, true, 0.1);
        adapted.save(&out).unwrap();
        let loss = adapted.loss(&batch, &predicted).unwrap();
        fs::write(out.join("loss.json"), loss.to_string()).unwrap();
        let merged = CpuTrainableLm::open(&out, &LoadOptions::default()).unwrap().loss(&batch, &predicted).unwrap();
        assert!((merged - loss).abs() < 1e-4, "{merged} and {loss}");
        let adapter = LoadOptions { adapter: Some(out.join(ADAPTER)), ..Default::default() };
        let laid_over = open(family, adapter).loss(&batch, &predicted).unwrap();
        assert!((laid_over - loss).abs() < 1e-4, "{laid_over} and {loss}");

        let whole = tempfile::tempdir().unwrap();
        let mut plain = model(family, false, 0.0);
        plain.loss_and_gradient(&batch, &predicted, 0).unwrap();
        plain.step(1e-2).unwrap();
        plain.save(whole.path()).unwrap();
        let mut read = CpuTrainableLm::open(whole.path(), &LoadOptions::default()).unwrap();
        assert_eq!(read.loss(&batch, &predicted).unwrap(), plain.loss(&batch, &predicted).unwrap());
    }
}

#[test]
fn training_continues_bit_for_bit_from_its_state_and_learns() {
    let (batch, predicted) = examples();
    let train = |model: &mut CpuTrainableLm, steps: std::ops::Range<u64>| -> Vec<f64> {
        let step = |step| {
            let loss = model.loss_and_gradient(&batch, &predicted, step).unwrap();
            model.step(1e-2).unwrap();
            loss
        };
        steps.map(step).collect()
    };
    for family in FAMILIES {
        let mut straight = model(family, false, 0.1);
        train(&mut straight, 0..2);
        let mut state = Vec::new();
        straight.write_state(&mut state).unwrap();
        let losses = train(&mut straight, 2..10);
        assert!(losses[7] < losses[0], "{losses:?}");
        let mut resumed = model(family, false, 0.1);
        resumed.restore(&mut state.as_slice()).unwrap();
        assert_eq!(train(&mut resumed, 2..10), losses);
    }
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let mut qwen = open(FAMILIES[0], LoadOptions::default());
    let batch: TokenBatch = [vec![1, 2, 3], vec![4, 5]].into_iter().collect();
    for (marks, expected) in [
        (vec![false; 4], "a mark for each of 5 tokens, got 4"),
        (vec![false; 5], "no token of the batch is predicted"),
        (vec![false, true, true, true, true], "sequence 1 of the batch: the first token cannot be predicted"),
    ] {
        let message = qwen.loss(&batch, &marks).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    for family in ["bert", "modern-bert", "llama"] {
        let message = CpuEngine.trainable_lm(&folder(family), &LoadOptions::default()).err().unwrap().to_string();
        assert!(message.contains("expected a causal language model"), "{message}");
    }
    let message = CpuEngine.trainable_lm(&folder("qwen2"), &LoadOptions::default()).err().unwrap().to_string();
    assert!(message.contains("no tensor `lm_head.weight`"), "{message}");
}

#[test]
fn a_loss_that_is_not_finite_leaves_no_gradient() {
    let (batch, predicted) = examples();
    let mut model = model(FAMILIES[1], false, 0.0);
    let last = model.learner.network.weights.len() - 1;
    model.learner.network.weights[last] = f32::NAN;
    let message = model.loss_and_gradient(&batch, &predicted, 0).unwrap_err().to_string();
    assert!(message.contains("the loss is NaN"), "{message}");
    assert!(model.learner.gradient.values.iter().all(|value| *value == 0.0));
}
