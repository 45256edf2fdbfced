//! What the labels say: how far annotators agree with one another, and how far the judge agrees with them.

use std::collections::BTreeMap;

use super::audit::{Audit, Item, Stratum};
use super::labels::{Label, Pair};
use crate::corpus::Language;
use crate::judge::Estimate;
use crate::judge::kappa::{self, Cohen, GRADES, fleiss};

/// A table of grades: rows are one side's, columns the other's.
pub(super) type Table<T> = [[T; GRADES]; GRADES];

/// Two annotators over the pairs that both graded.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Couple {
    pub(super) names: [String; 2],
    /// Pairs that both graded.
    pub(super) pairs: usize,
    pub(super) cohen: Option<Cohen>,
}

/// Fleiss' κ, and over what.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct FleissKappa {
    /// Pairs with so many grades.
    pub(super) pairs: usize,
    /// Grades a pair; of pairs with more, the first that were given.
    pub(super) grades: usize,
    pub(super) kappa: Option<f64>,
}

/// The judge against what annotators settled on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Against {
    /// Pairs: the judge's grade (rows) against people's (columns).
    pub(super) pairs: Table<usize>,
    /// The same, each pair counting for as many candidates as it was drawn from: the sample takes rare verdicts more often.
    pub(super) weighted: Table<f64>,
}

impl Against {
    fn new() -> Self {
        Self { pairs: [[0; GRADES]; GRADES], weighted: [[0.0; GRADES]; GRADES] }
    }

    /// Settled pairs.
    pub(super) fn count(&self) -> usize {
        self.pairs.iter().flatten().sum()
    }

    /// How often people agree where the judge gave `grade`.
    pub(super) fn right(&self, grade: usize) -> Estimate {
        Estimate::wilson(self.pairs[grade][grade], self.pairs[grade].iter().sum())
    }

    /// Share of all candidates with a verdict on which judge and people agree, and κ; from weights.
    pub(super) fn weighted_kappa(&self) -> Option<Cohen> {
        Cohen::of(&self.weighted)
    }

    /// Share of all candidates with a verdict that people grade `grade`; from weights.
    pub(super) fn share(&self, grade: usize) -> Option<f64> {
        let total: f64 = self.weighted.iter().flatten().sum();
        (total > 0.0).then(|| self.weighted.iter().map(|row| row[grade]).sum::<f64>() / total)
    }
}

/// All of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Agreement {
    /// Labels in the sample by annotator.
    pub(super) annotators: BTreeMap<String, usize>,
    pub(super) couples: Vec<Couple>,
    pub(super) fleiss: FleissKappa,
    /// By language, where there is a settled pair with a verdict.
    pub(super) against: BTreeMap<Language, Against>,
    /// Pairs of the sample with a settled grade.
    pub(super) settled: usize,
    /// Pairs whose annotators are at odds, so that one more is asked.
    pub(super) tied: usize,
}

/// The labels of each pair, in the order in which they were given.
pub(super) fn by_pair(labels: &[Label]) -> BTreeMap<&Pair, Vec<&Label>> {
    let mut pairs: BTreeMap<&Pair, Vec<&Label>> = BTreeMap::new();
    labels.iter().for_each(|label| pairs.entry(&label.pair).or_default().push(label));
    pairs
}

/// The grade that most annotators gave; none where two grades share the most.
pub(super) fn settled(labels: &[&Label]) -> Option<u8> {
    kappa::settled(labels.iter().map(|label| label.grade))
}

/// For how many candidates of its stratum a settled pair stands.
pub(super) fn weights(audit: &Audit, pairs: &BTreeMap<&Pair, Vec<&Label>>) -> BTreeMap<(Language, Stratum), f64> {
    let mut counts: BTreeMap<(Language, Stratum), usize> = BTreeMap::new();
    for (item, _) in settled_items(audit, pairs) {
        *counts.entry((item.pair.language.clone(), item.stratum)).or_default() += 1;
    }
    let weight = |(stratum, count): ((Language, Stratum), usize)| {
        let weight = audit.population[&stratum] as f64 / count as f64;
        (stratum, weight)
    };
    counts.into_iter().map(weight).collect()
}

/// The pairs of the sample that have a settled grade.
pub(super) fn settled_items<'a>(
    audit: &'a Audit,
    pairs: &'a BTreeMap<&Pair, Vec<&Label>>,
) -> impl Iterator<Item = (&'a Item, u8)> {
    audit.items.iter().filter_map(|item| Some((item, settled(pairs.get(&item.pair)?)?)))
}

impl Agreement {
    /// From all labels of the data set; those outside the sample do not count. `grades` is how many a pair is to have.
    pub(super) fn of(audit: &Audit, labels: &[Label], grades: usize) -> Self {
        let labels: Vec<Label> = labels.iter().filter(|label| audit.find(&label.pair).is_some()).cloned().collect();
        let pairs = by_pair(&labels);
        let mut annotators: BTreeMap<String, usize> = BTreeMap::new();
        labels.iter().for_each(|label| *annotators.entry(label.annotator.clone()).or_default() += 1);
        let settled_count = settled_items(audit, &pairs).count();
        Self {
            couples: couples(&annotators, &pairs),
            fleiss: fleiss_of(&pairs, grades.max(2)),
            against: against(audit, &pairs),
            settled: settled_count,
            tied: pairs.len() - settled_count,
            annotators,
        }
    }

    /// All languages together.
    pub(super) fn overall(&self) -> Against {
        let mut overall = Against::new();
        for against in self.against.values() {
            for (row, column) in (0..GRADES).flat_map(|row| (0..GRADES).map(move |column| (row, column))) {
                overall.pairs[row][column] += against.pairs[row][column];
                overall.weighted[row][column] += against.weighted[row][column];
            }
        }
        overall
    }
}

fn couples(annotators: &BTreeMap<String, usize>, pairs: &BTreeMap<&Pair, Vec<&Label>>) -> Vec<Couple> {
    let names: Vec<&String> = annotators.keys().collect();
    let mut couples = Vec::new();
    for (place, one) in names.iter().enumerate() {
        for other in &names[place + 1..] {
            let mut table = [[0.0; GRADES]; GRADES];
            let grade = |labels: &[&Label], name: &str| {
                labels.iter().find(|label| label.annotator == name).map(|label| usize::from(label.grade))
            };
            let both = pairs.values().filter_map(|labels| Some((grade(labels, one)?, grade(labels, other)?)));
            let mut count = 0;
            for (row, column) in both {
                table[row][column] += 1.0;
                count += 1;
            }
            if count > 0 {
                let names = [(*one).clone(), (*other).clone()];
                couples.push(Couple { names, pairs: count, cohen: Cohen::of(&table) });
            }
        }
    }
    couples
}

fn fleiss_of(pairs: &BTreeMap<&Pair, Vec<&Label>>, grades: usize) -> FleissKappa {
    let counted = |labels: &Vec<&Label>| {
        let mut counts = [0; GRADES];
        labels.iter().take(grades).for_each(|label| counts[usize::from(label.grade)] += 1);
        counts
    };
    let items: Vec<[u32; GRADES]> = pairs.values().filter(|labels| labels.len() >= grades).map(counted).collect();
    FleissKappa { pairs: items.len(), grades, kappa: fleiss(&items) }
}

fn against(audit: &Audit, pairs: &BTreeMap<&Pair, Vec<&Label>>) -> BTreeMap<Language, Against> {
    let weights = weights(audit, pairs);
    let mut against: BTreeMap<Language, Against> = BTreeMap::new();
    for (item, grade) in settled_items(audit, pairs) {
        if let Some(judged) = item.stratum.grade() {
            let language = &item.pair.language;
            let of_language = against.entry(language.clone()).or_insert_with(Against::new);
            of_language.pairs[judged][usize::from(grade)] += 1;
            of_language.weighted[judged][usize::from(grade)] += weights[&(language.clone(), item.stratum)];
        }
    }
    against
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(number: usize) -> Pair {
        Pair { language: Language::new("sw").unwrap(), query: "q".into(), passage: format!("p{number}") }
    }

    fn label(number: usize, annotator: &str, grade: u8) -> Label {
        Label { pair: pair(number), annotator: annotator.into(), revision: 1, grade }
    }

    /// Four pairs: the judge calls the first two negative, the third excluded and the fourth a false negative; 100 candidates
    /// are negative, 10 excluded, 10 false negatives.
    fn audit() -> Audit {
        use Stratum::{Excluded, FalseNegative, Negative};
        let strata = [Negative, Negative, Excluded, FalseNegative];
        let items =
            strata.into_iter().enumerate().map(|(number, stratum)| Item { pair: pair(number), row: 0, stratum });
        let sw = || Language::new("sw").unwrap();
        Audit::of(
            items.collect(),
            [((sw(), Negative), 100), ((sw(), Excluded), 10), ((sw(), FalseNegative), 10)].into(),
        )
    }

    #[test]
    fn the_most_given_grade_counts_and_a_tie_settles_nothing() {
        let grades = |grades: &[u8]| {
            let labels: Vec<Label> = grades.iter().map(|grade| label(0, "a", *grade)).collect();
            settled(&labels.iter().collect::<Vec<_>>())
        };
        assert_eq!(grades(&[1]), Some(1));
        assert_eq!(grades(&[2, 0, 2]), Some(2));
        assert_eq!((grades(&[0, 2]), grades(&[0, 1, 2]), grades(&[])), (None, None, None));
    }

    #[test]
    fn the_judge_is_weighed_by_what_each_pair_stands_for() {
        let labels = [label(0, "a", 0), label(1, "a", 2), label(2, "a", 1), label(3, "a", 2), label(9, "a", 2)];
        let agreement = Agreement::of(&audit(), &labels, 2);
        assert_eq!(
            (agreement.settled, agreement.tied, agreement.annotators["a"]),
            (4, 0, 4),
            "one is not in the sample"
        );
        let overall = agreement.overall();
        assert_eq!(overall.pairs, [[1, 0, 1], [0, 1, 0], [0, 0, 1]]);
        let expected = [[50.0, 0.0, 50.0], [0.0, 10.0, 0.0], [0.0, 0.0, 10.0]];
        let near = overall
            .weighted
            .iter()
            .flatten()
            .zip(expected.iter().flatten())
            .all(|(a, b): (&f64, &f64)| (a - b).abs() < 1e-9);
        assert!(near, "{:?}", overall.weighted);
        assert_eq!(overall.right(0), Estimate::wilson(1, 2));
        assert!((overall.share(2).unwrap() - 0.5).abs() < 1e-12);
        assert!((overall.weighted_kappa().unwrap().agreement - 70.0 / 120.0).abs() < 1e-12);
    }

    #[test]
    fn annotators_are_compared_over_what_both_graded() {
        let labels = [
            label(0, "a", 0),
            label(0, "b", 0),
            label(1, "b", 2),
            label(1, "a", 1),
            label(2, "a", 1),
            label(3, "a", 2),
            label(3, "c", 2),
            label(3, "b", 2),
        ];
        let agreement = Agreement::of(&audit(), &labels, 2);
        let pairs: Vec<(&str, &str, usize)> =
            agreement.couples.iter().map(|couple| (&*couple.names[0], &*couple.names[1], couple.pairs)).collect();
        assert_eq!(pairs, [("a", "b", 3), ("a", "c", 1), ("b", "c", 1)]);
        assert!((agreement.couples[0].cohen.unwrap().agreement - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(agreement.couples[1].cohen, None, "one and the same grade throughout");
        assert_eq!((agreement.fleiss.pairs, agreement.fleiss.grades, agreement.tied), (3, 2, 1));
    }
}
