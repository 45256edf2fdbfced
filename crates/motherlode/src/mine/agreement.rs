//! How far each member agrees with the fused list, and what it alone contributed.

use std::collections::HashMap;

use super::{Lists, QueryCandidates};
use crate::artefact::Summary;
use crate::corpus::PassageIndex;
use crate::run::Scored;

/// Sums over queries, one place a member.
pub(super) struct Agreement<'a> {
    members: Vec<Member<'a>>,
    candidates: usize,
}

struct Member<'a> {
    name: &'a str,
    correlation: f64,
    correlated: usize,
    unique: usize,
}

impl<'a> Agreement<'a> {
    pub(super) fn new(names: impl Iterator<Item = &'a str>) -> Self {
        let members = names.map(|name| Member { name, correlation: 0.0, correlated: 0, unique: 0 }).collect();
        Self { members, candidates: 0 }
    }

    /// Adds one query: rank correlations over the passages that both lists have, and the candidates among the first
    /// `depth` that only one member listed.
    pub(super) fn add(&mut self, lists: &Lists<'_>, mined: &QueryCandidates, depth: usize) {
        let fused = places(lists.fused);
        for (member, (_, list)) in self.members.iter_mut().zip(&lists.members) {
            if let Some(correlation) = spearman(&fused, list) {
                member.correlation += correlation;
                member.correlated += 1;
            }
        }
        for candidate in mined.candidates.iter().take(depth) {
            self.candidates += 1;
            if let [only] = &candidate.evidence[..]
                && let Some(member) = self.members.iter_mut().find(|member| member.name == only.retriever)
            {
                member.unique += 1;
            }
        }
    }

    pub(super) fn report(&self, summary: &mut Summary) {
        for member in &self.members {
            let name = member.name;
            summary.value(format!("rank correlation of {name} with the fused list"), member.correlation / member.correlated.max(1) as f64);
            summary.value(format!("share of candidates that only {name} found"), member.unique as f64 / self.candidates.max(1) as f64);
        }
    }
}

fn places(list: &[Scored]) -> HashMap<PassageIndex, usize> {
    list.iter().enumerate().map(|(place, scored)| (scored.passage, place)).collect()
}

/// Spearman's ρ over the passages of both lists, ranked anew among themselves; none for fewer than two.
fn spearman(fused: &HashMap<PassageIndex, usize>, list: &[Scored]) -> Option<f64> {
    let mut shared: Vec<(usize, usize)> = list.iter().enumerate().filter_map(|(place, s)| Some((*fused.get(&s.passage)?, place))).collect();
    let count = shared.len() as f64;
    if shared.len() < 2 {
        return None;
    }
    shared.sort_unstable();
    let mut ranked: Vec<(usize, usize)> = shared.iter().map(|(_, place)| *place).zip(0..).collect();
    ranked.sort_unstable();
    let squares: f64 = ranked.iter().enumerate().map(|(own, (_, fused))| (own as f64 - *fused as f64).powi(2)).sum();
    Some(1.0 - 6.0 * squares / (count * (count * count - 1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spearman_is_one_for_the_same_order_and_minus_one_for_the_reverse() {
        let list = |order: &[u32]| order.iter().map(|p| Scored { passage: PassageIndex(*p), score: 0.0 }).collect::<Vec<_>>();
        let fused = places(&list(&[4, 2, 9, 7]));
        assert_eq!(spearman(&fused, &list(&[4, 2, 5, 7])), Some(1.0));
        assert_eq!(spearman(&fused, &list(&[7, 9, 2, 4])), Some(-1.0));
        assert_eq!(spearman(&fused, &list(&[7])), None);
    }
}
