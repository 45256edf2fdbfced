//! Softmax over a vocabulary that is cut into slices, for the cross-entropy of the right words: forward and backward.
//!
//! With x the logits and n = ln Σ eˣ over all slices, −ln p of a word is n − x, and its slope by each logit is eˣ⁻ⁿ, less 1
//! for the right word. The parts of n that slices give are joined by [`join`].

use super::lanes::{LANES, exp, max, sum};

vectorised! {
    /// Writes the greatest logit of each row of `width`, and Σ e to the power of logit − greatest.
    pub fn summarise<'a>(logits: &'a [f32], width: usize, greatest: &'a mut [f32], sums: &'a mut [f32]) {
        for ((row, greatest), total) in logits.chunks_exact(width).zip(greatest).zip(sums) {
            *greatest = max(row);
            let (registers, tail) = row.as_chunks::<LANES>();
            let mut lanes = [0.0; LANES];
            for register in registers {
                for (lane, logit) in lanes.iter_mut().zip(register) {
                    *lane += exp(logit - *greatest);
                }
            }
            *total = sum(&lanes);
            for logit in tail {
                *total += exp(logit - *greatest);
            }
        }
    }
}

/// n of one row, from the greatest logit and the sum of each slice.
pub fn join(slices: impl Iterator<Item = (f32, f32)> + Clone) -> f32 {
    let greatest = slices.clone().map(|(greatest, _)| greatest).fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = slices.map(|(of_slice, sum)| f64::from(sum) * f64::from(of_slice - greatest).exp()).sum();
    (f64::from(greatest) + sum.ln()) as f32
}

vectorised! {
    /// Replaces the logits of each row by scale × e to the power of logit − n.
    pub fn probabilities<'a>(logits: &'a mut [f32], width: usize, normalisers: &'a [f32], scale: f32) {
        for (row, normaliser) in logits.chunks_exact_mut(width).zip(normalisers) {
            for logit in row {
                *logit = scale * exp(*logit - normaliser);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::noise;

    #[test]
    fn slices_joined_agree_with_the_definition() {
        const WIDTHS: [usize; 3] = [70, 1, 33];
        let slices = WIDTHS.map(|width| noise(width as u64, 2 * width).iter().map(|x| 30.0 * x).collect::<Vec<f32>>());
        let summaries = slices.clone().map(|logits| {
            let (mut greatest, mut sums) = ([0.0; 2], [0.0; 2]);
            summarise(&logits, logits.len() / 2, &mut greatest, &mut sums);
            (greatest, sums)
        });
        for row in 0..2 {
            let all: Vec<f64> = slices
                .iter()
                .flat_map(|logits| &logits[row * logits.len() / 2..(row + 1) * logits.len() / 2])
                .map(|logit| f64::from(*logit))
                .collect();
            let expected = all.iter().map(|logit| logit.exp()).sum::<f64>().ln();
            let n = join(summaries.iter().map(|(greatest, sums)| (greatest[row], sums[row])));
            assert!((f64::from(n) - expected).abs() < 1e-5 * expected.abs().max(1.0), "{n} and {expected}");
            let mut logits = slices[0][row * 70..(row + 1) * 70].to_vec();
            probabilities(&mut logits, 70, &[n], 0.5);
            for (probability, logit) in logits.iter().zip(&all) {
                assert!((f64::from(*probability) - 0.5 * (logit - expected).exp()).abs() < 1e-6);
            }
        }
    }
}
