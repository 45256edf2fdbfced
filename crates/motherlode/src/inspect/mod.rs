//! Inspecting: a web application on this machine, over one arm of an experiment as far as it is made.
//!
//! Reads the data set and the artefacts of `mine` and, where they are there, of `judge`, `generate`, `topic`, `sample` and
//! `batch`. Pages: the queries, filtered and sorted; one query with its candidates; one training step; annotating; how far
//! annotators agree with one another and with the judge. Writes one thing, the [labels](Labels) of people.
//!
//! Facts of every query are kept in a compact table; texts, candidates and steps stay in mapped files and are read a line
//! at a time. Pages are made here, work without JavaScript, and load nothing from elsewhere. Nobody but a recipe imports
//! this room.
//!
//! *Errors*: artefacts that do not belong together or are not what their stage writes; a labels file of another program;
//! what the file and operating system refuse.

mod agreement;
mod agreement_page;
mod annotate_page;
mod answer;
mod audit;
mod batch_page;
mod catalogue;
mod export;
mod facts;
mod filter;
mod full_text;
mod guard;
mod labels;
mod layout;
mod list_page;
mod lists;
mod mapped_lines;
mod passages;
mod query_page;
mod server;
mod steps;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::artefact::Artefact;
use crate::error::{Error, Result};
use crate::judge::{Thresholds, thresholds_of};
use crate::progress::Progress;
use audit::Audit;
use catalogue::Catalogue;
pub use guard::Access;
pub use labels::{Kept, Label, Labels, Pair};
use lists::Lists;
pub use server::serve;

/// One arm of an experiment with one seed, as far as it is made.
#[derive(Debug, Clone)]
pub struct Arm {
    /// The experiment's name.
    pub experiment: String,
    /// The arm's name.
    pub name: String,
    /// The seed.
    pub seed: u64,
    /// What its stages made, by role: `dataset` and `candidates`; perhaps `judgements`, `supplement`, `topics`, `examples`,
    /// `batches`, and `index`, by which passages are searched.
    pub artefacts: BTreeMap<String, Artefact>,
    /// What is not made yet, in words, if something is not.
    pub missing: Option<String>,
}

impl Arm {
    /// An artefact that the inspector cannot do without.
    fn required(&self, role: &str) -> Result<&Artefact> {
        let missing = || Error::data(format!("there are no {role} to inspect yet; run the experiment up to `mine`"));
        self.artefacts.get(role).ok_or_else(missing)
    }
}

/// The knobs of `inspect`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InspectConfig {
    /// Queries on a page of the list.
    pub page: usize,
    /// Pairs of every language and verdict in the audit sample.
    pub audit: usize,
    /// Labels, each by another annotator, that a pair of the audit sample is to have; a tie asks for one more.
    pub annotators: usize,
    /// Draws the audit sample.
    pub seed: u64,
}

impl Default for InspectConfig {
    fn default() -> Self {
        Self { page: 50, audit: 10, annotators: 2, seed: 0 }
    }
}

impl InspectConfig {
    /// Checks the ranges.
    pub fn validate(&self) -> Result<()> {
        if !(1..=500).contains(&self.page) {
            return Err(Error::config(format!("`inspect.page`: expected 1 to 500, got {}", self.page)));
        }
        for (name, value) in [("audit", self.audit), ("annotators", self.annotators)] {
            if value == 0 {
                return Err(Error::config(format!("`inspect.{name}`: expected at least 1, got 0")));
            }
        }
        Ok(())
    }
}

/// An opened experiment with the labels that people give.
pub struct Inspector {
    arm: Arm,
    config: InspectConfig,
    catalogue: Catalogue,
    audit: Audit,
    labels: Labels,
    /// What the last filters let pass.
    lists: Lists,
    /// Where a cheap judge's word counts.
    thresholds: Option<Thresholds>,
}

impl Inspector {
    /// Opens the artefacts of an arm, draws the audit sample, and opens (or makes) the labels file.
    pub fn open(arm: Arm, config: InspectConfig, labels: &Path, progress: &Progress<'_>) -> Result<Self> {
        config.validate()?;
        let catalogue = Catalogue::open(&arm, progress)?;
        let audit = Audit::draw(&catalogue, config.audit, config.seed)?;
        let labels = Labels::open(labels)?;
        let thresholds = arm.artefacts.get("judgements").map(thresholds_of).transpose()?.flatten();
        Ok(Self { arm, config, catalogue, audit, labels, lists: Lists::default(), thresholds })
    }

    /// The key of the data set: labels are about its passages, whichever arm brought them up.
    fn dataset(&self) -> &str {
        &self.catalogue.dataset.key
    }
}
