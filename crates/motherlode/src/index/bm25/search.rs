//! An index in a mapped file, and search in it.

use std::borrow::Cow;
use std::path::Path;

use rayon::prelude::*;

use super::DICTIONARY;
use super::file::{HEADER, Layout, MAGIC, Numbers, PASSAGE, WEIGHT, postings_in, table_bytes, windows_in};
use super::impact::{Impacts, windows_of};
use super::prune::{self, PostingList, Sums};
use crate::artefact::Summary;
use crate::corpus::Language;
use crate::error::{Error, Result};
use crate::mapped::MappedFile;
use crate::run::Ranking;
use crate::text::analyse::{Analyser, JapaneseDictionary};

/// An index that is ready to be searched.
#[derive(Debug)]
pub struct Bm25Index {
    file: MappedFile,
    analyser: Analyser,
    numbers: Numbers,
    layout: Layout,
    impacts: Impacts,
    windows: usize,
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
        let Some(mut analyser) = Analyser::named(&name) else {
            let message = format!("expected an analyser of this version, got `{name}`; index again");
            return Err(Error::file(path, message));
        };
        if analyser.lacks_dictionary() {
            analyser = analyser.with_dictionary(JapaneseDictionary::read(&path.with_file_name(DICTIONARY))?);
        }
        let (impacts, windows) = (Impacts::new(&numbers), windows_in(numbers.passages));
        let index = Self { file, analyser, numbers, layout, impacts, windows };
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
        blocks.map(|bytes| postings_in(bytes, self.windows)).sum()
    }

    /// The best `depth` passages of every text that share a term with it, in THE order.
    ///
    /// Shapes: one ranking a text, in order. `id_ranks` are those of the corpus.
    pub fn search(&self, texts: &[&str], depth: usize, id_ranks: &[u32]) -> Vec<Ranking> {
        texts
            .par_iter()
            .map_init(Sums::default, |sums, text| match depth {
                0 => Ranking::new(),
                _ => prune::search(&self.lists(text), &self.impacts, depth, id_ranks, sums),
            })
            .collect()
    }

    /// The passages that have every term of the text, ascending; none where the text has no term, or one that no passage
    /// has.
    pub fn with_all(&self, text: &str) -> Vec<u32> {
        let mut terms = Vec::new();
        self.analyser.analyse(text, &mut |term| terms.push(self.find(term)));
        let Some(mut terms) = terms.into_iter().collect::<Option<Vec<usize>>>() else { return Vec::new() };
        terms.sort_unstable();
        terms.dedup();
        let mut lists: Vec<PostingList<'_>> = terms.into_iter().map(|term| self.list(term, 1)).collect();
        lists.sort_by_key(|list| list.passages.len());
        let Some((rarest, others)) = lists.split_first() else { return Vec::new() };
        let has_all = |passage: &&u32| others.iter().all(|list| list.passages.binary_search(passage).is_ok());
        rarest.passages.iter().filter(has_all).copied().collect()
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
        let count = postings_in(ends[term] as usize - start, self.windows);
        let table = self.layout.postings + start;
        let start = table + table_bytes(count, self.windows);
        let passages: &[u32] = self.file.values(start, count).expect(CHECKED);
        let weights: &[u16] = self.file.values(start + PASSAGE * count, count).expect(CHECKED);
        let (ends, highest) = if table == start {
            let pairs = passages.iter().copied().zip(weights.iter().copied());
            let (ends, highest) = windows_of(pairs, self.windows, &self.impacts);
            (Cow::Owned(ends), Cow::Owned(highest))
        } else {
            let ends: &[u32] = self.file.values(table, self.windows).expect(CHECKED);
            let highest: &[f32] = self.file.values(table + size_of_val(ends), self.windows).expect(CHECKED);
            (Cow::Borrowed(ends), Cow::Borrowed(highest))
        };
        let (all, containing) = (self.numbers.counted as f64, count as f64);
        let idf = (1.0 + (all - containing + 0.5) / (containing + 0.5)).ln() as f32;
        PostingList { weight: times as f32 * idf, passages, weights, ends, highest }
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
