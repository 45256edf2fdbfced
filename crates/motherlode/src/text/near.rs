//! Texts that are nearly equal: a join of two lists by the similarity of their character trigrams.

use std::collections::HashMap;

use rayon::prelude::*;
use unicode_normalization::char::is_combining_mark;

use super::normalise::normalise;

/// Two texts and how alike they are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NearPair {
    /// Position in the first list.
    pub left: usize,
    /// Position in the second list.
    pub right: usize,
    /// The Jaccard similarity of the sets of trigrams, to 1.
    pub similarity: f64,
}

/// All pairs of a text of `left` and one of `right` whose similarity is `least` or more, in the order of their positions.
///
/// The similarity is Jaccard's, of the sets of character trigrams of the normalised texts without white space and
/// punctuation; `least` is above 0. A text without letters and digits is near to none.
/// *Source*: exact, by prefix filtering as in Bayardo, Ma and Srikant, "Scaling Up All Pairs Similarity Search" (2007).
pub fn near_pairs(left: &[&str], right: &[&str], least: f64) -> Vec<NearPair> {
    let mut sets = [left, right].map(|texts| texts.par_iter().map(|text| trigrams(text)).collect::<Vec<_>>());
    let mut frequencies: HashMap<u64, u32> = HashMap::new();
    sets.iter().flatten().flatten().for_each(|gram| *frequencies.entry(*gram).or_default() += 1);
    // Rare trigrams first: the beginnings of two sets then rarely meet unless the sets are alike.
    sets.iter_mut().flatten().for_each(|grams| grams.sort_unstable_by_key(|gram| (frequencies[gram], *gram)));
    let mut postings: HashMap<u64, Vec<usize>> = HashMap::new();
    for (at, grams) in sets[1].iter().enumerate() {
        prefix(grams, least).iter().for_each(|gram| postings.entry(*gram).or_default().push(at));
    }
    let pairs_of = |(at, grams): (usize, &Vec<u64>)| {
        let found = prefix(grams, least).iter().filter_map(|gram| postings.get(gram)).flatten();
        let mut candidates: Vec<usize> = found.copied().collect();
        candidates.sort_unstable();
        candidates.dedup();
        let pair = |other: usize| NearPair { left: at, right: other, similarity: jaccard(grams, &sets[1][other]) };
        candidates.into_iter().map(pair).filter(|pair| pair.similarity >= least).collect::<Vec<_>>()
    };
    sets[0].par_iter().enumerate().flat_map_iter(pairs_of).collect()
}

/// The trigrams of a text, each once; of a shorter text the whole.
fn trigrams(text: &str) -> Vec<u64> {
    let kept = |c: &char| c.is_alphanumeric() || is_combining_mark(*c);
    let characters: Vec<u64> = normalise(text).chars().filter(kept).map(|c| u64::from(u32::from(c))).collect();
    let packed = |window: &[u64]| window.iter().fold(0, |packed, character| (packed << 21) | character);
    let mut grams: Vec<u64> = match characters.len() {
        0 => Vec::new(),
        1 | 2 => vec![packed(&characters)],
        _ => characters.windows(3).map(packed).collect(),
    };
    grams.sort_unstable();
    grams.dedup();
    grams
}

/// So many of the first trigrams that two sets of this similarity share one of them.
fn prefix(grams: &[u64], least: f64) -> &[u64] {
    let shared = (least * grams.len() as f64 - 1e-9).ceil() as usize;
    &grams[..(grams.len() + 1 - shared.max(1)).min(grams.len())]
}

fn jaccard(a: &[u64], b: &[u64]) -> f64 {
    let set: std::collections::HashSet<&u64> = a.iter().collect();
    let shared = b.iter().filter(|gram| set.contains(gram)).count();
    shared as f64 / (a.len() + b.len() - shared) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn form_and_punctuation_do_not_matter() {
        let left = ["Who wrote “Things Fall Apart”?", "किसने लिखा?", "", "东京在哪里"];
        let right =
            ["who wrote things fall apart", "WHO WROTE THINGS FALL APART IN 1958", "किसने लिखा", "?", "东京在哪里？"];
        let pairs = near_pairs(&left, &right, 0.9);
        let found: Vec<(usize, usize)> = pairs.iter().map(|pair| (pair.left, pair.right)).collect();
        assert_eq!(found, [(0, 0), (1, 2), (3, 4)]);
        assert!(pairs.iter().all(|pair| (pair.similarity - 1.0).abs() < 1e-12));
        let looser = near_pairs(&left[..1], &right[..2], 0.7);
        assert_eq!(looser.len(), 2);
        assert!((looser[1].similarity - 21.0 / 27.0).abs() < 1e-12, "{looser:?}");
    }

    proptest! {
        #[test]
        fn no_pair_is_missed(
            left in prop::collection::vec("[ab ]{0,12}", 0..12),
            right in prop::collection::vec("[ab ]{0,12}", 0..12),
            least in 0.05..1.0_f64,
        ) {
            let (left, right): (Vec<&str>, Vec<&str>) =
                (left.iter().map(String::as_str).collect(), right.iter().map(String::as_str).collect());
            let mut expected = Vec::new();
            for (i, a) in left.iter().enumerate() {
                for (j, b) in right.iter().enumerate() {
                    let (a, b) = (trigrams(a), trigrams(b));
                    if !a.is_empty() && !b.is_empty() && jaccard(&a, &b) >= least {
                        expected.push((i, j));
                    }
                }
            }
            let found: Vec<(usize, usize)> =
                near_pairs(&left, &right, least).iter().map(|pair| (pair.left, pair.right)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
