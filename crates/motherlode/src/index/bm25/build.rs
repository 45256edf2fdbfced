//! From a corpus to the file of its index: stretches are inverted in parallel and set aside, then merged term by term.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::Bm25Config;
use super::file::{HEADER, MAGIC, Numbers, PASSAGE, WEIGHT, block_bytes};
use super::rounding::{round_frequency, round_length};
use crate::corpus::{Corpus, PassageIndex};
use crate::error::{Error, Result};
use crate::mapped::MappedFile;
use crate::progress::Progress;
use crate::text::analyse::Analyser;

/// Bytes of memory that a byte of text takes while it is inverted: postings in the order of reading and in that of terms,
/// words and their terms.
const MEMORY_PER_BYTE: usize = 6;
/// Bytes of text that are worth a stretch.
const SMALLEST_STRETCH: usize = 1 << 16;

/// What an index is built from.
pub(super) struct Build<'a> {
    pub(super) corpus: &'a Corpus,
    pub(super) analyser: &'a Analyser,
    pub(super) config: &'a Bm25Config,
    /// A folder for stretches that are set aside.
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
        let stretches: Vec<Range<usize>> = self.stretches();
        let stretches: Vec<Stretch> = stretches
            .into_par_iter()
            .enumerate()
            .map(|(number, range)| self.set_aside(number, range))
            .collect::<Result<_>>()?;
        let files: Vec<MappedFile> =
            stretches.iter().map(|stretch| MappedFile::open(&stretch.path)).collect::<Result<_>>()?;
        let name = self.analyser.name();
        let mut sections = Sections { output, path, length: 0 };
        sections.finish(&[0; HEADER])?;
        let directory = merge(&files, &mut sections)?;
        sections.finish(name.as_bytes())?;
        sections.finish(&directory.terms)?;
        sections.finish(bytemuck::cast_slice(&directory.term_ends))?;
        sections.finish(bytemuck::cast_slice(&directory.posting_ends))?;
        let sum = |of: fn(&Stretch) -> u64| stretches.iter().map(of).sum::<u64>();
        let numbers = Numbers {
            passages: self.corpus.len() as u64,
            counted: sum(|stretch| stretch.counted),
            terms: directory.term_ends.len() as u64,
            posting_bytes: directory.posting_ends.last().copied().unwrap_or_default(),
            tokens: sum(|stretch| stretch.tokens),
            k1: self.config.k1,
            b: self.config.b,
            name_bytes: name.len() as u64,
            term_bytes: directory.terms.len() as u64,
        };
        sections.put_header(&numbers)?;
        drop(files);
        stretches.iter().try_for_each(|stretch| std::fs::remove_file(&stretch.path).map_err(Error::io(&stretch.path)))
    }

    /// Stretches whose text fits the memory, one for each thread at a time; two for each thread where it is plenty.
    fn stretches(&self) -> Vec<Range<usize>> {
        let bytes = |index: usize| {
            let passage = self.corpus.passage(PassageIndex(index as u32));
            passage.title.len() + passage.text.len()
        };
        let threads = rayon::current_num_threads();
        let total: usize = (0..self.corpus.len()).into_par_iter().map(bytes).sum();
        let share = self.config.memory / (threads * MEMORY_PER_BYTE);
        let size = share.min(total.div_ceil(2 * threads)).max(SMALLEST_STRETCH);
        let (mut stretches, mut start, mut read) = (Vec::new(), 0, 0);
        for index in 0..self.corpus.len() {
            read += bytes(index);
            if read >= size {
                stretches.push(start..index + 1);
                (start, read) = (index + 1, 0);
            }
        }
        if start < self.corpus.len() {
            stretches.push(start..self.corpus.len());
        }
        stretches
    }

    fn set_aside(&self, number: usize, range: Range<usize>) -> Result<Stretch> {
        let count = range.len();
        let path = self.scratch.join(format!("{number}.stretch"));
        let inverted = self.invert(range);
        let mut output = BufWriter::new(File::create(&path).map_err(Error::io(&path))?);
        inverted.write(&mut output).and_then(|()| output.flush()).map_err(Error::io(&path))?;
        self.progress.advance(count);
        Ok(Stretch { path, tokens: inverted.tokens, counted: inverted.counted })
    }

    /// Analyses a stretch of the corpus and sorts its postings by counting.
    fn invert(&self, range: Range<usize>) -> Inverted {
        let mut vocabulary = Vocabulary::new(self.analyser);
        let mut postings: Vec<(u32, u32, u16)> = Vec::new();
        let (mut tokens, mut counted) = (0, 0);
        let mut terms = Vec::new();
        for index in range {
            let passage = self.corpus.passage(PassageIndex(index as u32));
            terms.clear();
            // Title, line break, text: no word reaches over a line break, so the two can be analysed one by one.
            for field in [passage.title, passage.text] {
                self.analyser.words(field, &mut |word| terms.extend(vocabulary.number(word)));
            }
            tokens += terms.len() as u64;
            counted += u64::from(!terms.is_empty());
            let length = u16::from(round_length(terms.len() as u32)) << 8;
            terms.sort_unstable();
            for group in terms.chunk_by(|a, b| a == b) {
                postings.push((group[0], index as u32, length | u16::from(round_frequency(group.len() as u32))));
            }
        }
        Inverted { tokens, counted, ..sort_by_term(vocabulary.terms, &postings) }
    }
}

type Map<V> = HashMap<Box<str>, V, foldhash::fast::RandomState>;

/// Numbers terms in order of first sight, and keeps what became of every word.
struct Vocabulary<'a> {
    analyser: &'a Analyser,
    keeps_words: bool,
    terms: Map<u32>,
    words: Map<Option<u32>>,
    letters: Vec<char>,
    term: String,
}

impl<'a> Vocabulary<'a> {
    fn new(analyser: &'a Analyser) -> Self {
        let (terms, words) = (Map::default(), Map::default());
        let keeps_words = analyser.keeps_words();
        Self { analyser, keeps_words, terms, words, letters: Vec::new(), term: String::new() }
    }

    /// The number of a word's term, none if the word is left out.
    fn number(&mut self, word: &str) -> Option<u32> {
        if self.keeps_words {
            return Some(number_of(&mut self.terms, word));
        }
        if let Some(number) = self.words.get(word) {
            return *number;
        }
        let is_kept = self.analyser.term(word, &mut self.letters, &mut self.term);
        let number = is_kept.then(|| number_of(&mut self.terms, &self.term));
        self.words.insert(word.into(), number);
        number
    }
}

fn number_of(terms: &mut Map<u32>, term: &str) -> u32 {
    if let Some(number) = terms.get(term) {
        return *number;
    }
    let number = terms.len() as u32;
    terms.insert(term.into(), number);
    number
}

/// Postings sorted by term and then by passage.
struct Inverted {
    /// In byte order.
    terms: Vec<Box<str>>,
    /// Where each term's postings end.
    ends: Vec<usize>,
    passages: Vec<u32>,
    weights: Vec<u16>,
    tokens: u64,
    counted: u64,
}

fn sort_by_term(terms: Map<u32>, postings: &[(u32, u32, u16)]) -> Inverted {
    let mut terms: Vec<(Box<str>, u32)> = terms.into_iter().collect();
    terms.sort_unstable();
    let mut places = vec![0; terms.len()];
    for (place, (_, number)) in terms.iter().enumerate() {
        places[*number as usize] = place;
    }
    let mut ends = vec![0; terms.len()];
    for (number, _, _) in postings {
        ends[places[*number as usize]] += 1;
    }
    let mut end = 0;
    for count in &mut ends {
        // For now where the term begins; writing its postings moves this to where it ends.
        (*count, end) = (end, end + *count);
    }
    let (mut passages, mut weights) = (vec![0; postings.len()], vec![0; postings.len()]);
    for (number, passage, weight) in postings {
        let slot = &mut ends[places[*number as usize]];
        (passages[*slot], weights[*slot]) = (*passage, *weight);
        *slot += 1;
    }
    let terms = terms.into_iter().map(|(term, _)| term).collect();
    Inverted { terms, ends, passages, weights, tokens: 0, counted: 0 }
}

impl Inverted {
    /// For each term: bytes of the term and number of postings (u32), the term, the passages, the weights.
    fn write(&self, output: &mut BufWriter<File>) -> std::io::Result<()> {
        let mut start = 0;
        for (term, end) in self.terms.iter().zip(&self.ends) {
            output.write_all(&(term.len() as u32).to_le_bytes())?;
            output.write_all(&((end - start) as u32).to_le_bytes())?;
            output.write_all(term.as_bytes())?;
            output.write_all(bytemuck::cast_slice(&self.passages[start..*end]))?;
            output.write_all(bytemuck::cast_slice(&self.weights[start..*end]))?;
            start = *end;
        }
        Ok(())
    }
}

/// One term of a stretch that was set aside.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Entry<'a> {
    term: &'a [u8],
    stretch: usize,
    passages: &'a [u8],
    weights: &'a [u8],
}

/// Takes the next term off the bytes of a stretch.
fn next_entry<'a>(rest: &mut &'a [u8], stretch: usize) -> Option<Entry<'a>> {
    let mut number = || rest.split_off(..4).map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    let (length, postings) = (number()? as usize, number()? as usize);
    let term = rest.split_off(..length)?;
    let passages = rest.split_off(..postings * PASSAGE)?;
    let weights = rest.split_off(..postings * WEIGHT)?;
    Some(Entry { term, stretch, passages, weights })
}

/// All terms in byte order and where their postings end.
#[derive(Default)]
struct Directory {
    terms: Vec<u8>,
    term_ends: Vec<u64>,
    posting_ends: Vec<u64>,
}

/// Writes the postings of all stretches, term by term.
fn merge(files: &[MappedFile], sections: &mut Sections<'_>) -> Result<Directory> {
    let mut rests: Vec<&[u8]> = files.iter().map(MappedFile::bytes).collect();
    let mut heap = BinaryHeap::new();
    for (stretch, rest) in rests.iter_mut().enumerate() {
        heap.extend(next_entry(rest, stretch).map(Reverse));
    }
    let (mut directory, mut group, mut end) = (Directory::default(), Vec::new(), 0);
    while let Some(Reverse(first)) = heap.pop() {
        let term = first.term;
        group.push(first);
        while heap.peek().is_some_and(|Reverse(next)| next.term == term) {
            group.extend(heap.pop().map(|Reverse(next)| next));
        }
        for entry in &group {
            heap.extend(next_entry(&mut rests[entry.stretch], entry.stretch).map(Reverse));
        }
        let postings = group.iter().map(|entry| entry.passages.len() / PASSAGE).sum::<usize>();
        group.iter().try_for_each(|entry| sections.put(entry.passages))?;
        group.iter().try_for_each(|entry| sections.put(entry.weights))?;
        sections.put(&[0; PASSAGE][..block_bytes(postings) - postings * (PASSAGE + WEIGHT)])?;
        end += block_bytes(postings) as u64;
        directory.terms.extend_from_slice(term);
        directory.term_ends.push(directory.terms.len() as u64);
        directory.posting_ends.push(end);
        group.clear();
    }
    sections.finish(&[])?;
    Ok(directory)
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

    fn finish(&mut self, bytes: &[u8]) -> Result<()> {
        self.put(bytes)?;
        self.put(&[0; 8][..self.length.next_multiple_of(8) - self.length])
    }

    /// Puts the header in its place at the front.
    fn put_header(&mut self, numbers: &Numbers) -> Result<()> {
        self.output.seek(SeekFrom::Start(0)).map_err(Error::io(self.path))?;
        self.put(MAGIC)?;
        self.put(bytemuck::cast_slice(&numbers.to_array()))
    }
}
