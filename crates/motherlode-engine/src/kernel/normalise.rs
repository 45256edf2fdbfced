//! Layer normalisation of the rows of a matrix, forward and backward.

use super::lanes::{dot, sum};

/// Weight γ and bias β of a layer normalisation, of the length of a row.
#[derive(Debug, Clone, Copy)]
pub struct Affine<'a> {
    /// γ.
    pub weight: &'a [f32],
    /// β.
    pub bias: &'a [f32],
    /// ε, added to the variance.
    pub epsilon: f32,
}

/// What backward needs of a forward pass.
#[derive(Debug, Clone, Default)]
pub struct Normalised {
    /// Rows of mean 0 and variance 1, before γ and β.
    values: Vec<f32>,
    /// What each row was multiplied by, 1 / √(variance + ε).
    factors: Vec<f32>,
}

/// out = γ · (x − mean) / √(variance + ε) + β for every row of `x`.
pub fn forward(x: &[f32], affine: Affine, saved: &mut Normalised, out: &mut [f32]) {
    saved.values.resize(x.len(), 0.0);
    saved.factors.resize(x.len() / affine.weight.len(), 0.0);
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
    let mean = sum(x) / x.len() as f32;
    for (value, x) in values.iter_mut().zip(x) {
        *value = x - mean;
    }
    let factor = (dot(values, values) / x.len() as f32 + affine.epsilon).sqrt().recip();
    let parameters = affine.weight.iter().zip(affine.bias);
    for ((out, value), (weight, bias)) in out.iter_mut().zip(values).zip(parameters) {
        *value *= factor;
        *out = *value * weight + bias;
    }
    factor
}

/// Where the gradients of γ and β are added up.
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
            backward_row(gradient, values, *factor);
        }
    }
}

#[inline(always)]
fn backward_row(gradient: &mut [f32], values: &[f32], factor: f32) {
    let mean = sum(gradient) / gradient.len() as f32;
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

    fn run(x: &[f32], weight: &[f32], bias: &[f32]) -> (Vec<f32>, Normalised) {
        let (mut saved, mut out) = (Normalised::default(), vec![0.0; x.len()]);
        forward(x, Affine { weight, bias, epsilon: 1e-5 }, &mut saved, &mut out);
        (out, saved)
    }

    #[test]
    fn forward_agrees_with_the_definition() {
        let (x, weight, bias) = (noise(1, 3 * WIDTH), noise(2, WIDTH), noise(3, WIDTH));
        let (out, _) = run(&x, &weight, &bias);
        for (x, out) in x.chunks(WIDTH).zip(out.chunks(WIDTH)) {
            let mean = x.iter().sum::<f32>() / WIDTH as f32;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / WIDTH as f32;
            for place in 0..WIDTH {
                let expected = (x[place] - mean) / (variance + 1e-5).sqrt() * weight[place] + bias[place];
                assert!((out[place] - expected).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn backward_is_the_slope_of_forward() {
        let (x, weight, bias) = (noise(1, 3 * WIDTH), noise(2, WIDTH), noise(3, WIDTH));
        let upstream = noise(4, 3 * WIDTH);
        let loss = |x: &[f32], weight: &[f32], bias: &[f32]| {
            run(x, weight, bias).0.iter().zip(&upstream).map(|(out, up)| f64::from(*out) * f64::from(*up)).sum()
        };
        let (mut gradient, saved) = (upstream.clone(), run(&x, &weight, &bias).1);
        let (mut of_weight, mut of_bias) = (vec![0.0; WIDTH], vec![0.0; WIDTH]);
        let sums = AffineGradient { weight: &mut of_weight, bias: &mut of_bias };
        backward(&mut gradient, &weight, &saved, sums);
        assert_slope(&x, &gradient, |x| loss(x, &weight, &bias));
        assert_slope(&weight, &of_weight, |weight| loss(&x, weight, &bias));
        assert_slope(&bias, &of_bias, |bias| loss(&x, &weight, bias));
    }
}
