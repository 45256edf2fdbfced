//! The matrix product of exact search, over the `gemm` crate.
#![expect(unsafe_code, reason = "the matrix product takes pointers; shapes are checked before it is called")]

use pulp::{Arch, Simd, WithSimd};

/// Passages of one block: the product always has this many rows, so that every score is summed in the same order.
pub(crate) const BLOCK: usize = 512;

/// Coordinates that are summed in one go; a constant, so that processors with other caches sum in the same order.
const RUN: usize = 512;

/// Sets `scores` to the dot products of queries and passages, or adds them.
///
/// Shapes: `queries` is n × d, at least 2 × d, `passages` `BLOCK` × d, `scores` n × `BLOCK`, all row-major. A score depends
/// on its query and passage alone, bit for bit.
pub(crate) fn dot_products(scores: &mut [f32], queries: &[f32], passages: &[f32], dimension: usize, add: bool) {
    let count = queries.len() / dimension;
    assert!(count >= 2 && queries.len() == count * dimension, "two or more whole queries");
    assert_eq!(passages.len(), BLOCK * dimension, "one whole block of passages");
    assert_eq!(scores.len(), count * BLOCK, "a score for each pair");
    let stride = dimension as isize;
    for start in (0..dimension).step_by(RUN) {
        let depth = RUN.min(dimension - start);
        // SAFETY: with the lengths asserted above, element (p, q) of the product lies at q · BLOCK + p of `scores`,
        // coordinate c of passage p at p · d + c and of query q at q · d + c, all within their slices; `scores` is
        // borrowed alone. Pointers are moved by `start` < d, which leaves the last row's `depth` ≤ d − `start` inside.
        unsafe {
            gemm::gemm(
                BLOCK,
                count,
                depth,
                scores.as_mut_ptr(),
                BLOCK as isize,
                1,
                add || start > 0,
                passages.as_ptr().add(start),
                1,
                stride,
                queries.as_ptr().add(start),
                stride,
                1,
                1.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }
}

/// Passages that [`few_dot_products`] takes; so many sums of one after the other keep the processor busy.
pub(crate) const FEW: usize = 8;

/// Sets `scores` to the dot products of a query and a few passages, or adds them: bit for bit what [`dot_products`] makes of
/// the same vectors.
///
/// The `gemm` crate sums the coordinates of a run one after the other, fused where the processor can, and then adds the sum
/// to what is there; runs of one or two coordinates begin with what is there instead, and are not fused.
pub(crate) fn few_dot_products(scores: &mut [f32; FEW], query: &[f32], passages: [&[f32]; FEW], add: bool) {
    assert!(passages.iter().all(|passage| passage.len() == query.len()), "vectors of one length");
    Arch::new().dispatch(Few { scores, query, passages, add });
}

struct Few<'a> {
    scores: &'a mut [f32; FEW],
    query: &'a [f32],
    passages: [&'a [f32]; FEW],
    add: bool,
}

impl WithSimd for Few<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let can_fuse = size_of::<S::f32s>() > size_of::<f32>();
        for (number, query) in self.query.chunks(RUN).enumerate() {
            let run = number * RUN..number * RUN + query.len();
            let passages = self.passages.map(|passage| &passage[run.clone()]);
            let (add, before) = (self.add || number > 0, *self.scores);
            let short = query.len() <= 2;
            let fused = can_fuse && !short;
            let mut sums = if add && short { before } else { [0.0; FEW] };
            for (place, coordinate) in query.iter().enumerate() {
                for (sum, passage) in sums.iter_mut().zip(passages) {
                    let other = passage[place];
                    *sum = if fused { other.mul_add(*coordinate, *sum) } else { other * coordinate + *sum };
                }
            }
            let total = |place: usize| if add && !short { before[place] + sums[place] } else { sums[place] };
            *self.scores = std::array::from_fn(total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize, step: u32) -> Vec<f32> {
        (0..count as u32).map(|n| (n.wrapping_mul(step) >> 8) as f32 / (1 << 24) as f32 - 0.5).collect()
    }

    #[test]
    fn a_score_does_not_depend_on_its_place_or_company() {
        for dimension in [1, 3, 64, 384, 512, 513, 700, 1024, 1100] {
            let (queries, passages) = (values(37 * dimension, 2_654_435_761), values(BLOCK * dimension, 40_503_977));
            let mut scores = vec![f32::NAN; 37 * BLOCK];
            dot_products(&mut scores, &queries, &passages, dimension, false);
            for count in [2, 3, 4, 5, 8, 30] {
                let shift = 7;
                let mut part = vec![f32::NAN; count * BLOCK];
                let chosen = &queries[shift * dimension..(shift + count) * dimension];
                dot_products(&mut part, chosen, &passages, dimension, false);
                assert_eq!(part, scores[shift * BLOCK..(shift + count) * BLOCK], "{count} of dimension {dimension}");
            }
            let mut turned = passages.clone();
            turned.rotate_left(129 * dimension);
            let mut rows = vec![f32::NAN; 37 * BLOCK];
            dot_products(&mut rows, &queries, &turned, dimension, false);
            for (row, expected) in rows.chunks(BLOCK).zip(scores.chunks_mut(BLOCK)) {
                expected.rotate_left(129);
                assert_eq!(row, expected);
            }
        }
    }

    #[test]
    fn scores_are_dot_products_and_can_be_added() {
        let (queries, passages) = (values(3 * 700, 2_654_435_761), values(BLOCK * 700, 40_503_977));
        let mut scores = vec![1.0; 3 * BLOCK];
        dot_products(&mut scores, &queries, &passages, 700, true);
        for (query, row) in queries.chunks(700).zip(scores.chunks(BLOCK)) {
            for (passage, score) in passages.chunks(700).zip(row) {
                let exact: f64 = query.iter().zip(passage).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                assert!((f64::from(*score) - 1.0 - exact).abs() < 1e-4, "{score} {exact}");
            }
        }
    }

    #[test]
    fn a_few_passages_have_the_scores_that_they_have_in_a_block() {
        for dimension in [1, 2, 3, 64, 384, 512, 513, 514, 515, 700, 1024, 1025, 1100] {
            let (queries, passages) = (values(2 * dimension, 2_654_435_761), values(BLOCK * dimension, 40_503_977));
            for add in [false, true] {
                let mut scores = vec![0.3; 2 * BLOCK];
                dot_products(&mut scores, &queries, &passages, dimension, add);
                let rows: Vec<&[f32]> = passages.chunks(dimension).collect();
                for (scores, rows) in scores.as_chunks::<FEW>().0.iter().zip(rows.as_chunks::<FEW>().0) {
                    let mut few = [0.3; FEW];
                    few_dot_products(&mut few, &queries[..dimension], *rows, add);
                    assert!(few[..] == scores[..], "dimension {dimension}, added: {add}");
                }
            }
        }
    }
}
