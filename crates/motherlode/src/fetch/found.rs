//! Which data set lies in a folder, by the names of its files.

use std::path::Path;

use super::dataset::{Folders, Layout, SplitNames};
use super::{DatasetConfig, beir, miracl, parquet};
use crate::corpus::Language;
use crate::dataset::Split;
use crate::error::{Error, Result};

/// A data set as its file names show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundDataset {
    /// How the files lie.
    pub layout: Layout,
    /// The languages; none where the layout has one that the files do not name.
    pub languages: Vec<Language>,
    /// What the files call the queries to learn from, if there are any.
    pub train_split: Option<String>,
    /// What they call the queries that are scored.
    pub dev_split: Option<String>,
}

/// Names of splits that are looked for, the best first.
const TRAIN: [&str; 1] = ["train"];
const DEV: [&str; 3] = ["dev", "test", "validation"];

/// The data set in a folder; no file is opened.
///
/// # Errors
/// None of the layouts fits.
pub fn find_dataset(folder: &Path) -> Result<FoundDataset> {
    for layout in [Layout::Miracl, Layout::Beir, Layout::Parquet] {
        // A layout of one language wants it named; what it is called does not matter for where files lie.
        for languages in [Vec::new(), vec![Language::new("en")?]] {
            if let Some(found) = find(folder, layout, &languages) {
                return Ok(found);
            }
        }
    }
    let expected = "no data set; expected MIRACL's layout (LANG/corpus.jsonl, LANG/topics.train.tsv, LANG/qrels.train.tsv), \
                    BEIR's (corpus.jsonl, queries.jsonl, qrels/train.tsv), or Parquet files (corpus.parquet, \
                    queries.train.parquet, qrels.train.parquet)";
    Err(Error::file(folder, expected))
}

fn find(folder: &Path, layout: Layout, asked: &[Language]) -> Option<FoundDataset> {
    let folders = || Folders { queries: folder.to_path_buf(), corpus: folder.to_path_buf() };
    let mut found: Option<FoundDataset> = None;
    for (train, dev) in TRAIN.iter().flat_map(|train| DEV.map(|dev| (*train, dev))) {
        let config = DatasetConfig { train_split: train.into(), dev_split: dev.into(), ..DatasetConfig::default() };
        let names = SplitNames::new(&config);
        let files = match layout {
            Layout::Miracl => miracl::locate(&folders(), asked, &names),
            Layout::Beir => beir::locate(&folders(), asked, &names),
            Layout::Parquet => parquet::locate(&folders(), asked, &names),
        };
        let Ok(files) = files else { continue };
        let has = |split: Split| files.iter().any(|files| files.splits.contains_key(&split));
        let name = |split: Split, name: &str| has(split).then(|| name.to_owned());
        let (train_split, dev_split) = (name(Split::Train, train), name(Split::Dev, dev));
        let languages =
            if asked.is_empty() { files.into_iter().map(|files| files.language).collect() } else { Vec::new() };
        let is_better = found.as_ref().is_none_or(|found| found.dev_split.is_none() && dev_split.is_some());
        if is_better && (train_split.is_some() || dev_split.is_some()) {
            found = Some(FoundDataset { layout, languages, train_split, dev_split });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        folder
    }

    fn found(files: &[&str]) -> (Layout, Vec<String>, Option<String>, Option<String>) {
        let found = find_dataset(folder(files).path()).unwrap();
        let languages = found.languages.iter().map(ToString::to_string).collect();
        (found.layout, languages, found.train_split, found.dev_split)
    }

    #[test]
    fn each_layout_is_known_by_its_files() {
        let (train, dev, test) = (Some("train".to_owned()), Some("dev".to_owned()), Some("test".to_owned()));
        let miracl = [
            "sw/corpus.jsonl.gz",
            "sw/topics.train.tsv",
            "sw/qrels.train.tsv",
            "sw/topics.dev.tsv",
            "sw/qrels.dev.tsv",
            "ar/corpus.jsonl",
        ];
        let languages = vec!["ar".to_owned(), "sw".to_owned()];
        assert_eq!(found(&miracl), (Layout::Miracl, languages, train.clone(), dev));
        let beir = ["corpus.jsonl", "queries.jsonl", "qrels/train.tsv", "qrels/test.tsv"];
        assert_eq!(found(&beir), (Layout::Beir, vec![], train, test.clone()));
        let parquet = ["corpus.parquet", "queries.test.parquet", "qrels.test.parquet"];
        assert_eq!(found(&parquet), (Layout::Parquet, vec![], None, test));
    }

    #[test]
    fn a_folder_of_something_else_says_what_is_expected() {
        let message = find_dataset(folder(&["notes.txt"]).path()).unwrap_err().to_string();
        assert!(message.contains("no data set; expected MIRACL's layout"), "{message}");
    }
}
