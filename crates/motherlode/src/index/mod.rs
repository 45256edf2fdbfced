//! Indexes over a corpus: BM25 postings and exact vector search.

pub mod bm25;
pub mod exact;
mod product;
pub(crate) mod top;
