//! The bytes a second of an optimiser step over 250,002 × 384 word embeddings, beside those of the memory.
//!
//! `cargo run --release -p motherlode-engine --example adamw`. A step reads and writes weights and two moments of every row,
//! and the gradient of rows that have one; the memory's rate is that of a loop that reads and writes three arrays as long,
//! on the same threads. Medians of seven.
#![expect(clippy::print_stdout, reason = "an example that reports")]

use std::path::Path;
use std::time::Instant;

use motherlode::engine::{Embeddings, Engine, LoadOptions, TokenBatch, Trainable};
use motherlode::{Error, Result};
use motherlode_engine::CpuEngine;
use motherlode_engine::tiny::write_random_encoder;
use rayon::prelude::*;
use serde_json::json;

const VOCABULARY: usize = 250_002;
const HIDDEN: usize = 384;
const REPEATS: usize = 7;

/// The median of several measurements of `work`, in seconds.
fn seconds(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut once = || -> Result<f64> {
        let start = Instant::now();
        work()?;
        Ok(start.elapsed().as_secs_f64())
    };
    let mut times = (0..REPEATS).map(|_| once()).collect::<Result<Vec<f64>>>()?;
    times.sort_unstable_by(f64::total_cmp);
    Ok(times[REPEATS / 2])
}

/// Bytes a second of reading and writing three arrays as long as the word embeddings.
fn memory_rate() -> Result<f64> {
    let mut arrays = [1.0, 2.0, 3.0].map(|value: f32| vec![value; VOCABULARY * HIDDEN]);
    let [first, second, third] = &mut arrays;
    let seconds = seconds(|| {
        let parts =
            first.par_chunks_mut(1 << 15).zip(second.par_chunks_mut(1 << 15)).zip(third.par_chunks_mut(1 << 15));
        parts.for_each(|((first, second), third)| {
            for ((first, second), third) in first.iter_mut().zip(second).zip(third) {
                (*first, *second, *third) = (*first * 0.999, *second * 0.999, *third * 0.999);
            }
        });
        Ok(())
    })?;
    Ok(bytes(6) / seconds)
}

/// Bytes of so many arrays as long as the word embeddings.
fn bytes(arrays: usize) -> f64 {
    (arrays * size_of::<f32>() * VOCABULARY * HIDDEN) as f64
}

/// An encoder of one layer whose every word has had a gradient.
fn open(folder: &Path) -> Result<Box<dyn Trainable>> {
    let config = json!({
        "model_type": "bert", "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "num_hidden_layers": 1,
        "num_attention_heads": 12, "intermediate_size": 4, "hidden_act": "gelu", "max_position_embeddings": 512,
        "type_vocab_size": 1, "layer_norm_eps": 1e-12,
    });
    write_random_encoder(folder, &config, 1)?;
    let mut model = CpuEngine.trainable(folder, &LoadOptions::default())?;
    learn(&mut *model, 0)?;
    model.step(1e-4)?;
    Ok(model)
}

/// Gives every word a gradient.
fn learn(model: &mut dyn Trainable, step: u64) -> Result<()> {
    let words: Vec<u32> = (0..VOCABULARY as u32).collect();
    for words in words.chunks(1 << 14) {
        let batch: TokenBatch = words.chunks(64).collect();
        model.backward(&batch, &Embeddings::new(HIDDEN, vec![0.1; batch.len() * HIDDEN])?, step)?;
    }
    Ok(())
}

fn main() -> Result<()> {
    let folder = tempfile::tempdir().map_err(Error::io("."))?;
    let rate = memory_rate()?;
    println!("memory: {:.1} GB/s on {} threads", rate / 1e9, rayon::current_num_threads());
    let mut model = open(folder.path())?;
    let lazy = seconds(|| model.step(1e-4).map(|_| ()))?;
    report("no row with a gradient", bytes(6), lazy, rate);
    let mut times = Vec::new();
    for step in 1..=REPEATS as u64 {
        learn(&mut *model, step)?;
        let start = Instant::now();
        model.step(1e-4)?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_unstable_by(f64::total_cmp);
    // The gradient is read for its norm, read again and cleared.
    report("all rows with a gradient", bytes(9), times[REPEATS / 2], rate);
    Ok(())
}

fn report(what: &str, bytes: f64, seconds: f64, rate: f64) {
    let share = 100.0 * bytes / seconds / rate;
    let (milliseconds, gigabytes) = (1e3 * seconds, bytes / seconds / 1e9);
    println!("step, {what}: {milliseconds:.0} ms, {gigabytes:.1} GB/s, {share:.0} % of the memory's");
}
