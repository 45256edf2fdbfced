use super::*;
use crate::evaluate::testing::{Language as Made, dataset, run};
use crate::evaluate::{EvaluateConfig, EvaluateInputs, evaluate};
use std::fmt::Write as _;
use tempfile::TempDir;

const QUERIES: usize = 12;

/// Two languages with 12 queries each, whose relevant passage is `p0`.
struct World {
    folder: TempDir,
}

impl World {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// Evaluates a system that ranks the relevant passage of query i at `rank(i)`, from 1.
    fn scored(&self, name: &str, queries: usize, rank: impl Fn(usize) -> usize) -> Artefact {
        let folder = self.folder.path().join(name);
        let (mut dev, mut qrels, mut lines) = (String::new(), String::new(), String::new());
        for query in 0..queries {
            let _ = writeln!(dev, "q{query}\ttext {query}");
            let _ = writeln!(qrels, "q{query} 0 p0 1");
            for place in 1..=10 {
                let passage = if place == rank(query) { 0 } else { place };
                let _ = writeln!(lines, "q{query} Q0 p{passage} {place} {} x", -(place as f64));
            }
        }
        let corpus_passages = [(Language::new("sw").unwrap(), 41)].into();
        let language = |tag| Made { tag, passages: 40, train: "", dev: &dev, qrels: &qrels };
        let data = dataset(&folder, &[language("ar"), language("sw")]);
        let run = run(&folder, "run", &[("ar.dev.trec", lines.clone()), ("sw.dev.trec", lines.clone())]);
        let inputs = EvaluateInputs { dataset: &data, run: &run, split: Split::Dev, examples: None, truth: None };
        let measures = vec![Measure::ReciprocalRank(10)];
        let config = EvaluateConfig { measures, reduced_pool: true, corpus_passages, ..EvaluateConfig::default() };
        evaluate(&inputs, &config, &folder.join("out"), &Progress::silent()).unwrap()
    }

    fn compare(&self, baseline: &System, systems: &[System]) -> Result<Comparison> {
        let out = self.folder.path().join("comparison");
        let config = CompareConfig { draws: 5000, ..CompareConfig::default() };
        Comparison::read(&compare(baseline, systems, &config, &out, &Progress::silent())?)
    }
}

fn system(name: &str, seeds: Vec<Artefact>) -> System {
    System { name: name.to_owned(), seeds }
}

fn close(value: f64, expected: f64, tolerance: f64) {
    assert!((value - expected).abs() <= tolerance, "{value} is not {expected}");
}

// SciPy 1.17.1: new = [1, 1/2, 1/2, 1/4] * 3; old = [1/2, 1/3, 1/2, 1/5] * 3
// ttest_rel(new, old).pvalue; permutation_test(…, permutation_type='samples', n_resamples=10**9).pvalue
#[test]
fn one_system_is_tested_in_each_language_and_over_them() {
    let world = World::new();
    let base = system("base", vec![world.scored("a", QUERIES, |q| [2, 3, 2, 5][q % 4])]);
    let new = system("new", vec![world.scored("b", QUERIES, |q| [1, 2, 2, 4][q % 4])]);
    let comparison = world.compare(&base, &[new]).unwrap();
    let by = &comparison.measures[0];
    let tests = &by.systems[0];
    let swahili = &tests.languages[&Language::new("sw").unwrap()];
    close(swahili.difference, (0.5 + 1.0 / 6.0 + 0.05) / 4.0, 1e-12);
    close(swahili.p_t.unwrap(), 0.011_055_737_966_474_377, 1e-12);
    close(swahili.p_randomisation, 0.003_906_25, 1e-12);
    close(swahili.p_holm.unwrap(), 0.007_812_5, 1e-12);
    let (low, high) = swahili.interval.unwrap();
    assert!(low > 0.0 && low < swahili.difference && high > swahili.difference);
    assert_eq!((tests.better, tests.worse), (2, 0));
    assert_eq!((tests.macro_mean.queries, tests.micro.queries), (24, 24));
    close(tests.macro_mean.difference, swahili.difference, 1e-12);
    assert!(tests.macro_mean.p_randomisation < 0.001 && tests.macro_mean.p_t.is_none());
    assert!(swahili.daggered(0.05) && swahili.holds(0.05));
    close(by.baseline.macro_mean.value, (0.5 + 1.0 / 3.0 + 0.5 + 0.2) / 4.0, 1e-12);
}

#[test]
fn seeds_are_averaged_per_query_and_their_spread_is_shown() {
    let world = World::new();
    let base = system("base", vec![world.scored("a", QUERIES, |_| 2)]);
    let seeds = vec![world.scored("b", QUERIES, |q| 1 + q % 2), world.scored("c", QUERIES, |q| 1 + (q + 1) % 2)];
    let comparison = world.compare(&base, &[system("new", seeds)]).unwrap();
    let tests = &comparison.measures[0].systems[0];
    close(tests.values.macro_mean.value, 0.75, 1e-12);
    close(tests.values.macro_mean.spread.unwrap(), 0.0, 1e-12);
    let arabic = &tests.languages[&Language::new("ar").unwrap()];
    assert_eq!(arabic.p_t, None, "every query differs by the same");
    close(arabic.p_randomisation, 2.0 / 4096.0, 1e-12);
    assert_eq!(tests.values.seeds, 2);
}

#[test]
fn a_system_beside_itself_differs_in_nothing() {
    let world = World::new();
    let evaluation = world.scored("a", QUERIES, |q| 1 + q % 5);
    let base = system("base", vec![evaluation.clone()]);
    let comparison = world.compare(&base, &[system("same", vec![evaluation])]).unwrap();
    let tests = &comparison.measures[0].systems[0];
    close(tests.macro_mean.difference, 0.0, 0.0);
    close(tests.macro_mean.p_randomisation, 1.0, 0.0);
    assert_eq!(tests.micro.p_t, Some(1.0));
    assert_eq!((tests.better, tests.worse), (0, 0));
    insta::assert_snapshot!("text", comparison.to_text());
    insta::assert_snapshot!("summary", comparison.to_summary());
}

#[test]
fn systems_scored_on_other_queries_are_refused() {
    let world = World::new();
    let base = system("base", vec![world.scored("a", QUERIES, |_| 1)]);
    let other = system("new", vec![world.scored("b", QUERIES - 2, |_| 1)]);
    let message = world.compare(&base, &[other]).unwrap_err().to_string();
    assert!(message.contains("`new` and the baseline `base` cannot be compared"), "{message}");
    assert!(message.contains("only the second has ar query `q10` and 1 more"), "{message}");
}

#[test]
fn names_and_seeds_are_checked() {
    let world = World::new();
    let evaluation = world.scored("a", QUERIES, |_| 1);
    let base = system("base", vec![evaluation.clone()]);
    let fail = |systems: &[System]| world.compare(&base, systems).unwrap_err().to_string();
    assert!(fail(&[]).contains("no system"));
    assert!(fail(&[system("base", vec![evaluation])]).contains("two systems are called `base`"));
    assert!(fail(&[system("new", Vec::new())]).contains("`new` has no evaluation"));
    let run = Artefact::open(&world.folder.path().join("a/run")).unwrap();
    assert!(fail(&[system("new", vec![run])]).contains("expected an artefact of `evaluate`"));
    let bad = CompareConfig { alpha: 1.5, ..CompareConfig::default() };
    assert!(bad.validate().unwrap_err().to_string().contains("compare.alpha"));
}

#[test]
fn renderings_hold_marks_and_escape_names() {
    let world = World::new();
    let base = system("base", vec![world.scored("a", QUERIES, |q| [2, 3, 2, 5][q % 4])]);
    let new = system("a_b|c, \"d\" & e", vec![world.scored("b", QUERIES, |q| [1, 2, 2, 4][q % 4])]);
    let comparison = world.compare(&base, &[new]).unwrap();
    insta::assert_snapshot!("markdown", comparison.to_markdown());
    insta::assert_snapshot!("latex", comparison.to_latex());
    let json: Comparison = serde_json::from_str(&comparison.to_json()).unwrap();
    assert_eq!(json, comparison);
    insta::assert_snapshot!("csv", comparison.to_csv().lines().next().unwrap());
    let csv = comparison.to_csv();
    assert_eq!(csv.lines().count(), 1 + 4);
    assert!(csv.lines().nth(1).unwrap().starts_with("MRR@10,qrels,\"a_b|c, \"\"d\"\" & e\",1,ar,12,0.5625,,"));
}
