//! Alpaca-format files: a JSON array, or JSON Lines, of objects with `instruction`, `input` and `output`; plain or gzip.
//! A `language` (English if absent) and an `id` may stand beside them; whatever else does is left alone.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

use super::{Instruction, Provenance};
use crate::corpus::Language;
use crate::error::{Error, Result};
use crate::lines;

#[derive(Debug, Deserialize)]
struct Record {
    instruction: String,
    #[serde(default)]
    input: String,
    output: String,
    language: Option<Language>,
    id: Option<String>,
}

/// The language of a record that names none.
pub(super) fn english() -> Language {
    Language::new("en").expect("it is a tag")
}

/// Reads all instructions, trimmed, in the order of the file.
///
/// # Errors
/// A line, or a part of the array, that is no such object; an id that occurs twice in one language; no instruction at all.
pub(super) fn read(path: &Path) -> Result<Vec<Instruction>> {
    let text = lines::read(path)?;
    let records = if text.trim_start().starts_with('[') { array(path, &text)? } else { by_line(path, &text)? };
    if records.is_empty() {
        return Err(Error::file(path, "expected instructions in Alpaca's format, got none"));
    }
    let (mut seen, mut read) = (BTreeSet::new(), Vec::with_capacity(records.len()));
    for (line, record) in records {
        let instruction = record.instruction(line);
        let (id, language) = (&instruction.id, &instruction.language);
        if !seen.insert((id.clone(), language.clone())) {
            return Err(Error::line(path, line, format!("the id `{id}` occurs twice in `{language}`; number it anew")));
        }
        read.push(instruction);
    }
    Ok(read)
}

/// The elements of an array, each with its number.
fn array(path: &Path, text: &str) -> Result<Vec<(u64, Record)>> {
    let records: Vec<Record> =
        serde_json::from_str(text).map_err(|error| Error::line(path, error.line() as u64, expected(&error)))?;
    Ok((1..).zip(records).collect())
}

fn by_line(path: &Path, text: &str) -> Result<Vec<(u64, Record)>> {
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let parse = |(number, line): (u64, &str)| {
        let record = serde_json::from_str(line).map_err(|error| Error::line(path, number, expected(&error)))?;
        Ok((number, record))
    };
    lines.map(parse).collect()
}

fn expected(error: &serde_json::Error) -> String {
    format!("expected an object with `instruction`, `input` and `output` as Alpaca has them: {error}")
}

impl Record {
    fn instruction(self, line: u64) -> Instruction {
        // Alpaca's own spelling of nothing.
        let text = |text: String| match text.trim() {
            "<noinput>" | "<nooutput>" => String::new(),
            text => text.to_owned(),
        };
        Instruction {
            id: self.id.unwrap_or_else(|| line.to_string()),
            language: self.language.unwrap_or_else(english),
            instruction: text(self.instruction),
            input: text(self.input),
            output: text(self.output),
            provenance: Provenance::Given { line },
            validation: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Vec<Instruction>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("alpaca.json");
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    #[test]
    fn arrays_and_lines_are_read_alike() {
        let first = r#"{"instruction": " Summarise. ", "input": "<noinput>", "output": "x", "sources": ["a"]}"#;
        let second = r#"{"instruction": "Fupisha.", "input": "y", "output": "x", "language": "sw", "id": "7"}"#;
        let lines = read_text(&format!("{first}\n\n{second}\n")).unwrap();
        let array = read_text(&format!("[{first},\n {second}]")).unwrap();
        assert_eq!((lines[0].instruction.as_str(), lines[0].input.as_str()), ("Summarise.", ""));
        assert_eq!((lines[0].id.as_str(), lines[0].language.as_str()), ("1", "en"));
        assert_eq!((lines[1].id.as_str(), lines[1].language.as_str()), ("7", "sw"));
        assert_eq!(
            (&lines[1].provenance, &array[1].provenance),
            (&Provenance::Given { line: 3 }, &Provenance::Given { line: 2 })
        );
        assert_eq!(array[0], lines[0]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let good = r#"{"instruction": "a", "output": "b", "id": "1"}"#;
        for (text, expected) in [
            (format!("{good}\n{{\"instruction\": 3}}"), "alpaca.json:2: expected an object with `instruction`"),
            (format!("[{good},\n\n {{}}]"), "alpaca.json:3: "),
            (format!("{good}\n{good}"), "alpaca.json:2: the id `1` occurs twice in `en`"),
            ("[]".to_owned(), "expected instructions in Alpaca's format, got none"),
            (good.replace("\"id\"", "\"language\": \"E N\", \"id\""), "alpaca.json:1: "),
        ] {
            let message = read_text(&text).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
