//! The verb `inspect`: looks what is made of an experiment, and serves the pages over it.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use motherlode::inspect::{self, Access, Inspector};
use motherlode::progress::Progress;
use motherlode::recipe::place::Workshop;
use motherlode::recipe::settings::{self, Variant};
use motherlode::recipe::status;
use motherlode_engine::CpuEngine;

use crate::RecipeArguments;
use crate::terminal::Terminal;

/// Arguments of `inspect`.
#[derive(Args)]
pub(crate) struct Inspect {
    #[command(flatten)]
    recipe: RecipeArguments,
    /// The arm; without one the first of the recipe.
    #[arg(long)]
    arm: Option<String>,
    /// The arm's seed; without one its first.
    #[arg(long)]
    seed: Option<u64>,
    /// Address and port to listen on; port 0 takes a free one. Whatever is not loopback is open to other machines.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// A name by which others reach this machine, where it listens on all its addresses; may be repeated.
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// Labels of people, to be read and written; without this `labels.sqlite` in the work folder.
    #[arg(long)]
    labels: Option<PathBuf>,
    /// Write the labels into this folder, as qrels and for the judge's calibration, and serve nothing.
    #[arg(long, value_name = "FOLDER")]
    export: Option<PathBuf>,
}

impl Inspect {
    /// Serves until the process is ended; tells the address once pages can be had.
    pub(crate) fn run(&self, terminal: &Terminal) -> anyhow::Result<String> {
        let variants = settings::load(&self.recipe.recipe, &self.recipe.set)?;
        let variant = self.variant(&variants)?;
        let silent = Progress::silent();
        let workshop = Workshop::new(&self.recipe.work, Arc::new(CpuEngine), &silent).only_look();
        let arm = status::arm(&workshop, variant)
            .with_context(|| format!("run {} first, at least up to `mine`", self.recipe.recipe.display()))?;
        let labels = self.labels.clone().unwrap_or_else(|| workshop.labels());
        let progress = Progress::new(terminal);
        let inspector = Inspector::open(arm, variant.settings.inspect.clone(), &labels, &progress)?;
        terminal.finish();
        if let Some(folder) = &self.export {
            let files = inspector.export_to(folder)?;
            let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
            return Ok(files.join("\n"));
        }
        let listener = TcpListener::bind(self.listen).with_context(|| format!("cannot listen on {}", self.listen))?;
        let access = Access::new(listener.local_addr()?, &self.hosts)?;
        terminal.line(&format!("labels: {}\nopen {}\nend with Ctrl-C", labels.display(), access.address()));
        inspect::serve(inspector, listener, access)?;
        Ok(String::new())
    }

    fn variant<'a>(&self, variants: &'a [Variant]) -> anyhow::Result<&'a Variant> {
        let is_asked = |variant: &&Variant| {
            self.arm.as_ref().is_none_or(|name| variant.name == *name)
                && self.seed.is_none_or(|seed| variant.seed == seed)
        };
        variants.iter().find(is_asked).with_context(|| {
            let names: Vec<String> =
                variants.iter().map(|variant| format!("`{}`, seed {}", variant.name, variant.seed)).collect();
            format!("the recipe has no such arm; it has {}", names.join("; "))
        })
    }
}
