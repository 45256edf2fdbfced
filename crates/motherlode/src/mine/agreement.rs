//! How far a retriever agrees with the fused list, and what only it brought.

use super::QueryCandidates;

/// One retriever's part in the candidates of a language.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Agreement {
    /// Spearman's ρ between its ranks and the fused ranks of the candidates it listed, mean over queries with two or more.
    spearman: Option<f64>,
    /// Kendall's τ of the same.
    kendall: Option<f64>,
    /// Share of all candidates that stand in its own top K and in no other retriever's.
    unique: Option<f64>,
}

impl Agreement {
    pub(super) fn of<'a>(name: &str, queries: impl Iterator<Item = &'a QueryCandidates> + Clone, depth: usize) -> Self {
        let lists: Vec<Vec<u32>> =
            queries.clone().map(|query| ranks(name, query)).filter(|ranks| ranks.len() > 1).collect();
        let candidates: usize = queries.clone().map(|query| query.candidates.len()).sum();
        let unique: usize = queries.map(|query| unique(name, query, depth)).sum();
        Self {
            spearman: mean(lists.iter().map(|ranks| spearman(ranks))),
            kendall: mean(lists.iter().map(|ranks| kendall(ranks))),
            unique: (candidates > 0).then(|| unique as f64 / candidates as f64),
        }
    }

    /// The values that exist, by name.
    pub(super) fn values(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let values = [("spearman", self.spearman), ("kendall", self.kendall), ("unique contribution", self.unique)];
        values.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (count, sum) = values.fold((0, 0.0), |(count, sum), value| (count + 1, sum + value));
    (count > 0).then(|| sum / f64::from(count))
}

/// The retriever's ranks of the candidates it listed, in fused order.
fn ranks(name: &str, query: &QueryCandidates) -> Vec<u32> {
    let evidence = query.candidates.iter().flat_map(|candidate| &candidate.evidence);
    evidence.filter(|evidence| evidence.retriever == name).map(|evidence| evidence.rank).collect()
}

fn unique(name: &str, query: &QueryCandidates, depth: usize) -> usize {
    let only = |candidate: &&super::Candidate| {
        let mut in_top = candidate.evidence.iter().filter(|evidence| evidence.rank as usize <= depth);
        in_top.next().is_some_and(|evidence| evidence.retriever == name) && in_top.next().is_none()
    };
    query.candidates.iter().filter(only).count()
}

/// Spearman's ρ of distinct `ranks` with their own order: 1 − 6 Σ d² / (n (n² − 1)).
fn spearman(ranks: &[u32]) -> f64 {
    let mut sorted = ranks.to_vec();
    sorted.sort_unstable();
    let place = |rank: &u32| sorted.binary_search(rank).expect("a copy of the same ranks") as f64;
    let squares: f64 = ranks.iter().enumerate().map(|(at, rank)| (at as f64 - place(rank)).powi(2)).sum();
    let count = ranks.len() as f64;
    1.0 - 6.0 * squares / (count * (count * count - 1.0))
}

/// Kendall's τ of distinct `ranks` with their own order: concordant less discordant pairs over all pairs.
fn kendall(ranks: &[u32]) -> f64 {
    let pairs = ranks.len() * (ranks.len() - 1) / 2;
    let discordant: usize =
        ranks.iter().enumerate().map(|(at, rank)| ranks[at + 1..].iter().filter(|later| *later < rank).count()).sum();
    1.0 - 2.0 * discordant as f64 / pairs as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mine::{Candidate, Evidence};

    /// Golden, SciPy 1.17.1: `spearmanr([1, 2, 3, 4, 5], [2, 9, 3, 11, 4])`, `kendalltau(…)`.
    #[test]
    fn correlations_equal_scipy() {
        let ranks = [2, 9, 3, 11, 4];
        assert!((spearman(&ranks) - 0.5).abs() < 1e-12);
        assert!((kendall(&ranks) - 0.4).abs() < 1e-12);
        assert!((spearman(&[5, 4, 1]) + 1.0).abs() < 1e-12 && (kendall(&[5, 4, 1]) + 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_contribution_is_unique_if_no_other_top_k_has_it() {
        let candidate = |evidence: &[(&str, u32)]| Candidate {
            passage: String::new(),
            rank: 1,
            score: 0.0,
            model_score: 0.0,
            human_grade: None,
            evidence: evidence
                .iter()
                .map(|(name, rank)| Evidence { retriever: (*name).to_owned(), rank: *rank, score: 0.0 })
                .collect(),
        };
        let candidates = vec![
            candidate(&[("a", 1), ("b", 2)]),
            candidate(&[("a", 2), ("b", 11)]),
            candidate(&[("b", 10)]),
            candidate(&[]),
        ];
        let query = QueryCandidates { query: String::new(), positives: Vec::new(), candidates };
        let of = |name| Agreement::of(name, [&query].into_iter(), 10);
        assert_eq!(of("a").unique, Some(0.25));
        assert_eq!(of("b").unique, Some(0.25));
        assert_eq!(of("c"), Agreement { unique: Some(0.0), ..Agreement::default() });
        assert_eq!(Agreement::of("a", std::iter::empty(), 10).values().count(), 0);
    }
}
