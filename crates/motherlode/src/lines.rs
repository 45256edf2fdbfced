//! Lines of text files, plain or gzip, one or many gzip members, with line numbers in every error.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use rayon::prelude::*;

use crate::error::{Error, Result};

/// Bytes that are read before they are handed on to be parsed on all threads.
const BLOCK: u64 = 32 << 20;

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

/// The JSON of a file.
pub fn json(path: &Path) -> Result<serde_json::Value> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    serde_json::from_str(&text).map_err(|error| Error::file(path, format!("expected JSON: {error}")))
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

/// Calls `visit` with blocks of whole lines and the number of their first line, from 1.
///
/// # Errors
/// As of [`for_each`].
pub fn for_each_block(path: &Path, mut visit: impl FnMut(u64, &str) -> Result<()>) -> Result<()> {
    let mut reader = open(path)?;
    let (mut bytes, mut number) = (Vec::new(), 1);
    loop {
        bytes.clear();
        let read = reader.by_ref().take(BLOCK).read_to_end(&mut bytes);
        let read = read.and_then(|_| reader.read_until(b'\n', &mut bytes));
        read.map_err(|error| Error::line(path, number + newlines(&bytes), unreadable(&error)))?;
        if bytes.is_empty() {
            return Ok(());
        }
        let text = utf8(path, number, &bytes)?;
        visit(number, if number == 1 { text.trim_start_matches('\u{feff}') } else { text })?;
        number += newlines(&bytes);
    }
}

/// The whole text of a file, without its byte order mark.
///
/// # Errors
/// As of [`for_each`].
pub fn read(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    let read = open(path)?.read_to_end(&mut bytes);
    read.map_err(|error| Error::line(path, 1 + newlines(&bytes), unreadable(&error)))?;
    utf8(path, 1, &bytes)?;
    let text = String::from_utf8(bytes).expect("checked before");
    match text.strip_prefix('\u{feff}') {
        Some(rest) => Ok(rest.to_owned()),
        None => Ok(text),
    }
}

/// Lines that are not blank, with their numbers within a part of a text, from 0.
pub type Lines<'a, 't> = &'t mut dyn Iterator<Item = (u64, &'a str)>;

/// Parses parts of whole lines on all threads and gives their results in the order of the text.
///
/// `text` begins at line `first` of `path`. An error of `parse` is the number of a line, as [`Lines`] gave it, and what
/// is wrong there; of several the first counts.
pub fn parse_parts<'a, T: Send>(
    path: &Path,
    first: u64,
    text: &'a str,
    parse: impl Fn(Lines<'a, '_>) -> std::result::Result<T, (u64, String)> + Sync,
) -> Result<Vec<T>> {
    let parts = split_at_lines(text, rayon::current_num_threads() * 4);
    let parsed: Vec<_> = parts.par_iter().map(|&part| parse(&mut lines(part))).collect();
    let (mut before, mut results) = (first, Vec::with_capacity(parts.len()));
    for (part, result) in parts.iter().zip(parsed) {
        results.push(result.map_err(|(number, message)| Error::line(path, before + number, message))?);
        before += newlines(part.as_bytes());
    }
    Ok(results)
}

fn lines(text: &str) -> impl Iterator<Item = (u64, &str)> {
    (0..).zip(text.split('\n')).filter(|(_, line)| !line.trim_ascii().is_empty())
}

/// Cuts a text into at most `count` parts of whole lines.
fn split_at_lines(mut text: &str, count: usize) -> Vec<&str> {
    let size = text.len() / count + 1;
    let mut parts = Vec::new();
    while text.len() > size {
        let Some(end) = text.as_bytes()[size..].iter().position(|byte| *byte == b'\n') else { break };
        let (part, rest) = text.split_at(size + end + 1);
        parts.push(part);
        text = rest;
    }
    parts.push(text);
    parts
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.split(|byte| *byte == b'\n').count() as u64 - 1
}

/// The text of bytes that begin at a line; an error names the line that is not UTF-8.
fn utf8<'a>(path: &Path, number: u64, bytes: &'a [u8]) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|error| {
        let line = number + newlines(&bytes[..error.valid_up_to()]);
        Error::line(path, line, "not UTF-8; convert the file to UTF-8")
    })
}

fn unreadable(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "the gzip file is truncated; get it again".to_owned(),
        _ => format!("cannot be read ({error}); if it is a gzip file, get it again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    /// Numbers of lines by their texts, through `parse_parts`.
    fn numbered(path: &Path, first: u64, text: &str) -> Result<Vec<(u64, String)>> {
        let parse = |lines: Lines<'_, '_>| {
            let line = |(number, line): (u64, &str)| match line.trim_end() {
                "bad" => Err((number, "bad line".to_owned())),
                good => Ok(good.to_owned()),
            };
            lines.map(line).collect::<std::result::Result<Vec<String>, _>>()
        };
        let parts = parse_parts(path, first, text, parse)?;
        Ok((first..).zip(parts.into_iter().flatten()).collect())
    }

    #[test]
    fn parts_keep_their_order_and_errors_their_lines() {
        let mut text = String::new();
        (1..=1000).for_each(|number| writeln!(text, "line {number}\r").unwrap());
        let path = Path::new("x.txt");
        let lines = numbered(path, 1, &text).unwrap();
        assert_eq!(lines.len(), 1000);
        assert!(lines.iter().all(|(number, line)| *line == format!("line {number}")));
        let message = numbered(path, 51, &(text.clone() + "\nbad\nbad\n" + &text)).unwrap_err().to_string();
        assert_eq!(message, "x.txt:1052: bad line");
        assert!(numbered(path, 1, "").unwrap().is_empty());
    }

    #[test]
    fn blocks_and_whole_texts_are_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.txt");
        std::fs::write(&path, "\u{feff}a\nb").unwrap();
        let mut blocks = Vec::new();
        for_each_block(&path, |number, text| {
            blocks.push((number, text.to_owned()));
            Ok(())
        })
        .unwrap();
        assert_eq!(blocks, [(1, "a\nb".to_owned())]);
        assert_eq!(read(&path).unwrap(), "a\nb");
        std::fs::write(&path, b"a\nb\n\xff").unwrap();
        for message in [read(&path).unwrap_err(), for_each_block(&path, |_, _| Ok(())).unwrap_err()] {
            assert!(message.to_string().contains("x.txt:3: not UTF-8"), "{message}");
        }
    }
}
