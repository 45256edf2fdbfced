//! Instruction tuning: a language model learns to summarise in the languages in which it is to write.
//!
//! Reads an Alpaca-format file and a causal language model of the Llama or Qwen2 family. Its instructions to summarise
//! ([`Select`]) are translated into every language by the configured translator, checked, and balanced over the
//! languages; the model then learns the answers with low-rank adapters. Writes `instructions.jsonl` (an
//! [`Instruction`] a line, with its provenance), `dropped.jsonl` (a [`Dropped`] a line), `log.jsonl` (a line a step),
//! `validation.jsonl` (a line a validation), `adapter/` (as `peft` writes adapters) and, if asked, `merged/`, a model of
//! its own. Both serve `generate`: the adapter through a server, the merged model in the process.
//!
//! Killed at any moment and started again, translations come from the ledger, and training goes on from its last
//! checkpoint and ends in the same bytes. Source: section 3.4 of the paper.
//!
//! Fallible functions return [`Error::Line`](crate::Error::Line) where the file is not what it should be, and the errors
//! of [`crate::llm`] and of the engine.

mod balance;
mod config;
mod export;
mod learn;
mod lesson;
mod prompt;
mod read;
mod select;
mod stage;
#[cfg(test)]
mod tests;
mod translate;

pub use config::{InstructConfig, Select};
pub use learn::{LearnRecord, LossRecord};
pub use stage::{InstructInputs, STAGE, instruct, model_key, rehearse};

use serde::{Deserialize, Serialize};

use crate::corpus::Language;

/// What a model is told to do, perhaps to a text, and the right answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instruction {
    /// What its translations have in common: the file's own id, or its number in the file.
    pub id: String,
    /// The language of all of it.
    pub language: Language,
    /// What to do.
    pub instruction: String,
    /// What to do it to; may be empty.
    pub input: String,
    /// The answer.
    pub output: String,
    /// Where this text comes from.
    pub provenance: Provenance,
    /// Whether it is set aside to measure the loss.
    #[serde(default)]
    pub validation: bool,
}

/// Where the text of an instruction comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Provenance {
    /// The file.
    Given {
        /// The line, or the number of the element, from 1.
        line: u64,
    },
    /// A translation of the English one with the same id.
    Translated {
        /// Who translated it.
        model: String,
        /// Where the reply stands in the ledger.
        key: String,
    },
}

/// An instruction that is not learnt: a line of `dropped.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The instruction's id.
    pub id: String,
    /// Its language; of a translation, the one that it was to have.
    pub language: Language,
    /// Why.
    pub reason: Reason,
    /// The instruction itself.
    pub instruction: String,
}

/// Why an instruction is not learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It does not ask for a summary, as `instruct.select` has it.
    OtherTask,
    /// Its instruction or its answer is empty.
    Empty,
    /// There is no text to summarise.
    NoInput,
    /// The answer is not shorter than the text.
    NotShorter,
    /// The same instruction and text occurred before.
    Duplicate,
    /// More were there than `instruct.examples`.
    NotDrawn,
    /// No reply of the translator could be read.
    Unreadable,
    /// The translation is the English text.
    Untranslated,
    /// The translation is in another language.
    OtherLanguage,
    /// The translation is far too short or too long.
    Length,
    /// A placeholder or an address is gone from the translation.
    Placeholder,
    /// The budget ended before it was translated.
    Budget,
    /// It has more tokens than `instruct.max_tokens`.
    TooLong,
    /// Too few instructions of its language are left, as `instruct.least_share` has it.
    RareLanguage,
    /// The other languages have fewer.
    Surplus,
}

impl Reason {
    /// For the summary's counts.
    fn words(self) -> &'static str {
        match self {
            Self::OtherTask => "asks for no summary",
            Self::Empty => "empty",
            Self::NoInput => "no text to summarise",
            Self::NotShorter => "answer not shorter than the text",
            Self::Duplicate => "duplicate",
            Self::NotDrawn => "not drawn",
            Self::Unreadable => "translation unreadable",
            Self::Untranslated => "not translated",
            Self::OtherLanguage => "translation in another language",
            Self::Length => "translation of an unlikely length",
            Self::Placeholder => "placeholder lost in translation",
            Self::Budget => "budget",
            Self::TooLong => "too many tokens",
            Self::RareLanguage => "language with too few left",
            Self::Surplus => "balance of languages",
        }
    }
}

impl Instruction {
    fn dropped(&self, reason: Reason) -> Dropped {
        self.dropped_in(&self.language, reason)
    }

    /// As a translation into `language` that failed.
    fn dropped_in(&self, language: &Language, reason: Reason) -> Dropped {
        let (id, instruction) = (self.id.clone(), self.instruction.clone());
        Dropped { id, language: language.clone(), reason, instruction }
    }

    /// The parts with their names, in order; a text that is not there is left out.
    fn parts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let parts = [("instruction", &self.instruction), ("input", &self.input), ("output", &self.output)];
        parts.into_iter().map(|(name, text)| (name, text.as_str())).filter(|(_, text)| !text.is_empty())
    }
}
