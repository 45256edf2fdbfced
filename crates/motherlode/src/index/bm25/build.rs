//! From a corpus to the file of its index: stretches are inverted in parallel and set aside, then merged term by term.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::Bm25Config;
use super::file::{HEADER, MAGIC, Numbers, PASSAGE, WEIGHT, block_bytes, table_bytes, windows_in};
use super::impact::{Impacts, windows_of};
use super::invert::{Entry, Inverted};
use crate::corpus::Corpus;
use crate::error::{Error, Result};
use crate::mapped::MappedFile;
use crate::progress::Progress;
use crate::text::analyse::Analyser;

/// Memory of a thread below which no stretch is worth while.
const LEAST_MEMORY: usize = 1 << 20;
/// Parts of the corpus for each thread, so that all end at about the same time.
const PARTS: usize = 4;

/// What an index is built from.
pub(super) struct Build<'a> {
    pub(super) corpus: &'a Corpus,
    pub(super) analyser: &'a Analyser,
    pub(super) config: &'a Bm25Config,
    /// A folder for what is set aside.
    pub(super) scratch: &'a Path,
    pub(super) progress: &'a Progress<'a>,
}

/// A stretch of the corpus that is inverted and set aside.
struct Stretch {
    path: PathBuf,
    tokens: u64,
    counted: u64,
}

impl Build<'_> {
    /// Writes the index; neither threads nor memory change a byte of it.
    pub(super) fn write(&self, output: &mut BufWriter<File>, path: &Path) -> Result<()> {
        let stretches: Vec<Vec<Stretch>> = self
            .parts()
            .into_par_iter()
            .enumerate()
            .with_max_len(1)
            .map(|(number, range)| self.set_aside(number, range))
            .collect::<Result<_>>()?;
        let stretches: Vec<Stretch> = stretches.into_iter().flatten().collect();
        let name = self.analyser.name();
        let mut numbers = Numbers {
            passages: self.corpus.len() as u64,
            counted: stretches.iter().map(|stretch| stretch.counted).sum(),
            tokens: stretches.iter().map(|stretch| stretch.tokens).sum(),
            k1: self.config.k1,
            b: self.config.b,
            name_bytes: name.len() as u64,
            ..Numbers::default()
        };
        let mut sections = Sections { output, path, length: 0 };
        sections.finish(&[0; HEADER])?;
        let directory = self.merge(&stretches, &numbers, &mut sections)?;
        numbers.terms = directory.term_ends.length as u64 / 8;
        numbers.term_bytes = directory.terms.length as u64;
        numbers.posting_bytes = directory.posting_bytes;
        sections.finish(name.as_bytes())?;
        sections.take(directory.terms)?;
        sections.take(directory.term_ends)?;
        sections.take(directory.posting_ends)?;
        sections.put_header(&numbers)
    }

    /// Parts of the corpus with as many passages each.
    fn parts(&self) -> Vec<Range<usize>> {
        let passages = self.corpus.len();
        let size = passages.div_ceil(PARTS * rayon::current_num_threads()).max(1);
        (0..passages).step_by(size).map(|start| start..passages.min(start + size)).collect()
    }

    /// Inverts a part of the corpus in as many stretches as a thread's share of the memory makes of it.
    fn set_aside(&self, number: usize, part: Range<usize>) -> Result<Vec<Stretch>> {
        let memory = (self.config.memory / rayon::current_num_threads()).max(LEAST_MEMORY);
        let (mut rest, mut stretches) = (part, Vec::new());
        while !rest.is_empty() {
            let (start, path) = (rest.start, self.scratch.join(format!("{number}.{}.stretch", stretches.len())));
            let inverted = Inverted::of(self.corpus, self.analyser, &mut rest, memory);
            inverted.write(&path)?;
            self.progress.advance(rest.start - start);
            stretches.push(Stretch { path, tokens: inverted.tokens, counted: inverted.counted });
        }
        Ok(stretches)
    }

    /// Writes the postings of all stretches, term by term, and removes the stretches.
    fn merge(&self, stretches: &[Stretch], numbers: &Numbers, sections: &mut Sections<'_>) -> Result<Directory> {
        let files: Vec<MappedFile> =
            stretches.iter().map(|stretch| MappedFile::open(&stretch.path)).collect::<Result<_>>()?;
        let mut rests: Vec<&[u8]> = files.iter().map(MappedFile::bytes).collect();
        let mut heap = BinaryHeap::new();
        for (stretch, rest) in rests.iter_mut().enumerate() {
            heap.extend(Entry::next(rest, stretch).map(Reverse));
        }
        let (mut directory, impacts) = (Directory::new(self.scratch)?, Impacts::new(numbers));
        let (windows, mut group) = (windows_in(numbers.passages), Vec::new());
        while let Some(Reverse(first)) = heap.pop() {
            let term = first.term;
            group.push(first);
            while heap.peek().is_some_and(|Reverse(next)| next.term == term) {
                group.extend(heap.pop().map(|Reverse(next)| next));
            }
            for entry in &group {
                heap.extend(Entry::next(&mut rests[entry.stretch], entry.stretch).map(Reverse));
            }
            let bytes = sections.put_postings(&group, windows, &impacts)?;
            directory.push(term, bytes as u64)?;
            group.clear();
        }
        sections.finish(&[])?;
        drop(files);
        stretches
            .iter()
            .try_for_each(|stretch| std::fs::remove_file(&stretch.path).map_err(Error::io(&stretch.path)))?;
        Ok(directory)
    }
}

/// All terms in byte order, and where they and their postings end: sections that are set aside.
struct Directory {
    terms: Aside,
    term_ends: Aside,
    posting_ends: Aside,
    posting_bytes: u64,
}

impl Directory {
    fn new(scratch: &Path) -> Result<Self> {
        let section = |name| Aside::new(scratch.join(name));
        let (terms, term_ends, posting_ends) = (section("terms")?, section("term-ends")?, section("posting-ends")?);
        Ok(Self { terms, term_ends, posting_ends, posting_bytes: 0 })
    }

    fn push(&mut self, term: &[u8], posting_bytes: u64) -> Result<()> {
        self.posting_bytes += posting_bytes;
        self.terms.put(term)?;
        self.term_ends.put(&(self.terms.length as u64).to_le_bytes())?;
        self.posting_ends.put(&self.posting_bytes.to_le_bytes())
    }
}

/// A section in a scratch file.
struct Aside {
    output: BufWriter<File>,
    path: PathBuf,
    length: usize,
}

impl Aside {
    fn new(path: PathBuf) -> Result<Self> {
        let file = File::create(&path).map_err(Error::io(&path))?;
        Ok(Self { output: BufWriter::new(file), path, length: 0 })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.length += bytes.len();
        self.output.write_all(bytes).map_err(Error::io(&self.path))
    }
}

/// Writes sections one after the other, each padded to 8 bytes.
struct Sections<'a> {
    output: &'a mut BufWriter<File>,
    path: &'a Path,
    length: usize,
}

impl Sections<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.length += bytes.len();
        self.output.write_all(bytes).map_err(Error::io(self.path))
    }

    /// Puts the postings of a term, of all stretches; returns their bytes.
    fn put_postings(&mut self, group: &[Entry<'_>], windows: usize, impacts: &Impacts) -> Result<usize> {
        let count = group.iter().map(Entry::len).sum();
        if table_bytes(count, windows) > 0 {
            let (ends, highest) = windows_of(group.iter().flat_map(Entry::postings), windows, impacts);
            self.put(bytemuck::cast_slice(&ends))?;
            self.put(bytemuck::cast_slice(&highest))?;
        }
        group.iter().try_for_each(|entry| self.put(entry.passages))?;
        group.iter().try_for_each(|entry| self.put(entry.weights))?;
        self.put(&[0; PASSAGE][..count * WEIGHT % PASSAGE])?;
        Ok(block_bytes(count, windows))
    }

    fn finish(&mut self, bytes: &[u8]) -> Result<()> {
        self.put(bytes)?;
        self.put(&[0; 8][..self.length.next_multiple_of(8) - self.length])
    }

    /// Puts a section that was set aside, and removes its file.
    fn take(&mut self, section: Aside) -> Result<()> {
        let Aside { mut output, path, length } = section;
        output.flush().map_err(Error::io(&path))?;
        let mut file = File::open(&path).map_err(Error::io(&path))?;
        std::io::copy(&mut file, self.output).map_err(Error::io(self.path))?;
        self.length += length;
        self.finish(&[])?;
        std::fs::remove_file(&path).map_err(Error::io(&path))
    }

    /// Puts the header in its place at the front.
    fn put_header(&mut self, numbers: &Numbers) -> Result<()> {
        self.output.seek(SeekFrom::Start(0)).map_err(Error::io(self.path))?;
        self.put(MAGIC)?;
        self.put(bytemuck::cast_slice(&numbers.to_array()))
    }
}
