//! Lines of a JSON Lines file that is mapped into memory: any line at once, none of them kept.

use std::path::Path;

use serde::Deserialize;

use crate::artefact::Artefact;
use crate::error::{Error, Result};
use crate::mapped::MappedFile;

/// A mapped JSON Lines file with the place of every line.
#[derive(Debug)]
pub(super) struct MappedLines {
    file: Option<MappedFile>,
    /// Where every line begins, and the end of the file.
    starts: Vec<u64>,
}

impl MappedLines {
    /// Maps a file of an artefact and finds its lines.
    pub(super) fn open(artefact: &Artefact, file: &str) -> Result<Self> {
        let path = artefact.path(file);
        if std::fs::metadata(&path).map_err(Error::io(&path))?.len() == 0 {
            return Ok(Self { file: None, starts: vec![0] });
        }
        let file = MappedFile::open(&path)?;
        let bytes = file.bytes();
        let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(place, _)| place as u64 + 1);
        let mut starts: Vec<u64> = std::iter::once(0).chain(ends).collect();
        if starts.last() != Some(&(bytes.len() as u64)) {
            starts.push(bytes.len() as u64);
        }
        Ok(Self { file: Some(file), starts })
    }

    /// The file if the artefact has it.
    pub(super) fn open_if_there(artefact: Option<&Artefact>, file: &str) -> Result<Option<Self>> {
        artefact.filter(|artefact| artefact.has(file)).map(|artefact| Self::open(artefact, file)).transpose()
    }

    /// Number of lines.
    pub(super) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Line `number`, from 0, read as `T`, which may borrow from the file.
    pub(super) fn read<'a, T: Deserialize<'a>>(&'a self, number: usize) -> Result<T> {
        let file = self.file.as_ref().ok_or_else(|| Error::data("an empty file has no lines"))?;
        let bytes = &file.bytes()[self.starts[number] as usize..self.starts[number + 1] as usize];
        serde_json::from_slice(bytes).map_err(|error| Error::line(file.path(), number as u64 + 1, error.to_string()))
    }

    /// Where the file lies, for errors.
    pub(super) fn path(&self) -> &Path {
        self.file.as_ref().map_or(Path::new("an empty file"), MappedFile::path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artefact::Recipe;
    use crate::topic::fixture::write;

    #[test]
    fn lines_are_read_at_any_place_and_named_in_errors() {
        let folder = tempfile::tempdir().unwrap();
        let artefact = write(&folder.path().join("a"), Recipe::new("x", 1, &()).unwrap(), |draft| {
            draft.write_lines("x.jsonl", ["one", "zwei", "ثلاثة"]).unwrap();
            draft.write_lines::<u32>("empty.jsonl", []).unwrap();
        });
        let lines = MappedLines::open(&artefact, "x.jsonl").unwrap();
        assert_eq!((lines.len(), lines.read::<&str>(2).unwrap(), lines.read::<&str>(0).unwrap()), (3, "ثلاثة", "one"));
        assert!(lines.read::<u32>(1).unwrap_err().to_string().contains("x.jsonl:2: invalid type"));
        assert_eq!(MappedLines::open(&artefact, "empty.jsonl").unwrap().len(), 0);
        assert!(MappedLines::open_if_there(Some(&artefact), "none.jsonl").unwrap().is_none());
    }
}
