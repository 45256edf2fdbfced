//! Texts to tokens, with the passages' tokens remembered: a passage takes part in many steps.

use std::collections::HashMap;

use crate::batch::Step;
use crate::corpus::{Corpus, Language, Passage, PassageIndex};
use crate::dataset::{Dataset, Split};
use crate::encode::EncoderInput;
use crate::engine::TokenBatch;
use crate::error::Result;

/// Most token ids that are remembered: 128 MiB.
const REMEMBERED: usize = 32 << 20;

/// The texts of a data set as token sequences.
pub(super) struct Texts<'a> {
    dataset: &'a Dataset,
    input: EncoderInput,
    remembered: HashMap<(&'a Language, PassageIndex), Vec<u32>>,
    tokens: usize,
}

impl<'a> Texts<'a> {
    pub(super) fn new(dataset: &'a Dataset, input: EncoderInput) -> Self {
        Self { dataset, input, remembered: HashMap::new(), tokens: 0 }
    }

    /// Query texts, in order.
    pub(super) fn queries(&self, texts: &[&str]) -> Result<TokenBatch> {
        self.input.queries(texts)
    }

    /// Passages of one corpus, in order.
    pub(super) fn passages(&self, corpus: &Corpus, passages: &[PassageIndex]) -> Result<TokenBatch> {
        let passages: Vec<Passage<'_>> = passages.iter().map(|index| corpus.passage(*index)).collect();
        self.input.passages(&passages)
    }

    /// A step's queries, then the passages of its columns, in order. The plan was checked against the data set.
    pub(super) fn step(&mut self, step: &Step) -> Result<TokenBatch> {
        let mut texts = Vec::with_capacity(step.rows.len());
        for row in &step.rows {
            let queries = &self.dataset.partition(&row.language)?.split(Split::Train)?.queries;
            let index = queries.find(&row.query).expect("the plan was checked against the data set");
            texts.push(queries.query(index).text.as_str());
        }
        let mut tokens = self.input.queries(&texts)?;
        let columns = self.remember(&step.columns())?;
        columns.iter().for_each(|column| tokens.push(&self.remembered[column]));
        Ok(tokens)
    }

    /// Tokenizes those columns that are not remembered, and returns the keys of all.
    fn remember(&mut self, columns: &[(&Language, &str)]) -> Result<Vec<(&'a Language, PassageIndex)>> {
        if self.tokens > REMEMBERED {
            self.remembered.clear();
            self.tokens = 0;
        }
        let mut keys = Vec::with_capacity(columns.len());
        for (language, passage) in columns {
            let partition = self.dataset.partition(language)?;
            let index = partition.corpus.find(passage).expect("the plan was checked against the data set");
            keys.push((&partition.language, index));
        }
        for chunk in keys.chunk_by(|a, b| a.0 == b.0) {
            let unknown = chunk.iter().filter(|key| !self.remembered.contains_key(*key));
            let passages: Vec<PassageIndex> = unknown.map(|(_, index)| *index).collect();
            let language = chunk[0].0;
            let batch = self.passages(&self.dataset.partition(language)?.corpus, &passages)?;
            self.tokens += batch.tokens();
            for (number, index) in passages.into_iter().enumerate() {
                self.remembered.insert((language, index), batch.sequence(number).to_vec());
            }
        }
        Ok(keys)
    }
}
