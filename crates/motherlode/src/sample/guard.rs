//! The leak guard: what of the dev queries the training data would have seen.

use std::collections::{BTreeSet, HashSet};

use super::fill::Drawn;
use super::twins::Twins;
use crate::corpus::PassageIndex;
use crate::dataset::{Partition, Split};
use crate::text::normalise::normalise;

/// Overlaps of training data and dev queries; texts, not ids, are counted.
#[derive(Default, Clone, Copy)]
pub(super) struct Leaks {
    pub(super) dev_positives_as_positives: usize,
    pub(super) dev_positives_as_negatives: usize,
    pub(super) equal_queries: usize,
}

impl Leaks {
    pub(super) fn add(&mut self, other: Self) {
        self.dev_positives_as_positives += other.dev_positives_as_positives;
        self.dev_positives_as_negatives += other.dev_positives_as_negatives;
        self.equal_queries += other.equal_queries;
    }

    /// The names under which they are counted.
    pub(super) fn named(self) -> [(&'static str, usize); 3] {
        [
            ("leak: dev positives among training positives", self.dev_positives_as_positives),
            ("leak: dev positives among training negatives", self.dev_positives_as_negatives),
            ("leak: dev queries equal to train queries", self.equal_queries),
        ]
    }
}

/// The positives of all dev queries of a language; none where it has no dev queries.
pub(super) fn dev_positives(partition: &Partition) -> BTreeSet<PassageIndex> {
    let Ok(dev) = partition.split(Split::Dev) else { return BTreeSet::new() };
    dev.queries.iter().flat_map(|(index, _)| dev.qrels.positives(index)).collect()
}

/// Counts the overlaps of one language. `training` are the examples that are trained on; equal queries are counted over
/// all train queries, since validation steers training too.
pub(super) fn leaks(partition: &Partition, training: &[&Drawn], twins: &Twins) -> Leaks {
    let texts = |passages: &mut dyn Iterator<Item = PassageIndex>| -> HashSet<PassageIndex> {
        passages.map(|passage| twins.representative(passage)).collect()
    };
    let dev = texts(&mut dev_positives(partition).into_iter());
    let positives = texts(&mut training.iter().flat_map(|drawn| drawn.positives.iter().copied()));
    let negatives = texts(&mut training.iter().flat_map(|drawn| drawn.negatives.iter().map(|(passage, _)| *passage)));
    Leaks {
        dev_positives_as_positives: dev.intersection(&positives).count(),
        dev_positives_as_negatives: dev.intersection(&negatives).count(),
        equal_queries: queries(partition, Split::Dev).intersection(&queries(partition, Split::Train)).count(),
    }
}

fn queries(partition: &Partition, split: Split) -> HashSet<String> {
    let Ok(judged) = partition.split(split) else { return HashSet::new() };
    judged.queries.iter().map(|(_, query)| normalise(&query.text)).collect()
}
