//! Calibration: pairs that people judged, judged again by the model, say how far its verdicts can be believed.
//!
//! A positive is judged with itself and its text twins taken out of the reference, so only queries with another
//! positive left tell anything of sensitivity. Pairs of grade 0 tell of specificity.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Judge;
use super::ask::Case;
use super::config::Reference;
use super::select::drawn;
use super::verdict::Opinion;
use crate::corpus::{Language, PassageIndex};
use crate::dataset::Partition;
use crate::error::Result;
use crate::queries::QueryIndex;
use crate::text::normalise::text_digest;

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
        /// Their quotient.
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
        const Z: f64 = 1.959_963_984_540_054;
        if of == 0 {
            return Self::NotEstimable;
        }
        let (n, rate) = (of as f64, count as f64 / of as f64);
        let centre = (rate + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
        let half = Z / (1.0 + Z * Z / n) * (rate * (1.0 - rate) / n + Z * Z / (4.0 * n * n)).sqrt();
        Self::Share { count, of, rate, low: (centre - half).max(0.0), high: (centre + half).min(1.0) }
    }
}

/// How well one decision of the judge agrees with people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Share of the positives for which the decision was yes.
    pub sensitivity: Estimate,
    /// Share of the human negatives for which it was no.
    pub specificity: Estimate,
}

/// The grades of pairs that people agree on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GradeCounts {
    /// Pairs of grade 0, 1 and 2.
    pub grades: [usize; 3],
    /// Pairs whose replies could not be read; they are in no rate.
    pub unknown: usize,
}

/// The calibration of one language.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Pairs that people judged relevant.
    pub positives: GradeCounts,
    /// Pairs that people judged not relevant.
    pub negatives: GradeCounts,
    /// The decision to eliminate: grade 1 or 2.
    pub eliminated: Rates,
    /// The decision that it is a false negative: grade 2.
    pub false_negative: Rates,
}

/// Judged pairs of one query and one side.
pub(super) struct Trial<'a> {
    pub(super) is_positive: bool,
    pub(super) case: Case<'a>,
}

struct Pair {
    query: QueryIndex,
    passage: PassageIndex,
    is_positive: bool,
    /// The positive and its twins, which must not stand in the reference.
    without: Vec<PassageIndex>,
}

/// A keyed random slice of every language's judged pairs: `judge.calibration` of each side where there are so many.
pub(super) fn trials<'a>(judge: &Judge<'a>, languages: &[&Language], seed: u64) -> Result<Vec<Trial<'a>>> {
    let mut trials: Vec<Trial> = Vec::new();
    for language in languages {
        let partition = judge.dataset.partition(language)?;
        let queries = &partition.split(judge.split)?.queries;
        let name =
            |pair: &Pair| format!("{language}/{}/{}", queries.query(pair.query).id, partition.corpus.id(pair.passage));
        let (positives, negatives): (Vec<Pair>, Vec<Pair>) =
            pairs(judge, partition)?.into_iter().partition(|pair| pair.is_positive);
        for side in [positives, negatives] {
            let side = drawn(side, judge.config.calibration, seed, "judge calibration", name);
            // One case for the negatives of a query, since they share a reference; one for each positive.
            for run in side.chunk_by(|a, b| !a.is_positive && a.query == b.query) {
                let passages = run.iter().map(|pair| pair.passage).collect();
                let case = Case::new(partition, judge.split, run[0].query, &run[0].without, judge.config)?;
                trials.push(Trial { is_positive: run[0].is_positive, case: Case { passages, ..case } });
            }
        }
    }
    Ok(trials)
}

/// All judged pairs that can be judged fairly, by query, then passage.
fn pairs(judge: &Judge, partition: &Partition) -> Result<Vec<Pair>> {
    let judged = partition.split(judge.split)?;
    let digest = |passage: PassageIndex| text_digest(partition.corpus.passage(passage).text);
    let needs_reference = judge.config.reference == Reference::Positives;
    let mut pairs = Vec::new();
    for (query, _) in judged.queries.iter() {
        let positives: Vec<_> = judged.qrels.positives(query).map(|positive| (positive, digest(positive))).collect();
        for (passage, own) in &positives {
            let twins = positives.iter().filter(|(_, digest)| digest == own);
            let without: Vec<PassageIndex> = twins.map(|(twin, _)| *twin).collect();
            if !needs_reference || without.len() < positives.len() {
                pairs.push(Pair { query, passage: *passage, is_positive: true, without });
            }
        }
        if !needs_reference || !positives.is_empty() {
            let negatives = judged.qrels.judged_negatives(query);
            pairs.extend(negatives.map(|passage| Pair { query, passage, is_positive: false, without: Vec::new() }));
        }
    }
    Ok(pairs)
}

/// What the trials came to, for every language, also those without any.
pub(super) fn outcome(
    trials: &[Trial],
    opinions: &[Vec<Opinion>],
    languages: &[&Language],
) -> BTreeMap<Language, Calibration> {
    let empty = |language: &&Language| ((*language).clone(), Calibration::default());
    let mut outcome: BTreeMap<Language, Calibration> = languages.iter().map(empty).collect();
    for (trial, opinions) in trials.iter().zip(opinions) {
        let language = outcome.entry(trial.case.language.clone()).or_default();
        let counts = if trial.is_positive { &mut language.positives } else { &mut language.negatives };
        for opinion in opinions {
            match opinion {
                Opinion::Graded { grade, .. } => counts.grades[usize::from(*grade)] += 1,
                Opinion::Unknown { .. } => counts.unknown += 1,
                Opinion::Unjudged => {}
            }
        }
    }
    for language in outcome.values_mut() {
        language.eliminated = rates(language, 1);
        language.false_negative = rates(language, 2);
    }
    outcome
}

/// The rates of the decision "grade `least` or above".
fn rates(calibration: &Calibration, least: usize) -> Rates {
    let (positives, negatives) = (calibration.positives.grades, calibration.negatives.grades);
    let all = |grades: [usize; 3]| grades.iter().sum();
    Rates {
        sensitivity: Estimate::wilson(positives[least..].iter().sum(), all(positives)),
        specificity: Estimate::wilson(negatives[..least].iter().sum(), all(negatives)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn rates_follow_the_two_decisions() {
        let calibration = Calibration {
            positives: GradeCounts { grades: [1, 2, 7], unknown: 3 },
            negatives: GradeCounts { grades: [6, 3, 1], unknown: 0 },
            ..Calibration::default()
        };
        let shares = |rates: Rates| [rates.sensitivity, rates.specificity];
        assert_eq!(shares(rates(&calibration, 1)), [Estimate::wilson(9, 10), Estimate::wilson(6, 10)]);
        assert_eq!(shares(rates(&calibration, 2)), [Estimate::wilson(7, 10), Estimate::wilson(9, 10)]);
    }
}
