//! Sampling: from qrels, candidates, judgements and supplements to training examples, each negative with its provenance.
//!
//! Reads the data set, `LANG.jsonl` of `mine`, and, where there are any, of `judge` and `generate`. Writes
//! `LANG.train.jsonl`, `LANG.validation.jsonl` and `overlaps.jsonl`, the findings of the [`guard`]. Only queries that were mined become examples. No negative is ever in
//! its example's `relevant`, and none of `unknown` verdict.
//!
//! With a judge the negatives are, until there are enough: the first list by rank (judged negatives, human ones, and
//! unjudged ones that the policy lets through), the supplement, further passages that people judged not relevant, deeper
//! ranks, random passages of the language. Without a judge they are the miner's list as it is.

mod fill;
pub mod guard;
mod material;
mod tally;
mod validation;

use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::artefact::{self, Artefact, Outcome, Recipe, Summary};
use crate::dataset::{Dataset, Partition, Split};
use crate::error::{Error, Result};
use crate::mine::filter::Miner;
use crate::progress::Progress;
use crate::text::twins::Twins;

use fill::{Drawn, Rules};
use guard::{Finding, Guard};

/// The name of the stage.
pub const STAGE: &str = "sample";
const FORMAT: u32 = 2;

/// Where a negative came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Provenance {
    /// A candidate that the judge called a negative.
    Judged,
    /// A candidate of a generated query that the judge called a negative.
    Supplement,
    /// Judged not relevant by people.
    Human,
    /// A candidate beyond the first K that the judge called a negative.
    Deeper,
    /// A candidate chosen by a score rule (a baseline miner) without a judge.
    Mined,
    /// A candidate without a verdict that the policy for unjudged ones let through.
    Unjudged,
    /// Drawn at random from the passages of the language.
    Random,
}

impl Provenance {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 7] =
        [Self::Judged, Self::Supplement, Self::Human, Self::Deeper, Self::Mined, Self::Unjudged, Self::Random];

    /// The name in files and summaries.
    pub fn name(self) -> &'static str {
        match self {
            Self::Judged => "judged",
            Self::Supplement => "supplement",
            Self::Human => "human",
            Self::Deeper => "deeper",
            Self::Mined => "mined",
            Self::Unjudged => "unjudged",
            Self::Random => "random",
        }
    }

    /// Whether a language model read the pair and called it a negative.
    pub fn is_by_language_model(self) -> bool {
        matches!(self, Self::Judged | Self::Supplement | Self::Deeper)
    }
}

/// A negative of a training example.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Negative {
    /// The passage's id.
    pub passage: String,
    /// Where it came from.
    pub provenance: Provenance,
}

/// A query with its positives and negatives: a line of `LANG.train.jsonl` or `LANG.validation.jsonl` in the artefact of `sample`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// The query's id.
    pub query: String,
    /// Ids of its positives, in the order in which epochs take them.
    pub positives: Vec<String>,
    /// Passages that must never be a negative of this query: known positives, their twins, and whatever the judge
    /// graded 1 or 2, with its twins.
    pub relevant: Vec<String>,
    /// Its negatives, the most wanted first.
    pub negatives: Vec<Negative>,
}

/// What becomes of candidates without a verdict: the budget was spent, or the language's judge abstained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnjudgedPolicy {
    /// Those that the percentage miner keeps may be negatives.
    #[default]
    Percentage,
    /// None may be a negative.
    Exclude,
    /// All may be negatives.
    Keep,
}

/// The knobs of `sample`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SampleConfig {
    /// Negatives wanted per query, N.
    pub negatives: usize,
    /// Which candidates are negatives where nothing was judged.
    pub miner: Miner,
    /// What becomes of candidates without a verdict.
    pub unjudged: UnjudgedPolicy,
    /// Whether passages that the judge graded 2 are added to the positives.
    pub use_false_negatives_as_positives: bool,
    /// Negatives a query brings to a step; queries with fewer make an arm hard to compare and are counted.
    pub step_negatives: usize,
    /// Share of each language's queries that is set aside for validation, 0 to below 1.
    pub validation_share: f64,
    /// What happens when training data and dev queries overlap, or passages stand under several ids.
    pub guard: Guard,
}

impl Default for SampleConfig {
    fn default() -> Self {
        Self {
            negatives: 30,
            miner: Miner::default(),
            unjudged: UnjudgedPolicy::default(),
            use_false_negatives_as_positives: false,
            step_negatives: 7,
            validation_share: 0.1,
            guard: Guard::default(),
        }
    }
}

impl SampleConfig {
    /// Checks the ranges.
    pub fn validate(&self) -> Result<()> {
        if self.negatives == 0 {
            return Err(Error::config("`sample.negatives`: expected at least 1, got 0"));
        }
        self.miner.validate()?;
        if !(0.0..1.0).contains(&self.validation_share) {
            let share = self.validation_share;
            return Err(Error::config(format!("`sample.validation_share`: expected 0 to below 1, got {share}")));
        }
        Ok(())
    }
}

/// What `sample` reads.
#[derive(Debug, Clone, Copy)]
pub struct SampleInputs<'a> {
    /// Passages, queries and qrels.
    pub dataset: &'a Dataset,
    /// The artefact of `mine`.
    pub candidates: &'a Artefact,
    /// The artefact of `judge` over these candidates; without it the miner's rule decides.
    pub judgements: Option<&'a Artefact>,
    /// The artefact of `generate`.
    pub supplement: Option<&'a Artefact>,
    /// Ranks of the first list, K; what `mine` lists beyond is used only when a query falls short.
    pub first: usize,
}

/// Training and validation examples for every mined language, as an artefact.
///
/// # Errors
/// Candidates, judgements or supplement that do not belong together or to the data set; no example at all; with
/// `guard = "strict"` an overlap with the dev queries.
pub fn sample(
    inputs: &SampleInputs,
    config: &SampleConfig,
    seed: u64,
    out: &Path,
    progress: &Progress,
) -> Result<Artefact> {
    config.validate()?;
    check_origin(inputs)?;
    let mut draft = match artefact::draft(out, recipe(inputs, config, seed)?)? {
        Outcome::UpToDate(artefact) => return Ok(artefact),
        Outcome::Write(draft) => draft,
    };
    let rules = Rules { config, seed, first: inputs.first as u32, judged: inputs.judgements.is_some() };
    let (mut tally, mut findings) = (tally::Tally::default(), Vec::new());
    for partition in &inputs.dataset.partitions {
        if !partition.has(Split::Train) || !inputs.candidates.has(&material::file(partition)) {
            continue;
        }
        let drawn = draw_language(inputs, partition, &rules, progress)?;
        tally.add(partition, &drawn, config);
        findings.extend(drawn.findings.iter().cloned());
        for (name, chosen) in [("train", false), ("validation", true)] {
            let rows = drawn.examples.iter().zip(&drawn.is_validation).filter(|(_, validation)| **validation == chosen);
            let rows = rows.map(|(example, _)| example.named(partition));
            draft.write_lines(&format!("{}.{name}.jsonl", partition.language), rows)?;
        }
    }
    let mut summary = tally.finish(config)?;
    guard::count_or_refuse(&findings, config.guard, STAGE, &mut summary)?;
    draft.write_lines(guard::FILE, findings)?;
    draft.commit(summary)
}

/// The examples of one language and what was seen on the way.
struct LanguageSample {
    examples: Vec<Drawn>,
    is_validation: Vec<bool>,
    findings: Vec<Finding>,
    dropped: material::Dropped,
}

fn draw_language(
    inputs: &SampleInputs,
    partition: &Partition,
    rules: &Rules,
    progress: &Progress,
) -> Result<LanguageSample> {
    let (queries, dropped) = material::read(inputs, partition, rules)?;
    let twins = Twins::find(&partition.corpus);
    progress.begin(&format!("sample {}", partition.language), queries.len(), "queries");
    let draw = |query: &material::QueryMaterial| {
        progress.advance(1);
        fill::draw(query, &twins, partition, rules)
    };
    let examples: Vec<Drawn> = queries.par_iter().map(draw).collect();
    let positives: Vec<_> = queries.iter().map(|query| query.positives.as_slice()).collect();
    let is_validation =
        validation::choose(&positives, &twins, rules.config.validation_share, rules.seed, &partition.language);
    let training = examples.iter().zip(&is_validation).filter(|(_, validation)| !**validation);
    let training: Vec<guard::Trained> = training.map(|(drawn, _)| drawn.trained(partition)).collect();
    let findings = guard::findings(partition, &training, &twins)?;
    Ok(LanguageSample { examples, is_validation, findings, dropped })
}

fn recipe(inputs: &SampleInputs, config: &SampleConfig, seed: u64) -> Result<Recipe> {
    let recipe = Recipe::new(STAGE, FORMAT, config)?.seed(seed);
    let recipe = recipe.input_key("dataset", &inputs.dataset.key).input("candidates", inputs.candidates);
    let recipe = recipe.input_key("first", &inputs.first.to_string());
    let optional = [("judgements", inputs.judgements), ("supplement", inputs.supplement)];
    Ok(optional.into_iter().fold(recipe, |recipe, (role, artefact)| match artefact {
        Some(artefact) => recipe.input(role, artefact),
        None => recipe,
    }))
}

/// Refuses judgements of other candidates: they would pass for those of these.
fn check_origin(inputs: &SampleInputs) -> Result<()> {
    let Some(judgements) = inputs.judgements else { return Ok(()) };
    if judgements.manifest().inputs.values().any(|key| key == inputs.candidates.key()) {
        return Ok(());
    }
    Err(Error::file(judgements.folder(), "these judgements were made for other candidates; run `judge` again"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Judgement, QueryJudgements, Verdict};
    use crate::mine::{Candidate, QueryCandidates};
    use crate::topic::fixture::{self, Sketch};

    /// Twenty train queries on forty passages; `d0` asks what `q0` asked, and shares its positive.
    fn dataset(folder: &Path) -> Dataset {
        let passages = (0..40).map(|at| (format!("p{at}"), String::new(), format!("text {at}"))).collect();
        let lines =
            |count: usize, line: fn(usize) -> String| (0..count).map(line).collect::<Vec<_>>().join("\n") + "\n";
        let queries = lines(20, |query| format!("q{query}\tquestion {query}"));
        let qrels = lines(19, |query| format!("q{query} 0 p{query} 1"));
        let splits = vec![
            (Split::Train, queries, qrels + "q0 0 p39 0\n"),
            (Split::Dev, "d0\tQUESTION  0\n".to_owned(), "d0 0 p0 1\n".to_owned()),
        ];
        fixture::dataset(folder, &[Sketch { language: "en", passages, splits }])
    }

    fn candidate(passage: usize, rank: u32) -> Candidate {
        let human_grade = (passage == 39).then_some(0);
        let model_score = 0.1 * rank as f32;
        Candidate { passage: format!("p{passage}"), rank, score: 0.0, model_score, human_grade, evidence: vec![] }
    }

    /// Every query but the last lists the passages of the next three queries.
    fn candidates(folder: &Path) -> Artefact {
        let line = |query: usize| QueryCandidates {
            query: format!("q{query}"),
            positives: vec![(format!("p{query}"), 0.9)],
            candidates: (1..=3).map(|rank| candidate(query + rank, rank as u32)).collect(),
        };
        fixture::write(&folder.join("mine"), Recipe::new("mine", 1, &()).unwrap(), |draft| {
            draft.write_lines("en.jsonl", (0..20).map(line)).unwrap();
        })
    }

    fn judgements(folder: &Path, candidates: &Artefact, verdicts: [Verdict; 3]) -> Artefact {
        let judgement = |query: usize, rank: usize| Judgement {
            passage: format!("p{}", query + rank),
            verdict: verdicts[rank - 1],
            accuracy: None,
            completeness: None,
            screened: None,
            ledger: vec![],
        };
        let line = |query: usize| QueryJudgements {
            query: format!("q{query}"),
            judgements: (1..=3).map(|rank| judgement(query, rank)).collect(),
        };
        let recipe = Recipe::new("judge", 1, &()).unwrap().input("candidates", candidates);
        fixture::write(&folder.join("judge"), recipe, |draft| {
            draft.write_lines("en.jsonl", (0..20).map(line)).unwrap();
        })
    }

    fn run(folder: &Path, verdicts: Option<[Verdict; 3]>, config: &SampleConfig) -> Result<Artefact> {
        let dataset = dataset(folder);
        let candidates = candidates(folder);
        let judgements = verdicts.map(|verdicts| judgements(folder, &candidates, verdicts));
        let inputs = SampleInputs {
            dataset: &dataset,
            candidates: &candidates,
            judgements: judgements.as_ref(),
            supplement: None,
            first: 40,
        };
        sample(&inputs, config, 7, &folder.join("sample"), &Progress::silent())
    }

    fn examples(artefact: &Artefact) -> Vec<Example> {
        artefact.read_lines("en.train.jsonl").unwrap()
    }

    #[test]
    fn without_a_judge_the_miner_decides_and_nothing_is_filled() {
        let folder = tempfile::tempdir().unwrap();
        let artefact = run(folder.path(), None, &SampleConfig::default()).unwrap();
        let examples = examples(&artefact);
        assert_eq!((examples.len(), artefact.read_lines::<Example>("en.validation.jsonl").unwrap().len()), (17, 2));
        assert!(examples.iter().all(|example| example.negatives.len() == 3));
        let counts = &artefact.summary().counts;
        assert_eq!(counts["dropped: without positive"], 1);
        assert_eq!(counts["en: negatives mined"], 51);
        assert_eq!((counts["short queries"], counts["comparable"]), (17, 0));
        assert!((artefact.summary().values["yield"] - 0.1).abs() < 1e-12);
    }

    #[test]
    fn the_miner_says_in_which_order_its_candidates_are_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let first = |miner, negatives| {
            let config = SampleConfig { miner, negatives, validation_share: 0.0, ..SampleConfig::default() };
            let examples = examples(&run(folder.path(), None, &config).unwrap());
            examples[0].negatives.iter().map(|negative| negative.passage.clone()).collect::<Vec<_>>()
        };
        assert_eq!(first(Miner::Ensemble, 2), ["p1", "p2"]);
        assert_eq!(first(Miner::TopK, 2), ["p3", "p2"]);
        assert_eq!(first(Miner::Absolute { max: 0.15 }, 2), ["p1"]);
    }

    #[test]
    fn candidates_without_a_verdict_follow_the_policy() {
        let folder = tempfile::tempdir().unwrap();
        let counts = |unjudged| {
            let config = SampleConfig { unjudged, negatives: 3, validation_share: 0.0, ..SampleConfig::default() };
            let verdicts = [Verdict::Unjudged, Verdict::Abstained, Verdict::Unknown];
            run(folder.path(), Some(verdicts), &config).unwrap().summary().counts["negatives unjudged"]
        };
        assert_eq!(counts(UnjudgedPolicy::Exclude), 0);
        assert_eq!(counts(UnjudgedPolicy::Keep), 38);
        assert_eq!(counts(UnjudgedPolicy::Percentage), 38, "every candidate scores below 90 % of the positive");
    }

    #[test]
    fn with_a_judge_examples_are_filled_and_eliminated_passages_become_relevant() {
        let folder = tempfile::tempdir().unwrap();
        let verdicts = [Verdict::FalseNegative, Verdict::Negative, Verdict::Unknown];
        let config = SampleConfig { negatives: 8, validation_share: 0.0, ..SampleConfig::default() };
        let artefact = run(folder.path(), Some(verdicts), &config).unwrap();
        let first = &examples(&artefact)[0];
        assert_eq!((first.query.as_str(), first.positives.as_slice()), ("q0", ["p0".to_owned()].as_slice()));
        assert_eq!(first.relevant, ["p0", "p1"]);
        let taken = |place: usize| (first.negatives[place].passage.as_str(), first.negatives[place].provenance);
        assert_eq!((taken(0), taken(1)), (("p2", Provenance::Judged), ("p39", Provenance::Human)));
        assert_eq!(first.negatives.len(), 8);
        let summary = artefact.summary();
        assert_eq!((summary.counts["short queries"], summary.counts["comparable"]), (0, 1));
        assert!((summary.values["share of negatives judged by a language model"] - 1.0 / 8.0).abs() < 1e-12);
    }

    #[test]
    fn more_negatives_than_the_corpus_has_are_counted_not_demanded() {
        let folder = tempfile::tempdir().unwrap();
        let config = SampleConfig { negatives: 100, ..SampleConfig::default() };
        let artefact = run(folder.path(), Some([Verdict::Negative; 3]), &config).unwrap();
        assert!(examples(&artefact).iter().all(|example| example.negatives.len() == 39));
        assert_eq!(artefact.summary().counts["short queries"], 17);
    }

    #[test]
    fn leaks_are_counted_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let config = SampleConfig { validation_share: 0.0, ..SampleConfig::default() };
        let artefact = run(folder.path(), None, &config).unwrap();
        assert_eq!(artefact.summary().counts["leak: dev positives among training positives"], 1);
        assert_eq!(artefact.summary().counts["leak: dev queries equal to train queries"], 1);
        let listed: Vec<Finding> = artefact.read_lines(guard::FILE).unwrap();
        let line = |kind| listed.iter().find(|finding| finding.kind == kind).map(|f| (f.id.as_str(), f.with.clone()));
        assert_eq!(line(guard::Kind::EqualQueries), Some(("d0", vec!["q0".to_owned()])));
        assert_eq!(line(guard::Kind::PositiveAsPositive), Some(("p0", vec!["q0".to_owned()])));
        assert_eq!(listed.len(), 2, "{listed:?}");
        let strict = SampleConfig { guard: Guard::Strict, ..config };
        let message = run(folder.path(), None, &strict).unwrap_err().to_string();
        let expected =
            "en dev query `d0` equals train query `q0`, en dev positive `p0` is a positive of train query `q0`; ";
        assert!(message.contains(expected) && message.contains("`sample.guard = \"count\"`"), "{message}");
    }

    #[test]
    fn judgements_of_other_candidates_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (dataset, candidates) = (dataset(folder.path()), candidates(folder.path()));
        let other = fixture::write(&folder.path().join("other"), Recipe::new("judge", 1, &()).unwrap(), |_| ());
        let inputs = SampleInputs {
            dataset: &dataset,
            candidates: &candidates,
            judgements: Some(&other),
            supplement: None,
            first: 40,
        };
        let out = folder.path().join("sample");
        let error = sample(&inputs, &SampleConfig::default(), 7, &out, &Progress::silent()).unwrap_err();
        assert!(error.to_string().contains("made for other candidates"), "{error}");
    }

    #[test]
    fn ranges_are_checked() {
        assert!(SampleConfig::default().validate().is_ok());
        let config = SampleConfig { validation_share: 1.0, ..SampleConfig::default() };
        assert!(config.validate().unwrap_err().to_string().contains("`sample.validation_share`"));
        assert!(SampleConfig { negatives: 0, ..SampleConfig::default() }.validate().is_err());
    }
}
