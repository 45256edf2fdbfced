//! What is written: the instructions with their provenance, the logs, the adapter, and perhaps the merged model.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::learn::Learner;
use super::lesson::Lesson;
use super::stage::InstructInputs;
use super::{Dropped, InstructConfig};
use crate::artefact::{Artefact, Draft, Summary, entries};
use crate::engine::ADAPTER;
use crate::error::{Error, Result};

/// The folder of the tuned model, whole.
const MERGED: &str = "merged";
/// Files that the merged model takes over where the base model has them.
const COPIED: [&str; 8] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
];

/// What was made of the instructions.
pub(super) struct Material {
    pub(super) lessons: Vec<Lesson>,
    pub(super) dropped: Vec<Dropped>,
    pub(super) summary: Summary,
}

/// Fills the draft and finishes it.
pub(super) fn export(
    mut draft: Draft,
    inputs: &InstructInputs,
    config: &InstructConfig,
    lessons: &Material,
    learner: &Learner,
) -> Result<Artefact> {
    let Material { lessons, dropped, summary } = lessons;
    let mut summary = summary.clone();
    summarise(&mut summary, learner);
    draft.write_lines("instructions.jsonl", lessons.iter().map(|lesson| &lesson.instruction))?;
    draft.write_lines("dropped.jsonl", dropped)?;
    draft.write_lines("log.jsonl", &learner.state.log)?;
    draft.write_lines("validation.jsonl", &learner.state.validations)?;
    let saved = draft.scratch()?.join("saved");
    if saved.exists() {
        fs::remove_dir_all(&saved).map_err(Error::io(&saved))?;
    }
    let adapter = saved.join(ADAPTER);
    if config.merge {
        fs::create_dir_all(&saved).map_err(Error::io(&saved))?;
        // The adapters, too.
        learner.model.save(&saved)?;
    } else {
        learner.model.save_adapters(&adapter)?;
    }
    copy_all(&mut draft, &adapter, ADAPTER)?;
    if config.merge {
        copy_all(&mut draft, &saved, MERGED)?;
        for name in COPIED.into_iter().filter(|name| inputs.model.join(name).exists()) {
            draft.copy(&format!("{MERGED}/{name}"), &inputs.model.join(name))?;
        }
    }
    draft.write_text("README.md", &card(inputs, config, &summary))?;
    draft.commit(summary)
}

/// Copies the files of a folder, not those of folders in it.
fn copy_all(draft: &mut Draft, from: &Path, name: &str) -> Result<()> {
    for path in entries(from)?.into_iter().filter(|path| path.is_file()) {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        draft.copy(&format!("{name}/{file}"), &path)?;
    }
    Ok(())
}

/// Losses and steps.
fn summarise(summary: &mut Summary, learner: &Learner) {
    summary.count("steps", learner.total() as usize);
    let (log, validations) = (&learner.state.log, &learner.state.validations);
    if let (Some(first), Some(last)) = (log.first(), log.last()) {
        summary.value("loss of the first step", first.loss);
        summary.value("loss of the last step", last.loss);
    }
    let (Some(first), Some(last)) = (validations.first(), validations.last()) else {
        summary.note("no instructions were set aside, so that nothing tells what the model learnt beyond these");
        return;
    };
    summary.value("validation loss, untouched", first.loss);
    summary.value("validation loss", last.loss);
    for (language, loss) in &last.languages {
        summary.value(format!("{language}: validation loss, untouched"), first.languages[language]);
        summary.value(format!("{language}: validation loss"), *loss);
    }
    if last.loss >= first.loss {
        summary.note("the tuned model finds the answers that were set aside no likelier than the untouched one does");
    }
    let least = validations.iter().min_by(|a, b| a.loss.total_cmp(&b.loss));
    if let Some(least) = least.filter(|least| least.loss < last.loss) {
        summary.note(format!(
            "the validation loss was lowest, {:.4}, after {} steps; these are the weights after the last step",
            least.loss, least.step
        ));
    }
}

/// The README of the artefact.
fn card(inputs: &InstructInputs, config: &InstructConfig, summary: &Summary) -> String {
    let mut card = format!("# Instruction-tuned from {}\n\n", inputs.name);
    _ = writeln!(
        card,
        "Low-rank adapters (r {}, α {}) that teach `{}` (key `{}`) to summarise, made by Motherlode's `instruct`.\n",
        config.lora.rank, config.lora.alpha, inputs.name, inputs.model_key
    );
    for (name, count) in summary.counts.iter().filter(|(name, _)| !name.contains(':')) {
        _ = writeln!(card, "- {name}: {count}");
    }
    for (name, value) in summary.values.iter().filter(|(name, _)| !name.contains(':')) {
        _ = writeln!(card, "- {name}: {value:.4}");
    }
    summary.notes.iter().for_each(|note| _ = writeln!(card, "- {note}"));
    card.push_str("\n```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n");
    card.push_str("base = AutoModelForCausalLM.from_pretrained(\"the base model\")\n");
    card.push_str("model = PeftModel.from_pretrained(base, \"this folder/adapter\")\n```\n");
    card
}
