//! Relevance judgements of people: query → passage → grade. Unjudged is absent, never grade 0.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use crate::corpus::{Corpus, PassageIndex};
use crate::error::{Error, Result};
use crate::queries::{Queries, QueryIndex};

/// The grades of one language and split.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Qrels {
    grades: Vec<BTreeMap<PassageIndex, i32>>,
}

impl Qrels {
    /// No judgement for any of `queries` queries.
    pub fn empty(queries: usize) -> Self {
        Self { grades: vec![BTreeMap::new(); queries] }
    }

    /// Sets a grade and returns the one it replaces.
    pub fn insert(&mut self, query: QueryIndex, passage: PassageIndex, grade: i32) -> Option<i32> {
        self.grades[query.at()].insert(passage, grade)
    }

    /// Reads TREC qrels: `query-id ignored passage-id grade`, separated by white space.
    ///
    /// # Errors
    /// Another number of columns, an unknown query or passage, a grade that is no integer, a pair judged twice.
    pub fn read(path: &Path, queries: &Queries, corpus: &Corpus) -> Result<Self> {
        let mut qrels = Self::empty(queries.len());
        crate::lines::for_each(path, |number, line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [query, _, passage, grade] = fields[..] else {
                let message = format!("expected 4 columns `query-id Q0 passage-id grade`, got {}", fields.len());
                return Err(Error::line(path, number, message));
            };
            let pair = (query, passage, grade);
            qrels.insert_named(pair, queries, corpus).map_err(|error| Error::line(path, number, error.to_string()))
        })?;
        Ok(qrels)
    }

    /// Sets a grade by the names in a file: (query id, passage id, grade).
    pub fn insert_named(&mut self, names: (&str, &str, &str), queries: &Queries, corpus: &Corpus) -> Result<()> {
        let (query, passage, grade) = names;
        let found_query = queries
            .find(query)
            .ok_or_else(|| Error::data(format!("no query has the id `{query}`; qrels and queries must match")))?;
        let found_passage = corpus
            .find(passage)
            .ok_or_else(|| Error::data(format!("no passage has the id `{passage}`; qrels and corpus must match")))?;
        let grade = grade.parse().map_err(|_| Error::data(format!("expected an integer grade, got `{grade}`")))?;
        match self.insert(found_query, found_passage, grade) {
            Some(_) => {
                Err(Error::data(format!("query `{query}` and passage `{passage}` are judged twice; keep one line")))
            }
            None => Ok(()),
        }
    }

    /// Writes TREC qrels, queries in input order, passages by position.
    pub fn write(&self, output: &mut impl Write, path: &Path, queries: &Queries, corpus: &Corpus) -> Result<u64> {
        let mut rows = 0;
        for (query, grades) in queries.iter().zip(&self.grades) {
            for (passage, grade) in grades {
                writeln!(output, "{}\tQ0\t{}\t{grade}", query.1.id, corpus.id(*passage)).map_err(Error::io(path))?;
                rows += 1;
            }
        }
        Ok(rows)
    }

    /// The grade of a pair, or none where nobody judged it.
    pub fn grade(&self, query: QueryIndex, passage: PassageIndex) -> Option<i32> {
        self.grades[query.at()].get(&passage).copied()
    }

    /// All judged passages of a query with their grades, by position.
    pub fn judged(&self, query: QueryIndex) -> &BTreeMap<PassageIndex, i32> {
        &self.grades[query.at()]
    }

    /// The passages of grade 1 and above, by position.
    pub fn positives(&self, query: QueryIndex) -> impl Iterator<Item = PassageIndex> {
        self.judged(query).iter().filter(|(_, grade)| **grade >= 1).map(|(passage, _)| *passage)
    }

    /// The passages that people judged not relevant (grade 0 or below), by position.
    pub fn judged_negatives(&self, query: QueryIndex) -> impl Iterator<Item = PassageIndex> {
        self.judged(query).iter().filter(|(_, grade)| **grade <= 0).map(|(passage, _)| *passage)
    }

    /// Number of queries, judged or not.
    pub fn queries(&self) -> usize {
        self.grades.len()
    }
}
