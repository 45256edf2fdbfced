//! BM25 over an inverted index of our own, one mapped file a language.
//!
//! Score of a passage: Σ over the query's terms (a repeated term counts again) of idf · tf / (tf + k1 (1 − b + b · length /
//! average)), with idf = ln(1 + (N − n + ½) / (n + ½)). N and the average count passages that have a term at all.
//! Source: Lucene 8 and later, `BM25Similarity`: without the constant factor k1 + 1, lengths rounded by `SmallFloat`.
//!
//! The file `LANG/bm25.bin`, little endian, every section padded to 8 bytes: the magic `MLBM2501`; nine numbers of 8
//! bytes (passages, passages with a term, terms, postings, tokens, k1 and b as f64, bytes of the analyser's name, bytes
//! of all terms); the analyser's name; the terms in byte order; where each term ends (u64); where each term's postings
//! end (u64); the passages of all postings (u32), ascending within a term; and for each posting (u16) the rounded
//! length of the passage in the high byte and the rounded term frequency in the low one, so that a table of 65,536
//! scores holds all that a posting can bring, whatever k1 and b.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::top::{Best, for_each_at_least};
use crate::artefact::{self, Artefact, Outcome, Recipe, Summary};
use crate::corpus::{Corpus, Language, PassageIndex};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::mapped::MappedFile;
use crate::progress::Progress;
use crate::run::{Ranking, Scored};
use crate::text::analyse::Analyser;

const MAGIC: &[u8; 8] = b"MLBM2501";
const FORMAT: u32 = 1;
const HEADER: usize = 80;
/// Passages that one task analyses; their postings are sorted in memory.
const SEGMENT: usize = 1 << 15;
/// Passages whose scores are summed before the next ones: 64 KiB, which stay in a core's own cache.
const WINDOW: usize = 1 << 14;

/// How passages are weighed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bm25Config {
    /// How soon a repeated term stops to count; 0 and above.
    pub k1: f64,
    /// How much long passages are held back: 0 (not) to 1 (in proportion).
    pub b: f64,
}

impl Default for Bm25Config {
    /// Anserini's values.
    fn default() -> Self {
        Self { k1: 0.9, b: 0.4 }
    }
}

impl Bm25Config {
    /// Checks the ranges.
    pub fn validate(&self) -> Result<()> {
        if !(self.k1 >= 0.0 && self.k1.is_finite()) {
            return Err(Error::config(format!("`index.k1`: expected 0 or more, got {}", self.k1)));
        }
        if !(0.0..=1.0).contains(&self.b) {
            return Err(Error::config(format!("`index.b`: expected 0 to 1, got {}", self.b)));
        }
        Ok(())
    }
}

/// Name of the stage that writes indexes.
pub const STAGE: &str = "index";

/// The index file of a language inside the artefact.
pub fn file_name(language: &Language) -> String {
    format!("{language}/bm25.bin")
}

/// Indexes every language of a data set: the stage `index`.
pub fn index(dataset: &Dataset, config: &Bm25Config, out: &Path, progress: &Progress<'_>) -> Result<Artefact> {
    config.validate()?;
    let mut recipe = Recipe::new(STAGE, FORMAT, config)?.input_key("dataset", &dataset.key);
    for partition in &dataset.partitions {
        let analyser = Analyser::new(&partition.language).name();
        recipe = recipe.input_key(&format!("analyser {}", partition.language), &analyser);
    }
    let mut draft = match artefact::draft(out, recipe)? {
        Outcome::UpToDate(artefact) => return Ok(artefact),
        Outcome::Write(draft) => draft,
    };
    let mut summary = Summary::default();
    for partition in &dataset.partitions {
        let file = file_name(&partition.language);
        let path = draft.path(&file);
        let analyser = Analyser::new(&partition.language);
        progress.begin(&format!("index {}", partition.language), partition.corpus.len(), "passages");
        draft.write(&file, |output| {
            build(&partition.corpus, &analyser, progress).write(output, &path, config, &analyser)?;
            Ok(partition.corpus.len() as u64)
        })?;
        let index = Bm25Index::open(&path, &partition.language)?;
        summary.count("passages", index.passages);
        summary.count("passages without a term", index.passages - index.counted);
        summary.count(format!("terms {}", partition.language), index.layout.vocabulary);
        summary.count("postings", index.layout.postings);
        summary.value(format!("average length {}", partition.language), index.average_length());
    }
    draft.commit(summary)
}

/// Postings of a stretch of the corpus, sorted by term and then by passage.
struct Segment {
    /// In byte order.
    terms: Vec<Box<str>>,
    /// Where each term's postings end.
    ends: Vec<usize>,
    passages: Vec<u32>,
    weights: Vec<u16>,
    tokens: u64,
    counted: u64,
}

/// All segments of a corpus and the order in which their terms are written.
struct Postings {
    corpus: usize,
    segments: Vec<Segment>,
    /// (global term, segment, term within the segment), ascending.
    order: Vec<(u32, u32, u32)>,
    /// Bytes of all terms, and where each ends.
    terms: String,
    term_ends: Vec<u64>,
}

fn build(corpus: &Corpus, analyser: &Analyser, progress: &Progress<'_>) -> Postings {
    let starts: Vec<usize> = (0..corpus.len()).step_by(SEGMENT).collect();
    let segments: Vec<Segment> = starts
        .into_par_iter()
        .map(|start| {
            let end = (start + SEGMENT).min(corpus.len());
            let segment = invert(corpus, start..end, analyser);
            progress.advance(end - start);
            segment
        })
        .collect();
    merge(corpus.len(), segments)
}

/// Analyses a stretch of the corpus and sorts its postings by counting.
fn invert(corpus: &Corpus, stretch: std::ops::Range<usize>, analyser: &Analyser) -> Segment {
    let mut vocabulary = Vocabulary::default();
    let mut postings: Vec<(u32, u32, u16)> = Vec::new();
    let (mut tokens, mut counted) = (0, 0);
    let mut terms = Vec::new();
    for index in stretch {
        let passage = corpus.passage(PassageIndex(index as u32));
        terms.clear();
        // Title, line break, text: no word reaches over a line break, so the two can be analysed one by one.
        for field in [passage.title, passage.text] {
            analyser.analyse(field, &mut |term| terms.push(vocabulary.number(term)));
        }
        tokens += terms.len() as u64;
        counted += u64::from(!terms.is_empty());
        let length = u16::from(round_length(terms.len() as u32)) << 8;
        terms.sort_unstable();
        for group in terms.chunk_by(|a, b| a == b) {
            postings.push((group[0], index as u32, length | u16::from(round_frequency(group.len() as u32))));
        }
    }
    Segment { tokens, counted, ..sort_by_term(vocabulary, &postings) }
}

/// Numbers terms in order of first sight.
#[derive(Default)]
struct Vocabulary {
    numbers: HashMap<Box<str>, u32, foldhash::fast::RandomState>,
}

impl Vocabulary {
    fn number(&mut self, term: &str) -> u32 {
        if let Some(number) = self.numbers.get(term) {
            return *number;
        }
        let number = self.numbers.len() as u32;
        self.numbers.insert(term.into(), number);
        number
    }
}

fn sort_by_term(vocabulary: Vocabulary, postings: &[(u32, u32, u16)]) -> Segment {
    let mut terms: Vec<(Box<str>, u32)> = vocabulary.numbers.into_iter().collect();
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
    Segment { terms, ends, passages, weights, tokens: 0, counted: 0 }
}

fn merge(corpus: usize, segments: Vec<Segment>) -> Postings {
    let mut all: Vec<(&str, u32, u32)> = Vec::with_capacity(segments.iter().map(|segment| segment.terms.len()).sum());
    for (number, segment) in segments.iter().enumerate() {
        all.extend(segment.terms.iter().enumerate().map(|(local, term)| (&**term, number as u32, local as u32)));
    }
    all.par_sort_unstable();
    let mut order = Vec::with_capacity(all.len());
    let (mut terms, mut term_ends) = (String::new(), Vec::new());
    for (global, group) in all.chunk_by(|a, b| a.0 == b.0).enumerate() {
        terms.push_str(group[0].0);
        term_ends.push(terms.len() as u64);
        order.extend(group.iter().map(|(_, segment, local)| (global as u32, *segment, *local)));
    }
    Postings { corpus, segments, order, terms, term_ends }
}

impl Segment {
    fn range(&self, term: u32) -> std::ops::Range<usize> {
        let start = if term == 0 { 0 } else { self.ends[term as usize - 1] };
        start..self.ends[term as usize]
    }
}

impl Postings {
    fn write(&self, output: &mut BufWriter<File>, path: &Path, config: &Bm25Config, analyser: &Analyser) -> Result<()> {
        let name = analyser.name();
        let posting_ends = self.posting_ends();
        let sum = |of: fn(&Segment) -> u64| self.segments.iter().map(of).sum::<u64>();
        let numbers = [
            self.corpus as u64,
            sum(|segment| segment.counted),
            self.term_ends.len() as u64,
            posting_ends.last().copied().unwrap_or_default(),
            sum(|segment| segment.tokens),
            config.k1.to_bits(),
            config.b.to_bits(),
            name.len() as u64,
            self.terms.len() as u64,
        ];
        let mut sections = Sections { output, path, length: 0 };
        sections.put(MAGIC)?;
        sections.put(bytemuck::cast_slice(&numbers))?;
        sections.finish(name.as_bytes())?;
        sections.finish(self.terms.as_bytes())?;
        sections.finish(bytemuck::cast_slice(&self.term_ends))?;
        sections.finish(bytemuck::cast_slice(&posting_ends))?;
        for (segment, range) in self.pieces() {
            sections.put(bytemuck::cast_slice(&segment.passages[range]))?;
        }
        sections.finish(&[])?;
        for (segment, range) in self.pieces() {
            sections.put(bytemuck::cast_slice(&segment.weights[range]))?;
        }
        sections.finish(&[])
    }

    fn pieces(&self) -> impl Iterator<Item = (&Segment, std::ops::Range<usize>)> {
        self.order.iter().map(|(_, segment, local)| {
            let segment = &self.segments[*segment as usize];
            (segment, segment.range(*local))
        })
    }

    fn posting_ends(&self) -> Vec<u64> {
        let mut ends = vec![0; self.term_ends.len()];
        for ((global, _, _), (_, range)) in self.order.iter().zip(self.pieces()) {
            ends[*global as usize] += range.len() as u64;
        }
        let mut end = 0;
        for count in &mut ends {
            end += *count;
            *count = end;
        }
        ends
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

    fn finish(&mut self, bytes: &[u8]) -> Result<()> {
        self.put(bytes)?;
        self.put(&[0; 8][..self.length.next_multiple_of(8) - self.length])
    }
}

/// The length in one byte, as Lucene's `SmallFloat.intToByte4`: exact below 40, then four significant bits.
pub fn round_length(length: u32) -> u8 {
    const EXACT: u32 = 24;
    if length < EXACT { length as u8 } else { EXACT as u8 + round_to_four_bits(length - EXACT) }
}

/// The length that a byte stands for, Lucene's `SmallFloat.byte4ToInt`.
pub fn rounded_length(byte: u8) -> u32 {
    const EXACT: u8 = 24;
    if byte < EXACT {
        return u32::from(byte);
    }
    let (exponent, mantissa) = ((byte - EXACT) >> 3, u32::from((byte - EXACT) & 7));
    let value = if exponent == 0 { mantissa } else { (mantissa | 8) << (exponent - 1) };
    u32::from(EXACT) + value
}

fn round_to_four_bits(value: u32) -> u8 {
    let bits = u32::BITS - value.leading_zeros();
    if bits < 4 {
        return value as u8;
    }
    let shift = bits - 4;
    (((shift + 1) << 3) | ((value >> shift) & 7)) as u8
}

/// A term's frequency in one byte: exact up to 127, then four significant bits, up to 7.5 million.
fn round_frequency(frequency: u32) -> u8 {
    if frequency < 128 {
        return frequency as u8;
    }
    let shift = u32::BITS - frequency.leading_zeros() - 4;
    if shift > 19 { u8::MAX } else { (128 + ((shift - 4) << 3) + ((frequency >> shift) & 7)) as u8 }
}

fn rounded_frequency(byte: u8) -> u32 {
    if byte < 128 {
        return u32::from(byte);
    }
    let (exponent, mantissa) = (u32::from(byte - 128) >> 3, u32::from(byte & 7));
    (mantissa | 8) << (exponent + 4)
}

/// An index that is ready to be searched.
#[derive(Debug)]
pub struct Bm25Index {
    file: MappedFile,
    analyser: Analyser,
    passages: usize,
    counted: usize,
    tokens: u64,
    layout: Layout,
    /// What a posting brings, by its weight, before idf.
    scores: Box<[f32; 1 << 16]>,
}

/// Where the sections of the file begin, and how long they are.
#[derive(Debug)]
struct Layout {
    vocabulary: usize,
    postings: usize,
    name: std::ops::Range<usize>,
    terms: std::ops::Range<usize>,
    term_ends: usize,
    posting_ends: usize,
    posting_passages: usize,
    posting_weights: usize,
    end: usize,
}

impl Layout {
    fn new(numbers: &[u64]) -> Self {
        let size = |number: usize| usize::try_from(numbers[number]).unwrap_or(usize::MAX);
        let (vocabulary, postings) = (size(2), size(3));
        let mut end = HEADER;
        let mut section = |bytes: usize| {
            let start = end;
            end = start.saturating_add(bytes).checked_next_multiple_of(8).unwrap_or(usize::MAX);
            start
        };
        let (name, terms) = (section(size(7)), section(size(8)));
        Self {
            vocabulary,
            postings,
            name: name..name.saturating_add(size(7)),
            terms: terms..terms.saturating_add(size(8)),
            term_ends: section(vocabulary.saturating_mul(8)),
            posting_ends: section(vocabulary.saturating_mul(8)),
            posting_passages: section(postings.saturating_mul(4)),
            posting_weights: section(postings.saturating_mul(2)),
            end,
        }
    }
}

impl Bm25Index {
    /// Maps the index of a language.
    ///
    /// # Errors
    /// The file is no index, truncated, or made with another analyser than this version has for the language.
    pub fn open(path: &Path, language: &Language) -> Result<Self> {
        let file = MappedFile::open(path)?;
        let broken = || Error::file(path, "not a BM25 index, or truncated; index the data set again");
        if file.bytes().len() < HEADER || &file.bytes()[..8] != MAGIC {
            return Err(broken());
        }
        let numbers: [u64; 9] = file.values::<u64>(8, 9)?.try_into().expect("nine numbers were asked for");
        let layout = Layout::new(&numbers);
        if layout.end != file.bytes().len() {
            return Err(broken());
        }
        let analyser = Analyser::new(language);
        let (found, expected) = (String::from_utf8_lossy(&file.bytes()[layout.name.clone()]), analyser.name());
        if found != expected {
            let message = format!("expected the analyser {expected} of `{language}`, got {found}; index again");
            return Err(Error::file(path, message));
        }
        let config = Bm25Config { k1: f64::from_bits(numbers[5]), b: f64::from_bits(numbers[6]) };
        let (passages, counted, tokens) = (numbers[0] as usize, numbers[1] as usize, numbers[4]);
        let scores = posting_scores(&config, tokens as f64 / counted.max(1) as f64);
        let index = Self { analyser, passages, counted, tokens, layout, scores, file };
        let sound = |ends: &[u64], last: usize| ends.is_sorted() && ends.last().is_none_or(|end| *end == last as u64);
        if sound(index.term_ends(), index.layout.terms.len()) && sound(index.posting_ends(), index.layout.postings) {
            Ok(index)
        } else {
            Err(broken())
        }
    }

    /// Tokens of a passage, on average over those that have any.
    pub fn average_length(&self) -> f64 {
        self.tokens as f64 / self.counted.max(1) as f64
    }

    /// Number of passages.
    pub fn passages(&self) -> usize {
        self.passages
    }

    /// The best `depth` passages of every text that share a term with it, in THE order.
    ///
    /// Shapes: one ranking a text, in order. `id_ranks` are those of the corpus.
    pub fn search(&self, texts: &[&str], depth: usize, id_ranks: &[u32]) -> Vec<Ranking> {
        let window = || vec![0.0_f32; WINDOW].into_boxed_slice();
        texts.par_iter().map_init(window, |sums, text| self.search_one(text, depth, id_ranks, sums)).collect()
    }

    fn search_one(&self, text: &str, depth: usize, id_ranks: &[u32], sums: &mut [f32]) -> Ranking {
        if depth == 0 {
            return Ranking::new();
        }
        let mut lists = self.lists(text);
        let mut best = Best::new(depth, f32::MIN_POSITIVE);
        for start in (0..self.passages).step_by(WINDOW) {
            let mut touched = false;
            for list in &mut lists {
                touched |= list.add(start as u32, sums, &self.scores);
            }
            if touched {
                for_each_at_least(sums, best.floor(), |place, score| {
                    best.push(Scored { passage: PassageIndex((start + place) as u32), score }, id_ranks);
                });
                sums.fill(0.0);
            }
        }
        best.into_ranking(id_ranks)
    }

    /// The postings of a text's terms, in order of the terms, so that the order of words does not matter.
    fn lists(&self, text: &str) -> Vec<PostingList<'_>> {
        let mut terms = Vec::new();
        self.analyser.analyse(text, &mut |term| terms.extend(self.find(term)));
        terms.sort_unstable();
        let times = |group: &[usize]| group.len() as f64;
        terms.chunk_by(|a, b| a == b).map(|group| self.list(group[0], times(group))).collect()
    }

    fn list(&self, term: usize, times: f64) -> PostingList<'_> {
        let ends = self.posting_ends();
        let start = if term == 0 { 0 } else { ends[term - 1] as usize };
        let count = ends[term] as usize - start;
        let passages = self.file.values(self.layout.posting_passages + 4 * start, count).expect(CHECKED);
        let weights = self.file.values(self.layout.posting_weights + 2 * start, count).expect(CHECKED);
        let (all, containing) = (self.counted as f64, count as f64);
        let idf = (1.0 + (all - containing + 0.5) / (containing + 0.5)).ln();
        PostingList { factor: (times * idf) as f32, passages, weights }
    }

    /// The place of a term in the vocabulary.
    fn find(&self, term: &str) -> Option<usize> {
        let ends = self.term_ends();
        let terms = &self.file.bytes()[self.layout.terms.clone()];
        let start = |place: usize| if place == 0 { 0 } else { ends[place - 1] as usize };
        let (mut low, mut high) = (0, ends.len());
        while low < high {
            let middle = low.midpoint(high);
            match terms[start(middle)..ends[middle] as usize].cmp(term.as_bytes()) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    fn term_ends(&self) -> &[u64] {
        self.file.values(self.layout.term_ends, self.layout.vocabulary).expect(CHECKED)
    }

    fn posting_ends(&self) -> &[u64] {
        self.file.values(self.layout.posting_ends, self.layout.vocabulary).expect(CHECKED)
    }
}

const CHECKED: &str = "the sections were checked when the file was opened";

/// tf / (tf + k1 (1 − b + b · length / average)) for every weight of a posting.
fn posting_scores(config: &Bm25Config, average: f64) -> Box<[f32; 1 << 16]> {
    let score = |weight: usize| {
        let (length, frequency) = (rounded_length((weight >> 8) as u8), rounded_frequency((weight & 255) as u8));
        let held_back = config.k1 * (1.0 - config.b + config.b * f64::from(length) / average);
        if frequency == 0 { 0.0 } else { (f64::from(frequency) / (f64::from(frequency) + held_back)) as f32 }
    };
    let scores: Vec<f32> = (0..1 << 16).map(score).collect();
    scores.into_boxed_slice().try_into().expect("as many as a posting's weight has values")
}

/// What is left to read of one term's postings.
struct PostingList<'a> {
    /// idf, times how often the query has the term.
    factor: f32,
    passages: &'a [u32],
    weights: &'a [u16],
}

impl PostingList<'_> {
    /// Adds the scores of the passages from `start` on to `sums`; false if the term is in none of them.
    fn add(&mut self, start: u32, sums: &mut [f32], scores: &[f32; 1 << 16]) -> bool {
        let mut read = 0;
        for (passage, weight) in self.passages.iter().zip(self.weights) {
            let Some(sum) = sums.get_mut((*passage - start) as usize) else { break };
            *sum += self.factor * scores[*weight as usize];
            read += 1;
        }
        (self.passages, self.weights) = (&self.passages[read..], &self.weights[read..]);
        read > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::corpus_of;
    use proptest::prelude::*;

    fn language() -> Language {
        Language::new("en").unwrap()
    }

    fn index_of(corpus: &Corpus, config: &Bm25Config) -> Bm25Index {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bm25.bin");
        let analyser = Analyser::new(&language());
        let postings = build(corpus, &analyser, &Progress::silent());
        artefact::write_whole(&path, |output| postings.write(output, &path, config, &analyser)).unwrap();
        Bm25Index::open(&path, &language()).unwrap()
    }

    fn search(corpus: &Corpus, text: &str, depth: usize) -> Vec<(String, f32)> {
        let index = index_of(corpus, &Bm25Config::default());
        let ranking = index.search(&[text], depth, &corpus.id_ranks()).remove(0);
        ranking.iter().map(|scored| (corpus.id(scored.passage).to_owned(), scored.score)).collect()
    }

    /// Golden, Python 3.13:
    /// ```python
    /// from math import log
    /// docs = {"a": "Cats Cats and dogs", "b": "a dog barks", "c": "the cats sleep and cats purr all day", "d": ""}
    /// toks = {i: t.lower().split() for i, t in docs.items() if t}
    /// N, avg = len(toks), sum(map(len, toks.values())) / len(toks)
    /// for i, t in toks.items():
    ///     score = 0
    ///     for w in "cats and cats".split():
    ///         n = sum(w in u for u in toks.values()); tf = t.count(w)
    ///         score += log(1 + (N - n + .5) / (n + .5)) * tf / (tf + .9 * (1 - .4 + .4 * len(t) / avg))
    ///     print(i, score)
    /// ```
    #[test]
    fn scores_equal_the_formula() {
        let corpus = corpus_of(&[
            ("a", "Cats", "Cats and dogs"),
            ("b", "", "a dog barks"),
            ("c", "", "the cats sleep and cats purr all day"),
            ("d", "", ""),
        ]);
        let found = search(&corpus, "cats and CATS unknown", 10);
        assert_eq!(found.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["a", "c"]);
        assert!((found[0].1 - GOLDEN_A).abs() < 1e-6 && (found[1].1 - GOLDEN_C).abs() < 1e-6, "{found:?}");
    }
    const GOLDEN_A: f32 = 0.921_899_5;
    const GOLDEN_C: f32 = 0.825_461_2;

    #[test]
    fn ties_fall_to_the_higher_id_and_unmatched_passages_are_absent() {
        let corpus = corpus_of(&[("a", "", "x y"), ("c", "", "x z"), ("b", "", "x w"), ("d", "", "q")]);
        let ids: Vec<String> = search(&corpus, "x", 2).into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, ["c", "b"]);
        assert!(search(&corpus, "nothing of it", 5).is_empty());
        assert!(search(&corpus, "x", 0).is_empty());
        assert!(search(&corpus_of(&[]), "x", 5).is_empty());
    }

    /// Lucene 9, `SmallFloat.byte4ToInt(SmallFloat.intToByte4(i))` for these lengths.
    #[test]
    fn lengths_are_rounded_as_lucene_does() {
        let rounded = |length| rounded_length(round_length(length));
        assert_eq!([0, 1, 23, 24, 31, 39, 40].map(rounded), [0, 1, 23, 24, 31, 39, 40]);
        assert_eq!([41, 42, 55, 56, 59, 60, 100, 1000].map(rounded), [40, 42, 54, 56, 56, 60, 96, 984]);
        assert_eq!(round_length(u32::MAX >> 1), u8::MAX);
    }

    proptest! {
        #[test]
        fn frequencies_are_exact_when_small_and_near_when_large(frequency in 1_u32..5_000_000) {
            let rounded = rounded_frequency(round_frequency(frequency));
            prop_assert!(rounded <= frequency && frequency - rounded <= frequency / 8);
            prop_assert!(frequency >= 128 || rounded == frequency);
        }

        #[test]
        fn every_byte_of_a_length_survives(byte in 0_u8..=255) {
            prop_assert_eq!(round_length(rounded_length(byte)), byte);
        }
    }

    #[test]
    fn many_segments_and_windows_give_what_one_passage_at_a_time_gives() {
        let texts: Vec<String> = (0..70_000).map(|n| format!("w{} common w{} w{0}", n % 97, n % 1009)).collect();
        let ids: Vec<String> = (0..texts.len()).map(|n| format!("p{n}")).collect();
        let rows: Vec<(&str, &str, &str)> =
            ids.iter().zip(&texts).map(|(id, text)| (id.as_str(), "", text.as_str())).collect();
        let corpus = corpus_of(&rows);
        let found = search(&corpus, "w5 w1000", 300);
        let mut expected: Vec<(String, f32)> = Vec::new();
        let count = |test: &dyn Fn(usize) -> usize| (0..texts.len()).filter(|n| test(*n) > 0).count() as f64;
        let all = texts.len() as f64;
        let frequency = |word: usize| move |n: usize| 2 * usize::from(n % 97 == word) + usize::from(n % 1009 == word);
        let mut scores = vec![0.0_f64; texts.len()];
        for word in [1000, 5] {
            let containing = count(&frequency(word));
            let idf = (1.0 + (all - containing + 0.5) / (containing + 0.5)).ln();
            for (n, score) in scores.iter_mut().enumerate() {
                let tf = frequency(word)(n) as f64;
                *score += idf * tf / (tf + 0.9);
            }
        }
        expected.extend(ids.iter().zip(&scores).filter(|(_, s)| **s > 0.0).map(|(id, s)| (id.clone(), *s as f32)));
        expected.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| b.0.cmp(&a.0)));
        for (found, expected) in found.iter().zip(&expected) {
            assert!(found.0 == expected.0 && (found.1 - expected.1).abs() < 1e-5, "{found:?} {expected:?}");
        }
        assert_eq!(found.len(), 300);
    }

    #[test]
    fn a_damaged_index_and_another_analyser_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bm25.bin");
        std::fs::write(&path, [b'x'; 200]).unwrap();
        assert!(Bm25Index::open(&path, &language()).unwrap_err().to_string().contains("not a BM25 index"));
        let analyser = Analyser::new(&language());
        let postings = build(&corpus_of(&[("a", "", "x")]), &analyser, &Progress::silent());
        let config = Bm25Config::default();
        artefact::write_whole(&path, |output| postings.write(output, &path, &config, &analyser)).unwrap();
        let thai = Language::new("th").unwrap();
        assert!(Bm25Index::open(&path, &thai).unwrap_err().to_string().contains("index again"));
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 8]).unwrap();
        assert!(Bm25Index::open(&path, &language()).unwrap_err().to_string().contains("truncated"));
    }

    #[test]
    fn values_out_of_range_are_refused() {
        assert!(Bm25Config { k1: -1.0, b: 0.4 }.validate().is_err());
        assert!(Bm25Config { k1: 0.9, b: 1.5 }.validate().unwrap_err().to_string().contains("`index.b`"));
    }
}
