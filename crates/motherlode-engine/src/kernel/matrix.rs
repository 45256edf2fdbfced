//! Matrix products: out (+)= left · right, on the calling thread.
//!
//! Both operands are first packed into the order in which the inner kernel reads them: `right` into panels of as many
//! columns as two vector registers hold, `left` into rows a fixed distance apart. A weight matrix is packed once and
//! used for many products. Every element of the result is the same chain of fused multiply-adds over the inner index, in
//! blocks of `DEPTH`, whatever else is in the matrices: a row of the result depends on its own row of `left` alone,
//! bit for bit. Source: the loop order is that of Goto and van de Geijn, "Anatomy of high-performance matrix
//! multiplication" (2008).

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::bfloat16;
use super::gelu;
use super::operand::{Aligned, VECTORS};
pub use super::operand::{Panels, Unit, View};
#[cfg(target_arch = "x86_64")]
use super::tiles::prefetch;

/// Rows of `left` that the inner kernel takes together on a processor of 32 vector registers: 12 × 2 sums, 2 columns
/// and 1 factor fill 27 of them.
const MANY_ROWS: usize = 12;
/// Half as many, for the last rows, and for a processor of 16 vector registers.
const FEW_ROWS: usize = 6;
/// Inner indices taken together: a panel of `right` of this depth stays in the first-level cache, or nearly.
const DEPTH: usize = 384;
/// Distance of the packed rows of `left`: they start in different sets of the first-level cache.
const STRIDE: usize = DEPTH + 16;
/// Rows of `left` packed together: of this many rows and `DEPTH` they stay in the second-level cache.
const BLOCK: usize = 22 * MANY_ROWS;
/// Values of a cache line.
const LINE: usize = 16;
/// Inner indices between two cache lines that are fetched ahead: what 256 rows take to fetch a whole panel.
const FETCH: usize = 8;

/// A row-major matrix to be written to, whose rows start `row_stride` apart.
#[derive(Debug)]
pub struct ViewMut<'a> {
    values: &'a mut [f32],
    row_stride: usize,
}

impl<'a> ViewMut<'a> {
    /// The matrix over `values` whose rows start `row_stride` apart.
    pub fn new(values: &'a mut [f32], row_stride: usize) -> Self {
        Self { values, row_stride }
    }

    /// The same matrix, for a shorter time.
    pub fn reborrow(&mut self) -> ViewMut<'_> {
        ViewMut { values: self.values, row_stride: self.row_stride }
    }

    /// Multiplies the first `columns` values of each row by its factor.
    pub fn scale_rows(self, columns: usize, factors: &[f32]) {
        scale_rows(self.values, self.row_stride, columns, factors);
    }
}

vectorised! {
    fn scale_rows<'a>(values: &'a mut [f32], row_stride: usize, columns: usize, factors: &'a [f32]) {
        for (row, factor) in values.chunks_mut(row_stride).zip(factors) {
            for value in &mut row[..columns] {
                *value *= factor;
            }
        }
    }
}

/// What stands in the result before the products are added.
#[derive(Debug, Clone, Copy)]
pub enum Start<'a> {
    /// Zeros.
    Zero,
    /// This vector in every row.
    Bias(&'a [f32]),
    /// What the result holds already.
    Current,
}

/// What becomes of the result of a product.
#[derive(Debug)]
pub enum Finish<'a> {
    /// It stays.
    Plain,
    /// GELU of it takes its place.
    Gelu,
    /// It stays, and GELU of it goes to a matrix of the same shape.
    GeluBeside(ViewMut<'a>),
}

/// Working memory of a product.
#[derive(Debug, Default)]
pub struct Packing {
    values: Aligned,
    #[cfg(target_arch = "x86_64")]
    tiles: bfloat16::Packing,
}

impl Packing {
    /// Bytes that a product with `rows` rows on the left takes at most.
    pub(crate) fn bytes(rows: usize, unit: Unit) -> usize {
        match unit {
            Unit::Single(_) | Unit::Rounded(_) => size_of::<f32>() * (rows.min(BLOCK) + MANY_ROWS) * STRIDE,
            #[cfg(target_arch = "x86_64")]
            Unit::Bfloat16(unit) => bfloat16::Packing::bytes(rows, unit),
        }
    }
}

/// out = start + left · right.
///
/// Shapes: left m × k, right k × n, out m × n. `packing` is working memory.
pub fn multiply(out: ViewMut, start: Start, left: View, right: &Panels, packing: &mut Packing) {
    multiply_then(out, Finish::Plain, start, left, right, packing);
}

/// As [`multiply`], with a finish.
pub fn multiply_then(out: ViewMut, finish: Finish, start: Start, left: View, right: &Panels, packing: &mut Packing) {
    product(Output { out, finish }, start, left, right, packing);
}

fn product(out: Output, start: Start, left: View, right: &Panels, packing: &mut Packing) {
    assert_eq!(left.columns, right.depth(), "inner dimensions differ");
    assert!(left.columns > 0, "there are no products to add");
    assert!(left.column_stride == 1 || left.row_stride == 1, "left must be row-major or column-major");
    let values = &mut packing.values;
    match right.unit {
        Unit::Single(arch) => arch.dispatch(Product { out, start, left, right, round: false, packing: values }),
        Unit::Rounded(arch) => arch.dispatch(Product { out, start, left, right, round: true, packing: values }),
        #[cfg(target_arch = "x86_64")]
        Unit::Bfloat16(unit) => {
            let packing = &mut packing.tiles;
            Arch::new().dispatch(bfloat16::Product { out, start, left, right, unit, packing });
        }
    }
}

struct Product<'a> {
    out: Output<'a>,
    start: Start<'a>,
    left: View<'a>,
    right: &'a Panels,
    /// Whether the packed rows are rounded to bfloat16.
    round: bool,
    packing: &'a mut Aligned,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        for first in (0..self.left.rows).step_by(BLOCK) {
            let rows = first..self.left.rows.min(first + BLOCK);
            for depth in (0..self.left.columns).step_by(DEPTH) {
                let depth = depth..self.left.columns.min(depth + DEPTH);
                pack_left(self.packing, self.left, rows.clone(), depth.clone());
                if self.round {
                    bfloat16::round(self.packing);
                }
                self.block(simd, rows.clone(), depth);
            }
        }
    }
}

impl Product<'_> {
    /// Adds the products of the packed rows over the inner indices `depth`.
    #[inline(always)]
    fn block<S: Simd>(&mut self, simd: S, rows: Range<usize>, depth: Range<usize>) {
        let start = if depth.start == 0 { self.start } else { Start::Current };
        let (width, last) = (VECTORS * S::F32_LANES, depth.end == self.left.columns);
        for column in (0..self.right.columns).step_by(width) {
            let panel = S::as_simd_f32s(self.right.block(column, depth.clone())).0.as_chunks::<VECTORS>().0;
            let columns = column..self.right.columns.min(column + width);
            let following = column + width..self.right.columns;
            let mut next = if following.is_empty() { &[] } else { self.right.block(following.start, depth.clone()) };
            let mut first = rows.start;
            while first < rows.end {
                let left = &self.packing.as_chunks::<STRIDE>().0[first - rows.start..];
                let patch = Patch { rows: first..rows.end, columns: columns.clone(), last };
                if S::REGISTER_COUNT >= 32 && patch.rows.len() > FEW_ROWS {
                    let sums = inner::<S, MANY_ROWS>(simd, left, panel, &mut next);
                    self.out.put(simd, start, &sums, patch);
                    first += MANY_ROWS;
                } else {
                    let sums = inner::<S, FEW_ROWS>(simd, left, panel, &mut next);
                    self.out.put(simd, start, &sums, patch);
                    first += FEW_ROWS;
                }
            }
        }
    }
}

/// Packs the given rows of `left` over the given inner indices, `STRIDE` apart, with room for `MANY_ROWS` more.
#[inline(always)]
fn pack_left(target: &mut Aligned, left: View, rows: Range<usize>, depth: Range<usize>) {
    target.resize((rows.len() + MANY_ROWS) * STRIDE);
    let targets = target.as_chunks_mut::<STRIDE>().0;
    if left.column_stride == 1 {
        for (row, target) in rows.zip(targets) {
            target[..depth.len()].copy_from_slice(&left.values[row * left.row_stride..][depth.clone()]);
        }
    } else {
        for (first, targets) in rows.clone().step_by(LINE).zip(targets.chunks_mut(LINE)) {
            let rows = first..rows.end.min(first + LINE);
            for inner in depth.clone().step_by(LINE) {
                let block = inner..depth.end.min(inner + LINE);
                turn_block(targets, inner - depth.start, left, rows.clone(), block);
            }
        }
    }
}

/// Writes up to 16 × 16 values of a column-major matrix to rows, from `place` on.
#[inline(always)]
fn turn_block(targets: &mut [[f32; STRIDE]], place: usize, left: View, rows: Range<usize>, depth: Range<usize>) {
    let mut columns = [[0.0; LINE]; LINE];
    for (inner, column) in depth.clone().zip(&mut columns) {
        let source = &left.values[inner * left.column_stride..][rows.clone()];
        if let Some(source) = source.first_chunk() {
            *column = *source;
        } else {
            column[..source.len()].copy_from_slice(source);
        }
    }
    for (row, target) in targets.iter_mut().enumerate().take(rows.len()) {
        for (value, column) in target[place..place + depth.len()].iter_mut().zip(&columns) {
            *value = column[row];
        }
    }
}

/// The products of `ROWS` rows and one panel of columns. Meanwhile some of what comes `next` is fetched into the caches,
/// and taken off its front.
#[inline(always)]
fn inner<S: Simd, const ROWS: usize>(
    simd: S,
    left: &[[f32; STRIDE]],
    right: &[[S::f32s; VECTORS]],
    next: &mut &[f32],
) -> [[S::f32s; VECTORS]; ROWS] {
    let left: &[[f32; STRIDE]; ROWS] = left.first_chunk().expect("there is room for more rows");
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
    for (place, right) in right.iter().enumerate().take(STRIDE) {
        if place.is_multiple_of(FETCH)
            && let Some((line, rest)) = next.split_at_checked(LINE)
        {
            prefetch(line);
            *next = rest;
        }
        for (sums, left) in sums.iter_mut().zip(left) {
            let factor = simd.splat_f32s(left[place]);
            sums[0] = simd.mul_add_f32s(factor, right[0], sums[0]);
            sums[1] = simd.mul_add_f32s(factor, right[1], sums[1]);
        }
    }
    sums
}

#[cfg(not(target_arch = "x86_64"))]
fn prefetch(_: &[f32]) {}

/// Where the result goes.
#[derive(Debug)]
pub(super) struct Output<'a> {
    out: ViewMut<'a>,
    finish: Finish<'a>,
}

/// A part of the result.
#[derive(Debug, Clone)]
pub(super) struct Patch {
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
    /// Whether nothing will be added to it any more.
    pub(super) last: bool,
}

impl Output<'_> {
    /// Writes start + sums to the patch, or to as many of its rows as `sums` has.
    #[inline(always)]
    pub(super) fn put<S: Simd>(&mut self, simd: S, start: Start, sums: &[[S::f32s; VECTORS]], patch: Patch) {
        let Patch { rows, columns, last } = patch;
        let (start, width) = (start.columns(columns.clone()), VECTORS * S::F32_LANES);
        if columns.len() == width {
            self.put_whole(simd, start, sums, rows.clone(), columns.start);
        } else {
            self.put_part(start, bytemuck::cast_slice(sums.as_flattened()), width, rows.clone(), columns.clone());
        }
        if last {
            self.finish(rows.start..rows.end.min(rows.start + sums.len()), columns);
        }
    }

    #[inline(always)]
    fn finish(&mut self, rows: Range<usize>, columns: Range<usize>) {
        let results = self.out.values[rows.start * self.out.row_stride..].chunks_mut(self.out.row_stride);
        let results = results.take(rows.len());
        match &mut self.finish {
            Finish::Plain => {}
            Finish::Gelu => {
                for result in results {
                    gelu::forward_row(&mut result[columns.clone()]);
                }
            }
            Finish::GeluBeside(beside) => {
                let beside = beside.values[rows.start * beside.row_stride..].chunks_mut(beside.row_stride);
                for (result, beside) in results.zip(beside) {
                    gelu::forward_row_beside(&result[columns.clone()], &mut beside[columns.clone()]);
                }
            }
        }
    }

    /// For as many columns as a row of `sums` has.
    #[inline(always)]
    fn put_whole<S: Simd>(
        &mut self,
        simd: S,
        start: Start,
        sums: &[[S::f32s; VECTORS]],
        rows: Range<usize>,
        column: usize,
    ) {
        let place = rows.start * self.out.row_stride + column;
        let targets = self.out.values[place..].chunks_mut(self.out.row_stride).take(rows.len());
        let bias = match start {
            Start::Bias(bias) => *S::as_simd_f32s(bias).0.first_chunk().expect("a bias for every column"),
            _ => [simd.splat_f32s(0.0); VECTORS],
        };
        for (target, sums) in targets.zip(sums) {
            let target = S::as_mut_simd_f32s(&mut target[..VECTORS * S::F32_LANES]).0;
            for ((target, sum), bias) in target.iter_mut().zip(sums).zip(bias) {
                let start = if let Start::Current = start { *target } else { bias };
                *target = simd.add_f32s(start, *sum);
            }
        }
    }

    /// For the last few columns.
    #[inline(always)]
    fn put_part(&mut self, start: Start, sums: &[f32], width: usize, rows: Range<usize>, columns: Range<usize>) {
        for (row, sums) in rows.zip(sums.chunks_exact(width)) {
            let target = &mut self.out.values[row * self.out.row_stride..][columns.clone()];
            for (column, (target, sum)) in target.iter_mut().zip(sums).enumerate() {
                *target = sum
                    + match start {
                        Start::Zero => 0.0,
                        Start::Bias(bias) => bias[column],
                        Start::Current => *target,
                    };
            }
        }
    }
}

impl Start<'_> {
    #[inline(always)]
    fn columns(self, columns: Range<usize>) -> Self {
        if let Self::Bias(bias) = self { Self::Bias(&bias[columns]) } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::{assert_close, noise};
    #[cfg(target_arch = "x86_64")]
    use crate::kernel::tiles::Bfloat16Unit;

    /// Everything that this processor can multiply with, from what any processor has upwards.
    fn units() -> Vec<Unit> {
        let mut units = vec![Unit::Single(Arch::Scalar), Unit::Rounded(Arch::Scalar)];
        units.extend([Unit::single(), Unit::Rounded(Arch::new()), Unit::bfloat16()]);
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = pulp::x86::V3::try_new().map(Arch::V3);
            units.extend(avx2.into_iter().flat_map(|arch| [Unit::Single(arch), Unit::Rounded(arch)]));
            let bfloat16 = [Bfloat16Unit::detect(), Bfloat16Unit::without_tiles()].into_iter().flatten();
            units.extend(bfloat16.flat_map(|unit| [unit, unit.of_sums()]).map(Unit::Bfloat16));
        }
        units
    }

    /// The product by its definition, in double precision, of operands as `unit` sees them; `right` and the result are
    /// row-major.
    fn plain(unit: Unit, start: &[f32], left: View, right: &[f32], columns: usize) -> Vec<f32> {
        let near = |value: f32| half::bf16::from_f32(value).to_f32();
        // The value, and the part of it whose products with such parts are left out.
        let seen = |value: f32| match unit {
            Unit::Single(_) => [f64::from(value), 0.0],
            #[cfg(target_arch = "x86_64")]
            Unit::Bfloat16(unit) if unit.parts() == 2 => {
                let rest = f64::from(near(value - near(value)));
                [f64::from(near(value)) + rest, rest]
            }
            _ => [f64::from(near(value)), 0.0],
        };
        let element = |index: usize| {
            let (row, column) = (index / columns, index % columns);
            let term = |inner| {
                let [left, right] = [seen(left.at(row, inner)), seen(right[inner * columns + column])];
                left[0] * right[0] - left[1] * right[1]
            };
            (f64::from(start[index]) + (0..left.columns).map(term).sum::<f64>()) as f32
        };
        (0..left.rows * columns).map(element).collect()
    }

    fn product(start: Start, current: &[f32], left: View, right: &Panels) -> Vec<f32> {
        let mut out = current.to_vec();
        multiply(ViewMut::new(&mut out, right.columns), start, left, right, &mut Packing::default());
        out
    }

    #[test]
    fn products_of_all_kinds_of_sizes_agree_with_the_definition() {
        let sizes = [(1, 1, 1), (5, 3, 17), (6, 16, 16), (7, 256, 33), (130, 257, 40), (13, 800, 31), (40, 64, 64)];
        for unit in units() {
            for (rows, inner, columns) in sizes.into_iter().chain([(0, 4, 4)]) {
                let (a, b, current) = (noise(1, rows * inner), noise(2, inner * columns), noise(3, rows * columns));
                let (left, right) = (View::strided(&a, rows, inner, inner), View::strided(&b, inner, columns, columns));
                let expected = plain(unit, &current, left, &b, columns);
                let agrees = |left, right| {
                    assert_close(&product(Start::Current, &current, left, &Panels::of(right, unit)), &expected, 1e-4);
                };
                agrees(left, right);

                let turned: Vec<f32> = (0..a.len()).map(|index| a[index % rows * inner + index / rows]).collect();
                agrees(View::strided(&turned, inner, rows, rows).transposed(), right);

                let turned: Vec<f32> = (0..b.len()).map(|index| b[index % inner * columns + index / inner]).collect();
                agrees(left, View::strided(&turned, columns, inner, inner).transposed());
            }
        }
    }

    #[test]
    fn the_product_starts_from_zero_or_a_bias_or_what_is_there() {
        let (a, b, bias) = (noise(1, 20), noise(2, 85), noise(3, 17));
        let (left, dirt) = (View::new(&a, 5), vec![f32::NAN; 68]);
        for unit in units() {
            let right = Panels::of(View::new(&b, 17), unit);
            let expected = plain(unit, &[0.0; 68], left, &b, 17);
            assert_close(&product(Start::Zero, &dirt, left, &right), &expected, 1e-6);
            let expected = plain(unit, &bias.repeat(4), left, &b, 17);
            assert_close(&product(Start::Bias(&bias), &dirt, left, &right), &expected, 1e-6);
        }
    }

    #[test]
    fn a_row_depends_on_nothing_but_itself_and_rows_can_be_strided() {
        let (a, b) = (noise(1, 300 * 700), noise(2, 700 * 50));
        for unit in units() {
            let right = Panels::of(View::new(&b, 50), unit);
            let all = product(Start::Zero, &[0.0; 300 * 50], View::new(&a, 700), &right);
            for (first, rows) in [(0, 1), (7, 1), (290, 10), (100, 150)] {
                let some = product(Start::Zero, &vec![0.0; rows * 50], View::new(&a, 700).rows(first, rows), &right);
                assert_eq!(some, all[first * 50..(first + rows) * 50]);
            }
            let mut wide = vec![9.0; 300 * 60];
            let out = ViewMut::new(&mut wide, 60);
            multiply(out, Start::Zero, View::new(&a, 700), &right, &mut Packing::default());
            assert_eq!(wide[60..110], all[50..100]);
            assert!(wide[110..120].iter().all(|value| *value == 9.0));
        }
    }

    #[test]
    fn gelu_is_that_of_the_finished_result() {
        let (a, b, bias) = (noise(1, 40 * 800), noise(2, 800 * 50), noise(3, 50));
        for unit in units() {
            let (left, right) = (View::new(&a, 800), Panels::of(View::new(&b, 50), unit));
            let plain = product(Start::Bias(&bias), &[0.0; 2000], left, &right);
            let run = |finish: Finish| {
                let mut out = vec![0.0; 2000];
                let view = ViewMut::new(&mut out, 50);
                multiply_then(view, finish, Start::Bias(&bias), left, &right, &mut Packing::default());
                out
            };
            let (mut beside, mut expected) = (vec![0.0; 2000], plain.clone());
            assert_eq!(run(Finish::GeluBeside(ViewMut::new(&mut beside, 50))), plain);
            gelu::forward_row(&mut expected);
            assert_close(&beside, &expected, 1e-6);
            assert_eq!(run(Finish::Gelu), beside);
        }
    }
}
