//! The verb `instruct`.

use std::path::PathBuf;

use clap::Args;
use motherlode::instruct::{InstructInputs, instruct, model_key, rehearse};
use motherlode::progress::Progress;
use motherlode_engine::CpuEngine;

use crate::Knobs;
use crate::stages::{Answers, told, write_batch};
use crate::terminal::Terminal;

/// Arguments of `instruct`.
#[derive(Args)]
pub(crate) struct Instruct {
    /// Instructions in Alpaca's format: a JSON array or JSON Lines, plain or gzip; `language` and `id` may stand beside.
    instructions: PathBuf,
    /// The language model to tune: a folder of Hugging Face's layout, such as `fetch language-model` writes.
    #[arg(long)]
    model: PathBuf,
    /// A fastText language model, for `instruct.language_check=fasttext`.
    #[arg(long)]
    language_model: Option<PathBuf>,
    #[command(flatten)]
    answers: Answers,
    #[command(flatten)]
    knobs: Knobs,
}

impl Instruct {
    pub(crate) fn run(&self, terminal: &Terminal) -> anyhow::Result<String> {
        let (config, seed) = (self.knobs.section("instruct")?, self.knobs.seed);
        let (llm, progress) = (self.answers.open(&self.knobs)?, Progress::new(terminal));
        let key = model_key(&self.model)?;
        let name = self.model.file_name().unwrap_or(self.model.as_os_str()).to_string_lossy();
        let inputs = InstructInputs {
            instructions: &self.instructions,
            model: &self.model,
            name: &name,
            model_key: &key,
            language_model: self.language_model.as_deref(),
            engine: &CpuEngine,
        };
        if let Some(path) = &self.answers.batch_out {
            rehearse(&inputs, &config, seed, &llm, &progress)?;
            return write_batch(&llm, path);
        }
        Ok(told(&instruct(&inputs, &config, seed, &llm, &self.knobs.out, &progress)?))
    }
}
