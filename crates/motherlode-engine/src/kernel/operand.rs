//! The operands of matrix products: matrices seen through strides, and right operands in the order of the inner kernel.

use std::ops::{Deref, DerefMut, Range};

use motherlode::engine::Precision;
use pulp::{Arch, Simd, WithSimd};

use super::bfloat16;
use super::buffer::resize;
#[cfg(target_arch = "x86_64")]
use super::tiles::{Bfloat16Unit, Tile};

/// Vector registers that one row of a panel of a right operand fills.
pub(super) const VECTORS: usize = 2;

/// A read-only matrix seen through strides.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub(super) values: &'a [f32],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
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

    /// Column `index` of a column-major matrix.
    fn column(&self, index: usize) -> &'a [f32] {
        &self.values[index * self.column_stride..][..self.rows]
    }

    pub(super) fn at(&self, row: usize, column: usize) -> f32 {
        self.values[row * self.row_stride + column * self.column_stride]
    }
}

/// What multiplies, and in which precision.
#[derive(Debug, Clone, Copy)]
pub enum Unit {
    /// In f32.
    Single(Arch),
    /// Operands rounded to bfloat16 and multiplied in f32: what [`Self::Bfloat16`] computes, on any processor.
    Rounded(Arch),
    /// Operands in bfloat16, or as sums of two such values, sums in f32.
    #[cfg(target_arch = "x86_64")]
    Bfloat16(Bfloat16Unit),
}

impl Default for Unit {
    fn default() -> Self {
        Self::single()
    }
}

impl Unit {
    /// The fastest that multiplies in f32.
    pub fn single() -> Self {
        Self::Single(Arch::new())
    }

    /// The fastest that multiplies in bfloat16.
    pub fn bfloat16() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(unit) = Bfloat16Unit::detect() {
            return Self::Bfloat16(unit);
        }
        Self::Rounded(Arch::new())
    }

    /// With operands as sums of two bfloat16 values where three products of those take less time than one in f32, which
    /// needs AMX; else in f32.
    pub fn bfloat16_sums() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(unit) = Bfloat16Unit::detect().filter(|unit| unit.has_tiles()) {
            return Self::Bfloat16(unit.of_sums());
        }
        Self::single()
    }

    /// The fastest that computes in `precision`.
    pub(crate) fn of(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::single(),
            Precision::Bf16x3 => Self::bfloat16_sums(),
            Precision::Bf16 => Self::bfloat16(),
        }
    }
}

/// A right operand packed for the inner kernel: panels of equal width, each `depth × width`, zeros beyond the last column.
#[derive(Debug, Clone, Default)]
pub struct Panels {
    pub(super) unit: Unit,
    pub(super) columns: usize,
    depth: usize,
    width: usize,
    values: Aligned,
    /// The operand in bfloat16, column of tiles after column of tiles, instead of `values`.
    #[cfg(target_arch = "x86_64")]
    tiles: Vec<Tile>,
}

impl Panels {
    /// Packs `right` for `unit`.
    pub fn of(right: View, unit: Unit) -> Self {
        let mut panels = Self::default();
        panels.pack(right, unit);
        panels
    }

    /// Packs `right` in place of what was packed before.
    pub fn pack(&mut self, right: View, unit: Unit) {
        (self.unit, self.depth, self.columns) = (unit, right.rows, right.columns);
        match unit {
            Unit::Single(arch) => self.pack_values(right, arch),
            Unit::Rounded(arch) => {
                self.pack_values(right, arch);
                bfloat16::round(&mut self.values);
            }
            #[cfg(target_arch = "x86_64")]
            Unit::Bfloat16(unit) => bfloat16::pack_right(&mut self.tiles, right, unit),
        }
    }

    fn pack_values(&mut self, right: View, arch: Arch) {
        self.width = panel_width(arch);
        let panel = self.depth * self.width;
        self.values.resize(panel * self.columns.div_ceil(self.width));
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

    /// Bytes that a packed operand of `depth` rows takes.
    pub(crate) fn bytes(depth: usize, columns: usize, unit: Unit) -> usize {
        match unit {
            Unit::Single(arch) | Unit::Rounded(arch) => {
                Aligned::LINE + size_of::<f32>() * depth * columns.next_multiple_of(panel_width(arch))
            }
            #[cfg(target_arch = "x86_64")]
            Unit::Bfloat16(unit) => {
                bfloat16::tiles_over(depth, unit) * columns.div_ceil(super::tiles::SIDE) * size_of::<Tile>()
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

    /// Where the panel that starts at `column` has its inner indices from `depth` on.
    pub(super) fn block(&self, column: usize, depth: Range<usize>) -> &[f32] {
        let start = column * self.depth;
        &self.values[start + depth.start * self.width..start + depth.end * self.width]
    }

    /// The column of tiles that starts at `column`, over `depth`; that before the last where there is none.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn tiles(&self, column: usize, depth: Range<usize>, unit: Bfloat16Unit) -> &[Tile] {
        let count = bfloat16::tiles_over(self.depth, unit);
        let last = self.tiles.len() / count - 1;
        let column = &self.tiles[(column / super::tiles::SIDE).min(last) * count..];
        &column[bfloat16::tiles_over(depth.start, unit)..bfloat16::tiles_over(depth.end, unit)]
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

/// Puts the values of `sources` side by side, place after place; a cache line of each source at a time.
#[inline(always)]
fn interleave<const N: usize>(target: &mut [[f32; N]], sources: [&[f32]; N]) {
    const LINE: usize = 16;
    let sources = sources.map(|source| &source[..target.len()]);
    for (first, target) in (0..target.len()).step_by(LINE).zip(target.chunks_mut(LINE)) {
        let mut lines = [[0.0; LINE]; N];
        for (line, source) in lines.iter_mut().zip(sources) {
            line[..target.len()].copy_from_slice(&source[first..first + target.len()]);
        }
        for (place, target) in target.iter_mut().enumerate() {
            for (target, line) in target.iter_mut().zip(&lines) {
                *target = line[place];
            }
        }
    }
}

fn panel_width(arch: Arch) -> usize {
    struct Width;
    impl WithSimd for Width {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            VECTORS * S::F32_LANES
        }
    }
    arch.dispatch(Width)
}

/// Values that start at a cache line: a vector register that is read across two takes twice as long.
#[derive(Debug, Clone, Default)]
pub(super) struct Aligned {
    values: Vec<f32>,
    start: usize,
    length: usize,
}

impl Aligned {
    const LINE: usize = 64;

    /// Makes room for `length` values, some of which may be left from before.
    pub(super) fn resize(&mut self, length: usize) {
        let room = length + Self::LINE / size_of::<f32>();
        if self.values.len() < room {
            resize(&mut self.values, room, 0.0);
        }
        // An offset that cannot be computed only costs speed.
        self.start = self.values.as_ptr().align_offset(Self::LINE).min(room - length);
        self.length = length;
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[self.start..self.start + self.length]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.start..self.start + self.length]
    }
}
