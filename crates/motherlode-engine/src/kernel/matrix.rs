//! Matrix products: out (+)= left · right, on the calling thread.
//!
//! Both operands are first packed into the order in which the inner kernel reads them: `right` into panels of as many
//! columns as two vector registers hold, `left` into panels of `ROWS` rows. A weight matrix is packed once and used
//! for many products. Every element of the result is the same chain of fused multiply-adds over the inner index, in
//! blocks of `DEPTH`, whatever else is in the matrices: a row of the result depends on its own row of `left` alone,
//! bit for bit. Source: the loop order is that of Goto and van de Geijn, "Anatomy of high-performance matrix
//! multiplication" (2008).

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

/// Rows of `left` that the inner kernel takes together: 6 × 2 sums, 2 columns and 1 factor fill AVX2's 16 registers.
const ROWS: usize = 6;
/// Inner indices taken together: a panel of `right` of this depth stays in the first-level cache, or nearly.
const DEPTH: usize = 384;
/// Rows of `left` packed together: of this many rows and `DEPTH` they stay in the second-level cache.
const BLOCK: usize = 20 * ROWS;
/// Vector registers that one row of a panel of `right` fills.
const VECTORS: usize = 2;

/// A read-only matrix seen through strides.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> View<'a> {
    /// The row-major matrix of `columns` columns that fills `values`.
    pub fn new(values: &'a [f32], columns: usize) -> Self {
        Self::strided(values, values.len() / columns, columns, columns)
    }

    /// A row-major matrix whose rows start `row_stride` apart.
    pub fn strided(values: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(rows == 0 || values.len() >= (rows - 1) * row_stride + columns, "matrix beyond its values");
        Self { values, rows, columns, row_stride, column_stride: 1 }
    }

    /// The same matrix with rows and columns exchanged.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// The rows from `first` on, `rows` of them.
    #[must_use]
    pub fn rows(self, first: usize, rows: usize) -> Self {
        assert!(first + rows <= self.rows, "rows beyond the matrix");
        let values = if rows == 0 { &[] } else { &self.values[first * self.row_stride..] };
        Self { values, rows, ..self }
    }

    /// Number of rows.
    pub fn height(&self) -> usize {
        self.rows
    }

    /// Column `index` of a column-major matrix.
    fn column(&self, index: usize) -> &'a [f32] {
        &self.values[index * self.column_stride..][..self.rows]
    }

    fn at(&self, row: usize, column: usize) -> f32 {
        self.values[row * self.row_stride + column * self.column_stride]
    }
}

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

/// A right operand packed for the inner kernel: panels of equal width, each `depth × width`, zeros beyond the last column.
#[derive(Debug, Clone, Default)]
pub struct Panels {
    values: Vec<f32>,
    depth: usize,
    columns: usize,
    width: usize,
}

impl Panels {
    /// Packs `right`.
    pub fn of(right: View) -> Self {
        let mut panels = Self::default();
        panels.pack(right);
        panels
    }

    /// Packs `right` in place of what was packed before.
    pub fn pack(&mut self, right: View) {
        self.width = panel_width();
        (self.depth, self.columns) = (right.rows, right.columns);
        let panel = self.depth * self.width;
        self.values.resize(panel * self.columns.div_ceil(self.width), 0.0);
        for (index, target) in self.values.chunks_exact_mut(panel.max(1)).enumerate() {
            let first = index * self.width;
            let columns = first..right.columns.min(first + self.width);
            match self.width {
                32 => pack_panel::<32>(target, right, columns),
                16 => pack_panel::<16>(target, right, columns),
                8 => pack_panel::<8>(target, right, columns),
                _ => pack_panel::<VECTORS>(target, right, columns),
            }
        }
    }

    /// Inner indices: rows of the packed matrix.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Columns of the packed matrix.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Where the panel of `width` columns starting at `column` has its inner indices from `depth` on.
    fn block(&self, column: usize, depth: Range<usize>) -> &[f32] {
        let start = column * self.depth;
        &self.values[start + depth.start * self.width..start + depth.end * self.width]
    }
}

/// Packs the given columns of `right`, `N` of them or the last few, beside which zeros are put.
#[inline(always)]
fn pack_panel<const N: usize>(target: &mut [f32], right: View, columns: Range<usize>) {
    let (target, _) = target.as_chunks_mut::<N>();
    if columns.len() < N {
        target.as_flattened_mut().fill(0.0);
        for (place, column) in columns.enumerate() {
            target.iter_mut().enumerate().for_each(|(row, target)| target[place] = right.at(row, column));
        }
    } else if right.column_stride == 1 {
        for (target, row) in target.iter_mut().zip(right.values.chunks(right.row_stride)) {
            target.copy_from_slice(&row[columns.clone()]);
        }
    } else {
        interleave(target, std::array::from_fn(|place| right.column(columns.start + place)));
    }
}

/// Packs the given rows of `left` over the given inner indices: panels of `ROWS` rows, zeros beyond the last row.
#[inline(always)]
fn pack_left(target: &mut Vec<f32>, left: View, rows: Range<usize>, depth: Range<usize>) {
    let panel = depth.len() * ROWS;
    target.resize(panel * rows.len().div_ceil(ROWS), 0.0);
    let left = left.transposed().rows(depth.start, depth.len());
    for (index, target) in target.chunks_exact_mut(panel).enumerate() {
        let first = rows.start + index * ROWS;
        pack_panel::<ROWS>(target, left, first..rows.end.min(first + ROWS));
    }
}

/// Puts the values of `sources` side by side, place after place.
#[inline(always)]
fn interleave<const N: usize>(target: &mut [[f32; N]], sources: [&[f32]; N]) {
    let sources = sources.map(|source| &source[..target.len()]);
    for (index, target) in target.iter_mut().enumerate() {
        for (target, source) in target.iter_mut().zip(sources) {
            *target = source[index];
        }
    }
}

/// out = start + left · right.
///
/// Shapes: left m × k, right k × n, out m × n. `packing` is working memory.
pub fn multiply(out: ViewMut, start: Start, left: View, right: &Panels, packing: &mut Vec<f32>) {
    assert_eq!(left.columns, right.depth, "inner dimensions differ");
    assert!(left.columns > 0, "there are no products to add");
    assert!(left.column_stride == 1 || left.row_stride == 1, "left must be row-major or column-major");
    Arch::new().dispatch(Product { out, start, left, right, packing });
}

struct Product<'a> {
    out: ViewMut<'a>,
    start: Start<'a>,
    left: View<'a>,
    right: &'a Panels,
    packing: &'a mut Vec<f32>,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        for first in (0..self.left.rows).step_by(BLOCK) {
            let rows = first..self.left.rows.min(first + BLOCK);
            for depth in (0..self.left.columns).step_by(DEPTH) {
                let start = if depth == 0 { self.start } else { Start::Current };
                let depth = depth..self.left.columns.min(depth + DEPTH);
                pack_left(self.packing, self.left, rows.clone(), depth.clone());
                self.block(simd, rows.clone(), depth, start);
            }
        }
    }
}

impl Product<'_> {
    /// Adds the products of the packed rows over the inner indices `depth` to `start`.
    #[inline(always)]
    fn block<S: Simd>(&mut self, simd: S, rows: Range<usize>, depth: Range<usize>, start: Start) {
        for column in (0..self.right.columns).step_by(VECTORS * S::F32_LANES) {
            let panel = S::as_simd_f32s(self.right.block(column, depth.clone())).0;
            let columns = column..self.right.columns.min(column + VECTORS * S::F32_LANES);
            for (index, left) in self.packing.chunks_exact(depth.len() * ROWS).enumerate() {
                let first = rows.start + index * ROWS;
                let sums = inner(simd, left, panel);
                let mut out = self.out.columns(columns.clone());
                out.put(simd, start.columns(columns.clone()), &sums, first..rows.end.min(first + ROWS));
            }
        }
    }
}

type Sums<S> = [[<S as Simd>::f32s; VECTORS]; ROWS];

/// The products of one panel of rows and one panel of columns.
#[inline(always)]
fn inner<S: Simd>(simd: S, left: &[f32], right: &[S::f32s]) -> Sums<S> {
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
    for (left, right) in left.as_chunks::<ROWS>().0.iter().zip(right.as_chunks::<VECTORS>().0) {
        for (sums, factor) in sums.iter_mut().zip(left) {
            let factor = simd.splat_f32s(*factor);
            sums[0] = simd.mul_add_f32s(factor, right[0], sums[0]);
            sums[1] = simd.mul_add_f32s(factor, right[1], sums[1]);
        }
    }
    sums
}

impl Start<'_> {
    #[inline(always)]
    fn columns(self, columns: Range<usize>) -> Self {
        if let Self::Bias(bias) = self { Self::Bias(&bias[columns]) } else { self }
    }

    #[inline(always)]
    fn value(self, column: usize, current: f32) -> f32 {
        match self {
            Self::Zero => 0.0,
            Self::Bias(bias) => bias[column],
            Self::Current => current,
        }
    }

    #[inline(always)]
    fn vector<S: Simd>(self, simd: S, index: usize, current: S::f32s) -> S::f32s {
        match self {
            Self::Zero => simd.splat_f32s(0.0),
            Self::Bias(bias) => S::as_simd_f32s(bias).0[index],
            Self::Current => current,
        }
    }
}

/// A few columns of the result.
struct Columns<'a> {
    values: &'a mut [f32],
    row_stride: usize,
    range: Range<usize>,
}

impl ViewMut<'_> {
    #[inline(always)]
    fn columns(&mut self, columns: Range<usize>) -> Columns<'_> {
        Columns { values: self.values, row_stride: self.row_stride, range: columns }
    }
}

impl Columns<'_> {
    /// Writes start + sums to the given rows.
    #[inline(always)]
    fn put<S: Simd>(&mut self, simd: S, start: Start, sums: &Sums<S>, rows: Range<usize>) {
        let full = self.range.len() == VECTORS * S::F32_LANES;
        for (row, sums) in rows.zip(sums) {
            let row = &mut self.values[row * self.row_stride..][self.range.clone()];
            if full {
                let (targets, _) = S::as_mut_simd_f32s(row);
                for (index, (target, sum)) in targets.iter_mut().zip(sums).enumerate() {
                    *target = simd.add_f32s(start.vector(simd, index, *target), *sum);
                }
            } else {
                let sums = bytemuck::cast_slice::<_, f32>(sums);
                for (column, (target, sum)) in row.iter_mut().zip(sums).enumerate() {
                    *target = start.value(column, *target) + sum;
                }
            }
        }
    }
}

fn panel_width() -> usize {
    struct Width;
    impl WithSimd for Width {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            VECTORS * S::F32_LANES
        }
    }
    Arch::new().dispatch(Width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::{assert_close, noise};

    /// The product by its definition, in double precision; `right` and the result are row-major.
    fn plain(start: &[f32], left: View, right: &[f32], columns: usize) -> Vec<f32> {
        let element = |index: usize| {
            let (row, column) = (index / columns, index % columns);
            let term = |inner| f64::from(left.at(row, inner)) * f64::from(right[inner * columns + column]);
            (f64::from(start[index]) + (0..left.columns).map(term).sum::<f64>()) as f32
        };
        (0..left.rows * columns).map(element).collect()
    }

    fn product(start: Start, current: &[f32], left: View, right: &Panels) -> Vec<f32> {
        let mut out = current.to_vec();
        multiply(ViewMut::new(&mut out, right.columns), start, left, right, &mut Vec::new());
        out
    }

    #[test]
    fn products_of_all_kinds_of_sizes_agree_with_the_definition() {
        for (rows, inner, columns) in
            [(1, 1, 1), (5, 3, 17), (6, 16, 16), (7, 256, 33), (130, 257, 40), (13, 600, 31), (0, 4, 4)]
        {
            let (a, b, current) = (noise(1, rows * inner), noise(2, inner * columns), noise(3, rows * columns));
            let (left, right) = (View::strided(&a, rows, inner, inner), View::strided(&b, inner, columns, columns));
            let expected = plain(&current, left, &b, columns);
            assert_close(&product(Start::Current, &current, left, &Panels::of(right)), &expected, 1e-4);

            let turned: Vec<f32> = (0..a.len()).map(|index| a[index % rows * inner + index / rows]).collect();
            let left = View::strided(&turned, inner, rows, rows).transposed();
            assert_close(&product(Start::Current, &current, left, &Panels::of(right)), &expected, 1e-4);

            let turned: Vec<f32> = (0..b.len()).map(|index| b[index % inner * columns + index / inner]).collect();
            let right = View::strided(&turned, columns, inner, inner).transposed();
            assert_close(&product(Start::Current, &current, left, &Panels::of(right)), &expected, 1e-4);
        }
    }

    #[test]
    fn the_product_starts_from_zero_or_a_bias_or_what_is_there() {
        let (a, b, bias) = (noise(1, 20), noise(2, 15), noise(3, 3));
        let (left, right, dirt) = (View::new(&a, 5), Panels::of(View::new(&b, 3)), vec![f32::NAN; 12]);
        assert_close(&product(Start::Zero, &dirt, left, &right), &plain(&[0.0; 12], left, &b, 3), 1e-6);
        assert_close(&product(Start::Bias(&bias), &dirt, left, &right), &plain(&bias.repeat(4), left, &b, 3), 1e-6);
    }

    #[test]
    fn a_row_depends_on_nothing_but_itself_and_rows_can_be_strided() {
        let (a, b) = (noise(1, 300 * 700), noise(2, 700 * 50));
        let right = Panels::of(View::new(&b, 50));
        let all = product(Start::Zero, &[0.0; 300 * 50], View::new(&a, 700), &right);
        for (first, rows) in [(0, 1), (7, 1), (290, 10), (100, 150)] {
            let some = product(Start::Zero, &vec![0.0; rows * 50], View::new(&a, 700).rows(first, rows), &right);
            assert_eq!(some, all[first * 50..(first + rows) * 50]);
        }
        let mut wide = vec![9.0; 300 * 60];
        multiply(ViewMut::new(&mut wide, 60), Start::Zero, View::new(&a, 700), &right, &mut Vec::new());
        assert_eq!(wide[60..110], all[50..100]);
        assert!(wide[110..120].iter().all(|value| *value == 9.0));
    }
}
