//! What is known of each query before its negatives are drawn: positives, human negatives, listed candidates with verdicts.

use std::collections::{HashMap, HashSet};

use serde::de::DeserializeOwned;

use super::fill::Rules;
use super::{SampleInputs, UnjudgedPolicy};
use crate::artefact::Artefact;
use crate::corpus::PassageIndex;
use crate::dataset::{Partition, Split};
use crate::error::{Error, Result};
use crate::generate::QuerySupplement;
use crate::judge::{Judgement, QueryJudgements, Verdict};
use crate::mine::QueryCandidates;
use crate::mine::filter::{Anchor, self, Miner};
use crate::qrels::Qrels;
use crate::queries::QueryIndex;

/// The file of a language in the artefacts of `mine`, `judge` and `generate`.
pub(super) fn file(partition: &Partition) -> String {
    format!("{}.jsonl", partition.language)
}

/// A candidate of the first list or of the supplement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Listed {
    pub(super) passage: PassageIndex,
    pub(super) rank: u32,
    pub(super) verdict: Verdict,
    /// Whether it may be a negative without a verdict: by the policy, or, without a judge, by the miner's rule.
    pub(super) passes: bool,
}

/// One query, ready to draw negatives for.
#[derive(Debug)]
pub(super) struct QueryMaterial {
    pub(super) query: QueryIndex,
    /// The highest grades first, then by position.
    pub(super) positives: Vec<PassageIndex>,
    /// Judged not relevant by people, by position.
    pub(super) human: Vec<PassageIndex>,
    pub(super) first: Vec<Listed>,
    pub(super) supplement: Vec<Listed>,
}

impl QueryMaterial {
    /// Both lists, one after the other.
    pub(super) fn listed(&self) -> impl Iterator<Item = &Listed> {
        self.first.iter().chain(&self.supplement)
    }

    /// Positives, then whatever the judge graded 1 or 2.
    pub(super) fn relevant(&self) -> impl Iterator<Item = PassageIndex> {
        let eliminated = self.listed().filter(|listed| listed.verdict.is_eliminated());
        self.positives.iter().copied().chain(eliminated.map(|listed| listed.passage))
    }
}

/// Train queries that do not become examples.
#[derive(Default)]
pub(super) struct Dropped {
    pub(super) not_mined: usize,
    pub(super) without_positive: usize,
}

/// The material of all mined queries of a language, in query order.
pub(super) fn read(
    inputs: &SampleInputs,
    partition: &Partition,
    rules: &Rules,
) -> Result<(Vec<QueryMaterial>, Dropped)> {
    let train = partition.split(Split::Train)?;
    let candidates = by_query(inputs.candidates, partition, |line: &QueryCandidates| &line.query)?;
    let judgements = optional(inputs.judgements, partition, |line: &QueryJudgements| &line.query)?;
    let supplements = optional(inputs.supplement, partition, |line: &QuerySupplement| &line.query)?;
    let mut dropped = Dropped::default();
    let mut queries = Vec::new();
    for (index, query) in train.queries.iter() {
        let Some(listed) = candidates.get(&query.id) else {
            dropped.not_mined += 1;
            continue;
        };
        let positives = positives(&train.qrels, index);
        if positives.is_empty() {
            dropped.without_positive += 1;
            continue;
        }
        let judged = judgements.get(&query.id).map(|line| line.judgements.as_slice());
        let supplement = match supplements.get(&query.id) {
            Some(line) => resolve_supplement(line, listed, partition, rules)?,
            None => Vec::new(),
        };
        let human = train.qrels.judged_negatives(index).collect();
        let first = resolve(listed, judged, partition, rules)?;
        queries.push(QueryMaterial { query: index, positives, human, first, supplement });
    }
    Ok((queries, dropped))
}

fn positives(qrels: &Qrels, query: QueryIndex) -> Vec<PassageIndex> {
    let mut positives: Vec<PassageIndex> = qrels.positives(query).collect();
    positives.sort_by_key(|passage| std::cmp::Reverse(qrels.grade(query, *passage)));
    positives
}

/// The lines of a language by query id; an error names a query that the data set does not have.
fn by_query<T: DeserializeOwned>(
    artefact: &Artefact,
    partition: &Partition,
    id: impl Fn(&T) -> &String,
) -> Result<HashMap<String, T>> {
    let name = file(partition);
    let queries = &partition.split(Split::Train)?.queries;
    let mut lines = HashMap::new();
    for (number, line) in artefact.read_lines::<T>(&name)?.into_iter().enumerate() {
        let query = id(&line).clone();
        let refuse = |why| Err(Error::line(artefact.path(&name), number as u64 + 1, format!("query `{query}` {why}")));
        if queries.find(&query).is_none() {
            return refuse("is not among the train queries; run the stage again on this data set");
        }
        if lines.contains_key(&query) {
            return refuse("stands twice; run the stage again");
        }
        lines.insert(query, line);
    }
    Ok(lines)
}

fn optional<T: DeserializeOwned>(
    artefact: Option<&Artefact>,
    partition: &Partition,
    id: impl Fn(&T) -> &String,
) -> Result<HashMap<String, T>> {
    match artefact.filter(|artefact| artefact.has(&file(partition))) {
        Some(artefact) => by_query(artefact, partition, id),
        None => Ok(HashMap::new()),
    }
}

/// Candidates with their verdicts; without a judge people's labels and the miner's rule stand in.
fn resolve(
    listed: &QueryCandidates,
    judgements: Option<&[Judgement]>,
    partition: &Partition,
    rules: &Rules,
) -> Result<Vec<Listed>> {
    let passing = passing(listed, rules);
    if let Some(judgements) = judgements {
        check_alignment(listed, judgements, partition)?;
    }
    let resolve = |(place, candidate): (usize, &crate::mine::Candidate)| {
        let unasked = if candidate.human_grade.is_some() { Verdict::Human } else { Verdict::Unjudged };
        let passage = partition.corpus.find(&candidate.passage).ok_or_else(|| {
            let (id, query) = (&candidate.passage, &listed.query);
            Error::data(format!(
                "`{}` has no passage `{id}`, a candidate of query `{query}`; mine again",
                partition.language
            ))
        })?;
        let verdict = judgements.map_or(unasked, |judgements| judgements[place].verdict);
        Ok(Listed { passage, rank: candidate.rank, verdict, passes: passing.contains(&place) })
    };
    listed.candidates.iter().enumerate().map(resolve).collect()
}

/// The supplement as a list of its own, beside the same positives.
fn resolve_supplement(
    supplement: &QuerySupplement,
    first: &QueryCandidates,
    partition: &Partition,
    rules: &Rules,
) -> Result<Vec<Listed>> {
    let list = QueryCandidates {
        query: supplement.query.clone(),
        positives: first.positives.clone(),
        candidates: supplement.candidates.clone(),
    };
    let judgements = rules.judged.then_some(supplement.judgements.as_slice());
    resolve(&list, judgements, partition, rules)
}

/// Places in the list that may be negatives without a verdict.
fn passing(listed: &QueryCandidates, rules: &Rules) -> HashSet<usize> {
    let kept = |miner: &Miner| filter::keep(miner, listed).into_iter().collect();
    match (rules.judged, rules.config.unjudged) {
        (false, _) => kept(&rules.config.miner),
        (true, UnjudgedPolicy::Exclude) => HashSet::new(),
        (true, UnjudgedPolicy::Keep) => (0..listed.candidates.len()).collect(),
        (true, UnjudgedPolicy::Percentage) => kept(&percentage(&rules.config.miner)),
    }
}

/// The percentage rule: the configured one where the miner is of this kind.
fn percentage(miner: &Miner) -> Miner {
    match miner {
        Miner::Percentage { .. } => miner.clone(),
        _ => Miner::Percentage { share: 0.1, anchor: Anchor::Max },
    }
}

fn check_alignment(listed: &QueryCandidates, judgements: &[Judgement], partition: &Partition) -> Result<()> {
    let candidates = listed.candidates.iter().map(|candidate| &candidate.passage);
    if candidates.eq(judgements.iter().map(|judgement| &judgement.passage)) {
        return Ok(());
    }
    let (query, language) = (&listed.query, &partition.language);
    let (expected, got) = (listed.candidates.len(), judgements.len());
    Err(Error::data(format!(
        "query `{query}` of `{language}`: expected one judgement for each of {expected} candidates in their order, got \
         {got} that do not match; run `judge` again"
    )))
}
