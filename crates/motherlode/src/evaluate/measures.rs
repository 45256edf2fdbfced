//! The measures, equal to `trec_eval`'s.
//!
//! A passage is relevant from grade 1 on; an unjudged passage counts as not relevant, and so does a negative grade.
//! Rankings come sorted by THE tie rule ([`crate::run::rank_order`]), which is `trec_eval`'s. Every measure is 0 for a
//! query without relevant passages and for one without a ranking.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::corpus::PassageIndex;
use crate::error::{Error, Result};
use crate::run::Scored;

/// A measure of one ranking. In files and configurations a string such as `nDCG@10`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Measure {
    /// Normalised discounted cumulative gain of the first k, with the grade as gain. Source: `trec_eval` `ndcg_cut`.
    Ndcg(usize),
    /// Share of the relevant passages that are among the first k. Source: `trec_eval` `recall`.
    Recall(usize),
    /// One over the rank of the first relevant passage, 0 if it is beyond k. Source: `trec_eval` `recip_rank` with `-M k`.
    ReciprocalRank(usize),
    /// Mean over the relevant passages of the precision at their rank. Source: `trec_eval` `map`.
    AveragePrecision,
    /// Share of k that is relevant, however few were found. Source: `trec_eval` `P`.
    Precision(usize),
    /// Share of the first k that was judged; of those found, where fewer than k were. Source: `ir_measures` `Judged`.
    Judged(usize),
}

impl Measure {
    /// The value for one query, in [0, 1].
    pub fn of(self, graded: &Graded) -> f64 {
        match self {
            Self::Ndcg(k) => graded.ndcg(k),
            Self::Recall(k) => ratio(graded.relevant_found(k), graded.ideal.len()),
            Self::ReciprocalRank(k) => graded.reciprocal_rank(k),
            Self::AveragePrecision => graded.average_precision(),
            Self::Precision(k) => ratio(graded.relevant_found(k), k),
            Self::Judged(k) => ratio(graded.judged_found(k), k.min(graded.retrieved)),
        }
    }

    fn name(self) -> (&'static str, Option<usize>) {
        match self {
            Self::Ndcg(k) => ("nDCG", Some(k)),
            Self::Recall(k) => ("Recall", Some(k)),
            Self::ReciprocalRank(k) => ("MRR", Some(k)),
            Self::AveragePrecision => ("MAP", None),
            Self::Precision(k) => ("P", Some(k)),
            Self::Judged(k) => ("judged", Some(k)),
        }
    }
}

impl std::fmt::Display for Measure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            (name, Some(k)) => formatter.pad(&format!("{name}@{k}")),
            (name, None) => formatter.pad(name),
        }
    }
}

impl From<Measure> for String {
    fn from(measure: Measure) -> Self {
        measure.to_string()
    }
}

impl TryFrom<String> for Measure {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl FromStr for Measure {
    type Err = Error;

    /// Reads `nDCG@10`, `Recall@100`, `MRR@10`, `MAP`, `P@5`, `judged@10`, in any case.
    fn from_str(text: &str) -> Result<Self> {
        let unknown = || {
            let expected = "expected nDCG@k, Recall@k, MRR@k, P@k or judged@k with k from 1, or MAP";
            Error::config(format!("unknown measure `{text}`; {expected}"))
        };
        let (name, k) = match text.split_once('@') {
            Some((name, k)) => (name, k.parse().ok().filter(|k| *k >= 1)),
            None if text.eq_ignore_ascii_case("map") => return Ok(Self::AveragePrecision),
            None => return Err(unknown()),
        };
        let k = k.ok_or_else(unknown)?;
        match name.to_ascii_lowercase().as_str() {
            "ndcg" => Ok(Self::Ndcg(k)),
            "recall" => Ok(Self::Recall(k)),
            "mrr" => Ok(Self::ReciprocalRank(k)),
            "p" => Ok(Self::Precision(k)),
            "judged" => Ok(Self::Judged(k)),
            _ => Err(unknown()),
        }
    }
}

/// A ranking seen through its judgements: all that a measure needs, made once for all measures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graded {
    /// Ranks (from 0) and grades of the judged passages that were found, by rank.
    hits: Vec<(usize, i32)>,
    /// Number of passages found.
    retrieved: usize,
    /// Positive grades of all judged passages, descending.
    ideal: Vec<i32>,
}

impl Graded {
    /// Looks up the grades of a ranking that is sorted by THE tie rule.
    pub fn new(ranking: &[Scored], grades: &BTreeMap<PassageIndex, i32>) -> Self {
        let grade_at = |(rank, scored): (usize, &Scored)| grades.get(&scored.passage).map(|grade| (rank, *grade));
        Self::from_hits(
            ranking.iter().enumerate().filter_map(grade_at).collect(),
            ranking.len(),
            grades.values().copied(),
        )
    }

    /// Takes the (rank from 0, grade) of the judged passages that were found, by rank; how many passages were found;
    /// and the grades of all judged passages.
    pub fn from_hits(hits: Vec<(usize, i32)>, retrieved: usize, judged: impl Iterator<Item = i32>) -> Self {
        let mut ideal: Vec<i32> = judged.filter(|grade| *grade >= 1).collect();
        ideal.sort_unstable_by(|a, b| b.cmp(a));
        Self { hits, retrieved, ideal }
    }

    /// The value of each measure.
    pub fn values(&self, measures: &[Measure]) -> BTreeMap<Measure, f64> {
        measures.iter().map(|measure| (*measure, measure.of(self))).collect()
    }

    /// Number of passages found.
    pub fn retrieved(&self) -> usize {
        self.retrieved
    }

    /// Number of the first k passages that nobody judged.
    pub fn unjudged(&self, k: usize) -> usize {
        k.min(self.retrieved) - self.judged_found(k)
    }

    fn first(&self, k: usize) -> impl Iterator<Item = (usize, i32)> {
        self.hits.iter().copied().take_while(move |(rank, _)| *rank < k)
    }

    /// Ranks (from 0) of the relevant passages among the first k.
    fn relevant(&self, k: usize) -> impl Iterator<Item = usize> {
        self.first(k).filter(|(_, grade)| *grade >= 1).map(|(rank, _)| rank)
    }

    fn relevant_found(&self, k: usize) -> usize {
        self.relevant(k).count()
    }

    fn judged_found(&self, k: usize) -> usize {
        self.first(k).count()
    }

    fn ndcg(&self, k: usize) -> f64 {
        let discounted = |(rank, grade): (usize, i32)| f64::from(grade) / (rank as f64 + 2.0).log2();
        let gain: f64 = self.first(k).filter(|(_, grade)| *grade >= 1).map(discounted).sum();
        let ideal: f64 = self.ideal.iter().copied().take(k).enumerate().map(discounted).sum();
        if ideal > 0.0 { gain / ideal } else { 0.0 }
    }

    fn reciprocal_rank(&self, k: usize) -> f64 {
        self.relevant(k).next().map_or(0.0, |rank| 1.0 / (rank as f64 + 1.0))
    }

    fn average_precision(&self) -> f64 {
        let precisions = self.relevant(usize::MAX).enumerate().map(|(before, rank)| ratio(before + 1, rank + 1));
        let sum: f64 = precisions.sum();
        if self.ideal.is_empty() { 0.0 } else { sum / self.ideal.len() as f64 }
    }
}

/// nDCG of the first `k` passages, with the grade as gain.
///
/// *Order and ties*: `ranking` is sorted by THE tie rule.
/// *Source*: `trec_eval` `ndcg_cut`: linear gain, negative grades count 0, the ideal is made of all judged passages.
pub fn ndcg(ranking: &[Scored], grades: &BTreeMap<PassageIndex, i32>, k: usize) -> f64 {
    Measure::Ndcg(k).of(&Graded::new(&ranking[..k.min(ranking.len())], grades))
}

fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::corpus_of;
    use crate::qrels::Qrels;
    use crate::queries::{Queries, Query};
    use crate::run::Run;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    fn ranking(passages: &[u32]) -> Vec<Scored> {
        let score = |rank: usize| -(rank as f32);
        passages.iter().enumerate().map(|(rank, p)| Scored { passage: PassageIndex(*p), score: score(rank) }).collect()
    }

    fn grades(pairs: &[(u32, i32)]) -> BTreeMap<PassageIndex, i32> {
        pairs.iter().map(|(passage, grade)| (PassageIndex(*passage), *grade)).collect()
    }

    fn close(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-12, "{value} is not {expected}");
    }

    #[test]
    fn ndcg_has_linear_gain_and_an_ideal_of_all_judged() {
        let value = ndcg(&ranking(&[5, 1, 2]), &grades(&[(1, 1), (2, 3), (3, 2), (5, -1)]), 2);
        close(value, (1.0 / 3f64.log2()) / (3.0 + 2.0 / 3f64.log2()));
    }

    #[test]
    fn measures_of_one_ranking_by_hand() {
        let graded = Graded::new(&ranking(&[9, 1, 8, 2]), &grades(&[(1, 1), (2, 2), (3, 1), (8, 0)]));
        close(Measure::Recall(2).of(&graded), 1.0 / 3.0);
        close(Measure::ReciprocalRank(10).of(&graded), 0.5);
        close(Measure::ReciprocalRank(1).of(&graded), 0.0);
        close(Measure::AveragePrecision.of(&graded), (0.5 + 0.5) / 3.0);
        close(Measure::Precision(5).of(&graded), 0.4);
        close(Measure::Judged(10).of(&graded), 0.75);
        assert_eq!(graded.unjudged(10), 1);
    }

    #[test]
    fn nothing_relevant_and_nothing_found_are_zero() {
        let all = ["nDCG@10", "Recall@5", "MRR@10", "MAP", "P@3", "judged@10"];
        for measure in all.map(|name| name.parse::<Measure>().unwrap()) {
            close(measure.of(&Graded::new(&[], &grades(&[(1, 1)]))), 0.0);
            close(measure.of(&Graded::new(&ranking(&[1]), &grades(&[]))), 0.0);
        }
    }

    #[test]
    fn names_read_back_and_wrong_ones_are_refused() {
        for name in ["nDCG@10", "Recall@100", "MRR@10", "MAP", "P@5", "judged@10"] {
            assert_eq!(name.parse::<Measure>().unwrap().to_string(), name);
        }
        assert_eq!("ndcg@10".parse::<Measure>().unwrap(), Measure::Ndcg(10));
        for name in ["nDCG", "nDCG@0", "nDCG@x", "MAP@3", "F1@2", ""] {
            let message = name.parse::<Measure>().unwrap_err().to_string();
            assert!(message.contains("expected nDCG@k"), "{message}");
        }
    }

    /// A case of `tests/data/evaluate`, made by `tests/golden/evaluate.py` with `trec_eval`'s code.
    struct Case {
        expected: serde_json::Value,
        queries: Queries,
        qrels: Qrels,
        run: Run,
    }

    fn case(number: usize) -> Case {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/evaluate");
        let file = |extension: &str| folder.join(format!("{number}.{extension}"));
        let (mut queries, mut passages) = (Queries::default(), BTreeSet::new());
        for path in [file("qrels"), file("trec")] {
            for line in std::fs::read_to_string(path).unwrap().lines() {
                let fields: Vec<&str> = line.split_whitespace().collect();
                passages.insert(fields[2].to_owned());
                if queries.find(fields[0]).is_none() {
                    queries.push(Query { id: fields[0].to_owned(), text: "?".to_owned() }).unwrap();
                }
            }
        }
        let corpus = corpus_of(&passages.iter().map(|id| (id.as_str(), "", "")).collect::<Vec<_>>());
        let qrels = Qrels::read(&file("qrels"), &queries, &corpus).unwrap();
        let run = Run::read(&file("trec"), &queries, &corpus).unwrap();
        let expected = serde_json::from_str(&std::fs::read_to_string(file("json")).unwrap()).unwrap();
        Case { expected, queries, qrels, run }
    }

    fn measured(case: &Case) -> BTreeMap<String, BTreeMap<Measure, f64>> {
        let measures: Vec<Measure> =
            case.expected["complete"].as_object().unwrap().keys().map(|name| name.parse().unwrap()).collect();
        let judged = case.queries.iter().filter(|(index, _)| !case.qrels.judged(*index).is_empty());
        let values = |index| Graded::new(case.run.ranking(index), case.qrels.judged(index)).values(&measures);
        judged.map(|(index, query)| (query.id.clone(), values(index))).collect()
    }

    #[test]
    fn every_query_has_trec_evals_values() {
        for case in (0..6).map(case) {
            let rows = measured(&case);
            for (query, expected) in case.expected["per_query"].as_object().unwrap() {
                for (measure, value) in &rows[query] {
                    close(*value, expected[measure.to_string()].as_f64().unwrap());
                }
            }
        }
    }

    #[test]
    fn means_are_trec_evals_with_and_without_c() {
        for case in (0..6).map(case) {
            let rows = measured(&case);
            let found = rows
                .iter()
                .filter(|(id, _)| !case.run.ranking(case.queries.find(id).expect("it was measured")).is_empty());
            let found: Vec<_> = found.map(|(_, row)| row).collect();
            assert_eq!(found.len(), case.expected["per_query"].as_object().unwrap().len());
            for (rows, name) in [(found, "found"), (rows.values().collect(), "complete")] {
                for (measure, value) in crate::evaluate::table::mean_of_values(rows) {
                    close(value, case.expected[name][measure.to_string()].as_f64().unwrap());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn every_measure_lies_between_0_and_1(
            order in Just((0..20_u32).collect::<Vec<_>>()).prop_shuffle(),
            judged in prop::collection::vec((0..25_u32, -2..4_i32), 0..15),
            k in 1..25_usize,
        ) {
            let (ranking, grades) = (ranking(&order), grades(&judged));
            let graded = Graded::new(&ranking, &grades);
            for measure in ["nDCG", "Recall", "MRR", "P", "judged"].map(|name| format!("{name}@{k}").parse::<Measure>()) {
                prop_assert!((0.0..=1.0 + 1e-12).contains(&measure.unwrap().of(&graded)));
            }
            prop_assert!((0.0..=1.0).contains(&Measure::AveragePrecision.of(&graded)));
            prop_assert!((ndcg(&ranking, &grades, k) - Measure::Ndcg(k).of(&graded)).abs() < 1e-12);
        }

        #[test]
        fn the_ideal_order_has_an_ndcg_of_1(judged in prop::collection::btree_map(0..25_u32, -2..4_i32, 1..15)) {
            prop_assume!(judged.values().any(|grade| *grade > 0));
            let mut order: Vec<u32> = judged.keys().copied().collect();
            order.sort_by_key(|passage| -judged[passage]);
            let pairs: Vec<(u32, i32)> = judged.into_iter().collect();
            prop_assert!((ndcg(&ranking(&order), &grades(&pairs), 10) - 1.0).abs() < 1e-12);
        }
    }
}
