//! Swap checks: does the grade change when only the order of the texts does?

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::ask::{Case, opinions};
use super::priority::Place;
use super::rates::Estimate;
use super::select::{Asked, Lists, cases, drawn};
use super::verdict::Opinion;
use super::{Judge, JudgeConfig};
use crate::corpus::Language;
use crate::error::Result;
use crate::progress::Progress;

/// What a change of order did to grades.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Swap {
    /// The share of the pairs that kept their grade.
    pub same: Estimate,
    /// Pairs whose grade fell.
    pub lower: usize,
    /// Pairs whose grade rose.
    pub higher: usize,
}

/// The swap checks of one language.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Swaps {
    /// Candidate and standard answer change places.
    pub order: Swap,
    /// The positives of the standard answer are reversed; pairs whose reference stays the same are left out.
    pub reference: Swap,
}

/// Judges `judge.swaps` pairs a language again in other orders and compares the grades.
pub(super) fn swaps(
    judge: &Judge,
    lists: &Lists,
    asked: &Asked,
    seed: u64,
    progress: &Progress,
) -> Result<BTreeMap<Language, Swaps>> {
    let mut swaps = BTreeMap::new();
    if judge.config.swaps == 0 {
        return Ok(swaps);
    }
    for (number, language) in lists.keys().enumerate() {
        let graded = asked.opinions.iter().filter(|((of, ..), opinion)| *of == number && opinion.grade().is_some());
        let places: Vec<Place> = graded.map(|(place, _)| *place).collect();
        let name = |(_, query, candidate): &Place| {
            let list = &lists[language][*query];
            format!("{language}/{}/{}", list.query, list.candidates[*candidate].passage)
        };
        let places: BTreeSet<Place> = drawn(places, judge.config.swaps, seed, "judge swap", name).into_iter().collect();
        let cases = cases(judge, lists, &places)?;
        let mut before = places.iter().map(|place| asked.opinions[place].clone());
        let before: Vec<Vec<Opinion>> =
            cases.iter().map(|case| before.by_ref().take(case.passages.len()).collect()).collect();
        let other = JudgeConfig { order: judge.config.order.swapped(), ..judge.config.clone() };
        let order = compare(&cases, &before, &other, judge, progress)?;
        let reference = reversed(&cases, &before, judge, progress)?;
        swaps.insert(language.clone(), Swaps { order, reference });
    }
    Ok(swaps)
}

fn reversed(cases: &[Case], before: &[Vec<Opinion>], judge: &Judge, progress: &Progress) -> Result<Swap> {
    let (mut turned, mut kept) = (Vec::new(), Vec::new());
    for (case, before) in cases.iter().zip(before) {
        let partition = judge.dataset.partition(case.language)?;
        if let Some(case) = case.reversed(partition, judge.split, judge.config)? {
            turned.push(case);
            kept.push(before.clone());
        }
    }
    compare(&turned, &kept, judge.config, judge, progress)
}

fn compare(
    cases: &[Case],
    before: &[Vec<Opinion>],
    config: &JudgeConfig,
    judge: &Judge,
    progress: &Progress,
) -> Result<Swap> {
    let after = opinions(cases, config, judge.llm, progress)?;
    let pairs = before.iter().flatten().zip(after.iter().flatten());
    let grades: Vec<(u8, u8)> = pairs.filter_map(|(before, after)| Some((before.grade()?, after.grade()?))).collect();
    let count = |is: fn(u8, u8) -> bool| grades.iter().filter(|(before, after)| is(*before, *after)).count();
    Ok(Swap {
        same: Estimate::wilson(count(|before, after| before == after), grades.len()),
        lower: count(|before, after| after < before),
        higher: count(|before, after| after > before),
    })
}
