//! The scores of the next token, for comparison with other programs: `scores FOLDER < texts`, where FOLDER is a language
//! model of Hugging Face's layout and every line of the input a JSON list of token ids. Writes a JSON list of scores a line.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Mutex;

use motherlode::engine::{Engine, Next, Precision};
use motherlode_engine::CpuEngine;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("expected the folder of a language model")?;
    let model = CpuEngine.language_model_in(Path::new(&folder), Precision::F32)?;
    let mut texts: Vec<Vec<u32>> = Vec::new();
    for line in std::io::stdin().lock().lines() {
        texts.push(serde_json::from_str(&line?)?);
    }
    let seen = Mutex::new(BTreeMap::new());
    model.continue_texts(&[texts], &|_, text, scores| {
        seen.lock().expect("nothing panics while it holds the lock").insert(text, scores.to_vec());
        Next::End
    })?;
    let mut output = std::io::stdout().lock();
    for scores in seen.into_inner()?.values() {
        writeln!(output, "{}", serde_json::to_string(scores)?)?;
    }
    Ok(())
}
