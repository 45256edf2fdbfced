//! Labels on their way out: as qrels, as calibration for `judge`, and as they are.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Inspector;
use super::agreement::{by_pair, settled, settled_items, weights};
use super::labels::Pair;
use crate::artefact::write_whole;
use crate::corpus::Language;
use crate::error::{Error, Result};

/// What labels become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Exported {
    /// TREC qrels of one language: the grade that most annotators gave.
    Qrels(Language),
    /// A line for every settled pair of the audit sample, as `judge` takes them.
    Calibration,
    /// A line for every label.
    Labels,
}

/// A line of calibration: a file of labels, each of them what people settled on.
#[derive(Serialize)]
struct Calibrating<'a> {
    #[serde(flatten)]
    pair: &'a Pair,
    grade: u8,
    /// For how many candidates of its language and verdict the pair stands.
    weight: f64,
}

impl Inspector {
    /// What can be exported, by file name.
    pub(super) fn exports(&self) -> Vec<(String, Exported)> {
        let languages = self.catalogue.languages.iter().map(|files| &files.language);
        let qrels = languages.map(|language| (format!("{language}.qrels.tsv"), Exported::Qrels(language.clone())));
        let whole = [("calibration.jsonl", Exported::Calibration), ("labels.jsonl", Exported::Labels)];
        qrels.chain(whole.map(|(name, what)| (name.to_owned(), what))).collect()
    }

    /// Writes every export that has a line into `folder`, and returns the files.
    pub fn export_to(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let mut written = Vec::new();
        for (name, what) in self.exports() {
            let (path, text) = (folder.join(name), self.export(&what)?);
            if !text.is_empty() {
                write_whole(&path, |output| output.write_all(text.as_bytes()).map_err(Error::io(&path)))?;
                written.push(path);
            }
        }
        Ok(written)
    }

    /// The text of an export. Pairs on which annotators are at odds stand in no qrels and in no calibration.
    ///
    /// *Order*: qrels and calibration by pair, labels as they were given.
    pub(super) fn export(&self, what: &Exported) -> Result<String> {
        let labels = self.labels.current(self.dataset())?;
        let pairs = by_pair(&labels);
        let mut text = String::new();
        match what {
            Exported::Qrels(language) => {
                for (pair, labels) in pairs.iter().filter(|(pair, _)| pair.language == *language) {
                    if let Some(grade) = settled(labels) {
                        let Pair { query, passage, .. } = pair;
                        writeln!(text, "{query}\tQ0\t{passage}\t{grade}").expect("a string takes everything");
                    }
                }
            }
            Exported::Calibration => {
                let weights = weights(&self.audit, &pairs);
                let mut lines: Vec<Calibrating> = settled_items(&self.audit, &pairs)
                    .map(|(item, grade)| {
                        let weight = weights[&(item.pair.language.clone(), item.stratum)];
                        Calibrating { pair: &item.pair, grade, weight }
                    })
                    .collect();
                lines.sort_by_key(|line| line.pair);
                lines.iter().for_each(|line| add_line(&mut text, line));
            }
            Exported::Labels => labels.iter().for_each(|label| add_line(&mut text, label)),
        }
        Ok(text)
    }
}

fn add_line(text: &mut String, line: &impl Serialize) {
    *text += &serde_json::to_string(line).expect("labels are plain values");
    text.push('\n');
}
