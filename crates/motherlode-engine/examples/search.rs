//! Our side of `benches/run search`: the best passages of every query by inner product, exactly.
//!
//! Arguments: a file of passage vectors and one of query vectors (row-major f32), their dimension, the depth, a folder
//! for `ours.ids` and `ours.scores`, and the device.

#[path = "../../motherlode/examples/side/mod.rs"]
mod side;

use std::path::{Path, PathBuf};
use std::time::Instant;

use motherlode::engine::Engine;
use motherlode::error::Error;
use motherlode::index::exact::{Matrix, Member, Search, Similarity, top_k_of_sum};
use motherlode::mapped::MappedFile;
use motherlode::progress::Progress;
use motherlode::run::Ranking;
use motherlode::search::DEFAULT_MEMORY;
use motherlode_engine::DeviceEngine;
use serde_json::json;

fn main() -> motherlode::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [passages, queries, dimension, depth, folder, device] = &arguments[..] else {
        return Err(Error::config("expected: search PASSAGES QUERIES DIMENSION DEPTH FOLDER DEVICE"));
    };
    let number = |text: &str| text.parse::<usize>().map_err(|_| Error::config(format!("`{text}`: expected a number")));
    let (dimension, depth, folder) = (number(dimension)?, number(depth)?, PathBuf::from(folder));
    let (passages, queries) = (MappedFile::open(Path::new(passages))?, MappedFile::open(Path::new(queries))?);
    let (passages, queries) = (matrix(&passages, dimension)?, matrix(&queries, dimension)?);
    let id_ranks: Vec<u32> = (0..passages.rows() as u32).rev().collect();
    let (sieve, silent) = (DeviceEngine { device: device.parse()? }.sieve()?, Progress::silent());
    let search = Search {
        depth,
        id_ranks: &id_ranks,
        memory: DEFAULT_MEMORY,
        task: "search",
        progress: &silent,
        sieve: sieve.as_deref(),
    };
    side::serve(&json!({}), || {
        let start = Instant::now();
        let member = Member { queries, passages, weight: 1.0, similarity: Similarity::Dot };
        let rankings = top_k_of_sum(&[member], search)?;
        let seconds = start.elapsed().as_secs_f64();
        write(&folder, &rankings)?;
        Ok(json!({"seconds": seconds}))
    })
}

fn matrix(file: &MappedFile, dimension: usize) -> motherlode::Result<Matrix<'_>> {
    Matrix::new(dimension, file.values(0, file.bytes().len() / size_of::<f32>())?)
}

fn write(folder: &Path, rankings: &[Ranking]) -> motherlode::Result<()> {
    let scored = || rankings.iter().flatten();
    let ids: Vec<u8> = scored().flat_map(|scored| scored.passage.0.to_le_bytes()).collect();
    let scores: Vec<u8> = scored().flat_map(|scored| scored.score.to_le_bytes()).collect();
    for (name, bytes) in [("ours.ids", ids), ("ours.scores", scores)] {
        let path = folder.join(name);
        std::fs::write(&path, bytes).map_err(Error::io(&path))?;
    }
    Ok(())
}
