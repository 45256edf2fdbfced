//! How far a judge can be believed, in numbers: shares with intervals, agreement beyond chance, and the rate of relevant
//! candidates corrected for the judge's errors.

use rand::RngExt;
use serde::{Deserialize, Serialize};

/// The 97.5 % quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;
/// Resamplings behind an interval.
const DRAWS: usize = 2000;

/// A share with its 95 % Wilson interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Estimate {
    /// There is no pair to estimate it by.
    #[default]
    #[serde(rename = "not estimable")]
    NotEstimable,
    /// `count` of `of`.
    Share {
        /// Pairs that have the property.
        count: usize,
        /// All pairs.
        of: usize,
        /// Their quotient, or that of their weights.
        rate: f64,
        /// Lower bound.
        low: f64,
        /// Upper bound.
        high: f64,
    },
}

impl Estimate {
    /// The share `count / of`.
    ///
    /// Source: Wilson's score interval without continuity correction, z = 1.96 (the 97.5 % quantile).
    pub fn wilson(count: usize, of: usize) -> Self {
        if of == 0 { Self::NotEstimable } else { Self::share(count, of, count as f64 / of as f64, of as f64) }
    }

    /// A share whose interval is as wide as that of `n` pairs of equal weight.
    fn share(count: usize, of: usize, rate: f64, n: f64) -> Self {
        let centre = (rate + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
        let half = Z / (1.0 + Z * Z / n) * (rate * (1.0 - rate) / n + Z * Z / (4.0 * n * n)).sqrt();
        Self::Share { count, of, rate, low: (centre - half).max(0.0), high: (centre + half).min(1.0) }
    }

    /// The share itself; none where there is nothing to estimate it by.
    pub fn rate(self) -> Option<f64> {
        match self {
            Self::NotEstimable => None,
            Self::Share { rate, .. } => Some(rate),
        }
    }
}

/// The share of relevant candidates, corrected for the judge's errors, with a 95 % interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Corrected {
    /// The judge may do no better than chance, as far as the pairs that people judged tell, or they lack one side.
    #[default]
    #[serde(rename = "not estimable")]
    NotEstimable,
    /// Between 0 and 1.
    Rate {
        /// The corrected share.
        rate: f64,
        /// Lower bound.
        low: f64,
        /// Upper bound.
        high: f64,
    },
}

/// How well one decision of the judge agrees with people, and what follows for the candidates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rates {
    /// Share of the positives for which the decision was yes.
    pub sensitivity: Estimate,
    /// Share of the human negatives for which it was no.
    pub specificity: Estimate,
    /// Cohen's κ between the judge and people over these pairs. It depends on how many of them are positives, which the
    /// draw decides, so compare it only between judges of the same pairs.
    pub kappa: Option<f64>,
    /// Share of the judged candidates for which the decision is yes.
    pub apparent: Estimate,
    /// The share of relevant ones among them, corrected for the errors above.
    pub corrected: Corrected,
}

/// Pairs of which people say one thing, and those for which the decision was the same.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Agreed {
    pairs: usize,
    right: usize,
    /// Sum of the pairs' weights, of their squares, and of the weights of the right ones.
    weight: f64,
    squares: f64,
    right_weight: f64,
}

impl Agreed {
    /// Counts a pair that stands for `weight` pairs.
    pub(crate) fn push(&mut self, is_right: bool, weight: f64) {
        self.pairs += 1;
        self.weight += weight;
        self.squares += weight * weight;
        if is_right {
            self.right += 1;
            self.right_weight += weight;
        }
    }

    fn add(&mut self, other: &Self) {
        self.pairs += other.pairs;
        self.right += other.right;
        self.weight += other.weight;
        self.squares += other.squares;
        self.right_weight += other.right_weight;
    }

    /// The share of the right ones by weight; none without pairs.
    pub(crate) fn share(&self) -> Option<f64> {
        (self.pairs > 0).then(|| self.right_weight / self.weight)
    }

    /// The same with its interval.
    ///
    /// Source: Kish's effective sample size, (Σ w)² / Σ w² (Survey Sampling, 1965), in Wilson's interval.
    fn estimate(&self) -> Estimate {
        let size = self.weight * self.weight / self.squares;
        self.share().map_or(Estimate::NotEstimable, |rate| Estimate::share(self.right, self.pairs, rate, size))
    }
}

/// What one query, or all of them, tell of one decision.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Tally {
    /// Positives; right where the decision was yes.
    pub(crate) positives: Agreed,
    /// Human negatives; right where it was no.
    pub(crate) negatives: Agreed,
    /// Judged candidates for which it was yes.
    pub(crate) eliminated: usize,
    /// Judged candidates.
    pub(crate) judged: usize,
}

impl Tally {
    /// Adds another.
    pub(crate) fn add(&mut self, other: &Self) {
        self.positives.add(&other.positives);
        self.negatives.add(&other.negatives);
        self.eliminated += other.eliminated;
        self.judged += other.judged;
    }

    /// Sensitivity, specificity, agreement and the apparent rate; the corrected rate stays open.
    pub(crate) fn rates(&self) -> Rates {
        Rates {
            sensitivity: self.positives.estimate(),
            specificity: self.negatives.estimate(),
            kappa: self.kappa(),
            apparent: Estimate::wilson(self.eliminated, self.judged),
            corrected: Corrected::NotEstimable,
        }
    }

    /// Cohen's κ; none where people, and the judge, say one thing only.
    fn kappa(&self) -> Option<f64> {
        let Self { positives, negatives, .. } = self;
        let all = positives.weight + negatives.weight;
        let yes = positives.right_weight + negatives.weight - negatives.right_weight;
        let observed = (positives.right_weight + negatives.right_weight) / all;
        let people = positives.weight / all;
        let judge = yes / all;
        let expected = people * judge + (1.0 - people) * (1.0 - judge);
        let kappa = (observed - expected) / (1.0 - expected);
        kappa.is_finite().then_some(kappa)
    }

    /// Whether the lower bound of sensitivity + specificity − 1 is above 0.
    pub(crate) fn tells_anything(&self) -> bool {
        self.worth_at_least().is_some_and(|low| low > 0.0)
    }

    /// The lower bound of sensitivity + specificity − 1; none where people said one thing only.
    ///
    /// Source: Newcombe's hybrid score interval for the difference of two proportions (Statistics in Medicine 17, 1998,
    /// method 10), here of sensitivity and 1 − specificity.
    fn worth_at_least(&self) -> Option<f64> {
        let [Estimate::Share { rate: se, low: se_low, .. }, Estimate::Share { rate: sp, low: sp_low, .. }] =
            [self.positives, self.negatives].map(|side| side.estimate())
        else {
            return None;
        };
        Some(se + sp - 1.0 - ((se - se_low).powi(2) + (sp - sp_low).powi(2)).sqrt())
    }

    /// The apparent rate corrected by sensitivity and specificity, clipped to [0, 1]; none where they say nothing.
    ///
    /// Source: Rogan and Gladen, American Journal of Epidemiology 107 (1978): (p + Sp − 1) / (Se + Sp − 1).
    pub(crate) fn rogan_gladen(&self) -> Option<f64> {
        let (se, sp) = (self.positives.share()?, self.negatives.share()?);
        let apparent = (self.judged > 0).then(|| self.eliminated as f64 / self.judged as f64)?;
        let youden = se + sp - 1.0;
        (youden > 0.0).then(|| ((apparent + sp - 1.0) / youden).clamp(0.0, 1.0))
    }
}

/// The corrected rate of candidates in strata, weighted by their candidates; `queries` holds a tally for every stratum.
///
/// Not estimable where a stratum with candidates lacks positives or human negatives, or its judge may be no better than
/// chance. The interval is the 2.5 % and 97.5 % quantile over resampled queries, each of which brings everything that was
/// judged of it; a resample in which nothing can be corrected counts as 0 below and as 1 above.
pub(crate) fn corrected(queries: &[Vec<Tally>], seed: u64, name: &str) -> Corrected {
    let Some(strata) = queries.first().map(Vec::len) else { return Corrected::NotEstimable };
    let all = total(queries.iter(), strata);
    let judged: usize = all.iter().map(|tally| tally.judged).sum();
    let is_estimable = all.iter().filter(|tally| tally.judged > 0).all(Tally::tells_anything);
    let (true, true, Some(rate)) = (judged > 0, is_estimable, weighted(&all)) else { return Corrected::NotEstimable };
    let mut random = crate::random::keyed(seed, "judge corrected", name);
    let mut draws = Vec::with_capacity(DRAWS);
    for _ in 0..DRAWS {
        let drawn = (0..queries.len()).map(|_| &queries[random.random_range(0..queries.len())]);
        draws.push(weighted(&total(drawn, strata)));
    }
    Corrected::Rate { rate, low: quantile(&draws, 0.025, 0.0).min(rate), high: quantile(&draws, 0.975, 1.0).max(rate) }
}

fn total<'a>(queries: impl Iterator<Item = &'a Vec<Tally>>, strata: usize) -> Vec<Tally> {
    let mut total = vec![Tally::default(); strata];
    for query in queries {
        total.iter_mut().zip(query).for_each(|(total, tally)| total.add(tally));
    }
    total
}

fn weighted(strata: &[Tally]) -> Option<f64> {
    let judged: usize = strata.iter().map(|tally| tally.judged).sum();
    let with = strata.iter().filter(|tally| tally.judged > 0);
    let sum: Option<f64> = with.map(|tally| Some(tally.rogan_gladen()? * tally.judged as f64)).sum();
    (judged > 0).then_some(sum? / judged as f64)
}

/// A quantile by linear interpolation, with `missing` for the draws that gave nothing.
pub(crate) fn quantile(draws: &[Option<f64>], at: f64, missing: f64) -> f64 {
    let mut values: Vec<f64> = draws.iter().map(|draw| draw.unwrap_or(missing)).collect();
    values.sort_by(f64::total_cmp);
    let place = at * (values.len() - 1) as f64;
    let (below, above) = (values[place.floor() as usize], values[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

#[cfg(test)]
impl Agreed {
    /// Pairs of equal weight.
    pub(crate) fn of(right: usize, pairs: usize) -> Self {
        let mut side = Self::default();
        (0..pairs).for_each(|pair| side.push(pair < right, 1.0));
        side
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Golden: scipy 1.17.1, `scipy.stats.binomtest(k, n).proportion_ci(method="wilson")`.
    #[test]
    fn wilson_intervals() {
        let golden = [
            (8, 10, 0.490_162_471_536_641_8, 0.943_317_848_545_624_8),
            (0, 5, 0.0, 0.434_482_464_783_174_76),
            (20, 20, 0.838_874_841_947_180_8, 1.0),
            (137, 411, 0.289_487_536_650_285_8, 0.380_265_818_307_384_5),
        ];
        for (count, of, expected_low, expected_high) in golden {
            let Estimate::Share { low, high, .. } = Estimate::wilson(count, of) else { panic!("{of} pairs") };
            assert!((low - expected_low).abs() < 1e-12 && (high - expected_high).abs() < 1e-12, "{count}/{of}");
        }
        assert_eq!(Estimate::wilson(0, 0), Estimate::NotEstimable);
        assert_eq!(serde_json::to_string(&Estimate::NotEstimable).unwrap(), "\"not estimable\"");
    }

    fn tally(found: usize, positives: usize, cleared: usize, negatives: usize) -> Tally {
        let (positives, negatives) = (Agreed::of(found, positives), Agreed::of(cleared, negatives));
        Tally { positives, negatives, eliminated: 0, judged: 0 }
    }

    /// Golden: statsmodels' `proportion_confint(rate * n, n, method="wilson")` with Kish's n; tests/golden/judge.py.
    #[test]
    fn a_pair_counts_for_those_that_it_stands_for() {
        let mut side = Agreed::default();
        for (is_right, weight) in [(true, 9.0), (false, 1.0), (false, 1.0), (true, 1.0)] {
            side.push(is_right, weight);
        }
        let Estimate::Share { count, of, rate, low, high } = side.estimate() else { panic!("there are pairs") };
        assert_eq!((count, of), (2, 4));
        for (found, expected) in [(rate, 10.0 / 12.0), (low, 0.216_648_917_430_195_32), (high, 0.989_058_370_884_005_3)]
        {
            assert!((found - expected).abs() < 1e-12, "{found}");
        }
        assert_eq!(Agreed::of(2, 4).estimate(), Estimate::wilson(2, 4));
    }

    /// Golden: scikit-learn's `cohen_kappa_score`, statsmodels' `confint_proportions_2indep(…, method="newcomb")`;
    /// tests/golden/judge.py.
    #[test]
    fn agreement_beyond_chance_and_what_a_judge_is_worth_at_least() {
        let golden = [
            (tally(8, 10, 9, 10), 0.7, 0.265_826_609_700_886_23),
            (tally(18, 20, 5, 20), 0.15, -0.093_919_486_822_677_26),
            (tally(3, 7, 40, 41), 0.491_525_423_728_813_6, 0.115_382_841_005_207_02),
        ];
        for (tally, kappa, low) in golden {
            assert!((tally.kappa().unwrap() - kappa).abs() < 1e-12, "{tally:?}");
            assert!((tally.worth_at_least().unwrap() - low).abs() < 1e-12, "{tally:?}");
            assert_eq!(tally.tells_anything(), low > 0.0);
        }
        assert_eq!(tally(3, 3, 0, 0).kappa(), None, "nobody says no");
    }

    #[test]
    fn what_the_judge_says_is_corrected_by_its_errors() {
        let judge = Tally { eliminated: 30, judged: 100, ..tally(80, 100, 90, 100) };
        assert!((judge.rogan_gladen().unwrap() - 0.2 / 0.7).abs() < 1e-12);
        let few = Tally { eliminated: 5, judged: 100, ..judge };
        assert!(few.rogan_gladen().unwrap().abs() < 1e-12, "clipped");
        let useless = Tally { positives: Agreed::of(10, 100), ..judge };
        assert_eq!(useless.rogan_gladen(), None, "Se + Sp = 1");
    }

    fn queries(each: Tally, count: usize) -> Vec<Vec<Tally>> {
        vec![vec![each]; count]
    }

    #[test]
    fn the_corrected_rate_has_an_interval_or_is_not_estimable() {
        let good = Tally { eliminated: 1, judged: 4, ..tally(1, 1, 1, 1) };
        let Corrected::Rate { rate, low, high } = corrected(&queries(good, 30), 1, "sw") else { panic!("estimable") };
        assert!((rate - 0.25).abs() < 1e-12 && (low - rate).abs() < 1e-12 && (high - rate).abs() < 1e-12);
        let mut mixed = queries(good, 30);
        for query in mixed.iter_mut().step_by(3) {
            query[0] = Tally { eliminated: 3, judged: 4, ..tally(0, 1, 0, 1) };
        }
        let Corrected::Rate { rate, low, high } = corrected(&mixed, 1, "sw") else { panic!("estimable") };
        assert!(low < rate && rate < high && (0.0..=1.0).contains(&low) && (0.0..=1.0).contains(&high));
        assert_eq!(corrected(&mixed, 1, "sw"), corrected(&mixed, 1, "sw"));
        let no_negatives = Tally { negatives: Agreed::default(), ..good };
        assert_eq!(corrected(&queries(no_negatives, 30), 1, "sw"), Corrected::NotEstimable);
        assert_eq!(corrected(&queries(good, 1), 1, "sw"), Corrected::NotEstimable, "two pairs tell nothing");
        assert_eq!(corrected(&[], 1, "sw"), Corrected::NotEstimable);
    }

    #[test]
    fn strata_are_weighted_by_their_candidates() {
        let exact = |eliminated, judged| Tally { eliminated, judged, ..tally(9, 9, 9, 9) };
        let queries = vec![vec![exact(1, 1), exact(0, 3)], vec![exact(1, 1), exact(3, 3)]];
        let Corrected::Rate { rate, .. } = corrected(&queries, 1, "sw") else { panic!("estimable") };
        assert!((rate - 5.0 / 8.0).abs() < 1e-12);
        let blind = Tally { positives: Agreed::default(), ..exact(0, 3) };
        assert_eq!(corrected(&[vec![exact(1, 1), blind]], 1, "sw"), Corrected::NotEstimable);
    }

    proptest! {
        #[test]
        fn a_perfect_judge_needs_no_correction(eliminated in 0usize..50, more in 1usize..50) {
            let judged = eliminated + more;
            let perfect = Tally { eliminated, judged, ..tally(40, 40, 40, 40) };
            prop_assert!((perfect.rogan_gladen().unwrap() - eliminated as f64 / judged as f64).abs() < 1e-12);
        }
    }
}
