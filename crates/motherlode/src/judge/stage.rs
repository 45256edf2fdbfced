//! The stage: canaries, calibration, candidates, and the artefact they make.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde::Serialize;

use super::ask::{Case, opinions};
use super::calibrate::{self, Calibration, Trial};
use super::canary::{self, Canaries};
use super::select::{cases, chosen, judge_candidates};
use super::{Judge, JudgeConfig, Judged, Method, Verdict};
use crate::artefact::{Artefact, Draft, Outcome, Recipe, Summary, draft};
use crate::corpus::Language;
use crate::dataset::{Dataset, Split};
use crate::error::{Error, Result};
use crate::llm::Llm;
use crate::mine::QueryCandidates;
use crate::progress::Progress;

/// Version of the stage's files and of what stands in them.
const FORMAT: u32 = 1;

/// What judging reads.
#[derive(Clone, Copy)]
pub struct JudgeInputs<'a> {
    /// The data set.
    pub dataset: &'a Dataset,
    /// The artefact of `mine`.
    pub candidates: &'a Artefact,
    /// The split that was mined.
    pub split: Split,
}

impl<'a> JudgeInputs<'a> {
    pub(super) fn judge(&self, config: &'a JudgeConfig, llm: &'a Llm) -> Judge<'a> {
        Judge { dataset: self.dataset, split: self.split, config, llm }
    }

    pub(super) fn lists(&self) -> Result<BTreeMap<Language, Vec<QueryCandidates>>> {
        lists(self.dataset, &self.candidates.clone().expect_stage("mine")?)
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

/// Everything that will be asked, laid out before the first question.
pub(super) struct Work<'a> {
    pub(super) canaries: Vec<Case<'a>>,
    pub(super) calibration: Vec<Trial<'a>>,
    pub(super) candidates: Vec<Case<'a>>,
}

impl<'a> Work<'a> {
    pub(super) fn new(judge: &Judge<'a>, lists: &BTreeMap<Language, Vec<QueryCandidates>>, seed: u64) -> Result<Self> {
        Ok(Self {
            canaries: canary::cases(judge, lists, seed)?,
            calibration: calibrate::trials(judge, &lists.keys().collect::<Vec<_>>(), seed)?,
            candidates: cases(judge, lists, &chosen(lists, judge.config))?,
        })
    }

    /// An error, before anything is asked, if the ledger lacks answers and there is nobody to ask.
    fn check(&self, judge: &Judge) -> Result<()> {
        let calibration = self.calibration.iter().map(|trial| &trial.case);
        let cases = self.canaries.iter().chain(calibration).chain(&self.candidates);
        let groups: Vec<_> = cases.map(|case| case.requests(judge.config)).collect();
        judge.llm.check(&groups)
    }
}

#[derive(Default)]
struct Findings {
    canaries: BTreeMap<Language, Canaries>,
    calibration: BTreeMap<Language, Calibration>,
    judged: Judged,
}

/// Judges the candidates of `mine` and writes the artefact `out`.
///
/// `seed` draws canaries and calibration pairs.
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
    let recipe = Recipe::new("judge", FORMAT, config)?
        .seed(seed)
        .input_key("dataset", &inputs.dataset.key)
        .input_key("split", inputs.split.name())
        .input_key("prompt", config.order.prompt())
        .input("candidates", inputs.candidates);
    let mut draft = match draft(out, recipe)? {
        Outcome::UpToDate(artefact) => return Ok(artefact),
        Outcome::Write(draft) => draft,
    };
    let judge = inputs.judge(config, llm);
    let lists = inputs.lists()?;
    let findings = findings(&judge, &lists, seed, progress)?;
    for (language, rows) in &findings.judged.lists {
        draft.write_lines(&format!("{language}.jsonl"), rows)?;
    }
    write_json(&mut draft, "canaries.json", &findings.canaries)?;
    write_json(&mut draft, "calibration.json", &findings.calibration)?;
    draft.commit(summary(&findings))
}

fn findings(
    judge: &Judge,
    lists: &BTreeMap<Language, Vec<QueryCandidates>>,
    seed: u64,
    progress: &Progress,
) -> Result<Findings> {
    let mut findings = Findings::default();
    if judge.config.method == Method::Llm {
        let work = Work::new(judge, lists, seed)?;
        work.check(judge)?;
        let probed = opinions(&work.canaries, judge.config, judge.llm, progress)?;
        findings.canaries = canary::outcome(&work.canaries, &probed, judge.config)?;
        let cases: Vec<Case> = work.calibration.iter().map(|trial| trial.case.clone()).collect();
        let tried = opinions(&cases, judge.config, judge.llm, progress)?;
        let languages: Vec<&Language> = lists.keys().collect();
        findings.calibration = calibrate::outcome(&work.calibration, &tried, &languages);
    }
    let abstained = canary::failed(&findings.canaries);
    for language in &abstained {
        let Canaries { passed, of, .. } = findings.canaries[language];
        progress.say(&format!("judge: {language} abstains, only {passed} of {of} canaries passed"));
    }
    findings.judged = judge_candidates(judge, lists, &abstained, progress)?;
    Ok(findings)
}

fn write_json<T: Serialize>(draft: &mut Draft, file: &str, rows: &BTreeMap<Language, T>) -> Result<()> {
    let path = draft.path(file);
    draft.write(file, |output| {
        serde_json::to_writer_pretty(&mut *output, rows).map_err(|error| Error::file(&path, error.to_string()))?;
        output.write_all(b"\n").map_err(Error::io(&path))?;
        Ok(rows.len() as u64)
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
    if findings.judged.unpaid > 0 {
        summary.note(format!(
            "the budget ended before {} pairs were judged; with a larger one, remove this folder and run again",
            findings.judged.unpaid
        ));
    }
    summary
}
