//! Our side of `benches/run train-step`: forward, contrastive loss, backward, optimiser step.
//!
//! Arguments: the model's folder, a JSON list of steps (`queries`, and `columns` of passages: the positives, then each
//! query's first negative, and so on; all as token ids), the temperature, the rate, `f32`, `bf16x3` or
//! `bf16`, and, where it is not the CPU, the device.

mod limit;
#[path = "../../motherlode/examples/side/mod.rs"]
mod side;

use std::path::Path;
use std::time::Instant;

use motherlode::engine::{Embeddings, Engine, LoadOptions, Precision, TokenBatch, Trainable};
use motherlode::index::exact::Similarity;
use motherlode::sample::Provenance;
use motherlode::train::loss::{LossInput, LossOptions, LossRow, Reading, contrastive};
use motherlode::{Error, Result};
use motherlode_engine::{Device, DeviceEngine};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Tokens {
    queries: Vec<Vec<u32>>,
    columns: Vec<Vec<Vec<u32>>>,
}

/// A step as the library's own loop sees it: all sequences, queries first, and what the passages are to each query.
struct Step {
    batch: TokenBatch,
    rows: Vec<LossRow>,
}

impl From<Tokens> for Step {
    fn from(tokens: Tokens) -> Self {
        let (count, columns) = (tokens.queries.len(), tokens.columns.len());
        let row = |query: usize| LossRow {
            positive: query,
            negatives: (1..columns).map(|column| (column * count + query, Provenance::Mined)).collect(),
            masked: Vec::new(),
            weight: 1.0,
            teacher: Vec::new(),
        };
        let rows = (0..count).map(row).collect();
        Self { batch: tokens.queries.into_iter().chain(tokens.columns.into_iter().flatten()).collect(), rows }
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, batches, temperature, rate, precision, device @ ..] = &arguments[..] else {
        return Err(Error::config("expected: train_step MODEL BATCHES TEMPERATURE RATE PRECISION [DEVICE]"));
    };
    let engine = DeviceEngine { device: device.first().map_or(Ok(Device::Cpu), |device| device.parse())? };
    let number = |text: &str| text.parse::<f32>().map_err(|_| Error::config(format!("`{text}`: expected a number")));
    let (temperature, rate) = (number(temperature)?, number(rate)?);
    let (folder, path) = (Path::new(model), Path::new(batches));
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let steps: Vec<Tokens> = serde_json::from_str(&text).map_err(|error| Error::file(path, error.to_string()))?;
    let steps: Vec<Step> = steps.into_iter().map(Step::from).collect();
    let options = LoadOptions { precision: parse(precision)?, ..LoadOptions::default() };
    let mut model = engine.trainable(folder, &options)?;
    let options = LossOptions {
        similarity: Similarity::Cosine,
        temperature,
        reading: Reading::None,
        matryoshka: Vec::new(),
        distillation: None,
        query_negatives: false,
    };
    let ready = json!({
        "tokens": steps.iter().map(|step| step.batch.tokens()).sum::<usize>(),
        "flop": 3.0 * steps.iter().map(|step| limit::forward_flop(folder, &step.batch)).sum::<f64>(),
        "peak": limit::peak(),
    });
    let mut first = None;
    side::serve(&ready, || {
        let start = Instant::now();
        let mut train = |step| train(&mut *model, step, &options, rate);
        let losses = steps.iter().map(&mut train).collect::<Result<Vec<f64>>>()?;
        let seconds = start.elapsed().as_secs_f64();
        Ok(json!({"seconds": seconds, "losses": first.get_or_insert(losses)}))
    })
}

/// One step; gives its loss.
fn train(model: &mut dyn Trainable, step: &Step, options: &LossOptions, rate: f32) -> Result<f64> {
    let vectors = model.forward(&step.batch, 0)?;
    let split = step.rows.len();
    let (queries, passages) = (vectors.slice(0..split), vectors.slice(split..vectors.rows()));
    let weights = vec![1.0; passages.rows()];
    let input = LossInput { queries: &queries, passages: &passages, rows: &step.rows, weights: &weights };
    let report = contrastive(&input, options)?;
    let gradient = [report.queries.values(), report.passages.values()].concat();
    model.backward(&step.batch, &Embeddings::new(model.dimension(), gradient)?, 0)?;
    model.step(rate)?;
    Ok(report.loss)
}

fn parse(precision: &str) -> Result<Precision> {
    serde_json::from_value(json!(precision))
        .map_err(|_| Error::config(format!("`{precision}`: expected f32, bf16x3 or bf16")))
}
