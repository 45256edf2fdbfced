//! The stage: canaries, calibration, candidates, and the artefact they make.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::ask::{Case, opinions};
use super::calibrate::{self, CalibrationPair, Said, Trial};
use super::canary::{self, Canaries};
use super::cascade::{self, Cascade, Decision, Thresholds};
use super::explain::explanations;
use super::labels::{Labels, labels_digest};
use super::measure::{self, Calibration};
use super::priority::{Place, chosen};
use super::rates::{Corrected, Estimate};
use super::select::{Asked, Lists, ask, cases, judged};
use super::swap::{Swaps, swaps};
use super::verdict::Opinion;
use super::{Judge, JudgeConfig, Judged, Method, Verdict};
use crate::artefact::{Artefact, Draft, Outcome, Recipe, Summary, draft};
use crate::corpus::Language;
use crate::dataset::{Dataset, Split};
use crate::error::{Error, Result};
use crate::llm::{Llm, USAGE};
use crate::mine::QueryCandidates;
use crate::progress::Progress;

/// Version of the stage's files and of what stands in them.
const FORMAT: u32 = 2;

/// What judging reads.
#[derive(Clone, Copy)]
pub struct JudgeInputs<'a> {
    /// The data set.
    pub dataset: &'a Dataset,
    /// The artefact of `mine`.
    pub candidates: &'a Artefact,
    /// The split that was mined.
    pub split: Split,
    /// Files of labels that people gave to pairs, for calibration: JSON Lines of query, passage, grade and annotator.
    pub labels: &'a [PathBuf],
}

impl<'a> JudgeInputs<'a> {
    pub(super) fn judge(&self, config: &'a JudgeConfig, llm: &'a Llm) -> Judge<'a> {
        Judge { dataset: self.dataset, split: self.split, config, llm }
    }

    pub(super) fn lists(&self) -> Result<BTreeMap<Language, Vec<QueryCandidates>>> {
        lists(self.dataset, &self.candidates.clone().expect_stage("mine")?)
    }

    pub(super) fn read_labels(&self) -> Result<Labels> {
        Labels::read(self.labels, self.dataset, self.split)
    }
}

/// The rows of every language's `LANG.jsonl` in an artefact, such as the candidates of `mine`.
pub fn lists<T: serde::de::DeserializeOwned>(
    dataset: &Dataset,
    artefact: &Artefact,
) -> Result<BTreeMap<Language, Vec<T>>> {
    let mut lists = BTreeMap::new();
    for partition in &dataset.partitions {
        let file = format!("{}.jsonl", partition.language);
        if artefact.has(&file) {
            lists.insert(partition.language.clone(), artefact.read_lines(&file)?);
        }
    }
    Ok(lists)
}

/// Everything that may be asked, laid out before the first question.
pub(super) struct Work<'a> {
    pub(super) canaries: Vec<Case<'a>>,
    pub(super) calibration: Vec<Trial<'a>>,
    pub(super) candidates: Vec<Case<'a>>,
    /// The same candidates, the most important first.
    pub(super) places: Vec<Place>,
}

impl<'a> Work<'a> {
    pub(super) fn new(judge: &Judge<'a>, lists: &Lists, labels: &Labels, seed: u64) -> Result<Self> {
        let places = chosen(lists, judge.config);
        Ok(Self {
            canaries: canary::cases(judge, lists, seed)?,
            calibration: calibrate::trials(judge, &lists.keys().collect::<Vec<_>>(), labels, seed)?,
            candidates: cases(judge, lists, &places.iter().copied().collect())?,
            places,
        })
    }

    /// An error, before anything is asked, where the ledger lacks answers and nobody can be asked for them.
    fn check(&self, judge: &Judge) -> Result<()> {
        let calibration = self.calibration.iter().map(|trial| &trial.case);
        let certain = self.canaries.iter().chain(calibration.clone());
        let mut groups: Vec<_> = match judge.config.cascade {
            // Which candidates the large judge will see is not known yet.
            Some(_) => certain.map(|case| case.requests(judge.config)).collect(),
            None => certain.chain(&self.candidates).map(|case| case.requests(judge.config)).collect(),
        };
        if let Some(cascade) = &judge.config.cascade {
            groups.extend(calibration.chain(&self.candidates).map(|case| case.screen_requests(&cascade.model)));
        }
        judge.llm.check(&groups)
    }
}

#[derive(Default)]
struct Findings {
    canaries: BTreeMap<Language, Canaries>,
    pairs: Vec<CalibrationPair>,
    disputed: usize,
    calibration: BTreeMap<Language, Calibration>,
    cascade: Option<Cascade>,
    swaps: BTreeMap<Language, Swaps>,
    judged: Judged,
}

/// Judges the candidates of `mine` and writes the artefact `out`.
///
/// `seed` draws canaries, calibration pairs and the slices that are judged twice.
///
/// # Errors
/// Inputs that do not belong together; answers that nobody can give; every language's canaries failed.
pub fn judge(
    inputs: &JudgeInputs,
    config: &JudgeConfig,
    seed: u64,
    llm: &Llm,
    out: &Path,
    progress: &Progress,
) -> Result<Artefact> {
    config.validate()?;
    let mut recipe = Recipe::new("judge", FORMAT, config)?
        .seed(seed)
        .input_key("dataset", &inputs.dataset.key)
        .input_key("split", inputs.split.name())
        .input_key("prompt", config.order.prompt())
        .input("candidates", inputs.candidates);
    if let Some(digest) = labels_digest(inputs.labels)? {
        recipe = recipe.input_key("weighted labels", &digest);
    }
    let mut draft = match draft(out, recipe)? {
        Outcome::UpToDate(artefact) => return Ok(artefact),
        Outcome::Write(draft) => draft,
    };
    let (judge, before) = (inputs.judge(config, llm), llm.usage());
    let lists = inputs.lists()?;
    let findings = findings(&judge, &lists, &inputs.read_labels()?, seed, progress)?;
    write(&mut draft, &judge, &lists, &findings)?;
    draft.took(USAGE, llm.usage().since(&before))?;
    draft.commit(summary(&findings))
}

/// Asks all that [`judge`] would ask and writes nothing: with an [`Llm::collecting`] it lays out a batch, as far as what
/// is asked later does not depend on answers that are still missing.
pub fn rehearse(inputs: &JudgeInputs, config: &JudgeConfig, seed: u64, llm: &Llm, progress: &Progress) -> Result<()> {
    config.validate()?;
    findings(&inputs.judge(config, llm), &inputs.lists()?, &inputs.read_labels()?, seed, progress).map(drop)
}

fn findings(judge: &Judge, lists: &Lists, labels: &Labels, seed: u64, progress: &Progress) -> Result<Findings> {
    let mut findings = Findings { disputed: labels.disputed(), ..Findings::default() };
    if judge.config.method == Method::None {
        findings.judged = judged(lists, &[], &Asked::default(), &canary::failed(&findings.canaries));
        return Ok(findings);
    }
    let work = Work::new(judge, lists, labels, seed)?;
    work.check(judge)?;
    let probed = opinions(&work.canaries, judge.config, judge.llm, progress)?;
    findings.canaries = canary::outcome(&work.canaries, &probed, judge.config)?;
    let abstained = canary::failed(&findings.canaries);
    for language in &abstained {
        let Canaries { passed, of, .. } = findings.canaries[language];
        progress.say(&format!("judge: {language} abstains, only {passed} of {of} canaries passed"));
    }
    let trials: Vec<Case> = work.calibration.iter().map(|trial| trial.case.clone()).collect();
    let tried = opinions(&trials, judge.config, judge.llm, progress)?;
    let asked = match &judge.config.cascade {
        None => Asked { opinions: ask(judge, lists, &work.places, progress)?, ..Asked::default() },
        Some(config) => {
            let (asked, cascade) = cascade::run(judge, config, (lists, &work.places), seed, progress)?;
            findings.cascade = Some(cascade);
            asked
        }
    };
    findings.judged = judged(lists, &work.places, &asked, &abstained);
    findings.swaps = swaps(judge, lists, &asked, seed, progress)?;
    let said = said(judge, &trials, tried, asked.screening.thresholds, progress)?;
    findings.pairs = calibrate::rows(&work.calibration, said, lists);
    findings.calibration = measure::outcome(&findings.pairs, &findings.judged, lists, seed);
    Ok(findings)
}

/// What both judges say of calibration pairs: the cheap one decides them as it decides candidates.
fn said(
    judge: &Judge,
    trials: &[Case],
    tried: Vec<Vec<Opinion>>,
    thresholds: Option<Thresholds>,
    progress: &Progress,
) -> Result<Vec<Vec<Said>>> {
    let screens = match &judge.config.cascade {
        Some(config) => cascade::screen_cases(judge, config, trials, progress)?,
        None => trials.iter().map(|case| vec![None; case.passages.len()]).collect(),
    };
    let say = |(opinion, screen): (Opinion, Option<cascade::Screen>)| {
        let probability = screen.and_then(|screen| screen.probability);
        let decision = probability.and_then(|probability| thresholds?.decide(probability));
        let decided = decision.map(|decision| u8::from(decision == Decision::Relevant));
        Said { opinion, probability, decided }
    };
    let pairs = tried.into_iter().zip(screens);
    Ok(pairs.map(|(opinions, screens)| opinions.into_iter().zip(screens).map(say).collect()).collect())
}

fn write(draft: &mut Draft, judge: &Judge, lists: &Lists, findings: &Findings) -> Result<()> {
    let thresholds = findings.cascade.as_ref().and_then(|cascade| cascade.thresholds);
    for (language, rows) in &findings.judged.lists {
        draft.write_lines(&format!("{language}.jsonl"), rows)?;
        let explained = explanations(judge, (language, &lists[language]), &findings.judged, thresholds)?;
        draft.write_lines(&format!("{language}.explained.jsonl"), explained)?;
    }
    write_json(draft, "canaries.json", &findings.canaries, findings.canaries.len())?;
    write_json(draft, "calibration.json", &findings.calibration, findings.calibration.len())?;
    draft.write_lines("calibration.jsonl", &findings.pairs)?;
    write_json(draft, "swaps.json", &findings.swaps, findings.swaps.len())?;
    match &findings.cascade {
        Some(cascade) => write_json(draft, cascade::FILE, cascade, 1),
        None => Ok(()),
    }
}

fn write_json(draft: &mut Draft, file: &str, content: &impl Serialize, rows: usize) -> Result<()> {
    let path = draft.path(file);
    draft.write(file, |output| {
        serde_json::to_writer_pretty(&mut *output, content).map_err(|error| Error::file(&path, error.to_string()))?;
        output.write_all(b"\n").map_err(Error::io(&path))?;
        Ok(rows as u64)
    })
}

fn summary(findings: &Findings) -> Summary {
    let mut summary = Summary::default();
    summary.count("pairs asked", findings.judged.pairs);
    for verdict in Verdict::ALL {
        summary.count(verdict.name(), 0);
    }
    for (language, rows) in &findings.judged.lists {
        for judgement in rows.iter().flat_map(|row| &row.judgements) {
            summary.count(judgement.verdict.name(), 1);
            summary.count(format!("{language}: {}", judgement.verdict.name()), 1);
        }
    }
    for (language, canaries) in &findings.canaries {
        summary.count("canaries asked", canaries.of);
        summary.count("canaries passed", canaries.passed);
        summary.count(format!("{language}: canaries asked"), canaries.of);
        summary.count(format!("{language}: canaries passed"), canaries.passed);
        if canaries.abstained {
            summary.note(format!("{language} abstains: {} of {} canaries passed", canaries.passed, canaries.of));
        }
    }
    summarise_trust(&mut summary, findings);
    if findings.judged.unpaid > 0 {
        summary.note(format!(
            "the budget ended before {} pairs were judged; with a larger one, remove this folder and run again",
            findings.judged.unpaid
        ));
    }
    summary
}

/// Calibration, cascade and swaps.
fn summarise_trust(summary: &mut Summary, findings: &Findings) {
    summary.count("calibration pairs", findings.pairs.len());
    summary.count("labelled pairs that annotators dispute", findings.disputed);
    for (language, calibration) in &findings.calibration {
        if let Corrected::Rate { rate, .. } = calibration.eliminated.corrected {
            summary.value(format!("{language}: relevant candidates, corrected"), rate);
        }
    }
    for (language, swaps) in &findings.swaps {
        for (name, swap) in [("order", swaps.order), ("reference", swaps.reference)] {
            if let Some(rate) = swap.same.rate() {
                summary.value(format!("{language}: same grade after the {name} was swapped"), rate);
            }
        }
    }
    let Some(cascade) = &findings.cascade else { return };
    summary.count("screened", cascade.screened);
    summary.count("decided by the cheap judge", cascade.decided);
    match (cascade.thresholds, cascade.audit.error) {
        (None, _) => {
            summary.note("too few pairs were judged by both judges to choose thresholds, so the large one decided all");
        }
        (Some(_), Estimate::Share { rate, low, high, of, .. }) => {
            summary.value("cheap judge decides otherwise than the large one (audit)", rate);
            summary.note(format!(
                "of {of} audited decisions of the cheap judge the large one takes {:.1} % otherwise (95 % interval {:.1} \
                 to {:.1})",
                100.0 * rate,
                100.0 * low,
                100.0 * high
            ));
        }
        (Some(_), Estimate::NotEstimable) => {}
    }
}
