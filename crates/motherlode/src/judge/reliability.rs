//! Reliability: is what a judge claims as likely as it says?

use serde::{Deserialize, Serialize};

use super::rates::Estimate;

/// Pairs whose claimed probability lies in one tenth.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// Their mean claim, 0 to 1.
    pub claimed: f64,
    /// The share of them that is relevant.
    pub relevant: Estimate,
}

/// The reliability curve of claims from 0 to 1, each with whether the pair is relevant: up to ten bins of equal width, by
/// claim; empty ones are left out.
pub(super) fn reliability(claims: impl Iterator<Item = (f64, bool)>) -> Vec<Bin> {
    let mut bins = [(0.0, 0_usize, 0_usize); 10];
    for (claim, is_relevant) in claims {
        let (sum, relevant, pairs) = &mut bins[((claim * 10.0) as usize).min(9)];
        *sum += claim;
        *relevant += usize::from(is_relevant);
        *pairs += 1;
    }
    let filled = bins.into_iter().filter(|(_, _, pairs)| *pairs > 0);
    let bin = |(sum, relevant, pairs)| Bin { claimed: sum / pairs as f64, relevant: Estimate::wilson(relevant, pairs) };
    filled.map(bin).collect()
}

/// The mean squared difference between claim and truth; none without pairs.
///
/// Source: Brier, Monthly Weather Review 78 (1950), for two outcomes, counted once.
pub(super) fn brier(claims: impl Iterator<Item = (f64, bool)>) -> Option<f64> {
    let errors: Vec<f64> =
        claims.map(|(claim, is_relevant)| (claim - f64::from(u8::from(is_relevant))).powi(2)).collect();
    (!errors.is_empty()).then(|| errors.iter().sum::<f64>() / errors.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIMS: [(f64, bool); 6] =
        [(0.05, false), (0.0, false), (0.09, true), (0.55, true), (1.0, true), (0.95, true)];

    /// Golden: scikit-learn, `calibration_curve(y, p, n_bins=10)` and `brier_score_loss(y, p)`; tests/golden/judge.py.
    #[test]
    fn claims_are_compared_with_what_is_so() {
        let bins = reliability(CLAIMS.into_iter());
        let claimed: Vec<f64> = bins.iter().map(|bin| bin.claimed).collect();
        let relevant: Vec<f64> = bins.iter().map(|bin| bin.relevant.rate().unwrap()).collect();
        let close = |found: &[f64], golden: &[f64]| found.iter().zip(golden).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(close(&claimed, &[0.046_666_666_666_666_67, 0.55, 0.975]), "{claimed:?}");
        assert!(close(&relevant, &[1.0 / 3.0, 1.0, 1.0]), "{relevant:?}");
        assert!((brier(CLAIMS.into_iter()).unwrap() - GOLDEN_BRIER).abs() < 1e-12);
        assert!(reliability(std::iter::empty()).is_empty() && brier(std::iter::empty()).is_none());
    }

    const GOLDEN_BRIER: f64 = 0.172_6;
}
