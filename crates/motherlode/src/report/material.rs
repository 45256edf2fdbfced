//! What the sections read: data sets opened once, and artefacts of the arms, each once however many arms share it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::truth::Truth;
use super::{Arm, Experiment};
use crate::artefact::{Artefact, TIMING};
use crate::corpus::Language;
pub(super) use crate::corpus::language_name;
use crate::dataset::{Dataset, Partition, Split};
use crate::error::{Error, Result};
use crate::evaluate::Comparison;
use crate::llm::Usage;
use crate::mine::QueryCandidates;

/// An experiment with everything opened that several sections need.
pub(super) struct Material<'a> {
    pub(super) experiment: &'a Experiment,
    pub(super) comparison: Comparison,
    pub(super) truth: Option<Truth>,
    datasets: BTreeMap<String, Dataset>,
}

/// An artefact and the arms that it belongs to.
pub(super) struct Shared<'a> {
    /// The arms' names, or `all arms`.
    pub(super) label: String,
    /// The artefact.
    pub(super) artefact: &'a Artefact,
    /// The first of the arms.
    pub(super) arm: &'a Arm,
}

impl<'a> Material<'a> {
    /// Opens the comparison, the data sets and the truth.
    pub(super) fn open(experiment: &'a Experiment) -> Result<Self> {
        let comparison = Comparison::read(&experiment.comparison)?;
        let mut datasets = BTreeMap::new();
        for artefact in experiment.arms.iter().filter_map(|arm| arm.artefacts.get("dataset")) {
            if !datasets.contains_key(artefact.key()) {
                datasets.insert(artefact.key().to_owned(), Dataset::open(artefact)?);
            }
        }
        let truth = experiment.truth.as_deref().map(Truth::read).transpose()?;
        Ok(Self { experiment, comparison, truth, datasets })
    }

    /// The data set of an arm.
    pub(super) fn dataset(&self, arm: &Arm) -> Option<&Dataset> {
        self.datasets.get(arm.artefacts.get("dataset")?.key())
    }

    /// The languages of an arm's data set that have train queries; none without a data set.
    pub(super) fn partitions(&self, arm: &Arm) -> impl Iterator<Item = &Partition> {
        let partitions = self.dataset(arm).into_iter().flat_map(|dataset| &dataset.partitions);
        partitions.filter(|partition| partition.has(Split::Train))
    }

    /// The data sets with the artefacts that they came from, each once.
    pub(super) fn datasets(&self) -> impl Iterator<Item = &Dataset> {
        self.datasets.values()
    }

    /// The artefacts under a role, each once, in the order of the arms.
    pub(super) fn shared(&self, role: &str) -> Vec<Shared<'a>> {
        let mut found: Vec<(&'a Arm, &'a Artefact)> = Vec::new();
        for arm in &self.experiment.arms {
            if let Some(artefact) = arm.artefacts.get(role)
                && !found.iter().any(|(_, other)| other.key() == artefact.key())
            {
                found.push((arm, artefact));
            }
        }
        let shared = |(arm, artefact): (&'a Arm, &'a Artefact)| {
            let has = |arm: &&Arm| arm.artefacts.get(role).is_some_and(|other| other.key() == artefact.key());
            Shared { label: self.label(&self.experiment.arms.iter().filter(has).collect::<Vec<_>>()), artefact, arm }
        };
        found.into_iter().map(shared).collect()
    }

    /// The names of some arms; the seeds of a name only where not all of its seeds are among them.
    pub(super) fn label(&self, arms: &[&Arm]) -> String {
        let of_name = |arm: &&Arm| self.experiment.arms.iter().filter(|other| other.name == arm.name).count();
        if arms.len() == self.experiment.arms.len() && names(arms).len() > 1 {
            return "all arms".to_owned();
        }
        let mut labels: Vec<String> = Vec::new();
        for arm in arms {
            let is_whole = arms.iter().filter(|other| other.name == arm.name).count() == of_name(arm);
            let label = if is_whole { arm.name.clone() } else { format!("{}, seed {}", arm.name, arm.seed) };
            if !labels.contains(&label) {
                labels.push(label);
            }
        }
        labels.join("; ")
    }

    /// All artefacts of the experiment with their role, each once: by arm, then the baselines, then the comparison.
    pub(super) fn artefacts(&self) -> Vec<(&'a str, &'a Artefact)> {
        let order = |role: &str| ROLES.iter().position(|known| *known == role).unwrap_or(ROLES.len());
        let mut all: Vec<(&str, &Artefact)> = Vec::new();
        for arm in &self.experiment.arms {
            all.extend(arm.artefacts.iter().map(|(role, artefact)| (role.as_str(), artefact)));
        }
        all.sort_by_key(|(role, _)| order(role));
        all.extend(self.experiment.baselines.iter().map(|(name, artefact)| (name.as_str(), artefact)));
        all.push(("comparison", &self.experiment.comparison));
        let mut seen = BTreeSet::new();
        all.retain(|(_, artefact)| seen.insert(artefact.key()));
        all
    }
}

/// The roles of artefacts in an arm, in the order of the pipeline.
pub(super) const ROLES: [&str; 14] = [
    "dataset",
    "model",
    "embeddings",
    "fused",
    "candidates",
    "judgements",
    "supplement",
    "topics",
    "examples",
    "batches",
    "trained",
    "tuned",
    "run",
    "measures",
];

fn names<'a>(arms: &[&'a Arm]) -> BTreeSet<&'a str> {
    arms.iter().map(|arm| arm.name.as_str()).collect()
}

/// The lines of a language's file, or nothing where the artefact has none.
pub(super) fn lines_of<T: DeserializeOwned>(artefact: &Artefact, file: &str) -> Result<Vec<T>> {
    if artefact.has(file) { artefact.read_lines(file) } else { Ok(Vec::new()) }
}

/// The candidates of a language by query.
pub(super) fn candidates_of(arm: &Arm, language: &Language) -> Result<BTreeMap<String, QueryCandidates>> {
    let Some(artefact) = arm.artefacts.get("candidates") else { return Ok(BTreeMap::new()) };
    let rows: Vec<QueryCandidates> = lines_of(artefact, &format!("{language}.jsonl"))?;
    Ok(rows.into_iter().map(|row| (row.query.clone(), row)).collect())
}

/// A JSON file of an artefact; none where the artefact has no such file.
pub(super) fn json_of<T: DeserializeOwned>(artefact: &Artefact, file: &str) -> Result<Option<T>> {
    if !artefact.has(file) {
        return Ok(None);
    }
    let path = artefact.path(file);
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    serde_json::from_str(&text).map(Some).map_err(|error| Error::file(&path, error.to_string()))
}

/// What it took to make an artefact.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(super) struct Taken {
    pub(super) seconds: f64,
    /// What language models were asked for it.
    #[serde(default)]
    pub(super) usage: Usage,
}

impl std::ops::AddAssign for Taken {
    fn add_assign(&mut self, other: Self) {
        self.seconds += other.seconds;
        self.usage += other.usage;
    }
}

impl Taken {
    /// None where the artefact does not say it.
    pub(super) fn by(artefact: &Artefact) -> Option<Self> {
        let text = std::fs::read_to_string(artefact.folder().join(TIMING)).ok()?;
        serde_json::from_str(&text).ok()
    }
}
