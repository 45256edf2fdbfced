//! Products of bfloat16 tiles with sums in f32, on AMX or on AVX512-BF16: the one file of the engine with `unsafe`.
//!
//! A tile holds 16 × 16 pairs of bfloat16 values that are neighbours along the inner index of a product: a row for each
//! row of the left operand, or a row for each pair of rows of the right one. AMX multiplies two of them in one
//! instruction; AVX512-BF16 reads the same tiles row by row. Values are rounded to nearest, ties to even; numbers below
//! the least normal one count as zero. Source: Intel, "Architecture instruction set extensions", chapter 3 (2023).
//!
//! Two tiles in place of one hold each value as a sum: what it is rounded to, and what the rounding took away. Of the four
//! products of two such sums three are added, and the least is left out. Source: Henry, Tang and Heinecke, "Leveraging the
//! bfloat16 artificial intelligence datatype for higher-precision computations" (2019).
#![expect(
    unsafe_code,
    reason = "vector and tile instructions; a `Bfloat16Unit` exists only where the processor has them"
)]

use std::arch::asm;
use std::arch::x86_64::{
    __cpuid_count, __m512, __m512bh, __m512i, _MM_HINT_T1, _mm_prefetch, _mm512_castps_si512, _mm512_castsi512_ps,
    _mm512_castsi512_si256, _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_extracti64x4_epi64,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_permutexvar_epi16, _mm512_set1_epi32, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_shuffle_f32x4, _mm512_slli_epi32, _mm512_storeu_ps, _mm512_storeu_si512,
    _mm512_sub_ps, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};
use std::marker::PhantomData;
use std::mem::transmute;
use std::sync::OnceLock;

/// Rows of a tile, and pairs in each.
pub(crate) const SIDE: usize = 16;
/// Inner indices that a tile spans.
pub(crate) const SPAN: usize = 2 * SIDE;
/// Of tiles in pairs, which one of the left operand meets which one of the right: the least products come first.
const MEETINGS: [(usize, usize); 3] = [(0, 1), (0, 0), (1, 0)];
/// Rows and columns of the sums that are computed at a time.
pub(crate) const SQUARE: usize = 2 * SIDE;

/// 16 × 16 pairs of bfloat16, the one of the lower inner index in the lower half.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Tile(pub(crate) [[u32; SIDE]; SIDE]);

/// 32 × 32 sums.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Sums(pub(crate) [[f32; SQUARE]; SQUARE]);

/// The part of this processor that multiplies bfloat16: to have one proves that the instructions are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bfloat16Unit {
    tiles: bool,
    /// Tiles that hold the same values, one after the other.
    parts: usize,
}

/// A stretch of products on one thread, which needs its tile registers set up.
#[derive(Debug)]
pub(crate) struct Session {
    unit: Bfloat16Unit,
    /// Tile registers belong to a thread.
    thread: PhantomData<*const ()>,
}

impl Tile {
    pub(crate) const ZERO: Self = Self([[0; SIDE]; SIDE]);
}

impl Sums {
    pub(crate) const ZERO: Self = Self([[0.0; SQUARE]; SQUARE]);
}

#[expect(clippy::unused_self, reason = "to have a unit proves that the instructions are there")]
impl Bfloat16Unit {
    /// AMX where the processor has it and the system lets this process use it, else AVX512-BF16, else nothing.
    pub fn detect() -> Option<Self> {
        static FOUND: OnceLock<Option<Bfloat16Unit>> = OnceLock::new();
        *FOUND.get_or_init(|| Self::without_tiles().map(|_| Self { tiles: tiles_usable(), parts: 1 }))
    }

    /// AVX512-BF16 alone, or nothing.
    pub fn without_tiles() -> Option<Self> {
        let vectors = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512bf16");
        vectors.then_some(Self { tiles: false, parts: 1 })
    }

    /// The same, for values that are sums of two bfloat16.
    #[must_use]
    pub fn of_sums(self) -> Self {
        Self { parts: 2, ..self }
    }

    /// Whether it is AMX.
    pub fn has_tiles(self) -> bool {
        self.tiles
    }

    /// Tiles that hold the same values, one after the other: 1, or 2 for sums of two.
    pub(crate) fn parts(self) -> usize {
        self.parts
    }

    /// Rounds 16 rows of 32 values, `stride` apart, into the rows of the first tile; the second, if any, takes the rest.
    pub(crate) fn pack_rows(self, tiles: &mut [Tile], source: &[f32], stride: usize) {
        assert!(source.len() >= (SIDE - 1) * stride + SPAN, "values beyond the source");
        // SAFETY: the unit proves the instructions; row r reads 32 values from r · stride on, inside `source`.
        unsafe { pack_rows(tiles, source, stride) }
    }

    /// Rounds 32 rows of 16 values, `stride` apart, and pairs rows 2 p and 2 p + 1 in row p of the first tile; the
    /// second, if any, takes the rest.
    pub(crate) fn pack_pairs(self, tiles: &mut [Tile], source: &[f32], stride: usize) {
        assert!(source.len() >= (SPAN - 1) * stride + SIDE, "values beyond the source");
        // SAFETY: the unit proves the instructions; row r reads 16 values from r · stride on, inside `source`.
        unsafe { pack_pairs(tiles, source, stride) }
    }

    /// Exchanges rows and columns of pairs.
    pub(crate) fn transpose(self, tile: &mut Tile) {
        // SAFETY: the unit proves the instructions.
        unsafe { transpose(tile) }
    }

    /// Sets up the calling thread for products.
    pub(crate) fn begin(self) -> Session {
        if self.tiles {
            configure_tiles();
        }
        Session { unit: self, thread: PhantomData }
    }
}

impl Session {
    /// Sets `sums` to left · right. `left` is one or two rows of tiles along the inner index, of 16 rows each; `right`
    /// two columns of tiles; all of equal length. With one row of tiles only the first 16 rows of `sums` are set.
    pub(crate) fn multiply(&self, left: [&[Tile]; 2], right: [&[Tile]; 2], sums: &mut Sums) {
        let parts = self.unit.parts;
        let count = left[0].len() / parts;
        assert!(count > 0 && left[0].len() == count * parts, "there are no products to add");
        assert!(right.iter().all(|right| right.len() == left[0].len()), "inner dimensions differ");
        assert!(left[1].len() == left[0].len() || left[1].is_empty(), "inner dimensions differ");
        match (self.unit.tiles, left[1].is_empty(), parts) {
            // SAFETY: `begin` set up the tile registers of this thread, which is not `Send`; `count` tiles, or pairs, are
            // read from each pointer, and the sums are written within `sums`.
            (true, false, 1) => unsafe { tile_square(left, right, count, sums) },
            // SAFETY: as above.
            (true, true, 1) => unsafe { tile_half(left[0], right, count, sums) },
            // SAFETY: as above.
            (true, false, _) => unsafe { paired_square(left, right, count, sums) },
            // SAFETY: as above.
            (true, true, _) => unsafe { paired_half(left[0], right, count, sums) },
            (false, ..) => {
                for (row, left) in left.into_iter().filter(|left| !left.is_empty()).enumerate() {
                    for half in [0, SIDE / 2] {
                        let sums = &mut sums.0[row * SIDE + half..][..SIDE / 2];
                        // SAFETY: the unit proves the instructions.
                        unsafe { vector_rows(left, half, right, parts, sums) };
                    }
                }
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.unit.tiles {
            // SAFETY: gives up the tile registers that `begin` set up; nothing else uses them.
            unsafe { asm!("tilerelease", options(nostack, nomem)) };
        }
    }
}

/// Fetches the cache line where `values` start into the second-level cache.
#[inline(always)]
pub(crate) fn prefetch(values: &[f32]) {
    // SAFETY: a hint; it reads nothing, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(values.as_ptr().cast()) };
}

/// Whether the processor has AMX with bfloat16, and the system grants this process its registers.
fn tiles_usable() -> bool {
    const TILES_AND_BFLOAT16: u32 = 1 << 24 | 1 << 22;
    let present = __cpuid_count(0, 0).eax >= 7 && __cpuid_count(7, 0).edx & TILES_AND_BFLOAT16 == TILES_AND_BFLOAT16;
    present && request_tiles()
}

#[cfg(target_os = "linux")]
fn request_tiles() -> bool {
    /// `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`.
    const CALL: [i64; 3] = [158, 0x1023, 18];
    let result: i64;
    // SAFETY: the call takes two numbers and no pointer; it overwrites rax, rcx and r11 alone.
    unsafe {
        asm!("syscall", inlateout("rax") CALL[0] => result, in("rdi") CALL[1], in("rsi") CALL[2],
             out("rcx") _, out("r11") _, options(nostack));
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn request_tiles() -> bool {
    false
}

/// Gives all eight tile registers 16 rows of 64 bytes.
fn configure_tiles() {
    #[repr(C, align(64))]
    struct Configuration([u8; 64]);
    const CONFIGURATION: Configuration = {
        let mut bytes = [0; 64];
        bytes[0] = 1;
        let mut tile = 0;
        while tile < 8 {
            bytes[16 + 2 * tile] = 64;
            bytes[48 + tile] = SIDE as u8;
            tile += 1;
        }
        Configuration(bytes)
    };
    let configuration = &CONFIGURATION;
    // SAFETY: called where AMX is usable; reads 64 bytes that are a valid configuration.
    unsafe { asm!("ldtilecfg [{}]", in(reg) configuration, options(nostack, readonly)) };
}

/// 32 × 32 sums in four tile registers. The lines are run for each of `count` places, which are so many bytes apart in the
/// operands; they load rows of tiles from `left0` and `left1` and columns from `right0` and `right1`.
macro_rules! square {
    ($left:ident, $right:ident, $count:ident, $sums:ident, $apart:literal, $($line:literal),+ $(,)?) => {
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "2:",
            $($line,)+
            concat!("add {left0}, ", $apart), concat!("add {left1}, ", $apart),
            concat!("add {right0}, ", $apart), concat!("add {right1}, ", $apart),
            "dec {count}", "jnz 2b",
            "shl {row}, 1",
            "tilestored [{sums} + {row}], tmm0", "tilestored [{sums} + {row} + 64], tmm1",
            "tilestored [{sums} + {row} + 2048], tmm2", "tilestored [{sums} + {row} + 2112], tmm3",
            left0 = inout(reg) $left[0].as_ptr() => _, left1 = inout(reg) $left[1].as_ptr() => _,
            right0 = inout(reg) $right[0].as_ptr() => _, right1 = inout(reg) $right[1].as_ptr() => _,
            count = inout(reg) $count => _, row = inout(reg) 64_usize => _, sums = in(reg) $sums.0.as_mut_ptr(),
            options(nostack),
        )
    };
}

/// As [`square`] for 16 × 32 sums, in two tile registers.
macro_rules! half {
    ($left:ident, $right:ident, $count:ident, $sums:ident, $apart:literal, $($line:literal),+ $(,)?) => {
        asm!(
            "tilezero tmm0", "tilezero tmm1",
            "2:",
            $($line,)+
            concat!("add {left}, ", $apart), concat!("add {right0}, ", $apart), concat!("add {right1}, ", $apart),
            "dec {count}", "jnz 2b",
            "shl {row}, 1",
            "tilestored [{sums} + {row}], tmm0", "tilestored [{sums} + {row} + 64], tmm1",
            left = inout(reg) $left.as_ptr() => _,
            right0 = inout(reg) $right[0].as_ptr() => _, right1 = inout(reg) $right[1].as_ptr() => _,
            count = inout(reg) $count => _, row = inout(reg) 64_usize => _, sums = in(reg) $sums.0.as_mut_ptr(),
            options(nostack),
        )
    };
}

/// # Safety
/// The thread's tile registers are set up, and each operand has `count` tiles, at least one.
unsafe fn tile_square(left: [&[Tile]; 2], right: [&[Tile]; 2], count: usize, sums: &mut Sums) {
    // SAFETY: see above; the stride of a tile's rows is 64 bytes, that of the sums 128.
    unsafe {
        square!(
            left,
            right,
            count,
            sums,
            "1024",
            "tileloadd tmm4, [{left0} + {row}]",
            "tileloadd tmm6, [{right0} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{right1} + {row}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{left1} + {row}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
        );
    }
}

/// # Safety
/// As [`tile_square`].
unsafe fn tile_half(left: &[Tile], right: [&[Tile]; 2], count: usize, sums: &mut Sums) {
    // SAFETY: see above.
    unsafe {
        half!(
            left,
            right,
            count,
            sums,
            "1024",
            "tileloadd tmm4, [{left} + {row}]",
            "tileloadd tmm6, [{right0} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{right1} + {row}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
        );
    }
}

/// Pairs of tiles, in the order of [`MEETINGS`].
///
/// # Safety
/// As [`tile_square`], with `count` pairs.
unsafe fn paired_square(left: [&[Tile]; 2], right: [&[Tile]; 2], count: usize, sums: &mut Sums) {
    // SAFETY: see above.
    unsafe {
        square!(
            left,
            right,
            count,
            sums,
            "2048",
            "tileloadd tmm4, [{left0} + {row}]",
            "tileloadd tmm6, [{right0} + {row} + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{right1} + {row} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{left1} + {row}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm6, [{right0} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{right1} + {row}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm4, [{left0} + {row} + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{left1} + {row} + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
        );
    }
}

/// # Safety
/// As [`paired_square`].
unsafe fn paired_half(left: &[Tile], right: [&[Tile]; 2], count: usize, sums: &mut Sums) {
    // SAFETY: see above.
    unsafe {
        half!(
            left,
            right,
            count,
            sums,
            "2048",
            "tileloadd tmm4, [{left} + {row}]",
            "tileloadd tmm6, [{right0} + {row} + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{right1} + {row} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm6, [{right0} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{right1} + {row}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{left} + {row} + 1024]",
            "tdpbf16ps tmm0, tmm5, tmm6",
            "tdpbf16ps tmm1, tmm5, tmm7",
        );
    }
}

/// 8 × 32 sums of the rows of `left` from `first` on, in sixteen vector registers.
#[target_feature(enable = "avx512f,avx512bf16")]
fn vector_rows(left: &[Tile], first: usize, right: [&[Tile]; 2], parts: usize, out: &mut [[f32; SQUARE]]) {
    let mut sums = [[_mm512_setzero_ps(); 2]; SIDE / 2];
    let meetings: &[_] = if parts == 1 { &[(0, 0)] } else { &MEETINGS };
    for place in (0..left.len()).step_by(parts) {
        for (at_left, at_right) in meetings {
            let (left, at_right) = (&left[place + at_left], place + at_right);
            let right = [&right[0][at_right], &right[1][at_right]];
            for pair in 0..SIDE {
                let columns = [load(&right[0].0[pair]), load(&right[1].0[pair])];
                for (sums, left) in sums.iter_mut().zip(&left.0[first..]) {
                    let factor = halves(_mm512_set1_epi32(left[pair].cast_signed()));
                    sums[0] = _mm512_dpbf16_ps(sums[0], factor, halves(columns[0]));
                    sums[1] = _mm512_dpbf16_ps(sums[1], factor, halves(columns[1]));
                }
            }
        }
    }
    for (out, sums) in out.iter_mut().zip(sums) {
        let (lower, upper) = out.split_at_mut(SIDE);
        // SAFETY: both halves have 16 values.
        unsafe {
            _mm512_storeu_ps(lower.as_mut_ptr(), sums[0]);
            _mm512_storeu_ps(upper.as_mut_ptr(), sums[1]);
        }
    }
}

#[target_feature(enable = "avx512f")]
fn load(row: &[u32; SIDE]) -> __m512i {
    // SAFETY: a row has 64 bytes.
    unsafe { _mm512_loadu_si512(row.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
fn halves(bits: __m512i) -> __m512bh {
    // SAFETY: both are 512 bits without meaning of their own.
    unsafe { transmute::<__m512i, __m512bh>(bits) }
}

/// Sixteen values and the next sixteen, rounded.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn rounded([low, high]: [__m512; 2]) -> __m512i {
    // SAFETY: the bits are moved as they are.
    unsafe { transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
}

/// What rounding took from the values.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn rest([low, high]: [__m512; 2], rounded: __m512i) -> [__m512; 2] {
    let near = [_mm512_castsi512_si256(rounded), _mm512_extracti64x4_epi64::<1>(rounded)];
    let near = near.map(|half| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half))));
    [_mm512_sub_ps(low, near[0]), _mm512_sub_ps(high, near[1])]
}

/// Writes 32 values, rounded and in the order that `order` gives them, to a row of the first tile, and the rest of them to
/// that of the second, if any.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn pack(tiles: &mut [Tile], row: usize, values: [__m512; 2], order: impl Fn(__m512i) -> __m512i) {
    let store = |tile: &mut Tile, values: __m512i| {
        // SAFETY: a row of a tile has 64 bytes.
        unsafe { _mm512_storeu_si512(tile.0[row].as_mut_ptr().cast(), values) };
    };
    let near = rounded(values);
    store(&mut tiles[0], order(near));
    if let Some(second) = tiles.get_mut(1) {
        store(second, order(rounded(rest(values, near))));
    }
}

/// # Safety
/// `source` has 16 rows of 32 values, `stride` apart.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pack_rows(tiles: &mut [Tile], source: &[f32], stride: usize) {
    for row in 0..SIDE {
        // SAFETY: as promised.
        let values = unsafe {
            let source = source.as_ptr().add(row * stride);
            [_mm512_loadu_ps(source), _mm512_loadu_ps(source.add(SIDE))]
        };
        pack(tiles, row, values, |values| values);
    }
}

/// # Safety
/// `source` has 32 rows of 16 values, `stride` apart.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pack_pairs(tiles: &mut [Tile], source: &[f32], stride: usize) {
    const ORDER: [u32; SIDE] = {
        let mut order = [0; SIDE];
        let mut column = 0;
        while column < SIDE {
            order[column] = column as u32 | (SIDE as u32 + column as u32) << 16;
            column += 1;
        }
        order
    };
    let order = load(&ORDER);
    for pair in 0..SIDE {
        // SAFETY: as promised.
        let values = unsafe {
            let source = source.as_ptr().add(2 * pair * stride);
            [_mm512_loadu_ps(source), _mm512_loadu_ps(source.add(stride))]
        };
        pack(tiles, pair, values, |values| _mm512_permutexvar_epi16(order, values));
    }
}

/// In four rounds, of which each exchanges blocks of half the size between pairs of rows.
#[target_feature(enable = "avx512f")]
fn transpose(tile: &mut Tile) {
    let mut rows = [_mm512_setzero_si512(); SIDE];
    for (row, values) in rows.iter_mut().zip(&tile.0) {
        *row = load(values);
    }
    for group in rows.as_chunks_mut::<4>().0 {
        let [a, b, c, d] = *group;
        let (ab, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (cd, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        *group = [
            _mm512_unpacklo_epi64(ab, cd),
            _mm512_unpackhi_epi64(ab, cd),
            _mm512_unpacklo_epi64(ab_high, cd_high),
            _mm512_unpackhi_epi64(ab_high, cd_high),
        ];
    }
    for column in 0..4 {
        let (a, b) = (_mm512_castsi512_ps(rows[column]), _mm512_castsi512_ps(rows[4 + column]));
        let (c, d) = (_mm512_castsi512_ps(rows[8 + column]), _mm512_castsi512_ps(rows[12 + column]));
        let (ab, ab_odd) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
        let (cd, cd_odd) = (_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xdd>(c, d));
        let turned = [
            _mm512_shuffle_f32x4::<0x88>(ab, cd),
            _mm512_shuffle_f32x4::<0x88>(ab_odd, cd_odd),
            _mm512_shuffle_f32x4::<0xdd>(ab, cd),
            _mm512_shuffle_f32x4::<0xdd>(ab_odd, cd_odd),
        ];
        for (block, turned) in turned.into_iter().enumerate() {
            let target = &mut tile.0[4 * block + column];
            // SAFETY: a row of the tile has 64 bytes.
            unsafe { _mm512_storeu_si512(target.as_mut_ptr().cast(), _mm512_castps_si512(turned)) };
        }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::kernel::testing::noise;

    fn units() -> impl Iterator<Item = Bfloat16Unit> {
        [Bfloat16Unit::detect(), Bfloat16Unit::without_tiles()].into_iter().flatten()
    }

    /// What a tile holds: pair `pair` of row `row`, by its definition.
    fn pair(low: f32, high: f32) -> u32 {
        u32::from(bf16::from_f32(low).to_bits()) | u32::from(bf16::from_f32(high).to_bits()) << 16
    }

    fn tiles(seed: u64, count: usize) -> Vec<Tile> {
        let values = noise(seed, count * SIDE * SPAN);
        let tile = |values: &[f32]| {
            Tile(std::array::from_fn(|row| {
                std::array::from_fn(|place| pair(values[row * SPAN + 2 * place], values[row * SPAN + 2 * place + 1]))
            }))
        };
        values.chunks_exact(SIDE * SPAN).map(tile).collect()
    }

    #[test]
    fn packed_rows_and_pairs_are_rounded_values_in_their_places_and_the_rest_of_them() {
        let source = noise(1, SPAN * 40);
        let rest = |value: f32| value - bf16::from_f32(value).to_f32();
        for unit in units().flat_map(|unit| [unit, unit.of_sums()]) {
            let (mut tiles, mut turned) = ([Tile::ZERO; 2], [Tile::ZERO; 2]);
            unit.pack_rows(&mut tiles[..unit.parts()], &source, 40);
            unit.pack_pairs(&mut turned[..unit.parts()], &source, 40);
            for (row, place) in (0..SIDE).flat_map(|row| (0..SIDE).map(move |place| (row, place))) {
                let along = &source[row * 40 + 2 * place..];
                let down = &source[2 * row * 40 + place..];
                assert_eq!(tiles[0].0[row][place], pair(along[0], along[1]));
                assert_eq!(turned[0].0[row][place], pair(down[0], down[40]));
                let rests = [pair(rest(along[0]), rest(along[1])), pair(rest(down[0]), rest(down[40]))];
                assert_eq!(
                    [tiles[1].0[row][place], turned[1].0[row][place]],
                    if unit.parts() == 2 { rests } else { [0; 2] }
                );
            }
        }
    }

    #[test]
    fn transposing_exchanges_rows_and_columns() {
        let before = tiles(1, 1)[0];
        for unit in units() {
            let mut after = before;
            unit.transpose(&mut after);
            for (row, place) in (0..SIDE).flat_map(|row| (0..SIDE).map(move |place| (row, place))) {
                assert_eq!(after.0[row][place], before.0[place][row]);
            }
        }
    }

    #[test]
    fn sums_agree_with_the_definition_for_one_and_two_rows_of_tiles() {
        let half = |tile: &Tile, row: usize, pair: usize, upper: usize| {
            bf16::from_bits((tile.0[row][pair] >> (16 * upper)) as u16).to_f32()
        };
        let units = units().flat_map(|unit| [unit, unit.of_sums()]);
        for (unit, count) in units.flat_map(|unit| [1, 2, 5].map(|count| (unit, count))) {
            let [a, b, c, d] = [1, 2, 3, 4].map(|seed| tiles(seed, count * unit.parts()));
            let meetings: &[_] = if unit.parts() == 1 { &[(0, 0)] } else { &[(0, 0), (0, 1), (1, 0)] };
            let expected = |row: usize, column: usize| -> f32 {
                let (left, right) = ([&a, &b][row / SIDE], [&c, &d][column / SIDE]);
                let (row, column) = (row % SIDE, column % SIDE);
                let term = |index: usize, (at_left, at_right): (usize, usize)| {
                    let (tile, pair, upper) = (index / SPAN * unit.parts(), index % SPAN / 2, index % 2);
                    half(&left[tile + at_left], row, pair, upper) * half(&right[tile + at_right], pair, column, upper)
                };
                (0..count * SPAN).flat_map(|index| meetings.iter().map(move |meeting| term(index, *meeting))).sum()
            };
            for rows in [SIDE, SQUARE] {
                let mut sums = Sums([[f32::NAN; SQUARE]; SQUARE]);
                let lower: &[Tile] = if rows == SIDE { &[] } else { &b };
                unit.begin().multiply([&a, lower], [&c, &d], &mut sums);
                for (row, column) in (0..rows).flat_map(|row| (0..SQUARE).map(move |column| (row, column))) {
                    assert!((sums.0[row][column] - expected(row, column)).abs() < 1e-4);
                }
            }
        }
    }
}
