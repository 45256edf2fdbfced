//! The labels that people give, in an `SQLite` file that windows and processes share.
//!
//! One table, `labels`, to which rows are only ever added: data set, language, query, passage, annotator, revision, grade.
//! The row with the highest revision counts. Written ahead (WAL) and synced before a label is confirmed: neither a process
//! that is killed nor a machine that loses power loses one that was. Whoever changes a label says which revision they saw:
//! if it is no longer the latest, nothing is written and they are told what stands there now.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use serde::{Deserialize, Serialize};

use crate::corpus::Language;
use crate::database::{self, Schema, failed};
use crate::error::Result;

/// The letters are "MLHL".
const SCHEMA: Schema =
    Schema { what: "labels file", application: 0x4d4c_484c, format: 1, table: TABLE, synchronous: "FULL" };
const TABLE: &str = "CREATE TABLE labels (
    number INTEGER PRIMARY KEY,
    dataset TEXT NOT NULL,
    language TEXT NOT NULL,
    query TEXT NOT NULL,
    passage TEXT NOT NULL,
    annotator TEXT NOT NULL,
    revision INTEGER NOT NULL,
    grade INTEGER NOT NULL CHECK (grade BETWEEN 0 AND 2),
    UNIQUE (dataset, language, query, passage, annotator, revision)
)";
/// Without an aggregate the columns are those of the row with the highest number, which is that of the latest revision.
const CURRENT: &str = "SELECT language, query, passage, annotator, revision, grade, max(number) AS latest FROM labels
    WHERE dataset = ?1 GROUP BY language, query, passage, annotator ORDER BY latest";
const LATEST: &str = "SELECT revision, grade FROM labels WHERE dataset = ?1 AND language = ?2 AND query = ?3
    AND passage = ?4 AND annotator = ?5 ORDER BY revision DESC LIMIT 1";

/// A query and a passage of a data set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pair {
    /// The language of both.
    pub language: Language,
    /// The query's id.
    pub query: String,
    /// The passage's id.
    pub passage: String,
}

impl std::fmt::Display for Pair {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}/{}", self.language, self.query, self.passage)
    }
}

/// What one person says of a pair, as it stands now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// The pair.
    #[serde(flatten)]
    pub pair: Pair,
    /// Who says it.
    pub annotator: String,
    /// How often it was set, from 1.
    pub revision: u32,
    /// 0 does not answer the query, 1 answers a part, 2 answers it.
    pub grade: u8,
}

/// What became of a label that someone gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It stands, under this revision.
    Yes(u32),
    /// Another window was faster: this is what stands, and nothing was written.
    Conflict {
        /// The latest revision.
        revision: u32,
        /// Its grade.
        grade: u8,
    },
}

/// All labels that were ever given. Safe to share between threads and processes.
#[derive(Debug)]
pub struct Labels {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl Labels {
    /// Opens the file, or makes an empty one.
    ///
    /// # Errors
    /// The file is another program's, or of a newer version of this one.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_path_buf(), connection: Mutex::new(database::open(path, &SCHEMA)?) })
    }

    /// Keeps a grade, where `seen` is the revision that the annotator had before their eyes: 0 if there was none.
    ///
    /// When this returns [`Kept::Yes`], the label outlives the process. The grade that stands already is kept as it is.
    pub fn put(&self, dataset: &str, pair: &Pair, annotator: &str, grade: u8, seen: u32) -> Result<Kept> {
        let mut connection = self.connection();
        let mut keep = || -> rusqlite::Result<Kept> {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let (revision, standing) = latest(&transaction, dataset, pair, annotator)?.unwrap_or((0, u8::MAX));
            if standing == grade {
                return Ok(Kept::Yes(revision));
            }
            if revision != seen {
                return Ok(Kept::Conflict { revision, grade: standing });
            }
            transaction.execute(
                "INSERT INTO labels (dataset, language, query, passage, annotator, revision, grade)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![dataset, pair.language.as_str(), pair.query, pair.passage, annotator, revision + 1, grade],
            )?;
            transaction.commit()?;
            Ok(Kept::Yes(revision + 1))
        };
        keep().map_err(failed(&self.path))
    }

    /// The labels of a data set that count, in the order in which they were last set.
    pub fn current(&self, dataset: &str) -> Result<Vec<Label>> {
        let connection = self.connection();
        let read = || -> rusqlite::Result<Vec<Label>> {
            connection.prepare_cached(CURRENT)?.query_map([dataset], label_of)?.collect()
        };
        read().map_err(failed(&self.path))
    }

    /// Number of rows, earlier revisions among them.
    pub fn len(&self) -> Result<u64> {
        let connection = self.connection();
        let count = connection.query_row("SELECT count(*) FROM labels", [], |row| row.get::<_, i64>(0));
        Ok(count.map_err(failed(&self.path))? as u64)
    }

    /// Whether nobody ever gave a label.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic elsewhere cannot leave a transaction half done: dropping it rolls it back.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The revision and grade that stand.
fn latest(connection: &Connection, dataset: &str, pair: &Pair, annotator: &str) -> rusqlite::Result<Option<(u32, u8)>> {
    connection
        .prepare_cached(LATEST)?
        .query_row(params![dataset, pair.language.as_str(), pair.query, pair.passage, annotator], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()
}

fn label_of(row: &Row<'_>) -> rusqlite::Result<Label> {
    let tag: String = row.get(0)?;
    let language = Language::new(&tag)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error)))?;
    let pair = Pair { language, query: row.get(1)?, passage: row.get(2)? };
    Ok(Label { pair, annotator: row.get(3)?, revision: row.get(4)?, grade: row.get(5)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(passage: &str) -> Pair {
        Pair { language: Language::new("sw").unwrap(), query: "q1".into(), passage: passage.into() }
    }

    fn grades(labels: &Labels) -> Vec<(String, String, u8)> {
        let current = labels.current("d").unwrap();
        current.into_iter().map(|label| (label.pair.passage, label.annotator, label.grade)).collect()
    }

    #[test]
    fn the_latest_revision_counts_and_data_sets_are_apart() {
        let folder = tempfile::tempdir().unwrap();
        let labels = Labels::open(&folder.path().join("a/labels.sqlite")).unwrap();
        assert!(labels.is_empty().unwrap());
        assert_eq!(labels.put("d", &pair("p1"), "anna", 0, 0).unwrap(), Kept::Yes(1));
        assert_eq!(labels.put("d", &pair("p2"), "anna", 2, 0).unwrap(), Kept::Yes(1));
        assert_eq!(labels.put("d", &pair("p1"), "anna", 1, 1).unwrap(), Kept::Yes(2));
        assert_eq!(labels.put("other", &pair("p1"), "anna", 2, 0).unwrap(), Kept::Yes(1));
        let expected = [("p2", "anna", 2), ("p1", "anna", 1)].map(|(p, a, g)| (p.to_owned(), a.to_owned(), g));
        assert_eq!(grades(&labels), expected);
        assert_eq!(labels.len().unwrap(), 4);
    }

    #[test]
    fn two_windows_do_not_overwrite_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.sqlite");
        let (one, other) = (Labels::open(&path).unwrap(), Labels::open(&path).unwrap());
        assert_eq!(one.put("d", &pair("p"), "anna", 2, 0).unwrap(), Kept::Yes(1));
        assert_eq!(other.put("d", &pair("p"), "anna", 0, 0).unwrap(), Kept::Conflict { revision: 1, grade: 2 });
        assert_eq!(other.put("d", &pair("p"), "anna", 2, 0).unwrap(), Kept::Yes(1), "the same grade is no conflict");
        assert_eq!(other.put("d", &pair("p"), "ben", 0, 0).unwrap(), Kept::Yes(1), "another person's label is another");
        assert_eq!(other.put("d", &pair("p"), "anna", 0, 1).unwrap(), Kept::Yes(2), "seen, then changed");
        assert_eq!(grades(&one).len(), 2);
        assert!(one.put("d", &pair("p"), "anna", 3, 2).is_err(), "there is no grade 3");
    }

    #[test]
    fn one_of_many_writers_wins() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.sqlite");
        let kept: Vec<Kept> = std::thread::scope(|scope| {
            let write = |number: u8| {
                let path = &path;
                scope.spawn(move || Labels::open(path).unwrap().put("d", &pair("p"), "anna", number % 3, 0).unwrap())
            };
            let writers: Vec<_> = (0..9).map(write).collect();
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        let standing = grades(&Labels::open(&path).unwrap())[0].2;
        assert_eq!(kept.iter().filter(|kept| **kept == Kept::Yes(1)).count(), 3, "those who gave the winner's grade");
        let lost = Kept::Conflict { revision: 1, grade: standing };
        assert_eq!(kept.iter().filter(|kept| **kept == lost).count(), 6);
    }

    #[test]
    fn another_programs_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.sqlite");
        drop(crate::llm::Ledger::open(&path).unwrap());
        assert!(Labels::open(&path).unwrap_err().to_string().contains("an SQLite file, but no labels file"));
    }
}
