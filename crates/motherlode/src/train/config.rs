//! The knobs of `train`, and what the loss and the loop make of them.

use serde::{Deserialize, Serialize};

use super::loss::{Imitation, LossOptions, Prefix, Reading};
use super::schedule::Warmup;
use super::teacher::TeacherKind;
use crate::batch::weights::WeightConfig;
use crate::engine::{LoraConfig, OptimizerConfig};
use crate::error::{Error, Result};
use crate::index::exact::Similarity;

/// The knobs of section `[train]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Highest learning rate.
    pub rate: f32,
    /// How long the rate rises: a share of all planned steps, or `{ steps = n }`. It falls to 0 afterwards.
    pub warmup: Warmup,
    /// τ: similarities are divided by it. 1 suits `dot`.
    pub temperature: f32,
    /// How vectors are compared.
    pub similarity: Similarity,
    /// What the weights of languages and topics do.
    pub reading: Reading,
    /// Which weights languages and topics have.
    pub weights: WeightConfig,
    /// The optimiser.
    pub optimizer: OptimizerConfig,
    /// Low-rank adapters instead of all weights, off if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// Bytes that training may take in all, weights included; 9/10 of what is free on the machine if absent. With less
    /// memory more is computed twice. Results do not depend on it, so it is no part of the key.
    #[serde(skip_serializing)]
    pub memory: Option<u64>,
    /// Prefixes of the vectors that must be useful by themselves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub matryoshka: Vec<Prefix>,
    /// Imitation of a teacher's scores, off if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distillation: Option<DistillationConfig>,
    /// Whether the other queries of a step are negatives, too.
    pub query_negatives: bool,
    /// How the best weights are found.
    pub validation: ValidationConfig,
    /// Steps between two checkpoints, from which an interrupted training goes on.
    pub checkpoint_every: u64,
}

/// How a teacher is imitated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DistillationConfig {
    /// Whose scores.
    pub teacher: TeacherKind,
    /// The factor of the divergence beside the contrastive loss.
    pub weight: f32,
    /// The teacher's scores are divided by this; 1 suits the judge's grades, the model's τ its cosines.
    pub temperature: f32,
}

/// When the model is validated, and on what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ValidationConfig {
    /// `{ epochs = n }` or `{ steps = n }`. The untouched model and the last step are validated in any case.
    pub every: Every,
    /// Training stops after so many validations without a better one; 0 never stops.
    pub patience: usize,
    /// Which passages are searched.
    pub pool: Pool,
}

/// A distance between two validations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Every {
    /// At the end of every n-th planned epoch.
    Epochs(u32),
    /// After every n-th step.
    Steps(u64),
}

/// The passages that validation searches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pool {
    /// All passages of the language.
    Corpus,
    /// The positives and mined candidates of the validation queries: cheap, and declared in the summary.
    Reduced,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            rate: 2e-6,
            warmup: Warmup::Share(0.1),
            temperature: 0.02,
            similarity: Similarity::Cosine,
            reading: Reading::Negative,
            weights: WeightConfig::default(),
            optimizer: OptimizerConfig::default(),
            lora: None,
            memory: None,
            matryoshka: Vec::new(),
            distillation: None,
            query_negatives: false,
            validation: ValidationConfig::default(),
            checkpoint_every: 200,
        }
    }
}

impl Default for DistillationConfig {
    fn default() -> Self {
        Self { teacher: TeacherKind::default(), weight: 1.0, temperature: 0.02 }
    }
}

impl Default for ValidationConfig {
    fn default() -> Self {
        Self { every: Every::Epochs(1), patience: 3, pool: Pool::Corpus }
    }
}

impl TrainConfig {
    /// Checks the ranges.
    pub fn validate(&self) -> Result<()> {
        let positive = |value: f32| value > 0.0 && value.is_finite();
        let distillation = self.distillation.clone().unwrap_or_default();
        require("rate", positive(self.rate), "a positive number", self.rate)?;
        require("temperature", positive(self.temperature), "a positive number", self.temperature)?;
        if let Warmup::Share(share) = self.warmup {
            require("warmup", (0.0..=1.0).contains(&share), "a share from 0 to 1, or { steps = n }", share)?;
        }
        for Prefix { dimension, weight } in &self.matryoshka {
            require("matryoshka.dimension", *dimension > 0, "at least 1", dimension)?;
            require("matryoshka.weight", positive(*weight), "a positive number", weight)?;
        }
        require("distillation.weight", positive(distillation.weight), "a positive number", distillation.weight)?;
        let temperature = distillation.temperature;
        require("distillation.temperature", positive(temperature), "a positive number", temperature)?;
        let every = match self.validation.every {
            Every::Epochs(epochs) => u64::from(epochs),
            Every::Steps(steps) => steps,
        };
        require("validation.every", every > 0, "at least 1", every)?;
        require("checkpoint_every", self.checkpoint_every > 0, "at least 1", self.checkpoint_every)?;
        require("memory", self.memory != Some(0), "at least 1 byte", 0)?;
        self.optimizer.validate("train")?;
        self.lora.as_ref().map_or(Ok(()), LoraConfig::validate)?;
        self.weights.validate()
    }

    /// The loss that these knobs ask for.
    pub(super) fn loss(&self) -> LossOptions {
        let imitation = |distillation: &DistillationConfig| Imitation {
            weight: distillation.weight,
            temperature: distillation.temperature,
        };
        LossOptions {
            similarity: self.similarity,
            temperature: self.temperature,
            reading: self.reading,
            matryoshka: self.matryoshka.clone(),
            distillation: self.distillation.as_ref().map(imitation),
            query_negatives: self.query_negatives,
        }
    }
}

fn require(name: &str, holds: bool, expected: &str, got: impl std::fmt::Display) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::config(format!("`train.{name}`: expected {expected}, got {got}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{from_table, parse_table};

    fn parse(text: &str) -> Result<TrainConfig> {
        from_table("train", parse_table("recipe", text)?)
    }

    #[test]
    fn the_defaults_are_valid_and_survive_json() {
        let config = TrainConfig::default();
        config.validate().unwrap();
        assert_eq!(serde_json::from_value::<TrainConfig>(serde_json::to_value(&config).unwrap()).unwrap(), config);
    }

    #[test]
    fn a_section_reads_as_it_is_written_in_a_recipe() {
        let config = parse(
            "rate = 2e-5\nwarmup = { steps = 10 }\nsimilarity = 'dot'\nreading = 'paper-mean'\n\
             matryoshka = [{ dimension = 64 }]\ndistillation = { teacher = 'judge', temperature = 1.0 }\n\
             validation = { every = { steps = 50 }, pool = 'reduced' }\nweights = { topic_law = 'constant' }",
        )
        .unwrap();
        assert_eq!((config.warmup, config.reading), (Warmup::Steps { steps: 10 }, Reading::PaperMean));
        assert_eq!(config.matryoshka, [Prefix { dimension: 64, weight: 1.0 }]);
        assert_eq!(config.distillation.as_ref().map(|distillation| distillation.teacher), Some(TeacherKind::Judge));
        assert_eq!((config.validation.every, config.validation.patience), (Every::Steps(50), 3));
        config.validate().unwrap();
    }

    #[test]
    fn what_is_out_of_range_or_unknown_is_named() {
        for (text, expected) in [
            ("rate = 0.0", "`train.rate`: expected a positive number, got 0"),
            ("temperature = -1.0", "`train.temperature`"),
            ("warmup = 1.5", "`train.warmup`"),
            ("memory = 0", "`train.memory`"),
            ("checkpoint_every = 0", "`train.checkpoint_every`"),
            ("validation = { every = { epochs = 0 } }", "`train.validation.every`"),
            ("matryoshka = [{ dimension = 0 }]", "`train.matryoshka.dimension`"),
            ("distillation = { temperature = 0.0 }", "`train.distillation.temperature`"),
            ("optimizer = { beta1 = 1.0 }", "`train.optimizer.beta1`"),
            ("lora = { rank = 0 }", "`lora.rank`"),
            ("lora = { alpha = 0.0 }", "`lora.alpha`"),
            ("lora = { dropout = 1.0 }", "`lora.dropout`"),
            ("weights = { alpha = -1.0 }", "alpha"),
        ] {
            let message = parse(text).unwrap().validate().unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        let message = parse("temprature = 0.02").unwrap_err().to_string();
        assert!(message.contains("did you mean `temperature`?"), "{message}");
    }
}
