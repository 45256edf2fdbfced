//! The one error type of the library: fields, not prose, so that a caller can tell what went wrong and where.
//!
//! Messages are lower case, name the file and line where there is one, and end with a remedy where one is known.

use std::path::{Path, PathBuf};

/// What every fallible function of the library returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line of an input file is not what its format demands.
    #[error("{}:{line}: {message}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What was expected, what stands there, and the remedy.
        message: String,
    },
    /// A whole file or folder is not what was expected.
    #[error("{}: {message}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What was expected, what was found, and the remedy.
        message: String,
    },
    /// A configuration value is unknown, of the wrong type, out of range, or contradicts another.
    #[error("configuration: {message}")]
    Config {
        /// The key, what it takes, and the nearest valid name where the key is unknown.
        message: String,
    },
    /// Two things that must agree in shape do not.
    #[error("{what}: expected {expected}, got {got}")]
    Shape {
        /// The tensor, matrix or list.
        what: String,
        /// The shape it should have.
        expected: String,
        /// The shape it has.
        got: String,
    },
    /// The data does not allow what was asked of it.
    #[error("{message}")]
    Data {
        /// What is missing or contradictory, and the remedy.
        message: String,
    },
    /// A language model server, a model hub or a package mirror did not do what was asked.
    #[error("{url}: {message}")]
    Remote {
        /// The address, without credentials.
        url: String,
        /// What it answered, and the remedy.
        message: String,
    },
    /// The ledger could not be read or written.
    #[error("{}: {source}", path.display())]
    Ledger {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

impl Error {
    /// Wraps an operating-system error with the path it happened on; made for `map_err(Error::io(path))`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { path, source }
    }

    /// An error at one line, counted from 1.
    pub fn line(path: impl AsRef<Path>, line: u64, message: impl Into<String>) -> Self {
        Self::Line { path: path.as_ref().to_path_buf(), line, message: message.into() }
    }

    /// An error of a whole file or folder.
    pub fn file(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Self::File { path: path.as_ref().to_path_buf(), message: message.into() }
    }

    /// An error in a configuration.
    pub fn config(message: impl Into<String>) -> Self {
        Self::Config { message: message.into() }
    }

    /// A mismatch of shapes.
    pub fn shape(what: impl Into<String>, expected: impl std::fmt::Display, got: impl std::fmt::Display) -> Self {
        Self::Shape { what: what.into(), expected: expected.to_string(), got: got.to_string() }
    }

    /// Data that does not allow what was asked of it.
    pub fn data(message: impl Into<String>) -> Self {
        Self::Data { message: message.into() }
    }

    /// A remote service that failed; `url` must not hold credentials.
    pub fn remote(url: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Remote { url: url.into(), message: message.into() }
    }
}
