//! The weight of a negative by its language and topic: ω(d) = α·a(l) + β·b(c), of mean 1 over the planned negatives.
//!
//! Source: the paper's equation for ω, whose factors it leaves open; here a and b follow a law over the shares that
//! languages and topics have among the negatives of the planned batches.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Exposure;
use crate::corpus::Language;
use crate::error::{Error, Result};
use crate::topic::Topic;

/// How a factor follows from the share p of its class among the planned negatives, or from their number n.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Law {
    /// 1/p: every class weighs the same in total.
    #[default]
    Inverse,
    /// p^γ: above 0 frequent classes weigh more, below 0 rare ones do; −1 is `inverse`, 0 `constant`.
    SharePower {
        /// γ, −1 to 1.
        gamma: f64,
    },
    /// (1 − β)/(1 − β^n). Source: Cui et al. 2019, equation 2.
    EffectiveNumber {
        /// β, 0 to below 1.
        beta: f64,
    },
    /// 1.
    Constant,
    /// A factor for each language tag, or for each topic number.
    Table(BTreeMap<String, f64>),
}

/// The knobs of the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WeightConfig {
    /// α: the part of the language. Only α : β counts, since ω is scaled to mean 1.
    pub alpha: f64,
    /// β: the part of the topic.
    pub beta: f64,
    /// How the language's factor follows from its share.
    pub language_law: Law,
    /// How the topic's factor follows from its share.
    pub topic_law: Law,
}

impl Default for WeightConfig {
    fn default() -> Self {
        Self { alpha: 0.45, beta: 0.40, language_law: Law::default(), topic_law: Law::default() }
    }
}

impl WeightConfig {
    /// Checks the ranges.
    pub fn validate(&self) -> Result<()> {
        for (name, part) in [("alpha", self.alpha), ("beta", self.beta)] {
            if !(part.is_finite() && part >= 0.0) {
                return Err(Error::config(format!("`weights.{name}`: expected 0 or more, got {part}")));
            }
        }
        if self.alpha + self.beta <= 0.0 {
            return Err(Error::config("`weights.alpha`: expected alpha or beta above 0, got 0 for both"));
        }
        self.language_law.validate("language_law")?;
        self.topic_law.validate("topic_law")
    }
}

impl Law {
    fn validate(&self, name: &str) -> Result<()> {
        let refuse =
            |expected: &str, got: f64| Err(Error::config(format!("`weights.{name}`: expected {expected}, got {got}")));
        match self {
            Self::SharePower { gamma } if !(-1.0..=1.0).contains(gamma) => refuse("gamma from -1 to 1", *gamma),
            Self::EffectiveNumber { beta } if !(0.0..1.0).contains(beta) => refuse("beta from 0 to below 1", *beta),
            Self::Table(factors) => match factors.values().find(|factor| !(factor.is_finite() && **factor > 0.0)) {
                Some(factor) => refuse("factors above 0", *factor),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// The factor of each class by its count among the negatives, scaled to mean 1 over them; 1 where the count is 0.
    fn factors(&self, classes: &[(String, u64)]) -> Result<Vec<f64>> {
        let total: u64 = classes.iter().map(|(_, count)| count).sum();
        let share = |count: u64| count as f64 / total as f64;
        let mut factors = Vec::new();
        for (name, count) in classes {
            factors.push(if *count == 0 { 1.0 } else { self.factor(name, *count, share(*count))? });
        }
        let mean: f64 = factors.iter().zip(classes).map(|(factor, (_, count))| factor * share(*count)).sum();
        let scaled = |(factor, (_, count)): (&f64, &(String, u64))| if *count == 0 { 1.0 } else { factor / mean };
        Ok(factors.iter().zip(classes).map(scaled).collect())
    }

    fn factor(&self, name: &str, count: u64, share: f64) -> Result<f64> {
        match self {
            Self::Inverse => Ok(1.0 / share),
            Self::SharePower { gamma } => Ok(share.powf(*gamma)),
            // β^n = e^{n ln β}; `exp_m1` keeps the digits where it is near 1.
            Self::EffectiveNumber { beta } => Ok((1.0 - beta) / -(count as f64 * beta.ln()).exp_m1()),
            Self::Constant => Ok(1.0),
            Self::Table(factors) => factors.get(name).copied().ok_or_else(|| {
                Error::config(format!(
                    "the weight table has no factor for `{name}`, which the batches contain; add one"
                ))
            }),
        }
    }
}

/// The weight of every kind of negative.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    alpha: f64,
    beta: f64,
    language: BTreeMap<Language, f64>,
    topic: Vec<f64>,
}

/// The weights under `config` for negatives of these counts.
///
/// # Errors
/// A value out of range; a table without a class that the batches contain.
pub fn weights(exposure: &Exposure, config: &WeightConfig) -> Result<Weights> {
    config.validate()?;
    let languages: Vec<_> = exposure.language.iter().map(|(tag, count)| (tag.to_string(), *count)).collect();
    let topics: Vec<_> = exposure.topic.iter().enumerate().map(|(topic, count)| (topic.to_string(), *count)).collect();
    let language = config.language_law.factors(&languages)?;
    Ok(Weights {
        alpha: config.alpha / (config.alpha + config.beta),
        beta: config.beta / (config.alpha + config.beta),
        language: exposure.language.keys().cloned().zip(language).collect(),
        topic: config.topic_law.factors(&topics)?,
    })
}

impl Weights {
    /// ω of a passage; a language or topic that the planned negatives do not have counts with factor 1.
    pub fn of(&self, language: &Language, topic: Topic) -> f32 {
        let a = self.language.get(language).copied().unwrap_or(1.0);
        let b = self.topic.get(topic.0 as usize).copied().unwrap_or(1.0);
        (self.alpha * a + self.beta * b) as f32
    }

    /// The factor a of every language, of mean 1.
    pub fn languages(&self) -> &BTreeMap<Language, f64> {
        &self.language
    }

    /// The factor b of every topic by number, of mean 1.
    pub fn topics(&self) -> &[f64] {
        &self.topic
    }

    /// The least and the greatest τ·ln ω over all pairs of language and topic: by how much a weight shifts a negative, in
    /// units of the similarity.
    pub fn shift_range(&self, temperature: f64) -> (f64, f64) {
        let pairs = self.language.values().flat_map(|a| self.topic.iter().map(move |b| (a, b)));
        let shifts = pairs.map(|(a, b)| temperature * (self.alpha * a + self.beta * b).ln());
        shifts.fold((0.0, 0.0), |(least, most), shift| (shift.min(least), shift.max(most)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn classes(counts: &[u64]) -> Vec<(String, u64)> {
        counts.iter().enumerate().map(|(number, count)| (number.to_string(), *count)).collect()
    }

    fn assert_factors(law: &Law, counts: &[u64], expected: &[f64]) {
        let factors = law.factors(&classes(counts)).unwrap();
        assert!(factors.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{law:?}: {factors:?}");
    }

    #[test]
    fn laws_give_known_factors() {
        // n = [30.0, 10.0]; p = [0.75, 0.25]    # Python 3.11
        // for f in ([1 / x for x in p], [x ** .5 for x in p], [(1 - .9) / (1 - .9 ** x) for x in n], [2.0, 6.0]):
        //     m = sum(a * b for a, b in zip(p, f)); print([a / m for a in f])
        assert_factors(&Law::Inverse, &[30, 10], &[0.666_666_666_666_666_6, 2.0]);
        let power = Law::SharePower { gamma: 0.5 };
        assert_factors(&power, &[30, 10], &[1.118_146_029_604_788, 0.645_561_911_185_635_7]);
        let effective = Law::EffectiveNumber { beta: 0.9 };
        assert_factors(&effective, &[30, 10], &[0.894_803_521_336_153, 1.315_589_435_991_540_8]);
        assert_factors(&Law::Constant, &[30, 10], &[1.0, 1.0]);
        let table = Law::Table([("0".to_owned(), 2.0), ("1".to_owned(), 6.0)].into());
        assert_factors(&table, &[30, 10], &[0.666_666_666_666_666_6, 2.0]);
        assert_factors(&Law::Inverse, &[30, 0, 10], &[0.666_666_666_666_666_6, 1.0, 2.0]);
    }

    #[test]
    fn ranges_and_tables_are_checked() {
        let config = |law: Law| WeightConfig { topic_law: law, ..WeightConfig::default() };
        assert!(WeightConfig::default().validate().is_ok());
        assert!(config(Law::SharePower { gamma: 2.0 }).validate().is_err());
        assert!(config(Law::EffectiveNumber { beta: 1.0 }).validate().is_err());
        assert!(config(Law::Table([("0".to_owned(), 0.0)].into())).validate().is_err());
        assert!(WeightConfig { alpha: 0.0, beta: 0.0, ..WeightConfig::default() }.validate().is_err());
        let exposure = Exposure { topic: vec![1, 1], ..Exposure::default() };
        let lacking = weights(&exposure, &config(Law::Table([("0".to_owned(), 1.0)].into()))).unwrap_err();
        assert!(lacking.to_string().contains("no factor for `1`"), "{lacking}");
    }

    #[test]
    fn laws_read_as_toml() {
        let text = "alpha = 1.0\nlanguage_law = 'constant'\ntopic_law = { share-power = { gamma = 0.5 } }";
        let table = crate::config::parse_table("x", text).unwrap();
        let config: WeightConfig = crate::config::from_table("weights", table).unwrap();
        assert_eq!((config.language_law, config.topic_law), (Law::Constant, Law::SharePower { gamma: 0.5 }));
    }

    #[test]
    fn the_shift_range_is_in_units_of_the_similarity() {
        let exposure = Exposure {
            language: [(Language::new("ko").unwrap(), 10), (Language::new("ru").unwrap(), 30)].into(),
            topic: vec![20, 20],
        };
        let config = WeightConfig { alpha: 1.0, beta: 0.0, ..WeightConfig::default() };
        let (least, most) = weights(&exposure, &config).unwrap().shift_range(0.02);
        assert!((least - 0.02 * (2.0f64 / 3.0).ln()).abs() < 1e-12 && (most - 0.02 * 2.0f64.ln()).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn the_mean_over_the_planned_negatives_is_one(
            joint in prop::collection::vec((0usize..3, 0u32..4, 1u64..1000), 1..20),
            alpha in 0.01f64..2.0, beta in 0.0f64..2.0, gamma in -1.0f64..1.0,
        ) {
            let tags = ["ar", "ko", "sw"].map(|tag| Language::new(tag).unwrap());
            let mut exposure = Exposure { topic: vec![0; 4], ..Exposure::default() };
            for (language, topic, count) in &joint {
                *exposure.language.entry(tags[*language].clone()).or_default() += count;
                exposure.topic[*topic as usize] += count;
            }
            let (language_law, topic_law) = (Law::SharePower { gamma }, Law::Inverse);
            let weights = weights(&exposure, &WeightConfig { alpha, beta, language_law, topic_law }).unwrap();
            let total: u64 = joint.iter().map(|(_, _, count)| count).sum();
            let sum: f64 = joint
                .iter()
                .map(|(language, topic, count)| f64::from(weights.of(&tags[*language], Topic(*topic))) * *count as f64)
                .sum();
            prop_assert!((sum / total as f64 - 1.0).abs() < 1e-5);
        }
    }
}
