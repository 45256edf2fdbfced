//! The report: one static page of an experiment, and a CSV file beside it for every table and figure.
//!
//! Reads the artefacts of the arms, the evaluations of the baselines and their comparison; writes `index.html` and
//! `*.csv`. The page loads nothing, runs nothing and needs no network; passages and queries are escaped wherever they
//! stand. Numbers are copied or counted from artefacts, never computed anew. Nobody but a recipe imports this room.
//!
//! *Errors*: an artefact whose files are not what their stage writes; a truth file with a line that is none; what the
//! file system refuses.

mod arms;
mod beside;
mod chart;
mod counts;
mod examples;
mod exposure;
#[cfg(test)]
mod fixture;
mod front;
mod generation;
mod judging;
mod material;
mod mining;
mod negatives;
mod page;
mod people;
mod provenance;
mod quality;
mod settings;
mod table;
#[cfg(test)]
mod tests;
mod topics;
mod training;
mod trust;
mod truth;
mod weights;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::artefact::Artefact;
use crate::error::Result;
pub use beside::side_by_side;
use material::Material;
pub use people::HumanGrade;

/// One arm with one seed.
#[derive(Debug, Clone)]
pub struct Arm {
    /// The arm's name; seeds of one arm share it.
    pub name: String,
    /// The seed.
    pub seed: u64,
    /// What its stages made, by role: `dataset`, `model`, `fused`, `candidates`, `judgements`, `supplement`, `topics`,
    /// `examples`, `batches`, `trained`, `measures`; whatever the arm does without is absent.
    pub artefacts: BTreeMap<String, Artefact>,
}

/// Everything that a report is made of.
#[derive(Debug, Clone)]
pub struct Experiment {
    /// The title.
    pub name: String,
    /// The arms with their seeds.
    pub arms: Vec<Arm>,
    /// Names and evaluations of the systems beside which the arms stand, such as BM25 and the untouched model.
    pub baselines: Vec<(String, Artefact)>,
    /// The artefact of `compare` over arms and baselines; its systems bear the arms' names.
    pub comparison: Artefact,
    /// The table of every relevant pair, where a made data set has one.
    pub truth: Option<PathBuf>,
    /// Grades that people gave to pairs of the data set in `inspect`.
    pub people: Vec<HumanGrade>,
}

/// Writes the page and its CSV files into `folder`, which is made if it is not there.
pub fn report(experiment: &Experiment, folder: &Path) -> Result<()> {
    let material = Material::open(experiment)?;
    let sections = [
        arms::arms(&material)?,
        quality::quality(&material),
        mining::mining(&material)?,
        judging::judging(&material)?,
        examples::false_negatives(&material)?,
        generation::generation(&material)?,
        examples::supplements(&material)?,
        negatives::negatives(&material)?,
        weights::weighing(&material)?,
        training::training(&material)?,
        counts::counts(&material),
        provenance::provenance(&material),
    ];
    let sections: Vec<page::Section> = sections.into_iter().filter(|section| !section.is_empty()).collect();
    page::write(folder, &experiment.name, front::front(&material), &sections)
}
