//! Counts what became of queries and negatives, for the summary.

use std::collections::BTreeMap;

use super::fill::Drawn;
use super::{LanguageSample, Provenance, SampleConfig, Summary};
use crate::dataset::Partition;
use crate::error::{Error, Result};

/// An arm in which more than this share of the queries keep too few negatives is not comparable with others.
const COMPARABLE: f64 = 0.05;

/// The counts of one language, or of all.
#[derive(Default)]
struct Counts {
    train: usize,
    validation: usize,
    short: usize,
    below_step: usize,
    negatives: BTreeMap<Provenance, usize>,
}

impl Counts {
    fn add(&mut self, drawn: &Drawn, config: &SampleConfig) {
        self.train += 1;
        self.short += usize::from(drawn.negatives.len() < config.negatives);
        self.below_step += usize::from(drawn.negatives.len() < config.step_negatives);
        for (_, provenance) in &drawn.negatives {
            *self.negatives.entry(*provenance).or_default() += 1;
        }
    }

    fn merge(&mut self, other: &Self) {
        self.train += other.train;
        self.validation += other.validation;
        self.short += other.short;
        self.below_step += other.below_step;
        for (provenance, count) in &other.negatives {
            *self.negatives.entry(*provenance).or_default() += count;
        }
    }

    /// Writes counts under names that begin with `prefix`.
    fn summarise(&self, prefix: &str, config: &SampleConfig, summary: &mut Summary) {
        summary.count(format!("{prefix}train queries"), self.train);
        summary.count(format!("{prefix}validation queries"), self.validation);
        summary.count(format!("{prefix}short queries"), self.short);
        for provenance in Provenance::ALL {
            let count = self.negatives.get(&provenance).copied().unwrap_or(0);
            summary.count(format!("{prefix}negatives {}", provenance.name()), count);
        }
        let negatives: usize = self.negatives.values().sum();
        summary.value(format!("{prefix}yield"), ratio(negatives, self.train * config.negatives));
    }

    fn by_language_model(&self) -> usize {
        self.negatives.iter().filter(|(provenance, _)| provenance.is_by_language_model()).map(|(_, count)| count).sum()
    }
}

/// The counts of all languages.
#[derive(Default)]
pub(super) struct Tally {
    total: Counts,
    summary: Summary,
}

impl Tally {
    /// Counts one language.
    pub(super) fn add(&mut self, partition: &Partition, sample: &LanguageSample, config: &SampleConfig) {
        let mut counts = Counts::default();
        for (drawn, is_validation) in sample.examples.iter().zip(&sample.is_validation) {
            if *is_validation {
                counts.validation += 1;
            } else {
                counts.add(drawn, config);
            }
        }
        counts.summarise(&format!("{}: ", partition.language), config, &mut self.summary);
        self.total.merge(&counts);
        self.summary.count("dropped: not mined", sample.dropped.not_mined);
        self.summary.count("dropped: without positive", sample.dropped.without_positive);
    }

    /// The summary; an error where there is nothing to train on.
    pub(super) fn finish(mut self, config: &SampleConfig) -> Result<Summary> {
        if self.total.train == 0 {
            return Err(Error::data("no query has both a positive and mined candidates; there is nothing to train on"));
        }
        self.total.summarise("", config, &mut self.summary);
        self.mark_comparability(config);
        Ok(self.summary)
    }

    fn mark_comparability(&mut self, config: &SampleConfig) {
        let negatives = self.total.negatives.values().sum();
        let below = ratio(self.total.below_step, self.total.train);
        let summary = &mut self.summary;
        summary
            .value("share of negatives judged by a language model", ratio(self.total.by_language_model(), negatives));
        summary.value("share of queries below a step's negatives", below);
        summary.count("comparable", usize::from(below <= COMPARABLE));
        if below > COMPARABLE {
            let (percent, step) = (100.0 * below, config.step_negatives);
            summary.note(format!(
                "not comparable with other arms: {percent:.1} % of the queries have fewer than {step} negatives"
            ));
        }
    }
}

fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
