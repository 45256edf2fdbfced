//! The hidden truth of a made data set: every relevant pair, labelled or not.

use std::collections::BTreeMap;
use std::path::Path;

use crate::corpus::Language;
use crate::dataset::{Partition, Split};
use crate::error::{Error, Result};
use crate::qrels::Qrels;

/// Reads the pairs of one split as qrels of grade 1, by language; lines of other languages and splits are passed over.
///
/// # Errors
/// Another number of columns, an unknown split or label, an unknown query or passage, a pair that stands twice.
pub(super) fn read(path: &Path, partitions: &[&Partition], split: Split) -> Result<BTreeMap<Language, Qrels>> {
    let mut truth = BTreeMap::new();
    for partition in partitions {
        truth.insert(partition.language.clone(), Qrels::empty(partition.split(split)?.queries.len()));
    }
    crate::lines::for_each(path, |number, line| {
        let fail = |message: String| Error::line(path, number, message);
        let fields: Vec<&str> = line.split('\t').collect();
        let [language, of_split, query, passage, "labelled" | "hidden"] = fields[..] else {
            return Err(fail("expected `language<TAB>split<TAB>query<TAB>passage<TAB>labelled|hidden`".to_owned()));
        };
        if !Split::ALL.iter().any(|known| known.name() == of_split) {
            return Err(fail(format!("expected the split train or dev, got `{of_split}`")));
        }
        let partition = partitions.iter().find(|partition| partition.language.as_str() == language);
        let Some(partition) = partition.filter(|_| of_split == split.name()) else { return Ok(()) };
        let qrels = truth.get_mut(&partition.language).expect("every partition was entered above");
        qrels
            .insert_named((query, passage, "1"), &partition.split(split)?.queries, &partition.corpus)
            .map_err(|error| fail(error.to_string()))
    })?;
    Ok(truth)
}
