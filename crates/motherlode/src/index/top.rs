//! The best of many scored passages of one query, under THE tie rule.

use crate::run::{Ranking, Scored, rank_order};

/// Keeps the `depth` best of all passages that are pushed. The order of pushing does not matter.
///
/// Passages gather in a buffer that is cut back to `depth` when full, which is cheaper than a heap; whoever pushes
/// compares with [`floor`](Self::floor) first, so that most passages never get here.
pub(crate) struct Best {
    depth: usize,
    floor: f32,
    kept: Vec<Scored>,
}

impl Best {
    /// Keeps `depth` passages, at least one, whose scores are not below `floor`.
    pub(crate) fn new(depth: usize, floor: f32) -> Self {
        Self { depth: depth.max(1), floor, kept: Vec::new() }
    }

    /// A lower score than this cannot be among the best; an equal one may, by its id.
    pub(crate) fn floor(&self) -> f32 {
        self.floor
    }

    /// Takes a passage with a score that is not NaN.
    pub(crate) fn push(&mut self, scored: Scored, id_ranks: &[u32]) {
        if scored.score < self.floor {
            return;
        }
        self.kept.push(scored);
        if self.kept.len() >= Self::capacity(self.depth) {
            self.cut(id_ranks);
        }
    }

    /// Most passages that are held at a time.
    pub(crate) fn capacity(depth: usize) -> usize {
        2 * depth + 32
    }

    /// Takes over what another one kept of the same query.
    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.kept.extend(other.kept);
        self
    }

    /// The best in rank order.
    pub(crate) fn into_ranking(mut self, id_ranks: &[u32]) -> Ranking {
        self.cut(id_ranks);
        self.kept.sort_unstable_by(|a, b| rank_order(a, b, id_ranks));
        self.kept
    }

    /// Lets go of what cannot be among the best any more, and raises the floor to that.
    pub(crate) fn cut(&mut self, id_ranks: &[u32]) {
        if self.kept.len() >= self.depth {
            let (_, last, _) = self.kept.select_nth_unstable_by(self.depth - 1, |a, b| rank_order(a, b, id_ranks));
            self.floor = last.score;
            self.kept.truncate(self.depth);
        }
    }
}

/// Calls `visit` with the place of every score that is not below `floor`, NaN included.
///
/// Sixteen scores are compared at a time, because nearly all are below.
#[inline]
pub(crate) fn for_each_at_least(scores: &[f32], floor: f32, mut visit: impl FnMut(usize, f32)) {
    const WIDTH: usize = 16;
    let (chunks, rest) = scores.as_chunks::<WIDTH>();
    for (number, chunk) in chunks.iter().enumerate() {
        let below: u32 = chunk.iter().map(|score| u32::from(*score < floor)).sum();
        if below < WIDTH as u32 {
            visit_chunk(number * WIDTH, chunk, floor, &mut visit);
        }
    }
    visit_chunk(chunks.len() * WIDTH, rest, floor, &mut visit);
}

fn visit_chunk(start: usize, scores: &[f32], floor: f32, visit: &mut impl FnMut(usize, f32)) {
    for (place, score) in scores.iter().enumerate() {
        if *score >= floor || score.is_nan() {
            visit(start + place, *score);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::PassageIndex;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_best_are_those_of_a_full_sort(scores in prop::collection::vec(0_u8..9, 0..200), depth in 1_usize..20) {
            let id_ranks: Vec<u32> = (0..scores.len() as u32).rev().collect();
            let mut all: Ranking = scores
                .iter()
                .enumerate()
                .map(|(index, score)| Scored { passage: PassageIndex(index as u32), score: f32::from(*score) })
                .collect();
            let mut best = Best::new(depth, f32::NEG_INFINITY);
            for scored in &all {
                if scored.score >= best.floor() {
                    best.push(*scored, &id_ranks);
                }
            }
            all.sort_by(|a, b| rank_order(a, b, &id_ranks));
            all.truncate(depth);
            prop_assert_eq!(best.into_ranking(&id_ranks), all);
        }

        #[test]
        fn the_filter_finds_what_a_plain_loop_finds(scores in prop::collection::vec(0_u8..40, 0..100)) {
            let scores: Vec<f32> = scores.into_iter().map(|s| if s == 7 { f32::NAN } else { f32::from(s) }).collect();
            let mut found = Vec::new();
            for_each_at_least(&scores, 30.0, |place, _| found.push(place));
            let expected: Vec<usize> =
                (0..scores.len()).filter(|place| scores[*place] >= 30.0 || scores[*place].is_nan()).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
