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
            let names = columns(line).map_err(|message| Error::line(path, number, message))?;
            qrels.insert_named(names, queries, corpus).map_err(|error| Error::line(path, number, error.to_string()))
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
        let grade = parse_grade(grade).map_err(Error::data)?;
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

/// The query id, passage id and grade of a line of TREC qrels; an error says what stands there instead.
pub fn columns(line: &str) -> std::result::Result<(&str, &str, &str), String> {
    let mut fields = line.split_ascii_whitespace();
    let found = [(); 4].map(|()| fields.next());
    if let ([Some(query), _, Some(passage), Some(grade)], None) = (found, fields.next()) {
        return Ok((query, passage, grade));
    }
    let count = line.split_ascii_whitespace().count();
    let remedy = match count {
        3 => "put a column such as `0` behind the query's id",
        6 => "is this a run?",
        _ => "ids must not hold white space",
    };
    Err(format!("expected 4 columns `query-id Q0 passage-id grade`, got {count}; {remedy}"))
}

/// The grade; an error says what stands there instead.
pub fn parse_grade(grade: &str) -> std::result::Result<i32, String> {
    grade
        .parse()
        .map_err(|_| format!("expected an integer grade, got `{grade}`; write 0 for not relevant, 1 for relevant"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::corpus_of;
    use crate::queries::Query;

    #[test]
    fn bad_lines_are_named_with_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.qrels");
        let mut queries = Queries::default();
        queries.push(Query { id: "q".to_owned(), text: "?".to_owned() }).unwrap();
        let corpus = corpus_of(&[("a", "", ""), ("b", "", "")]);
        for (line, expected) in [
            ("q 0 b", "x.qrels:2: expected 4 columns `query-id Q0 passage-id grade`, got 3; put a column such as `0`"),
            ("q Q0 b 1 2.5 x", "got 6; is this a run?"),
            ("q 0 b c 1", "got 5; ids must not hold white space"),
            ("q 0 b 0.5", "x.qrels:2: expected an integer grade, got `0.5`; write 0 for not relevant"),
            ("r 0 b 1", "x.qrels:2: no query has the id `r`; qrels and queries must match"),
            ("q 0 z 1", "x.qrels:2: no passage has the id `z`; qrels and corpus must match"),
            ("q 0 a 0", "x.qrels:2: query `q` and passage `a` are judged twice; keep one line"),
        ] {
            std::fs::write(&path, format!("q 0 a 1\n{line}\n")).unwrap();
            let message = Qrels::read(&path, &queries, &corpus).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        std::fs::write(&path, "q\t0\ta\t-1\nq 0 b 3\n").unwrap();
        let qrels = Qrels::read(&path, &queries, &corpus).unwrap();
        assert_eq!(qrels.judged(QueryIndex(0)).values().copied().collect::<Vec<_>>(), [-1, 3]);
        assert_eq!(qrels.positives(QueryIndex(0)).collect::<Vec<_>>(), [PassageIndex(1)]);
    }
}
