//! Labels that people gave to pairs, such as those that the inspector exports: JSON Lines of query, passage and grade.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::calibrate::one;
use crate::artefact::hash_file;
use crate::corpus::{Language, PassageIndex};
use crate::dataset::{Dataset, Partition, Split};
use crate::error::{Error, Result};
use crate::queries::QueryIndex;

/// A line of a file of labels; other keys are left alone.
#[derive(Deserialize)]
struct Line {
    #[serde(alias = "query_id")]
    query: String,
    #[serde(alias = "passage_id", alias = "docid")]
    passage: String,
    grade: i32,
    #[serde(default)]
    annotator: Option<String>,
    /// Needed only where several languages have a query of this id.
    #[serde(default)]
    language: Option<Language>,
    /// For how many pairs this one stands, in a sample that took more of some kinds than of others.
    #[serde(default = "one")]
    weight: f64,
}

/// What people say of a pair.
#[derive(Debug, Default)]
struct Grades {
    by_annotator: BTreeMap<String, i32>,
    weight: f64,
}

/// What people say of pairs, by language.
#[derive(Debug, Default)]
pub(super) struct Labels {
    pairs: BTreeMap<Language, BTreeMap<(QueryIndex, PassageIndex), Grades>>,
}

/// A pair on which most annotators agree.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Labelled {
    pub(super) query: QueryIndex,
    pub(super) passage: PassageIndex,
    /// Whether they find it relevant (grade 1 or above).
    pub(super) is_relevant: bool,
    /// For how many pairs it stands.
    pub(super) weight: f64,
}

impl Labels {
    /// Reads files of labels. Of several labels that one annotator gave to one pair the last counts, and of several weights
    /// of a pair.
    ///
    /// # Errors
    /// A line that is no label, and a query or passage that the data set does not have, with file and line.
    pub(super) fn read(paths: &[PathBuf], dataset: &Dataset, split: Split) -> Result<Self> {
        let mut labels = Self::default();
        for path in paths {
            crate::lines::for_each(path, |number, text| {
                let refuse = |message: String| Error::line(path, number, message);
                let line: Line = serde_json::from_str(text).map_err(|error| {
                    refuse(format!("expected {{\"query\": …, \"passage\": …, \"grade\": 0, 1 or 2}}: {error}"))
                })?;
                if !(line.weight.is_finite() && line.weight > 0.0) {
                    return Err(refuse(format!("`weight`: expected a number above 0, got {}", line.weight)));
                }
                let partition = partition(&line, dataset, split).map_err(refuse)?;
                let query = partition.split(split)?.queries.find(&line.query);
                let query = query.ok_or_else(|| refuse(unknown_query(&line, partition, split)))?;
                let passage = partition.corpus.find(&line.passage).ok_or_else(|| {
                    refuse(format!("`{}` is no passage of `{}`; label this data set", line.passage, partition.language))
                })?;
                let pairs = labels.pairs.entry(partition.language.clone()).or_default();
                let grades = pairs.entry((query, passage)).or_default();
                grades.by_annotator.insert(line.annotator.unwrap_or_default(), line.grade);
                grades.weight = line.weight;
                Ok(())
            })?;
        }
        Ok(labels)
    }

    /// Pairs of a language on which most annotators agree.
    ///
    /// *Order*: query, then passage.
    pub(super) fn of(&self, language: &Language) -> Vec<Labelled> {
        let pairs = self.pairs.get(language).into_iter().flatten();
        let agreed = |((query, passage), grades): (&(QueryIndex, PassageIndex), &Grades)| {
            let (query, passage, weight) = (*query, *passage, grades.weight);
            Some(Labelled { query, passage, is_relevant: grades.majority()?, weight })
        };
        pairs.filter_map(agreed).collect()
    }

    /// Pairs on which as many annotators say one thing as the other: they calibrate nothing.
    pub(super) fn disputed(&self) -> usize {
        self.pairs.values().flat_map(BTreeMap::values).filter(|grades| grades.majority().is_none()).count()
    }
}

impl Grades {
    /// Whether most annotators find the pair relevant; none where they are at odds.
    fn majority(&self) -> Option<bool> {
        let relevant = self.by_annotator.values().filter(|grade| **grade >= 1).count();
        let others = self.by_annotator.len() - relevant;
        (relevant != others).then_some(relevant > others)
    }
}

fn partition<'a>(line: &Line, dataset: &'a Dataset, split: Split) -> std::result::Result<&'a Partition, String> {
    if let Some(language) = &line.language {
        return dataset.partition(language).map_err(|error| error.to_string());
    }
    let has =
        |partition: &&Partition| partition.split(split).is_ok_and(|judged| judged.queries.find(&line.query).is_some());
    let with: Vec<&Partition> = dataset.partitions.iter().filter(has).collect();
    match with[..] {
        [one] => Ok(one),
        [] => Err(format!("`{}` is no {} query of any language; label this data set", line.query, split.name())),
        _ => Err(format!("`{}` is a query of several languages; add \"language\" to the line", line.query)),
    }
}

fn unknown_query(line: &Line, partition: &Partition, split: Split) -> String {
    format!("`{}` is no {} query of `{}`; label this data set", line.query, split.name(), partition.language)
}

/// The digest of the files' content, in their order; none without files.
pub fn labels_digest(paths: &[PathBuf]) -> Result<Option<String>> {
    if paths.is_empty() {
        return Ok(None);
    }
    let digests = paths.iter().map(|path| hash_file(path)).collect::<Result<Vec<_>>>()?;
    Ok(Some(digests.join(" ")))
}
