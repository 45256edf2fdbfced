//! Lines of text files, plain or gzip, one or many gzip members, with line numbers in every error.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use crate::error::{Error, Result};

/// Opens a file for reading; a name ending in `.gz` is unpacked, all members of it.
pub fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    let file = BufReader::with_capacity(1 << 20, File::open(path).map_err(Error::io(path))?);
    let reader: Box<dyn Read> = if path.extension().is_some_and(|extension| extension == "gz") {
        Box::new(flate2::bufread::MultiGzDecoder::new(file))
    } else {
        Box::new(file)
    };
    Ok(Box::new(BufReader::with_capacity(1 << 20, reader)))
}

/// Calls `visit` with the number (from 1) and text of every line that is not blank.
///
/// # Errors
/// A truncated or damaged gzip file, bytes that are not UTF-8, and whatever `visit` returns.
pub fn for_each(path: &Path, mut visit: impl FnMut(u64, &str) -> Result<()>) -> Result<()> {
    let mut reader = open(path)?;
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        let read =
            reader.read_until(b'\n', &mut bytes).map_err(|error| Error::line(path, number, unreadable(&error)))?;
        if read == 0 {
            break;
        }
        let line = std::str::from_utf8(&bytes)
            .map_err(|error| Error::line(path, number, format!("{error}; convert the file to UTF-8")))?;
        let line = line.trim_end_matches(['\n', '\r']);
        let line = if number == 1 { line.trim_start_matches('\u{feff}') } else { line };
        if !line.trim().is_empty() {
            visit(number, line)?;
        }
    }
    Ok(())
}

fn unreadable(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "the gzip file is truncated; get it again".to_owned(),
        _ => format!("cannot be read ({error}); if it is a gzip file, get it again"),
    }
}
