//! Measures a TREC run against TREC qrels and says how long reading and measuring took.
//!
//!     cargo run --release --example evaluate_speed -- RUN QRELS [MEASURE …]
#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::path::PathBuf;
use std::time::Instant;

use motherlode::evaluate::Measure;
use motherlode::evaluate::files::{QrelsText, RunText, read_text};
use motherlode::{Error, Result};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut path = || {
        arguments
            .next()
            .map(PathBuf::from)
            .ok_or_else(|| Error::config("expected: evaluate_speed RUN QRELS [MEASURE …]"))
    };
    let (run_path, qrels_path) = (path()?, path()?);
    let mut measures = arguments.map(|name| name.parse()).collect::<Result<Vec<Measure>>>()?;
    if measures.is_empty() {
        measures = motherlode::evaluate::EvaluateConfig::default().measures;
    }
    let start = Instant::now();
    let (run_text, qrels_text) = (read_text(&run_path)?, read_text(&qrels_path)?);
    let run = RunText::parse(&run_path, &run_text)?;
    let qrels = QrelsText::parse(&qrels_path, &qrels_text)?;
    let reading = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let rows = run.measure(&qrels, &measures, false);
    let measuring = start.elapsed().as_secs_f64();
    for measure in measures {
        let sum: f64 = rows.iter().map(|(_, values)| values[&measure]).sum();
        println!("{measure}\t{:.6}", sum / rows.len() as f64);
    }
    println!("queries\t{}\nreading\t{reading:.3} s\nmeasuring\t{measuring:.3} s", rows.len());
    Ok(())
}
