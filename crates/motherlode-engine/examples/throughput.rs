//! Tokens a second of encoding and of training on sequences of 20 to 256 random tokens.
//!
//! `cargo run --release -p motherlode-engine --example throughput -- FOLDER [SEQUENCES] [ROUNDS] [bf16]`; the
//! number of threads is rayon's, set by `RAYON_NUM_THREADS`. Prints the best round of each. FLOP are those of the matrix products
//! of the blocks alone, attention's included; training counts three times the forward pass.
#![expect(clippy::print_stdout, reason = "an example that reports")]

use std::path::PathBuf;
use std::time::Instant;

use motherlode::engine::{Embeddings, Engine, LoadOptions, Pass, Precision, TokenBatch};
use motherlode_engine::CpuEngine;

struct Sizes {
    vocabulary: usize,
    hidden: usize,
    inner: usize,
    layers: usize,
}

impl Sizes {
    fn read(folder: &std::path::Path) -> Self {
        let text = std::fs::read_to_string(folder.join("config.json")).expect("the folder has a config.json");
        let config: serde_json::Value = text.parse().expect("config.json is JSON");
        let size = |name: &str| config[name].as_u64().expect("config.json has the sizes") as usize;
        Self {
            vocabulary: size("vocab_size"),
            hidden: size("hidden_size"),
            inner: size("intermediate_size"),
            layers: size("num_hidden_layers"),
        }
    }

    /// Floating-point operations of a forward pass.
    fn flop(&self, batch: &TokenBatch) -> f64 {
        let linear = 2 * self.hidden * (4 * self.hidden + 2 * self.inner) * batch.tokens();
        let attention = (0..batch.len()).map(|index| 4 * self.hidden * batch.range(index).len().pow(2)).sum::<usize>();
        ((linear + attention) * self.layers) as f64
    }
}

fn batch(sequences: usize, vocabulary: usize) -> TokenBatch {
    let length = |index: usize| 20 + (index * 73 + 11) % 237;
    let token = |index: usize, place: usize| ((index * 131 + place * 17_389 + 5) % vocabulary) as u32;
    (0..sequences).map(|index| (0..length(index)).map(|place| token(index, place)).collect::<Vec<_>>()).collect()
}

fn best(rounds: usize, mut work: impl FnMut()) -> f64 {
    work();
    let mut seconds = || {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    (0..rounds).map(|_| seconds()).fold(f64::INFINITY, f64::min)
}

fn report(what: &str, seconds: f64, tokens: usize, flop: f64) {
    println!("{what}: {:.0} tokens/s, {:.1} GFLOP/s, {seconds:.3} s", tokens as f64 / seconds, flop / seconds / 1e9);
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().expect("usage: throughput FOLDER [SEQUENCES] [ROUNDS] [bf16]"));
    let mut number = |default: usize| arguments.next().map_or(default, |text| text.parse().expect("a whole number"));
    let (sequences, rounds) = (number(32), number(5));
    let precision = if arguments.next().as_deref() == Some("bf16") { Precision::Bf16 } else { Precision::F32 };
    let options = LoadOptions { precision, ..LoadOptions::default() };
    let sizes = Sizes::read(&folder);
    let batch = batch(sequences, sizes.vocabulary);
    println!(
        "{sequences} sequences, {} tokens, {} threads, {precision:?}",
        batch.tokens(),
        rayon::current_num_threads()
    );

    let encoder = CpuEngine.encoder(&folder, &options).expect("the folder holds an encoder");
    let seconds = best(rounds, || drop(encoder.encode(&batch)));
    report("encode", seconds, batch.tokens(), sizes.flop(&batch));
    drop(encoder);

    let mut encoder = CpuEngine.trainable(&folder, &options).expect("the folder holds an encoder");
    let gradient = Embeddings::new(sizes.hidden, vec![1e-3; batch.len() * sizes.hidden]).expect("rows of that length");
    let pass = Pass { step: 0, chunk: 0, keep: true };
    let seconds = best(rounds, || {
        encoder.forward(&batch, pass).expect("the batch is valid");
        encoder.backward(&batch, &gradient, pass).expect("the gradient fits");
        encoder.step(1e-5).expect("the gradient is finite");
    });
    report("train", seconds, batch.tokens(), 3.0 * sizes.flop(&batch));
    let seconds = best(rounds, || drop(encoder.step(1e-5)));
    println!("optimiser step alone: {seconds:.3} s");
}
