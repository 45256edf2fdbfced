//! Whether a mean difference is one: paired tests, intervals, corrections, and what could have been found at all.
//!
//! Everything here works on paired differences: for every query the value of a system minus the value of the
//! baseline. Random numbers come from the caller's keyed generator, so that a result repeats.

use rand::Rng;
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};
use statrs::function::gamma::ln_gamma;

/// Differences of measures in [0, 1] below this are rounding.
const ROUNDING: f64 = 1e-12;

/// A mean difference with its standard error and its bootstrap distribution.
#[derive(Debug, Clone, PartialEq)]
pub struct MeanDifference {
    /// The mean.
    pub mean: f64,
    /// Its standard error; 0 where all differences are equal.
    pub standard_error: f64,
    /// Degrees of freedom of the standard error.
    pub freedom: f64,
    resampled: Vec<f64>,
}

impl MeanDifference {
    /// The mean of paired differences; none where there are fewer than two.
    ///
    /// The bootstrap draws n of n differences with replacement, `draws` times. Each draw's distance from the mean is
    /// stretched by √(n / (n − 1)), without which the bootstrap understates the error of few queries.
    pub fn new(differences: &[f64], draws: usize, random: &mut impl Rng) -> Option<Self> {
        let n = differences.len() as f64;
        if differences.len() < 2 {
            return None;
        }
        let (mean, standard_error) = (mean(differences), deviation(differences) / n.sqrt());
        let standard_error = if standard_error < ROUNDING { 0.0 } else { standard_error };
        let stretch = (n / (n - 1.0)).sqrt();
        let draw = |_| mean + stretch * (resampled_mean(differences, random) - mean);
        Some(Self { mean, standard_error, freedom: n - 1.0, resampled: (0..draws).map(draw).collect() })
    }

    /// The unweighted mean of the means of strata (languages): each stratum was resampled within itself.
    ///
    /// *Source*: degrees of freedom by Welch and Satterthwaite.
    pub fn macro_mean(strata: &[&Self]) -> Option<Self> {
        let (first, count) = (strata.first()?, strata.len() as f64);
        let variances: Vec<f64> = strata.iter().map(|part| (part.standard_error / count).powi(2)).collect();
        let variance: f64 = variances.iter().sum();
        let spread: f64 = variances.iter().zip(strata).map(|(variance, part)| variance.powi(2) / part.freedom).sum();
        let at = |draw: usize| strata.iter().map(|part| part.resampled[draw]).sum::<f64>() / count;
        Some(Self {
            mean: strata.iter().map(|part| part.mean).sum::<f64>() / count,
            standard_error: variance.sqrt(),
            freedom: if spread > 0.0 { variance.powi(2) / spread } else { first.freedom },
            resampled: (0..first.resampled.len()).map(at).collect(),
        })
    }

    /// The two-sided p of the paired t-test: 1 where nothing differs, none where all differ by the same amount, as
    /// the test then divides by zero.
    pub fn t_test(&self) -> Option<f64> {
        if self.standard_error > 0.0 {
            return Some(2.0 * student(self.freedom).sf((self.mean / self.standard_error).abs()));
        }
        (self.mean.abs() < ROUNDING).then_some(1.0)
    }

    /// The bootstrap interval that covers the true mean difference with probability `confidence`.
    ///
    /// *Source*: the expanded percentile interval of Hesterberg, "What Teachers Should Know about the Bootstrap"
    /// (2015): the percentiles lie as far out as Student's t demands, so that few queries give a wide interval.
    pub fn interval(&self, confidence: f64) -> (f64, f64) {
        if self.standard_error <= 0.0 {
            return (self.mean, self.mean);
        }
        let tail = normal().cdf(student(self.freedom).inverse_cdf((1.0 - confidence) / 2.0));
        let mut sorted = self.resampled.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        (quantile(&sorted, tail), quantile(&sorted, 1.0 - tail))
    }

    /// The smallest true difference that a two-sided t-test at level `alpha` finds with probability `power`, given as
    /// many queries and as much variation as here; none where there is no variation.
    pub fn detectable(&self, alpha: f64, power: f64) -> Option<f64> {
        (self.standard_error > 0.0).then(|| detectable_shift(self.freedom, alpha, power) * self.standard_error)
    }
}

/// The arithmetic mean; 0 of nothing.
pub fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// The standard deviation of a sample, n − 1 in the denominator; 0 of fewer than two.
pub fn deviation(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let centre = mean(values);
    let squares: f64 = values.iter().map(|value| (value - centre).powi(2)).sum();
    (squares / (values.len() - 1) as f64).sqrt()
}

/// The two-sided p of the paired randomisation test of a sum of differences: how often random signs give as much.
///
/// Differences of 0 keep their sum under any sign and are left out. Where all sign patterns are no more than `draws`,
/// each is tried and p is exact; otherwise `draws` are drawn and p is (hits + 1) / (draws + 1).
/// For a macro mean, weight each difference by 1 / (queries of its language · languages) before.
pub fn randomisation(differences: &[f64], draws: usize, random: &mut impl Rng) -> f64 {
    let moving: Vec<f64> = differences.iter().copied().filter(|difference| difference.abs() >= ROUNDING).collect();
    let scale: f64 = moving.iter().map(|difference| difference.abs()).sum();
    let observed = moving.iter().sum::<f64>().abs() - ROUNDING * scale;
    let as_much = |sum: f64| sum.abs() >= observed;
    if moving.len() < 63 && 1 << moving.len() <= draws as u64 {
        let patterns = 1_u64 << moving.len();
        let hits = (0..patterns).filter(|pattern| as_much(signed_sum(&moving, *pattern))).count();
        return hits as f64 / patterns as f64;
    }
    let mut sum = || moving.chunks(64).map(|chunk| signed_sum(chunk, random.next_u64())).sum::<f64>();
    let hits = (0..draws).filter(|_| as_much(sum())).count();
    (hits + 1) as f64 / (draws + 1) as f64
}

/// The sum of up to 64 values, each negated where its bit is set.
fn signed_sum(values: &[f64], signs: u64) -> f64 {
    let signed = |(bit, value): (usize, &f64)| f64::from_bits(value.to_bits() ^ (((signs >> bit) & 1) << 63));
    values.iter().enumerate().map(signed).sum()
}

/// Holm's step-down correction: for every p of one family the adjusted p, in the given order.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let mut adjusted = vec![0.0; p_values.len()];
    let mut highest: f64 = 0.0;
    for (rank, index) in order.into_iter().enumerate() {
        highest = highest.max(p_values[index] * (p_values.len() - rank) as f64).min(1.0);
        adjusted[index] = highest;
    }
    adjusted
}

fn resampled_mean(values: &[f64], random: &mut impl Rng) -> f64 {
    let count = values.len() as u64;
    let pick = |bits: u64| values[(((bits & 0xffff_ffff) * count) >> 32) as usize];
    let mut sum = 0.0;
    for _ in 0..values.len() / 2 {
        let bits = random.next_u64();
        sum += pick(bits) + pick(bits >> 32);
    }
    if values.len() % 2 == 1 {
        sum += pick(random.next_u64());
    }
    sum / count as f64
}

/// The value at a fraction of the way through sorted values, interpolated linearly, as `numpy.quantile` does.
fn quantile(sorted: &[f64], fraction: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = fraction.clamp(0.0, 1.0) * last as f64;
    let (below, part) = (place.floor() as usize, place.fract());
    sorted[below] + part * (sorted[(below + 1).min(last)] - sorted[below])
}

fn normal() -> Normal {
    Normal::standard()
}

fn student(freedom: f64) -> StudentsT {
    StudentsT::new(0.0, 1.0, freedom).expect("freedom is positive: it comes from two or more values")
}

/// The non-centrality, in standard errors, at which a two-sided t-test reaches `power`.
fn detectable_shift(freedom: f64, alpha: f64, power: f64) -> f64 {
    let critical = student(freedom).inverse_cdf(1.0 - alpha / 2.0);
    let reached =
        |shift: f64| 1.0 - noncentral_t(critical, freedom, shift) + noncentral_t(-critical, freedom, shift) >= power;
    let (mut low, mut high) = (0.0, critical + 4.0);
    while !reached(high) {
        high *= 2.0;
    }
    while high - low > 1e-7 * high {
        let middle = f64::midpoint(low, high);
        if reached(middle) { high = middle } else { low = middle }
    }
    high
}

/// P(T ≤ t) of Student's t with non-centrality `shift`: the normal probability, averaged over the estimated deviation.
///
/// The integral ∫ Φ(t s − shift) f(s) ds, where s² · freedom is chi-squared, is taken by Simpson's rule over all s
/// that matter.
fn noncentral_t(t: f64, freedom: f64, shift: f64) -> f64 {
    const STEPS: usize = 1024;
    let reach = 8.0 / (2.0 * freedom).sqrt();
    let (from, to) = ((1.0 - reach).max(0.0), 1.0 + reach);
    let half = freedom / 2.0;
    let constant = std::f64::consts::LN_2 + half * half.ln() - ln_gamma(half);
    let density = |s: f64| {
        let shape = if freedom > 1.0 { (freedom - 1.0) * s.ln() } else { 0.0 };
        (constant + shape - half * s * s).exp()
    };
    let width = (to - from) / STEPS as f64;
    let weight = |step: usize| if step == 0 || step == STEPS { 1.0 } else { 2.0 + 2.0 * (step % 2) as f64 };
    let term = |step: usize| {
        let s = from + width * step as f64;
        weight(step) * normal().cdf(t * s - shift) * density(s)
    };
    (0..=STEPS).map(term).sum::<f64>() * width / 3.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::keyed;
    use proptest::prelude::*;
    use serde::Deserialize;

    /// `tests/data/significance.json`, made by `tests/golden/significance.py` with `SciPy`, statsmodels and `NumPy`.
    #[derive(Deserialize)]
    struct Golden {
        samples: Vec<Sample>,
        strata: Vec<Strata>,
        holm: Vec<Family>,
        effects: Vec<Effect>,
        noncentral: Vec<Noncentral>,
    }

    #[derive(Deserialize)]
    struct Sample {
        differences: Vec<f64>,
        t_test: f64,
        randomisation: f64,
        exact: bool,
        interval: (f64, f64),
        bootstrap: Option<(f64, f64)>,
        detectable: f64,
    }

    #[derive(Deserialize)]
    struct Strata {
        parts: Vec<Vec<f64>>,
        mean: f64,
        freedom: f64,
        randomisation: f64,
        interval: (f64, f64),
    }

    #[derive(Deserialize)]
    struct Family {
        raw: Vec<f64>,
        adjusted: Vec<f64>,
    }

    #[derive(Deserialize)]
    struct Effect {
        queries: u32,
        effect: f64,
    }

    #[derive(Deserialize)]
    struct Noncentral {
        freedom: f64,
        shift: f64,
        t: f64,
        probability: f64,
    }

    fn golden() -> Golden {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/significance.json");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    fn of(differences: &[f64]) -> MeanDifference {
        MeanDifference::new(differences, 10_000, &mut keyed(1, "test", "")).unwrap()
    }

    fn close(value: f64, expected: f64, tolerance: f64) {
        assert!((value - expected).abs() <= tolerance, "{value} is not {expected} ± {tolerance}");
    }

    #[test]
    fn the_t_test_is_scipys() {
        for sample in golden().samples {
            close(of(&sample.differences).t_test().unwrap(), sample.t_test, 1e-12);
        }
    }

    #[test]
    fn the_t_test_without_variation_does_not_divide_by_zero() {
        assert_eq!(of(&[0.0; 5]).t_test(), Some(1.0));
        assert_eq!(of(&[0.1; 5]).t_test(), None);
        assert_eq!(of(&[0.1; 5]).detectable(0.05, 0.8), None);
        let (low, high) = of(&[0.1; 5]).interval(0.95);
        close(low, 0.1, 1e-12);
        close(high, 0.1, 1e-12);
        assert_eq!(MeanDifference::new(&[0.3], 10, &mut keyed(1, "test", "")), None);
    }

    #[test]
    fn the_randomisation_test_is_scipys() {
        for sample in golden().samples {
            let p = p_of(&sample.differences);
            // Of 10,000 and 100,000 draws the difference has a standard deviation of at most .0053.
            close(p, sample.randomisation, if sample.exact { 1e-12 } else { 0.02 });
        }
        assert_eq!(p_of(&[]).to_bits(), 1f64.to_bits());
        assert_eq!(p_of(&[0.0; 30]).to_bits(), 1f64.to_bits());
        close(p_of(&[0.1; 5]), 2.0 / 32.0, 1e-12);
    }

    fn p_of(differences: &[f64]) -> f64 {
        randomisation(differences, 10_000, &mut keyed(1, "test", ""))
    }

    #[test]
    fn the_macro_mean_is_tested_and_resampled_within_languages() {
        for Strata { parts, mean, freedom, randomisation, interval } in golden().strata {
            let weight = |part: &Vec<f64>| 1.0 / (part.len() * parts.len()) as f64;
            let weighted: Vec<f64> = parts.iter().flat_map(|part| part.iter().map(move |x| x * weight(part))).collect();
            close(p_of(&weighted), randomisation, 1e-12);
            let estimates: Vec<MeanDifference> = parts
                .iter()
                .zip(["a", "b", "c"])
                .map(|(part, name)| MeanDifference::new(part, 10_000, &mut keyed(1, "test", name)).unwrap())
                .collect();
            let estimate = MeanDifference::macro_mean(&estimates.iter().collect::<Vec<_>>()).unwrap();
            close(estimate.mean, mean, 1e-12);
            close(estimate.freedom, freedom, 1e-9);
            close_interval(estimate.interval(0.95), interval);
        }
    }

    #[test]
    fn the_interval_is_hesterbergs_and_scipys_for_many_queries() {
        for sample in golden().samples.into_iter().filter(|sample| sample.differences.len() > 4) {
            let found = of(&sample.differences).interval(0.95);
            close_interval(found, sample.interval);
            if let Some(bootstrap) = sample.bootstrap {
                close_interval(found, bootstrap);
            }
        }
    }

    /// Within a twentieth of the interval's width, which is more than its ends vary at 10,000 draws.
    fn close_interval(found: (f64, f64), expected: (f64, f64)) {
        let tolerance = 0.05 * (expected.1 - expected.0);
        close(found.0, expected.0, tolerance);
        close(found.1, expected.1, tolerance);
    }

    #[test]
    fn the_detectable_difference_is_scipys() {
        for Effect { queries, effect } in golden().effects {
            let shift = detectable_shift(f64::from(queries - 1), 0.05, 0.8);
            close(shift / f64::from(queries).sqrt(), effect, 1e-7 * effect);
        }
        for sample in golden().samples {
            close(of(&sample.differences).detectable(0.05, 0.8).unwrap(), sample.detectable, 1e-6 * sample.detectable);
        }
    }

    #[test]
    fn the_noncentral_t_is_scipys() {
        for Noncentral { freedom, shift, t, probability } in golden().noncentral {
            close(noncentral_t(t, freedom, shift), probability, 1e-8);
        }
    }

    #[test]
    fn holm_is_statsmodels() {
        for Family { raw, adjusted } in golden().holm {
            for (value, expected) in holm(&raw).iter().zip(adjusted) {
                close(*value, expected, 1e-12);
            }
        }
        assert!(holm(&[]).is_empty());
    }

    #[test]
    fn the_interval_covers_the_truth_as_often_as_it_says() {
        let mut random = keyed(3, "coverage", "");
        let mut covered = 0;
        for _ in 0..400 {
            let sample: Vec<f64> = (0..8).map(|_| unit(&mut random) + unit(&mut random) - 1.0).collect();
            let (low, high) = MeanDifference::new(&sample, 1000, &mut random).unwrap().interval(0.95);
            covered += u32::from(low <= 0.0 && 0.0 <= high);
        }
        assert!((365..=396).contains(&covered), "{covered} of 400");
    }

    fn unit(random: &mut impl Rng) -> f64 {
        f64::from(random.next_u32()) / f64::from(u32::MAX)
    }

    proptest! {
        #[test]
        fn drawn_and_exact_randomisation_agree(differences in prop::collection::vec(-1.0..1.0f64, 12)) {
            let exact = randomisation(&differences, 4096, &mut keyed(1, "test", ""));
            let drawn = randomisation(&differences, 4095, &mut keyed(1, "test", ""));
            prop_assert!((exact - drawn).abs() < 0.05, "{exact} {drawn}");
        }

        #[test]
        fn holm_never_lowers_a_p_and_keeps_their_order(p in prop::collection::vec(0.0..=1.0f64, 0..20)) {
            let adjusted = holm(&p);
            for (i, raw) in p.iter().enumerate() {
                prop_assert!(adjusted[i] >= *raw && adjusted[i] <= 1.0);
                for (j, other) in p.iter().enumerate() {
                    prop_assert!(raw > other || adjusted[i] <= adjusted[j]);
                }
            }
        }

        #[test]
        fn swapping_the_systems_changes_only_the_sign(differences in prop::collection::vec(-1.0..1.0f64, 2..40)) {
            let swapped: Vec<f64> = differences.iter().map(|difference| -difference).collect();
            let (one, two) = (of(&differences), of(&swapped));
            prop_assert!((one.t_test().unwrap_or(2.0) - two.t_test().unwrap_or(2.0)).abs() < 1e-9);
            prop_assert!((one.mean + two.mean).abs() < 1e-12);
        }
    }
}
