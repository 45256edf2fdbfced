//! The verb `ledger`: what language models answered, counted, checked, and moved between ledgers as JSON Lines.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use motherlode::artefact::write_whole;
use motherlode::llm;

/// Arguments of `ledger`.
#[derive(Args)]
pub(crate) struct Ledger {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Count answers and tokens by model and prompt.
    Stats {
        /// The ledger.
        #[arg(default_value = "work/ledger.sqlite")]
        ledger: PathBuf,
    },
    /// Check that every answer stands under the key of its request.
    Verify {
        /// The ledger.
        #[arg(default_value = "work/ledger.sqlite")]
        ledger: PathBuf,
    },
    /// Write all answers as JSON Lines, in an order that does not depend on when they were given.
    Export {
        /// The ledger.
        #[arg(long, default_value = "work/ledger.sqlite")]
        ledger: PathBuf,
        /// The file to write.
        out: PathBuf,
    },
    /// Take answers in from JSON Lines; what is answered already keeps its answer.
    Merge {
        /// The ledger.
        #[arg(long, default_value = "work/ledger.sqlite")]
        ledger: PathBuf,
        /// Files that `export` wrote.
        #[arg(required = true)]
        recorded: Vec<PathBuf>,
    },
}

impl Ledger {
    pub(crate) fn run(&self) -> anyhow::Result<String> {
        match &self.action {
            Action::Stats { ledger } => stats(&existing(ledger)?),
            Action::Verify { ledger } => Ok(format!("{} answers, all whole", existing(ledger)?.verify()?)),
            Action::Export { ledger, out } => export(&existing(ledger)?, out),
            Action::Merge { ledger, recorded } => merge(&llm::Ledger::open(ledger)?, recorded),
        }
    }
}

/// Looking at a ledger must not make one.
fn existing(path: &Path) -> anyhow::Result<llm::Ledger> {
    anyhow::ensure!(path.is_file(), "{}: there is no ledger; name the one in your work folder", path.display());
    Ok(llm::Ledger::open(path)?)
}

fn stats(ledger: &llm::Ledger) -> anyhow::Result<String> {
    let mut lines = vec![format!("{:>9}  {:>13}  {:>13}  model, prompt", "answers", "prompt tokens", "answer tokens")];
    for ((model, prompt), holding) in ledger.stats()? {
        let llm::Holding { answers, prompt_tokens, completion_tokens } = holding;
        lines.push(format!("{answers:>9}  {prompt_tokens:>13}  {completion_tokens:>13}  {model}, {prompt}"));
    }
    Ok(lines.join("\n"))
}

fn export(ledger: &llm::Ledger, out: &Path) -> anyhow::Result<String> {
    let rows = write_whole(out, |output| ledger.export_jsonl(output, out, None))?;
    Ok(format!("{rows} answers\n{}", out.display()))
}

fn merge(ledger: &llm::Ledger, recorded: &[PathBuf]) -> anyhow::Result<String> {
    let mut lines = Vec::new();
    for path in recorded {
        let llm::Imported { added, known } =
            ledger.import_jsonl(path).with_context(|| format!("nothing of {} was taken", path.display()))?;
        lines.push(format!("{}: {added} answers added, {known} were known", path.display()));
    }
    Ok(lines.join("\n"))
}
