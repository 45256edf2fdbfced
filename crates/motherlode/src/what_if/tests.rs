//! Policies over small artefacts made by hand.

use serde_json::json;

use super::*;
use crate::artefact::{Outcome, Recipe, Summary, draft};
use crate::judge::tests::list;
use crate::judge::{Screened, Source};

fn judgement(passage: &str, verdict: Verdict, probability: Option<f64>) -> Judgement {
    let screened = probability.map(|probability| Screened {
        probability: Some(probability),
        decided: false,
        ledger: String::new(),
    });
    Judgement { passage: passage.into(), verdict, accuracy: None, completeness: None, screened, ledger: Vec::new() }
}

fn pair(number: usize, relevant: bool) -> CalibrationPair {
    CalibrationPair {
        language: Language::new("sw").unwrap(),
        query: format!("{}", number % 2 + 1),
        passage: format!("p{number}"),
        relevant,
        source: Source::Qrels,
        weight: 1.0,
        grade: Some(if relevant { 2 } else { 0 }),
        claimed: None,
        probability: None,
        model_score: None,
    }
}

fn artefact(folder: &std::path::Path, stage: &str, files: &[(&str, Vec<serde_json::Value>)]) -> Artefact {
    let Outcome::Write(mut draft) = draft(folder, Recipe::new(stage, 1, &json!({})).unwrap()).unwrap() else {
        panic!("made once")
    };
    for (file, rows) in files {
        draft.write_lines(file, rows).unwrap();
    }
    draft.commit(Summary::default()).unwrap()
}

/// Two queries with candidates a to e: a false negative, an excluded one, two negatives, one that people judged.
fn stored(folder: &std::path::Path) -> (Artefact, Artefact) {
    let scores = [("a", 0.9, None), ("b", 0.7, None), ("c", 0.5, None), ("d", 0.3, None), ("e", 0.1, Some(0))];
    let mut lists: Vec<QueryCandidates> = ["1", "2"].map(|query| list(query, &scores)).into();
    lists.iter_mut().for_each(|list| list.positives = vec![("+".into(), 0.8)]);
    let verdicts = [
        ("a", Verdict::FalseNegative, Some(0.9)),
        ("b", Verdict::Excluded, Some(0.6)),
        ("c", Verdict::Negative, Some(0.4)),
        ("d", Verdict::Negative, Some(0.1)),
        ("e", Verdict::Human, None),
    ];
    let row = |query: &str| QueryJudgements {
        query: query.into(),
        judgements: verdicts.iter().map(|(id, verdict, p)| judgement(id, *verdict, *p)).collect(),
    };
    let pairs: Vec<_> = (0..40).map(|number| json!(pair(number, number % 4 < 2))).collect();
    let judgements = [("sw.jsonl", ["1", "2"].map(|query| json!(row(query))).into()), ("calibration.jsonl", pairs)];
    let lists = lists.iter().map(|list| json!(list)).collect();
    (
        artefact(&folder.join("mine"), "mine", &[("sw.jsonl", lists)]),
        artefact(&folder.join("judge"), "judge", &judgements),
    )
}

fn apply(policy: Policy) -> Consequence {
    let folder = tempfile::tempdir().unwrap();
    let (candidates, judgements) = stored(folder.path());
    let config = WhatIfConfig { wanted: 3, policies: vec![policy], ..WhatIfConfig::default() };
    what_if(&candidates, Some(&judgements), &config, 1).unwrap().rows.remove(0)
}

#[test]
fn a_policy_has_a_yield_a_rate_and_a_hardness() {
    let all = apply(Policy { keep: Keep::All, ..Policy::default() });
    assert_eq!((all.queries, all.candidates, all.kept, all.taken, all.sufficient), (2, 10, 10, 6, 2));
    assert_eq!(all.apparent, Estimate::wilson(4, 6));
    let Corrected::Rate { rate, .. } = all.false_negatives else { panic!("{all:?}") };
    assert!((rate - 2.0 / 3.0).abs() < 1e-9, "a perfect judge is believed");
    assert!((all.hardness.unwrap() - 0.7).abs() < 1e-6 && (all.margin.unwrap() - 0.1).abs() < 1e-6);
    let strict = apply(Policy::default());
    assert_eq!((strict.kept, strict.taken, strict.apparent), (6, 6, Estimate::wilson(0, 4)));
    let Corrected::Rate { rate, .. } = strict.false_negatives else { panic!("{strict:?}") };
    assert!(rate.abs() < 1e-9);
    assert_eq!(apply(Policy { keep: Keep::Grades01, ..Policy::default() }).kept, 8);
}

#[test]
fn miners_and_verdicts_combine() {
    let miner = Miner::Margin { margin: 0.15, anchor: Anchor::Max };
    assert_eq!(apply(Policy { miner: miner.clone(), keep: Keep::All, ..Policy::default() }).kept, 6, "c, d, e");
    assert_eq!(apply(Policy { miner: Miner::Shifted { skip: 1 }, ..Policy::default() }).kept, 6);
}

#[test]
fn stored_probabilities_take_other_thresholds() {
    let thresholds = |low, high| Policy { thresholds: Some(Thresholds { low, high }), ..Policy::default() };
    assert_eq!(apply(thresholds(Some(0.65), None)).kept, 8, "b is called a negative");
    assert_eq!(apply(thresholds(None, Some(0.35))).kept, 4, "c is called relevant");
}

#[test]
fn without_judgements_there_are_yield_and_hardness_and_the_default_policies() {
    let folder = tempfile::tempdir().unwrap();
    let (candidates, judgements) = stored(folder.path());
    let found = what_if(&candidates, None, &WhatIfConfig::default(), 1).unwrap();
    assert_eq!(found.rows.len(), 8);
    assert_eq!((found.rows[0].kept, found.rows[0].false_negatives), (10, Corrected::NotEstimable));
    let text = found.to_string();
    assert!(text.contains("margin 0.15") && text.contains("not estimable") && text.lines().count() == 9, "{text}");
    let message = what_if(&judgements, None, &WhatIfConfig::default(), 1).unwrap_err().to_string();
    assert!(message.contains("expected an artefact of `mine`"), "{message}");
}

#[test]
fn judgements_of_other_candidates_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (_, judgements) = stored(folder.path());
    let other = json!(list("1", &[("x", 0.9, None)]));
    let candidates = artefact(&folder.path().join("other"), "mine", &[("sw.jsonl", vec![other])]);
    let message = what_if(&candidates, Some(&judgements), &WhatIfConfig::default(), 1).unwrap_err().to_string();
    assert!(message.contains("sw: candidates and judgements differ"), "{message}");
}
