//! The best passages of a query without reading all postings of its terms, and yet exactly.
//!
//! Passages are scored in windows, those first in which the terms can bring most, until no window is left that can reach
//! the score which the last of the best has. In a window, terms that together cannot lift a passage to that score are left
//! for later: only passages with another term are candidates, and they are looked up in the postings that were left for as
//! long as they can still be among the best. Sources: `MaxScore` (Turtle and Flood 1995), bounds by blocks (Ding and Suel
//! 2011).
//!
//! Sums are of f32 in f64, as Lucene has them: exact in any order unless one part of a score is 2²⁹ times another. A bound
//! is raised by more than rounding could ever lose.

use std::borrow::Cow;
use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::file::WINDOW;
use super::impact::{Impacts, score};
use crate::corpus::PassageIndex;
use crate::index::top::Best;
use crate::run::{Ranking, Scored};

/// Passages whose sums are looked at together.
const GROUP: usize = 64;
/// Postings whose scores are computed before they are added.
const BLOCK: usize = 256;
const SLACK: f64 = 1.0 + 1e-12;
/// Postings for each one that is read, from which on looking passages up in them is quicker than reading them, too.
const LEFT: usize = 2;

/// One term's postings.
pub(super) struct PostingList<'a> {
    /// idf, times how often the query has the term.
    pub(super) weight: f32,
    /// Ascending.
    pub(super) passages: &'a [u32],
    pub(super) weights: &'a [u16],
    /// For each window where its postings end.
    pub(super) ends: Cow<'a, [u32]>,
    /// For each window the highest impact.
    pub(super) highest: Cow<'a, [f32]>,
}

impl PostingList<'_> {
    fn within(&self, window: usize) -> Range<usize> {
        let start = if window == 0 { 0 } else { self.ends[window - 1] as usize };
        start..self.ends[window] as usize
    }
}

/// The best `depth` passages, at least one, in THE order.
pub(super) fn search(
    lists: &[PostingList<'_>],
    impacts: &Impacts,
    depth: usize,
    id_ranks: &[u32],
    sums: &mut Sums,
) -> Ranking {
    let mut best = Best::new(depth, f32::MIN_POSITIVE);
    let mut parts = Vec::new();
    for (most, window) in windows_by_bound(lists) {
        if !reaches(most, best.floor()) {
            break;
        }
        parts.clear();
        parts.extend(lists.iter().map(|list| Part::new(list, window)).filter(|part| part.bound > 0.0));
        let (left, read) = split(&mut parts, best.floor());
        let start = (window * WINDOW) as u32;
        Arch::new().dispatch(Scan { read, left, start, impacts, id_ranks, sums: &mut *sums, best: &mut best });
    }
    best.into_ranking(id_ranks)
}

/// Whether a sum that is rounded to f32 can be among the best.
#[inline]
fn reaches(sum: f64, floor: f32) -> bool {
    (sum * SLACK) as f32 >= floor
}

/// No passage with a lower sum reaches `floor` by what brings `rest` at most; above zero.
fn least_sum(floor: f32, rest: f64) -> f64 {
    // Rounding to f32 and the slack raise a sum by less than 1e-7 of it.
    (f64::from(floor) * (1.0 - 1e-7) - rest).max(f64::MIN_POSITIVE)
}

/// The most that a passage of each window can score, the highest first, with the window.
fn windows_by_bound(lists: &[PostingList<'_>]) -> Vec<(f64, usize)> {
    let mut bounds = vec![0.0; lists.first().map_or(0, |list| list.ends.len())];
    for list in lists {
        for (bound, highest) in bounds.iter_mut().zip(list.highest.iter()) {
            *bound += f64::from(score(list.weight, *highest));
        }
    }
    let windows = bounds.into_iter().enumerate().filter(|(_, bound)| *bound > 0.0);
    let mut windows: Vec<(f64, usize)> = windows.map(|(window, bound)| (bound, window)).collect();
    windows.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    windows
}

/// One window, compiled for each instruction set that `pulp` knows.
struct Scan<'a, 'p> {
    read: &'a [Part<'p>],
    left: &'a mut [Part<'p>],
    /// The first passage.
    start: u32,
    impacts: &'a Impacts,
    id_ranks: &'a [u32],
    sums: &'a mut Sums,
    best: &'a mut Best,
}

impl WithSimd for Scan<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { read, left, start, impacts, id_ranks, sums, best } = self;
        read.iter().for_each(|part| sums.add(part, start, impacts));
        let rest = left.first().map_or(0.0, |part| part.rest);
        for number in ones(std::mem::take(&mut sums.touched)) {
            let group = &mut sums.values.as_chunks_mut::<GROUP>().0[number];
            for place in ones(at_least(group, least_sum(best.floor(), rest))) {
                let passage = start + (number * GROUP + place) as u32;
                if let Some(score) = complete(group[place], passage, left, best.floor(), impacts) {
                    best.push(Scored { passage: PassageIndex(passage), score }, id_ranks);
                }
            }
            group.fill(0.0);
        }
    }
}

/// The places of the bits that are set, ascending.
#[inline(always)]
fn ones(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = bits.trailing_zeros();
        bits &= bits.wrapping_sub(1);
        (place < u64::BITS).then_some(place as usize)
    })
}

/// For each sum a bit that says whether it is at least `least`.
#[inline(always)]
fn at_least(sums: &[f64; GROUP], least: f64) -> u64 {
    sums.iter().enumerate().fold(0, |bits, (place, sum)| bits | u64::from(*sum >= least) << place)
}

/// The postings of one term in one window.
struct Part<'a> {
    weight: f32,
    passages: &'a [u32],
    weights: &'a [u16],
    /// The most that the term brings here.
    bound: f64,
    /// The most that it and those after it bring.
    rest: f64,
}

impl<'a> Part<'a> {
    fn new(list: &PostingList<'a>, window: usize) -> Self {
        let range = list.within(window);
        let passages = list.passages.get(range.clone()).unwrap_or_default();
        let weights = list.weights.get(range).unwrap_or_default();
        let bound = f64::from(score(list.weight, list.highest[window]));
        Self { weight: list.weight, passages, weights, bound, rest: bound }
    }

    /// What the term brings to a passage; asked in ascending order of passages.
    fn score_of(&mut self, passage: u32, impacts: &Impacts) -> f64 {
        let before = count_below(self.passages, passage);
        (self.passages, self.weights) = (&self.passages[before..], &self.weights[before..]);
        match (self.passages.first(), self.weights.first()) {
            (Some(first), Some(weight)) if *first == passage => f64::from(score(self.weight, impacts.of(*weight))),
            _ => 0.0,
        }
    }
}

/// Parts to leave for later, which together cannot reach `floor`, and parts to read.
///
/// First to be left is what brings little for many postings, but nothing that is read as quickly; what brings most is first
/// to be looked up.
fn split<'p, 'a>(parts: &'p mut [Part<'a>], floor: f32) -> (&'p mut [Part<'a>], &'p [Part<'a>]) {
    let worth = |part: &Part<'_>| part.bound / part.passages.len() as f64;
    parts.sort_unstable_by(|a, b| worth(a).total_cmp(&worth(b)));
    let mut rest = 0.0;
    let count = to_front(parts, |part| {
        let fits = !reaches(rest + part.bound, floor);
        rest += if fits { part.bound } else { 0.0 };
        fits
    });
    let of_read: usize = parts[count..].iter().map(|part| part.passages.len()).sum();
    let count = to_front(&mut parts[..count], |part| part.passages.len() >= LEFT * of_read);
    let (left, read) = parts.split_at_mut(count);
    left.sort_unstable_by(|a, b| b.bound.total_cmp(&a.bound));
    let mut rest = 0.0;
    for part in left.iter_mut().rev() {
        rest += part.bound;
        part.rest = rest;
    }
    (left, read)
}

/// Brings the wanted parts to the front; their number. Each is asked about once, in order.
fn to_front<'a>(parts: &mut [Part<'a>], mut wanted: impl FnMut(&Part<'a>) -> bool) -> usize {
    let mut count = 0;
    for place in 0..parts.len() {
        if wanted(&parts[place]) {
            parts.swap(count, place);
            count += 1;
        }
    }
    count
}

/// The score of a passage whose other terms bring `sum`; none if it is below `floor`.
fn complete(sum: f64, passage: u32, left: &mut [Part<'_>], floor: f32, impacts: &Impacts) -> Option<f32> {
    let mut sum = sum;
    for part in left {
        if !reaches(sum + part.rest, floor) {
            return None;
        }
        sum += part.score_of(passage, impacts);
    }
    let score = sum as f32;
    (score >= floor).then_some(score)
}

/// How many of the passages come before `end`: steps that double, then halves.
fn count_below(passages: &[u32], end: u32) -> usize {
    let mut bound = 1;
    while passages.get(bound - 1).is_some_and(|passage| *passage < end) {
        bound *= 2;
    }
    let known = bound / 2;
    let within = &passages[known..bound.min(passages.len())];
    known + within.partition_point(|passage| *passage < end)
}

/// Sums of scores of one window of passages.
pub(super) struct Sums {
    /// One for each passage.
    values: Box<[f64; WINDOW]>,
    /// For each `GROUP` of passages a bit that says whether one of them has a sum.
    touched: u64,
    /// Working memory: what the postings of a block bring.
    impacts: [f32; BLOCK],
    scores: [f64; BLOCK],
}

const _: () = assert!(WINDOW == GROUP * u64::BITS as usize && GROUP == u64::BITS as usize);

impl Default for Sums {
    fn default() -> Self {
        let values = vec![0.0; WINDOW].try_into().expect("a window");
        Self { values, touched: 0, impacts: [0.0; BLOCK], scores: [0.0; BLOCK] }
    }
}

impl Sums {
    /// Adds what a term brings; `start` is the first passage of the window.
    #[inline(always)]
    fn add(&mut self, part: &Part<'_>, start: u32, impacts: &Impacts) {
        let mut touched = self.touched;
        for (passages, weights) in part.passages.chunks(BLOCK).zip(part.weights.chunks(BLOCK)) {
            for (impact, weight) in self.impacts.iter_mut().zip(weights) {
                *impact = impacts.of(*weight);
            }
            for (target, impact) in self.scores.iter_mut().zip(&self.impacts[..weights.len()]) {
                *target = f64::from(score(part.weight, *impact));
            }
            for (passage, score) in passages.iter().zip(&self.scores) {
                // Within the window also in a file that is damaged.
                let place = passage.wrapping_sub(start) as usize % WINDOW;
                self.values[place] += score;
                touched |= 1 << (place / GROUP);
            }
        }
        self.touched = touched;
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::Numbers;
    use super::super::impact::windows_of;
    use super::super::rounding::round_length;
    use super::*;
    use proptest::prelude::*;

    const PASSAGES: usize = 5 * WINDOW / 2;

    fn impacts() -> Impacts {
        let numbers =
            Numbers { passages: PASSAGES as u64, counted: 1, tokens: 50, k1: 0.9, b: 0.4, ..Numbers::default() };
        Impacts::new(&numbers)
    }

    /// A term's postings: every passage with a chance, in one stretch of the corpus more than elsewhere.
    fn postings(keyed: &mut impl FnMut() -> u32, share: u32) -> (Vec<u32>, Vec<u16>) {
        let dense = keyed() % PASSAGES as u32;
        let is_in = |passage: u32, chance: u32| {
            let share = if passage.abs_diff(dense) < 500 { 30 * share } else { share };
            chance % 10_000 < share
        };
        let passages: Vec<u32> = (0..PASSAGES as u32).filter(|passage| is_in(*passage, keyed())).collect();
        let weight = |_: &u32| u16::from(round_length(20 + keyed() % 90)) << 8 | (1 + keyed() % 4) as u16;
        let weights = passages.iter().map(weight).collect();
        (passages, weights)
    }

    /// All passages with all their scores, sorted.
    fn exhaustive(lists: &[PostingList<'_>], impacts: &Impacts, depth: usize, id_ranks: &[u32]) -> Ranking {
        let mut sums = vec![0.0; PASSAGES];
        for list in lists {
            for (passage, weight) in list.passages.iter().zip(list.weights) {
                sums[*passage as usize] += f64::from(score(list.weight, impacts.of(*weight)));
            }
        }
        let scored = |(index, sum): (usize, &f64)| Scored { passage: PassageIndex(index as u32), score: *sum as f32 };
        let mut all: Ranking = sums.iter().enumerate().map(scored).filter(|scored| scored.score > 0.0).collect();
        all.sort_by(|a, b| crate::run::rank_order(a, b, id_ranks));
        all.truncate(depth);
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_best_are_those_of_all(seed in 1_u32.., terms in 1_usize..9, depth in 1_usize..300) {
            let mut state = seed;
            let mut keyed = move || {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                state
            };
            let impacts = impacts();
            let all: Vec<(Vec<u32>, Vec<u16>)> = (0..terms)
                .map(|term| postings(&mut keyed, [1, 20, 300, 4000][term % 4]))
                .collect();
            let windows = PASSAGES.div_ceil(WINDOW);
            let lists: Vec<PostingList<'_>> = all.iter().map(|(passages, weights)| {
                let pairs = passages.iter().copied().zip(weights.iter().copied());
                let (ends, highest) = windows_of(pairs, windows, &impacts);
                let weight = (1.0 + PASSAGES as f32 / (passages.len() as f32 + 0.5)).ln();
                PostingList { weight, passages, weights, ends: ends.into(), highest: highest.into() }
            }).collect();
            let id_ranks: Vec<u32> = (0..PASSAGES as u32).map(|index| index ^ 1).collect();
            let mut sums = Sums::default();
            let expected = exhaustive(&lists, &impacts, depth, &id_ranks);
            for _ in 0..2 {
                prop_assert_eq!(&search(&lists, &impacts, depth, &id_ranks, &mut sums), &expected);
            }
        }
    }
}
