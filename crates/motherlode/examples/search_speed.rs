//! Times exact search: `cargo run --release --example search_speed -- [passages] [dimension] [queries] [depth]`.
//!
//! Prints seconds and GFLOP/s (2 · passages · queries · dimension over the time) of the best of three searches, with as many threads as
//! `RAYON_NUM_THREADS` says.
#![expect(clippy::print_stdout, reason = "an example that prints what it measured")]

use std::time::Instant;

use motherlode::index::exact::{Matrix, top_k};
use motherlode::random::keyed;
use motherlode::search::DEFAULT_MEMORY;
use rand::RngExt;
use rayon::prelude::*;

fn main() -> motherlode::Result<()> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>().ok());
    let mut next = |default| arguments.next().flatten().unwrap_or(default);
    let (passages, dimension, queries, depth) = (next(1_000_000), next(384), next(1000), next(100));
    let (matrix, asked) = (unit_vectors(passages, dimension, "passages"), unit_vectors(queries, dimension, "queries"));
    let id_ranks: Vec<u32> = (0..passages as u32).collect();
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let start = Instant::now();
        let (asked, matrix) = (Matrix::new(dimension, &asked)?, Matrix::new(dimension, &matrix)?);
        let rankings = top_k(asked, matrix, depth, &id_ranks, DEFAULT_MEMORY)?;
        best = best.min(start.elapsed().as_secs_f64());
        assert!(rankings.iter().all(|ranking| ranking.len() == depth.min(passages)), "full rankings");
    }
    let operations = 2.0 * passages as f64 * queries as f64 * dimension as f64;
    let threads = rayon::current_num_threads();
    println!("{passages} x {dimension}, {queries} queries, top {depth}, {threads} threads");
    println!("{best:.3} s, {:.1} GFLOP/s", operations / best / 1e9);
    Ok(())
}

/// Random vectors of unit length, row after row.
fn unit_vectors(rows: usize, dimension: usize, name: &str) -> Vec<f32> {
    let mut values = vec![0.0; rows * dimension];
    values.par_chunks_mut(dimension).enumerate().for_each(|(row, vector)| {
        let mut random = keyed(1, name, &row.to_string());
        vector.iter_mut().for_each(|value| *value = random.random::<f32>() - 0.5);
        let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
        vector.iter_mut().for_each(|value| *value /= length);
    });
    values
}
