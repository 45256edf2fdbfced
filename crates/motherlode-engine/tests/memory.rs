//! What is really allocated in encoding and training, beside the footprint that is told beforehand.
#![expect(clippy::unwrap_used, reason = "a test stops where something unexpected happens")]

use std::path::Path;

use motherlode::engine::{Embeddings, Engine, Footprint, LoadOptions, LoraConfig, Precision, TokenBatch};
use motherlode_engine::CpuEngine;
use motherlode_engine::tiny::write_random_encoder;
use peak_alloc::PeakAlloc;
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// Threads that count for the working memory.
const THREADS: usize = 2;
/// A footprint may be wrong by this share.
const TOLERANCE: f64 = 0.1;

/// The shape of small encoders, with fewer layers and words.
fn bert() -> Value {
    json!({
        "model_type": "bert", "vocab_size": 20_000, "hidden_size": 384, "num_hidden_layers": 4,
        "num_attention_heads": 12, "intermediate_size": 1536, "hidden_act": "gelu", "max_position_embeddings": 512,
        "type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_token_id": 0,
    })
}

fn qwen3() -> Value {
    json!({
        "model_type": "qwen3", "vocab_size": 12_000, "hidden_size": 256, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 128, "intermediate_size": 768,
        "hidden_act": "silu", "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
    })
}

fn modern_bert() -> Value {
    json!({
        "model_type": "modernbert", "vocab_size": 12_000, "hidden_size": 256, "num_hidden_layers": 4,
        "num_attention_heads": 4, "intermediate_size": 384, "hidden_activation": "gelu",
        "max_position_embeddings": 1024, "norm_eps": 1e-5, "norm_bias": false, "attention_bias": false,
        "mlp_bias": false, "local_attention": 128, "global_attn_every_n_layers": 3, "global_rope_theta": 160_000.0,
        "local_rope_theta": 10_000.0,
    })
}

/// Queries, passages and one longer text; `share` makes all of them shorter.
fn lengths(share: usize) -> Vec<usize> {
    let passages = (0..10).map(|index| (60 + (index * 53) % 190) / share);
    [300 / share, 20, 14, 31].into_iter().chain(passages).collect()
}

fn batch(lengths: &[usize]) -> TokenBatch {
    let sequence = |length: usize| (0..length as u32).map(|place| (place * 37 + 11) % 9000).collect::<Vec<_>>();
    lengths.iter().map(|length| sequence(*length)).collect()
}

/// The most bytes that `work` has allocated beyond what there was before.
fn peak(work: impl FnOnce() + Send) -> u64 {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(THREADS).build().unwrap();
    pool.install(|| {
        let before = ALLOCATED.current_usage();
        ALLOCATED.reset_peak_usage();
        work();
        (ALLOCATED.peak_usage() - before) as u64
    })
}

fn train(folder: &Path, options: &LoadOptions) {
    let mut model = CpuEngine.trainable(folder, options).unwrap();
    for (step, share) in [4, 1].into_iter().enumerate() {
        let batch = batch(&lengths(share));
        model.forward(&batch, step as u64).unwrap();
        let gradient = Embeddings::new(model.dimension(), vec![0.01; batch.len() * model.dimension()]).unwrap();
        model.backward(&batch, &gradient, step as u64).unwrap();
        model.step(1e-4).unwrap();
        model.encode(&batch).unwrap();
    }
}

fn assert_near(what: &str, footprint: &Footprint, peak: u64) {
    let ratio = peak as f64 / footprint.total() as f64;
    assert!((ratio - 1.0).abs() < TOLERANCE, "{what}: {footprint}; allocated {peak} bytes");
}

fn within_pool<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(THREADS).build().unwrap().install(work)
}

/// One test, because the allocator counts for the whole process.
#[test]
fn footprints_are_what_is_allocated() {
    let lora = Some(LoraConfig::default());
    let cases = [
        ("bert", bert(), LoadOptions::default()),
        ("bert in bf16x3", bert(), LoadOptions { precision: Precision::Bf16x3, ..Default::default() }),
        ("bert in bfloat16", bert(), LoadOptions { precision: Precision::Bf16, ..Default::default() }),
        ("bert with adapters", bert(), LoadOptions { lora: lora.clone(), ..Default::default() }),
        ("qwen3", qwen3(), LoadOptions::default()),
        ("qwen3 with adapters", qwen3(), LoadOptions { lora, ..Default::default() }),
        ("modern-bert", modern_bert(), LoadOptions::default()),
    ];
    for (name, config, options) in cases {
        let folder = tempfile::tempdir().unwrap();
        write_random_encoder(folder.path(), &config, 1).unwrap();
        let options = LoadOptions { memory: Some(1 << 40), ..options };
        let longest = *lengths(1).iter().max().unwrap();
        let footprint = within_pool(|| CpuEngine.encoding_footprint(folder.path(), &options, longest)).unwrap();
        let tight = LoadOptions { memory: Some(footprint.total() - 1), ..options.clone() };
        let refused = within_pool(|| CpuEngine.encoding_footprint(folder.path(), &tight, longest)).unwrap_err();
        assert!(refused.to_string().contains("encoding takes"), "{refused}");
        let plain = LoadOptions { lora: None, ..options.clone() };
        let encoding = peak(|| {
            let encoder = CpuEngine.encoder(folder.path(), &plain).unwrap();
            [3, 1].into_iter().for_each(|share| drop(encoder.encode(&batch(&lengths(share))).unwrap()));
        });
        if options.lora.is_none() {
            assert_near(&format!("{name}, encoding"), &footprint, encoding);
        }
        let mut limit = 1 << 40;
        for _ in 0..3 {
            let options = LoadOptions { memory: Some(limit), ..options.clone() };
            let footprint = within_pool(|| CpuEngine.training_footprint(folder.path(), &options, &lengths(1))).unwrap();
            assert!(footprint.total() <= limit);
            assert_near(name, &footprint, peak(|| train(folder.path(), &options)));
            limit = footprint.total() - 1;
        }
    }
}
