//! What makes a judge worth its price and its word: cascade, budget, labels, swaps, explanations, batches.

use super::*;
use crate::judge::swap::Swaps;

/// Sixty candidates of six queries: a third answers, a third does not, of the last third every other one does, and the
/// cheap judge cannot tell.
struct Many {
    folder: tempfile::TempDir,
    dataset: Dataset,
    candidates: Artefact,
}

fn text_of(number: usize) -> String {
    match number % 3 {
        0 => format!("right {number}"),
        1 => format!("wrong {number}"),
        _ if number.is_multiple_of(2) => format!("unsure but right {number}"),
        _ => format!("unsure {number}"),
    }
}

impl Many {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let texts: Vec<(String, String)> = (0..60)
            .map(|number| (format!("p{number}"), text_of(number)))
            .chain([("+".into(), "positive".into())])
            .collect();
        let ids: Vec<String> = (0..6).map(|query| format!("q{query}")).collect();
        let passages: Vec<(&str, &str)> = texts.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
        let queries: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), id.as_str())).collect();
        let qrels: Vec<(&str, &str, i32)> = ids.iter().map(|id| (id.as_str(), "+", 1)).collect();
        let texts = Texts { tag: "sw", passages: &passages, queries: &queries, qrels: &qrels };
        let dataset = dataset(&folder.path().join("data"), &[texts]);
        let of_query = |query: usize| {
            let candidate = |place: usize| (passages[10 * query + place].0, 0.9 - 0.01 * place as f32, None);
            list(ids[query].as_str(), &(0..10).map(candidate).collect::<Vec<_>>())
        };
        let lists = (0..6).map(of_query).collect();
        let candidates = artefact(&folder.path().join("mine"), "mine", &[("sw", lists)]);
        Self { folder, dataset, candidates }
    }

    fn judge(&self, config: &JudgeConfig, llm: &Llm) -> Artefact {
        let inputs =
            JudgeInputs { dataset: &self.dataset, candidates: &self.candidates, split: Split::Train, labels: &[] };
        judge(&inputs, config, 1, llm, &self.folder.path().join("judge"), &Progress::silent()).unwrap()
    }

    fn llm(&self, server: &StandIn, max_calls: Option<u64>) -> Llm {
        let endpoints = vec![server.url()];
        let config = LlmConfig { endpoints, concurrency: 1, max_retries: 0, max_calls, ..LlmConfig::default() };
        Llm::open(&self.folder.path().join("ledger"), &[], &config).unwrap()
    }
}

/// The large judge is honest; the cheap one says how likely `yes` is.
fn both(body: &Value) -> Play {
    if body.get("logprobs").is_none() {
        return Play::Say(honest(body));
    }
    let candidate = quoted(body, "candidate_answer");
    let probability: f64 = match candidate.split(' ').next() {
        Some("right") => 0.95,
        Some("wrong") => 0.05,
        _ => 0.5,
    };
    let likely =
        json!([{"token": "yes", "logprob": probability.ln()}, {"token": "no", "logprob": (1.0 - probability).ln()}]);
    let place = json!({"token": "yes", "logprob": probability.ln(), "top_logprobs": likely});
    Play::Body(json!({"choices": [{"message": {"content": "yes"}, "logprobs": {"content": [place]}}]}).to_string())
}

fn cascade() -> JudgeConfig {
    let cascade = CascadeConfig { model: "cheap".into(), error: 0.0, audit: 0.0, audit_pairs: 40 };
    JudgeConfig { cascade: Some(cascade), ..quiet() }
}

fn read<T: serde::de::DeserializeOwned>(artefact: &Artefact, file: &str) -> T {
    serde_json::from_str(&std::fs::read_to_string(artefact.path(file)).unwrap()).unwrap()
}

#[test]
fn a_cheap_judge_decides_what_it_is_sure_of() {
    let (many, server) = (Many::new(), StandIn::start(|_, body| both(body)));
    let llm = many.llm(&server, None);
    let artefact = many.judge(&cascade(), &llm);
    let found: Cascade = read(&artefact, "cascade.json");
    let thresholds = found.thresholds.unwrap();
    assert!((thresholds.low.unwrap() - 0.05).abs() < 1e-9 && (thresholds.high.unwrap() - 0.95).abs() < 1e-9);
    assert_eq!((found.screened, found.decided, found.chosen_on.pairs, found.audit.pairs), (60, 40, 20, 20));
    let Estimate::Share { count, of, .. } = found.audit.error else { panic!("{found:?}") };
    assert!(count == 0 && of > 5, "{found:?}");
    assert_eq!(found.reliability.len(), 3);
    let of_model = |name: &str| server.seen().iter().filter(|seen| seen.body["model"] == name).count();
    let rows: Vec<QueryJudgements> = artefact.read_lines("sw.jsonl").unwrap();
    let all: Vec<&Judgement> = rows.iter().flat_map(|row| &row.judgements).collect();
    let decided = all.iter().filter(|judgement| judgement.screened.as_ref().unwrap().decided).count();
    assert_eq!((of_model("cheap"), of_model("m")), (60, 60 - decided));
    assert!(decided >= 10, "a third of what the slice left");
    for judgement in all {
        let number: usize = judgement.passage[1..].parse().unwrap();
        let by_cheap = judgement.screened.as_ref().unwrap().decided;
        let expected = match (text_of(number).contains("right"), by_cheap) {
            (true, true) => Verdict::Excluded,
            (true, false) => Verdict::FalseNegative,
            (false, _) => Verdict::Negative,
        };
        assert_eq!(judgement.verdict, expected, "{judgement:?}");
        assert_eq!(judgement.ledger.is_empty(), by_cheap);
    }
    let asked = server.seen().len();
    let standing = Standing::read(&artefact).unwrap();
    let config = cascade();
    let judge = Judge { dataset: &many.dataset, split: Split::Train, config: &config, llm: &llm };
    let more = list("q0", &[("p31", 0.1, None), ("p30", 0.1, None), ("p32", 0.1, None)]);
    let lists = BTreeMap::from([(Language::new("sw").unwrap(), vec![more])]);
    let judged = judge_candidates(&judge, &lists, &standing, &Progress::silent()).unwrap();
    let verdicts: Vec<Verdict> =
        judged.lists.values().flatten().flat_map(|row| &row.judgements).map(|judgement| judgement.verdict).collect();
    assert_eq!(verdicts, [Verdict::Negative, Verdict::Excluded, Verdict::FalseNegative]);
    assert_eq!(server.seen().len() - asked, 4, "three screened, one of them judged");
}

#[test]
fn a_budget_is_spent_on_what_matters_most() {
    let (many, server) = (Many::new(), StandIn::start(|_, body| Play::Say(honest(body))));
    let artefact = many.judge(&quiet(), &many.llm(&server, Some(16)));
    let rows: Vec<QueryJudgements> = artefact.read_lines("sw.jsonl").unwrap();
    let judged: Vec<usize> = rows
        .iter()
        .map(|row| row.judgements.iter().take_while(|judgement| judgement.verdict != Verdict::Unjudged).count())
        .collect();
    assert_eq!(judged.iter().sum::<usize>(), 16);
    assert!(judged.iter().all(|count| (2..=3).contains(count)), "the first of every list: {judged:?}");
    assert!(artefact.summary().notes[0].contains("before 44 pairs"), "{:?}", artefact.summary().notes);
}

#[test]
fn labels_of_people_calibrate_the_judge() {
    let room = Room::new();
    let path = room.path("labels.jsonl");
    let lines = [
        r#"{"query": "1", "passage": "b#0", "grade": 2, "annotator": "ann", "weight": 3}"#,
        r#"{"query": "1", "passage": "d#0", "grade": 2, "annotator": "ann", "note": "a slip, corrected below"}"#,
        r#"{"query": "1", "passage": "d#0", "grade": 0, "annotator": "ann"}"#,
        r#"{"query_id": "2", "passage_id": "c#0", "grade": 1, "annotator": "ann", "language": "sw"}"#,
        r#"{"query": "2", "passage": "c#0", "grade": 0, "annotator": "bo"}"#,
    ];
    std::fs::write(&path, lines.join("\n")).unwrap();
    let (server, paths) = (StandIn::start(|_, body| Play::Say(honest(body))), [path.clone()]);
    let llm = room.llm(Some(&server), |_| ());
    let config = JudgeConfig { calibration: 0, ..config() };
    let out = room.path("judge");
    let run = || judge(&room.labelled(&paths), &config, 1, &llm, &out, &Progress::silent());
    let artefact = run().unwrap();
    let pairs: Vec<CalibrationPair> = artefact.read_lines("calibration.jsonl").unwrap();
    let told: Vec<_> =
        pairs.iter().map(|pair| (pair.passage.as_str(), pair.relevant, pair.grade, pair.source)).collect();
    assert_eq!(told, [("d#0", false, Some(0), Source::Labels), ("b#0", true, Some(2), Source::Labels)]);
    assert!((pairs[1].model_score.unwrap() - 0.9).abs() < 1e-6);
    assert!((pairs[0].weight - 1.0).abs() < 1e-12 && (pairs[1].weight - 3.0).abs() < 1e-12);
    assert_eq!(artefact.summary().counts["labelled pairs that annotators dispute"], 1);
    let calibration: BTreeMap<Language, Calibration> = read(&artefact, "calibration.json");
    let swahili = &calibration[&Language::new("sw").unwrap()];
    assert_eq!(swahili.eliminated.sensitivity, Estimate::wilson(1, 1));
    assert_eq!(swahili.eliminated.apparent, Estimate::wilson(3, 4), "b and twice c, but not d");
    assert_eq!(swahili.eliminated.corrected, Corrected::NotEstimable, "two pairs tell nothing");

    std::fs::write(&path, r#"{"query": "99", "passage": "b#0", "grade": 2}"#).unwrap();
    let message = run().unwrap_err().to_string();
    assert!(message.contains("labels.jsonl:1: `99` is no train query of any language"), "{message}");
    std::fs::write(&path, r#"{"query": "1", "passage": "nowhere", "grade": 2}"#).unwrap();
    assert!(run().unwrap_err().to_string().contains("`nowhere` is no passage of `sw`"));
    std::fs::write(&path, r#"{"query": "1", "passage": "b#0", "grade": 2, "weight": 0}"#).unwrap();
    assert!(run().unwrap_err().to_string().contains("labels.jsonl:1: `weight`: expected a number above 0, got 0"));
}

#[test]
fn swaps_tell_how_often_an_order_changes_the_grade() {
    let room = Room::new();
    let moody = |body: &Value| {
        let messages = body["messages"].as_array().unwrap();
        let user = messages[1]["content"].as_str().unwrap();
        let candidate_first = user.find("<candidate_answer>") < user.find("<standard_answer>");
        match quoted(body, "candidate_answer").as_str() {
            "half of it" if candidate_first => r#"{"accuracy":2,"completeness":2}"#.into(),
            _ => honest(body),
        }
    };
    let (artefact, _) = room.run(&JudgeConfig { swaps: 50, ..quiet() }, moody).unwrap();
    let swaps: BTreeMap<Language, Swaps> = read(&artefact, "swaps.json");
    let swahili = swaps[&Language::new("sw").unwrap()];
    assert_eq!((swahili.order.same, swahili.order.higher, swahili.order.lower), (Estimate::wilson(2, 4), 2, 0));
    assert_eq!(swahili.reference.same, Estimate::wilson(1, 1), "only query 2 has two positives");
}

#[test]
fn every_verdict_is_explained() {
    let room = Room::new();
    let (artefact, _) = room.run(&quiet(), honest).unwrap();
    let rows: Vec<Value> = artefact.read_lines("sw.explained.jsonl").unwrap();
    let why = |place: usize| rows[place]["why"].as_str().unwrap();
    assert_eq!(rows.len(), 6);
    assert_eq!(
        why(0),
        "accuracy 2 (it is right) and completeness 2 (the answer is there) make grade 2: a false negative, it answers the \
         query"
    );
    assert_eq!((rows[0]["question"].as_str(), rows[0]["text"].as_str()), (Some("swali moja"), Some("hidden right")));
    assert_eq!(rows[0]["replies"], json!([r#"{"accuracy":2,"completeness":2}"#]));
    assert_eq!(why(2), "people judged it, grade 0: a negative");
    assert!(
        why(4).contains("none of the judge's replies could be read")
            && rows[4]["replies"] == json!(["I would say two"])
    );
}

#[test]
fn a_batch_gives_the_artefact_that_a_server_gives() {
    let room = Room::new();
    let (direct, _) = room.run(&config(), honest).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let open = || Llm::open(&path("ledger"), &[], &LlmConfig::default()).unwrap();
    let mut rounds = 0;
    loop {
        let mut llm = open();
        if rounds > 0 {
            llm = llm.with_batch(&path("answers.jsonl")).unwrap();
        }
        let llm = llm.collecting();
        rehearse(&room.inputs(), &config(), 1, &llm, &Progress::silent()).unwrap();
        if llm.write_batch(&path("batch.jsonl")).unwrap().is_empty() {
            break;
        }
        let answer = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            let body = json!({"choices": [{"message": {"content": honest(&line["body"])}}]});
            json!({"custom_id": line["custom_id"], "response": {"status_code": 200, "body": body}, "error": null})
                .to_string()
        };
        let lines: Vec<String> = std::fs::read_to_string(path("batch.jsonl")).unwrap().lines().map(answer).collect();
        std::fs::write(path("answers.jsonl"), lines.join("\n")).unwrap();
        rounds += 1;
    }
    assert_eq!(rounds, 3, "one, and two for the reply that cannot be read");
    let batched = judge(&room.inputs(), &config(), 1, &open(), &path("judge"), &Progress::silent()).unwrap();
    assert_eq!(batched.manifest(), direct.manifest());
}
