//! The cascade: a cheap judge gives a probability, and only the pairs between two thresholds go to the large judge.
//!
//! A random slice of the pairs goes to both. One half of it chooses the thresholds: those that leave the fewest pairs to
//! the large judge while the cheap one decides otherwise than it in at most `judge.cascade.error` of what it decides. The
//! other half, which the choice has not seen, audits them. Below the lower threshold a pair is a negative; above the upper
//! one it is excluded, for the cheap judge cannot tell part of an answer from the whole.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Judge;
use super::ask::Case;
use super::config::CascadeConfig;
use super::priority::Place;
use super::prompt;
use super::rates::Estimate;
use super::reliability::{Bin, reliability};
use super::select::{Asked, Lists, ask, cases, drawn};
use crate::artefact::Artefact;
use crate::corpus::Language;
use crate::error::{Error, Result};
use crate::llm::{Reply, Request};
use crate::progress::Progress;

/// Fewer pairs that both judged choose no thresholds.
const LEAST_TO_CHOOSE: usize = 20;
/// Most values that a threshold is tried at.
const MOST_CUTS: usize = 256;

/// Where the cheap judge's word counts. Probabilities from 0 to 1; none: never on this side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Thresholds {
    /// At or below this probability a pair is a negative.
    pub low: Option<f64>,
    /// At or above this one it is excluded.
    pub high: Option<f64>,
}

/// What the cheap judge decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Negative,
    Relevant,
}

impl Thresholds {
    /// Whether the cheap judge's word makes a pair relevant; none between the thresholds.
    pub(crate) fn relevant(self, probability: f64) -> Option<bool> {
        self.decide(probability).map(|decision| decision == Decision::Relevant)
    }

    pub(super) fn decide(self, probability: f64) -> Option<Decision> {
        if self.low.is_some_and(|low| probability <= low) {
            Some(Decision::Negative)
        } else if self.high.is_some_and(|high| probability >= high) {
            Some(Decision::Relevant)
        } else {
            None
        }
    }
}

/// The cheap judge's word on one pair.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Screen {
    /// None where the reply had neither label.
    pub(super) probability: Option<f64>,
    pub(super) ledger: String,
}

/// The cheap judge's words by place, with the thresholds that turn them into decisions.
#[derive(Default)]
pub(super) struct Screening {
    pub(super) screens: BTreeMap<Place, Screen>,
    pub(super) thresholds: Option<Thresholds>,
}

impl Screening {
    pub(super) fn decision(&self, place: Place) -> Option<Decision> {
        self.thresholds?.decide(self.screens.get(&place)?.probability?)
    }
}

/// How well the thresholds hold on pairs that did not choose them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Audit {
    /// Pairs that both judges graded.
    pub pairs: usize,
    /// Pairs of these that the cheap judge decided.
    pub decided: usize,
    /// The share of these that the large judge decided otherwise.
    pub error: Estimate,
}

/// The cascade's choice and how good it is: `cascade.json` in the artefact of `judge`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cascade {
    /// The cheap judge.
    pub model: String,
    /// The thresholds; none where too few pairs were judged by both, so that the large judge decides everything.
    pub thresholds: Option<Thresholds>,
    /// Pairs that the cheap judge saw.
    pub screened: usize,
    /// Pairs of these that it decided.
    pub decided: usize,
    /// The half of the slice that chose the thresholds.
    pub chosen_on: Audit,
    /// The half that audits them.
    pub audit: Audit,
    /// The audit by language.
    pub languages: BTreeMap<Language, Audit>,
    /// What the probabilities are worth beside the large judge's decisions, on the whole slice.
    pub reliability: Vec<Bin>,
}

/// The thresholds that an artefact of `judge` was made with; none without a cascade.
pub(crate) fn thresholds_of(judgements: &Artefact) -> Result<Option<Thresholds>> {
    if !judgements.has(FILE) {
        return Ok(None);
    }
    let path = judgements.path(FILE);
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    let cascade: Cascade = serde_json::from_str(&text).map_err(|error| Error::file(&path, error.to_string()))?;
    Ok(cascade.thresholds)
}

/// The file's name.
pub(super) const FILE: &str = "cascade.json";

/// Asks the cheap judge about these places.
pub(super) fn screen(
    judge: &Judge,
    config: &CascadeConfig,
    lists: &Lists,
    places: &[Place],
    progress: &Progress,
) -> Result<Screening> {
    let places: BTreeSet<Place> = places.iter().copied().collect();
    let cases = cases(judge, lists, &places)?;
    let screens = screen_cases(judge, config, &cases, progress)?.into_iter().flatten();
    let screens = places.into_iter().zip(screens).filter_map(|(place, screen)| Some((place, screen?))).collect();
    Ok(Screening { screens, thresholds: None })
}

/// The cheap judge's word on every passage of every case; none where no answer was bought.
pub(super) fn screen_cases(
    judge: &Judge,
    config: &CascadeConfig,
    cases: &[Case],
    progress: &Progress,
) -> Result<Vec<Vec<Option<Screen>>>> {
    let groups: Vec<Vec<Request>> = cases.iter().map(|case| case.screen_requests(&config.model)).collect();
    let read = |reply: Reply| match reply {
        Reply::Answered { text, key, .. } => Some(Screen { probability: prompt::screened(&text), ledger: key }),
        Reply::Unanswered(_) => None,
    };
    let replies = judge.llm.ask(&groups, progress)?;
    Ok(replies.into_iter().map(|replies| replies.into_iter().map(read).collect()).collect())
}

/// Judges places by the cascade, choosing the thresholds on the way.
pub(super) fn run(
    judge: &Judge,
    config: &CascadeConfig,
    (lists, places): (&Lists, &[Place]),
    seed: u64,
    progress: &Progress,
) -> Result<(Asked, Cascade)> {
    let screening = screen(judge, config, lists, places, progress)?;
    let name = |place: &Place| name_of(lists, *place);
    let wanted = ((places.len() as f64 * config.audit).ceil() as usize).max(config.audit_pairs);
    let slice = drawn(places.to_vec(), wanted, seed, "judge cascade", name);
    let opinions = ask(judge, lists, &slice, progress)?;
    let mut asked = Asked { opinions, screening };
    let choosing: BTreeSet<Place> =
        drawn(slice.clone(), slice.len().div_ceil(2), seed, "judge cascade thresholds", name).into_iter().collect();
    let points: Vec<(Place, Point)> = slice.iter().filter_map(|place| Some((*place, point(&asked, *place)?))).collect();
    let (chosen_on, audited): (Vec<_>, Vec<_>) = points.iter().partition(|(place, _)| choosing.contains(place));
    let of = |points: &[&(Place, Point)]| points.iter().map(|(_, point)| *point).collect::<Vec<Point>>();
    asked.screening.thresholds = choose(&of(&chosen_on), config.error);
    if judge.llm.collected() == 0 {
        let is_open = |place: &Place| !asked.opinions.contains_key(place) && asked.screening.decision(*place).is_none();
        let open: Vec<Place> = places.iter().copied().filter(is_open).collect();
        asked.opinions.extend(ask(judge, lists, &open, progress)?);
    }
    let thresholds = asked.screening.thresholds;
    let mut languages: BTreeMap<Language, Vec<Point>> = BTreeMap::new();
    for ((language, ..), point) in &audited {
        let language = lists.keys().nth(*language).expect("a place is of one of the lists").clone();
        languages.entry(language).or_default().push(*point);
    }
    let cascade = Cascade {
        model: config.model.clone(),
        thresholds,
        screened: asked.screening.screens.len(),
        decided: places.iter().filter(|place| asked.screening.decision(**place).is_some()).count(),
        chosen_on: audit(&of(&chosen_on), thresholds),
        audit: audit(&of(&audited), thresholds),
        languages: languages.iter().map(|(tag, points)| (tag.clone(), audit(points, thresholds))).collect(),
        reliability: reliability(points.iter().map(|(_, point)| (point.probability, point.is_eliminated))),
    };
    Ok((asked, cascade))
}

fn name_of(lists: &Lists, (language, query, number): Place) -> String {
    let (tag, queries) = lists.iter().nth(language).expect("a place is of one of the lists");
    format!("{tag}/{}/{}", queries[query].query, queries[query].candidates[number].passage)
}

/// What both judges said of one pair.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Point {
    probability: f64,
    is_eliminated: bool,
}

impl Point {
    fn is_wrong(&self, decision: Decision) -> bool {
        self.is_eliminated != (decision == Decision::Relevant)
    }
}

fn point(asked: &Asked, place: Place) -> Option<Point> {
    let probability = asked.screening.screens.get(&place)?.probability?;
    Some(Point { probability, is_eliminated: asked.opinions.get(&place)?.grade()? >= 1 })
}

/// The thresholds that leave the fewest points undecided with at most `error` wrong decisions of those taken; none with
/// too few points.
///
/// *Ties*: fewer wrong decisions, then the lower thresholds.
fn choose(points: &[Point], error: f64) -> Option<Thresholds> {
    if points.len() < LEAST_TO_CHOOSE {
        return None;
    }
    let mut cuts: Vec<f64> = points.iter().map(|point| point.probability).collect();
    cuts.sort_by(f64::total_cmp);
    cuts.dedup();
    let step = cuts.len().div_ceil(MOST_CUTS);
    let cuts: Vec<f64> = cuts.into_iter().step_by(step).collect();
    let side = |decision: Decision, is_inside: &dyn Fn(&&Point) -> bool| {
        let inside: Vec<&Point> = points.iter().filter(is_inside).collect();
        (inside.len(), inside.iter().filter(|point| point.is_wrong(decision)).count())
    };
    let low: Vec<(usize, usize)> =
        cuts.iter().map(|cut| side(Decision::Negative, &|point| point.probability <= *cut)).collect();
    let high: Vec<(usize, usize)> =
        cuts.iter().map(|cut| side(Decision::Relevant, &|point| point.probability >= *cut)).collect();
    let mut best = ((points.len(), 0), Thresholds::default());
    for below in 0..=cuts.len() {
        for above in below..=cuts.len() {
            let (low_decided, low_wrong) = below.checked_sub(1).map_or((0, 0), |place| low[place]);
            let (high_decided, high_wrong) = high.get(above).copied().unwrap_or_default();
            let (decided, wrong) = (low_decided + high_decided, low_wrong + high_wrong);
            let cost = (points.len() - decided, wrong);
            if wrong as f64 <= error * decided as f64 && cost < best.0 {
                let low = below.checked_sub(1).map(|place| cuts[place]);
                best = (cost, Thresholds { low, high: cuts.get(above).copied() });
            }
        }
    }
    Some(best.1)
}

fn audit(points: &[Point], thresholds: Option<Thresholds>) -> Audit {
    let decide = |point: &Point| Some((*point, thresholds?.decide(point.probability)?));
    let decided: Vec<(Point, Decision)> = points.iter().filter_map(decide).collect();
    let wrong = decided.iter().filter(|(point, decision)| point.is_wrong(*decision)).count();
    Audit { pairs: points.len(), decided: decided.len(), error: Estimate::wilson(wrong, decided.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn points(pairs: &[(f64, bool)]) -> Vec<Point> {
        pairs
            .iter()
            .map(|(probability, is_eliminated)| Point { probability: *probability, is_eliminated: *is_eliminated })
            .collect()
    }

    /// Forty points; those from 0.4 to 0.6 are of either kind.
    fn mixed() -> Vec<Point> {
        let relevant = |number: usize| match number {
            0..16 => false,
            16..24 => number.is_multiple_of(2),
            _ => true,
        };
        points(&(0..40).map(|number| (number as f64 / 40.0, relevant(number))).collect::<Vec<_>>())
    }

    #[test]
    fn thresholds_leave_the_uncertain_band_to_the_large_judge() {
        let thresholds = choose(&mixed(), 0.0).unwrap();
        assert_eq!(thresholds, Thresholds { low: Some(15.0 / 40.0), high: Some(24.0 / 40.0) });
        let audit = audit(&mixed(), Some(thresholds));
        assert_eq!((audit.pairs, audit.decided, audit.error), (40, 32, Estimate::wilson(0, 32)));
        assert_eq!(thresholds.decide(0.375), Some(Decision::Negative));
        assert_eq!((thresholds.decide(0.5), thresholds.decide(0.6)), (None, Some(Decision::Relevant)));
        let bold = choose(&mixed(), 0.1).unwrap();
        let all = super::audit(&mixed(), Some(bold));
        assert!(all.decided > 32 && all.error.rate().unwrap() <= 0.1, "{all:?}");
    }

    #[test]
    fn too_few_points_choose_nothing_and_a_worthless_judge_decides_nothing() {
        assert_eq!(choose(&mixed()[..LEAST_TO_CHOOSE - 1], 0.1), None);
        let worthless = points(&[(0.5, true), (0.5, false)].repeat(20));
        assert_eq!(choose(&worthless, 0.1), Some(Thresholds::default()));
    }

    proptest! {
        #[test]
        fn the_stated_error_is_kept_where_the_thresholds_were_chosen(
            pairs in prop::collection::vec((0.0..1.0f64, any::<bool>()), 20..80), error in 0.0..0.5f64,
        ) {
            let points = points(&pairs);
            let audit = audit(&points, choose(&points, error));
            prop_assert!(audit.error.rate().unwrap_or(0.0) <= error + 1e-12);
        }
    }
}
