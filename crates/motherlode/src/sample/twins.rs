//! Text twins: passages whose normalised texts are equal.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use rayon::prelude::*;

use crate::corpus::{Corpus, PassageIndex};
use crate::text::normalise::{TextDigest, text_digest};

/// For the passages that were asked about, every passage of the same text.
#[derive(Default)]
pub(super) struct Twins {
    groups: HashMap<PassageIndex, Vec<PassageIndex>>,
}

impl Twins {
    /// Looks through the whole corpus for twins of `asked`.
    pub(super) fn find(corpus: &Corpus, asked: &BTreeSet<PassageIndex>) -> Self {
        let digest = |index: PassageIndex| text_digest(corpus.passage(index).text);
        let wanted: HashSet<TextDigest> = asked.par_iter().map(|index| digest(*index)).collect();
        let found: Vec<(TextDigest, PassageIndex)> = (0..corpus.len() as u32)
            .into_par_iter()
            .map(|index| (digest(PassageIndex(index)), PassageIndex(index)))
            .filter(|(digest, _)| wanted.contains(digest))
            .collect();
        let mut by_text: BTreeMap<TextDigest, Vec<PassageIndex>> = BTreeMap::new();
        for (digest, index) in found {
            by_text.entry(digest).or_default().push(index);
        }
        let groups = by_text.into_values().filter(|group| group.len() > 1);
        Self {
            groups: groups
                .flat_map(|group| group.clone().into_iter().map(move |index| (index, group.clone())))
                .collect(),
        }
    }

    /// The passage and its twins, by position.
    pub(super) fn of(&self, passage: PassageIndex) -> Vec<PassageIndex> {
        self.groups.get(&passage).cloned().unwrap_or_else(|| vec![passage])
    }

    /// One passage that stands for all of the same text.
    pub(super) fn representative(&self, passage: PassageIndex) -> PassageIndex {
        self.groups.get(&passage).map_or(passage, |group| group[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::corpus_of;

    #[test]
    fn twins_are_found_across_the_corpus() {
        let corpus = corpus_of(&[("a", "", "Same text"), ("b", "", "other"), ("c", "T", "same  TEXT"), ("d", "", "d")]);
        let twins = Twins::find(&corpus, &[PassageIndex(2), PassageIndex(3)].into());
        assert_eq!(twins.of(PassageIndex(2)), [PassageIndex(0), PassageIndex(2)]);
        assert_eq!(twins.of(PassageIndex(3)), [PassageIndex(3)]);
        assert_eq!(twins.representative(PassageIndex(2)), twins.representative(PassageIndex(0)));
    }
}
