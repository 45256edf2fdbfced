//! Writing: which queries fall short, and a new query for each of them.

use std::collections::BTreeMap;
use std::path::Path;

use super::Rejection;
use super::check::{clean, rejection};
use super::config::{GenerateConfig, Method};
use super::prompt::{self, Prompt};
use crate::artefact::Artefact;
use crate::corpus::Language;
use crate::dataset::{Dataset, Split};
use crate::error::{Error, Result};
use crate::judge::{self, JudgeConfig, QueryJudgements, UnjudgedRule, Verdict};
use crate::llm::{Llm, Reply, Request};
use crate::mine::QueryCandidates;
use crate::progress::Progress;
use crate::text::language::Checker;

/// What generation reads.
#[derive(Clone, Copy)]
pub struct GenerateInputs<'a> {
    /// The data set.
    pub dataset: &'a Dataset,
    /// The split that was mined.
    pub split: Split,
    /// The artefact of `mine`.
    pub candidates: &'a Artefact,
    /// The artefact of `judge` over these candidates; new ones are judged by the rules it was made by.
    pub judgements: &'a Artefact,
    /// Ranks of the first list, K; what `mine` lists beyond does not make up for missing negatives.
    pub first: usize,
    /// A fastText language identification model, for `generate.language_check = "fasttext"`.
    pub language_model: Option<&'a Path>,
}

/// A query that a model wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// The original query's id.
    pub query: String,
    /// The summary it was written from; absent for `direct`.
    pub summary: Option<String>,
    /// The new query.
    pub text: String,
    /// Why it must not be used, if so.
    pub rejected: Option<Rejection>,
}

/// What [`write_queries`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// One new query for every query that falls short, by language.
    pub queries: BTreeMap<Language, Vec<Generated>>,
    /// Queries that fall short and got none because the budget was reached.
    pub unpaid: usize,
}

/// A query that falls short.
pub(super) struct Short<'a> {
    pub(super) language: &'a Language,
    pub(super) id: String,
    text: &'a str,
    positive: String,
}

impl GenerateInputs<'_> {
    /// The rules by which the first candidates were judged.
    pub(super) fn judge_config(&self) -> Result<JudgeConfig> {
        let judgements = self.judgements.clone().expect_stage("judge")?;
        serde_json::from_value(judgements.manifest().config.clone())
            .map_err(|error| Error::file(judgements.folder(), format!("{error}; judge again with this program")))
    }
}

/// Writes a new query for every query with fewer than `generate.target` negatives among its first K candidates.
///
/// A negative is a candidate that the judge graded 0 or that people judged not relevant. A candidate without a verdict
/// counts as one unless `judge.unjudged` is `exclude`: it may still serve, and there is no point in replacing it. A
/// query without a positive gets none. The positive to write from is the first in the corpus.
///
/// *Order*: languages by tag, queries as mined.
///
/// # Errors
/// The artefacts do not belong together; answers that nobody can give.
pub fn write_queries(
    inputs: &GenerateInputs,
    config: &GenerateConfig,
    llm: &Llm,
    progress: &Progress,
) -> Result<Written> {
    config.validate()?;
    let checker = checker(inputs, config)?;
    write(&short_queries(inputs, config)?.iter().collect::<Vec<_>>(), config, &checker, llm, progress)
}

/// What tells whether a new query is in the right language.
pub(super) fn checker(inputs: &GenerateInputs, config: &GenerateConfig) -> Result<Checker> {
    let languages = inputs.dataset.partitions.iter().map(|partition| &partition.language);
    Checker::open(config.language_check, inputs.language_model, languages)
}

/// Writes a new query for each of these.
pub(super) fn write(
    short: &[&Short],
    config: &GenerateConfig,
    checker: &Checker,
    llm: &Llm,
    progress: &Progress,
) -> Result<Written> {
    let sources = sources(short, config, llm, progress)?;
    let request =
        |(short, source): (&&Short, &Source)| source.text(short).map(|text| query_request(short, text, config));
    let replies = ask(short.iter().zip(&sources).map(request), llm, progress)?;
    let mut written = Written::default();
    for ((short, source), reply) in short.iter().zip(sources).zip(replies) {
        let (summary, reply) = match (source, reply) {
            (Source::Positive, Some(reply)) => (None, reply),
            (Source::Summary(summary), Some(reply)) => (Some(summary), reply),
            // There was nothing to write from, so nothing was asked.
            (Source::Summary(summary), None) if summary.is_empty() => (Some(summary), String::new()),
            (_, None) | (Source::Unpaid, _) => {
                written.unpaid += 1;
                continue;
            }
        };
        let text = clean(&reply);
        let rejected = rejection(&text, short.text, short.language, checker);
        let generated = Generated { query: short.id.clone(), summary, text, rejected };
        written.queries.entry(short.language.clone()).or_default().push(generated);
    }
    Ok(written)
}

/// What a new query is written from.
enum Source {
    Positive,
    Summary(String),
    Unpaid,
}

impl Source {
    /// The text to write from; none where there is none.
    fn text<'a>(&'a self, short: &'a Short<'_>) -> Option<&'a str> {
        match self {
            Self::Positive => Some(&short.positive),
            Self::Summary(summary) => Some(summary.as_str()).filter(|summary| !summary.is_empty()),
            Self::Unpaid => None,
        }
    }
}

fn sources(short: &[&Short], config: &GenerateConfig, llm: &Llm, progress: &Progress) -> Result<Vec<Source>> {
    if config.method != Method::BackForward {
        return Ok(short.iter().map(|_| Source::Positive).collect());
    }
    let replies = ask(short.iter().map(|short| Some(summary_request(short, config))), llm, progress)?;
    let source = |reply: Option<String>| match reply {
        Some(summary) => Source::Summary(summary.trim().to_owned()),
        None => Source::Unpaid,
    };
    Ok(replies.into_iter().map(source).collect())
}

/// The reply to each request; none where nothing was asked or the budget was reached.
fn ask(requests: impl Iterator<Item = Option<Request>>, llm: &Llm, progress: &Progress) -> Result<Vec<Option<String>>> {
    let groups: Vec<Vec<Request>> = requests.map(|request| request.into_iter().collect()).collect();
    let text = |replies: Vec<Reply>| match replies.into_iter().next() {
        Some(Reply::Answered { text, .. }) => Some(text),
        Some(Reply::Unanswered(_)) | None => None,
    };
    Ok(llm.ask(&groups, progress)?.into_iter().map(text).collect())
}

fn summary_request(short: &Short, config: &GenerateConfig) -> Request {
    request(short, config, prompt::summary(config.prompts, short.language, short.text, &short.positive))
}

fn query_request(short: &Short, text: &str, config: &GenerateConfig) -> Request {
    request(short, config, prompt::query(config.prompts, short.language, text))
}

fn request(short: &Short, config: &GenerateConfig, prompt: Prompt) -> Request {
    let Prompt { name, messages, parameters } = prompt;
    Request {
        model: config.model.clone(),
        prompt: name.to_owned(),
        parameters,
        attempt: 0,
        messages,
        about: format!("query `{}` ({})", short.id, short.language),
    }
}

/// The queries with fewer negatives than the target, with the text to write from; none where nothing is generated.
///
/// *Order*: languages by tag, queries as mined.
pub(super) fn short_queries<'a>(inputs: &GenerateInputs<'a>, config: &GenerateConfig) -> Result<Vec<Short<'a>>> {
    if config.method == Method::None {
        return Ok(Vec::new());
    }
    let rule = inputs.judge_config()?.unjudged;
    let candidates: BTreeMap<Language, Vec<QueryCandidates>> = judge::lists(inputs.dataset, inputs.candidates)?;
    let mut judgements: BTreeMap<Language, Vec<QueryJudgements>> = judge::lists(inputs.dataset, inputs.judgements)?;
    let mut short = Vec::new();
    for partition in &inputs.dataset.partitions {
        let Some(lists) = candidates.get(&partition.language) else { continue };
        let judged = partition.split(inputs.split)?;
        let rows = judgements.remove(&partition.language).unwrap_or_default();
        check_same_queries(&partition.language, lists, &rows)?;
        let falls_short = |(list, row): &(&QueryCandidates, &QueryJudgements)| {
            let ranked = list.candidates.iter().map(|candidate| candidate.rank as usize).zip(&row.judgements);
            let first = ranked.filter(|(rank, _)| *rank <= inputs.first).map(|(_, judgement)| judgement.verdict);
            first.filter(|verdict| is_negative(*verdict, rule)).count() < config.target
        };
        for (_, row) in lists.iter().zip(&rows).filter(falls_short) {
            let query = judge::query_named(partition, inputs.split, &row.query)?;
            let Some(positive) = judged.qrels.positives(query).next() else { continue };
            short.push(Short {
                language: &partition.language,
                id: row.query.clone(),
                text: &judged.queries.query(query).text,
                positive: judge::passage_text(partition.corpus.passage(positive)),
            });
        }
    }
    Ok(short)
}

fn check_same_queries(language: &Language, lists: &[QueryCandidates], rows: &[QueryJudgements]) -> Result<()> {
    let is_same = lists.len() == rows.len()
        && lists
            .iter()
            .zip(rows)
            .all(|(list, row)| list.query == row.query && list.candidates.len() == row.judgements.len());
    let remedy = "give the judgements of these candidates";
    if is_same { Ok(()) } else { Err(Error::data(format!("{language}: candidates and judgements differ; {remedy}"))) }
}

/// Whether a candidate with this verdict is, or by `judge.unjudged` may become, a negative.
pub(super) fn is_negative(verdict: Verdict, rule: UnjudgedRule) -> bool {
    match verdict {
        Verdict::Negative | Verdict::Human => true,
        Verdict::Unjudged | Verdict::Abstained => rule != UnjudgedRule::Exclude,
        Verdict::Excluded | Verdict::FalseNegative | Verdict::Unknown => false,
    }
}
