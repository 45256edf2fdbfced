//! Which candidates are judged, and the judging of any lists of candidates.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;

use super::ask::{Case, opinions};
use super::config::{JudgeConfig, Method};
use super::verdict::Opinion;
use super::{Judge, Judged, Judgement, QueryJudgements, Verdict};
use crate::corpus::{Language, PassageIndex};
use crate::dataset::{Partition, Split};
use crate::error::{Error, Result};
use crate::mine::{Candidate, QueryCandidates};
use crate::progress::Progress;
use crate::queries::QueryIndex;

/// The place of a candidate: number of the language, of the query in its list, of the candidate.
type Place = (usize, usize, usize);

/// Judges any lists of candidates, with the reference of the query that each list names.
///
/// Pairs that people judged, that lie deeper than `judge.depth` or beyond `judge.max_pairs` are not sent. In a language
/// of `abstained` the grades are kept but no verdict follows.
///
/// *Order*: languages, queries and candidates as given.
pub fn judge_candidates(
    judge: &Judge,
    lists: &BTreeMap<Language, Vec<QueryCandidates>>,
    abstained: &BTreeSet<Language>,
    progress: &Progress,
) -> Result<Judged> {
    let chosen = chosen(lists, judge.config);
    let cases = cases(judge, lists, &chosen)?;
    let mut answers = opinions(&cases, judge.config, judge.llm, progress)?.into_iter().flatten();
    let mut judged = Judged::default();
    for (language_number, (language, queries)) in lists.iter().enumerate() {
        let mut rows = Vec::with_capacity(queries.len());
        for (query_number, query) in queries.iter().enumerate() {
            let mut judgements = Vec::with_capacity(query.candidates.len());
            for (number, candidate) in query.candidates.iter().enumerate() {
                let is_chosen = chosen.contains(&(language_number, query_number, number));
                let opinion = is_chosen.then(|| answers.next().expect("one opinion for every chosen candidate"));
                judged.pairs += usize::from(is_chosen);
                judged.unpaid += usize::from(opinion == Some(Opinion::Unjudged));
                judgements.push(judgement(candidate, opinion, abstained.contains(language)));
            }
            rows.push(QueryJudgements { query: query.query.clone(), judgements });
        }
        judged.lists.insert(language.clone(), rows);
    }
    Ok(judged)
}

fn judgement(candidate: &Candidate, opinion: Option<Opinion>, abstains: bool) -> Judgement {
    let mut judgement = Judgement {
        passage: candidate.passage.clone(),
        verdict: if candidate.human_grade.is_some() { Verdict::Human } else { Verdict::Unjudged },
        accuracy: None,
        completeness: None,
        ledger: Vec::new(),
    };
    let Some(opinion) = opinion else { return judgement };
    judgement.verdict = opinion.verdict();
    if abstains && judgement.verdict != Verdict::Unjudged {
        judgement.verdict = Verdict::Abstained;
    }
    match opinion {
        Opinion::Graded { grades, ledger, .. } => {
            judgement.accuracy = Some(grades.accuracy);
            judgement.completeness = Some(grades.completeness);
            judgement.ledger = ledger;
        }
        Opinion::Unknown { ledger } => judgement.ledger = ledger,
        Opinion::Unjudged => {}
    }
    judgement
}

/// The candidates to judge.
///
/// *Order and ties* of `max_pairs`: model score descending, then language, query and rank ascending.
pub(super) fn chosen(lists: &BTreeMap<Language, Vec<QueryCandidates>>, config: &JudgeConfig) -> BTreeSet<Place> {
    if config.method == Method::None {
        return BTreeSet::new();
    }
    let mut places: Vec<(f32, Place)> = Vec::new();
    for (language, queries) in lists.values().enumerate() {
        for (query, list) in queries.iter().enumerate() {
            let wanted = |candidate: &Candidate| candidate.human_grade.is_none() && candidate.rank <= config.depth;
            let numbered = list.candidates.iter().enumerate().filter(|(_, candidate)| wanted(candidate));
            places.extend(numbered.map(|(number, candidate)| (candidate.model_score, (language, query, number))));
        }
    }
    if let Some(most) = config.max_pairs {
        places.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        places.truncate(most);
    }
    places.into_iter().map(|(_, place)| place).collect()
}

/// One case for every query with chosen candidates.
pub(super) fn cases<'a>(
    judge: &Judge<'a>,
    lists: &BTreeMap<Language, Vec<QueryCandidates>>,
    chosen: &BTreeSet<Place>,
) -> Result<Vec<Case<'a>>> {
    let mut cases = Vec::new();
    for (language_number, (language, queries)) in lists.iter().enumerate() {
        let partition = judge.dataset.partition(language)?;
        for (query_number, list) in queries.iter().enumerate() {
            let numbers =
                chosen.range((language_number, query_number, 0)..=(language_number, query_number, usize::MAX));
            let passage = |(_, _, number): &Place| passage_named(partition, &list.candidates[*number].passage);
            let passages = numbers.map(passage).collect::<Result<Vec<_>>>()?;
            if !passages.is_empty() {
                let query = query_named(partition, judge.split, &list.query)?;
                cases.push(Case { passages, ..Case::new(partition, judge.split, query, &[], judge.config)? });
            }
        }
    }
    Ok(cases)
}

pub(crate) fn passage_named(partition: &Partition, id: &str) -> Result<PassageIndex> {
    let language = &partition.language;
    partition.corpus.find(id).ok_or_else(|| {
        Error::data(format!("the candidate `{id}` is no passage of `{language}`; mine this data set again"))
    })
}

pub(crate) fn query_named(partition: &Partition, split: Split, id: &str) -> Result<QueryIndex> {
    let language = &partition.language;
    partition.split(split)?.queries.find(id).ok_or_else(|| {
        Error::data(format!("`{id}` is no {} query of `{language}`; mine this data set again", split.name()))
    })
}

/// `count` of the items, drawn by a random number that each item's name has for itself; in their given order.
///
/// Source: the items with the smallest keyed random numbers, so that more items or a larger `count` keep those drawn.
pub(super) fn drawn<T>(items: Vec<T>, count: usize, seed: u64, purpose: &str, name: impl Fn(&T) -> String) -> Vec<T> {
    let key = |item: &T| {
        let name = name(item);
        (crate::random::keyed(seed, purpose, &name).random::<u64>(), name)
    };
    let mut keys: Vec<((u64, String), usize)> =
        items.iter().enumerate().map(|(place, item)| (key(item), place)).collect();
    keys.sort();
    let chosen: BTreeSet<usize> = keys.into_iter().take(count).map(|(_, place)| place).collect();
    items.into_iter().enumerate().filter(|(place, _)| chosen.contains(place)).map(|(_, item)| item).collect()
}
