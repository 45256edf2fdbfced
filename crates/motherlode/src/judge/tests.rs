//! The stage against a stand-in server, on a small data set in two languages.

mod trust;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;
use crate::artefact::{Artefact, Outcome, Recipe, Summary, draft};
use crate::corpus::{CorpusWriter, Passage};
use crate::error::{Error, Result};
use crate::llm::LlmConfig;
use crate::llm::stand_in::{Play, StandIn};
use crate::mine::{Candidate, QueryCandidates};
use crate::progress::Progress;

/// One language of a test's data set.
pub(crate) struct Texts<'a> {
    pub(crate) tag: &'a str,
    /// Id and text.
    pub(crate) passages: &'a [(&'a str, &'a str)],
    /// Id and text.
    pub(crate) queries: &'a [(&'a str, &'a str)],
    /// Query, passage, grade.
    pub(crate) qrels: &'a [(&'a str, &'a str, i32)],
}

/// A data set of train queries in `folder`.
pub(crate) fn dataset(folder: &Path, languages: &[Texts]) -> Dataset {
    let recipe = Recipe::new("fetch", 1, &json!({})).unwrap();
    let Outcome::Write(mut draft) = draft(folder, recipe).unwrap() else { panic!("made once") };
    for Texts { tag, passages, queries, qrels } in languages {
        let name = format!("{tag}/passages.bin");
        let path = draft.path(&name);
        let write = |output: &mut _| {
            let mut writer = CorpusWriter::new(output, &path)?;
            for (id, text) in *passages {
                writer.push(Passage { id, title: "", text })?;
            }
            writer.finish()
        };
        draft.write(&name, write).unwrap();
        let queries: Vec<String> = queries.iter().map(|(id, text)| format!("{id}\t{text}\n")).collect();
        let qrels: Vec<String> =
            qrels.iter().map(|(query, id, grade)| format!("{query}\tQ0\t{id}\t{grade}\n")).collect();
        for (name, text) in [("queries", queries.concat()), ("qrels", qrels.concat())] {
            let name = format!("{tag}/{name}.train.tsv");
            let path = draft.path(&name);
            let write = |output: &mut std::io::BufWriter<std::fs::File>| {
                std::io::Write::write_all(output, text.as_bytes()).map_err(Error::io(&path))?;
                Ok(0)
            };
            draft.write(&name, write).unwrap();
        }
    }
    Dataset::open(&draft.commit(Summary::default()).unwrap()).unwrap()
}

/// The candidates of a query: id, model score, grade by people.
pub(crate) fn list(query: &str, candidates: &[(&str, f32, Option<i32>)]) -> QueryCandidates {
    let candidate = |(rank, (id, score, grade)): (u32, &(&str, f32, Option<i32>))| Candidate {
        passage: (*id).to_owned(),
        rank,
        score: *score,
        model_score: *score,
        human_grade: *grade,
        evidence: Vec::new(),
    };
    QueryCandidates {
        query: query.to_owned(),
        positives: Vec::new(),
        candidates: (1..).zip(candidates).map(candidate).collect(),
    }
}

/// An artefact with one JSON Lines file a language.
pub(crate) fn artefact<T: Serialize>(folder: &Path, stage: &str, lists: &[(&str, Vec<T>)]) -> Artefact {
    let recipe = Recipe::new(stage, 1, &json!({})).unwrap();
    let Outcome::Write(mut draft) = draft(folder, recipe).unwrap() else { panic!("made once") };
    for (tag, rows) in lists {
        draft.write_lines(&format!("{tag}.jsonl"), rows).unwrap();
    }
    draft.commit(Summary::default()).unwrap()
}

/// The text between a tag's lines in the last message of a request.
pub(crate) fn quoted(body: &Value, tag: &str) -> String {
    let messages = body["messages"].as_array().unwrap();
    let text = messages.last().unwrap()["content"].as_str().unwrap();
    let (_, rest) = text.split_once(&format!("<{tag}>\n")).unwrap_or_default();
    rest.split_once(&format!("\n</{tag}>")).unwrap_or_default().0.to_owned()
}

/// An honest judge: `right` in a passage is a full answer, `half` a partial one, `mumble` makes it talk nonsense
/// when asked the first Swahili question.
pub(crate) fn honest(body: &Value) -> String {
    let candidate = quoted(body, "candidate_answer");
    match candidate.as_str() {
        text if text.contains("right") => r#"{"accuracy":2,"completeness":2}"#.into(),
        text if text.contains("half") => r#"{"accuracy":1,"completeness":1}"#.into(),
        text if text.contains("mumble") && quoted(body, "question") == "swali moja" => "I would say two".into(),
        _ => r#"{"accuracy":2,"completeness":0}"#.into(),
    }
}

const SW: Texts = Texts {
    tag: "sw",
    passages: &[
        ("a#0", "right sw one"),
        ("a#1", "near of the same article"),
        ("b#0", "hidden right"),
        ("c#0", "half of it"),
        ("d#0", "wrong"),
        ("e#0", "mumble"),
        ("f#0", "wrong by people"),
        ("g#0", "far away"),
    ],
    queries: &[("1", "swali moja"), ("2", "swali mbili")],
    qrels: &[("1", "a#0", 1), ("1", "f#0", 0), ("2", "b#0", 1), ("2", "a#0", 2), ("2", "d#0", 0)],
};
const FI: Texts = Texts {
    tag: "fi",
    passages: &[("x#0", "right fi"), ("y#0", "right too"), ("z#0", "wrong"), ("w#0", "elsewhere")],
    queries: &[("7", "kysymys")],
    qrels: &[("7", "x#0", 1)],
};

struct Room {
    folder: tempfile::TempDir,
    dataset: Dataset,
    candidates: Artefact,
}

impl Room {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dataset = dataset(&folder.path().join("data"), &[SW, FI]);
        let first = list(
            "1",
            &[("b#0", 0.9, None), ("c#0", 0.8, None), ("f#0", 0.7, Some(0)), ("d#0", 0.6, None), ("e#0", 0.5, None)],
        );
        let lists = [
            ("sw", vec![first, list("2", &[("c#0", 0.4, None)])]),
            ("fi", vec![list("7", &[("y#0", 0.95, None), ("z#0", 0.3, None)])]),
        ];
        let candidates = artefact(&folder.path().join("mine"), "mine", &lists);
        Self { folder, dataset, candidates }
    }

    fn labelled<'a>(&'a self, labels: &'a [PathBuf]) -> JudgeInputs<'a> {
        JudgeInputs { labels, ..self.inputs() }
    }

    fn inputs(&self) -> JudgeInputs<'_> {
        JudgeInputs { dataset: &self.dataset, candidates: &self.candidates, split: Split::Train, labels: &[] }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn llm(&self, server: Option<&StandIn>, change: impl FnOnce(&mut LlmConfig)) -> Llm {
        let endpoints = server.map(StandIn::url).into_iter().collect();
        let mut config = LlmConfig { endpoints, concurrency: 1, max_retries: 0, ..LlmConfig::default() };
        change(&mut config);
        Llm::open(&self.path("ledger"), &[], &config).unwrap()
    }

    fn judge(&self, config: &JudgeConfig, llm: &Llm) -> Result<Artefact> {
        judge(&self.inputs(), config, 1, llm, &self.path("judge"), &Progress::silent())
    }

    /// Judges with a server of its own.
    fn run(&self, config: &JudgeConfig, script: fn(&Value) -> String) -> Result<(Artefact, StandIn)> {
        let server = StandIn::start(move |_, body| Play::Say(script(body)));
        let llm = self.llm(Some(&server), |_| ());
        Ok((self.judge(config, &llm)?, server))
    }
}

fn config() -> JudgeConfig {
    JudgeConfig { model: "m".into(), canaries: 1, calibration: 5, ..JudgeConfig::default() }
}

fn quiet() -> JudgeConfig {
    JudgeConfig { canaries: 0, calibration: 0, ..config() }
}

fn verdicts(artefact: &Artefact, tag: &str) -> Vec<Vec<(String, Verdict)>> {
    let rows: Vec<QueryJudgements> = artefact.read_lines(&format!("{tag}.jsonl")).unwrap();
    let pairs = |row: QueryJudgements| row.judgements.into_iter().map(|it| (it.passage, it.verdict)).collect();
    rows.into_iter().map(pairs).collect()
}

fn named(pairs: &[(&str, Verdict)]) -> Vec<(String, Verdict)> {
    pairs.iter().map(|(id, verdict)| ((*id).to_owned(), *verdict)).collect()
}

fn candidates_seen(server: &StandIn) -> Vec<String> {
    server.seen().iter().map(|seen| quoted(&seen.body, "candidate_answer")).collect()
}

#[test]
fn every_candidate_has_its_fate() {
    let room = Room::new();
    let (artefact, server) = room.run(&config(), honest).unwrap();
    let expected = [
        named(&[
            ("b#0", Verdict::FalseNegative),
            ("c#0", Verdict::Excluded),
            ("f#0", Verdict::Human),
            ("d#0", Verdict::Negative),
            ("e#0", Verdict::Unknown),
        ]),
        named(&[("c#0", Verdict::Excluded)]),
    ];
    assert_eq!(verdicts(&artefact, "sw"), expected);
    assert_eq!(verdicts(&artefact, "fi"), [named(&[("y#0", Verdict::FalseNegative), ("z#0", Verdict::Negative)])]);
    let rows: Vec<QueryJudgements> = artefact.read_lines("sw.jsonl").unwrap();
    let excluded = &rows[0].judgements[1];
    assert_eq!((excluded.accuracy, excluded.completeness, excluded.ledger.len()), (Some(1), Some(1), 1));
    assert!(rows[0].judgements[2].ledger.is_empty(), "nobody asks where people judged");
    let counts = &artefact.summary().counts;
    let count = |name: &str| counts[name];
    assert_eq!((count("pairs asked"), count("false-negative"), count("sw: unknown"), count("human")), (7, 2, 1, 1));
    assert_eq!((count("canaries asked"), count("canaries passed"), count("abstained")), (4, 4, 0));
    assert!(server.seen().len() > 7);
}

#[test]
fn what_the_ledger_knows_is_judged_again_without_a_server_byte_by_byte() {
    let room = Room::new();
    let (first, server) = room.run(&config(), honest).unwrap();
    let asked = server.seen().len();
    let offline = room.llm(None, |_| ());
    assert_eq!(room.judge(&config(), &offline).unwrap().manifest(), first.manifest(), "up to date");
    std::fs::remove_dir_all(first.folder()).unwrap();
    assert_eq!(room.judge(&config(), &offline).unwrap().manifest(), first.manifest());
    assert_eq!((server.seen().len(), offline.usage().calls), (asked, 0));
}

#[test]
fn an_unreadable_reply_is_asked_for_twice_more() {
    let room = Room::new();
    let (artefact, server) = room.run(&quiet(), honest).unwrap();
    assert_eq!(candidates_seen(&server).iter().filter(|text| *text == "mumble").count(), 3);
    let rows: Vec<QueryJudgements> = artefact.read_lines("sw.jsonl").unwrap();
    let unknown = &rows[0].judgements[4];
    assert_eq!((unknown.verdict, unknown.accuracy, unknown.ledger.len()), (Verdict::Unknown, None, 1));
    let seeds: Vec<u64> = server.seen().iter().map(|seen| seen.body["seed"].as_u64().unwrap()).collect();
    assert!(seeds.contains(&1) && seeds.contains(&2), "another attempt, another seed");

    let room = Room::new();
    let last_is_clear = |body: &Value| match body["seed"].as_u64() {
        Some(2) => r#"{"accuracy":1,"completeness":1}"#.into(),
        _ => honest(body),
    };
    let (artefact, _) = room.run(&quiet(), last_is_clear).unwrap();
    assert_eq!(verdicts(&artefact, "sw")[0][4].1, Verdict::Excluded);
}

#[test]
fn depth_and_max_pairs_bound_what_is_asked() {
    let room = Room::new();
    let (artefact, server) = room.run(&JudgeConfig { depth: 2, ..quiet() }, honest).unwrap();
    assert_eq!(server.seen().len(), 5);
    assert_eq!(verdicts(&artefact, "sw")[0][3], ("d#0".into(), Verdict::Unjudged));
    let room = Room::new();
    let (_, server) = room.run(&JudgeConfig { max_pairs: Some(4), ..quiet() }, honest).unwrap();
    let mut seen = candidates_seen(&server);
    seen.sort();
    let first = ["half of it", "half of it", "hidden right", "right too"];
    assert_eq!(seen, first, "the first of every list, then the second of the longest");
    let room = Room::new();
    let by_score = JudgeConfig { max_pairs: Some(3), priority: Priority::ModelScore, ..quiet() };
    let (artefact, server) = room.run(&by_score, honest).unwrap();
    let mut seen = candidates_seen(&server);
    seen.sort();
    assert_eq!(seen, ["half of it", "hidden right", "right too"], "the highest model scores of all languages");
    let open = [("d#0", Verdict::Unjudged), ("e#0", Verdict::Unjudged)].map(|(id, verdict)| (id.to_owned(), verdict));
    assert_eq!(verdicts(&artefact, "sw")[0][3..], open);
    assert_eq!(artefact.summary().counts["unjudged"], 4);
}

#[test]
fn four_votes_are_four_requests() {
    let room = Room::new();
    let divided = |body: &Value| match body["temperature"].as_f64() {
        Some(temperature) if temperature < 0.5 => r#"{"accuracy":2,"completeness":1}"#.into(),
        _ => r#"{"accuracy":0,"completeness":1}"#.into(),
    };
    let (artefact, server) = room.run(&JudgeConfig { votes: 4, max_pairs: Some(1), ..quiet() }, divided).unwrap();
    let votes: Vec<(f64, f64)> = server
        .seen()
        .iter()
        .map(|seen| (seen.body["top_p"].as_f64().unwrap(), seen.body["temperature"].as_f64().unwrap()))
        .collect();
    assert_eq!(votes, [(0.7, 0.4), (0.8, 0.6), (0.9, 0.8), (0.8, 0.4)]);
    let rows: Vec<QueryJudgements> = artefact.read_lines("fi.jsonl").unwrap();
    let judgement = &rows[0].judgements[0];
    assert_eq!((judgement.verdict, judgement.ledger.len()), (Verdict::FalseNegative, 4), "a tie goes up");
    assert_eq!((judgement.accuracy, judgement.completeness), (Some(2), Some(1)));
}

#[test]
fn without_a_judge_nothing_is_asked() {
    let room = Room::new();
    let none = JudgeConfig { method: Method::None, model: String::new(), ..config() };
    let artefact = room.judge(&none, &room.llm(None, |_| ())).unwrap();
    assert_eq!((artefact.summary().counts["unjudged"], artefact.summary().counts["human"]), (7, 1));
    assert!(abstained(&artefact).unwrap().is_empty() && artefact.has("calibration.json"));
}

#[test]
fn a_language_whose_canaries_fail_abstains_and_keeps_its_grades() {
    let room = Room::new();
    let blind_in_finnish = |body: &Value| match quoted(body, "question").as_str() {
        "kysymys" => r#"{"accuracy":2,"completeness":2}"#.into(),
        _ => honest(body),
    };
    let (artefact, _) = room.run(&config(), blind_in_finnish).unwrap();
    assert_eq!(verdicts(&artefact, "fi"), [named(&[("y#0", Verdict::Abstained), ("z#0", Verdict::Abstained)])]);
    assert_eq!(verdicts(&artefact, "sw")[0][0].1, Verdict::FalseNegative);
    let rows: Vec<QueryJudgements> = artefact.read_lines("fi.jsonl").unwrap();
    assert_eq!(rows[0].judgements[1].completeness, Some(2));
    assert_eq!(abstained(&artefact).unwrap(), BTreeSet::from([Language::new("fi").unwrap()]));
    assert!(artefact.summary().notes[0].contains("fi abstains: 1 of 2"), "{:?}", artefact.summary().notes);
}

#[test]
fn a_judge_that_fails_everywhere_ends_the_stage_before_the_candidates() {
    let room = Room::new();
    let server = StandIn::start(|_, _| Play::Say("yes".into()));
    let llm = room.llm(Some(&server), |_| ());
    let message = room.judge(&config(), &llm).unwrap_err().to_string();
    for part in ["`m`", "fi 0 of 2, sw 0 of 2", "judge.canary_pass_rate"] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(server.seen().len(), 4 * 3, "canaries and their repeats");
}

#[test]
fn a_canary_passage_is_far_from_everything_known() {
    for seed in 0..40 {
        let room = Room::new();
        let config = config();
        let llm = room.llm(None, |_| ());
        let judge = Judge { dataset: &room.dataset, split: Split::Train, config: &config, llm: &llm };
        let lists = lists(&room.dataset, &room.candidates).unwrap();
        for case in canary::cases(&judge, &lists, seed).unwrap() {
            let ids: Vec<&str> = case.passages.iter().map(|passage| case.corpus.id(*passage)).collect();
            let far: &[&str] = match case.query.id.as_str() {
                "1" => &["g#0"],
                "2" => &["e#0", "f#0", "g#0"],
                _ => &["w#0"],
            };
            assert!(["a#0", "x#0"].contains(&ids[0]) && far.contains(&ids[1]), "{ids:?}");
        }
    }
}

#[test]
fn calibration_never_shows_the_judge_the_passage_it_judges() {
    let room = Room::new();
    let (artefact, server) = room.run(&JudgeConfig { canaries: 0, ..config() }, honest).unwrap();
    let text = std::fs::read_to_string(artefact.path("calibration.json")).unwrap();
    let calibration: BTreeMap<Language, Calibration> = serde_json::from_str(&text).unwrap();
    let swahili = &calibration[&Language::new("sw").unwrap()];
    assert_eq!((swahili.positives.grades, swahili.negatives.grades), ([0, 0, 2], [2, 0, 0]));
    assert_eq!(swahili.eliminated.sensitivity, Estimate::wilson(2, 2));
    let finnish = &calibration[&Language::new("fi").unwrap()];
    let told = [finnish.eliminated.sensitivity, finnish.eliminated.specificity];
    assert_eq!(told, [Estimate::NotEstimable; 2], "one positive and no human negative tell nothing");
    assert!(text.contains("\"not estimable\""));
    let pairs: Vec<(String, String)> = server
        .seen()
        .iter()
        .map(|seen| (quoted(&seen.body, "candidate_answer"), quoted(&seen.body, "standard_answer")))
        .collect();
    assert!(pairs.contains(&("right sw one".into(), "hidden right".into())), "{pairs:?}");
    assert!(pairs.contains(&("hidden right".into(), "right sw one".into())));
    assert!(pairs.iter().all(|(candidate, reference)| !reference.contains(candidate)));
}

#[test]
fn twins_of_a_positive_are_no_reference_for_it() {
    let texts = Texts {
        tag: "sw",
        passages: &[("a", "right  ONE"), ("b", "Right one"), ("c", "wrong")],
        queries: &[("1", "q")],
        qrels: &[("1", "a", 1), ("1", "b", 1), ("1", "c", 0)],
    };
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(&folder.path().join("data"), &[texts]);
    let llm = Llm::open(&folder.path().join("ledger"), &[], &LlmConfig::default()).unwrap();
    let language = Language::new("sw").unwrap();
    let sides = |config: &JudgeConfig| -> Vec<bool> {
        let judge = Judge { dataset: &dataset, split: Split::Train, config, llm: &llm };
        let trials = calibrate::trials(&judge, &[&language], &labels::Labels::default(), 1).unwrap();
        trials.iter().map(|trial| trial.is_positive).collect()
    };
    assert_eq!(sides(&config()), [false], "only the human negative is left");
    let alone = JudgeConfig { reference: Reference::None, ..config() };
    assert_eq!(sides(&alone), [true, true, false], "without a reference nothing is given away");
}

#[test]
fn no_reference_leaves_the_standard_answer_empty() {
    let room = Room::new();
    let (_, server) = room.run(&JudgeConfig { reference: Reference::None, ..quiet() }, honest).unwrap();
    assert!(server.seen().iter().all(|seen| quoted(&seen.body, "standard_answer").is_empty()));
}

#[test]
fn a_spent_budget_leaves_pairs_unjudged_and_says_so() {
    let room = Room::new();
    let server = StandIn::start(|_, body| Play::Say(honest(body)));
    let llm = room.llm(Some(&server), |config| config.max_calls = Some(2));
    let artefact = room.judge(&quiet(), &llm).unwrap();
    assert_eq!((artefact.summary().counts["unjudged"], server.seen().len()), (5, 2));
    assert!(artefact.summary().notes[0].contains("budget ended before 5 pairs"));
}

#[test]
fn an_offline_stage_says_how_much_is_missing_in_all() {
    let room = Room::new();
    let llm = room.llm(None, |_| ());
    let total = plan(&room.inputs(), &config(), 1, &llm).unwrap().total();
    let message = room.judge(&config(), &llm).unwrap_err().to_string();
    assert!(message.contains(&format!("{} answers", total.requests())), "{message} {total:?}");
}

#[test]
fn the_plan_counts_what_the_stage_asks() {
    let room = Room::new();
    let server = StandIn::start(|_, _| Play::Say(r#"{"accuracy":1,"completeness":2}"#.into()));
    let llm = room.llm(Some(&server), |_| ());
    let config = JudgeConfig { canary_pass_rate: 0.0, ..config() };
    let before = plan(&room.inputs(), &config, 1, &llm).unwrap();
    room.judge(&config, &llm).unwrap();
    let total = before.total();
    assert_eq!((total.requests(), total.in_ledger), (server.seen().len(), 0));
    let sent: usize = server
        .seen()
        .iter()
        .flat_map(|seen| seen.body["messages"].as_array().unwrap().clone())
        .map(|message| message["content"].as_str().unwrap().chars().count())
        .sum();
    assert_eq!(total.characters, sent as u64);
    assert_eq!(total.completion_tokens, 32 * total.requests() as u64);
    let after = plan(&room.inputs(), &config, 1, &llm).unwrap().total();
    assert_eq!((after.requests(), after.in_ledger, after.characters), (total.requests(), total.requests(), 0));
}

#[test]
fn any_list_can_be_judged_by_its_original_query() {
    let room = Room::new();
    let server = StandIn::start(|_, body| Play::Say(honest(body)));
    let llm = room.llm(Some(&server), |_| ());
    let config = quiet();
    let judge = Judge { dataset: &room.dataset, split: Split::Train, config: &config, llm: &llm };
    let swahili = Language::new("sw").unwrap();
    let lists = BTreeMap::from([(swahili.clone(), vec![list("2", &[("g#0", 0.1, None)])])]);
    let judged = judge_candidates(&judge, &lists, &Standing::default(), &Progress::silent()).unwrap();
    assert_eq!(judged.lists[&swahili][0].judgements[0].verdict, Verdict::Negative);
    let body = &server.seen()[0].body;
    assert_eq!(
        (quoted(body, "question"), quoted(body, "standard_answer")),
        ("swali mbili".into(), "right sw one\n\nhidden right".into())
    );
    let standing = Standing { abstained: BTreeSet::from([swahili.clone()]), thresholds: None };
    let again = judge_candidates(&judge, &lists, &standing, &Progress::silent()).unwrap();
    assert_eq!(again.lists[&swahili][0].judgements[0].verdict, Verdict::Abstained);
    assert_eq!((judged.pairs, judged.unpaid), (1, 0));
}

#[test]
fn candidates_of_another_data_set_are_refused() {
    let room = Room::new();
    let llm = room.llm(None, |_| ());
    let config = quiet();
    let judge = Judge { dataset: &room.dataset, split: Split::Train, config: &config, llm: &llm };
    let refused = |list: QueryCandidates| {
        let lists = BTreeMap::from([(Language::new("sw").unwrap(), vec![list])]);
        judge_candidates(&judge, &lists, &Standing::default(), &Progress::silent()).unwrap_err().to_string()
    };
    assert!(refused(list("1", &[("nowhere", 0.1, None)])).contains("`nowhere` is no passage of `sw`"));
    assert!(refused(list("99", &[("g#0", 0.1, None)])).contains("`99` is no train query of `sw`"));
}

#[test]
fn a_draw_is_stable_when_there_is_more_to_draw_from() {
    let name = |item: &u32| item.to_string();
    let of = |items: u32, count| select::drawn((0..items).collect(), count, 3, "test", name);
    let (few, many) = (of(100, 5), of(100, 20));
    assert!(few.is_sorted() && few.iter().all(|item| many.contains(item)));
    let larger = of(1000, 5);
    assert!(larger.iter().filter(|item| **item < 100).all(|item| few.contains(item)));
    assert_eq!(of(3, 5), [0, 1, 2]);
}
