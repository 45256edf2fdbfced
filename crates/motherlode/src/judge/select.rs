//! The judging of lists of candidates: which pairs are asked about, in which order, and what becomes of each.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;

use super::ask::{Case, opinions};
use super::cascade::{self, Decision, Screening};
use super::priority::{Place, chosen};
use super::verdict::Opinion;
use super::{Judge, Judged, Judgement, QueryJudgements, Screened, Standing, Verdict};
use crate::corpus::{Language, PassageIndex};
use crate::dataset::{Partition, Split};
use crate::error::{Error, Result};
use crate::mine::{Candidate, QueryCandidates};
use crate::progress::Progress;
use crate::queries::QueryIndex;

/// Waves in which pairs are asked about where the budget may end: what matters more comes in an earlier one.
const WAVES: usize = 32;
/// Pairs of a wave, at least and at most: as many as keep servers busy, and as few as make an early end a good one.
const WAVE: (usize, usize) = (8, 256);

/// The lists of all languages.
pub(super) type Lists = BTreeMap<Language, Vec<QueryCandidates>>;

/// What was asked and answered, by place.
#[derive(Default)]
pub(super) struct Asked {
    pub(super) opinions: BTreeMap<Place, Opinion>,
    /// What the cheap judge said, where there is one.
    pub(super) screening: Screening,
}

/// Judges any lists of candidates, with the reference of the query that each list names.
///
/// Pairs that people judged, that lie deeper than `judge.depth` or beyond `judge.max_pairs` are not sent. In a language
/// that `standing` says abstains the grades are kept but no verdict follows; a cheap judge decides by its thresholds.
///
/// *Order*: languages, queries and candidates as given.
pub fn judge_candidates(judge: &Judge, lists: &Lists, standing: &Standing, progress: &Progress) -> Result<Judged> {
    let places = chosen(lists, judge.config);
    let asked = match (&judge.config.cascade, standing.thresholds) {
        (Some(config), Some(thresholds)) => {
            let screening = cascade::screen(judge, config, lists, &places, progress)?;
            let screening = Screening { thresholds: Some(thresholds), ..screening };
            let open: Vec<Place> =
                places.iter().copied().filter(|place| screening.decision(*place).is_none()).collect();
            Asked { opinions: ask(judge, lists, &open, progress)?, screening }
        }
        _ => Asked { opinions: ask(judge, lists, &places, progress)?, screening: Screening::default() },
    };
    Ok(judged(lists, &places, &asked, &standing.abstained))
}

/// The large judge's opinions on these places, the most important first: in waves, where the budget may end.
pub(super) fn ask(
    judge: &Judge,
    lists: &Lists,
    places: &[Place],
    progress: &Progress,
) -> Result<BTreeMap<Place, Opinion>> {
    let wave = if judge.llm.is_limited() { (places.len() / WAVES).clamp(WAVE.0, WAVE.1) } else { usize::MAX };
    let mut asked = BTreeMap::new();
    for places in places.chunks(wave.min(places.len().max(1))) {
        let places: BTreeSet<Place> = places.iter().copied().collect();
        let cases = cases(judge, lists, &places)?;
        let answers = opinions(&cases, judge.config, judge.llm, progress)?;
        asked.extend(places.into_iter().zip(answers.into_iter().flatten()));
    }
    Ok(asked)
}

/// Every candidate with its fate.
pub(super) fn judged(lists: &Lists, places: &[Place], asked: &Asked, abstained: &BTreeSet<Language>) -> Judged {
    let chosen: BTreeSet<Place> = places.iter().copied().collect();
    let mut judged = Judged { pairs: chosen.len(), ..Judged::default() };
    for (language_number, (language, queries)) in lists.iter().enumerate() {
        let abstains = abstained.contains(language);
        let row = |(query_number, list): (usize, &QueryCandidates)| {
            let judgement = |(number, candidate): (usize, &Candidate)| {
                judgement(candidate, asked, (language_number, query_number, number), abstains)
            };
            let judgements = list.candidates.iter().enumerate().map(judgement).collect();
            QueryJudgements { query: list.query.clone(), judgements }
        };
        judged.lists.insert(language.clone(), queries.iter().enumerate().map(row).collect());
    }
    let is_unpaid = |place: &&Place| match asked.screening.decision(**place) {
        Some(_) => false,
        None => asked.opinions.get(*place).is_none_or(|opinion| *opinion == Opinion::Unjudged),
    };
    judged.unpaid = chosen.iter().filter(is_unpaid).count();
    judged
}

/// The large judge's word counts where there is one, then the cheap judge's.
fn judgement(candidate: &Candidate, asked: &Asked, place: Place, abstains: bool) -> Judgement {
    let opinion = asked.opinions.get(&place).filter(|opinion| **opinion != Opinion::Unjudged);
    let decision = if opinion.is_some() { None } else { asked.screening.decision(place) };
    let mut judgement = Judgement {
        passage: candidate.passage.clone(),
        verdict: if candidate.human_grade.is_some() { Verdict::Human } else { Verdict::Unjudged },
        accuracy: None,
        completeness: None,
        screened: asked.screening.screens.get(&place).map(|screen| Screened {
            probability: screen.probability,
            decided: decision.is_some(),
            ledger: screen.ledger.clone(),
        }),
        ledger: Vec::new(),
    };
    match (opinion, decision) {
        (Some(opinion), _) => judgement.verdict = opinion.verdict(),
        (None, Some(Decision::Negative)) => judgement.verdict = Verdict::Negative,
        (None, Some(Decision::Relevant)) => judgement.verdict = Verdict::Excluded,
        (None, None) => return judgement,
    }
    if abstains {
        judgement.verdict = Verdict::Abstained;
    }
    match opinion {
        Some(Opinion::Graded { grades, ledger, .. }) => {
            judgement.accuracy = Some(grades.accuracy);
            judgement.completeness = Some(grades.completeness);
            judgement.ledger.clone_from(ledger);
        }
        Some(Opinion::Unknown { ledger }) => judgement.ledger.clone_from(ledger),
        Some(Opinion::Unjudged) | None => {}
    }
    judgement
}

/// One case for every query with chosen candidates.
pub(super) fn cases<'a>(judge: &Judge<'a>, lists: &Lists, chosen: &BTreeSet<Place>) -> Result<Vec<Case<'a>>> {
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
pub(crate) fn drawn<T>(items: Vec<T>, count: usize, seed: u64, purpose: &str, name: impl Fn(&T) -> String) -> Vec<T> {
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
