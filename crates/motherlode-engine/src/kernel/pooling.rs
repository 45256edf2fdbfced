//! From the vectors of the tokens to the vector of the sequence, forward and backward.

use std::ops::Range;

use super::lanes::{add_scaled, dot};

/// Which token vectors make the vector of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The first token's.
    Cls,
    /// The last token's.
    Last,
    /// The mean of all tokens'.
    Mean,
}

/// Lengths below this count as this, as in PyTorch's `normalize`.
const LEAST_LENGTH: f32 = 1e-12;

/// How token vectors become the vector of a sequence.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    /// Which tokens.
    pub pooling: Pooling,
    /// Whether the vector is scaled to unit length.
    pub normalise: bool,
    /// Length of the vectors.
    pub hidden: usize,
}

impl Head {
    /// Writes the vector of each of `sequences`, ranges of the rows of `tokens`, to the rows of `out`.
    pub fn forward(&self, tokens: &[f32], sequences: &[Range<usize>], out: &mut [f32]) {
        for (sequence, out) in sequences.iter().zip(out.chunks_exact_mut(self.hidden)) {
            self.pool(tokens, sequence, out);
            if self.normalise {
                let factor = dot(out, out).sqrt().max(LEAST_LENGTH).recip();
                out.iter_mut().for_each(|value| *value *= factor);
            }
        }
    }

    /// Turns ∂loss/∂out into ∂loss/∂tokens, which overwrites `out`.
    pub fn backward(&self, tokens: &[f32], sequences: &[Range<usize>], gradient: &[f32], out: &mut [f32]) {
        out.fill(0.0);
        let (mut pooled, mut slope) = (vec![0.0; self.hidden], vec![0.0; self.hidden]);
        for (sequence, gradient) in sequences.iter().zip(gradient.chunks_exact(self.hidden)) {
            slope.copy_from_slice(gradient);
            if self.normalise {
                self.pool(tokens, sequence, &mut pooled);
                unit_backward(&pooled, &mut slope);
            }
            let share = self.share(sequence);
            for out in out[self.rows(sequence)].chunks_exact_mut(self.hidden) {
                add_scaled(out, share, &slope);
            }
        }
    }

    /// The values of the tokens of `sequence` that count.
    fn rows(&self, sequence: &Range<usize>) -> Range<usize> {
        let tokens = match self.pooling {
            Pooling::Cls => sequence.start..sequence.start + 1,
            Pooling::Last => sequence.end - 1..sequence.end,
            Pooling::Mean => sequence.clone(),
        };
        tokens.start * self.hidden..tokens.end * self.hidden
    }

    fn share(&self, sequence: &Range<usize>) -> f32 {
        match self.pooling {
            Pooling::Cls | Pooling::Last => 1.0,
            Pooling::Mean => (sequence.len() as f32).recip(),
        }
    }

    fn pool(&self, tokens: &[f32], sequence: &Range<usize>, out: &mut [f32]) {
        out.fill(0.0);
        for token in tokens[self.rows(sequence)].chunks_exact(self.hidden) {
            add_scaled(out, self.share(sequence), token);
        }
    }
}

/// Turns the gradient of x / |x| into that of x: with y = x / |x|, (gradient − y (y · gradient)) / |x|.
fn unit_backward(x: &[f32], gradient: &mut [f32]) {
    let factor = dot(x, x).sqrt().max(LEAST_LENGTH).recip();
    let along = dot(x, gradient) * factor * factor;
    for (gradient, x) in gradient.iter_mut().zip(x) {
        *gradient = (*gradient - x * along) * factor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::{assert_close, assert_slope, noise};

    const HIDDEN: usize = 5;

    fn run(head: Head, tokens: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; 2 * HIDDEN];
        head.forward(tokens, &[0..3, 3..7], &mut out);
        out
    }

    #[test]
    fn forward_agrees_with_the_definition() {
        let tokens = noise(1, 7 * HIDDEN);
        let cls = run(Head { pooling: Pooling::Cls, normalise: false, hidden: HIDDEN }, &tokens);
        assert_close(&cls[HIDDEN..], &tokens[3 * HIDDEN..4 * HIDDEN], 0.0);
        let last = run(Head { pooling: Pooling::Last, normalise: false, hidden: HIDDEN }, &tokens);
        assert_close(&last[..HIDDEN], &tokens[2 * HIDDEN..3 * HIDDEN], 0.0);
        let mean = run(Head { pooling: Pooling::Mean, normalise: false, hidden: HIDDEN }, &tokens);
        let expected = (3..7).map(|token| tokens[token * HIDDEN + 2]).sum::<f32>() / 4.0;
        assert_close(&mean[HIDDEN + 2..HIDDEN + 3], &[expected], 1e-6);
        let unit = run(Head { pooling: Pooling::Mean, normalise: true, hidden: HIDDEN }, &tokens);
        let length = mean[HIDDEN..].iter().map(|value| value * value).sum::<f32>().sqrt();
        assert_close(&unit[HIDDEN + 2..HIDDEN + 3], &[expected / length], 1e-6);
    }

    #[test]
    fn backward_is_the_slope_of_forward() {
        let (tokens, upstream) = (noise(1, 7 * HIDDEN), noise(2, 2 * HIDDEN));
        for pooling in [Pooling::Cls, Pooling::Last, Pooling::Mean] {
            for normalise in [false, true] {
                let head = Head { pooling, normalise, hidden: HIDDEN };
                let mut gradient = vec![f32::NAN; tokens.len()];
                head.backward(&tokens, &[0..3, 3..7], &upstream, &mut gradient);
                assert_slope(&tokens, &gradient, |tokens| {
                    run(head, tokens).iter().zip(&upstream).map(|(out, up)| f64::from(*out) * f64::from(*up)).sum()
                });
            }
        }
    }

    #[test]
    fn a_zero_vector_stays_finite() {
        let head = Head { pooling: Pooling::Mean, normalise: true, hidden: HIDDEN };
        assert!(run(head, &[0.0; 7 * HIDDEN]).iter().all(|value| *value == 0.0));
    }
}
