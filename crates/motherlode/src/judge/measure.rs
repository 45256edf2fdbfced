//! What calibration comes to: sensitivity, specificity and the corrected share of relevant candidates, in all and within
//! bands of the untouched model's score.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::calibrate::CalibrationPair;
use super::rates::{Corrected, Rates, Tally, corrected};
use super::reliability::{Bin, brier, reliability};
use super::select::Lists;
use super::verdict::Grades;
use super::{Judged, Judgement, Verdict};
use crate::corpus::Language;
use crate::mine::QueryCandidates;

/// Bands of the judged candidates' model scores, with equal numbers of candidates.
const BANDS: usize = 3;
/// Fewer judged candidates have no bands.
const LEAST_IN_BANDS: usize = 30;

/// The grades of pairs that people agree on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GradeCounts {
    /// Pairs of grade 0, 1 and 2.
    pub grades: [usize; 3],
    /// Pairs whose replies could not be read; they are in no rate.
    pub unknown: usize,
}

/// The rates within one band of model scores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Band {
    /// Lowest score, inclusive.
    pub low: f32,
    /// Highest score, inclusive in the last band only.
    pub high: f32,
    /// The decision to eliminate.
    pub eliminated: Rates,
    /// The decision that it is a false negative.
    pub false_negative: Rates,
}

/// The calibration of one language.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Calibration {
    /// Pairs that people judged relevant.
    pub positives: GradeCounts,
    /// Pairs that people judged not relevant.
    pub negatives: GradeCounts,
    /// The decision to eliminate: grade 1 or 2.
    pub eliminated: Rates,
    /// The decision that it is a false negative: grade 2.
    pub false_negative: Rates,
    /// The same by the untouched model's score, in thirds of the judged candidates; empty for too few of them.
    pub bands: Vec<Band>,
    /// The corrected rates of both decisions with each band corrected by its own pairs.
    pub corrected_by_band: [Corrected; 2],
    /// Calibration pairs in no band: without a known score, or with one that no judged candidate has.
    pub outside_bands: usize,
    /// What the mean grade of the votes, halved, is worth as a probability of relevance. The share of positives among
    /// these pairs is the draw's, not the candidates'.
    pub reliability: Vec<Bin>,
    /// Brier score of the same claims.
    pub brier: Option<f64>,
}

/// The grade that a judgement comes to, whether or not the language abstains; none without one.
pub(crate) fn grade_of(judgement: &Judgement) -> Option<u8> {
    match (judgement.verdict, judgement.accuracy, judgement.completeness) {
        (Verdict::Abstained, Some(accuracy), Some(completeness)) => Some(Grades { accuracy, completeness }.combined()),
        (verdict, ..) => verdict.grade(),
    }
}

/// A graded pair, of people or of the candidates.
struct Graded<'a> {
    query: &'a str,
    score: Option<f32>,
    grade: u8,
    /// What people say; none for a candidate.
    relevant: Option<bool>,
    /// For how many pairs it stands.
    weight: f64,
}

/// The calibration of every language, also of those without any pair.
pub(super) fn outcome(
    rows: &[CalibrationPair],
    judged: &Judged,
    lists: &Lists,
    seed: u64,
) -> BTreeMap<Language, Calibration> {
    let of_language = |(language, lists): (&Language, &Vec<QueryCandidates>)| {
        let own: Vec<&CalibrationPair> = rows.iter().filter(|row| row.language == *language).collect();
        let mut pairs: Vec<Graded> = Vec::new();
        for row in &own {
            if let Some(grade) = row.grade {
                let (relevant, weight) = (Some(row.relevant), row.weight);
                pairs.push(Graded { query: &row.query, score: row.model_score, grade, relevant, weight });
            }
        }
        let judgements = judged.lists.get(language).map_or(&[][..], Vec::as_slice);
        for (list, row) in lists.iter().zip(judgements) {
            for (candidate, judgement) in list.candidates.iter().zip(&row.judgements) {
                if let Some(grade) = grade_of(judgement) {
                    let score = Some(candidate.model_score);
                    pairs.push(Graded { query: &list.query, score, grade, relevant: None, weight: 1.0 });
                }
            }
        }
        let claims = || own.iter().filter_map(|row| Some((row.claimed?, row.relevant)));
        let calibration = Calibration {
            positives: grade_counts(&own, true),
            negatives: grade_counts(&own, false),
            reliability: reliability(claims()),
            brier: brier(claims()),
            ..measure(&pairs, seed, language.as_str())
        };
        (language.clone(), calibration)
    };
    lists.iter().map(of_language).collect()
}

fn grade_counts(rows: &[&CalibrationPair], relevant: bool) -> GradeCounts {
    let mut counts = GradeCounts::default();
    for row in rows.iter().filter(|row| row.relevant == relevant) {
        match row.grade {
            Some(grade) => counts.grades[usize::from(grade)] += 1,
            None => counts.unknown += 1,
        }
    }
    counts
}

/// The rates of both decisions, in all and by band.
fn measure(pairs: &[Graded], seed: u64, name: &str) -> Calibration {
    let edges = edges(pairs);
    let band = |pair: &Graded| edges.as_ref().and_then(|edges| edges.place(pair.score?));
    let mut calibration = Calibration {
        eliminated: rates(pairs, 1, |_| Some(0), seed, name),
        false_negative: rates(pairs, 2, |_| Some(0), seed, name),
        ..Calibration::default()
    };
    let Some(edges) = &edges else { return calibration };
    calibration.corrected_by_band = [1, 2].map(|least| corrected(&tallies(pairs, least, BANDS, band), seed, name));
    calibration.outside_bands = pairs.iter().filter(|pair| pair.relevant.is_some() && band(pair).is_none()).count();
    for place in 0..BANDS {
        let inside = |pair: &Graded| (band(pair) == Some(place)).then_some(0);
        calibration.bands.push(Band {
            low: edges.0[place],
            high: edges.0[place + 1],
            eliminated: rates(pairs, 1, inside, seed, name),
            false_negative: rates(pairs, 2, inside, seed, name),
        });
    }
    calibration
}

/// The rates of the decision "grade `least` or above" over the pairs that `stratum` takes.
fn rates(pairs: &[Graded], least: u8, stratum: impl Fn(&Graded) -> Option<usize>, seed: u64, name: &str) -> Rates {
    let queries = tallies(pairs, least, 1, stratum);
    let mut all = Tally::default();
    queries.iter().for_each(|query| all.add(&query[0]));
    Rates { corrected: corrected(&queries, seed, name), ..all.rates() }
}

/// What every query tells of a decision, by stratum; queries by id.
fn tallies(pairs: &[Graded], least: u8, strata: usize, stratum: impl Fn(&Graded) -> Option<usize>) -> Vec<Vec<Tally>> {
    let mut queries: BTreeMap<&str, Vec<Tally>> = BTreeMap::new();
    for pair in pairs {
        let Some(stratum) = stratum(pair) else { continue };
        let tally = &mut queries.entry(pair.query).or_insert_with(|| vec![Tally::default(); strata])[stratum];
        let decision = pair.grade >= least;
        match pair.relevant {
            Some(true) => tally.positives.push(decision, pair.weight),
            Some(false) => tally.negatives.push(!decision, pair.weight),
            None => {
                tally.judged += 1;
                tally.eliminated += usize::from(decision);
            }
        }
    }
    queries.into_values().collect()
}

/// The borders of the bands, from the lowest to the highest score of a judged candidate.
struct Edges([f32; BANDS + 1]);

impl Edges {
    fn place(&self, score: f32) -> Option<usize> {
        let Self(edges) = self;
        if score < edges[0] || score > edges[BANDS] {
            return None;
        }
        Some(edges[1..BANDS].iter().filter(|edge| score >= **edge).count())
    }
}

fn edges(pairs: &[Graded]) -> Option<Edges> {
    let candidates = pairs.iter().filter(|pair| pair.relevant.is_none());
    let mut scores: Vec<f32> = candidates.filter_map(|pair| pair.score).collect();
    if scores.len() < LEAST_IN_BANDS {
        return None;
    }
    scores.sort_by(f32::total_cmp);
    Some(Edges(std::array::from_fn(|edge| scores[(edge * scores.len() / BANDS).min(scores.len() - 1)])))
}

#[cfg(test)]
mod tests {
    use super::super::rates::Estimate;
    use super::*;

    fn graded(query: &str, score: f32, grade: u8, relevant: Option<bool>) -> Graded<'_> {
        Graded { query, score: Some(score), grade, relevant, weight: 1.0 }
    }

    #[test]
    fn rates_follow_the_two_decisions() {
        let side = |grades: [usize; 3], relevant| {
            let of_grade =
                move |grade: usize| (0..grades[grade]).map(move |_| graded("q", 0.5, grade as u8, Some(relevant)));
            (0..3).flat_map(of_grade).collect::<Vec<_>>()
        };
        let pairs: Vec<Graded> = side([1, 2, 7], true).into_iter().chain(side([6, 3, 1], false)).collect();
        let found = measure(&pairs, 1, "sw");
        let shares = |rates: Rates| [rates.sensitivity, rates.specificity];
        assert_eq!(shares(found.eliminated), [Estimate::wilson(9, 10), Estimate::wilson(6, 10)]);
        assert_eq!(shares(found.false_negative), [Estimate::wilson(7, 10), Estimate::wilson(9, 10)]);
        assert!(found.bands.is_empty() && found.eliminated.corrected == Corrected::NotEstimable, "no candidates");
    }

    #[test]
    fn bands_have_their_own_rates() {
        let names: Vec<String> = (0..60).map(|number| format!("q{number}")).collect();
        let mut pairs = Vec::new();
        for (number, name) in names.iter().enumerate() {
            let score = number as f32 / 60.0;
            // The judge is right but above 2/3, where it calls everything relevant.
            let is_blind = number >= 40;
            let said = |relevant: bool| if relevant || is_blind { 2 } else { 0 };
            pairs.push(graded(name, score, said(true), Some(true)));
            pairs.push(graded(name, score, said(false), Some(false)));
            pairs.push(graded(name, score, said(number % 4 == 0), None));
        }
        pairs.push(graded("q0", 2.0, 2, Some(true)));
        let found = measure(&pairs, 1, "sw");
        let specificities = found.bands.iter().map(|band| band.eliminated.specificity).collect::<Vec<_>>();
        assert_eq!(specificities, [Estimate::wilson(20, 20), Estimate::wilson(20, 20), Estimate::wilson(0, 20)]);
        let Corrected::Rate { rate, .. } = found.bands[0].eliminated.corrected else { panic!("estimable") };
        assert!((rate - 0.25).abs() < 1e-12);
        assert_eq!(found.bands[2].eliminated.corrected, Corrected::NotEstimable);
        assert_eq!(found.corrected_by_band, [Corrected::NotEstimable; 2], "one band cannot be corrected");
        assert_eq!(found.outside_bands, 1);
    }

    #[test]
    fn what_an_abstaining_language_was_told_still_has_a_grade() {
        let judgement = |verdict, accuracy, completeness| Judgement {
            passage: "p".into(),
            verdict,
            accuracy,
            completeness,
            screened: None,
            ledger: Vec::new(),
        };
        assert_eq!(grade_of(&judgement(Verdict::Abstained, Some(1), Some(2))), Some(2));
        assert_eq!(grade_of(&judgement(Verdict::Abstained, None, None)), None);
        assert_eq!(grade_of(&judgement(Verdict::Unknown, None, None)), None);
    }
}
