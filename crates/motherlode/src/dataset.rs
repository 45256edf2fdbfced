//! A data set as the pipeline sees it: for every language one corpus, and queries and qrels for every split.
//!
//! `fetch` writes it once, checked, from any of the public layouts; every later stage opens it here. Files:
//! `LANG/passages.bin`, `LANG/queries.SPLIT.tsv`, `LANG/qrels.SPLIT.tsv`.

use std::collections::BTreeMap;

use crate::artefact::Artefact;
use crate::corpus::{Corpus, Language};
use crate::error::{Error, Result};
use crate::qrels::Qrels;
use crate::queries::Queries;

/// Which part of the queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Queries to learn from; a part of them is set aside for validation by `sample`.
    Train,
    /// Queries that are scored once, at the end (the paper's test set is MIRACL's dev split).
    Dev,
}

impl Split {
    /// Both splits.
    pub const ALL: [Self; 2] = [Self::Train, Self::Dev];

    /// The name in file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Dev => "dev",
        }
    }
}

/// Queries and their judgements.
#[derive(Debug, Clone, Default)]
pub struct JudgedQueries {
    /// The queries.
    pub queries: Queries,
    /// Their judgements.
    pub qrels: Qrels,
}

/// One language of a data set.
#[derive(Debug)]
pub struct Partition {
    /// The language.
    pub language: Language,
    /// Its passages.
    pub corpus: Corpus,
    splits: BTreeMap<Split, JudgedQueries>,
}

impl Partition {
    /// Queries and judgements of a split; an error names what is missing.
    pub fn split(&self, split: Split) -> Result<&JudgedQueries> {
        let missing = || Error::data(format!("the data set has no {} queries for `{}`", split.name(), self.language));
        self.splits.get(&split).ok_or_else(missing)
    }

    /// Whether the split is there.
    pub fn has(&self, split: Split) -> bool {
        self.splits.contains_key(&split)
    }
}

/// All languages of a data set, in ascending order of their tags.
#[derive(Debug)]
pub struct Dataset {
    /// The key of the artefact, for those that depend on it.
    pub key: String,
    /// The languages.
    pub partitions: Vec<Partition>,
}

impl Dataset {
    /// The name of the artefact's stage.
    pub const STAGE: &str = "fetch";

    /// Opens what `fetch` wrote.
    pub fn open(artefact: &Artefact) -> Result<Self> {
        let mut partitions = Vec::new();
        for file in &artefact.manifest().files {
            if let Some(language) = file.path.strip_suffix("/passages.bin") {
                partitions.push(open_partition(artefact, Language::new(language)?)?);
            }
        }
        partitions.sort_by(|a, b| a.language.cmp(&b.language));
        Ok(Self { key: artefact.key().to_owned(), partitions })
    }

    /// The partition of a language.
    pub fn partition(&self, language: &Language) -> Result<&Partition> {
        let missing = || Error::data(format!("the data set has no language `{language}`"));
        self.partitions.iter().find(|partition| partition.language == *language).ok_or_else(missing)
    }
}

fn open_partition(artefact: &Artefact, language: Language) -> Result<Partition> {
    let corpus = Corpus::open(&artefact.path(&format!("{language}/passages.bin")))?;
    let mut splits = BTreeMap::new();
    for split in Split::ALL {
        let (queries, qrels) =
            (format!("{language}/queries.{}.tsv", split.name()), format!("{language}/qrels.{}.tsv", split.name()));
        if artefact.has(&queries) {
            let queries = Queries::read_tsv(&artefact.path(&queries))?;
            let qrels = Qrels::read(&artefact.path(&qrels), &queries, &corpus)?;
            splits.insert(split, JudgedQueries { queries, qrels });
        }
    }
    Ok(Partition { language, corpus, splits })
}
