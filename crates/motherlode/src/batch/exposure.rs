//! How often each language and topic stands among the negatives of the planned steps, which the loss weights need.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Step;
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

    /// Counts the cells of one step. `topic_of` names the topic of a passage by its language and id.
    pub fn add(&mut self, step: &Step, topic_of: impl Fn(&Language, &str) -> Topic) {
        let columns = step.columns();
        let mut cells = vec![step.rows.len() as u64; columns.len()];
        let places: std::collections::HashMap<_, _> = columns.iter().zip(0usize..).collect();
        for row in &step.rows {
            cells[places[&(&row.language, row.positive.as_str())]] -= 1;
            row.masked.iter().for_each(|column| cells[*column as usize] -= 1);
        }
        for ((language, passage), cells) in columns.iter().zip(&cells) {
            let topic = topic_of(language, passage).0 as usize;
            if self.topic.len() <= topic {
                self.topic.resize(topic + 1, 0);
            }
            self.topic[topic] += cells;
            *self.language.entry((*language).clone()).or_default() += cells;
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Row;
    use crate::sample::{Negative, Provenance};

    fn row(positive: &str, negatives: &[&str], masked: &[u32]) -> Row {
        let negative = |passage: &&str| Negative { passage: (*passage).to_owned(), provenance: Provenance::Judged };
        Row {
            language: Language::new("sw").unwrap(),
            query: positive.to_uppercase(),
            positive: positive.to_owned(),
            negatives: negatives.iter().map(negative).collect(),
            masked: masked.to_vec(),
        }
    }

    #[test]
    fn cells_are_rows_times_columns_less_positives_and_masks() {
        // Columns: a, x, b, y. Row 0 (positive a) must not see y; x is a negative of both rows.
        let step = Step { step: 0, epoch: 0, rows: vec![row("a", &["x"], &[3]), row("b", &["x", "y"], &[])] };
        let mut exposure = Exposure::default();
        exposure.add(&step, |_, passage| Topic(u32::from(passage == "x")));
        assert_eq!(exposure.language[&Language::new("sw").unwrap()], 2 * 4 - 2 - 1);
        assert_eq!(exposure.topic, [3, 2]);
    }
}
