//! Layer normalisation of the rows of a matrix, and the root-mean-square normalisation, which leaves the mean where it
//! is (Zhang and Sennrich 2019); forward and backward.

use super::buffer::resize;
use super::lanes::{dot, sum};

/// What a normalisation makes of a row, before γ and β.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// Mean 0 and variance 1.
    #[default]
    Layer,
    /// Mean square 1.
    RootMeanSquare,
}

/// A normalisation's kind, weight γ and bias β, which have the length of a row.
#[derive(Debug, Clone, Copy)]
pub struct Affine<'a> {
    /// Whether the mean is taken away.
    pub kind: Kind,
    /// γ.
    pub weight: &'a [f32],
    /// β; empty if there is none.
    pub bias: &'a [f32],
    /// ε, added to the variance or mean square.
    pub epsilon: f32,
}

/// What backward needs of a forward pass.
#[derive(Debug, Clone, Default)]
pub struct Normalised {
    kind: Kind,
    /// Normalised rows, before γ and β.
    values: Vec<f32>,
    /// What each row was multiplied by, 1 / √(variance or mean square + ε).
    factors: Vec<f32>,
}

/// out = γ · (x − mean) / √(variance + ε) + β for every row of `x`, or γ · x / √(mean square + ε) + β.
pub fn forward(x: &[f32], affine: Affine, saved: &mut Normalised, out: &mut [f32]) {
    saved.kind = affine.kind;
    resize(&mut saved.values, x.len(), 0.0);
    resize(&mut saved.factors, x.len() / affine.weight.len(), 0.0);
    forward_rows(x, affine, saved, out);
}

vectorised! {
    fn forward_rows<'a>(x: &'a [f32], affine: Affine<'a>, saved: &'a mut Normalised, out: &'a mut [f32]) {
        let width = affine.weight.len();
        let rows = x.chunks_exact(width).zip(saved.values.chunks_exact_mut(width)).zip(&mut saved.factors);
        for (((x, values), factor), out) in rows.zip(out.chunks_exact_mut(width)) {
            *factor = forward_row(x, affine, values, out);
        }
    }
}

#[inline(always)]
fn forward_row(x: &[f32], affine: Affine, values: &mut [f32], out: &mut [f32]) -> f32 {
    let mean = affine.kind.mean(x);
    for (value, x) in values.iter_mut().zip(x) {
        *value = x - mean;
    }
    let factor = (dot(values, values) / x.len() as f32 + affine.epsilon).sqrt().recip();
    for ((out, value), weight) in out.iter_mut().zip(values).zip(affine.weight) {
        *value *= factor;
        *out = *value * weight;
    }
    for (out, bias) in out.iter_mut().zip(affine.bias) {
        *out += bias;
    }
    factor
}

impl Kind {
    /// What is taken away from every value of a row.
    #[inline(always)]
    fn mean(self, row: &[f32]) -> f32 {
        match self {
            Self::Layer => sum(row) / row.len() as f32,
            Self::RootMeanSquare => 0.0,
        }
    }
}

/// Where the gradients of γ and β are added up, that of β also where there is none.
#[derive(Debug)]
pub struct AffineGradient<'a> {
    /// Of γ.
    pub weight: &'a mut [f32],
    /// Of β.
    pub bias: &'a mut [f32],
}

vectorised! {
    /// Turns ∂loss/∂out into ∂loss/∂x in place, and adds the gradients of γ and β to `sums`.
    pub fn backward<'a>(gradient: &'a mut [f32], gamma: &'a [f32], saved: &'a Normalised, sums: AffineGradient<'a>) {
        let rows = gradient.chunks_exact_mut(gamma.len()).zip(saved.values.chunks_exact(gamma.len()));
        for ((gradient, values), factor) in rows.zip(&saved.factors) {
            let parameters = sums.weight.iter_mut().zip(sums.bias.iter_mut()).zip(gamma);
            for ((gradient, value), ((weight, bias), gamma)) in gradient.iter_mut().zip(values).zip(parameters) {
                *weight += *gradient * value;
                *bias += *gradient;
                *gradient *= gamma;
            }
            backward_row(saved.kind, gradient, values, *factor);
        }
    }
}

#[inline(always)]
fn backward_row(kind: Kind, gradient: &mut [f32], values: &[f32], factor: f32) {
    let mean = kind.mean(gradient);
    let along = dot(gradient, values) / gradient.len() as f32;
    for (gradient, value) in gradient.iter_mut().zip(values) {
        *gradient = factor * (*gradient - mean - value * along);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::{assert_slope, noise};

    const WIDTH: usize = 19;
    const KINDS: [Kind; 2] = [Kind::Layer, Kind::RootMeanSquare];

    fn run(kind: Kind, x: &[f32], weight: &[f32], bias: &[f32]) -> (Vec<f32>, Normalised) {
        let (mut saved, mut out) = (Normalised::default(), vec![0.0; x.len()]);
        forward(x, Affine { kind, weight, bias, epsilon: 1e-5 }, &mut saved, &mut out);
        (out, saved)
    }

    #[test]
    fn forward_agrees_with_the_definition() {
        let (x, weight, bias) = (noise(1, 3 * WIDTH), noise(2, WIDTH), noise(3, WIDTH));
        for (kind, bias) in [(KINDS[0], bias.as_slice()), (KINDS[0], &[]), (KINDS[1], &bias), (KINDS[1], &[])] {
            let (out, _) = run(kind, &x, &weight, bias);
            for (x, out) in x.chunks(WIDTH).zip(out.chunks(WIDTH)) {
                let mean = x.iter().sum::<f32>() / WIDTH as f32;
                let mean = if kind == Kind::Layer { mean } else { 0.0 };
                let square = x.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / WIDTH as f32;
                for place in 0..WIDTH {
                    let scaled = (x[place] - mean) / (square + 1e-5).sqrt() * weight[place];
                    let expected = scaled + bias.get(place).unwrap_or(&0.0);
                    assert!((out[place] - expected).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    fn backward_is_the_slope_of_forward() {
        let (x, weight, bias) = (noise(1, 3 * WIDTH), noise(2, WIDTH), noise(3, WIDTH));
        let upstream = noise(4, 3 * WIDTH);
        for kind in KINDS {
            let loss = |x: &[f32], weight: &[f32], bias: &[f32]| {
                let out = run(kind, x, weight, bias).0;
                out.iter().zip(&upstream).map(|(out, up)| f64::from(*out) * f64::from(*up)).sum()
            };
            let (mut gradient, saved) = (upstream.clone(), run(kind, &x, &weight, &bias).1);
            let (mut of_weight, mut of_bias) = (vec![0.0; WIDTH], vec![0.0; WIDTH]);
            let sums = AffineGradient { weight: &mut of_weight, bias: &mut of_bias };
            backward(&mut gradient, &weight, &saved, sums);
            assert_slope(&x, &gradient, |x| loss(x, &weight, &bias));
            assert_slope(&weight, &of_weight, |weight| loss(&x, weight, &bias));
            assert_slope(&bias, &of_bias, |bias| loss(&x, &weight, bias));
        }
    }
}
