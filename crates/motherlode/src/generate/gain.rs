//! What generation adds in a language, and the rule by which a language stops.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use serde::{Deserialize, Serialize};

use super::QuerySupplement;
use super::config::GenerateConfig;
use super::write::{Short, is_negative};
use crate::artefact::{Draft, Summary};
use crate::corpus::Language;
use crate::error::{Error, Result};
use crate::judge::{Estimate, UnjudgedRule, drawn, grade_of};

/// The proof of a language's supplement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Gain {
    /// Queries that were tried: a new query was written, usable or not.
    pub tried: usize,
    /// New queries that were used.
    pub used: usize,
    /// Queries that were not tried because the language was stopped.
    pub left_out: usize,
    /// The mean share of a new list that the first list did not have; none where no new query was used.
    pub novelty: Option<f64>,
    /// The share of the tried queries that got at least one new negative.
    pub adding: Estimate,
    /// The share of the judged new candidates that the judge finds relevant: grade 1 or 2.
    pub relevant: Estimate,
}

impl Gain {
    pub(super) fn of(supplements: &[QuerySupplement], rule: UnjudgedRule, left_out: usize) -> Self {
        let used: Vec<&QuerySupplement> = supplements.iter().filter(|it| it.rejected.is_none()).collect();
        let novelty = used.iter().map(|it| it.novelty).sum::<f64>() / used.len() as f64;
        let grades: Vec<u8> = used.iter().flat_map(|it| &it.judgements).filter_map(grade_of).collect();
        Self {
            tried: supplements.len(),
            used: used.len(),
            left_out,
            novelty: (!used.is_empty()).then_some(novelty),
            adding: adding(supplements, rule),
            relevant: Estimate::wilson(grades.iter().filter(|grade| **grade >= 1).count(), grades.len()),
        }
    }
}

/// The share of queries that got a new negative, or what may become one by `judge.unjudged`.
fn adding(supplements: &[QuerySupplement], rule: UnjudgedRule) -> Estimate {
    let adds = |it: &&QuerySupplement| it.judgements.iter().any(|judgement| is_negative(judgement.verdict, rule));
    Estimate::wilson(supplements.iter().filter(adds).count(), supplements.len())
}

/// The rule: a language stops if, after its probe, the share of queries that got a new negative is surely below
/// `generate.stop_below`, that is if the upper end of its 95 % interval is.
pub(super) fn adds_nothing(probe: &[QuerySupplement], rule: UnjudgedRule, config: &GenerateConfig) -> bool {
    matches!(adding(probe, rule), Estimate::Share { high, .. } if high < config.stop_below)
}

/// The queries that are tried first: `generate.probe` a language, drawn by their ids.
pub(super) fn probe<'a>(short: &'a [Short], config: &GenerateConfig) -> BTreeSet<(&'a Language, &'a str)> {
    let mut probe = BTreeSet::new();
    for of_language in short.chunk_by(|a, b| a.language == b.language) {
        let name = |short: &&Short| format!("{}/{}", short.language, short.id);
        let drawn = drawn(of_language.iter().collect(), config.probe, 0, "generate probe", name);
        probe.extend(drawn.into_iter().map(|short: &Short| (short.language, short.id.as_str())));
    }
    probe
}

/// Values and remarks for the artefact's summary.
pub(super) fn summarise(summary: &mut Summary, gains: &BTreeMap<Language, Gain>, config: &GenerateConfig) {
    for (language, gain) in gains {
        summary.count("queries left out: generation adds nothing", gain.left_out);
        let values = [
            ("novelty", gain.novelty),
            ("queries with a new negative", gain.adding.rate()),
            ("new candidates judged relevant", gain.relevant.rate()),
        ];
        for (name, value) in values {
            if let Some(value) = value {
                summary.value(format!("{language}: {name}"), value);
            }
        }
        if let (Estimate::Share { count, of, .. }, 1..) = (gain.adding, gain.left_out) {
            summary.note(format!(
                "{language}: generation stopped, for only {count} of {of} probed queries got a new negative; {} queries \
                 were left out (generate.probe {}, generate.stop_below {})",
                gain.left_out, config.probe, config.stop_below
            ));
        }
    }
}

/// Writes `gains.json`.
pub(super) fn write(draft: &mut Draft, gains: &BTreeMap<Language, Gain>) -> Result<()> {
    let path = draft.path("gains.json");
    draft.write("gains.json", |output| {
        serde_json::to_writer_pretty(&mut *output, gains).map_err(|error| Error::file(&path, error.to_string()))?;
        output.write_all(b"\n").map_err(Error::io(&path))?;
        Ok(gains.len() as u64)
    })
}
