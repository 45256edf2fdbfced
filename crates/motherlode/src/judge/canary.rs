//! Canaries: probes whose right answer is known, which tell in each language whether the judge can be believed.
//!
//! For some queries of a language the positive itself must be graded 2, and a random passage of another article, which
//! nobody judged and no retriever found, must be graded 0.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::ask::Case;
use super::select::{drawn, query_named};
use super::verdict::Opinion;
use super::{Judge, JudgeConfig};
use crate::artefact::Artefact;
use crate::corpus::{Language, PassageIndex};
use crate::dataset::Partition;
use crate::error::{Error, Result};
use crate::mine::QueryCandidates;
use crate::queries::QueryIndex;
use crate::text::normalise::text_digest;

/// One probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The query's id.
    pub query: String,
    /// The passage's id.
    pub passage: String,
    /// The grade that is right: 2 for the positive, 0 for the far passage.
    pub expected: u8,
    /// The grade that was given; absent where the reply could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grade: Option<u8>,
}

/// The probes of one language.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canaries {
    /// Probes that came out right.
    pub passed: usize,
    /// Probes that were answered.
    pub of: usize,
    /// Whether too few passed, so that the language's verdicts do not count.
    pub abstained: bool,
    /// The answered probes, by query.
    pub probes: Vec<Probe>,
}

/// The languages that abstained, by `canaries.json` of an artefact of `judge`.
pub fn abstained(judgements: &Artefact) -> Result<BTreeSet<Language>> {
    let path = judgements.path("canaries.json");
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    let canaries: BTreeMap<Language, Canaries> =
        serde_json::from_str(&text).map_err(|error| Error::file(&path, error.to_string()))?;
    Ok(failed(&canaries))
}

/// The languages that abstained.
pub(super) fn failed(canaries: &BTreeMap<Language, Canaries>) -> BTreeSet<Language> {
    canaries.iter().filter(|(_, canaries)| canaries.abstained).map(|(language, _)| language.clone()).collect()
}

/// The probes: a case has the positive first and the far passage, if there is one, second.
pub(super) fn cases<'a>(
    judge: &Judge<'a>,
    lists: &BTreeMap<Language, Vec<QueryCandidates>>,
    seed: u64,
) -> Result<Vec<Case<'a>>> {
    let mut cases = Vec::new();
    for (language, queries) in lists {
        let partition = judge.dataset.partition(language)?;
        let qrels = &partition.split(judge.split)?.qrels;
        let mut eligible = Vec::new();
        for list in queries {
            let query = query_named(partition, judge.split, &list.query)?;
            eligible.extend(qrels.positives(query).next().map(|positive| (list, query, positive)));
        }
        let name = |item: &(&QueryCandidates, _, _)| format!("{language}/{}", item.0.query);
        for (list, query, positive) in drawn(eligible, judge.config.canaries, seed, "judge canary", name) {
            let far = far_passage(judge, partition, (list, query), seed)?;
            let passages = [positive].into_iter().chain(far).collect();
            cases.push(Case { passages, ..Case::new(partition, judge.split, query, &[], judge.config)? });
        }
    }
    Ok(cases)
}

/// A random passage that nobody judged, that is no candidate, no twin of a positive, and of another article than the
/// positives (the id up to `#`). None where the corpus is too small to have one.
fn far_passage(
    judge: &Judge,
    partition: &Partition,
    (list, query): (&QueryCandidates, QueryIndex),
    seed: u64,
) -> Result<Option<PassageIndex>> {
    let corpus = &partition.corpus;
    let qrels = &partition.split(judge.split)?.qrels;
    let article = |passage: PassageIndex| corpus.id(passage).split('#').next().unwrap_or_default();
    let digest = |passage: PassageIndex| text_digest(corpus.passage(passage).text);
    let near: BTreeSet<&str> = qrels.positives(query).map(article).collect();
    let twins: BTreeSet<_> = qrels.positives(query).map(digest).collect();
    let found: BTreeSet<&str> = list.candidates.iter().map(|candidate| candidate.passage.as_str()).collect();
    let is_far = |passage: &PassageIndex| {
        !near.contains(article(*passage))
            && !found.contains(corpus.id(*passage))
            && qrels.grade(query, *passage).is_none()
            && !twins.contains(&digest(*passage))
    };
    let name = format!("{}/{}", partition.language, list.query);
    let start = crate::random::keyed(seed, "judge canary passage", &name).random_range(0..corpus.len().max(1) as u32);
    let around = (start..corpus.len() as u32).chain(0..start);
    Ok(around.map(PassageIndex).find(is_far))
}

/// Counts what the probes came to; a probe without an answer does not count.
///
/// # Errors
/// Every language that was probed failed.
pub(super) fn outcome(
    cases: &[Case],
    opinions: &[Vec<Opinion>],
    config: &JudgeConfig,
) -> Result<BTreeMap<Language, Canaries>> {
    let mut canaries: BTreeMap<Language, Canaries> = BTreeMap::new();
    for (case, opinions) in cases.iter().zip(opinions) {
        let language = canaries.entry(case.language.clone()).or_default();
        for ((passage, opinion), expected) in case.passages.iter().zip(opinions).zip([2, 0]) {
            if *opinion != Opinion::Unjudged {
                let (query, passage) = (case.query.id.clone(), case.corpus.id(*passage).to_owned());
                language.probes.push(Probe { query, passage, expected, grade: opinion.grade() });
            }
        }
    }
    for language in canaries.values_mut() {
        language.of = language.probes.len();
        language.passed = language.probes.iter().filter(|probe| probe.grade == Some(probe.expected)).count();
        let rate = language.passed as f64 / language.of.max(1) as f64;
        language.abstained = language.of > 0 && rate < config.canary_pass_rate;
    }
    if !canaries.is_empty() && canaries.values().all(|language| language.abstained) {
        return Err(all_failed(&canaries, config));
    }
    Ok(canaries)
}

fn all_failed(canaries: &BTreeMap<Language, Canaries>, config: &JudgeConfig) -> Error {
    let rates: Vec<String> =
        canaries.iter().map(|(tag, canaries)| format!("{tag} {} of {}", canaries.passed, canaries.of)).collect();
    Error::data(format!(
        "the model `{}` passed too few canaries in every language ({}; needed: {} of them); name a better judge, or \
         lower judge.canary_pass_rate",
        config.model,
        rates.join(", "),
        config.canary_pass_rate
    ))
}
