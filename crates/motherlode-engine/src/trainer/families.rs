//! Every family against transformers, and its adapters against peft; and the laws that hold for each of them.

use std::fs;
use std::path::PathBuf;

use motherlode::engine::{Engine, LoraConfig, OptimizerConfig};
use safetensors::SafeTensors;

use super::tests::{assert_slopes, state};
use super::*;
use crate::CpuEngine;
use crate::kernel::testing::{assert_close, noise};
use crate::tiny::write_random_encoder;

const FAMILIES: [&str; 7] = ["bert", "xlm-roberta", "modern-bert", "qwen2", "qwen3", "llama", "mistral"];
/// Families for which peft made adapters.
const ADAPTED: [&str; 3] = ["bert", "modern-bert", "qwen3"];

fn folder(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(family)
}

fn open(family: &str, options: LoadOptions) -> CpuTrainable {
    CpuTrainable::open(&folder(family), &LoadOptions { seed: 5, ..options }).unwrap()
}

fn dropping() -> OptimizerConfig {
    OptimizerConfig { dropout: 0.2, ..Default::default() }
}

/// Adapters of all linear maps, with values everywhere.
fn adapted(family: &str, dropout: f32) -> CpuTrainable {
    let lora = LoraConfig { rank: 2, alpha: 2.0, dropout, ..Default::default() };
    let mut trainable = open(family, LoadOptions { lora: Some(lora), ..Default::default() });
    let (_, weights) = trainable.learner.network.trained_mut();
    weights.iter_mut().zip(noise(9, 100_000)).for_each(|(weight, value)| *weight = 0.2 * value);
    trainable
}

/// Sequences that every family can take, longer than the windows.
fn batch() -> TokenBatch {
    [9_u32, 1, 20, 14, 3]
        .iter()
        .map(|length| (0..*length).map(|place| (place * 7 + length) % 40).collect::<Vec<_>>())
        .collect()
}

fn upstream(trainable: &CpuTrainable, batch: &TokenBatch) -> Embeddings {
    let dimension = trainable.dimension();
    Embeddings::new(dimension, noise(2, batch.len() * dimension)).unwrap()
}

/// What `tests/golden/engine.py` computed.
struct Golden {
    bytes: Vec<u8>,
    about: Value,
}

impl Golden {
    /// `tensors` is a folder below the one of `golden.json`.
    fn read(folder: &Path, tensors: &str) -> Self {
        let about = fs::read_to_string(folder.join("golden.json")).unwrap();
        let bytes = fs::read(folder.join(tensors).join("golden.safetensors")).unwrap();
        Self { bytes, about: about.parse().unwrap() }
    }

    fn tensor(&self, name: &str) -> Option<Vec<f32>> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let values = |data: &[u8]| data.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
        tensors.tensor(name).ok().map(|tensor| values(tensor.data()))
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
    for family in FAMILIES {
        let golden = Golden::read(&folder(family), "");
        let optimizer = OptimizerConfig {
            weight_decay: golden.number("weight_decay"),
            max_gradient_norm: golden.number("max_gradient_norm"),
            ..Default::default()
        };
        let (mut trainable, batch) = (open(family, LoadOptions { optimizer, ..Default::default() }), golden.batch());
        let upstream = Embeddings::new(trainable.dimension(), golden.tensor("upstream").unwrap()).unwrap();
        for (step, norm) in golden.tensor("norms").unwrap().into_iter().enumerate() {
            let outputs = trainable.forward(&batch, step as u64).unwrap();
            trainable.backward(&batch, &upstream, step as u64).unwrap();
            if step == 0 {
                println!("{family}");
                assert_close(outputs.values(), &golden.tensor("outputs").unwrap(), 1e-5);
                compare_gradients(&trainable, &golden);
            }
            let report = trainable.step(golden.number("rate")).unwrap();
            assert!((report.gradient_norm / norm - 1.0).abs() < 1e-4, "{} and {norm}", report.gradient_norm);
        }
        compare_weights(&trainable, &golden);
        let trained = trainable.encode(&batch).unwrap();
        assert_close(trained.values(), &golden.tensor("trained_outputs").unwrap(), 1e-3);
    }
}

fn compare_gradients(trainable: &CpuTrainable, golden: &Golden) {
    for tensor in &trainable.learner.network.trained().0.tensors {
        let expected = golden.tensor(&format!("gradient.{}", tensor.name)).unwrap();
        let scale = expected.iter().fold(1e-2_f32, |scale, value| scale.max(value.abs()));
        println!("{}", tensor.name);
        assert_close(&trainable.learner.gradient.values[tensor.place.clone()], &expected, 1e-4 * scale);
    }
}

/// To a tenth of a step: the optimiser divides small gradients by their size, and so blows up their rounding.
/// The keys' biases are left out: without rotary positions their gradient is zero but for rounding, which the optimiser
/// blows up to whole steps.
fn compare_weights(trainable: &CpuTrainable, golden: &Golden) {
    let tensors = trainable.learner.network.layout.tensors.iter();
    for tensor in tensors.filter(|tensor| !tensor.name.ends_with("key.bias")) {
        let expected = golden.tensor(&format!("trained.{}", tensor.name)).unwrap();
        println!("{}", tensor.name);
        assert_close(&trainable.learner.network.weights[tensor.place.clone()], &expected, 1e-3);
    }
}

#[test]
fn adapters_agree_with_peft_in_outputs_gradients_and_files() {
    for family in ADAPTED {
        println!("{family}");
        let (golden, base) = (Golden::read(&folder(family), "adapter"), Golden::read(&folder(family), ""));
        let path = folder(family).join("adapter");
        let read =
            peft::read(&path, &ModelFolder::open(&folder(family), &LoadOptions::default()).unwrap().shape).unwrap();
        let lora = LoraConfig { dropout: 0.0, ..read.config };
        let options = LoadOptions { lora: Some(lora), adapter: Some(path.clone()), ..Default::default() };
        let (mut trainable, batch) = (open(family, options), base.batch());
        let outputs = trainable.forward(&batch, 0).unwrap();
        assert_close(outputs.values(), &golden.tensor("outputs").unwrap(), 1e-5);
        let upstream = Embeddings::new(trainable.dimension(), base.tensor("upstream").unwrap()).unwrap();
        trainable.backward(&batch, &upstream, 0).unwrap();
        compare_gradients(&trainable, &golden);

        let merged = open(family, LoadOptions { adapter: Some(path.clone()), ..Default::default() });
        assert_close(merged.encode(&batch).unwrap().values(), outputs.values(), 1e-5);

        let out = tempfile::tempdir().unwrap();
        trainable.save(out.path()).unwrap();
        let tensors = |folder: &Path| {
            let bytes = fs::read(folder.join("adapter_model.safetensors")).unwrap();
            let tensors = SafeTensors::deserialize(&bytes).unwrap();
            let mut all: Vec<_> =
                tensors.tensors().into_iter().map(|(name, view)| (name, view.data().to_vec())).collect();
            all.sort();
            all
        };
        assert!(tensors(&out.path().join("adapter")) == tensors(&path));
    }
}

#[test]
fn adapters_beside_the_weights_belong_to_the_model() {
    for family in ADAPTED {
        let (out, adapter, batch) = (tempfile::tempdir().unwrap(), folder(family).join("adapter"), batch());
        fs::create_dir(out.path().join("1_Pooling")).unwrap();
        for file in ["modules.json", "1_Pooling/config.json", "config.json", "model.safetensors"] {
            fs::copy(folder(family).join(file), out.path().join(file)).unwrap();
        }
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            fs::copy(adapter.join(file), out.path().join(file)).unwrap();
        }
        let expected =
            open(family, LoadOptions { adapter: Some(adapter), ..Default::default() }).encode(&batch).unwrap();
        let encoder = CpuEngine.encoder(out.path(), &LoadOptions::default()).unwrap();
        assert_eq!(encoder.encode(&batch).unwrap(), expected);
        let lora = LoadOptions { lora: Some(LoraConfig::default()), ..Default::default() };
        assert_eq!(CpuEngine.trainable(out.path(), &lora).unwrap().encode(&batch).unwrap(), expected);
    }
}

/// What is saved stays in the folder that `MOTHERLODE_ADAPTED` names, for `tests/golden/engine.py check`.
#[test]
fn merged_adapters_are_saved_as_a_plain_model_with_the_same_vectors() {
    let (temporary, kept) = (tempfile::tempdir().unwrap(), std::env::var_os("MOTHERLODE_ADAPTED"));
    let place = kept.map_or(temporary.path().to_path_buf(), PathBuf::from);
    for family in FAMILIES {
        let (out, batch) = (place.join(family), batch());
        let trainable = adapted(family, 0.1);
        fs::create_dir_all(out.join("1_Pooling")).unwrap();
        for file in ["modules.json", "1_Pooling/config.json"] {
            fs::copy(folder(family).join(file), out.join(file)).unwrap();
        }
        trainable.save(&out).unwrap();
        let read = CpuTrainable::open(&out, &LoadOptions::default()).unwrap();
        assert_close(read.encode(&batch).unwrap().values(), trainable.encode(&batch).unwrap().values(), 1e-4);
    }
}

#[test]
fn fresh_adapters_change_nothing_and_training_moves_them_alone() {
    for family in FAMILIES {
        let batch = batch();
        let lora = LoraConfig::default();
        let mut trainable = open(family, LoadOptions { lora: Some(lora), ..Default::default() });
        let plain = open(family, LoadOptions::default());
        assert_eq!(trainable.encode(&batch).unwrap(), plain.encode(&batch).unwrap());
        for step in 0..2 {
            trainable.forward(&batch, step).unwrap();
            trainable.backward(&batch, &upstream(&plain, &batch), step).unwrap();
            assert!(trainable.step(1e-2).unwrap().gradient_norm > 0.0);
        }
        assert_eq!(trainable.learner.network.weights, plain.learner.network.weights);
        assert_ne!(trainable.encode(&batch).unwrap(), plain.encode(&batch).unwrap());
        let middle = state(&trainable);
        let mut resumed = open(family, LoadOptions { lora: Some(LoraConfig::default()), ..Default::default() });
        resumed.restore(&mut middle.as_slice()).unwrap();
        assert_eq!(resumed.encode(&batch).unwrap(), trainable.encode(&batch).unwrap());
    }
}

#[test]
fn gradients_are_slopes_with_dropout_for_weights_and_for_adapters() {
    for family in ["modern-bert", "qwen3", "llama", "mistral"] {
        println!("{family}");
        assert_slopes(&mut open(family, LoadOptions { optimizer: dropping(), ..Default::default() }), &batch());
        assert_slopes(&mut adapted(family, 0.3), &batch());
    }
    assert_slopes(&mut adapted("bert", 0.3), &batch());
}

#[test]
fn results_do_not_depend_on_threads_or_on_the_batch() {
    for (family, with_adapters) in FAMILIES.iter().flat_map(|family| [(family, false), (family, true)]) {
        let make = || {
            if with_adapters {
                adapted(family, 0.3)
            } else {
                open(family, LoadOptions { optimizer: dropping(), ..Default::default() })
            }
        };
        let sequences: TokenBatch = (0..40).map(|index| batch().sequence(index % 5).to_vec()).collect();
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut trainable = make();
                for step in 0..2 {
                    trainable.forward(&sequences, step).unwrap();
                    trainable.backward(&sequences, &upstream(&trainable, &sequences), step).unwrap();
                    trainable.step(1e-3).unwrap();
                }
                (state(&trainable), trainable.encode(&sequences).unwrap())
            })
        };
        let one = run(1);
        assert!(one == run(3), "{family}");
        let trainable = make();
        let together = trainable.encode(&sequences).unwrap();
        for index in 0..5 {
            assert_eq!(trainable.encode(&sequences.slice(index..index + 1)).unwrap().row(0), together.row(index));
        }
    }
}

/// Every recomputation that some limit of memory leads to, with such a limit.
fn recomputations(family: &str, options: &LoadOptions, lengths: &[usize]) -> Vec<(Recomputation, u64)> {
    let (mut found, mut limit) = (Vec::<(Recomputation, u64)>::new(), u64::MAX >> 1);
    let with = |limit| LoadOptions { memory: Some(limit), ..options.clone() };
    while let Ok(footprint) = CpuEngine.training_footprint(&folder(family), &with(limit), lengths) {
        if found.last().is_none_or(|(last, _)| *last != footprint.recomputation) {
            found.push((footprint.recomputation, limit));
        }
        limit = footprint.total() - 1;
    }
    found
}

#[test]
fn gradients_do_not_depend_on_memory() {
    let lora = LoraConfig { rank: 2, dropout: 0.3, ..Default::default() };
    let sequences: TokenBatch = (0..40).map(|index| batch().sequence(index % 5).to_vec()).collect();
    let lengths = sequences.lengths();
    for (family, lora) in FAMILIES.iter().flat_map(|family| [(family, None), (family, Some(lora.clone()))]) {
        let options = LoadOptions { optimizer: dropping(), lora, ..Default::default() };
        let ways = recomputations(family, &options, &lengths);
        let kinds: Vec<(bool, bool)> = ways.iter().map(|(way, _)| (way.layers, way.groups > 1)).collect();
        for kind in [(false, false), (true, false), (true, true)] {
            assert!(kinds.contains(&kind), "{family}: {kinds:?}");
        }
        let run = |limit: u64| {
            let mut trainable = open(family, LoadOptions { memory: Some(limit), ..options.clone() });
            let vectors = trainable.forward(&sequences, 1).unwrap();
            trainable.backward(&sequences, &upstream(&trainable, &sequences), 1).unwrap();
            (vectors, trainable.learner.gradient.values)
        };
        let expected = run(u64::MAX >> 1);
        for (way, limit) in ways {
            assert!(run(limit) == expected, "{family}, {way}");
        }
    }
}

#[test]
fn too_little_memory_is_refused_with_what_would_fit() {
    let (folder, config) = (
        tempfile::tempdir().unwrap(),
        serde_json::json!({
            "model_type": "bert", "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 32, "hidden_act": "gelu", "max_position_embeddings": 512, "type_vocab_size": 2,
            "layer_norm_eps": 1e-12,
        }),
    );
    write_random_encoder(folder.path(), &config, 1).unwrap();
    let refusal = |memory: u64| {
        let options = LoadOptions { memory: Some(memory), ..Default::default() };
        CpuEngine.training_footprint(folder.path(), &options, &[500; 4]).err().map(|error| error.to_string())
    };
    let message = refusal(1000).unwrap();
    assert!(message.contains("training needs at least") && message.contains("`memory` allows 1000 B"), "{message}");
    assert!(message.contains("`train.lora`"), "{message}");
    let message = (1..1 << 14).map_while(|kibibytes| refusal(kibibytes << 10)).last().unwrap();
    assert!(message.contains("sequences of up to 4") && message.contains("`encoder.passage_length`"), "{message}");
}

#[test]
fn adapters_that_do_not_fit_are_refused() {
    let error =
        |family: &str, options: &LoadOptions| CpuTrainable::open(&folder(family), options).unwrap_err().to_string();
    let with = |lora: LoraConfig| LoadOptions { lora: Some(lora), ..Default::default() };
    let foreign = LoraConfig { targets: vec!["q_proj".into(), "query".into()], ..Default::default() };
    let message = error("qwen3", &with(foreign));
    assert!(message.contains("`query` is no linear map") && message.contains("self_attn.q_proj"), "{message}");
    assert!(error("bert", &with(LoraConfig { rank: 0, ..Default::default() })).contains("`lora.rank`"));
    let other = LoadOptions { adapter: Some(folder("qwen3").join("adapter")), ..Default::default() };
    assert!(error("bert", &other).contains("is no linear map"));
    let mut differing = with(LoraConfig::default());
    differing.adapter = Some(folder("bert").join("adapter"));
    assert!(error("bert", &differing).contains("set them to those of adapter_config.json"));
}

#[test]
fn adapter_settings_that_are_not_computed_are_refused() {
    for (key, value) in [
        ("use_dora", serde_json::json!(true)),
        ("modules_to_save", serde_json::json!(["pooler"])),
        ("rank_pattern", serde_json::json!({"query": 4})),
        ("bias", serde_json::json!("all")),
        ("peft_type", serde_json::json!("IA3")),
        ("target_modules", serde_json::json!(".*query")),
    ] {
        let (copy, adapter) = (tempfile::tempdir().unwrap(), folder("bert").join("adapter"));
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            fs::copy(adapter.join(file), copy.path().join(file)).unwrap();
        }
        let path = copy.path().join("adapter_config.json");
        let mut config: Value = fs::read_to_string(&path).unwrap().parse().unwrap();
        config[key] = value;
        fs::write(&path, config.to_string()).unwrap();
        let shape = ModelFolder::open(&folder("bert"), &LoadOptions::default()).unwrap().shape;
        let message = peft::read(copy.path(), &shape).unwrap_err().to_string();
        assert!(message.contains("adapter_config.json"), "{key}: {message}");
    }
}
