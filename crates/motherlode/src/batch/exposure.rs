//! How often each language and topic stands among the negatives of the planned steps, which the loss weights need.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::artefact::{Artefact, Summary};
use crate::corpus::Language;
use crate::error::{Error, Result};
use crate::topic::Topic;

/// The file in the artefact of `batch`.
pub const FILE: &str = "exposure.json";

/// Counts of (row, negative) cells: own negatives and the other rows' passages, masked cells and the row's own positive
/// left out; each by the passage's own language and topic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exposure {
    /// Cells per language.
    pub language: BTreeMap<Language, u64>,
    /// Cells per topic, by number.
    pub topic: Vec<u64>,
}

impl Exposure {
    /// Reads `exposure.json` of the artefact of `batch`.
    pub fn open(artefact: &Artefact) -> Result<Self> {
        let exposures: Vec<Self> = artefact.read_lines(FILE)?;
        exposures.into_iter().next().ok_or_else(|| Error::file(artefact.path(FILE), "is empty; run `batch` again"))
    }

    /// Adds `cells` for a passage of this language and topic.
    pub(super) fn add(&mut self, language: &Language, topic: Topic, cells: u64) {
        let topic = topic.0 as usize;
        if self.topic.len() <= topic {
            self.topic.resize(topic + 1, 0);
        }
        self.topic[topic] += cells;
        *self.language.entry(language.clone()).or_default() += cells;
    }

    /// Writes the counts into a summary; `labels` name the topics.
    pub fn summarise(&self, labels: &[String], summary: &mut Summary) {
        for (language, cells) in &self.language {
            summary.count(format!("{language}: negative cells"), *cells as usize);
        }
        for (topic, cells) in self.topic.iter().enumerate() {
            let label = labels.get(topic).map_or("", String::as_str);
            summary.count(format!("negative cells of topic {topic:02} {label}"), *cells as usize);
        }
    }
}
