//! The verb `init`: a commented recipe for the data in a folder.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use motherlode::fetch::{FoundDataset, Layout, find_dataset};

/// Arguments of `init`.
#[derive(Args)]
pub(crate) struct Init {
    /// The folder with the data set, in the layout of MIRACL, BEIR or Parquet files.
    data: PathBuf,
    /// The recipe to write; it must not be there yet.
    #[arg(long, short, default_value = "recipe.toml")]
    out: PathBuf,
}

impl Init {
    /// Writes the recipe; tells what was found and how to go on.
    pub(crate) fn run(&self) -> anyhow::Result<String> {
        let found = find_dataset(&self.data)?;
        if self.out.exists() {
            bail!("{} is there already; name another file with --out", self.out.display());
        }
        let recipe = recipe(&found, &self.data, &self.out)?;
        std::fs::write(&self.out, recipe).with_context(|| format!("cannot write {}", self.out.display()))?;
        let out = self.out.display();
        let languages = match found.languages.len() {
            0 | 1 => "1 language".to_owned(),
            many => format!("{many} languages"),
        };
        Ok(format!(
            "{out}: {} of {languages}\nnext: motherlode plan {out}\n      motherlode run {out}",
            match found.layout {
                Layout::Miracl => "MIRACL's layout",
                Layout::Beir => "BEIR's layout",
                Layout::Parquet => "Parquet files",
            }
        ))
    }
}

/// The recipe's text. Paths in a recipe are relative to its file.
fn recipe(found: &FoundDataset, data: &Path, out: &Path) -> anyhow::Result<String> {
    let absolute = |path: &Path| std::path::absolute(path).with_context(|| format!("no path: {}", path.display()));
    let (data, out) = (absolute(data)?, absolute(out)?);
    let root = out.parent().unwrap_or(Path::new("/"));
    let source = data.strip_prefix(root).unwrap_or(&data);
    let name = data.file_name().map_or_else(|| "experiment".to_owned(), |name| name.to_string_lossy().into_owned());
    let mut text = format!("{HEAD}\nname = {}\n\n{}", quoted(&name), dataset(found, &source.to_string_lossy()));
    text += TAIL;
    Ok(text)
}

fn dataset(found: &FoundDataset, source: &str) -> String {
    let mut text = format!("[dataset]\nsource = {}\n", quoted(source));
    let layout = match found.layout {
        Layout::Miracl => "miracl",
        Layout::Beir => "beir",
        Layout::Parquet => "parquet",
    };
    let _ = writeln!(text, "layout = \"{layout}\"");
    if found.languages.is_empty() {
        text += "# The files do not say their language: name it here.\nlanguages = [\"en\"]\n";
    } else {
        let languages: Vec<String> = found.languages.iter().map(|language| format!("\"{language}\"")).collect();
        let _ = writeln!(
            text,
            "# All that were found; leave out what is not wanted.\nlanguages = [{}]",
            languages.join(", ")
        );
    }
    let splits =
        [("train_split", &found.train_split, "to learn from"), ("dev_split", &found.dev_split, "to score at the end")];
    for (knob, split, use_of) in splits {
        if let Some(split) = split {
            let _ = writeln!(text, "{knob} = {}", quoted(split));
        } else {
            let _ =
                writeln!(text, "# No queries {use_of} were found. What do the file names call them?\n# {knob} = \"…\"");
        }
    }
    text
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

const HEAD: &str = "\
# Made by `motherlode init`. Every section has more knobs; each has a default, and all are documented in the library.
#
#   motherlode plan THIS     # passages, tokens, calls, money, time, disk, memory: before anything is spent
#   motherlode run THIS      # goes on where it was interrupted
";

const TAIL: &str = r#"
# The encoder to be tuned: a name on the model hub, or a sentence-transformers folder. With `source = "mirror"` its weights
# come from a package, where the hub cannot be reached.
[model]
name = "intfloat/multilingual-e5-small"

# Who mines hard negatives: encoders and BM25. The first dense one also makes the topics.
[[retriever]]
kind = "dense"
name = "e5"
model = { name = "intfloat/multilingual-e5-small" }

[[retriever]]
kind = "lexical"
name = "bm25"

# BM25 has ranks, no vectors; dense members alone can use "concat".
[fuse]
method = "rrf"

# Candidates of a query.
[mine]
depth = 40

# A language model finds the false negatives among them. Without one: method = "none", and choose a rule in [sample].
[judge]
method = "none"
# method = "llm"
# model = "NAME"
# unjudged = "percentage"

# More negatives, through queries that a language model writes; needs the judge.
[generate]
method = "none"
# method = "back-forward"
# model = "NAME"

# Any OpenAI-compatible server; or a GGUF file, which runs in the process.
# [llm]
# endpoints = ["http://127.0.0.1:8000/v1"]
# max_cost = 20.0
# [[llm.embedded]]
# name = "NAME"
# file = "Qwen2.5-Coder-1.5B-Instruct"

# Negatives of an example. Without a judge the rule decides: negatives below 90 % of the positive's score.
[sample]
negatives = 30
miner = { rule = "percentage", share = 0.1 }

# Queries of a step, and the negatives that each brings.
[batch]
queries = 24
negatives = 7
epochs = 5

[train]
rate = 2e-5

# Arms change a few knobs; the report puts them side by side. They share whatever they have in common.
# [[arm]]
# name = "top-k"
# set = { "sample.miner" = { rule = "top-k" } }
# [[arm]]
# name = "percentage"
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use motherlode::recipe::settings;

    #[test]
    fn what_init_writes_is_a_recipe() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("my \"data\"");
        for file in ["corpus.jsonl", "queries.jsonl", "qrels/train.tsv", "qrels/test.tsv"] {
            let path = data.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let init = Init { data: data.clone(), out: folder.path().join("recipe.toml") };
        let said = init.run().unwrap();
        assert!(said.contains("BEIR's layout of 1 language"), "{said}");
        let variants = settings::load(&init.out, &[]).unwrap();
        let dataset = &variants[0].settings.dataset;
        assert_eq!((dataset.layout, dataset.dev_split.as_str()), (Layout::Beir, "test"));
        assert_eq!(Path::new(&dataset.source), data);
        let again = init.run().unwrap_err().to_string();
        assert!(again.contains("is there already"), "{again}");
    }
}
