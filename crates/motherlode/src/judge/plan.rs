//! What judging will ask, before anything is spent.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::ask::Case;
use super::stage::Work;
use super::{JudgeConfig, JudgeInputs, Method};
use crate::corpus::Language;
use crate::error::Result;
use crate::llm::{Llm, Request, estimate_tokens};

/// What one language will ask. Equal requests count once; repeats of unreadable replies are not foreseen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LanguagePlan {
    /// Requests for candidates; with a cheap judge at most so many.
    pub candidates: usize,
    /// Requests of the cheap judge.
    pub screening: usize,
    /// Requests for canaries.
    pub canaries: usize,
    /// Requests for calibration.
    pub calibration: usize,
    /// How many of all these the ledger answers already; the numbers below count only the others.
    pub in_ledger: usize,
    /// Characters to send.
    pub characters: u64,
    /// Tokens to send, estimated.
    pub prompt_tokens: u64,
    /// Tokens to receive at most.
    pub completion_tokens: u64,
}

impl LanguagePlan {
    /// All requests.
    pub fn requests(&self) -> usize {
        self.candidates + self.screening + self.canaries + self.calibration
    }

    fn add(&mut self, other: &Self) {
        self.candidates += other.candidates;
        self.screening += other.screening;
        self.canaries += other.canaries;
        self.calibration += other.calibration;
        self.in_ledger += other.in_ledger;
        self.characters += other.characters;
        self.prompt_tokens += other.prompt_tokens;
        self.completion_tokens += other.completion_tokens;
    }

    fn count(&mut self, request: &Request, is_answered: bool) {
        if is_answered {
            self.in_ledger += 1;
            return;
        }
        for message in &request.messages {
            self.characters += message.content.chars().count() as u64;
            self.prompt_tokens += estimate_tokens(&message.content);
        }
        self.completion_tokens += u64::from(request.parameters.max_tokens);
    }
}

/// What every language will ask.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgePlan {
    /// By language.
    pub languages: BTreeMap<Language, LanguagePlan>,
}

impl JudgePlan {
    /// The sum over the languages.
    pub fn total(&self) -> LanguagePlan {
        let mut total = LanguagePlan::default();
        self.languages.values().for_each(|language| total.add(language));
        total
    }
}

/// Counts the requests that [`judge`](super::judge) will make with the same arguments, and what they will take.
///
/// *Units*: requests, characters, tokens. Nothing is sent.
pub fn plan(inputs: &JudgeInputs, config: &JudgeConfig, seed: u64, llm: &Llm) -> Result<JudgePlan> {
    config.validate()?;
    if config.method == Method::None {
        return Ok(JudgePlan::default());
    }
    let judge = inputs.judge(config, llm);
    let lists = inputs.lists()?;
    let work = Work::new(&judge, &lists, &inputs.read_labels()?, seed)?;
    let mut counter = Counter { plan: JudgePlan::default(), seen: BTreeSet::new(), llm };
    let calibration = || work.calibration.iter().map(|trial| &trial.case);
    let asked = |case: &Case| case.requests(config);
    counter.add(work.canaries.iter(), asked, |plan| &mut plan.canaries)?;
    counter.add(calibration(), asked, |plan| &mut plan.calibration)?;
    counter.add(work.candidates.iter(), asked, |plan| &mut plan.candidates)?;
    if let Some(cascade) = &config.cascade {
        let screened = |case: &Case| case.screen_requests(&cascade.model);
        counter.add(calibration().chain(&work.candidates), screened, |plan| &mut plan.screening)?;
    }
    Ok(counter.plan)
}

/// Counts distinct requests.
struct Counter<'a> {
    plan: JudgePlan,
    seen: BTreeSet<String>,
    llm: &'a Llm,
}

impl Counter<'_> {
    fn add<'c>(
        &mut self,
        cases: impl Iterator<Item = &'c Case<'c>>,
        requests: impl Fn(&Case) -> Vec<Request>,
        kind: fn(&mut LanguagePlan) -> &mut usize,
    ) -> Result<()> {
        for case in cases {
            let language = self.plan.languages.entry(case.language.clone()).or_default();
            for request in requests(case) {
                let key = request.key();
                let is_answered = self.llm.ledger().contains(&key)?;
                if self.seen.insert(key) {
                    *kind(language) += 1;
                    language.count(&request, is_answered);
                }
            }
        }
        Ok(())
    }
}
