//! BEIR's files: `corpus.jsonl`, `queries.jsonl` (each may end in `.gz`), and `qrels/SPLIT.tsv` with a header.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::corpus::Language;
use crate::dataset::Split;
use crate::error::{Error, Result};

use super::dataset::{Folders, SplitNames};
use super::rows::{
    self, IdField, Judgement, LanguageFiles, Place, SplitFiles, VisitJudgement, VisitPassage, VisitQuery,
};

/// Finds the files. The layout has one language, which the configuration must name.
///
/// # Errors
/// No language or several, no corpus, no queries.
pub(super) fn locate(folders: &Folders, languages: &[Language], names: &SplitNames) -> Result<Vec<LanguageFiles>> {
    let language = rows::only_language(languages, "beir")?;
    let corpus = plain_or_packed(&folders.corpus, "corpus.jsonl", "passages")?;
    let queries = plain_or_packed(&folders.queries, "queries.jsonl", "queries")?;
    let mut splits = BTreeMap::new();
    for split in Split::ALL {
        let qrels = folders.queries.join(format!("qrels/{}.tsv", names.of(split)));
        if qrels.is_file() {
            splits.insert(split, SplitFiles { queries: queries.clone(), qrels });
        }
    }
    if splits.is_empty() {
        let folder = folders.queries.join("qrels");
        let (train, dev) = (names.of(Split::Train), names.of(Split::Dev));
        let message = format!(
            "expected `{train}.tsv` or `{dev}.tsv`; where the judgements are called otherwise, such as `test.tsv`, say so \
             with `dev_split` or `train_split`"
        );
        return Err(Error::file(folder, message));
    }
    Ok(vec![LanguageFiles { language, corpus: vec![corpus], splits }])
}

fn plain_or_packed(folder: &Path, name: &str, what: &str) -> Result<PathBuf> {
    let paths = [folder.join(name), folder.join(format!("{name}.gz"))];
    let missing = rows::missing(&paths[0], what);
    paths.into_iter().find(|path| path.is_file()).ok_or(missing)
}

/// Whether a file of a hub repository is one that [`locate`] may ask for.
pub(super) fn is_needed(path: &str, names: &SplitNames) -> bool {
    let is_split = |split: &Split| path == format!("qrels/{}.tsv", names.of(*split));
    ["corpus.jsonl", "queries.jsonl"].contains(&path.strip_suffix(".gz").unwrap_or(path))
        || Split::ALL.iter().any(is_split)
}

/// Reads a corpus file.
pub(super) fn passages(path: &Path, visit: &mut VisitPassage<'_>) -> Result<()> {
    rows::json_passages(path, IdField::Underscore, visit)
}

/// Reads the queries of all splits.
pub(super) fn queries(path: &Path, visit: &mut VisitQuery<'_>) -> Result<()> {
    rows::json_queries(path, visit)
}

/// Reads `query-id<TAB>corpus-id<TAB>score` lines after a header.
pub(super) fn judgements(path: &Path, visit: &mut VisitJudgement<'_>) -> Result<()> {
    crate::lines::for_each(path, |line, row| {
        let place = Place { path, line };
        let fields: Vec<&str> = row.split('\t').map(str::trim).collect();
        let [query, passage, grade] = fields[..] else {
            let message = format!("expected 3 columns `query-id<TAB>corpus-id<TAB>score`, got {}", fields.len());
            return Err(place.error(message));
        };
        match (line, grade.parse::<i32>()) {
            (1, Err(_)) => Ok(()),
            (1, Ok(_)) => Err(place.error("expected the header `query-id<TAB>corpus-id<TAB>score`; add it")),
            _ => visit(place, Judgement { query, passage, grade }),
        }
    })
}
