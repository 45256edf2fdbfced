//! Queries of one language and split ("topics" in TREC's file names).

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};

/// The position of a query among the queries of its language and split, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct QueryIndex(pub u32);

impl QueryIndex {
    /// As a subscript.
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// A query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The id in the user's files.
    pub id: String,
    /// What was asked.
    pub text: String,
}

/// The queries of one language and split, in input order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Queries {
    queries: Vec<Query>,
    by_id: HashMap<String, QueryIndex>,
}

impl Queries {
    /// Appends a query; an error says that its id is taken.
    pub fn push(&mut self, query: Query) -> Result<QueryIndex> {
        let index = QueryIndex(self.queries.len() as u32);
        if self.by_id.insert(query.id.clone(), index).is_some() {
            return Err(Error::data(format!("the query id `{}` stands twice; make ids unique", query.id)));
        }
        self.queries.push(query);
        Ok(index)
    }

    /// Reads `id<TAB>text` lines, MIRACL's `topics.*.tsv`.
    ///
    /// # Errors
    /// A line without a tab, an empty id or text, an id that stands twice, bytes that are not UTF-8.
    pub fn read_tsv(path: &Path) -> Result<Self> {
        let mut queries = Self::default();
        crate::lines::for_each(path, |number, line| {
            let (id, text) = line
                .split_once('\t')
                .filter(|(id, text)| !id.is_empty() && !text.trim().is_empty())
                .ok_or_else(|| Error::line(path, number, "expected `query-id<TAB>text`"))?;
            let query = Query { id: id.to_owned(), text: text.trim().to_owned() };
            queries.push(query).map(drop).map_err(|error| Error::line(path, number, error.to_string()))
        })?;
        Ok(queries)
    }

    /// Writes `id<TAB>text` lines; tabs and line breaks inside a text become spaces.
    pub fn write_tsv(&self, output: &mut impl Write, path: &Path) -> Result<u64> {
        for query in &self.queries {
            let text = query.text.replace(['\t', '\n', '\r'], " ");
            writeln!(output, "{}\t{text}", query.id).map_err(Error::io(path))?;
        }
        Ok(self.queries.len() as u64)
    }

    /// Number of queries.
    pub fn len(&self) -> usize {
        self.queries.len()
    }

    /// Whether there is no query.
    pub fn is_empty(&self) -> bool {
        self.queries.is_empty()
    }

    /// Query `index`.
    pub fn query(&self, index: QueryIndex) -> &Query {
        &self.queries[index.at()]
    }

    /// The query with this id.
    pub fn find(&self, id: &str) -> Option<QueryIndex> {
        self.by_id.get(id).copied()
    }

    /// All queries with their positions, in input order.
    pub fn iter(&self) -> impl Iterator<Item = (QueryIndex, &Query)> {
        self.queries.iter().enumerate().map(|(index, query)| (QueryIndex(index as u32), query))
    }
}
