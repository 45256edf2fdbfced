//! GELU with the exact error function, forward and backward.

use std::f32::consts::{FRAC_1_SQRT_2, PI};

use super::lanes::{LANES, exp, reciprocal, within};

/// The error function, to 3e-7 absolute.
///
/// Source: the rational approximation of Eigen's `generic_fast_erf` (odd degree 13 over even degree 8, |x| ≤ 4).
#[inline(always)]
fn erf(x: f32) -> f32 {
    const ABOVE: [f32; 7] = [
        -2.726_142_3e-10,
        2.770_681_5e-8,
        -2.101_024e-6,
        -5.692_506_4e-5,
        -7.349_906_3e-4,
        -2.954_599_8e-3,
        -1.609_603_3e-2,
    ];
    const BELOW: [f32; 5] = [-1.456_607_2e-5, -2.133_740_5e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2];
    let x = within(x, -4.0, 4.0);
    let square = x * x;
    x * polynomial(ABOVE, square) * reciprocal(polynomial(BELOW, square))
}

/// The polynomial of these coefficients, highest power first.
#[inline(always)]
fn polynomial<const N: usize>(coefficients: [f32; N], x: f32) -> f32 {
    let mut sum = coefficients[0];
    for coefficient in &coefficients[1..] {
        sum = sum.mul_add(x, *coefficient);
    }
    sum
}

/// Φ(x), the distribution function of the standard normal.
#[inline(always)]
fn normal(x: f32) -> f32 {
    erf(x * FRAC_1_SQRT_2).mul_add(0.5, 0.5)
}

/// x · Φ(x).
#[inline(always)]
pub(super) fn value(x: f32) -> f32 {
    x * normal(x)
}

/// [`value`] and its slope, Φ(x) + x · φ(x).
#[inline(always)]
pub(super) fn value_and_slope(x: f32) -> (f32, f32) {
    let share = normal(x);
    (x * share, (x * (2.0 * PI).sqrt().recip()).mul_add(exp(-0.5 * x * x), share))
}

/// Replaces x by x · Φ(x), in a row of a matrix product that was just computed.
#[inline(always)]
pub(super) fn forward_row(x: &mut [f32]) {
    let (chunks, tail) = x.as_chunks_mut::<LANES>();
    for x in chunks {
        for x in x {
            *x = value(*x);
        }
    }
    for x in tail {
        *x = value(*x);
    }
}

/// As [`forward_row`], to another row.
#[inline(always)]
pub(super) fn forward_row_beside(x: &[f32], out: &mut [f32]) {
    let ((chunks, tail), (out, out_tail)) = (x.as_chunks::<LANES>(), out.as_chunks_mut::<LANES>());
    for (out, x) in out.iter_mut().zip(chunks) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = value(*x);
        }
    }
    for (out, x) in out_tail.iter_mut().zip(tail) {
        *out = value(*x);
    }
}

vectorised! {
    /// out = x · Φ(x), element by element, where it does not come with a matrix product.
    pub fn forward<'a>(x: &'a [f32], out: &'a mut [f32]) {
        forward_row_beside(x, out);
    }
}

vectorised! {
    /// Multiplies `gradient` by GELU's derivative at `x`, Φ(x) + x · φ(x), and writes GELU itself to `out`.
    pub fn backward<'a>(x: &'a [f32], gradient: &'a mut [f32], out: &'a mut [f32]) {
        for ((out, gradient), x) in out.iter_mut().zip(gradient).zip(x) {
            let (value, slope) = value_and_slope(*x);
            *out = value;
            *gradient *= slope;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error function by its series (small x) or continued fraction (large x), in f64.
    fn plain_erf(x: f64) -> f64 {
        if x.abs() > 3.0 {
            let tail = (1..60).rev().fold(0.0, |rest, n| f64::from(n) / 2.0 / (x.abs() + rest));
            return x.signum() * (1.0 - (-x * x).exp() / (x.abs() + tail) / std::f64::consts::PI.sqrt());
        }
        let (mut term, mut sum) = (x, x);
        for n in 1..80 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    fn plain(x: f64) -> f64 {
        0.5 * x * (1.0 + plain_erf(x / std::f64::consts::SQRT_2))
    }

    #[test]
    fn forward_and_backward_agree_with_the_definition() {
        let x: Vec<f32> = (-1000..=1000).map(|step| step as f32 / 100.0).collect();
        let (mut out, mut again, mut gradient) = (vec![0.0; x.len()], vec![0.0; x.len()], vec![2.0; x.len()]);
        forward(&x, &mut out);
        let mut replaced = x.clone();
        forward_row(&mut replaced);
        assert_eq!(out, replaced);
        backward(&x, &mut gradient, &mut again);
        assert_eq!(out, again);
        for ((x, out), gradient) in x.iter().zip(&out).zip(&gradient) {
            let x = f64::from(*x);
            let slope = (plain(x + 1e-4) - plain(x - 1e-4)) / 2e-4;
            assert!((f64::from(*out) - plain(x)).abs() < 1e-6, "gelu({x}) = {out}, {} expected", plain(x));
            assert!(
                (f64::from(*gradient) / 2.0 - slope).abs() < 1e-6,
                "slope at {x}: {gradient} / 2, {slope} expected"
            );
        }
    }
}
