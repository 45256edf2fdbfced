use std::fs;

use motherlode::engine::{OptimizerConfig, Precision};
use rand::RngExt;
use safetensors::SafeTensors;

use super::*;
use crate::kernel::lanes::dot;
use crate::kernel::testing::{assert_close, noise};
use crate::tiny::write_tiny_encoder;

const FIRST: Pass = Pass { step: 0, chunk: 0, keep: true };
const AGAIN: Pass = Pass { step: 0, chunk: 0, keep: false };

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

/// One step on a batch of its own, in two chunks.
fn train_step(trainable: &mut CpuTrainable, step: u64) -> StepReport {
    for chunk in 0..2 {
        let batch = batch(100 + 2 * step + u64::from(chunk), 20);
        let pass = Pass { step, chunk, keep: chunk == 0 };
        trainable.forward(&batch, pass).unwrap();
        trainable.backward(&batch, &upstream(step, &batch), pass).unwrap();
    }
    trainable.step(1e-3).unwrap()
}

fn state(trainable: &CpuTrainable) -> Vec<u8> {
    let mut bytes = Vec::new();
    trainable.write_state(&mut bytes).unwrap();
    bytes
}

#[test]
fn the_gradient_is_the_slope_of_the_loss_for_every_kind_of_parameter() {
    for optimizer in [OptimizerConfig::default(), dropping()] {
        let mut trainable = tiny_with(optimizer);
        let (batch, step) = (batch(1, 3), 2e-3);
        let upstream = upstream(2, &batch);
        trainable.backward(&batch, &upstream, AGAIN).unwrap();
        for tensor in trainable.network.layout.tensors.clone() {
            let gradient = trainable.gradient.values[tensor.place.clone()].to_vec();
            let scale = gradient.iter().fold(0.05_f32, |scale, value| scale.max(value.abs()));
            let mut order: Vec<usize> = (0..gradient.len()).collect();
            order.sort_by(|a, b| gradient[*b].abs().total_cmp(&gradient[*a].abs()));
            for index in order.into_iter().step_by(1 + gradient.len() / 7) {
                let mut moved = |by: f32| {
                    let place = tensor.place.start + index;
                    let before = trainable.network.weights[place];
                    trainable.network.weights[place] = before + by;
                    trainable.network.pack();
                    let loss = loss(&trainable.forward(&batch, AGAIN).unwrap(), &upstream);
                    trainable.network.weights[place] = before;
                    loss
                };
                let slope = ((moved(step) - moved(-step)) / f64::from(2.0 * step)) as f32;
                let difference = (slope - gradient[index]).abs();
                assert!(difference < 5e-3 * scale, "{} at {index}: {} and {slope}", tensor.name, gradient[index]);
            }
        }
    }
}

#[test]
fn kept_and_recomputed_activations_give_the_same_gradient_bit_for_bit() {
    let batch = batch(1, 12);
    let gradient = |pass: Pass, other_first: bool| {
        let mut trainable = tiny_with(dropping());
        let outputs = trainable.forward(&batch, pass).unwrap();
        if other_first {
            trainable.forward(&self::batch(9, 4), Pass { chunk: 1, ..pass }).unwrap();
        }
        trainable.backward(&batch, &upstream(2, &batch), pass).unwrap();
        (outputs, trainable.gradient.values)
    };
    let kept = gradient(FIRST, false);
    assert!(kept.1.iter().any(|value| *value != 0.0));
    assert_eq!(kept, gradient(AGAIN, false));
    assert_eq!(kept, gradient(FIRST, true));
}

#[test]
fn the_gradients_of_chunks_add_up_to_that_of_the_undivided_batch() {
    let all = batch(1, 20);
    let upstream = upstream(2, &all);
    let mut whole = tiny();
    whole.backward(&all, &upstream, AGAIN).unwrap();
    let mut parts = tiny();
    for (chunk, range) in [(0, 0..7), (1, 7..8), (2, 8..20)] {
        let pass = Pass { chunk, ..AGAIN };
        parts.backward(&all.slice(range.clone()), &upstream.slice(range), pass).unwrap();
    }
    assert_close(&whole.gradient.values, &parts.gradient.values, 1e-5);
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
    for precision in [Precision::F32, Precision::Bf16] {
        let one = run(1, precision);
        assert!(one == run(2, precision) && one == run(5, precision));
    }
}

#[test]
fn bfloat16_gives_nearly_the_vectors_and_gradients_of_f32() {
    let (batch, optimizer) = (batch(1, 20), dropping());
    let run = |precision: Precision| {
        let mut trainable = tiny_in(precision, optimizer.clone());
        let vectors = trainable.forward(&batch, FIRST).unwrap();
        trainable.backward(&batch, &upstream(2, &batch), FIRST).unwrap();
        (vectors, trainable)
    };
    let ((vectors, single), (near, half)) = (run(Precision::F32), run(Precision::Bf16));
    assert_ne!(vectors, near);
    assert_close(vectors.values(), near.values(), 2e-2);
    let tensors = single.network.layout.tensors.iter();
    for tensor in tensors.filter(|tensor| !tensor.name.ends_with("key.bias")) {
        let [exact, near] = [&single, &half].map(|trainable| &trainable.gradient.values[tensor.place.clone()]);
        let cosine = dot(exact, near) / (dot(exact, exact) * dot(near, near)).sqrt();
        assert!(cosine > 0.999, "{}: cosine {cosine}", tensor.name);
    }
}

#[test]
fn dropout_follows_its_pass_and_encoding_has_none() {
    let (mut trainable, batch) = (tiny_with(dropping()), batch(1, 5));
    let first = trainable.forward(&batch, FIRST).unwrap();
    assert_eq!(first, trainable.forward(&batch, AGAIN).unwrap());
    assert_ne!(first, trainable.forward(&batch, Pass { step: 1, ..FIRST }).unwrap());
    assert_ne!(first, trainable.forward(&batch, Pass { chunk: 1, ..FIRST }).unwrap());
    assert_eq!(trainable.encode(&batch).unwrap(), tiny().forward(&batch, FIRST).unwrap());
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
    assert_eq!(read.network.shape.layers, 2);
    assert_eq!(read.encode(&batch).unwrap(), trainable.encode(&batch).unwrap());
    assert!(fs::read_dir(folder.path()).unwrap().all(|entry| !entry.unwrap().path().ends_with(".tmp")));
}

#[test]
fn a_gradient_that_is_not_finite_moves_nothing_and_is_forgotten() {
    let (mut trainable, batch) = (tiny(), batch(1, 3));
    let before = state(&trainable);
    let mut broken = upstream(2, &batch);
    broken.values_mut()[0] = f32::NAN;
    trainable.backward(&batch, &broken, AGAIN).unwrap();
    assert!(trainable.step(1e-3).unwrap_err().to_string().contains("not finite"));
    assert_eq!(state(&trainable), before);
    assert!(trainable.step(0.0).unwrap().gradient_norm == 0.0);
}

#[test]
fn a_gradient_of_another_shape_is_refused() {
    let (mut trainable, batch) = (tiny(), batch(1, 3));
    let error = trainable.backward(&batch, &Embeddings::zeros(2, 16), AGAIN).unwrap_err().to_string();
    assert!(error.contains("expected (3, 16), got (2, 16)"), "{error}");
}

/// What `tests/golden/engine.py` computed.
struct Golden {
    bytes: Vec<u8>,
    about: Value,
}

impl Golden {
    fn read(folder: &Path) -> Self {
        let about = fs::read_to_string(folder.join("golden.json")).unwrap();
        Self { bytes: fs::read(folder.join("golden.safetensors")).unwrap(), about: about.parse().unwrap() }
    }

    fn tensor(&self, name: &str) -> Vec<f32> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        tensors
            .tensor(name)
            .unwrap()
            .data()
            .chunks(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .collect()
    }

    fn batch(&self) -> TokenBatch {
        serde_json::from_value::<Vec<Vec<u32>>>(self.about["sequences"].clone()).unwrap().into_iter().collect()
    }

    fn number(&self, name: &str) -> f32 {
        self.about[name].as_f64().unwrap() as f32
    }
}

#[test]
fn outputs_gradients_and_steps_agree_with_pytorch() {
    for family in ["bert", "xlm-roberta"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(family);
        let golden = Golden::read(&folder);
        let optimizer = OptimizerConfig {
            weight_decay: golden.number("weight_decay"),
            max_gradient_norm: golden.number("max_gradient_norm"),
            ..Default::default()
        };
        let (mut trainable, batch) = (open(&folder, optimizer), golden.batch());
        let upstream = Embeddings::new(32, golden.tensor("upstream")).unwrap();
        for (step, norm) in golden.tensor("norms").into_iter().enumerate() {
            let pass = Pass { step: step as u64, ..FIRST };
            let outputs = trainable.forward(&batch, pass).unwrap();
            trainable.backward(&batch, &upstream, pass).unwrap();
            if step == 0 {
                assert_close(outputs.values(), &golden.tensor("outputs"), 1e-5);
                compare_gradients(&trainable, &golden);
            }
            let report = trainable.step(golden.number("rate")).unwrap();
            assert!((report.gradient_norm / norm - 1.0).abs() < 1e-4, "{} and {norm}", report.gradient_norm);
        }
        compare_weights(&trainable, &golden);
        assert_close(trainable.encode(&batch).unwrap().values(), &golden.tensor("trained_outputs"), 1e-4);
    }
}

fn compare_gradients(trainable: &CpuTrainable, golden: &Golden) {
    for tensor in &trainable.network.layout.tensors {
        let expected = golden.tensor(&format!("gradient.{}", tensor.name));
        let scale = expected.iter().fold(1e-2_f32, |scale, value| scale.max(value.abs()));
        assert_close(&trainable.gradient.values[tensor.place.clone()], &expected, 1e-4 * scale);
    }
}

/// The keys' biases are left out: their gradient is zero but for rounding, which the optimiser blows up to whole steps.
fn compare_weights(trainable: &CpuTrainable, golden: &Golden) {
    let tensors = trainable.network.layout.tensors.iter();
    for tensor in tensors.filter(|tensor| !tensor.name.ends_with("key.bias")) {
        let expected = golden.tensor(&format!("trained.{}", tensor.name));
        assert_close(&trainable.network.weights[tensor.place.clone()], &expected, 1e-4);
    }
}
