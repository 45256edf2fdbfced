//! Our side of `benches/run bm25`.
//!
//! `bm25 index SOURCE FOLDER MEMORY` measures from a data set in MIRACL's layout to `FOLDER/dataset` and `FOLDER/index`,
//! with so many bytes of memory; `bm25 search FOLDER DEPTH` measures the search for all queries in it, and the analysis
//! that is part of it once more alone, and leaves what it found for the dev split in `FOLDER/ours.trec`; `bm25 terms FOLDER`
//! writes the terms of passages and queries, a line each.

mod side;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use motherlode::artefact::Artefact;
use motherlode::dataset::{Dataset, Partition, Split};
use motherlode::fetch::{self, DatasetConfig};
use motherlode::index::bm25::{self, Bm25Config, Bm25Index, IndexInputs};
use motherlode::progress::Progress;
use motherlode::run::{Ranking, Run, RunNames};
use motherlode::{Error, Result};
use rayon::prelude::*;
use serde_json::json;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<usize>().map_err(|_| Error::config(format!("`{text}`: expected a number")));
    match arguments[..] {
        ["index", source, folder, memory] => index(source, Path::new(folder), number(memory)?),
        ["search", folder, depth] => search(Path::new(folder), number(depth)?),
        ["terms", folder] => terms(Path::new(folder)),
        _ => Err(Error::config("expected: bm25 index SOURCE FOLDER MEMORY, search FOLDER DEPTH, or terms FOLDER")),
    }
}

fn index(source: &str, folder: &Path, memory: usize) -> Result<()> {
    let (dataset, index) = (folder.join("dataset"), folder.join("index"));
    let source = DatasetConfig { source: source.to_owned(), ..DatasetConfig::default() };
    let (config, silent) = (Bm25Config { memory, ..Bm25Config::default() }, Progress::silent());
    side::serve(&json!({}), || {
        for old in [&dataset, &index].into_iter().filter(|old| old.exists()) {
            std::fs::remove_dir_all(old).map_err(Error::io(old))?;
        }
        let start = Instant::now();
        let artefact = fetch::dataset(&source, 1, &dataset, &silent)?;
        let read = start.elapsed().as_secs_f64();
        let inputs = IndexInputs { dataset: &Dataset::open(&artefact)?, dictionary: None };
        let artefact = bm25::index(inputs, &config, &index, &silent)?;
        let seconds = start.elapsed().as_secs_f64();
        let bytes: u64 = artefact.manifest().files.iter().map(|file| file.bytes).sum();
        Ok(json!({"seconds": seconds, "after_reading": seconds - read, "bytes": bytes}))
    })
}

/// The one language of a folder's data set.
fn partition(folder: &Path) -> Result<Partition> {
    let dataset = Dataset::open(&Artefact::open(&folder.join("dataset"))?)?;
    dataset.partitions.into_iter().next().ok_or_else(|| Error::file(folder, "the data set has no language"))
}

/// The texts of the dev queries, then of the train queries.
fn queries(partition: &Partition) -> Result<Vec<&str>> {
    let splits = [partition.split(Split::Dev)?, partition.split(Split::Train)?];
    Ok(splits.into_iter().flat_map(|split| split.queries.iter()).map(|(_, query)| query.text.as_str()).collect())
}

fn search(folder: &Path, depth: usize) -> Result<()> {
    let partition = partition(folder)?;
    let index = Artefact::open(&folder.join("index"))?;
    let index = Bm25Index::open(&index.path(&bm25::file_name(&partition.language)))?;
    let (texts, id_ranks) = (queries(&partition)?, partition.corpus.id_ranks());
    let analyser = Bm25Config::default().analyser(&partition.language);
    side::serve(&json!({"queries": texts.len()}), || {
        let start = Instant::now();
        let rankings = index.search(&texts, depth, &id_ranks);
        let seconds = start.elapsed().as_secs_f64();
        write(&folder.join("ours.trec"), &partition, rankings, &id_ranks)?;
        let start = Instant::now();
        let terms: usize = texts.par_iter().map(|text| analyser.terms(text).len()).sum();
        Ok(json!({"seconds": seconds, "analysis": start.elapsed().as_secs_f64(), "terms": terms}))
    })
}

fn write(path: &Path, partition: &Partition, mut rankings: Vec<Ranking>, id_ranks: &[u32]) -> Result<()> {
    let queries = &partition.split(Split::Dev)?.queries;
    rankings.truncate(queries.len());
    let names = RunNames { path, queries, corpus: &partition.corpus, tag: "ours" };
    let mut output = BufWriter::new(File::create(path).map_err(Error::io(path))?);
    Run::new(rankings, id_ranks).write(&mut output, names)?;
    output.flush().map_err(Error::io(path))
}

fn terms(folder: &Path) -> Result<()> {
    let partition = partition(folder)?;
    let analyser = Bm25Config::default().analyser(&partition.language);
    let write = |name: &str, texts: &mut dyn Iterator<Item = [&str; 2]>| {
        let path = folder.join(name);
        let mut output = BufWriter::new(File::create(&path).map_err(Error::io(&path))?);
        for fields in texts {
            let terms: Vec<String> = fields.iter().flat_map(|field| analyser.terms(field)).collect();
            writeln!(output, "{}", terms.join(" ")).map_err(Error::io(&path))?;
        }
        output.flush().map_err(Error::io(&path))
    };
    write("passages.terms", &mut partition.corpus.iter().map(|passage| [passage.title, passage.text]))?;
    write("queries.terms", &mut queries(&partition)?.into_iter().map(|text| [text, ""]))
}
