//! How many of the taken candidates are relevant after all, by what the judge said of them and how far it can be believed.

use rand::RngExt;

use super::Grade;
use crate::judge::rates::{Tally, quantile};
use crate::judge::{CalibrationPair, Corrected, Estimate};

/// Resamplings behind an interval.
const DRAWS: usize = 1000;

/// What one query, or a language, tells.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Taken {
    /// Calibration pairs, and what the judge says of the candidates that the miner keeps.
    tally: Tally,
    /// Taken candidates that the judge calls relevant.
    eliminated: usize,
    /// Taken candidates that it does not.
    cleared: usize,
    /// Taken candidates that nobody graded.
    open: usize,
    /// Taken candidates that people found not relevant.
    human: usize,
}

impl Taken {
    /// Counts a pair that people judged too.
    pub(super) fn calibrate(&mut self, pair: &CalibrationPair) {
        let Some(grade) = pair.grade else { return };
        let side = if pair.relevant { &mut self.tally.positives } else { &mut self.tally.negatives };
        side.push((grade >= 1) == pair.relevant, pair.weight);
    }

    /// Counts a candidate that the miner keeps.
    pub(super) fn mine(&mut self, grade: Grade) {
        if let Grade::Judged(grade) = grade {
            self.tally.judged += 1;
            self.tally.eliminated += usize::from(grade >= 1);
        }
    }

    /// Counts a candidate that is taken.
    pub(super) fn take(&mut self, grade: Grade) {
        match grade {
            Grade::Judged(0) => self.cleared += 1,
            Grade::Judged(_) => self.eliminated += 1,
            Grade::Human => self.human += 1,
            Grade::Unknown | Grade::Open => self.open += 1,
        }
    }

    fn add(&mut self, other: &Self) {
        self.tally.add(&other.tally);
        self.eliminated += other.eliminated;
        self.cleared += other.cleared;
        self.open += other.open;
        self.human += other.human;
    }

    fn sum<'a>(queries: impl Iterator<Item = &'a Self>) -> Self {
        queries.fold(Self::default(), |mut sum, query| {
            sum.add(query);
            sum
        })
    }

    fn all(&self) -> usize {
        self.eliminated + self.cleared + self.open + self.human
    }

    /// How many of the taken are relevant; none where the judge's word cannot be corrected.
    ///
    /// Of the graded candidates that the miner keeps a share p is called relevant, and a share π is: Rogan and Gladen's
    /// correction of p. By Bayes' rule Se π / p of the former are, and (1 − Se) π / (1 − p) of the others; of those that
    /// nobody graded π.
    fn relevant(&self) -> Option<f64> {
        let prevalence = self.tally.rogan_gladen()?;
        let sensitivity = self.tally.positives.share()?;
        let apparent = self.tally.eliminated as f64 / self.tally.judged as f64;
        let share = |part: f64, whole: f64| if whole > 0.0 { (part / whole).min(1.0) } else { 0.0 };
        let of_eliminated = share(sensitivity * prevalence, apparent);
        let of_cleared = share((1.0 - sensitivity) * prevalence, 1.0 - apparent);
        let [eliminated, cleared, open] = [self.eliminated, self.cleared, self.open].map(|count| count as f64);
        Some(eliminated * of_eliminated + cleared * of_cleared + open * prevalence)
    }
}

/// The share of the graded among the taken that the judge calls relevant.
pub(super) fn apparent(queries: &[Taken]) -> Estimate {
    let sum = Taken::sum(queries.iter());
    Estimate::wilson(sum.eliminated, sum.eliminated + sum.cleared)
}

/// The share of the taken that is relevant, over languages that are each corrected by their own judge.
///
/// Not estimable where that is so of a language of which something is taken. The interval is the 2.5 % and 97.5 % quantile
/// over queries resampled within each language; a resample in which nothing can be corrected counts as 0 and as 1.
pub(super) fn estimate(languages: &[&[Taken]], seed: u64, name: &str) -> Corrected {
    let sums: Vec<Taken> = languages.iter().map(|queries| Taken::sum(queries.iter())).collect();
    let is_estimable = sums.iter().filter(|sum| sum.all() > 0).all(|sum| sum.tally.tells_anything());
    let (true, Some(rate)) = (is_estimable, share(&sums)) else { return Corrected::NotEstimable };
    let mut random = crate::random::keyed(seed, "what-if", name);
    let mut draws = Vec::with_capacity(DRAWS);
    for _ in 0..DRAWS {
        let mut resample = |queries: &&[Taken]| {
            Taken::sum((0..queries.len()).map(|_| &queries[random.random_range(0..queries.len())]))
        };
        let sums: Vec<Taken> = languages.iter().map(&mut resample).collect();
        draws.push(share(&sums));
    }
    Corrected::Rate { rate, low: quantile(&draws, 0.025, 0.0).min(rate), high: quantile(&draws, 0.975, 1.0).max(rate) }
}

fn share(languages: &[Taken]) -> Option<f64> {
    let with = languages.iter().filter(|taken| taken.all() > 0);
    let relevant: Option<f64> = with.map(Taken::relevant).sum();
    let all: usize = languages.iter().map(Taken::all).sum();
    (all > 0).then_some(relevant? / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::rates::Agreed;

    fn taken(eliminated: usize, cleared: usize) -> Taken {
        let (positives, negatives) = (Agreed::of(8, 10), Agreed::of(9, 10));
        let tally = Tally { positives, negatives, eliminated: 30, judged: 100 };
        Taken { tally, eliminated, cleared, open: 0, human: 0 }
    }

    #[test]
    fn taking_everything_gives_the_corrected_rate_and_leaving_out_what_is_called_relevant_the_rest() {
        let prevalence = 0.2 / 0.7;
        assert!((share(&[taken(30, 70)]).unwrap() - prevalence).abs() < 1e-12);
        let missed = 0.2 * prevalence / 0.7;
        assert!((share(&[taken(0, 70)]).unwrap() - missed).abs() < 1e-12, "what the judge overlooks");
        let human = Taken { human: 70, ..taken(0, 70) };
        assert!((share(&[human]).unwrap() - missed / 2.0).abs() < 1e-12, "people's negatives are none");
        let open = Taken { open: 10, ..taken(0, 0) };
        assert!((share(&[open]).unwrap() - prevalence).abs() < 1e-12, "what nobody graded is like all");
    }

    #[test]
    fn a_language_that_cannot_be_corrected_leaves_the_whole_open() {
        let good = vec![taken(3, 7); 5];
        let mut blind = good.clone();
        blind.iter_mut().for_each(|taken| taken.tally.positives = Agreed::of(0, 10));
        assert!(matches!(estimate(&[&good], 1, "x"), Corrected::Rate { .. }));
        assert_eq!(estimate(&[&good, &blind], 1, "x"), Corrected::NotEstimable);
    }
}
