//! Our side of `benches/run encode`: from texts to vectors.
//!
//! Arguments: the model's folder, a JSON list of texts, the most tokens of a text, a file for the vectors, `f32`,
//! `bf16x3` or `bf16`, and, where they are not the CPU and the default, the device and the tokens of a batch.

mod limit;
#[path = "../../motherlode/examples/side/mod.rs"]
mod side;

use std::path::{Path, PathBuf};
use std::time::Instant;

use motherlode::corpus::Passage;
use motherlode::encode::{EncoderConfig, EncoderInput, TextEncoder};
use motherlode::engine::Precision;
use motherlode::{Error, Result};
use motherlode_engine::{Device, DeviceEngine};
use serde_json::json;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, texts, length, out, precision, others @ ..] = &arguments[..] else {
        return Err(Error::config("expected: encode MODEL TEXTS LENGTH OUT PRECISION [DEVICE [BATCH_TOKENS]]"));
    };
    let engine = DeviceEngine { device: others.first().map_or(Ok(Device::Cpu), |device| device.parse())? };
    let (model, out) = (Path::new(model), PathBuf::from(out));
    let number = |text: &String| text.parse().map_err(|_| Error::config(format!("`{text}`: expected a number")));
    let (passage_length, default) = (number(length)?, EncoderConfig::default());
    let batch_tokens = others.get(1).map_or(Ok(default.batch_tokens), number)?;
    let text = std::fs::read_to_string(texts).map_err(Error::io(Path::new(texts)))?;
    let texts: Vec<String> =
        serde_json::from_str(&text).map_err(|error| Error::file(Path::new(texts), error.to_string()))?;
    let passages: Vec<Passage<'_>> = texts.iter().map(|text| Passage { id: "", title: "", text }).collect();
    let precision = parse(precision)?;
    let config = EncoderConfig { passage_length, precision, batch_tokens, ..default };
    let encoder = TextEncoder::open(&engine, model, &config)?;
    let batch = EncoderInput::open(model, &config)?.passages(&passages)?;
    let ready = json!({
        "tokens": batch.tokens(), "flop": limit::forward_flop(model, &batch), "peak": limit::peak(),
    });
    side::serve(&ready, || {
        let start = Instant::now();
        let vectors = encoder.passages(&passages)?;
        let seconds = start.elapsed().as_secs_f64();
        std::fs::write(&out, bytemuck::cast_slice(vectors.values())).map_err(Error::io(&out))?;
        Ok(json!({"seconds": seconds}))
    })
}

fn parse(precision: &str) -> Result<Precision> {
    serde_json::from_value(json!(precision))
        .map_err(|_| Error::config(format!("`{precision}`: expected f32, bf16x3 or bf16")))
}
