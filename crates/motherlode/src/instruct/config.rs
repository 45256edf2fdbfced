//! The knobs of section `[instruct]`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::corpus::Language;
use crate::engine::{LoraConfig, OptimizerConfig, Precision};
use crate::error::{Error, Result};
use crate::text::language::LanguageCheck;
use crate::train::schedule::Warmup;

/// Which English instructions of the file are learnt; others follow the English one with the same id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Select {
    /// Those that speak of a summary, a synopsis, of condensing or tl;dr, and have a text to do it to.
    #[default]
    Summaries,
    /// Those, and those that ask for the main idea, the key points, a headline, or an answer of so many sentences or words.
    Condensing,
    /// All.
    All,
}

/// Which instructions are learnt in which languages, and how. Defaults: those of the authors' code (anchors 1.4).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InstructConfig {
    /// The name of the model that translates, as the server knows it and as the ledger's keys hold it; may be empty where
    /// the file has all languages.
    pub translator: String,
    /// The languages that are learnt; English stays as it is.
    pub languages: Vec<Language>,
    /// Which instructions.
    pub select: Select,
    /// Whether an answer must be shorter than its text, but for `select = "all"`: leaves out what is written from a title
    /// alone, as two thirds of Alpaca's summaries are.
    pub shorter: bool,
    /// Most English instructions, drawn at random; none: all. Each costs a request for every other language.
    pub examples: Option<usize>,
    /// How the language of a translation is checked.
    pub language_check: LanguageCheck,
    /// Least and most characters of a translated part, as a multiple of the English one's.
    pub length_ratio: [f64; 2],
    /// A language with fewer instructions left than this share of the fullest language's is not learnt. All others are cut
    /// to as many as the rarest of them has.
    pub least_share: f64,
    /// Share of the ids that is set aside to measure the loss; all languages of an id together.
    pub validation: f64,
    /// Longer instructions, answer included, are dropped.
    pub max_tokens: usize,
    /// How often each instruction is learnt.
    pub epochs: u32,
    /// Instructions of an optimiser step. They are packed without padding; what memory does not hold at once is
    /// accumulated, with the same result.
    pub step_examples: usize,
    /// Highest learning rate; it falls along a cosine.
    pub rate: f32,
    /// How long the rate rises: a share of all steps, or `{ steps = n }`.
    pub warmup: Warmup,
    /// The adapters.
    pub lora: LoraConfig,
    /// The optimiser.
    pub optimizer: OptimizerConfig,
    /// What matrix products are computed in.
    pub precision: Precision,
    /// Bytes that training may take in all, weights included; 9/10 of what is free if absent. No part of the key.
    #[serde(skip_serializing)]
    pub memory: Option<u64>,
    /// Steps between two checkpoints.
    pub checkpoint_every: u64,
    /// Whether the tuned model is written whole, too.
    pub merge: bool,
}

/// The paper's languages.
const LANGUAGES: [&str; 16] =
    ["ar", "bn", "en", "es", "fa", "fi", "fr", "hi", "id", "ja", "ko", "ru", "sw", "te", "th", "zh"];

impl Default for InstructConfig {
    fn default() -> Self {
        Self {
            translator: String::new(),
            languages: LANGUAGES.iter().map(|tag| Language::new(tag).expect("they are tags")).collect(),
            select: Select::default(),
            shorter: false,
            examples: None,
            language_check: LanguageCheck::Script,
            length_ratio: [0.15, 4.0],
            least_share: 0.5,
            validation: 0.1,
            max_tokens: 2048,
            epochs: 5,
            step_examples: 16,
            rate: 1e-3,
            warmup: Warmup::Share(0.1),
            lora: LoraConfig::default(),
            optimizer: OptimizerConfig::default(),
            precision: Precision::F32,
            memory: None,
            checkpoint_every: 50,
            merge: false,
        }
    }
}

impl InstructConfig {
    /// Checks the ranges.
    pub fn validate(&self) -> Result<()> {
        let [least, most] = self.length_ratio;
        let distinct: BTreeSet<&Language> = self.languages.iter().collect();
        let share = |value: f64| (0.0..=1.0).contains(&value);
        require("languages", !self.languages.is_empty(), "at least one language", "none")?;
        require("languages", distinct.len() == self.languages.len(), "each language once", "one twice")?;
        require("examples", self.examples != Some(0), "at least 1", 0)?;
        let bounds = format!("[{least}, {most}]");
        require("length_ratio", 0.0 <= least && least < most && most.is_finite(), "two rising factors", bounds)?;
        require("least_share", share(self.least_share), "a share from 0 to 1", self.least_share)?;
        require("validation", (0.0..1.0).contains(&self.validation), "a share below 1", self.validation)?;
        require("max_tokens", self.max_tokens >= 2, "at least 2", self.max_tokens)?;
        require("epochs", self.epochs > 0, "at least 1", 0)?;
        require("step_examples", self.step_examples > 0, "at least 1", 0)?;
        require("rate", self.rate > 0.0 && self.rate.is_finite(), "a positive number", self.rate)?;
        if let Warmup::Share(value) = self.warmup {
            require("warmup", share(value), "a share from 0 to 1, or { steps = n }", value)?;
        }
        require("memory", self.memory != Some(0), "at least 1 byte", 0)?;
        require("checkpoint_every", self.checkpoint_every > 0, "at least 1", 0)?;
        self.optimizer.validate("instruct")?;
        self.lora.validate()
    }
}

fn require(name: &str, holds: bool, expected: &str, got: impl std::fmt::Display) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::config(format!("`instruct.{name}`: expected {expected}, got {got}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{from_table, parse_table};

    fn parse(text: &str) -> Result<InstructConfig> {
        from_table("instruct", parse_table("recipe", text)?)
    }

    #[test]
    fn the_defaults_are_valid_and_survive_json() {
        let config = InstructConfig::default();
        config.validate().unwrap();
        assert_eq!(serde_json::from_value::<InstructConfig>(serde_json::to_value(&config).unwrap()).unwrap(), config);
        let read = parse("languages = ['en', 'sw']\nselect = 'condensing'\nlora = { rank = 4, targets = ['q_proj'] }");
        assert_eq!(read.unwrap().lora.targets, ["q_proj"]);
    }

    #[test]
    fn what_is_out_of_range_or_unknown_is_named() {
        for (text, expected) in [
            ("languages = []", "`instruct.languages`: expected at least one language"),
            ("languages = ['sw', 'sw']", "`instruct.languages`: expected each language once"),
            ("examples = 0", "`instruct.examples`"),
            ("length_ratio = [2.0, 1.0]", "`instruct.length_ratio`"),
            ("least_share = 1.5", "`instruct.least_share`"),
            ("validation = 1.0", "`instruct.validation`"),
            ("max_tokens = 1", "`instruct.max_tokens`"),
            ("epochs = 0", "`instruct.epochs`"),
            ("step_examples = 0", "`instruct.step_examples`"),
            ("rate = 0.0", "`instruct.rate`"),
            ("warmup = 2.0", "`instruct.warmup`"),
            ("memory = 0", "`instruct.memory`"),
            ("checkpoint_every = 0", "`instruct.checkpoint_every`"),
            ("optimizer = { beta1 = 1.0 }", "`instruct.optimizer.beta1`"),
            ("lora = { rank = 0 }", "`lora.rank`"),
        ] {
            let message = parse(text).unwrap().validate().unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        let message = parse("transltor = 'm'").unwrap_err().to_string();
        assert!(message.contains("did you mean `translator`?"), "{message}");
    }
}
