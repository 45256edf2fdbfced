//! MIRACL's files: `LANG/{corpus.jsonl[.gz], topics.SPLIT.tsv, qrels.SPLIT.tsv}`, or as the release has them on the hub,
//! `miracl-v1.0-LANG/{topics,qrels}/…` and, usually in another repository, `miracl-corpus-v1.0-LANG/docs-N.jsonl.gz`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::corpus::Language;
use crate::dataset::Split;
use crate::error::{Error, Result};

use super::dataset::{Folders, SplitNames};
use super::rows::{
    self, IdField, Judgement, LanguageFiles, Place, SplitFiles, VisitJudgement, VisitPassage, VisitQuery,
};

const RELEASE: &str = "miracl-v1.0-";
const RELEASE_CORPUS: &str = "miracl-corpus-v1.0-";

/// Finds the files of the asked languages, or of all languages where none is asked.
///
/// # Errors
/// No language at all, a language without corpus, a topics file without qrels or the other way round, a gap in `docs-N`.
pub(super) fn locate(folders: &Folders, asked: &[Language], names: &SplitNames) -> Result<Vec<LanguageFiles>> {
    let release = rows::languages_in(&folders.queries, RELEASE)?;
    let is_release = !release.is_empty();
    let found = if is_release { release } else { plain_languages(&folders.queries)? };
    let languages = if asked.is_empty() { found } else { asked.to_vec() };
    if languages.is_empty() {
        let message = "no language found; expected folders such as `sw` or `miracl-v1.0-sw`, or name another layout";
        return Err(Error::file(&folders.queries, message));
    }
    languages.into_iter().map(|language| locate_language(folders, language, names, is_release)).collect()
}

fn plain_languages(folder: &Path) -> Result<Vec<Language>> {
    let mut languages = rows::languages_in(folder, "")?;
    languages.retain(|language| plain_corpus(&folder.join(language.as_str())).is_some());
    Ok(languages)
}

fn locate_language(
    folders: &Folders,
    language: Language,
    names: &SplitNames,
    is_release: bool,
) -> Result<LanguageFiles> {
    let mut splits = BTreeMap::new();
    for split in Split::ALL {
        let name = names.of(split);
        let files = if is_release {
            let (full, folder) = (format!("{RELEASE}{language}"), folders.queries.join(format!("{RELEASE}{language}")));
            SplitFiles {
                queries: folder.join(format!("topics/topics.{full}-{name}.tsv")),
                qrels: folder.join(format!("qrels/qrels.{full}-{name}.tsv")),
            }
        } else {
            let folder = folders.queries.join(language.as_str());
            SplitFiles {
                queries: folder.join(format!("topics.{name}.tsv")),
                qrels: folder.join(format!("qrels.{name}.tsv")),
            }
        };
        rows::add_split(&mut splits, split, files)?;
    }
    let corpus = corpus_files(&folders.corpus, &language)?;
    Ok(LanguageFiles { language, corpus, splits })
}

fn corpus_files(folder: &Path, language: &Language) -> Result<Vec<PathBuf>> {
    let release = folder.join(format!("{RELEASE_CORPUS}{language}"));
    if release.is_dir() {
        return release_corpus(&release);
    }
    let plain = folder.join(language.as_str());
    plain_corpus(&plain).map(|path| vec![path]).ok_or_else(|| {
        let message = format!(
            "no corpus for `{language}`; expected `{language}/corpus.jsonl[.gz]` or `{RELEASE_CORPUS}{language}/docs-N.jsonl.gz`; \
             set `corpus` where it lies elsewhere"
        );
        Error::file(folder, message)
    })
}

fn plain_corpus(folder: &Path) -> Option<PathBuf> {
    ["corpus.jsonl", "corpus.jsonl.gz"].map(|name| folder.join(name)).into_iter().find(|path| path.is_file())
}

/// `docs-0.jsonl.gz`, `docs-1.jsonl.gz`, … in this order; a gap means that a file was not downloaded.
fn release_corpus(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        if let Some(number) = path.file_name().and_then(|name| document_number(name.to_str()?)) {
            files.insert(number, path);
        }
    }
    match (0..).zip(files.keys()).find(|(expected, found)| expected != *found) {
        Some((gap, _)) => Err(rows::missing(&folder.join(format!("docs-{gap}.jsonl.gz")), "passages")),
        None if files.is_empty() => Err(rows::missing(&folder.join("docs-0.jsonl.gz"), "passages")),
        None => Ok(files.into_values().collect()),
    }
}

fn document_number(name: &str) -> Option<u32> {
    let stem = name.strip_suffix(".gz").unwrap_or(name);
    stem.strip_prefix("docs-")?.strip_suffix(".jsonl")?.parse().ok()
}

/// Whether a file of a hub repository is one that [`locate`] may ask for.
pub(super) fn is_needed(path: &str, languages: &[Language], names: &SplitNames) -> bool {
    let Some((folder, file)) = path.split_once('/') else { return false };
    let tag = folder.strip_prefix(RELEASE).or_else(|| folder.strip_prefix(RELEASE_CORPUS)).unwrap_or(folder);
    let asked = languages.is_empty() || languages.iter().any(|language| language.as_str() == tag);
    let name = file.rsplit('/').next().unwrap_or(file);
    let is_corpus = document_number(name).is_some() || name == "corpus.jsonl" || name == "corpus.jsonl.gz";
    let is_split = Split::ALL.iter().any(|split| {
        name.strip_suffix(".tsv").is_some_and(|stem| stem.ends_with(names.of(*split)))
            && (name.starts_with("topics.") || name.starts_with("qrels."))
    });
    asked && (is_corpus || is_split)
}

/// Reads a corpus file.
pub(super) fn passages(path: &Path, visit: &mut VisitPassage<'_>) -> Result<()> {
    rows::json_passages(path, IdField::Docid, visit)
}

/// Reads `query-id<TAB>text` lines.
///
/// # Errors
/// Bytes that are not UTF-8, a line without a tab, an id or text that is empty.
pub(super) fn queries(path: &Path, visit: &mut VisitQuery<'_>) -> Result<()> {
    crate::lines::for_each(path, |line, row| {
        let place = Place { path, line };
        let columns = row.split_once('\t');
        let (id, text) = columns.ok_or_else(|| place.error("expected `query-id<TAB>text`, there is no tab"))?;
        place.check_id("query-id", id)?;
        place.check_text("text", id, text)?;
        visit(place, id, text.trim())
    })
}

/// Reads TREC qrels: `query-id Q0 passage-id grade`.
pub(super) fn judgements(path: &Path, visit: &mut VisitJudgement<'_>) -> Result<()> {
    crate::lines::for_each(path, |line, row| {
        let place = Place { path, line };
        let fields: Vec<&str> = row.split_whitespace().collect();
        let [query, _, passage, grade] = fields[..] else {
            let message = format!("expected 4 columns `query-id Q0 passage-id grade`, got {}", fields.len());
            return Err(place.error(message));
        };
        visit(place, Judgement { query, passage, grade })
    })
}
