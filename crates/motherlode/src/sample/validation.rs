//! Sets queries aside for validation, so that no positive of theirs, nor its text, is trained on.

use std::collections::HashMap;

use rand::seq::SliceRandom;

use crate::corpus::{Language, PassageIndex};
use crate::random;
use crate::text::twins::Twins;

/// For every query (by its positives) whether it is set aside: round(`share` × n) of them, or a few less where groups
/// are large. Queries that share a positive, or its text, stay together.
pub(super) fn choose(
    positives: &[&[PassageIndex]],
    twins: &Twins,
    share: f64,
    seed: u64,
    language: &Language,
) -> Vec<bool> {
    let mut groups = groups(positives, twins);
    groups.shuffle(&mut random::keyed(seed, "sample.validation", language.as_str()));
    let mut left = (share * positives.len() as f64).round() as usize;
    let mut chosen = vec![false; positives.len()];
    for group in groups {
        if group.len() <= left {
            left -= group.len();
            for query in group {
                chosen[query] = true;
            }
        }
    }
    chosen
}

/// Connected components of queries under "share a positive or its text", by their first query.
fn groups(positives: &[&[PassageIndex]], twins: &Twins) -> Vec<Vec<usize>> {
    let mut leaders: Vec<usize> = (0..positives.len()).collect();
    let mut owner: HashMap<PassageIndex, usize> = HashMap::new();
    for (query, positives) in positives.iter().enumerate() {
        for passage in *positives {
            let first = *owner.entry(twins.representative(*passage)).or_insert(query);
            let (a, b) = (leader(&mut leaders, first), leader(&mut leaders, query));
            leaders[a.max(b)] = a.min(b);
        }
    }
    let mut groups: Vec<Vec<usize>> = vec![Vec::new(); positives.len()];
    for query in 0..positives.len() {
        groups[leader(&mut leaders, query)].push(query);
    }
    groups.retain(|group| !group.is_empty());
    groups
}

fn leader(leaders: &mut [usize], mut query: usize) -> usize {
    while leaders[query] != query {
        leaders[query] = leaders[leaders[query]];
        query = leaders[query];
    }
    query
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn indices(positives: &[Vec<u32>]) -> Vec<Vec<PassageIndex>> {
        positives.iter().map(|list| list.iter().copied().map(PassageIndex).collect()).collect()
    }

    #[test]
    fn shared_positives_chain_queries_together() {
        let positives = indices(&[vec![1, 2], vec![3], vec![2, 4], vec![4], vec![5]]);
        let positives: Vec<&[PassageIndex]> = positives.iter().map(Vec::as_slice).collect();
        assert_eq!(groups(&positives, &Twins::default()), [vec![0, 2, 3], vec![1], vec![4]]);
    }

    #[test]
    fn the_share_is_rounded_and_kept_to() {
        let positives = indices(&(0..40).map(|query| vec![query]).collect::<Vec<_>>());
        let positives: Vec<&[PassageIndex]> = positives.iter().map(Vec::as_slice).collect();
        let count = |share, seed| {
            let chosen = choose(&positives, &Twins::default(), share, seed, &Language::new("sw").unwrap());
            chosen.iter().filter(|chosen| **chosen).count()
        };
        assert_eq!(count(0.1, 1), 4);
        assert_eq!(count(0.0, 1), 0);
    }

    proptest! {
        #[test]
        fn no_positive_is_on_both_sides(
            positives in prop::collection::vec(prop::collection::vec(0u32..30, 1..4), 1..40),
            share in 0.0..0.9,
        ) {
            let positives = indices(&positives);
            let positives: Vec<&[PassageIndex]> = positives.iter().map(Vec::as_slice).collect();
            let chosen = choose(&positives, &Twins::default(), share, 5, &Language::new("sw").unwrap());
            let side = |wanted: bool| -> std::collections::HashSet<PassageIndex> {
                let on_side = positives.iter().zip(&chosen).filter(|(_, chosen)| **chosen == wanted);
                on_side.flat_map(|(list, _)| list.iter().copied()).collect()
            };
            prop_assert!(side(true).is_disjoint(&side(false)));
            prop_assert!(chosen.iter().filter(|chosen| **chosen).count() <= (share * positives.len() as f64).round() as usize);
        }
    }
}
