//! Calibration: pairs that people judged, judged again by the model, say how far its verdicts can be believed.
//!
//! A positive is judged with itself and its text twins taken out of the reference, so only queries with another positive
//! left tell anything of sensitivity; a labelled candidate stands in no reference, so it always does. Pairs of grade 0
//! tell of specificity. [`measure`](super::measure) makes rates of them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Judge;
use super::ask::Case;
use super::config::Reference;
use super::labels::{Labelled, Labels};
use super::select::{Lists, drawn};
use super::verdict::Opinion;
use crate::corpus::{Language, PassageIndex};
use crate::dataset::Partition;
use crate::error::Result;
use crate::mine::QueryCandidates;
use crate::queries::QueryIndex;
use crate::text::normalise::text_digest;

/// Where people's word on a pair comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The data set.
    Qrels,
    /// A file of labels.
    Labels,
}

/// A pair that people judged and the judge judged again: a line of `calibration.jsonl` in the artefact of `judge`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CalibrationPair {
    /// The language.
    pub language: Language,
    /// The query's id.
    pub query: String,
    /// The passage's id.
    pub passage: String,
    /// Whether people find it relevant.
    pub relevant: bool,
    /// Where they say so.
    pub source: Source,
    /// For how many pairs it stands, where people labelled a stratified sample.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub weight: f64,
    /// The judge's grade; absent where its replies could not be read. A cheap judge's decision is 0 or 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grade: Option<u8>,
    /// The mean grade of the large judge's readable votes, halved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed: Option<f64>,
    /// The cheap judge's probability.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// The untouched model's score, where mining left one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_score: Option<f32>,
}

/// The weight of a pair that stands for itself.
pub(super) fn one() -> f64 {
    1.0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_one(weight: &f64) -> bool {
    weight.to_bits() == one().to_bits()
}

/// Judged pairs of one query, one side and one weight.
pub(super) struct Trial<'a> {
    pub(super) is_positive: bool,
    pub(super) weight: f64,
    pub(super) source: Source,
    pub(super) case: Case<'a>,
}

struct Pair {
    query: QueryIndex,
    passage: PassageIndex,
    is_positive: bool,
    weight: f64,
    source: Source,
    /// The positive and its twins, which must not stand in the reference.
    without: Vec<PassageIndex>,
}

impl Pair {
    /// Negatives of a query share a reference.
    fn are_judged_together(&self, other: &Self) -> bool {
        let is_one_weight = self.weight.to_bits() == other.weight.to_bits();
        !self.is_positive && !other.is_positive && self.query == other.query && is_one_weight
    }
}

/// A keyed random slice of every language's judged pairs: `judge.calibration` of each side where there are so many; and
/// all labelled pairs.
pub(super) fn trials<'a>(
    judge: &Judge<'a>,
    languages: &[&Language],
    labels: &Labels,
    seed: u64,
) -> Result<Vec<Trial<'a>>> {
    let mut trials: Vec<Trial> = Vec::new();
    for language in languages {
        let partition = judge.dataset.partition(language)?;
        let queries = &partition.split(judge.split)?.queries;
        let name =
            |pair: &Pair| format!("{language}/{}/{}", queries.query(pair.query).id, partition.corpus.id(pair.passage));
        let labelled = labelled(judge, partition, labels)?;
        let known: BTreeSet<_> = labelled.iter().map(|pair| (pair.query, pair.passage)).collect();
        let pairs = pairs(judge, partition)?.into_iter().filter(|pair| !known.contains(&(pair.query, pair.passage)));
        let (positives, negatives): (Vec<Pair>, Vec<Pair>) = pairs.partition(|pair| pair.is_positive);
        let drawn = |side| drawn(side, judge.config.calibration, seed, "judge calibration", name);
        for side in [drawn(positives), drawn(negatives), labelled] {
            // One case for the negatives of a query, since they share a reference; one for each positive.
            for run in side.chunk_by(Pair::are_judged_together) {
                let passages = run.iter().map(|pair| pair.passage).collect();
                let case = Case::new(partition, judge.split, run[0].query, &run[0].without, judge.config)?;
                let Pair { is_positive, weight, source, .. } = run[0];
                trials.push(Trial { is_positive, weight, source, case: Case { passages, ..case } });
            }
        }
    }
    Ok(trials)
}

/// All judged pairs that can be judged fairly, by query, then passage.
fn pairs(judge: &Judge, partition: &Partition) -> Result<Vec<Pair>> {
    let judged = partition.split(judge.split)?;
    let digest = |passage: PassageIndex| text_digest(partition.corpus.passage(passage).text);
    let needs_reference = judge.config.reference == Reference::Positives;
    let pair = |query, passage, is_positive, without| Pair {
        query,
        passage,
        is_positive,
        weight: one(),
        source: Source::Qrels,
        without,
    };
    let mut pairs = Vec::new();
    for (query, _) in judged.queries.iter() {
        let positives: Vec<_> = judged.qrels.positives(query).map(|positive| (positive, digest(positive))).collect();
        for (passage, own) in &positives {
            let twins = positives.iter().filter(|(_, digest)| digest == own);
            let without: Vec<PassageIndex> = twins.map(|(twin, _)| *twin).collect();
            if !needs_reference || without.len() < positives.len() {
                pairs.push(pair(query, *passage, true, without));
            }
        }
        if !needs_reference || !positives.is_empty() {
            let negatives = judged.qrels.judged_negatives(query);
            pairs.extend(negatives.map(|passage| pair(query, passage, false, Vec::new())));
        }
    }
    Ok(pairs)
}

/// The labelled pairs of a language that can be judged fairly, by query, negatives first.
fn labelled(judge: &Judge, partition: &Partition, labels: &Labels) -> Result<Vec<Pair>> {
    let judged = partition.split(judge.split)?;
    let digest = |passage: PassageIndex| text_digest(partition.corpus.passage(passage).text);
    let needs_reference = judge.config.reference == Reference::Positives;
    let mut pairs = Vec::new();
    for Labelled { query, passage, is_relevant: is_positive, weight } in labels.of(&partition.language) {
        let own = digest(passage);
        let positives: Vec<PassageIndex> = judged.qrels.positives(query).collect();
        let without: Vec<PassageIndex> =
            positives.iter().copied().filter(|positive| is_positive && digest(*positive) == own).collect();
        if !needs_reference || without.len() < positives.len() {
            pairs.push(Pair { query, passage, is_positive, weight, source: Source::Labels, without });
        }
    }
    pairs.sort_by_key(|pair| (pair.query, pair.is_positive, pair.passage));
    Ok(pairs)
}

/// What the judge said of a trial's passage.
pub(super) struct Said {
    pub(super) opinion: Opinion,
    /// The cheap judge's probability.
    pub(super) probability: Option<f64>,
    /// The cheap judge's decision, where its word counts.
    pub(super) decided: Option<u8>,
}

/// The trials' pairs, as far as they were answered.
///
/// *Order*: languages by tag, positives before negatives before labels, each by query.
pub(super) fn rows(trials: &[Trial], said: Vec<Vec<Said>>, lists: &Lists) -> Vec<CalibrationPair> {
    let scores: BTreeMap<&Language, Scores> = lists.iter().map(|(tag, lists)| (tag, Scores::of(lists))).collect();
    let mut rows = Vec::new();
    for (trial, said) in trials.iter().zip(said) {
        let Trial { is_positive, weight, source, case } = trial;
        for (passage, said) in case.passages.iter().zip(said) {
            if said.opinion == Opinion::Unjudged && said.decided.is_none() {
                continue;
            }
            let (query, passage) = (case.query.id.clone(), case.corpus.id(*passage).to_owned());
            let claimed = match said.opinion {
                Opinion::Graded { claimed, .. } => Some(claimed),
                _ => None,
            };
            rows.push(CalibrationPair {
                language: case.language.clone(),
                relevant: *is_positive,
                source: *source,
                weight: *weight,
                grade: said.decided.or(said.opinion.grade()),
                claimed,
                probability: said.probability,
                model_score: scores.get(case.language).and_then(|scores| scores.get(&query, &passage)),
                query,
                passage,
            });
        }
    }
    rows
}

/// The untouched model's scores of positives and candidates, by query and passage.
struct Scores<'a>(BTreeMap<(&'a str, &'a str), f32>);

impl<'a> Scores<'a> {
    fn of(lists: &'a [QueryCandidates]) -> Self {
        let of_list = |list: &'a QueryCandidates| {
            let positives = list.positives.iter().map(|(id, score)| (id.as_str(), *score));
            let candidates = list.candidates.iter().map(|it| (it.passage.as_str(), it.model_score));
            positives.chain(candidates).map(|(id, score)| ((list.query.as_str(), id), score))
        };
        Self(lists.iter().flat_map(of_list).collect())
    }

    fn get(&self, query: &str, passage: &str) -> Option<f32> {
        self.0.get(&(query, passage)).copied()
    }
}
