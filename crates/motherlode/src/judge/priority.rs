//! Which pairs matter most, where not all can be judged.

use std::collections::BTreeMap;

use super::config::{JudgeConfig, Method, Priority};
use crate::corpus::Language;
use crate::mine::{Candidate, QueryCandidates};

/// The place of a candidate: number of the language, of the query in its list, of the candidate.
pub(super) type Place = (usize, usize, usize);

/// How much retriever disagreement counts beside the place in the fused list and the nearness to the positive. On the
/// demonstration corpus, where retrievers agree on hidden false negatives, more of it finds them later.
const DISAGREEMENT: f64 = 0.25;

/// The candidates to judge, the most important first, at most `judge.max_pairs`.
///
/// Pairs that people judged and those deeper than `judge.depth` are not among them.
///
/// *Ties*: language, query and rank ascending.
pub(super) fn chosen(lists: &BTreeMap<Language, Vec<QueryCandidates>>, config: &JudgeConfig) -> Vec<Place> {
    if config.method == Method::None {
        return Vec::new();
    }
    let mut places: Vec<(f64, Place)> = Vec::new();
    for (language, queries) in lists.values().enumerate() {
        let retrievers = retrievers(queries);
        for (query, list) in queries.iter().enumerate() {
            let scale = Scale::of(list, &retrievers);
            for (number, candidate) in list.candidates.iter().enumerate() {
                if candidate.human_grade.is_none() && candidate.rank <= config.depth {
                    let value = match config.priority {
                        Priority::Value => scale.value(candidate),
                        Priority::ModelScore => f64::from(candidate.model_score),
                    };
                    places.push((value, (language, query, number)));
                }
            }
        }
    }
    places.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    places.truncate(config.max_pairs.unwrap_or(usize::MAX));
    places.into_iter().map(|(_, place)| place).collect()
}

/// What the candidates of a language have evidence of, with the deepest rank of each retriever.
fn retrievers(queries: &[QueryCandidates]) -> BTreeMap<&str, u32> {
    let mut deepest: BTreeMap<&str, u32> = BTreeMap::new();
    let evidence = queries.iter().flat_map(|list| &list.candidates).flat_map(|candidate| &candidate.evidence);
    for said in evidence {
        let rank = deepest.entry(&said.retriever).or_default();
        *rank = said.rank.max(*rank);
    }
    deepest
}

/// What a query's candidates are measured by.
struct Scale<'a> {
    ranks: f64,
    lowest: f64,
    positive: f64,
    retrievers: &'a BTreeMap<&'a str, u32>,
}

impl<'a> Scale<'a> {
    fn of(list: &QueryCandidates, retrievers: &'a BTreeMap<&'a str, u32>) -> Self {
        let scores = || list.candidates.iter().map(|candidate| f64::from(candidate.model_score));
        let positive = list.positives.iter().map(|(_, score)| f64::from(*score)).reduce(f64::max);
        Self {
            ranks: list.candidates.iter().map(|candidate| candidate.rank).max().unwrap_or(1).into(),
            lowest: scores().fold(f64::INFINITY, f64::min),
            positive: positive.unwrap_or_else(|| scores().fold(f64::NEG_INFINITY, f64::max)),
            retrievers,
        }
    }

    /// From 0 to 2¼: the rank in the fused list (1 for the first, near 0 for the last), plus how far the model score is
    /// on the way from the lowest candidate's to the best positive's (1 at or beyond it), plus a quarter of the
    /// disagreement.
    fn value(&self, candidate: &Candidate) -> f64 {
        let ensemble = 1.0 - f64::from(candidate.rank - 1) / self.ranks;
        let way = self.positive - self.lowest;
        let score = f64::from(candidate.model_score);
        let nearness = if way > 0.0 { ((score - self.lowest) / way).clamp(0.0, 1.0) } else { 1.0 };
        ensemble + nearness + DISAGREEMENT * self.disagreement(candidate)
    }

    /// The difference between the best and the worst relative rank that the retrievers give, 0 to 1; a retriever that
    /// does not list the candidate gives the worst.
    fn disagreement(&self, candidate: &Candidate) -> f64 {
        let relative = |(name, deepest): (&&str, &u32)| {
            let said = candidate.evidence.iter().find(|said| said.retriever == **name);
            said.map_or(1.0, |said| f64::from(said.rank - 1) / f64::from((*deepest).max(1)))
        };
        let ranks: Vec<f64> = self.retrievers.iter().map(relative).collect();
        let (best, worst) = (ranks.iter().copied().fold(1.0, f64::min), ranks.iter().copied().fold(0.0, f64::max));
        (worst - best).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mine::Evidence;

    fn candidate(rank: u32, model_score: f32, ranks: &[(&str, u32)]) -> Candidate {
        let evidence = ranks.iter().map(|(name, rank)| Evidence { retriever: (*name).into(), rank: *rank, score: 0.0 });
        let evidence = evidence.collect();
        Candidate { passage: format!("p{rank}"), rank, score: 0.0, model_score, human_grade: None, evidence }
    }

    fn lists(candidates: Vec<Candidate>) -> BTreeMap<Language, Vec<QueryCandidates>> {
        let list = QueryCandidates { query: "q".into(), positives: vec![("+".into(), 0.8)], candidates };
        BTreeMap::from([(Language::new("sw").unwrap(), vec![list])])
    }

    fn order(candidates: Vec<Candidate>, config: &JudgeConfig) -> Vec<usize> {
        chosen(&lists(candidates), config).into_iter().map(|(.., number)| number).collect()
    }

    #[test]
    fn rank_nearness_and_disagreement_decide() {
        let both = [("a", 1), ("b", 1)];
        let config = JudgeConfig::default();
        let near = vec![candidate(1, 0.2, &both), candidate(2, 0.9, &both), candidate(3, 0.4, &both)];
        assert_eq!(order(near.clone(), &config), [1, 0, 2], "one that beats the positive comes before the first");
        assert_eq!(order(near, &JudgeConfig { priority: Priority::ModelScore, ..config.clone() }), [1, 2, 0]);
        let disputed = vec![candidate(1, 0.2, &[("a", 1), ("b", 1)]), candidate(1, 0.2, &[("a", 10)])];
        assert_eq!(order(disputed, &config), [1, 0], "of equal ones the disputed one");
    }

    #[test]
    fn fewer_pairs_are_the_first_of_more() {
        let candidates: Vec<Candidate> =
            (1..30).map(|rank| candidate(rank, (rank * 7 % 13) as f32 / 13.0, &[("a", rank)])).collect();
        let of = |max_pairs| order(candidates.clone(), &JudgeConfig { max_pairs, ..JudgeConfig::default() });
        assert_eq!(of(Some(7)), of(None)[..7]);
    }
}
