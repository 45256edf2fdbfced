//! Exact search: the postings of a query's terms are added up, window by window.

use std::path::Path;

use rayon::prelude::*;

use super::file::{HEADER, Layout, MAGIC, Numbers, PASSAGE, WEIGHT, postings_in};
use super::rounding::{rounded_frequency, rounded_length};
use crate::artefact::Summary;
use crate::corpus::{Language, PassageIndex};
use crate::error::{Error, Result};
use crate::index::top::{Best, for_each_at_least};
use crate::mapped::MappedFile;
use crate::run::{Ranking, Scored};
use crate::text::analyse::Analyser;

/// Passages whose scores are summed before the next ones: 96 KiB, which stay in a core's own cache.
const WINDOW: usize = 1 << 13;
/// Postings whose scores are computed before they are added.
const BLOCK: usize = 256;

/// An index that is ready to be searched.
#[derive(Debug)]
pub struct Bm25Index {
    file: MappedFile,
    analyser: Analyser,
    numbers: Numbers,
    layout: Layout,
    /// For each rounded length: 1 / (k1 (1 − b + b · length / average)).
    norms: [f32; 256],
    /// For each rounded frequency the frequency.
    frequencies: [f32; 256],
}

impl Bm25Index {
    /// Maps the index of a language.
    ///
    /// # Errors
    /// The file is no index, truncated, or made with an analyser that this version does not have.
    pub fn open(path: &Path) -> Result<Self> {
        let file = MappedFile::open(path)?;
        let broken = || Error::file(path, "not a BM25 index, or truncated; index the data set again");
        if file.bytes().len() < HEADER || &file.bytes()[..8] != MAGIC {
            return Err(broken());
        }
        let numbers: [u64; 9] = file.values::<u64>(8, 9)?.try_into().map_err(|_| broken())?;
        let numbers = Numbers::from_array(numbers);
        let layout = Layout::new(&numbers);
        if layout.end != file.bytes().len() {
            return Err(broken());
        }
        let name = String::from_utf8_lossy(&file.bytes()[layout.name.clone()]).into_owned();
        let Some(analyser) = Analyser::named(&name) else {
            let message = format!("expected an analyser of this version, got `{name}`; index again");
            return Err(Error::file(path, message));
        };
        let norms = norms(&numbers);
        let frequencies = std::array::from_fn(|byte| rounded_frequency(byte as u8) as f32);
        let index = Self { file, analyser, numbers, layout, norms, frequencies };
        let sound = |ends: &[u64], last: u64| ends.is_sorted() && ends.last().is_none_or(|end| *end == last);
        let is_sound = sound(index.term_ends(), numbers.term_bytes)
            && sound(index.posting_ends(), numbers.posting_bytes)
            && index.posting_ends().iter().all(|end| end.is_multiple_of(PASSAGE as u64));
        if is_sound { Ok(index) } else { Err(broken()) }
    }

    /// Tokens of a passage, on average over those that have any.
    pub fn average_length(&self) -> f64 {
        self.numbers.tokens as f64 / self.numbers.counted.max(1) as f64
    }

    /// Number of passages.
    pub fn passages(&self) -> usize {
        self.numbers.passages as usize
    }

    /// Adds what there is to tell of the index to a summary.
    pub(super) fn describe(&self, language: &Language, summary: &mut Summary) {
        summary.count("passages", self.passages());
        summary.count("passages without a term", self.passages() - self.numbers.counted as usize);
        summary.count(format!("terms {language}"), self.numbers.terms as usize);
        summary.count("postings", self.postings());
        summary.value(format!("average length {language}"), self.average_length());
    }

    fn postings(&self) -> usize {
        let mut start = 0;
        let blocks = self.posting_ends().iter().map(|end| (*end - std::mem::replace(&mut start, *end)) as usize);
        blocks.map(postings_in).sum()
    }

    /// The best `depth` passages of every text that share a term with it, in THE order.
    ///
    /// Shapes: one ranking a text, in order. `id_ranks` are those of the corpus.
    pub fn search(&self, texts: &[&str], depth: usize, id_ranks: &[u32]) -> Vec<Ranking> {
        texts
            .par_iter()
            .map_init(Window::default, |window, text| self.search_one(text, depth, id_ranks, window))
            .collect()
    }

    fn search_one(&self, text: &str, depth: usize, id_ranks: &[u32], window: &mut Window) -> Ranking {
        if depth == 0 {
            return Ranking::new();
        }
        let mut lists = self.lists(text);
        let mut best = Best::new(depth, f32::MIN_POSITIVE);
        for start in (0..self.passages()).step_by(WINDOW) {
            let mut touched = false;
            for list in &mut lists {
                touched |= self.add(list, start as u32, &mut window.sums);
            }
            if touched {
                window.drain(best.floor(), |place, score| {
                    best.push(Scored { passage: PassageIndex((start + place) as u32), score }, id_ranks);
                });
            }
        }
        best.into_ranking(id_ranks)
    }

    /// Adds the scores of the passages of a window from `start` on; false if the term is in none of them.
    fn add(&self, list: &mut PostingList<'_>, start: u32, sums: &mut [f64]) -> bool {
        let count = list.count_below(start.saturating_add(WINDOW as u32));
        let (passages, rest) = list.passages.split_at(count);
        let (weights, weights_rest) = list.weights.split_at(count);
        (list.passages, list.weights) = (rest, weights_rest);
        let mut scores = [0.0_f32; BLOCK];
        for (passages, weights) in passages.chunks(BLOCK).zip(weights.chunks(BLOCK)) {
            for (score, weight) in scores.iter_mut().zip(weights) {
                *score = self.frequencies[usize::from(weight & 255)] * self.norms[usize::from(weight >> 8)];
            }
            for score in &mut scores {
                *score = list.weight - list.weight / (1.0 + *score);
            }
            for (passage, score) in passages.iter().zip(&scores) {
                if let Some(sum) = sums.get_mut(passage.wrapping_sub(start) as usize) {
                    *sum += f64::from(*score);
                }
            }
        }
        count > 0
    }

    /// The postings of a text's terms, in order of the terms, so that the order of words does not matter.
    fn lists(&self, text: &str) -> Vec<PostingList<'_>> {
        let mut terms = Vec::new();
        self.analyser.analyse(text, &mut |term| terms.extend(self.find(term)));
        terms.sort_unstable();
        terms.chunk_by(|a, b| a == b).map(|group| self.list(group[0], group.len())).collect()
    }

    fn list(&self, term: usize, times: usize) -> PostingList<'_> {
        let ends = self.posting_ends();
        let start = if term == 0 { 0 } else { ends[term - 1] as usize };
        let count = postings_in(ends[term] as usize - start);
        let start = self.layout.postings + start;
        let passages = self.file.values(start, count).expect(CHECKED);
        let weights = self.file.values(start + PASSAGE * count, count).expect(CHECKED);
        let (all, containing) = (self.numbers.counted as f64, count as f64);
        let idf = (1.0 + (all - containing + 0.5) / (containing + 0.5)).ln() as f32;
        PostingList { weight: times as f32 * idf, passages, weights }
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
        self.file.values(self.layout.term_ends, self.numbers.terms as usize).expect(CHECKED)
    }

    fn posting_ends(&self) -> &[u64] {
        self.file.values(self.layout.posting_ends, self.numbers.terms as usize).expect(CHECKED)
    }
}

const CHECKED: &str = "the sections were checked when the file was opened";
const _: () = assert!(WEIGHT == size_of::<u16>() && PASSAGE == size_of::<u32>());

/// Source: Lucene, `BM25Similarity`, which computes this in f32.
fn norms(numbers: &Numbers) -> [f32; 256] {
    let average = (numbers.tokens as f64 / numbers.counted.max(1) as f64) as f32;
    let (k1, b) = (numbers.k1 as f32, numbers.b as f32);
    std::array::from_fn(|byte| 1.0 / (k1 * ((1.0 - b) + b * rounded_length(byte as u8) as f32 / average)))
}

/// Sums of scores of one window of passages, in f64 as Lucene adds them up, and the same in f32.
struct Window {
    sums: Vec<f64>,
    scores: Vec<f32>,
}

impl Default for Window {
    fn default() -> Self {
        Self { sums: vec![0.0; WINDOW], scores: vec![0.0; WINDOW] }
    }
}

impl Window {
    /// Visits every sum that is not below `floor`, and sets all to zero.
    fn drain(&mut self, floor: f32, visit: impl FnMut(usize, f32)) {
        for (score, sum) in self.scores.iter_mut().zip(&mut self.sums) {
            *score = std::mem::take(sum) as f32;
        }
        for_each_at_least(&self.scores, floor, visit);
    }
}

/// What is left to read of one term's postings.
struct PostingList<'a> {
    /// idf, times how often the query has the term.
    weight: f32,
    passages: &'a [u32],
    weights: &'a [u16],
}

impl PostingList<'_> {
    /// How many of the passages come before `end`: steps that double, then halves.
    fn count_below(&self, end: u32) -> usize {
        let mut bound = 1;
        while self.passages.get(bound - 1).is_some_and(|passage| *passage < end) {
            bound *= 2;
        }
        let known = bound / 2;
        let within = &self.passages[known..bound.min(self.passages.len())];
        known + within.partition_point(|passage| *passage < end)
    }
}
