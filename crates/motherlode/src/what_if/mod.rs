//! What if other rules chose the negatives? Re-applies any miner and any verdict policy to stored scores and judgements,
//! without computing or asking anything.
//!
//! Reads the artefacts of `mine` and, where there is one, of `judge`. For every policy and language it tells the yield,
//! the estimated share of false negatives among what would be taken, and its hardness.
//!
//! Fallible functions return [`Error::Config`] for a policy out of range and
//! [`Error::Data`] where the artefacts do not belong together.

mod estimate;
mod table;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::artefact::Artefact;
use crate::corpus::Language;
use crate::error::{Error, Result};
use crate::judge::{
    CalibrationPair, Corrected, Estimate, Judgement, QueryJudgements, Thresholds, UnjudgedRule, Verdict, grade_of,
};
use crate::mine::filter::{Anchor, Miner, keep};
use crate::mine::{Candidate, QueryCandidates};
use estimate::{Taken, estimate};

/// Which grades of the judge may be negatives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// All: the judge is not heard.
    All,
    /// Grade 0.
    #[default]
    Grade0,
    /// Grades 0 and 1.
    Grades01,
}

/// A way to choose negatives among candidates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// What the table calls it.
    pub name: String,
    /// The rule over scores.
    pub miner: Miner,
    /// The rule over grades.
    pub keep: Keep,
    /// What becomes of candidates without a grade; of no matter with `keep = "all"`.
    pub unjudged: UnjudgedRule,
    /// Other thresholds for the cheap judge's stored probabilities; none: those that were chosen.
    pub thresholds: Option<Thresholds>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            name: String::new(),
            miner: Miner::Ensemble,
            keep: Keep::Grade0,
            unjudged: UnjudgedRule::Percentage,
            thresholds: None,
        }
    }
}

/// The knobs of section `[what_if]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WhatIfConfig {
    /// Negatives a query, N.
    pub wanted: usize,
    /// Candidates are taken up to this rank.
    pub depth: u32,
    /// What is tried; none: the baseline miners with their defaults and both verdict rules.
    pub policies: Vec<Policy>,
}

impl Default for WhatIfConfig {
    fn default() -> Self {
        Self { wanted: 30, depth: 40, policies: Vec::new() }
    }
}

impl WhatIfConfig {
    /// Checks the ranges.
    pub fn validate(&self) -> Result<()> {
        if self.wanted == 0 || self.depth == 0 {
            return Err(Error::config("`what_if.wanted` and `what_if.depth`: expected 1 or more, got 0"));
        }
        self.policies.iter().try_for_each(|policy| policy.miner.validate())
    }

    fn policies(&self) -> Vec<Policy> {
        if !self.policies.is_empty() {
            return self.policies.clone();
        }
        let miner = |name: &str, miner| Policy { name: name.into(), miner, keep: Keep::All, ..Policy::default() };
        let judge = |name: &str, keep| Policy { name: name.into(), keep, ..Policy::default() };
        vec![
            miner("ensemble", Miner::Ensemble),
            miner("top-k", Miner::TopK),
            miner("shifted 10", Miner::Shifted { skip: 10 }),
            miner("absolute 0.6", Miner::Absolute { max: 0.6 }),
            miner("margin 0.15", Miner::Margin { margin: 0.15, anchor: Anchor::Max }),
            miner("percentage 0.10", Miner::Percentage { share: 0.10, anchor: Anchor::Max }),
            judge("judge, grade 0", Keep::Grade0),
            judge("judge, grades 0 and 1", Keep::Grades01),
        ]
    }
}

/// What a policy would do in one language, or in all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Consequence {
    /// The policy's name.
    pub policy: String,
    /// The language; none: all of them together.
    pub language: Option<Language>,
    /// Queries.
    pub queries: usize,
    /// Candidates.
    pub candidates: usize,
    /// Candidates that the policy keeps.
    pub kept: usize,
    /// Negatives that would be taken: the first of those kept, as many as are wanted.
    pub taken: usize,
    /// Queries with as many as are wanted.
    pub sufficient: usize,
    /// The share of the taken that the judge calls relevant (grade 1 or 2), of those it graded.
    pub apparent: Estimate,
    /// The share of the taken that is relevant, corrected for the judge's errors.
    pub false_negatives: Corrected,
    /// Mean score of the taken under the untouched model; none where nothing is taken.
    pub hardness: Option<f64>,
    /// Mean distance by which their score lies below the best positive's.
    pub margin: Option<f64>,
}

/// The consequences of several policies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WhatIf {
    /// By policy, then language; the row of all languages first.
    pub rows: Vec<Consequence>,
}

/// Applies every policy to the candidates of every language.
///
/// `seed` draws the resamples behind the intervals.
///
/// # Errors
/// A policy out of range; judgements of other candidates.
pub fn what_if(
    candidates: &Artefact,
    judgements: Option<&Artefact>,
    config: &WhatIfConfig,
    seed: u64,
) -> Result<WhatIf> {
    config.validate()?;
    let candidates = candidates.clone().expect_stage("mine")?;
    let judgements = judgements.map(|artefact| artefact.clone().expect_stage("judge")).transpose()?;
    let calibration: Vec<CalibrationPair> = match &judgements {
        Some(artefact) if artefact.has("calibration.jsonl") => artefact.read_lines("calibration.jsonl")?,
        _ => Vec::new(),
    };
    let mut languages = Vec::new();
    for file in &candidates.manifest().files {
        let Some(tag) = file.path.strip_suffix(".jsonl") else { continue };
        let language = Language::new(tag)?;
        let lists: Vec<QueryCandidates> = candidates.read_lines(&file.path)?;
        let rows: Vec<QueryJudgements> = match &judgements {
            Some(artefact) => artefact.read_lines(&file.path)?,
            None => Vec::new(),
        };
        check_alignment(&language, &lists, judgements.is_some().then_some(&rows))?;
        let pairs = calibration.iter().filter(|pair| pair.language == language).cloned().collect();
        languages.push(Stored { language, lists, rows, pairs });
    }
    let consequences = config.policies().into_iter().flat_map(|policy| {
        let found: Vec<(Consequence, Vec<Taken>)> =
            languages.iter().map(|stored| stored.apply(&policy, config, seed)).collect();
        let mut rows: Vec<Consequence> = found.iter().map(|(row, _)| row.clone()).collect();
        if rows.len() != 1 {
            let strata: Vec<&[Taken]> = found.iter().map(|(_, taken)| taken.as_slice()).collect();
            rows.insert(0, together(&policy.name, &rows, estimate(&strata, seed, "all")));
        }
        rows
    });
    Ok(WhatIf { rows: consequences.collect() })
}

fn check_alignment(language: &Language, lists: &[QueryCandidates], rows: Option<&Vec<QueryJudgements>>) -> Result<()> {
    let Some(rows) = rows else { return Ok(()) };
    let same = |(list, row): (&QueryCandidates, &QueryJudgements)| {
        let passages = row.judgements.iter().map(|judgement| &judgement.passage);
        list.query == row.query && list.candidates.iter().map(|candidate| &candidate.passage).eq(passages)
    };
    if lists.len() == rows.len() && lists.iter().zip(rows).all(same) {
        return Ok(());
    }
    Err(Error::data(format!("{language}: candidates and judgements differ; give the judgements of these candidates")))
}

/// What is stored of one language.
struct Stored {
    language: Language,
    lists: Vec<QueryCandidates>,
    rows: Vec<QueryJudgements>,
    pairs: Vec<CalibrationPair>,
}

impl Stored {
    fn apply(&self, policy: &Policy, config: &WhatIfConfig, seed: u64) -> (Consequence, Vec<Taken>) {
        let mut by_query: BTreeMap<&str, Taken> = BTreeMap::new();
        for pair in &self.pairs {
            by_query.entry(&pair.query).or_default().calibrate(pair);
        }
        let mut row = Consequence::new(&policy.name, Some(self.language.clone()));
        let mut sums = Sums::default();
        for (place, list) in self.lists.iter().enumerate() {
            let judgements = self.rows.get(place).map(|row| row.judgements.as_slice());
            let grades = grades(list, judgements, policy);
            let taken = by_query.entry(&list.query).or_default();
            row.queries += 1;
            row.candidates += list.candidates.iter().filter(|candidate| candidate.rank <= config.depth).count();
            let kept = kept(list, &grades, policy, config.depth, taken);
            row.kept += kept.len();
            row.sufficient += usize::from(kept.len() >= config.wanted);
            let positive = list.positives.iter().map(|(_, score)| *score).reduce(f32::max);
            for place in kept.into_iter().take(config.wanted) {
                taken.take(grades[place]);
                sums.add(list.candidates[place].model_score, positive);
            }
        }
        let taken: Vec<Taken> = by_query.into_values().collect();
        sums.finish(&mut row);
        row.taken = sums.taken;
        row.apparent = estimate::apparent(&taken);
        row.false_negatives = estimate(&[&taken], seed, self.language.as_str());
        (row, taken)
    }
}

/// What is known of a candidate's relevance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grade {
    /// The judge's grade.
    Judged(u8),
    /// People found it not relevant.
    Human,
    /// The replies could not be read.
    Unknown,
    /// Nobody was asked.
    Open,
}

fn grades(list: &QueryCandidates, judgements: Option<&[Judgement]>, policy: &Policy) -> Vec<Grade> {
    let grade = |(place, candidate): (usize, &Candidate)| match judgements.map(|rows| &rows[place]) {
        _ if candidate.human_grade.is_some() => Grade::Human,
        None => Grade::Open,
        Some(judgement) => match (grade_under(judgement, policy.thresholds), judgement.verdict) {
            (Some(grade), _) => Grade::Judged(grade),
            (None, Verdict::Unknown) => Grade::Unknown,
            (None, _) => Grade::Open,
        },
    };
    list.candidates.iter().enumerate().map(grade).collect()
}

/// The grade under other thresholds: the cheap judge decides outside them, the large one's stored grade counts between.
fn grade_under(judgement: &Judgement, thresholds: Option<Thresholds>) -> Option<u8> {
    let (Some(thresholds), Some(screened)) = (thresholds, &judgement.screened) else { return grade_of(judgement) };
    match screened.probability.and_then(|probability| thresholds.relevant(probability)) {
        Some(is_relevant) => Some(u8::from(is_relevant)),
        None if screened.decided => None,
        None => grade_of(judgement),
    }
}

/// The candidates that a policy keeps, the most wanted first; notes in `taken` what the judge says of all that the miner
/// keeps.
fn kept(list: &QueryCandidates, grades: &[Grade], policy: &Policy, depth: u32, taken: &mut Taken) -> Vec<usize> {
    let percentage = Miner::Percentage { share: 0.10, anchor: Anchor::Max };
    let passing = match policy.unjudged {
        UnjudgedRule::Percentage => keep(&percentage, list),
        UnjudgedRule::Exclude => Vec::new(),
        UnjudgedRule::Keep => (0..list.candidates.len()).collect(),
    };
    let mined = keep(&policy.miner, list).into_iter().filter(|place| list.candidates[*place].rank <= depth);
    let is_kept = |place: &usize| {
        taken.mine(grades[*place]);
        match (grades[*place], policy.keep) {
            (_, Keep::All) | (Grade::Human | Grade::Judged(0), _) | (Grade::Judged(1), Keep::Grades01) => true,
            (Grade::Judged(_) | Grade::Unknown, _) => false,
            (Grade::Open, _) => passing.contains(place),
        }
    };
    mined.filter(is_kept).collect()
}

/// Sums of what is taken.
#[derive(Default)]
struct Sums {
    taken: usize,
    scores: f64,
    with_positive: usize,
    margins: f64,
}

impl Sums {
    fn add(&mut self, score: f32, positive: Option<f32>) {
        self.taken += 1;
        self.scores += f64::from(score);
        if let Some(positive) = positive {
            self.with_positive += 1;
            self.margins += f64::from(positive) - f64::from(score);
        }
    }

    fn finish(&self, row: &mut Consequence) {
        row.hardness = (self.taken > 0).then(|| self.scores / self.taken as f64);
        row.margin = (self.with_positive > 0).then(|| self.margins / self.with_positive as f64);
    }
}

impl Consequence {
    fn new(policy: &str, language: Option<Language>) -> Self {
        Self {
            policy: policy.to_owned(),
            language,
            queries: 0,
            candidates: 0,
            kept: 0,
            taken: 0,
            sufficient: 0,
            apparent: Estimate::NotEstimable,
            false_negatives: Corrected::NotEstimable,
            hardness: None,
            margin: None,
        }
    }
}

/// All languages in one row.
fn together(policy: &str, rows: &[Consequence], false_negatives: Corrected) -> Consequence {
    let sum = |of: fn(&Consequence) -> usize| rows.iter().map(of).sum::<usize>();
    let taken = sum(|row| row.taken);
    let mean = |of: fn(&Consequence) -> Option<f64>| {
        let weighted = rows.iter().filter_map(|row| Some(of(row)? * row.taken as f64));
        (taken > 0).then(|| weighted.sum::<f64>() / taken as f64)
    };
    let shares = rows.iter().filter_map(|row| match row.apparent {
        Estimate::Share { count, of, .. } => Some((count, of)),
        Estimate::NotEstimable => None,
    });
    let (count, of) = shares.fold((0, 0), |sum, share| (sum.0 + share.0, sum.1 + share.1));
    Consequence {
        queries: sum(|row| row.queries),
        candidates: sum(|row| row.candidates),
        kept: sum(|row| row.kept),
        taken,
        sufficient: sum(|row| row.sufficient),
        apparent: Estimate::wilson(count, of),
        false_negatives,
        hardness: mean(|row| row.hardness),
        margin: mean(|row| row.margin),
        ..Consequence::new(policy, None)
    }
}

#[cfg(test)]
mod tests;
