//! The stage: write queries, retrieve by them, judge what is new, and the artefact that this makes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::gain::{self, Gain};
use super::write::{GenerateInputs, Generated, Short, Written, checker, short_queries, write};
use super::{GenerateConfig, QuerySupplement, Rejection};
use crate::artefact::{Artefact, Outcome, Recipe, Summary, draft, hash_file};
use crate::corpus::Language;
use crate::dataset::{Partition, Split};
use crate::error::{Error, Result};
use crate::judge::{self, Judge, QueryJudgements, Standing, Verdict};
use crate::llm::{Llm, USAGE};
use crate::mine::{Candidate, QueryCandidates};
use crate::progress::Progress;
use crate::text::language::LanguageCheck;

/// Version of the stage's files and of what stands in them.
const FORMAT: u32 = 2;

/// Retrieves by new queries of one language, given as (id of the original query, new text), and mines the results for
/// the original query: one list for each, in their order, without the positives of the original query.
pub type Retrieve<'a> = dyn Fn(&Language, &[(String, String)]) -> Result<Vec<QueryCandidates>> + 'a;

/// What a new query found that the first list did not have.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The new candidates, by rank in the new list.
    pub new: QueryCandidates,
    /// Their share of the whole new list; 0 where it was empty.
    pub novelty: f64,
}

/// Makes the supplements of all queries that fall short and writes the artefact `out`.
///
/// # Errors
/// Artefacts that do not belong together; answers that nobody can give; whatever `retrieve` returns.
pub fn generate(
    inputs: &GenerateInputs,
    config: &GenerateConfig,
    llm: &Llm,
    out: &Path,
    retrieve: &Retrieve,
    progress: &Progress,
) -> Result<Artefact> {
    config.validate()?;
    let mut recipe = Recipe::new("generate", FORMAT, config)?
        .input_key("dataset", &inputs.dataset.key)
        .input_key("split", inputs.split.name())
        .input("candidates", inputs.candidates)
        .input("judgements", inputs.judgements);
    if let (LanguageCheck::Fasttext, Some(path)) = (config.language_check, inputs.language_model) {
        recipe = recipe.input_key("language model", &hash_file(path)?);
    }
    let mut draft = match draft(out, recipe)? {
        Outcome::UpToDate(artefact) => return Ok(artefact),
        Outcome::Write(draft) => draft,
    };
    let before = llm.usage();
    let rounds = rounds(inputs, config, llm, retrieve, progress)?;
    draft.took(USAGE, llm.usage().since(&before))?;
    let Rounds { mut supplements, gains, .. } = rounds;
    let mut summary = Summary::default();
    note_unpaid(&mut summary, rounds.unpaid_queries, rounds.unpaid_pairs);
    summary.count("pairs asked", rounds.pairs);
    for partition in &inputs.dataset.partitions {
        let language = &partition.language;
        if inputs.candidates.has(&format!("{language}.jsonl")) {
            let supplements = supplements.remove(language).unwrap_or_default();
            count(&mut summary, language, &supplements);
            draft.write_lines(&format!("{language}.jsonl"), supplements)?;
        }
    }
    gain::summarise(&mut summary, &gains, config);
    gain::write(&mut draft, &gains)?;
    draft.commit(summary)
}

/// Asks all that [`generate`] would ask and writes nothing: with an [`Llm::collecting`] it lays out a batch, as far as what
/// is asked later does not depend on answers that are still missing.
pub fn rehearse(
    inputs: &GenerateInputs,
    config: &GenerateConfig,
    llm: &Llm,
    retrieve: &Retrieve,
    progress: &Progress,
) -> Result<()> {
    config.validate()?;
    rounds(inputs, config, llm, retrieve, progress).map(drop)
}

/// What both rounds brought.
#[derive(Default)]
struct Rounds {
    supplements: BTreeMap<Language, Vec<QuerySupplement>>,
    gains: BTreeMap<Language, Gain>,
    pairs: usize,
    unpaid_queries: usize,
    unpaid_pairs: usize,
}

/// Tries a probe of every language, then the rest of those languages to which it added something.
fn rounds(
    inputs: &GenerateInputs,
    config: &GenerateConfig,
    llm: &Llm,
    retrieve: &Retrieve,
    progress: &Progress,
) -> Result<Rounds> {
    let rule = inputs.judge_config()?.unjudged;
    let short = short_queries(inputs, config)?;
    let probe = gain::probe(&short, config);
    let is_probe = |short: &&Short| probe.contains(&(short.language, short.id.as_str()));
    let mut rounds = Rounds::default();
    let (first, rest): (Vec<&Short>, Vec<&Short>) = short.iter().partition(is_probe);
    rounds.add(inputs, config, &first, llm, (retrieve, progress))?;
    let mut left_out: BTreeMap<Language, usize> = BTreeMap::new();
    for short in &rest {
        *left_out.entry(short.language.clone()).or_default() += 1;
    }
    let stopped: BTreeSet<Language> = left_out
        .keys()
        .filter(|language| {
            rounds.supplements.get(*language).is_some_and(|found| gain::adds_nothing(found, rule, config))
        })
        .cloned()
        .collect();
    if llm.collected() == 0 {
        let second: Vec<&Short> = rest.into_iter().filter(|short| !stopped.contains(short.language)).collect();
        rounds.add(inputs, config, &second, llm, (retrieve, progress))?;
    }
    let order: BTreeMap<(&Language, &str), usize> =
        short.iter().enumerate().map(|(place, short)| ((short.language, short.id.as_str()), place)).collect();
    for (language, supplements) in &mut rounds.supplements {
        supplements.sort_by_key(|supplement| order[&(language, supplement.query.as_str())]);
        let left_out = if stopped.contains(language) { left_out[language] } else { 0 };
        rounds.gains.insert(language.clone(), Gain::of(supplements, rule, left_out));
    }
    Ok(rounds)
}

impl Rounds {
    /// Writes queries for these, retrieves by them and judges what is new.
    fn add(
        &mut self,
        inputs: &GenerateInputs,
        config: &GenerateConfig,
        short: &[&Short],
        llm: &Llm,
        (retrieve, progress): (&Retrieve, &Progress),
    ) -> Result<()> {
        let written = write(short, config, &checker(inputs, config)?, llm, progress)?;
        let mut found = retrieve_new(inputs, config, &written, retrieve)?;
        let mut judged = judge_new(inputs, &found, llm, progress)?;
        self.pairs += judged.pairs;
        self.unpaid_queries += written.unpaid;
        self.unpaid_pairs += judged.unpaid;
        for (language, generated) in written.queries {
            let found = found.remove(&language).unwrap_or_default();
            let rows = judged.lists.remove(&language).unwrap_or_default();
            self.supplements.entry(language).or_default().extend(supplement(generated, found, rows));
        }
        Ok(())
    }
}

/// Joins new queries with what they found and how it was judged. A rejected query found nothing.
///
/// `found` and `judgements` belong to the queries that were not rejected, in their order.
pub fn supplement(
    generated: Vec<Generated>,
    found: Vec<Found>,
    judgements: Vec<QueryJudgements>,
) -> Vec<QuerySupplement> {
    let mut results = found.into_iter().zip(judgements);
    let join = |generated: Generated| {
        let Generated { query, summary, text, rejected } = generated;
        let result = if rejected.is_none() { results.next() } else { None };
        let (novelty, candidates, judgements) = match result {
            Some((found, row)) => (found.novelty, found.new.candidates, row.judgements),
            None => (0.0, Vec::new(), Vec::new()),
        };
        QuerySupplement { query, summary, generated: text, rejected, novelty, candidates, judgements }
    };
    generated.into_iter().map(join).collect()
}

/// Retrieves by every new query that was not rejected and keeps what is new.
fn retrieve_new(
    inputs: &GenerateInputs,
    config: &GenerateConfig,
    written: &Written,
    retrieve: &Retrieve,
) -> Result<BTreeMap<Language, Vec<Found>>> {
    let first: BTreeMap<Language, Vec<QueryCandidates>> = judge::lists(inputs.dataset, inputs.candidates)?;
    let mut found = BTreeMap::new();
    for (language, generated) in &written.queries {
        let usable = generated.iter().filter(|generated| generated.rejected.is_none());
        let queries: Vec<(String, String)> = usable.map(|it| (it.query.clone(), it.text.clone())).collect();
        if queries.is_empty() {
            continue;
        }
        let partition = inputs.dataset.partition(language)?;
        let known: BTreeMap<&str, &QueryCandidates> =
            first[language].iter().map(|list| (list.query.as_str(), list)).collect();
        let lists = retrieve(language, &queries)?;
        if !lists.iter().map(|list| &list.query).eq(queries.iter().map(|(id, _)| id)) {
            return Err(Error::data(format!(
                "{language}: expected the lists of {} new queries in order",
                queries.len()
            )));
        }
        let news = |list: QueryCandidates| {
            let known = known[list.query.as_str()];
            keep_new(partition, inputs.split, list, known, config.depth)
        };
        found.insert(language.clone(), lists.into_iter().map(news).collect::<Result<Vec<_>>>()?);
    }
    Ok(found)
}

/// Drops positives and the first list's candidates, notes what people judged, and cuts at `depth`.
fn keep_new(
    partition: &Partition,
    split: Split,
    list: QueryCandidates,
    known: &QueryCandidates,
    depth: usize,
) -> Result<Found> {
    let QueryCandidates { query, positives, candidates } = list;
    let index = judge::query_named(partition, split, &query)?;
    let qrels = &partition.split(split)?.qrels;
    let known: BTreeSet<&str> = known.candidates.iter().map(|candidate| candidate.passage.as_str()).collect();
    let (mut all, mut new) = (0_usize, Vec::new());
    for candidate in candidates {
        let grade = qrels.grade(index, judge::passage_named(partition, &candidate.passage)?);
        if grade.is_some_and(|grade| grade >= 1) {
            continue;
        }
        all += 1;
        if !known.contains(candidate.passage.as_str()) {
            new.push(Candidate { human_grade: grade, ..candidate });
        }
    }
    let novelty = new.len() as f64 / all.max(1) as f64;
    new.truncate(depth);
    Ok(Found { new: QueryCandidates { query, positives, candidates: new }, novelty })
}

/// Judges the new candidates as the first ones were judged, by the original query.
fn judge_new(
    inputs: &GenerateInputs,
    found: &BTreeMap<Language, Vec<Found>>,
    llm: &Llm,
    progress: &Progress,
) -> Result<judge::Judged> {
    let rules = inputs.judge_config()?;
    let judge = Judge { dataset: inputs.dataset, split: inputs.split, config: &rules, llm };
    let new = |found: &Vec<Found>| found.iter().map(|found| found.new.clone()).collect();
    let lists = found.iter().map(|(language, found)| (language.clone(), new(found))).collect();
    judge::judge_candidates(&judge, &lists, &Standing::read(inputs.judgements)?, progress)
}

fn note_unpaid(summary: &mut Summary, queries: usize, pairs: usize) {
    summary.count("queries without a new one: budget", queries);
    if queries + pairs > 0 {
        summary.note(format!(
            "the budget ended before {queries} new queries were written and {pairs} of their candidates judged; with a \
             larger one, remove this folder and run again"
        ));
    }
}

fn count(summary: &mut Summary, language: &Language, supplements: &[QuerySupplement]) {
    let mut add = |name: &str, by: usize| {
        summary.count(name, by);
        summary.count(format!("{language}: {name}"), by);
    };
    add("new queries", supplements.len());
    for (name, rejection) in [("empty", Rejection::Empty), ("copy", Rejection::Copy), ("language", Rejection::Language)]
    {
        add(&format!("rejected: {name}"), supplements.iter().filter(|it| it.rejected == Some(rejection)).count());
    }
    let judgements = || supplements.iter().flat_map(|supplement| &supplement.judgements);
    add("new candidates", judgements().count());
    for verdict in Verdict::ALL {
        add(verdict.name(), judgements().filter(|judgement| judgement.verdict == verdict).count());
    }
}
