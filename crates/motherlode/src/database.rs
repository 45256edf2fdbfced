//! `SQLite` files that processes share: written ahead (WAL), and told apart by what the program that made them left in
//! their head.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

use crate::error::{Error, Result};

const PATIENCE: Duration = Duration::from_mins(1);

/// What a file holds.
pub(crate) struct Schema {
    /// In words, such as `ledger`.
    pub(crate) what: &'static str,
    /// Tells it from other `SQLite` files: four letters.
    pub(crate) application: i64,
    /// Its version.
    pub(crate) format: i64,
    /// The statement that makes its table.
    pub(crate) table: &'static str,
    /// `NORMAL`: a commit survives the process; `FULL`: also a loss of power.
    pub(crate) synchronous: &'static str,
}

/// Opens the file, or makes an empty one.
///
/// # Errors
/// The file holds something else, or is of a newer version of the program.
pub(crate) fn open(path: &Path, schema: &Schema) -> Result<Connection> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let mut connection = Connection::open(path).map_err(failed(path))?;
    connection.busy_timeout(PATIENCE).map_err(failed(path))?;
    prepare(&mut connection, path, schema)?;
    Ok(connection)
}

/// Names the file in an error of `SQLite`.
pub(crate) fn failed(path: &Path) -> impl FnOnce(rusqlite::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Ledger { path, source }
}

/// Checks or makes the table. Two processes may do so at once: the switch to WAL then fails without waiting, so it is
/// tried again here.
fn prepare(connection: &mut Connection, path: &Path, schema: &Schema) -> Result<()> {
    let started = Instant::now();
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error) if is_busy(&error) && started.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            result => break result.map_err(failed(path))?,
        }
    }
    connection.pragma_update(None, "synchronous", schema.synchronous).map_err(failed(path))?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed(path))?;
    let pragma = |name: &str| transaction.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let tables = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
    let application = pragma("application_id").map_err(failed(path))?;
    let format = pragma("user_version").map_err(failed(path))?;
    let tables = transaction.query_row("SELECT count(*) FROM sqlite_master", [], tables).map_err(failed(path))?;
    let Schema { what, .. } = schema;
    match (application == schema.application, format == schema.format) {
        (true, true) => Ok(()),
        (true, false) => {
            let expected = schema.format;
            Err(Error::file(path, format!("expected a {what} of format {expected}, got {format}; use a newer program")))
        }
        (false, _) if (application, format, tables) == (0, 0, 0) => create(transaction, schema).map_err(failed(path)),
        (false, _) => Err(Error::file(path, format!("an SQLite file, but no {what}; name another file"))),
    }
}

fn create(transaction: Transaction<'_>, schema: &Schema) -> rusqlite::Result<()> {
    transaction.execute(schema.table, [])?;
    transaction.pragma_update(None, "application_id", schema.application)?;
    transaction.pragma_update(None, "user_version", schema.format)?;
    transaction.commit()
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}
