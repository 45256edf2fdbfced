//! The verbs over a recipe: `run`, `plan`, `status`, `report`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use motherlode::progress::Progress;
use motherlode::recipe::pages::{self, Finished};
use motherlode::recipe::place::Workshop;
use motherlode::recipe::{plan, settings, status, walk};
use motherlode_engine::CpuEngine;

use crate::terminal::Terminal;
use crate::{Computing, RecipeArguments};

/// Arguments of the verbs that encode and train.
#[derive(Args)]
pub(crate) struct Work {
    #[command(flatten)]
    recipe: RecipeArguments,
    #[command(flatten)]
    computing: Computing,
}

/// Runs all variants; prints the comparison and where the page is.
pub(crate) fn run(Work { recipe, computing }: &Work, terminal: &Terminal) -> anyhow::Result<String> {
    let variants = settings::load(&recipe.recipe, &recipe.set)?;
    let progress = Progress::new(terminal);
    let workshop = Workshop::new(&recipe.work, Arc::new(computing.engine()), &progress);
    let finished = walk::run(&workshop, &variants)?;
    terminal.finish();
    Ok(told(&finished))
}

/// Arguments of `report`.
#[derive(Args)]
pub(crate) struct Report {
    /// The recipes, TOML files.
    #[arg(required = true)]
    recipes: Vec<PathBuf>,
    /// Folder for artefacts, downloads, the ledger and the pages.
    #[arg(long, default_value = "work")]
    work: PathBuf,
    /// Set one knob for all arms of all recipes, such as `compare.alpha=0.01`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Writes the pages from what is there; prints the comparisons and where the page is.
pub(crate) fn report(arguments: &Report, _terminal: &Terminal) -> anyhow::Result<String> {
    let load = |recipe: &PathBuf| settings::load(recipe, &arguments.set);
    let recipes: Vec<_> = arguments.recipes.iter().map(load).collect::<motherlode::Result<_>>()?;
    let silent = Progress::silent();
    let workshop = Workshop::new(&arguments.work, Arc::new(CpuEngine), &silent).only_look();
    let finished = match recipes.as_slice() {
        [variants] => pages::pages(&workshop, variants),
        several => pages::pages_side_by_side(&workshop, several),
    };
    let names: Vec<String> = arguments.recipes.iter().map(|recipe| recipe.display().to_string()).collect();
    Ok(told(&finished.with_context(|| format!("run {} first", names.join(", ")))?))
}

fn told(finished: &Finished) -> String {
    format!("{}\nreport: {}", finished.summary, finished.page.display())
}

/// Prints what the recipe will take.
pub(crate) fn plan(Work { recipe, computing }: &Work, terminal: &Terminal) -> anyhow::Result<String> {
    let variants = settings::load(&recipe.recipe, &recipe.set)?;
    let progress = Progress::new(terminal);
    let workshop = Workshop::new(&recipe.work, Arc::new(computing.engine()), &progress);
    Ok(plan::plan(&workshop, &variants)?.to_string())
}

/// Prints which stages are there.
pub(crate) fn status(arguments: &RecipeArguments, _terminal: &Terminal) -> anyhow::Result<String> {
    let variants = settings::load(&arguments.recipe, &arguments.set)?;
    let silent = Progress::silent();
    let workshop = Workshop::new(&arguments.work, Arc::new(CpuEngine), &silent).only_look();
    Ok(status::status(&workshop, &variants))
}
