//! Sums, maxima and the exponential function, written so that the compiler turns them into vector instructions.
//!
//! Reductions run in [`LANES`] fixed lanes and fold them in a fixed order: the same result on every machine and for
//! every number of threads. The functions are inlined into the kernels, and compiled with them for the instruction set
//! found at run time; a closure handed to the standard library would not be, and must not compute. Only what is never used
//! outside a kernel has fused multiply-adds, which are slow where the instruction set is not known to have them.

/// Values that one register of AVX-512 holds, or two of AVX2.
pub const LANES: usize = 16;
/// Registers that a reduction fills, so that its operations need not wait for each other.
pub(super) const GROUP: usize = 4;

/// As many values as a reduction takes at a time.
type Group = [[f32; LANES]; GROUP];

/// Groups, then registers, then what is left.
#[inline(always)]
fn parts(values: &[f32]) -> (&[Group], &[[f32; LANES]], &[f32]) {
    let (registers, tail) = values.as_chunks::<LANES>();
    let (groups, registers) = registers.as_chunks::<GROUP>();
    (groups, registers, tail)
}

/// The sum of `values`.
#[inline(always)]
pub fn sum(values: &[f32]) -> f32 {
    let (groups, registers, tail) = parts(values);
    let mut sums = [[0.0; LANES]; GROUP];
    for group in groups {
        for (sums, values) in sums.iter_mut().zip(group) {
            add_register(sums, values);
        }
    }
    let mut total = fold_group(sums);
    for values in registers {
        add_register(&mut total, values);
    }
    let mut total = fold(total);
    for value in tail {
        total += value;
    }
    total
}

/// The inner product of two vectors of equal length.
#[inline(always)]
pub fn dot(left: &[f32], right: &[f32]) -> f32 {
    let ((left, left_registers, left_tail), (right, right_registers, right_tail)) = (parts(left), parts(right));
    let mut sums = [[0.0; LANES]; GROUP];
    for (left, right) in left.iter().zip(right) {
        for (sums, (left, right)) in sums.iter_mut().zip(left.iter().zip(right)) {
            add_products(sums, left, right);
        }
    }
    let mut total = fold_group(sums);
    for (left, right) in left_registers.iter().zip(right_registers) {
        add_products(&mut total, left, right);
    }
    let mut total = fold(total);
    for (left, right) in left_tail.iter().zip(right_tail) {
        total += left * right;
    }
    total
}

/// The greatest of `values`; negative infinity if there are none.
#[inline(always)]
pub fn max(values: &[f32]) -> f32 {
    let (registers, tail) = values.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for values in registers {
        for (lane, value) in lanes.iter_mut().zip(values) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    let mut greatest = f32::NEG_INFINITY;
    for value in lanes.iter().chain(tail) {
        greatest = if *value > greatest { *value } else { greatest };
    }
    greatest
}

#[inline(always)]
fn add_register(sums: &mut [f32; LANES], values: &[f32; LANES]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value;
    }
}

#[inline(always)]
fn add_products(sums: &mut [f32; LANES], left: &[f32; LANES], right: &[f32; LANES]) {
    for (sum, (left, right)) in sums.iter_mut().zip(left.iter().zip(right)) {
        *sum += left * right;
    }
}

/// Adds the registers of a group.
#[inline(always)]
fn fold_group(group: Group) -> [f32; LANES] {
    let [mut a, b, mut c, d] = group;
    add_register(&mut a, &b);
    add_register(&mut c, &d);
    add_register(&mut a, &c);
    a
}

/// Adds the lanes of a register, from its halves downwards.
#[inline(always)]
fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
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

/// `x`, or the nearer end of the range; one instruction an end, where `f32::clamp` takes care of numbers that are none.
#[inline(always)]
pub fn within(x: f32, least: f32, greatest: f32) -> f32 {
    let x = if x > least { x } else { least };
    if x < greatest { x } else { greatest }
}

/// 1 / x to 2e-7 relative, for numbers of ordinary size: a guess from the exponent, and three of Newton's steps. A
/// division by a whole vector register takes as long as all of this four times.
#[inline(always)]
pub fn reciprocal(x: f32) -> f32 {
    let mut guess = f32::from_bits(0x7ef3_11c7_u32.wrapping_sub(x.to_bits()));
    for _ in 0..3 {
        let error = (-x).mul_add(guess, 1.0);
        guess = guess.mul_add(error, guess);
    }
    guess
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
    let x = within(x, -87.0, 88.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUNDER);
    let whole = shifted - ROUNDER;
    let rest = whole.mul_add(-LN_2[1], whole.mul_add(-LN_2[0], x));
    let mut series = 1.987_569_1e-4_f32;
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5.000_000_1e-1] {
        series = series.mul_add(rest, coefficient);
    }
    let power = f32::from_bits((shifted.to_bits().wrapping_sub(ROUNDER.to_bits()).wrapping_add(127)) << 23);
    ((series * rest).mul_add(rest, rest) + 1.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize) -> Vec<f32> {
        (0..count).map(|index| ((index * 37 + 11) % 101) as f32 / 50.0 - 1.0).collect()
    }

    #[test]
    fn reductions_agree_with_plain_loops_at_every_length() {
        for count in 0..200 {
            let values = values(count);
            let (total, square): (f32, f32) = (values.iter().sum(), values.iter().map(|v| v * v).sum());
            assert!((sum(&values) - total).abs() < 1e-4);
            assert!((dot(&values, &values) - square).abs() < 1e-4);
            assert_eq!(max(&values).to_bits(), values.iter().copied().fold(f32::NEG_INFINITY, f32::max).to_bits());
        }
    }

    #[test]
    fn the_reciprocal_is_right_to_two_units_in_the_last_place() {
        for step in 1..100_000 {
            for x in [step as f32 / 1000.0, -1e6 / step as f32] {
                assert!((f64::from(reciprocal(x)) * f64::from(x) - 1.0).abs() < 2e-7, "1 / {x} = {}", reciprocal(x));
            }
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
