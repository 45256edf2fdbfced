//! Text twins: passages of one corpus under different ids whose normalised texts are equal.

use std::collections::HashMap;

use rayon::prelude::*;

use super::normalise::{TextDigest, text_digest};
use crate::corpus::{Corpus, PassageIndex};

/// The twins of a corpus.
#[derive(Debug, Default)]
pub struct Twins {
    groups: Vec<Vec<PassageIndex>>,
    group_of: HashMap<PassageIndex, usize>,
}

impl Twins {
    /// Looks through the whole corpus; takes 20 bytes a passage while it does.
    pub fn find(corpus: &Corpus) -> Self {
        let digest = |index: u32| (text_digest(corpus.passage(PassageIndex(index)).text), PassageIndex(index));
        let mut digests: Vec<(TextDigest, PassageIndex)> =
            (0..corpus.len() as u32).into_par_iter().map(digest).collect();
        digests.par_sort_unstable();
        let groups = digests.chunk_by(|a, b| a.0 == b.0).filter(|group| group.len() > 1);
        let mut groups: Vec<Vec<PassageIndex>> =
            groups.map(|group| group.iter().map(|(_, index)| *index).collect()).collect();
        groups.sort_unstable();
        let members = groups.iter().enumerate().flat_map(|(at, group)| group.iter().map(move |index| (*index, at)));
        let group_of = members.collect();
        Self { groups, group_of }
    }

    /// The passage and its twins, by position.
    pub fn of(&self, passage: PassageIndex) -> Vec<PassageIndex> {
        self.group_of.get(&passage).map_or_else(|| vec![passage], |group| self.groups[*group].clone())
    }

    /// The first of all passages of the same text, which stands for them.
    pub fn representative(&self, passage: PassageIndex) -> PassageIndex {
        self.group_of.get(&passage).map_or(passage, |group| self.groups[*group][0])
    }

    /// All groups of two or more passages of the same text, each by position, in the order of their first passage.
    pub fn groups(&self) -> &[Vec<PassageIndex>] {
        &self.groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::corpus_of;

    #[test]
    fn twins_are_found_across_the_corpus() {
        let corpus = corpus_of(&[("a", "", "Same text"), ("b", "", "other"), ("c", "T", "same  TEXT"), ("d", "", "d")]);
        let twins = Twins::find(&corpus);
        assert_eq!(twins.of(PassageIndex(2)), [PassageIndex(0), PassageIndex(2)]);
        assert_eq!(twins.of(PassageIndex(3)), [PassageIndex(3)]);
        assert_eq!(twins.representative(PassageIndex(2)), twins.representative(PassageIndex(0)));
        assert_eq!(twins.groups(), [[PassageIndex(0), PassageIndex(2)]]);
    }
}
