use super::testing::{Language as Made, dataset, run};
use super::*;
use crate::sample::guard::{Finding, Kind};
use crate::sample::{Example, Negative, Provenance};

const SWAHILI: Made<'_> = Made {
    tag: "sw",
    passages: 40,
    train: "t1\tSwali la kwanza\n",
    dev: "q1\tswali  la kwanza\nq2\tb\nq3\tc\nq4\td\n",
    qrels: "q1 Q0 p1 1\nq1 Q0 p2 0\nq2 Q0 p3 1\nq3 Q0 p5 1\n",
};

fn ranked() -> Vec<(&'static str, String)> {
    let sw = "q1 Q0 p0 1 3 x\nq1 Q0 p1 2 2 x\nq2 Q0 p3 1 1 x\nq4 Q0 p3 1 1 x\n";
    vec![("sw.dev.trec", sw.to_owned())]
}

fn scored(change: impl FnOnce(&mut EvaluateInputs<'_>), config: &EvaluateConfig) -> Result<MeasureTable> {
    let folder = tempfile::tempdir().unwrap();
    let (data, run) = (dataset(folder.path(), &[SWAHILI]), run(folder.path(), "run", &ranked()));
    let mut inputs = EvaluateInputs { dataset: &data, run: &run, split: Split::Dev, examples: None, truth: None };
    change(&mut inputs);
    let artefact = evaluate(&inputs, config, &folder.path().join("out"), &Progress::silent())?;
    MeasureTable::read(&artefact)
}

fn config(measures: &[&str], complete: bool) -> EvaluateConfig {
    let measures = measures.iter().map(|name| name.parse().unwrap()).collect();
    EvaluateConfig { measures, complete, ..EvaluateConfig::default() }
}

fn close(value: f64, expected: f64) {
    assert!((value - expected).abs() < 1e-12, "{value} is not {expected}");
}

#[test]
fn means_count_judged_queries_with_and_without_a_ranking() {
    let language = Language::new("sw").unwrap();
    let table = scored(|_| (), &config(&["MRR@10", "Recall@10", "Recall@11"], true)).unwrap();
    let sw = &table.languages[&language];
    assert_eq!((sw.queries, sw.found, sw.pool.passages), (3, 2, Some(40)));
    close(sw.mean[&Measure::ReciprocalRank(10)], 0.5);
    close(sw.unjudged_at_10, 0.5);
    assert!(!sw.mean.contains_key(&Measure::Recall(11)), "more than a quarter of the corpus");
    close(table.mean[&Measure::Recall(10)], 2.0 / 3.0);
    let table = scored(|_| (), &config(&["MRR@10"], false)).unwrap();
    close(table.languages[&language].mean[&Measure::ReciprocalRank(10)], 0.75);
}

#[test]
fn the_summary_counts_and_notes() {
    let folder = tempfile::tempdir().unwrap();
    let other = Made { tag: "te", ..SWAHILI };
    let (data, run) = (dataset(folder.path(), &[SWAHILI, other]), run(folder.path(), "run", &ranked()));
    let inputs = EvaluateInputs { dataset: &data, run: &run, split: Split::Dev, examples: None, truth: None };
    let out = folder.path().join("out");
    let artefact = evaluate(&inputs, &EvaluateConfig::default(), &out, &Progress::silent()).unwrap();
    let counts = &artefact.summary().counts;
    assert_eq!(counts["queries"], 3);
    assert_eq!(counts["queries without a ranking"], 1);
    assert_eq!(counts["leak: dev queries equal to train queries"], 1);
    let notes = artefact.summary().notes.join("\n");
    assert!(notes.contains("sw: Recall@100 is left out") && notes.contains("te: not scored"), "{notes}");
    let rows = QueryMeasures::read(&artefact, &Language::new("sw").unwrap()).unwrap();
    assert_eq!(rows.iter().map(|row| row.query.as_str()).collect::<Vec<_>>(), ["q1", "q2", "q3"]);
    let again = evaluate(&inputs, &EvaluateConfig::default(), &out, &Progress::silent()).unwrap();
    assert_eq!(again.key(), artefact.key());
}

/// Examples as `sample` writes them: train query `t1`, and queries set aside for validation.
fn examples(folder: &Path, validation: &[&str], negatives: &[&str]) -> Artefact {
    let example = |query: &str| Example {
        query: query.to_owned(),
        positives: vec!["p7".to_owned()],
        relevant: vec!["p7".to_owned()],
        negatives: negatives
            .iter()
            .map(|id| Negative { passage: (*id).to_owned(), provenance: Provenance::Mined })
            .collect(),
    };
    let recipe = Recipe::new("sample", 1, &serde_json::json!({ "x": [validation, negatives] })).unwrap();
    crate::topic::fixture::write(&folder.join("examples"), recipe, |draft| {
        draft.write_lines("sw.train.jsonl", [example("t1")]).unwrap();
        draft.write_lines("sw.validation.jsonl", validation.iter().map(|id| example(id))).unwrap();
    })
}

#[test]
fn queries_that_chose_the_model_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = EvaluateConfig::default();
    let chosen = examples(&folder.path().join("a"), &["q2"], &[]);
    let message = scored(|inputs| inputs.examples = Some(leak(vec![chosen]).first().unwrap()), &config);
    let message = message.unwrap_err().to_string();
    assert!(message.contains("selected on 1 of the sw queries") && message.contains("`q2`"), "{message}");
    let others = examples(&folder.path().join("b"), &["t1"], &[]);
    scored(|inputs| inputs.examples = Some(leak(vec![others]).first().unwrap()), &config).unwrap();
}

#[test]
fn overlaps_with_the_training_data_are_listed_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (data, run) = (dataset(folder.path(), &[SWAHILI]), run(folder.path(), "run", &ranked()));
    let trained = examples(folder.path(), &[], &["p3", "p4"]);
    let inputs = EvaluateInputs { dataset: &data, run: &run, split: Split::Dev, examples: Some(&trained), truth: None };
    let out = folder.path().join("out");
    let artefact = evaluate(&inputs, &EvaluateConfig::default(), &out, &Progress::silent()).unwrap();
    let findings: Vec<Finding> = artefact.read_lines(overlap::FILE).unwrap();
    let kinds: Vec<(Kind, &str, usize)> =
        findings.iter().map(|finding| (finding.kind, finding.id.as_str(), finding.with.len())).collect();
    let expected = [
        (Kind::EqualQueries, "q1", 1),
        (Kind::PositiveAsPositive, "p1", 1),
        (Kind::PositiveAsNegative, "p1", 1),
        (Kind::DuplicatePassages, "p0", 39),
    ];
    assert_eq!(kinds, expected, "all passages of this data set have one text");
    assert_eq!(artefact.summary().counts["leak: dev positives among training negatives"], 1);
    let strict = EvaluateConfig { guard: Guard::Strict, ..EvaluateConfig::default() };
    let message = evaluate(&inputs, &strict, &out, &Progress::silent()).unwrap_err().to_string();
    assert!(message.contains("sw dev query `q1` equals train query `t1`"), "{message}");
    assert!(message.contains("`evaluate.guard = \"count\"`"), "{message}");
}

#[test]
fn a_pool_smaller_than_declared_is_refused_or_labelled() {
    let language = Language::new("sw").unwrap();
    let declared = EvaluateConfig { corpus_passages: [(language.clone(), 41)].into(), ..EvaluateConfig::default() };
    let message = scored(|_| (), &declared).unwrap_err().to_string();
    assert!(message.contains("sw 40 of 41 passages") && message.contains("evaluate.reduced_pool"), "{message}");
    let table = scored(|_| (), &EvaluateConfig { reduced_pool: true, ..declared }).unwrap();
    assert!(table.languages[&language].pool.is_reduced());
    assert!(table.to_text().contains("Reduced pool, not comparable"), "{}", table.to_text());
    let whole = EvaluateConfig { corpus_passages: [(language, 40)].into(), ..EvaluateConfig::default() };
    assert!(!scored(|_| (), &whole).unwrap().to_text().contains("Reduced pool"));
}

fn leak<T>(values: Vec<T>) -> &'static [T] {
    Vec::leak(values)
}

#[test]
fn the_truth_gives_a_second_set_of_measures() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("truth.tsv");
    let table = |text: &str| {
        std::fs::write(&path, text).unwrap();
        scored(|inputs| inputs.truth = Some(leak(vec![path.clone()])[0].as_path()), &config(&["MRR@10"], true))
    };
    let pairs =
        "sw\tdev\tq1\tp1\tlabelled\nsw\tdev\tq1\tp0\thidden\nsw\ttrain\tt1\tp9\thidden\nte\tdev\tx\ty\thidden\n";
    let truth = table(pairs).unwrap().truth.unwrap();
    close(truth[&Measure::ReciprocalRank(10)], 1.0 / 3.0);
    for (line, expected) in [
        ("sw\tdev\tq1\tp1\tmaybe\n", "truth.tsv:1: expected `language<TAB>split"),
        ("sw\ttest\tq1\tp1\thidden\n", "expected the split train or dev, got `test`"),
        ("sw\tdev\tq9\tp1\thidden\n", "no query has the id `q9`"),
        ("sw\tdev\tq1\tp99\thidden\n", "no passage has the id `p99`"),
    ] {
        let message = table(line).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_run_of_another_stage_or_without_the_split_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (data, run) = (dataset(folder.path(), &[SWAHILI]), run(folder.path(), "run", &ranked()));
    let mut inputs = EvaluateInputs { dataset: &data, run: &run, split: Split::Train, examples: None, truth: None };
    let out = folder.path().join("out");
    let fail = |inputs: &EvaluateInputs<'_>| {
        evaluate(inputs, &EvaluateConfig::default(), &out, &Progress::silent()).unwrap_err().to_string()
    };
    let message = fail(&inputs);
    assert!(message.contains("holds no `LANG.train.trec`"), "{message}");
    let data_artefact = Artefact::open(&folder.path().join("data")).unwrap();
    inputs.run = &data_artefact;
    let message = fail(&inputs);
    assert!(message.contains("expected an artefact of `search` or `fuse`, this one is of `fetch`"), "{message}");
}

#[test]
fn the_configuration_is_checked() {
    assert!(config(&[], true).validate().is_err());
    assert!(config(&["MAP", "map"], true).validate().unwrap_err().to_string().contains("MAP stands twice"));
    EvaluateConfig::default().validate().unwrap();
    let table = crate::config::parse_table("x", "measures = ['nDCG@10', 'F1@3']").unwrap();
    let message = crate::config::from_table::<EvaluateConfig>("evaluate", table).unwrap_err().to_string();
    assert!(message.contains("unknown measure `F1@3`"), "{message}");
}
