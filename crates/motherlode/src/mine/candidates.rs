//! Candidates of one query: positives and their twins out, evidence and scores of the untouched model in.

use std::collections::{HashMap, HashSet};

use super::{Candidate, Evidence, MineConfig, QueryCandidates};
use crate::corpus::PassageIndex;
use crate::dataset::Partition;
use crate::encode::Matrix;
use crate::qrels::Qrels;
use crate::queries::QueryIndex;
use crate::run::Scored;
use crate::text::normalise::{TextDigest, text_digest};

/// One query's ranked lists.
pub struct Lists<'a> {
    /// The fused list.
    pub fused: &'a [Scored],
    /// Each member's name and list.
    pub members: Vec<(&'a str, &'a [Scored])>,
}

/// How many passages of the fused list were positives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Labelled positive for the query.
    pub by_id: usize,
    /// The same text as a positive, under another id.
    pub by_text: usize,
}

/// Makes candidates for the queries of one language.
pub struct Miners<'a> {
    partition: &'a Partition,
    qrels: &'a Qrels,
    passages: Matrix<'a>,
    config: &'a MineConfig,
}

impl<'a> Miners<'a> {
    /// For one language; `passages` are the vectors of the untouched model.
    pub fn new(partition: &'a Partition, qrels: &'a Qrels, passages: Matrix<'a>, config: &'a MineConfig) -> Self {
        Self { partition, qrels, passages, config }
    }

    /// The candidates of a query, in the fused order, to depth K and deeper as configured.
    ///
    /// `vector` is the untouched model's vector of the judged query, also where `lists` were found through another
    /// text, so that scores can be held against those of the positives.
    pub fn candidates(&self, query: QueryIndex, id: &str, lists: &Lists<'_>, vector: &[f32]) -> (QueryCandidates, Removed) {
        let positives: Vec<PassageIndex> = self.qrels.positives(query).collect();
        let twins: HashSet<TextDigest> = positives.iter().map(|passage| self.digest(*passage)).collect();
        let ranks: Vec<(&str, HashMap<PassageIndex, (u32, f32)>)> = lists.members.iter().map(|(name, list)| (*name, by_passage(list))).collect();
        let mut removed = Removed::default();
        let mut candidates = Vec::new();
        for scored in lists.fused {
            if candidates.len() == self.config.depth + self.config.deeper {
                break;
            }
            if positives.contains(&scored.passage) {
                removed.by_id += 1;
            } else if twins.contains(&self.digest(scored.passage)) {
                removed.by_text += 1;
            } else {
                candidates.push(Candidate {
                    passage: self.partition.corpus.id(scored.passage).to_owned(),
                    rank: candidates.len() as u32 + 1,
                    score: scored.score,
                    model_score: self.similarity(vector, scored.passage),
                    human_grade: self.qrels.grade(query, scored.passage),
                    evidence: evidence(&ranks, scored.passage),
                });
            }
        }
        (QueryCandidates { query: id.to_owned(), positives: self.scored_positives(&positives, vector), candidates }, removed)
    }

    fn scored_positives(&self, positives: &[PassageIndex], vector: &[f32]) -> Vec<(String, f32)> {
        let id = |passage: &PassageIndex| self.partition.corpus.id(*passage).to_owned();
        let mut scored: Vec<(String, f32)> = positives.iter().map(|p| (id(p), self.similarity(vector, *p))).collect();
        scored.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| b.0.cmp(&a.0)));
        scored
    }

    fn digest(&self, passage: PassageIndex) -> TextDigest {
        text_digest(self.partition.corpus.passage(passage).text)
    }

    fn similarity(&self, vector: &[f32], passage: PassageIndex) -> f32 {
        self.config.similarity.of(vector, self.passages.row(passage.at()))
    }
}

fn by_passage(list: &[Scored]) -> HashMap<PassageIndex, (u32, f32)> {
    list.iter().enumerate().map(|(place, scored)| (scored.passage, (place as u32 + 1, scored.score))).collect()
}

fn evidence(ranks: &[(&str, HashMap<PassageIndex, (u32, f32)>)], passage: PassageIndex) -> Vec<Evidence> {
    let said = |(name, ranks): &(&str, HashMap<PassageIndex, (u32, f32)>)| {
        let (rank, score) = *ranks.get(&passage)?;
        Some(Evidence { retriever: (*name).to_owned(), rank, score })
    };
    ranks.iter().filter_map(said).collect()
}
