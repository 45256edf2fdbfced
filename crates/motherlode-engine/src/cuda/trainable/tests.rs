//! Encoders of BERT's family against the engine of the processor: on the twin, and on a graphics card where there is
//! one.

use std::path::PathBuf;

use half::bf16;
use motherlode::engine::{Engine, Precision};

use super::*;
use crate::CpuEngine;
use crate::cuda::testing::{backends, twin};
use crate::cuda::twin::Twin;
use crate::kernel::testing::{assert_close, noise};
use crate::tiny::write_random_encoder;
use crate::trainer::CpuTrainable;

const FAMILIES: [&str; 2] = ["bert", "xlm-roberta"];

fn folder(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(family)
}

fn open<A: Element>(backend: &Arc<dyn Backend>, folder: &Path, options: &LoadOptions) -> CardTrainable<A> {
    CardTrainable::open(backend, &ModelFolder::open(folder, options).unwrap(), options).unwrap()
}

fn batch() -> TokenBatch {
    let sequence = |length: &u32| (0..*length).map(|place| (place * 7 + length) % 40).collect::<Vec<_>>();
    [9, 1, 20, 14, 3].iter().map(sequence).collect()
}

fn upstream(dimension: usize, rows: usize) -> Embeddings {
    Embeddings::new(dimension, noise(2, rows * dimension)).unwrap()
}

/// Checks to a share of the greatest value.
fn assert_near(left: &[f32], right: &[f32], share: f32) {
    let scale = right.iter().fold(1e-2_f32, |scale, value| scale.max(value.abs()));
    assert_close(left, right, share * scale);
}

/// The length of the difference of two vectors, as a share of that of the second.
fn distance(left: &[f32], right: &[f32]) -> f32 {
    let length = |values: &mut dyn Iterator<Item = f32>| values.map(|value| value * value).sum::<f32>().sqrt();
    length(&mut left.iter().zip(right).map(|(left, right)| left - right)) / length(&mut right.iter().copied())
}

/// Two steps on both, in the precision of `A`: vectors, gradients tensor by tensor, norms, and vectors of the moved weights.
///
/// The keys' biases are left out: their gradient is zero but for rounding.
fn compare_training<A: Element>(backend: &Arc<dyn Backend>, family: &str, precision: Precision, tolerance: f32) {
    let options = LoadOptions { precision, ..Default::default() };
    let mut expected = CpuTrainable::open(&folder(family), &options).unwrap();
    let mut found = open::<A>(backend, &folder(family), &options);
    let (batch, dimension) = (batch(), found.dimension());
    let upstream = upstream(dimension, batch.len());
    for step in 0..2 {
        let vectors = expected.forward(&batch, step).unwrap();
        assert!(distance(found.forward(&batch, step).unwrap().values(), vectors.values()) < tolerance);
        expected.backward(&batch, &upstream, step).unwrap();
        found.backward(&batch, &upstream, step).unwrap();
        if step == 0 {
            let gradient = found.gradient.read().unwrap();
            let tensors = &found.encoder.network.layout.tensors;
            for tensor in tensors.iter().filter(|tensor| !tensor.name.ends_with("key.bias")) {
                let place = tensor.place.clone();
                let distance = distance(&gradient[place.clone()], &expected.gradient()[place]);
                assert!(distance < tolerance, "{family} {}: {distance}", tensor.name);
            }
        }
        let norms = [expected.step(1e-3).unwrap(), found.step(1e-3).unwrap()].map(|report| report.gradient_norm);
        assert!((norms[1] / norms[0] - 1.0).abs() < tolerance, "{norms:?}");
    }
    let after = expected.encode(&batch).unwrap();
    assert!(distance(found.encode(&batch).unwrap().values(), after.values()) < 5.0 * tolerance);
}

#[test]
fn training_agrees_with_the_processor_in_f32() {
    for (backend, family) in backends().iter().flat_map(|backend| FAMILIES.map(|family| (backend, family))) {
        compare_training::<f32>(backend, family, Precision::F32, 1e-4);
    }
}

#[test]
fn training_agrees_with_the_processor_in_bfloat16() {
    for (backend, family) in backends().iter().flat_map(|backend| FAMILIES.map(|family| (backend, family))) {
        compare_training::<bf16>(backend, family, Precision::Bf16, 5e-2);
    }
}

#[test]
fn encoders_agree_with_adapters_merged_into_their_weights() {
    let options = LoadOptions { adapter: Some(folder("bert").join("adapter")), ..Default::default() };
    let expected = CpuEngine.encoder(&folder("bert"), &options).unwrap().encode(&batch()).unwrap();
    for backend in backends() {
        let model = ModelFolder::open(&folder("bert"), &options).unwrap();
        let encoder = CardEncoder::<f32>::open(&backend, &model, &options).unwrap();
        assert_near(encoder.encode(&batch()).unwrap().values(), expected.values(), 1e-5);
        assert_eq!(encoder.encode(&TokenBatch::default()).unwrap().rows(), 0);
        let error = encoder.encode(&[vec![1, 2], vec![]].into_iter().collect()).unwrap_err().to_string();
        assert!(error.contains("sequence 1 of the batch"), "{error}");
    }
}

/// The gradient of one step within `memory`, and what was computed again.
fn gradient(backend: &Arc<dyn Backend>, folder: &Path, memory: u64) -> (Vec<f32>, Recomputation) {
    let mut trainable = open::<f32>(backend, folder, &LoadOptions { memory: Some(memory), ..Default::default() });
    let (batch, dimension) = (batch(), trainable.dimension());
    trainable.forward(&batch, 0).unwrap();
    trainable.backward(&batch, &upstream(dimension, batch.len()), 0).unwrap();
    (trainable.gradient.read().unwrap(), trainable.encoder.plan.recomputation(&batch.lengths()).unwrap())
}

#[test]
fn what_is_computed_again_gives_the_same_gradient() {
    let Some(backend) = twin() else { return };
    let model = ModelFolder::open(&folder("bert"), &LoadOptions::default()).unwrap();
    let (expected, all_kept) = gradient(&backend, &folder("bert"), 1 << 30);
    assert_eq!(all_kept, Recomputation::default());
    let footprint = |memory| {
        let options = LoadOptions { memory: Some(memory), ..Default::default() };
        CardPlan::new(&model.shape, &options, 0).training(&batch().lengths())
    };
    let mut seen = Vec::new();
    let mut limit = footprint(1 << 30).unwrap().total();
    while let Ok(footprint) = footprint(limit) {
        let (found, recomputation) = gradient(&backend, &folder("bert"), limit);
        assert_eq!(recomputation, footprint.recomputation);
        assert_near(&found, &expected, 1e-5);
        seen.push((recomputation.layers, recomputation.groups > 1));
        limit = limit.min(footprint.total()) * 19 / 20;
    }
    seen.dedup();
    assert_eq!(seen, [(false, false), (true, false), (true, true)]);
    let error = footprint(limit).unwrap_err().to_string();
    assert!(error.contains("one sequence of 20 tokens") && error.contains("`memory` allows"), "{error}");
}

/// A footprint tells the bytes that are allocated: at least these, and at most a quarter more.
#[test]
fn footprints_are_what_is_allocated() {
    if twin().is_none() {
        return;
    }
    let config = serde_json::json!({
        "model_type": "bert", "vocab_size": 50, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3,
        "intermediate_size": 192, "hidden_act": "gelu", "max_position_embeddings": 64, "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
    });
    let folder = tempfile::tempdir().unwrap();
    write_random_encoder(folder.path(), &config, 1).unwrap();
    compare_footprints::<f32>(folder.path(), Precision::F32);
    compare_footprints::<bf16>(folder.path(), Precision::Bf16);
}

fn compare_footprints<A: Element>(folder: &Path, precision: Precision) {
    let options = LoadOptions { precision, ..Default::default() };
    let model = ModelFolder::open(folder, &options).unwrap();
    let plan = CardPlan::new(&model.shape, &options, 1 << 30);
    let (twin, batch) = (Arc::new(Twin::default()), batch());
    let backend: Arc<dyn Backend> = twin.clone();
    let near = |planned: u64| (twin.peak()..twin.peak() * 5 / 4).contains(&(planned as usize));
    CardEncoder::<A>::open(&backend, &model, &options).unwrap().encode(&batch).unwrap();
    let planned = plan.encoding(batch.tokens()).unwrap().total();
    assert!(near(planned), "encoding: {planned}, took {}", twin.peak());
    let mut trainable = CardTrainable::<A>::open(&backend, &model, &options).unwrap();
    trainable.forward(&batch, 0).unwrap();
    trainable.backward(&batch, &upstream(48, batch.len()), 0).unwrap();
    trainable.step(1e-3).unwrap();
    let planned = plan.training(&batch.lengths()).unwrap().total();
    assert!(near(planned), "training: {planned}, took {}", twin.peak());
}

#[test]
fn states_continue_on_the_processor_and_back() {
    for backend in backends() {
        let options = LoadOptions::default();
        let mut card = open::<f32>(&backend, &folder("bert"), &options);
        let (batch, upstream) = (batch(), upstream(card.dimension(), 5));
        let step = |trainable: &mut dyn Trainable, number| {
            trainable.forward(&batch, number).unwrap();
            trainable.backward(&batch, &upstream, number).unwrap();
            trainable.step(1e-3).unwrap();
        };
        step(&mut card, 0);
        let mut state = Vec::new();
        card.write_state(&mut state).unwrap();
        let mut processor = CpuTrainable::open(&folder("bert"), &options).unwrap();
        processor.restore(&mut state.as_slice()).unwrap();
        let mut again = open::<f32>(&backend, &folder("bert"), &options);
        again.restore(&mut state.as_slice()).unwrap();
        [&mut card as &mut dyn Trainable, &mut again, &mut processor].into_iter().for_each(|model| step(model, 1));
        let vectors = card.encode(&batch).unwrap();
        assert_eq!(again.encode(&batch).unwrap(), vectors);
        assert_near(processor.encode(&batch).unwrap().values(), vectors.values(), 1e-3);
    }
}

#[test]
fn what_is_saved_is_read_again() {
    let options = LoadOptions::default();
    let Some(backend) = twin() else { return };
    let trainable = open::<f32>(&backend, &folder("xlm-roberta"), &options);
    let out = tempfile::tempdir().unwrap();
    for name in ["modules.json", "1_Pooling"] {
        assert!(
            std::process::Command::new("cp")
                .arg("-r")
                .arg(folder("xlm-roberta").join(name))
                .arg(out.path())
                .status()
                .unwrap()
                .success()
        );
    }
    trainable.save(out.path()).unwrap();
    let encoder = CpuEngine.encoder(out.path(), &options).unwrap();
    assert_near(encoder.encode(&batch()).unwrap().values(), trainable.encode(&batch()).unwrap().values(), 1e-5);
}

#[test]
fn a_gradient_that_is_not_finite_moves_nothing() {
    let Some(backend) = twin() else { return };
    let mut trainable = open::<f32>(&backend, &folder("bert"), &LoadOptions::default());
    let (batch, before) = (batch(), trainable.encoder.network.weights.read().unwrap());
    let bad = Embeddings::new(trainable.dimension(), vec![f32::INFINITY; 5 * trainable.dimension()]).unwrap();
    trainable.backward(&batch, &bad, 0).unwrap();
    assert!(trainable.step(1e-3).unwrap_err().to_string().contains("after 0 steps is not finite"));
    assert_eq!(trainable.encoder.network.weights.read().unwrap(), before);
    assert!(trainable.gradient.read().unwrap().iter().all(|value| *value == 0.0));
}
