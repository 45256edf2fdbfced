//! Exact search with a [`Sieve`]: the processor scores the first passages, so that every query has a floor; of all others
//! the sieve tells which may reach it, and these are scored again as without a sieve. Floors rise with what has been seen, so
//! blocks begin small: of as many passages as were seen before, about `depth` a query pass.

use std::borrow::Cow;
use std::ops::Range;

use rayon::prelude::*;

use super::{BLOCK, Group, Part, Search, Similarity, dot, scale, take};
use crate::corpus::PassageIndex;
use crate::engine::Sieve;
use crate::error::Result;
use crate::index::product::{FEW, few_dot_products};
use crate::index::top::Best;

/// Passages that are scored before there is anything to sieve by.
pub(super) const UNSIEVED: usize = 8 * BLOCK;
/// Passages that a sieve looks at in one go, at most.
pub(super) const SIEVED: usize = 32 * BLOCK;

/// The passages of a block as a sieve takes them: scaled, and the length of the longest vector.
struct Prepared<'a> {
    values: Cow<'a, [f32]>,
    dimension: usize,
    longest: f64,
}

impl<'a> Prepared<'a> {
    fn new(part: &Part<'a>, block: Range<usize>) -> Result<Self> {
        let (rows, dimension) = (part.passages.slice(block.clone()), part.passages.dimension());
        let length = |row| dot(rows.row(row), rows.row(row)).sqrt();
        let lengths = (0..block.len()).into_par_iter().map(length);
        let longest = lengths.reduce(|| 0.0, |a, b| if a.total_cmp(&b).is_ge() { a } else { b });
        if !longest.is_finite() {
            rows.check_finite_from("passage", block.start)?;
        }
        if part.similarity == Similarity::Dot {
            return Ok(Self { values: Cow::Borrowed(rows.values()), dimension, longest });
        }
        let mut scaled = vec![0.0; block.len() * dimension];
        let copies = scaled.par_chunks_mut(dimension).enumerate();
        copies.for_each(|(row, copy)| scale(rows.row(row), part.similarity, 1.0, copy));
        Ok(Self { values: Cow::Owned(scaled), dimension, longest: 1.0 })
    }

    /// By how much two sums of the products of a query of this length and a passage of the block can differ, in whatever order
    /// they are added: both are within d · 2⁻²⁴ times the lengths of the exact sum (Higham, "Accuracy and Stability of Numerical
    /// Algorithms", section 3.1), but for terms of a higher order and the sums of the members, for which there is room.
    fn margin(&self, length: f64) -> f64 {
        (self.dimension + 16) as f64 * f64::from(f32::EPSILON) * length * self.longest
    }
}

impl Group<'_> {
    /// Has a sieve look at all passages but the first, and scores again what it lets through.
    pub(super) fn sift(&self, sieve: &dyn Sieve, bests: &mut [Best], search: Search<'_>) -> Result<()> {
        let passages = search.id_ranks.len();
        if passages <= UNSIEVED {
            return Ok(());
        }
        let of_member = |part: &Part<'_>| {
            let queries = part.queries.chunks(part.passages.dimension()).take(self.count);
            queries.map(|query| dot(query, query).sqrt()).collect()
        };
        let lengths: Vec<Vec<f64>> = self.parts.iter().map(of_member).collect();
        let mut queries = Vec::new();
        for part in &self.parts {
            let dimension = part.passages.dimension();
            queries.push((&part.queries[..self.count * dimension], dimension));
        }
        sieve.begin(&queries)?;
        bests.par_iter_mut().for_each(|best| best.cut(search.id_ranks));
        let mut start = UNSIEVED;
        while start < passages {
            let block = start..(start + SIEVED.min(start)).min(passages);
            let prepared =
                self.parts.iter().map(|part| Prepared::new(part, block.clone())).collect::<Result<Vec<_>>>()?;
            let floor = |(query, best): (usize, &Best)| {
                let margins = prepared.iter().zip(&lengths).map(|(prepared, lengths)| prepared.margin(lengths[query]));
                ((f64::from(best.floor()) - margins.sum::<f64>()) as f32).next_down()
            };
            let floors: Vec<f32> = bests.iter().enumerate().map(floor).collect();
            let values: Vec<&[f32]> = prepared.iter().map(|prepared| &*prepared.values).collect();
            let mut pairs = sieve.sift(&values, &floors)?;
            pairs.par_sort_unstable();
            self.score_again(&pairs, &prepared, start, bests, search.id_ranks)?;
            search.progress.advance(block.len());
            start = block.end;
        }
        Ok(())
    }

    /// Scores pairs of a query and a passage of the block that begins at `start`, sorted by query, as `score` does.
    fn score_again(
        &self,
        pairs: &[[u32; 2]],
        passages: &[Prepared<'_>],
        start: usize,
        bests: &mut [Best],
        id_ranks: &[u32],
    ) -> Result<()> {
        let of_query = |query: usize| {
            let first = pairs.partition_point(|[other, _]| (*other as usize) < query);
            &pairs[first..first + pairs[first..].partition_point(|[other, _]| *other as usize == query)]
        };
        bests.par_iter_mut().enumerate().try_for_each(|(query, best)| {
            for pairs in of_query(query).chunks(FEW) {
                let mut scores = [0.0; FEW];
                for (number, (part, passages)) in self.parts.iter().zip(passages).enumerate() {
                    let dimension = passages.dimension;
                    // Places beyond the pairs score the first passage once more.
                    let row = |place: usize| pairs.get(place).unwrap_or(&pairs[0])[1] as usize * dimension;
                    let rows = std::array::from_fn(|place| &passages.values[row(place)..][..dimension]);
                    few_dot_products(&mut scores, &part.queries[query * dimension..][..dimension], rows, number > 0);
                }
                for ([_, passage], score) in pairs.iter().zip(scores) {
                    take(best, PassageIndex(start as u32 + passage), score, id_ranks)?;
                }
            }
            Ok(())
        })
    }
}
