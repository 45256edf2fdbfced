//! Passages of one language: reading is random access over a mapped file, so memory does not grow with the corpus.
//!
//! The file `passages.bin` holds, little endian: the magic `MLPASS01`; the bytes of every passage's id, title and text
//! in input order; padding to 8 bytes; 3 n + 1 offsets (u64) into the file; the n passages in ascending order of id
//! (u32), which serves breaking ties; and the footer n, position of the offsets, magic.

use std::fs::File;
use std::hash::BuildHasher;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::mapped::MappedFile;

const MAGIC: &[u8; 8] = b"MLPASS01";

/// A language by its BCP 47 tag in lower case, such as `sw` or `zh`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Language(Box<str>);

impl Language {
    /// Checks that `tag` is made of lower-case letters, digits and hyphens.
    pub fn new(tag: &str) -> Result<Self> {
        let valid = !tag.is_empty()
            && tag.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if valid {
            Ok(Self(tag.into()))
        } else {
            Err(Error::config(format!("`{tag}`: expected a language tag such as `sw`")))
        }
    }

    /// The tag.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Language {
    type Error = Error;
    fn try_from(tag: String) -> Result<Self> {
        Self::new(&tag)
    }
}

impl From<Language> for String {
    fn from(language: Language) -> Self {
        language.0.into()
    }
}

impl std::fmt::Display for Language {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(&self.0)
    }
}

/// The English name of a language of MIRACL with its tag, or the tag alone.
pub fn language_name(language: &Language) -> String {
    let tag = language.as_str();
    let name = match tag {
        "ar" => "Arabic",
        "bn" => "Bengali",
        "de" => "German",
        "en" => "English",
        "es" => "Spanish",
        "fa" => "Persian",
        "fi" => "Finnish",
        "fr" => "French",
        "hi" => "Hindi",
        "id" => "Indonesian",
        "ja" => "Japanese",
        "ko" => "Korean",
        "ru" => "Russian",
        "sw" => "Swahili",
        "te" => "Telugu",
        "th" => "Thai",
        "yo" => "Yoruba",
        "zh" => "Chinese",
        _ => return tag.to_owned(),
    };
    format!("{name} ({tag})")
}

/// The position of a passage in its corpus, from 0. Never mixed between corpora.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct PassageIndex(pub u32);

impl PassageIndex {
    /// As a subscript.
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// A passage, borrowed from its corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passage<'a> {
    /// The id in the user's files.
    pub id: &'a str,
    /// The title; empty where there is none.
    pub title: &'a str,
    /// The body.
    pub text: &'a str,
}

impl Passage<'_> {
    /// Title and text with `separator` between them, or the text alone where there is no title.
    pub fn joined(&self, separator: &str) -> String {
        if self.title.is_empty() { self.text.to_owned() } else { [self.title, self.text].join(separator) }
    }
}

/// The passages of one language.
#[derive(Debug)]
pub struct Corpus {
    file: MappedFile,
    len: usize,
    offsets: usize,
    /// A hash table of the ids, made when the first one is looked up: 8 to 16 bytes a passage.
    slots: OnceLock<Box<[u32]>>,
}

/// A slot of the hash table that holds no passage.
const EMPTY: u32 = u32::MAX;

impl Corpus {
    /// Maps a file that [`CorpusWriter`] wrote.
    ///
    /// # Errors
    /// The file is no corpus, truncated, or holds text that is not UTF-8.
    pub fn open(path: &Path) -> Result<Self> {
        let file = MappedFile::open(path)?;
        let bytes = file.bytes();
        let broken = || Error::file(path, "not a passage file, or truncated; fetch the data set again");
        let footer = bytes.len().checked_sub(24).ok_or_else(broken)?;
        if &bytes[..8] != MAGIC || &bytes[footer + 16..] != MAGIC {
            return Err(broken());
        }
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes")) as usize;
        let (len, offsets) = (number(footer), number(footer + 8));
        let corpus = Self { file, len, offsets, slots: OnceLock::new() };
        let tables = corpus.file.values::<u64>(offsets, 3 * len + 1)?;
        corpus.file.values::<u32>(offsets + 8 * (3 * len + 1), len)?;
        if !tables.is_sorted() || tables.last().is_some_and(|end| *end as usize > offsets) {
            return Err(broken());
        }
        Ok(corpus)
    }

    /// Number of passages.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no passage.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Passage `index`.
    pub fn passage(&self, index: PassageIndex) -> Passage<'_> {
        Passage {
            id: self.field(3 * index.at()),
            title: self.field(3 * index.at() + 1),
            text: self.field(3 * index.at() + 2),
        }
    }

    /// The id of passage `index`.
    pub fn id(&self, index: PassageIndex) -> &str {
        self.field(3 * index.at())
    }

    /// All passages in input order.
    pub fn iter(&self) -> impl Iterator<Item = Passage<'_>> {
        self.indices().map(|index| self.passage(index))
    }

    /// All positions, in order.
    pub fn indices(&self) -> impl Iterator<Item = PassageIndex> + use<> {
        (0..self.len as u32).map(PassageIndex)
    }

    /// The passage with this id.
    pub fn find(&self, id: &str) -> Option<PassageIndex> {
        let slots = self.slots.get_or_init(|| self.fill_slots());
        let found = probe(slots, id.as_bytes()).map(|slot| slots[slot]);
        found
            .take_while(|index| *index != EMPTY)
            .find(|index| self.bytes(3 * *index as usize) == id.as_bytes())
            .map(PassageIndex)
    }

    fn fill_slots(&self) -> Box<[u32]> {
        let mut slots = vec![EMPTY; (2 * self.len).next_power_of_two()].into_boxed_slice();
        for index in 0..self.len as u32 {
            let free = probe(&slots, self.bytes(3 * index as usize)).find(|slot| slots[*slot] == EMPTY);
            slots[free.expect("half of the slots stay empty")] = index;
        }
        slots
    }

    /// For every passage its place in the ascending byte order of ids: compares like the ids, but fast. n values.
    pub fn id_ranks(&self) -> Vec<u32> {
        let mut ranks = vec![0; self.len];
        for (rank, index) in self.order().iter().enumerate() {
            ranks[*index as usize] = rank as u32;
        }
        ranks
    }

    fn order(&self) -> &[u32] {
        self.file.values(self.offsets + 8 * (3 * self.len + 1), self.len).expect("checked when opened")
    }

    fn field(&self, number: usize) -> &str {
        let bytes = self.bytes(number);
        std::str::from_utf8(bytes).expect("the writer takes only UTF-8, and the file's hash was checked")
    }

    /// A field without the check for UTF-8, which costs more than a comparison.
    fn bytes(&self, number: usize) -> &[u8] {
        let ends: &[u64] = self.file.values(self.offsets + 8 * number, 2).expect("checked when opened");
        &self.file.bytes()[ends[0] as usize..ends[1] as usize]
    }
}

/// Writes the passages of one language in one pass.
pub struct CorpusWriter<'a> {
    output: &'a mut BufWriter<File>,
    path: &'a Path,
    position: u64,
    offsets: Vec<u64>,
    ids: Vec<Box<str>>,
}

impl<'a> CorpusWriter<'a> {
    /// Begins a file; `path` is named in errors.
    pub fn new(output: &'a mut BufWriter<File>, path: &'a Path) -> Result<Self> {
        output.write_all(MAGIC).map_err(Error::io(path))?;
        Ok(Self { output, path, position: 8, offsets: vec![8], ids: Vec::new() })
    }

    /// Appends a passage.
    pub fn push(&mut self, passage: Passage<'_>) -> Result<()> {
        for field in [passage.id, passage.title, passage.text] {
            self.output.write_all(field.as_bytes()).map_err(Error::io(self.path))?;
            self.position += field.len() as u64;
            self.offsets.push(self.position);
        }
        self.ids.push(passage.id.into());
        Ok(())
    }

    /// Writes the tables and returns the number of passages.
    ///
    /// # Errors
    /// Two passages have the same id; more than 2³² − 1 passages.
    pub fn finish(self) -> Result<u64> {
        let len = u32::try_from(self.ids.len())
            .map_err(|_| Error::file(self.path, "more than 4,294,967,295 passages; split the corpus"))?;
        let mut order: Vec<u32> = (0..len).collect();
        order.sort_unstable_by(|a, b| self.ids[*a as usize].cmp(&self.ids[*b as usize]));
        if let Some(pair) = order.windows(2).find(|pair| self.ids[pair[0] as usize] == self.ids[pair[1] as usize]) {
            let id = &self.ids[pair[0] as usize];
            let (first, second) = (pair[0].min(pair[1]) + 1, pair[0].max(pair[1]) + 1);
            return Err(Error::data(format!("passages {first} and {second} have the same id `{id}`; make ids unique")));
        }
        let padding = self.position.next_multiple_of(8) - self.position;
        let mut write = |bytes: &[u8]| self.output.write_all(bytes).map_err(Error::io(self.path));
        write(&[0; 8][..padding as usize])?;
        write(bytemuck::cast_slice(&self.offsets))?;
        write(bytemuck::cast_slice(&order))?;
        write(&u64::from(len).to_le_bytes())?;
        write(&(self.position + padding).to_le_bytes())?;
        write(MAGIC)?;
        Ok(u64::from(len))
    }
}

/// The slots where an id may stand, in the order in which they are tried.
fn probe(slots: &[u32], id: &[u8]) -> impl Iterator<Item = usize> + use<> {
    let (first, mask) = (foldhash::fast::FixedState::default().hash_one(id) as usize, slots.len() - 1);
    (0..slots.len()).map(move |step| (first + step) & mask)
}

/// A corpus in a temporary file, for the tests of every room.
#[cfg(test)]
pub(crate) fn corpus_of(passages: &[(&str, &str, &str)]) -> Corpus {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passages.bin");
    crate::artefact::write_whole(&path, |output| {
        let mut writer = CorpusWriter::new(output, &path)?;
        for (id, title, text) in passages {
            writer.push(Passage { id, title, text })?;
        }
        writer.finish()
    })
    .unwrap();
    Corpus::open(&path).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passages_come_back_by_position_and_by_id() {
        let corpus = corpus_of(&[("b", "Title", "text"), ("a#2", "", "ありがとう"), ("a#10", "T", "x")]);
        assert_eq!(corpus.len(), 3);
        assert_eq!(corpus.passage(PassageIndex(1)), Passage { id: "a#2", title: "", text: "ありがとう" });
        assert_eq!(corpus.find("a#10"), Some(PassageIndex(2)));
        assert_eq!(corpus.find("c"), None);
        let ids: Vec<String> = (0..1000).map(|number| format!("doc{number}")).collect();
        let many = corpus_of(&ids.iter().map(|id| (id.as_str(), "", "")).collect::<Vec<_>>());
        assert!((0..).zip(&ids).all(|(index, id)| many.find(id) == Some(PassageIndex(index))));
        assert_eq!(many.find("doc1000"), None);
        assert_eq!(corpus_of(&[]).find("a"), None);
        assert_eq!(corpus.id_ranks(), [2, 1, 0]);
        assert_eq!(corpus.passage(PassageIndex(0)).joined(" "), "Title text");
    }

    #[test]
    fn an_empty_corpus_and_a_truncated_file() {
        assert!(corpus_of(&[]).is_empty());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, b"MLPASS01 and then nothing").unwrap();
        assert!(Corpus::open(&path).unwrap_err().to_string().contains("truncated"));
    }

    #[test]
    fn a_repeated_id_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let error = crate::artefact::write_whole(&path, |output| {
            let mut writer = CorpusWriter::new(output, &path)?;
            writer.push(Passage { id: "a", title: "", text: "x" })?;
            writer.push(Passage { id: "a", title: "", text: "y" })?;
            writer.finish()
        });
        assert!(error.unwrap_err().to_string().contains("same id `a`"));
    }
}
