//! Matrix products of operands rounded to bfloat16, or taken as sums of two such values, with sums in f32.

#[cfg(target_arch = "x86_64")]
pub(super) use packed::{Packing, Product, pack_right, tiles_over};

/// Rounds to the nearest bfloat16, ties to even; numbers below the least normal one become zero, as the processors do.
#[inline(always)]
fn rounded(value: f32) -> f32 {
    let bits = value.to_bits();
    let up = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
    let magnitude = bits & 0x7fff_ffff;
    f32::from_bits(if magnitude > 0x7f80_0000 {
        bits
    } else if magnitude < 0x0080_0000 {
        bits & 0x8000_0000
    } else {
        up
    })
}

vectorised! {
    /// Rounds every value to bfloat16.
    pub(super) fn round<'a>(values: &'a mut [f32]) {
        for value in values {
            *value = rounded(*value);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod packed {
    use std::ops::Range;

    use pulp::{Simd, WithSimd};

    use crate::kernel::buffer::resize;
    use crate::kernel::matrix::{Output, Patch, Start};
    use crate::kernel::operand::{Panels, View};
    use crate::kernel::tiles::{Bfloat16Unit, SIDE, SPAN, SQUARE, Session, Sums, Tile};

    /// Inner indices taken together: long, since every part reads and writes the result once more, yet so that two columns of
    /// tiles leave the second-level cache room for the packed rows. Half as many where two tiles hold the same values.
    const DEPTH: usize = 48 * SPAN;
    /// Rows of `left` packed together.
    const BLOCK: usize = 8 * SQUARE;

    /// Working memory.
    #[derive(Debug)]
    pub(in crate::kernel) struct Packing {
        left: Vec<Tile>,
        sums: Box<Sums>,
    }

    impl Packing {
        /// Bytes that a product with `rows` rows on the left takes at most.
        pub(in crate::kernel) fn bytes(rows: usize, unit: Bfloat16Unit) -> usize {
            let tiles = tiles_over(DEPTH / unit.parts(), unit) * rows.min(BLOCK).div_ceil(SIDE);
            tiles * size_of::<Tile>() + size_of::<Sums>()
        }
    }

    impl Default for Packing {
        fn default() -> Self {
            Self { left: Vec::new(), sums: Box::new(Sums::ZERO) }
        }
    }

    /// Tiles that span `depth` inner indices.
    pub(in crate::kernel) fn tiles_over(depth: usize, unit: Bfloat16Unit) -> usize {
        depth.div_ceil(SPAN) * unit.parts()
    }

    /// Packs `right` into columns of tiles.
    pub(in crate::kernel) fn pack_right(target: &mut Vec<Tile>, right: View, unit: Bfloat16Unit) {
        let count = tiles_over(right.rows, unit);
        resize(target, count * right.columns.div_ceil(SIDE), Tile::ZERO);
        for (index, target) in target.chunks_exact_mut(count.max(1)).enumerate() {
            pack_strip(target, right.transposed(), index * SIDE, 0..right.rows, unit);
            target.iter_mut().for_each(|tile| unit.transpose(tile));
        }
    }

    /// Packs the given rows and inner indices of `left` into rows of tiles.
    fn pack_left(target: &mut Vec<Tile>, left: View, rows: Range<usize>, depth: Range<usize>, unit: Bfloat16Unit) {
        let count = tiles_over(depth.len(), unit);
        resize(target, count * rows.len().div_ceil(SIDE), Tile::ZERO);
        for (index, target) in target.chunks_exact_mut(count).enumerate() {
            pack_strip(target, left.rows(0, rows.end), rows.start + index * SIDE, depth.clone(), unit);
        }
    }

    /// Packs up to 16 rows of `from`, from `first` on, over the inner indices `depth`.
    fn pack_strip(target: &mut [Tile], from: View, first: usize, depth: Range<usize>, unit: Bfloat16Unit) {
        for (target, inner) in target.chunks_exact_mut(unit.parts()).zip(depth.clone().step_by(SPAN)) {
            let whole = first + SIDE <= from.rows && inner + SPAN <= depth.end;
            let source = &from.values[first * from.row_stride + inner * from.column_stride..];
            match (whole, from.column_stride) {
                (true, 1) => unit.pack_rows(target, source, from.row_stride),
                (true, stride) => {
                    unit.pack_pairs(target, source, stride);
                    target.iter_mut().for_each(|tile| unit.transpose(tile));
                }
                (false, _) => {
                    let mut values = [0.0; SIDE * SPAN];
                    for (row, values) in (first..from.rows).zip(values.chunks_exact_mut(SPAN)) {
                        for (inner, value) in (inner..depth.end).zip(values) {
                            *value = from.at(row, inner);
                        }
                    }
                    unit.pack_rows(target, &values, SPAN);
                }
            }
        }
    }

    /// out = start + left · right.
    pub(in crate::kernel) struct Product<'a> {
        pub(in crate::kernel) out: Output<'a>,
        pub(in crate::kernel) start: Start<'a>,
        pub(in crate::kernel) left: View<'a>,
        pub(in crate::kernel) right: &'a Panels,
        pub(in crate::kernel) unit: Bfloat16Unit,
        pub(in crate::kernel) packing: &'a mut Packing,
    }

    impl WithSimd for Product<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(mut self, simd: S) {
            let (session, most) = (self.unit.begin(), DEPTH / self.unit.parts());
            for first in (0..self.left.rows).step_by(BLOCK) {
                let rows = first..self.left.rows.min(first + BLOCK);
                for depth in (0..self.left.columns).step_by(most) {
                    let depth = depth..self.left.columns.min(depth + most);
                    pack_left(&mut self.packing.left, self.left, rows.clone(), depth.clone(), self.unit);
                    self.block(simd, &session, rows.clone(), depth);
                }
            }
        }
    }

    impl Product<'_> {
        /// Adds the products of the packed rows over the inner indices `depth`.
        #[inline(always)]
        fn block<S: Simd>(&mut self, simd: S, session: &Session, rows: Range<usize>, depth: Range<usize>) {
            let start = if depth.start == 0 { self.start } else { Start::Current };
            let (count, last) = (tiles_over(depth.len(), self.unit), depth.end == self.left.columns);
            let Packing { left, sums } = &mut *self.packing;
            for column in (0..self.right.columns).step_by(SQUARE) {
                let columns = column..self.right.columns.min(column + SQUARE);
                let right = [column, column + SIDE].map(|column| self.right.tiles(column, depth.clone(), self.unit));
                for (left, first) in left.chunks(2 * count).zip(rows.clone().step_by(SQUARE)) {
                    let (upper, lower) = left.split_at(count);
                    session.multiply([upper, lower], right, sums);
                    let rows = first..rows.end.min(first + SQUARE);
                    let sums = S::as_simd_f32s(sums.0.as_flattened()).0.as_chunks().0;
                    self.out.put(simd, start, sums, Patch { rows, columns: columns.clone(), last });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_half_but_for_tiny_numbers() {
        for bits in (0..u32::MAX).step_by(9973) {
            let value = f32::from_bits(bits);
            let expected = half::bf16::from_f32(value).to_f32();
            if value.is_nan() {
                assert!(rounded(value).is_nan());
            } else if value.is_subnormal() {
                assert_eq!(rounded(value), 0.0);
            } else {
                assert_eq!(rounded(value).to_bits(), expected.to_bits(), "{value}");
            }
        }
        assert_eq!(rounded(1.0 + 1.0 / 256.0), 1.0);
        assert_eq!(rounded(1.0 + 3.0 / 256.0), 1.0 + 1.0 / 64.0);
    }
}
