//! Sums, maxima and the exponential function, written so that the compiler turns them into vector instructions.
//!
//! Reductions run in [`LANES`] fixed lanes and fold them in a fixed order: the same result on every machine and for
//! every number of threads. The functions are inlined into the kernels, and compiled with
//! them for the instruction set found at run time.

/// Lanes of a reduction: two registers of AVX2.
pub const LANES: usize = 16;

/// Folds the lanes from `first` halves downwards.
#[inline(always)]
fn fold(mut lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] = join(lanes[lane], lanes[lane + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// The sum of `values`.
#[inline(always)]
pub fn sum(values: &[f32]) -> f32 {
    let (chunks, tail) = values.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value;
        }
    }
    fold(lanes, |a, b| a + b) + tail.iter().sum::<f32>()
}

/// The inner product of two vectors of equal length.
#[inline(always)]
pub fn dot(left: &[f32], right: &[f32]) -> f32 {
    let ((left, left_tail), (right, right_tail)) = (left.as_chunks::<LANES>(), right.as_chunks::<LANES>());
    let mut lanes = [0.0; LANES];
    for (left, right) in left.iter().zip(right) {
        for lane in 0..LANES {
            lanes[lane] += left[lane] * right[lane];
        }
    }
    let tail = left_tail.iter().zip(right_tail).map(|(left, right)| left * right).sum::<f32>();
    fold(lanes, |a, b| a + b) + tail
}

/// The greatest of `values`; negative infinity if there are none.
#[inline(always)]
pub fn max(values: &[f32]) -> f32 {
    let greater = |a: f32, b: f32| if a > b { a } else { b };
    let (chunks, tail) = values.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = greater(*value, *lane);
        }
    }
    tail.iter().copied().fold(fold(lanes, greater), greater)
}

/// target += factor · source.
#[inline(always)]
pub fn add_scaled(target: &mut [f32], factor: f32, source: &[f32]) {
    for (target, source) in target.iter_mut().zip(source) {
        *target += factor * source;
    }
}

vectorised! {
    /// target += source, for vectors of any length.
    pub fn add<'a>(target: &'a mut [f32], source: &'a [f32]) {
        add_scaled(target, 1.0, source);
    }
}

vectorised! {
    /// Adds to `sums` the given columns of every row of `rows`, which are `width` values long.
    pub fn add_columns<'a>(sums: &'a mut [f32], rows: &'a [f32], width: usize, first_column: usize) {
        for row in rows.chunks_exact(width) {
            add_scaled(sums, 1.0, &row[first_column..first_column + sums.len()]);
        }
    }
}

/// eˣ to 2 units in the last place; below -87 the least normal number, above 88 the value at 88.
///
/// Source: range reduction and polynomial of Cephes' `expf` (Moshier).
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    /// Adding and subtracting 1.5 · 2²³ rounds to the nearest whole number, which then stands in the lowest bits.
    const ROUNDER: f32 = 12_582_912.0;
    /// ln 2 in two parts, the first exact in few bits.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUNDER;
    let whole = shifted - ROUNDER;
    let rest = x - whole * LN_2[0] - whole * LN_2[1];
    let mut series = 1.987_569_1e-4;
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5.000_000_1e-1] {
        series = series * rest + coefficient;
    }
    let power = f32::from_bits((shifted.to_bits().wrapping_sub(ROUNDER.to_bits()).wrapping_add(127)) << 23);
    (series * rest * rest + rest + 1.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize) -> Vec<f32> {
        (0..count).map(|index| ((index * 37 + 11) % 101) as f32 / 50.0 - 1.0).collect()
    }

    #[test]
    fn reductions_agree_with_plain_loops_at_every_length() {
        for count in 0..70 {
            let values = values(count);
            let (total, square): (f32, f32) = (values.iter().sum(), values.iter().map(|v| v * v).sum());
            assert!((sum(&values) - total).abs() < 1e-4);
            assert!((dot(&values, &values) - square).abs() < 1e-4);
            assert_eq!(max(&values).to_bits(), values.iter().copied().fold(f32::NEG_INFINITY, f32::max).to_bits());
        }
    }

    #[test]
    fn the_exponential_is_right_to_two_units_in_the_last_place() {
        for step in -8700..8800_i32 {
            let x = step as f32 / 100.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) / exact - 1.0).abs() < 2.5e-7, "exp({x}) = {}", exp(x));
        }
        assert!(exp(-1e30) < 1e-37 && exp(f32::NEG_INFINITY) < 1e-37);
    }
}
