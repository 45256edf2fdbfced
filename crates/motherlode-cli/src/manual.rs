//! What a shell and `man` want to know of the command, made from its own description.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::Command;

/// Arguments of `completions`.
#[derive(Args)]
pub(crate) struct Completions {
    /// For which shell.
    shell: Shell,
}

impl Completions {
    /// The script, for standard output.
    pub(crate) fn run(&self) -> anyhow::Result<String> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Command::command(), "motherlode", &mut script);
        String::from_utf8(script).context("a completion script is text")
    }
}

/// Arguments of `man`.
#[derive(Args)]
pub(crate) struct Man {
    /// Folder for the pages: `motherlode.1`, and one for every verb.
    folder: PathBuf,
}

impl Man {
    /// Writes the pages; tells where.
    pub(crate) fn run(&self) -> anyhow::Result<String> {
        std::fs::create_dir_all(&self.folder).with_context(|| format!("cannot make {}", self.folder.display()))?;
        let written = clap_mangen::generate_to(Command::command(), &self.folder);
        written.with_context(|| format!("cannot write into {}", self.folder.display()))?;
        Ok(format!("man -l {}", self.folder.join("motherlode.1").display()))
    }
}
