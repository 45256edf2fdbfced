//! Gated activations: one half of the inner values decides how much of the other half passes. Forward and backward.
//!
//! Source: Shazeer, "GLU variants improve transformer" (2020).

use super::gelu;
use super::lanes::exp;

/// What the first half goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// x · Φ(x): GeGLU.
    Gelu,
    /// x / (1 + e⁻ˣ): SwiGLU.
    Silu,
}

/// out = gate(first half) · second half for every row of `x`.
///
/// Shapes: `x` rows × 2 `width`, `out` rows × `width`.
pub fn forward(gate: Gate, x: &[f32], width: usize, out: &mut [f32]) {
    match gate {
        Gate::Gelu => forward_gelu(x, width, out),
        Gate::Silu => forward_silu(x, width, out),
    }
}

/// Writes ∂loss/∂x to `out`; `gradient` is ∂loss/∂out of the forward pass.
///
/// Shapes: `x` and `out` rows × 2 `width`, `gradient` rows × `width`.
pub fn backward(gate: Gate, x: &[f32], width: usize, gradient: &[f32], out: &mut [f32]) {
    match gate {
        Gate::Gelu => backward_gelu(x, width, gradient, out),
        Gate::Silu => backward_silu(x, width, gradient, out),
    }
}

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
fn logistic(x: f32) -> f32 {
    (1.0 + exp(-x)).recip()
}

/// x / (1 + e⁻ˣ).
#[inline(always)]
fn silu(x: f32) -> f32 {
    x * logistic(x)
}

/// [`silu`] and its slope.
#[inline(always)]
fn silu_and_slope(x: f32) -> (f32, f32) {
    let share = logistic(x);
    (x * share, share * (1.0 + x * (1.0 - share)))
}

vectorised! {
    fn forward_gelu<'a>(x: &'a [f32], width: usize, out: &'a mut [f32]) {
        forward_rows(x, width, out, gelu::value);
    }
}

vectorised! {
    fn forward_silu<'a>(x: &'a [f32], width: usize, out: &'a mut [f32]) {
        forward_rows(x, width, out, silu);
    }
}

#[inline(always)]
fn forward_rows(x: &[f32], width: usize, out: &mut [f32], gate: impl Fn(f32) -> f32) {
    for (x, out) in x.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)) {
        let (first, second) = x.split_at(width);
        for (out, (first, second)) in out.iter_mut().zip(first.iter().zip(second)) {
            *out = gate(*first) * second;
        }
    }
}

vectorised! {
    fn backward_gelu<'a>(x: &'a [f32], width: usize, gradient: &'a [f32], out: &'a mut [f32]) {
        backward_rows(x, width, gradient, out, gelu::value_and_slope);
    }
}

vectorised! {
    fn backward_silu<'a>(x: &'a [f32], width: usize, gradient: &'a [f32], out: &'a mut [f32]) {
        backward_rows(x, width, gradient, out, silu_and_slope);
    }
}

/// `gate` gives the gate's value and slope.
#[inline(always)]
fn backward_rows(x: &[f32], width: usize, gradient: &[f32], out: &mut [f32], gate: impl Fn(f32) -> (f32, f32)) {
    let rows = x.chunks_exact(2 * width).zip(out.chunks_exact_mut(2 * width));
    for ((x, out), gradient) in rows.zip(gradient.chunks_exact(width)) {
        let ((first, second), (of_first, of_second)) = (x.split_at(width), out.split_at_mut(width));
        let slopes = of_first.iter_mut().zip(of_second).zip(gradient);
        for (((of_first, of_second), gradient), (first, second)) in slopes.zip(first.iter().zip(second)) {
            let (value, slope) = gate(*first);
            *of_first = gradient * second * slope;
            *of_second = gradient * value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::{assert_close, assert_slope, noise};

    const WIDTH: usize = 5;

    fn run(gate: Gate, x: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; x.len() / 2];
        forward(gate, x, WIDTH, &mut out);
        out
    }

    #[test]
    fn forward_agrees_with_the_definition() {
        let x: Vec<f32> = noise(1, 4 * WIDTH).iter().map(|x| 8.0 * x).collect();
        let out = run(Gate::Silu, &x);
        for (index, out) in out.iter().enumerate() {
            let place = index / WIDTH * 2 * WIDTH + index % WIDTH;
            let (first, second) = (f64::from(x[place]), f64::from(x[place + WIDTH]));
            assert!((f64::from(*out) - first / (1.0 + (-first).exp()) * second).abs() < 1e-5);
        }
        let (mut alone, gated) = (vec![0.0; WIDTH], run(Gate::Gelu, &x));
        gelu::forward(&x[..WIDTH], &mut alone);
        let expected: Vec<f32> = alone.iter().zip(&x[WIDTH..]).map(|(first, second)| first * second).collect();
        assert_close(&gated[..WIDTH], &expected, 0.0);
    }

    #[test]
    fn backward_is_the_slope_of_forward() {
        for gate in [Gate::Gelu, Gate::Silu] {
            let (x, upstream) = (noise(1, 6 * WIDTH), noise(2, 3 * WIDTH));
            let mut slopes = vec![f32::NAN; x.len()];
            backward(gate, &x, WIDTH, &upstream, &mut slopes);
            assert_slope(&x, &slopes, |x| {
                run(gate, x).iter().zip(&upstream).map(|(out, up)| f64::from(*out) * f64::from(*up)).sum()
            });
        }
    }
}
