//! What the readers of all layouts have in common: where a row stands, which files a language has, and JSON passages.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::corpus::{Language, Passage};
use crate::dataset::Split;
use crate::error::{Error, Result};

/// Where a row stands, for messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// The file.
    pub(super) path: &'a Path,
    /// Counted from 1; the row in a Parquet file.
    pub(super) line: u64,
}

impl Place<'_> {
    /// An error at this place.
    pub(super) fn error(self, message: impl Into<String>) -> Error {
        Error::line(self.path, self.line, message)
    }

    /// Refuses an id that the TREC formats cannot hold; `field` is its name in the file.
    pub(super) fn check_id(self, field: &str, id: &str) -> Result<()> {
        if id.is_empty() {
            return Err(self.error(format!("expected an id in `{field}`, it is empty; give every row an id")));
        }
        if id.contains(char::is_whitespace) {
            let message = format!("`{field}` = `{id}`: expected an id without white space (TREC files cannot hold it)");
            return Err(self.error(message));
        }
        Ok(())
    }

    /// Refuses a text without a visible character.
    pub(super) fn check_text(self, field: &str, id: &str, text: &str) -> Result<()> {
        if text.trim().is_empty() {
            let message = format!("`{id}`: expected a text in `{field}`, it is empty; remove the row or fill it in");
            return Err(self.error(message));
        }
        Ok(())
    }
}

/// One judgement, by the names in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judgement<'a> {
    /// Id of the query.
    pub(super) query: &'a str,
    /// Id of the passage.
    pub(super) passage: &'a str,
    /// The grade, not yet read as a number.
    pub(super) grade: &'a str,
}

/// Receives the passages of a file.
pub(super) type VisitPassage<'v> = dyn FnMut(Place<'_>, Passage<'_>) -> Result<()> + 'v;
/// Receives the queries of a file: place, id, text.
pub(super) type VisitQuery<'v> = dyn FnMut(Place<'_>, &str, &str) -> Result<()> + 'v;
/// Receives the judgements of a file.
pub(super) type VisitJudgement<'v> = dyn FnMut(Place<'_>, Judgement<'_>) -> Result<()> + 'v;

/// The two files of a split.
#[derive(Debug, Clone)]
pub(super) struct SplitFiles {
    /// The queries; in BEIR's layout those of all splits.
    pub(super) queries: PathBuf,
    /// The judgements.
    pub(super) qrels: PathBuf,
}

/// The files of one language.
#[derive(Debug, Clone)]
pub(super) struct LanguageFiles {
    /// The language.
    pub(super) language: Language,
    /// The corpus, in reading order.
    pub(super) corpus: Vec<PathBuf>,
    /// What there is of queries.
    pub(super) splits: BTreeMap<Split, SplitFiles>,
}

impl LanguageFiles {
    /// All files, each once.
    pub(super) fn all(&self) -> Vec<&Path> {
        let mut files: Vec<&Path> = self.corpus.iter().map(PathBuf::as_path).collect();
        files.extend(self.splits.values().flat_map(|split| [split.queries.as_path(), split.qrels.as_path()]));
        files.sort_unstable();
        files.dedup();
        files
    }
}

/// Adds a split if its files are there; an error if only one of the two is.
pub(super) fn add_split(splits: &mut BTreeMap<Split, SplitFiles>, split: Split, files: SplitFiles) -> Result<()> {
    match (files.queries.is_file(), files.qrels.is_file()) {
        (true, true) => {
            splits.insert(split, files);
            Ok(())
        }
        (false, false) => Ok(()),
        (true, false) => Err(missing(&files.qrels, "judgements")),
        (false, true) => Err(missing(&files.queries, "queries")),
    }
}

/// The error of a file that the layout asks for.
pub(super) fn missing(path: &Path, what: &str) -> Error {
    Error::file(path, format!("expected the {what} here, there is no such file; add it or name another layout"))
}

/// The language of a layout that has only one.
pub(super) fn only_language(languages: &[Language], layout: &str) -> Result<Language> {
    match languages {
        [language] => Ok(language.clone()),
        _ => Err(Error::config(format!(
            "`dataset.languages`: the layout `{layout}` holds one language; expected its tag, as in [\"en\"], got {} tags",
            languages.len()
        ))),
    }
}

/// The languages that name a folder in `folder`, after `prefix`; in ascending order.
pub(super) fn languages_in(folder: &Path, prefix: &str) -> Result<Vec<Language>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        let name = entry.file_name();
        let tag = name.to_str().and_then(|name| name.strip_prefix(prefix)).and_then(|tag| Language::new(tag).ok());
        found.extend(tag.filter(|_| entry.path().is_dir()));
    }
    found.sort();
    Ok(found)
}

/// A passage as one JSON object a line; MIRACL calls the id `docid`, BEIR `_id`.
#[derive(Deserialize)]
struct JsonPassage<'a> {
    #[serde(borrow)]
    docid: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "_id")]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    title: Option<Cow<'a, str>>,
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
}

/// Which field of a JSON line holds the id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdField {
    /// `docid`, as in MIRACL.
    Docid,
    /// `_id`, as in BEIR.
    Underscore,
}

impl IdField {
    fn name(self) -> &'static str {
        match self {
            Self::Docid => "docid",
            Self::Underscore => "_id",
        }
    }
}

/// Reads `{id, title, text}` lines, plain or gzip; title may be absent.
///
/// # Errors
/// Bytes that are not UTF-8, a line that is no JSON object, an id or text that is missing, empty or no string.
pub(super) fn json_passages(path: &Path, field: IdField, visit: &mut VisitPassage<'_>) -> Result<()> {
    crate::lines::for_each(path, |line, text| {
        let place = Place { path, line };
        let row: JsonPassage<'_> = parse(place, field, text)?;
        let (id, other) = match field {
            IdField::Docid => (row.docid, row.id),
            IdField::Underscore => (row.id, row.docid),
        };
        let id = id.ok_or_else(|| place.error(no_id(field, other.is_some())))?;
        place.check_id(field.name(), &id)?;
        let text = row.text.ok_or_else(|| place.error(format!("`{id}`: expected a text in `text`, there is none")))?;
        place.check_text("text", &id, &text)?;
        visit(place, Passage { id: &id, title: row.title.as_deref().unwrap_or_default(), text: &text })
    })
}

fn parse<'a, T: Deserialize<'a>>(place: Place<'_>, field: IdField, text: &'a str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        let reason = error.to_string();
        let reason = reason.split(" at line ").next().unwrap_or_default();
        let column = error.column();
        let name = field.name();
        place.error(format!("expected one JSON object with the strings `{name}` and `text`; column {column}: {reason}"))
    })
}

fn no_id(field: IdField, other_is_there: bool) -> String {
    match (field, other_is_there) {
        (IdField::Docid, true) => "expected `docid`, there is `_id`; is the layout `beir`?".to_owned(),
        (IdField::Underscore, true) => "expected `_id`, there is `docid`; is the layout `miracl`?".to_owned(),
        _ => format!("expected an id in `{}`, there is none", field.name()),
    }
}

/// A query as one JSON object a line.
#[derive(Deserialize)]
struct JsonQuery<'a> {
    #[serde(borrow, rename = "_id")]
    id: Cow<'a, str>,
    #[serde(borrow)]
    text: Cow<'a, str>,
}

/// Reads `{_id, text}` lines.
pub(super) fn json_queries(path: &Path, visit: &mut VisitQuery<'_>) -> Result<()> {
    crate::lines::for_each(path, |line, text| {
        let place = Place { path, line };
        let row: JsonQuery<'_> = parse(place, IdField::Underscore, text)?;
        place.check_id("_id", &row.id)?;
        place.check_text("text", &row.id, &row.text)?;
        visit(place, &row.id, &row.text)
    })
}
