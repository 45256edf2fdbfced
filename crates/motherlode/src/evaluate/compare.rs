//! Comparing systems with a baseline: paired by query, averaged over seeds, tested per language and over languages.
//!
//! Differences are system minus baseline. Seeds of a system are averaged per query before anything is tested; their
//! spread stands beside. Per language there are a t-test, a randomisation test and, over the languages of one system
//! and measure, Holm's correction of the latter. The macro mean is tested by signs that flip within languages and an
//! interval that is resampled within languages. A test that pools the queries of all languages is called micro.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::loaded::{Paired, ScoredSystem};
use super::significance::{MeanDifference, deviation, holm, mean, randomisation};
use super::{Judgements, Measure, Pool, write_json};
use crate::artefact::{self, Artefact, Outcome, Recipe, Summary};
use crate::corpus::Language;
use crate::dataset::Split;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::random::keyed;

/// The name of the stage.
pub const STAGE: &str = "compare";

const FORMAT: u32 = 2;

/// How systems are compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CompareConfig {
    /// What counts as significant, for p of the t-test (†) and for p after Holm's correction (*).
    pub alpha: f64,
    /// How often an interval covers the true difference.
    pub confidence: f64,
    /// How often a difference of the size called detectable would be found.
    pub power: f64,
    /// Draws of the randomisation test and of the bootstrap.
    pub draws: usize,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for CompareConfig {
    fn default() -> Self {
        Self { alpha: 0.05, confidence: 0.95, power: 0.8, draws: 10_000, seed: 0 }
    }
}

impl CompareConfig {
    /// Checks the ranges.
    pub fn validate(&self) -> Result<()> {
        for (name, value) in [("alpha", self.alpha), ("confidence", self.confidence), ("power", self.power)] {
            if !(value > 0.0 && value < 1.0) {
                return Err(Error::config(format!("`compare.{name}`: expected a number between 0 and 1, got {value}")));
            }
        }
        if self.power <= self.alpha {
            return Err(Error::config("`compare.power`: expected more than `compare.alpha`"));
        }
        if self.draws < 1000 {
            return Err(Error::config(format!("`compare.draws`: expected at least 1,000, got {}", self.draws)));
        }
        Ok(())
    }
}

/// A system: the evaluations of one or more seeds of it.
#[derive(Debug, Clone)]
pub struct System {
    /// Its name in tables.
    pub name: String,
    /// Artefacts of `evaluate`, one per seed.
    pub seeds: Vec<Artefact>,
}

/// Everything that was compared: `comparison.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The baseline's name.
    pub baseline: String,
    /// Whose queries were scored; none where only files of runs and qrels were at hand.
    pub split: Option<Split>,
    /// Levels, draws and seed.
    pub config: CompareConfig,
    /// What was ranked, by language.
    pub pools: BTreeMap<Language, Pool>,
    /// Of the baseline, then of the systems in the order they were given.
    pub unjudged: Vec<Unjudged>,
    /// One for every measure, against the qrels first, then against the truth where there is one.
    pub measures: Vec<MeasureComparison>,
}

/// Mean number of unjudged passages among the first 10 of a system, averaged over its seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unjudged {
    /// The system.
    pub name: String,
    /// Per language, over the queries with a ranking.
    pub languages: BTreeMap<Language, f64>,
    /// The unweighted mean over the languages.
    pub macro_mean: f64,
}

/// The comparison by one measure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasureComparison {
    /// The measure.
    pub measure: Measure,
    /// Against which judgements.
    pub judgements: Judgements,
    /// The languages that have the measure, with their number of queries.
    pub queries: BTreeMap<Language, usize>,
    /// The baseline's values.
    pub baseline: SystemValues,
    /// The systems, in the order they were given.
    pub systems: Vec<SystemComparison>,
}

/// The values of one system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SystemValues {
    /// The system.
    pub name: String,
    /// Number of seeds.
    pub seeds: usize,
    /// Per language.
    pub languages: BTreeMap<Language, SeedMean>,
    /// The unweighted mean over the languages.
    pub macro_mean: SeedMean,
}

/// A value averaged over seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SeedMean {
    /// The mean.
    pub value: f64,
    /// Standard deviation over the seeds; none of one seed.
    pub spread: Option<f64>,
}

impl SeedMean {
    fn of(seeds: &[f64]) -> Self {
        Self { value: mean(seeds), spread: (seeds.len() > 1).then(|| deviation(seeds)) }
    }
}

/// One system beside the baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SystemComparison {
    /// Its values.
    pub values: SystemValues,
    /// Per language.
    pub languages: BTreeMap<Language, Difference>,
    /// Of the unweighted mean over the languages.
    pub macro_mean: Difference,
    /// Of all queries in one pool, where languages with many queries count more.
    pub micro: Difference,
    /// Languages in which it is better after Holm's correction.
    pub better: usize,
    /// Languages in which it is worse after Holm's correction.
    pub worse: usize,
}

/// A difference from the baseline and what is to be thought of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Number of queries.
    pub queries: usize,
    /// System minus baseline.
    pub difference: f64,
    /// The bootstrap interval; none of fewer than two queries in a language.
    pub interval: Option<(f64, f64)>,
    /// Two-sided p of the paired t-test; none for the macro mean, and where every query differs by the same.
    pub p_t: Option<f64>,
    /// Two-sided p of the paired randomisation test.
    pub p_randomisation: f64,
    /// The latter after Holm's correction over the languages; none for means over languages.
    pub p_holm: Option<f64>,
    /// The smallest true difference that so many queries, varying as they do, would have shown.
    pub detectable: Option<f64>,
}

impl Difference {
    /// Whether the uncorrected t-test calls it significant: the † of many papers.
    pub fn daggered(&self, alpha: f64) -> bool {
        self.p_t.is_some_and(|p| p < alpha)
    }

    /// Whether it is significant after Holm's correction.
    pub fn holds(&self, alpha: f64) -> bool {
        self.p_holm.is_some_and(|p| p < alpha)
    }
}

impl Comparison {
    /// The file's name in the artefact.
    pub const FILE: &str = "comparison.json";

    /// Reads what [`compare`] wrote.
    pub fn read(artefact: &Artefact) -> Result<Self> {
        let path = artefact.path(Self::FILE);
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        serde_json::from_str(&text).map_err(|error| Error::file(&path, format!("{error}; compare again")))
    }
}

/// Compares systems with a baseline and writes the artefact `out`: `comparison.json` and `table.md`.
///
/// # Errors
/// No system, a name twice, a system without a seed; evaluations of another stage, split, corpus size, set of queries
/// or measures than the baseline's.
pub fn compare(
    baseline: &System,
    systems: &[System],
    config: &CompareConfig,
    out: &Path,
    progress: &Progress<'_>,
) -> Result<Artefact> {
    config.validate()?;
    check_names(baseline, systems)?;
    let mut draft = match artefact::draft(out, recipe(baseline, systems, config)?)? {
        Outcome::UpToDate(artefact) => return Ok(artefact),
        Outcome::Write(draft) => draft,
    };
    let comparison = compared(baseline, systems, config, progress)?;
    write_json(&mut draft, Comparison::FILE, &comparison)?;
    let path = draft.path("table.md");
    draft.write("table.md", |output| {
        output.write_all(comparison.to_markdown().as_bytes()).map_err(Error::io(&path))?;
        Ok(1)
    })?;
    draft.commit(summary(&comparison))
}

fn compared(
    baseline: &System,
    systems: &[System],
    config: &CompareConfig,
    progress: &Progress<'_>,
) -> Result<Comparison> {
    let baseline = ScoredSystem::read(baseline)?;
    let mut scored = Vec::new();
    for system in systems {
        let system = ScoredSystem::read(system)?;
        system.expect_like(&baseline)?;
        scored.push(system);
    }
    let targets = baseline.targets();
    progress.begin("compare", targets.len() * scored.len(), "tests");
    let comparer = Comparer { baseline: &baseline, systems: &scored, config, progress };
    Ok(Comparison {
        baseline: baseline.name.clone(),
        split: baseline.split(),
        config: config.clone(),
        pools: baseline.pools(),
        unjudged: std::iter::once(&baseline).chain(&scored).map(ScoredSystem::unjudged).collect(),
        measures: targets.into_iter().map(|target| comparer.by(target)).collect(),
    })
}

fn check_names(baseline: &System, systems: &[System]) -> Result<()> {
    if systems.is_empty() {
        return Err(Error::data("there is no system to compare with the baseline; name at least one"));
    }
    let mut seen = std::collections::BTreeSet::new();
    for system in std::iter::once(baseline).chain(systems) {
        if system.seeds.is_empty() {
            return Err(Error::data(format!("the system `{}` has no evaluation", system.name)));
        }
        if !seen.insert(&system.name) {
            return Err(Error::data(format!("two systems are called `{}`; give each its own name", system.name)));
        }
    }
    Ok(())
}

fn recipe(baseline: &System, systems: &[System], config: &CompareConfig) -> Result<Recipe> {
    let names: Vec<&str> = systems.iter().map(|system| system.name.as_str()).collect();
    let content = serde_json::json!({ "compare": config, "baseline": baseline.name, "systems": names });
    let mut recipe = Recipe::new(STAGE, FORMAT, &content)?.seed(config.seed);
    for system in std::iter::once(baseline).chain(systems) {
        for (seed, artefact) in system.seeds.iter().enumerate() {
            recipe = recipe.input(&format!("{} {seed}", system.name), artefact);
        }
    }
    Ok(recipe)
}

fn summary(comparison: &Comparison) -> Summary {
    let mut summary = Summary::default();
    if let Some(label) = super::pool::label(&comparison.pools) {
        summary.note(label);
    }
    for by in &comparison.measures {
        let against = if by.judgements == Judgements::Truth { " against truth" } else { "" };
        for system in &by.systems {
            let name = format!("{} {}{against}", system.values.name, by.measure);
            summary.value(format!("{name}: macro difference"), system.macro_mean.difference);
            summary.count(format!("{name}: better in languages"), system.better);
            summary.count(format!("{name}: worse in languages"), system.worse);
        }
    }
    summary
}

/// What a comparison is made by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) measure: Measure,
    pub(super) judgements: Judgements,
}

struct Comparer<'a> {
    baseline: &'a ScoredSystem,
    systems: &'a [ScoredSystem],
    config: &'a CompareConfig,
    progress: &'a Progress<'a>,
}

impl Comparer<'_> {
    fn by(&self, target: Target) -> MeasureComparison {
        let languages = self.baseline.languages_with(target);
        let baseline = values(self.baseline, target, &languages);
        let compare = |system: &ScoredSystem| {
            let comparison = self.system(system, target, &languages);
            self.progress.advance(1);
            comparison
        };
        MeasureComparison {
            measure: target.measure,
            judgements: target.judgements,
            queries: languages.iter().map(|l| ((*l).clone(), self.baseline.queries(l))).collect(),
            baseline,
            systems: self.systems.iter().map(compare).collect(),
        }
    }

    fn system(&self, system: &ScoredSystem, target: Target, languages: &[&Language]) -> SystemComparison {
        let pairs: Vec<Paired<'_>> =
            languages.iter().map(|language| system.paired(self.baseline, language, target)).collect();
        let tested: Vec<Tested> =
            pairs.par_iter().map(|pair| self.test(&pair.differences, target, pair.language.as_str())).collect();
        let holm = holm(&tested.iter().map(|test| test.difference.p_randomisation).collect::<Vec<f64>>());
        let corrected = |((pair, test), p): ((&Paired<'_>, &Tested), f64)| {
            (pair.language.clone(), Difference { p_holm: Some(p), ..test.difference })
        };
        let languages: BTreeMap<Language, Difference> = pairs.iter().zip(&tested).zip(holm).map(corrected).collect();
        let significant = |sign: f64| {
            let counts = |d: &&Difference| d.holds(self.config.alpha) && d.difference * sign > 0.0;
            languages.values().filter(counts).count()
        };
        SystemComparison {
            values: values(system, target, &pairs.iter().map(|pair| pair.language).collect::<Vec<_>>()),
            macro_mean: self.macro_mean(&pairs, &tested, target),
            micro: self
                .test(&pairs.iter().flat_map(|p| p.differences.clone()).collect::<Vec<_>>(), target, "")
                .difference,
            better: significant(1.0),
            worse: significant(-1.0),
            languages,
        }
    }

    /// Tests the mean of some differences. The draws are keyed by what is tested, never by the systems' names.
    fn test(&self, differences: &[f64], target: Target, item: &str) -> Tested {
        let draws = self.config.draws;
        let mut random = keyed(self.config.seed, "compare bootstrap", &format!("{} {item}", target.measure));
        let estimate = MeanDifference::new(differences, draws, &mut random);
        let mut random = keyed(self.config.seed, "compare randomisation", &format!("{} {item}", target.measure));
        let p_randomisation = randomisation(differences, draws, &mut random);
        let difference = self.difference(differences, estimate.as_ref(), p_randomisation);
        Tested { estimate, difference }
    }

    fn difference(&self, differences: &[f64], estimate: Option<&MeanDifference>, p_randomisation: f64) -> Difference {
        Difference {
            queries: differences.len(),
            difference: mean(differences),
            interval: estimate.map(|estimate| estimate.interval(self.config.confidence)),
            p_t: estimate.and_then(MeanDifference::t_test),
            p_randomisation,
            p_holm: None,
            detectable: estimate.and_then(|estimate| estimate.detectable(self.config.alpha, self.config.power)),
        }
    }

    fn macro_mean(&self, pairs: &[Paired<'_>], tested: &[Tested], target: Target) -> Difference {
        let weighted = |pair: &Paired<'_>| {
            let weight = 1.0 / (pair.differences.len() * pairs.len()) as f64;
            pair.differences.iter().map(|difference| difference * weight).collect::<Vec<f64>>()
        };
        let weighted: Vec<f64> = pairs.iter().flat_map(weighted).collect();
        let mut random = keyed(self.config.seed, "compare macro", &target.measure.to_string());
        let estimates: Option<Vec<&MeanDifference>> = tested.iter().map(|test| test.estimate.as_ref()).collect();
        let estimate = estimates.and_then(|strata| MeanDifference::macro_mean(&strata));
        let p = randomisation(&weighted, self.config.draws, &mut random);
        let difference = self.difference(&weighted, estimate.as_ref(), p);
        Difference { difference: weighted.iter().sum(), p_t: None, ..difference }
    }
}

/// A tested difference with what the macro mean needs of it.
struct Tested {
    estimate: Option<MeanDifference>,
    difference: Difference,
}

fn values(system: &ScoredSystem, target: Target, languages: &[&Language]) -> SystemValues {
    let per_language: Vec<Vec<f64>> =
        languages.iter().map(|language| system.means_of_seeds(language, target)).collect();
    let seeds = system.seeds();
    let macro_of = |seed: usize| mean(&per_language.iter().map(|means| means[seed]).collect::<Vec<f64>>());
    SystemValues {
        name: system.name.clone(),
        seeds,
        languages: languages.iter().zip(&per_language).map(|(l, means)| ((*l).clone(), SeedMean::of(means))).collect(),
        macro_mean: SeedMean::of(&(0..seeds).map(macro_of).collect::<Vec<f64>>()),
    }
}

#[cfg(test)]
mod tests;
