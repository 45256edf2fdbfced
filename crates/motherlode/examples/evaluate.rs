//! Our side of `benches/run evaluate`: measures of a TREC run, from text to one value a query.
//!
//! Arguments: a run, qrels, a file for the values (`query measure value` a line), the measures.

mod side;

use std::path::{Path, PathBuf};
use std::time::Instant;

use motherlode::evaluate::files::{QrelsText, RunText};
use motherlode::evaluate::{Measure, QueryMeasures};
use motherlode::{Error, Result, lines};
use serde_json::json;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut path =
        || arguments.next().map(PathBuf::from).ok_or_else(|| Error::config("expected: evaluate RUN QRELS OUT"));
    let (run_path, qrels_path, out) = (path()?, path()?, path()?);
    let measures = arguments.map(|name| name.parse()).collect::<Result<Vec<Measure>>>()?;
    side::serve(&json!({}), || {
        let start = Instant::now();
        let (run_text, qrels_text) = (lines::read(&run_path)?, lines::read(&qrels_path)?);
        let run = RunText::parse(&run_path, &run_text)?;
        let qrels = QrelsText::parse(&qrels_path, &qrels_text)?;
        let reading = start.elapsed().as_secs_f64();
        let rows = run.measure(&qrels, &measures, false);
        let seconds = start.elapsed().as_secs_f64();
        write(&out, &rows, &measures)?;
        Ok(json!({"seconds": seconds, "after_reading": seconds - reading}))
    })
}

fn write(out: &Path, rows: &[QueryMeasures], measures: &[Measure]) -> Result<()> {
    let mut text = String::new();
    for row in rows {
        for measure in measures {
            text.push_str(&format!("{}\t{measure}\t{}\n", row.query, row.values[measure]));
        }
    }
    std::fs::write(out, text).map_err(Error::io(out))
}
