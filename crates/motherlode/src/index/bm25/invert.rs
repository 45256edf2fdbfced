//! Stretches of a corpus, inverted in memory and set aside in scratch files.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;

use super::file::{PASSAGE, WEIGHT};
use super::rounding::{round_frequency, round_length};
use crate::corpus::{Corpus, PassageIndex};
use crate::error::{Error, Result};
use crate::text::analyse::Analyser;

/// Bytes of memory that a posting takes, in the order of reading and in that of terms.
const POSTING: usize = 2 * (PASSAGE + WEIGHT);
/// Bytes beyond its letters that a word takes in a map, and a term in a map and in the lists that sort it.
const WORD: usize = 96;
const TERM: usize = 128;

/// Postings sorted by term and then by passage.
pub(super) struct Inverted {
    /// In byte order.
    terms: Vec<Box<str>>,
    /// Where each term's postings end.
    ends: Vec<usize>,
    passages: Vec<u32>,
    weights: Vec<u16>,
    pub(super) tokens: u64,
    pub(super) counted: u64,
}

impl Inverted {
    /// Inverts passages from the front of `range`, at least one, until they take `memory` bytes; takes them off it.
    pub(super) fn of(corpus: &Corpus, analyser: &Analyser, range: &mut Range<usize>, memory: usize) -> Self {
        let mut gathered = Gathered::new(analyser, range.start);
        while gathered.bytes() < memory {
            let Some(index) = range.next() else { break };
            let passage = corpus.passage(PassageIndex(index as u32));
            // Title, line break, text: no word reaches over a line break, so the two can be analysed one by one.
            gathered.push([passage.title, passage.text]);
        }
        gathered.sort_by_term()
    }

    /// For each term: bytes of the term and number of postings (u32), the term, the passages, the weights.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let mut output = BufWriter::new(File::create(path).map_err(Error::io(path))?);
        let mut start = 0;
        let mut put = |bytes: &[u8]| output.write_all(bytes).map_err(Error::io(path));
        for (term, end) in self.terms.iter().zip(&self.ends) {
            put(&(term.len() as u32).to_le_bytes())?;
            put(&((end - start) as u32).to_le_bytes())?;
            put(term.as_bytes())?;
            put(bytemuck::cast_slice(&self.passages[start..*end]))?;
            put(bytemuck::cast_slice(&self.weights[start..*end]))?;
            start = *end;
        }
        output.flush().map_err(Error::io(path))
    }
}

/// One term of a stretch that was set aside.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry<'a> {
    pub(super) term: &'a [u8],
    pub(super) stretch: usize,
    pub(super) passages: &'a [u8],
    pub(super) weights: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Takes the next term off the bytes of a stretch.
    pub(super) fn next(rest: &mut &'a [u8], stretch: usize) -> Option<Self> {
        let mut number =
            || rest.split_off(..4).map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        let (length, postings) = (number()? as usize, number()? as usize);
        let term = rest.split_off(..length)?;
        let passages = rest.split_off(..postings * PASSAGE)?;
        let weights = rest.split_off(..postings * WEIGHT)?;
        Some(Self { term, stretch, passages, weights })
    }

    /// Number of postings.
    pub(super) fn len(&self) -> usize {
        self.weights.len() / WEIGHT
    }

    /// Passages with their weights.
    pub(super) fn postings(&self) -> impl Iterator<Item = (u32, u16)> + use<'a> {
        let (passages, _) = self.passages.as_chunks();
        let (weights, _) = self.weights.as_chunks();
        let passages = passages.iter().map(|bytes| u32::from_le_bytes(*bytes));
        passages.zip(weights.iter().map(|bytes| u16::from_le_bytes(*bytes)))
    }
}

/// Postings in the order of reading.
struct Gathered<'a> {
    vocabulary: Vocabulary<'a>,
    /// Index of the first passage, and number of postings of each.
    first: usize,
    counts: Vec<u32>,
    terms: Vec<u32>,
    weights: Vec<u16>,
    tokens: u64,
    counted: u64,
    /// The terms of the passage that is being read.
    passage: Vec<u32>,
}

impl<'a> Gathered<'a> {
    fn new(analyser: &'a Analyser, first: usize) -> Self {
        Self {
            vocabulary: Vocabulary::new(analyser),
            first,
            counts: Vec::new(),
            terms: Vec::new(),
            weights: Vec::new(),
            tokens: 0,
            counted: 0,
            passage: Vec::new(),
        }
    }

    /// Bytes of memory that they take until they are set aside.
    fn bytes(&self) -> usize {
        self.vocabulary.bytes + POSTING * self.terms.len() + size_of::<u32>() * self.counts.len()
    }

    fn push(&mut self, fields: [&str; 2]) {
        self.passage.clear();
        for field in fields {
            let vocabulary = &mut self.vocabulary;
            let analyser = vocabulary.analyser;
            analyser.words(field, &mut |word| self.passage.extend(vocabulary.number(word)));
        }
        self.tokens += self.passage.len() as u64;
        self.counted += u64::from(!self.passage.is_empty());
        let (before, length) = (self.terms.len(), u16::from(round_length(self.passage.len() as u32)) << 8);
        self.passage.sort_unstable();
        for group in self.passage.chunk_by(|a, b| a == b) {
            self.terms.push(group[0]);
            self.weights.push(length | u16::from(round_frequency(group.len() as u32)));
        }
        self.counts.push((self.terms.len() - before) as u32);
    }

    /// Sorts by counting.
    fn sort_by_term(self) -> Inverted {
        let mut terms: Vec<(Box<str>, u32)> = self.vocabulary.terms.into_iter().collect();
        terms.sort_unstable();
        let mut places = vec![0; terms.len()];
        for (place, (_, number)) in terms.iter().enumerate() {
            places[*number as usize] = place;
        }
        let mut ends = vec![0; terms.len()];
        for number in &self.terms {
            ends[places[*number as usize]] += 1;
        }
        let mut end = 0;
        for count in &mut ends {
            // For now where the term begins; writing its postings moves this to where it ends.
            (*count, end) = (end, end + *count);
        }
        let (mut passages, mut weights) = (vec![0; self.terms.len()], vec![0; self.terms.len()]);
        let mut postings = self.terms.iter().zip(&self.weights);
        for (passage, count) in (self.first..).zip(&self.counts) {
            for (number, weight) in postings.by_ref().take(*count as usize) {
                let slot = &mut ends[places[*number as usize]];
                (passages[*slot], weights[*slot]) = (passage as u32, *weight);
                *slot += 1;
            }
        }
        let terms = terms.into_iter().map(|(term, _)| term).collect();
        Inverted { terms, ends, passages, weights, tokens: self.tokens, counted: self.counted }
    }
}

type Map<V> = HashMap<Box<str>, V, foldhash::fast::RandomState>;

/// Numbers terms in order of first sight, and keeps what became of every word.
struct Vocabulary<'a> {
    analyser: &'a Analyser,
    keeps_words: bool,
    terms: Map<u32>,
    words: Map<Option<u32>>,
    /// Bytes of memory that it takes, and the sorted terms after it.
    bytes: usize,
    letters: Vec<char>,
    term: String,
}

impl<'a> Vocabulary<'a> {
    fn new(analyser: &'a Analyser) -> Self {
        let (terms, words) = (Map::default(), Map::default());
        let keeps_words = analyser.keeps_words();
        Self { analyser, keeps_words, terms, words, bytes: 0, letters: Vec::new(), term: String::new() }
    }

    /// The number of a word's term, none if the word is left out.
    fn number(&mut self, word: &str) -> Option<u32> {
        if self.keeps_words {
            return Some(number_of(&mut self.terms, word, &mut self.bytes));
        }
        if let Some(number) = self.words.get(word) {
            return *number;
        }
        let is_kept = self.analyser.term(word, &mut self.letters, &mut self.term);
        let number = is_kept.then(|| number_of(&mut self.terms, &self.term, &mut self.bytes));
        self.bytes += WORD + word.len();
        self.words.insert(word.into(), number);
        number
    }
}

fn number_of(terms: &mut Map<u32>, term: &str, bytes: &mut usize) -> u32 {
    if let Some(number) = terms.get(term) {
        return *number;
    }
    let number = terms.len() as u32;
    *bytes += TERM + term.len();
    terms.insert(term.into(), number);
    number
}
