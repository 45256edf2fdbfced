//! The user's own labels, from lines of `LANG<TAB>docid<TAB>label`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{Topic, TopicInputs, Topics};
use crate::artefact::Summary;
use crate::corpus::{Language, PassageIndex};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::lines;

/// The topic of passages that the table leaves out.
const UNLABELLED: &str = "Unlabelled";

/// Topics in alphabetical order of their labels; passages without one form a last topic of their own.
///
/// # Errors
/// A line of another form, an unknown language or passage, a passage that stands twice.
pub(super) fn topics(inputs: &TopicInputs, summary: &mut Summary) -> Result<Topics> {
    let path = inputs.labels.expect("asked for before the artefact was begun");
    let given = read(path, inputs.dataset)?;
    let mut labels: Vec<String> = given.values().cloned().collect::<BTreeSet<_>>().into_iter().collect();
    let numbers: BTreeMap<String, u32> = labels.iter().cloned().zip(0..).collect();
    let rest = Topic(labels.len() as u32);
    let mut passages = BTreeMap::new();
    let mut unlabelled = 0;
    for partition in &inputs.dataset.partitions {
        let topic = |index| match given.get(&(partition.language.clone(), index)) {
            Some(label) => Topic(numbers[label]),
            None => rest,
        };
        let topics: Vec<Topic> = partition.corpus.indices().map(topic).collect();
        unlabelled += topics.iter().filter(|topic| **topic == rest).count();
        passages.insert(partition.language.clone(), topics);
    }
    if unlabelled > 0 {
        labels.push(UNLABELLED.to_owned());
    }
    summary.count("unlabelled", unlabelled);
    Ok(Topics { labels, passages })
}

fn read(path: &Path, dataset: &Dataset) -> Result<BTreeMap<(Language, PassageIndex), String>> {
    let mut labels = BTreeMap::new();
    lines::for_each(path, |number, line| {
        let at_line = |error: Error| Error::line(path, number, error.to_string());
        let fields: Vec<&str> = line.split('\t').map(str::trim).collect();
        let [language, id, label] = fields[..] else {
            let message = format!("expected `LANG<TAB>docid<TAB>label`, got {} columns", fields.len());
            return Err(Error::line(path, number, message));
        };
        let partition = dataset.partition(&Language::new(language).map_err(at_line)?).map_err(at_line)?;
        let index = partition.corpus.find(id).ok_or_else(|| {
            Error::line(path, number, format!("`{language}` has no passage `{id}`; labels and corpus must match"))
        })?;
        if label.is_empty() {
            return Err(Error::line(path, number, "the label is empty; leave the line out"));
        }
        match labels.insert((partition.language.clone(), index), label.to_owned()) {
            Some(_) => Err(Error::line(path, number, format!("passage `{id}` is labelled twice; keep one line"))),
            None => Ok(()),
        }
    })?;
    Ok(labels)
}
