//! The stage against a stand-in server, over judgements that the judge's stage makes.

use std::cell::RefCell;
use std::path::PathBuf;

use serde_json::Value;

use super::*;
use crate::artefact::Artefact;
use crate::corpus::Language;
use crate::dataset::{Dataset, Split};
use crate::error::Result;
use crate::judge::tests::{Texts, artefact, dataset, honest, list, quoted};
use crate::judge::{self, JudgeConfig, JudgeInputs, UnjudgedRule, Verdict};
use crate::llm::stand_in::{Play, StandIn};
use crate::llm::{Llm, LlmConfig};
use crate::mine::QueryCandidates;
use crate::progress::Progress;

const SW: Texts = Texts {
    tag: "sw",
    passages: &[
        ("a#0", "right sw one"),
        ("b#0", "hidden right"),
        ("c#0", "wrong"),
        ("d#0", "wrong too"),
        ("e#0", "wrong by people"),
        ("f#0", "wrong and far"),
        ("g#0", "half found late"),
        ("h#0", "wrong found late"),
    ],
    queries: &[("1", "swali moja"), ("2", "swali mbili"), ("3", "swali bila jibu")],
    qrels: &[("1", "a#0", 1), ("1", "e#0", 0), ("2", "b#0", 1), ("2", "a#0", 1)],
};

struct Room {
    folder: tempfile::TempDir,
    dataset: Dataset,
    candidates: Artefact,
}

/// Writes a summary, then a query; judges honestly.
fn model(body: &Value) -> String {
    let rules = body["messages"][0]["content"].as_str().unwrap();
    if rules.starts_with("Summarise") {
        format!(" muhtasari wa {}\n", quoted(body, "passage"))
    } else if rules.starts_with("Write a search query") {
        format!("\"swali jipya: {}\"\nkwa sababu", quoted(body, "text"))
    } else {
        honest(body)
    }
}

/// What the retriever finds for the new query: a positive, two known candidates, one that people judged, two new ones.
#[expect(clippy::unnecessary_wraps, reason = "the stage takes retrievers that can fail")]
fn retrieve(_: &Language, queries: &[(String, String)]) -> Result<Vec<QueryCandidates>> {
    let found = [("a#0", 0.9), ("b#0", 0.8), ("c#0", 0.7), ("e#0", 0.6), ("g#0", 0.5), ("h#0", 0.4)];
    let candidates = found.map(|(id, score)| (id, score, None));
    Ok(queries.iter().map(|(id, _)| list(id, &candidates)).collect())
}

impl Room {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dataset = dataset(&folder.path().join("data"), &[SW]);
        let lists = vec![
            list("1", &[("b#0", 0.9, None), ("c#0", 0.8, None)]),
            list("2", &[("c#0", 0.9, None), ("d#0", 0.8, None), ("e#0", 0.7, None)]),
            list("3", &[("b#0", 0.9, None)]),
        ];
        let candidates = artefact(&folder.path().join("mine"), "mine", &[("sw", lists)]);
        Self { folder, dataset, candidates }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn llm(&self, server: &StandIn, max_calls: Option<u64>) -> Llm {
        let endpoints = vec![server.url()];
        let config = LlmConfig { endpoints, concurrency: 1, max_retries: 0, max_calls, ..LlmConfig::default() };
        Llm::open(&self.path("ledger"), &[], &config).unwrap()
    }

    fn offline(&self) -> Llm {
        Llm::open(&self.path("ledger"), &[], &LlmConfig::default()).unwrap()
    }

    fn judged(&self, config: &JudgeConfig, llm: &Llm) -> Artefact {
        let inputs =
            JudgeInputs { dataset: &self.dataset, candidates: &self.candidates, split: Split::Train, labels: &[] };
        judge::judge(&inputs, config, 1, llm, &self.path("judge"), &Progress::silent()).unwrap()
    }

    fn inputs<'a>(&'a self, judgements: &'a Artefact) -> GenerateInputs<'a> {
        GenerateInputs {
            dataset: &self.dataset,
            split: Split::Train,
            candidates: &self.candidates,
            judgements,
            first: 40,
            language_model: None,
        }
    }

    fn generate(&self, config: &GenerateConfig, llm: &Llm, retrieve: &Retrieve) -> Result<Artefact> {
        let judgements = self.judged(&rules(), llm);
        generate(&self.inputs(&judgements), config, llm, &self.path("generate"), retrieve, &Progress::silent())
    }
}

fn rules() -> JudgeConfig {
    JudgeConfig { model: "judge".into(), canaries: 0, calibration: 0, ..JudgeConfig::default() }
}

fn config() -> GenerateConfig {
    GenerateConfig { model: "writer".into(), target: 2, ..GenerateConfig::default() }
}

fn rows(artefact: &Artefact) -> Vec<QuerySupplement> {
    artefact.read_lines("sw.jsonl").unwrap()
}

fn server() -> StandIn {
    StandIn::start(|_, body| Play::Say(model(body)))
}

#[test]
fn a_query_that_falls_short_gets_a_judged_supplement() {
    let (room, server) = (Room::new(), server());
    let asked = RefCell::new(Vec::new());
    let search = |language: &Language, queries: &[(String, String)]| {
        asked.borrow_mut().extend_from_slice(queries);
        retrieve(language, queries)
    };
    let artefact = room.generate(&config(), &room.llm(&server, None), &search).unwrap();
    let text = "swali jipya: muhtasari wa right sw one";
    assert_eq!(*asked.borrow(), [("1".to_owned(), text.to_owned())], "query 2 has enough, query 3 has no positive");
    let [row] = &rows(&artefact)[..] else { panic!("one supplement") };
    assert_eq!(row.summary.as_deref(), Some("muhtasari wa right sw one"));
    assert_eq!((row.generated.as_str(), row.rejected), (text, None));
    let ids: Vec<(&str, Option<i32>)> =
        row.candidates.iter().map(|candidate| (candidate.passage.as_str(), candidate.human_grade)).collect();
    assert_eq!(ids, [("e#0", Some(0)), ("g#0", None), ("h#0", None)], "no positive, nothing known");
    assert!((row.novelty - 3.0 / 5.0).abs() < 1e-12, "{}", row.novelty);
    let verdicts: Vec<Verdict> = row.judgements.iter().map(|judgement| judgement.verdict).collect();
    assert_eq!(verdicts, [Verdict::Human, Verdict::Excluded, Verdict::Negative]);
    let last = server.seen().pop().unwrap().body;
    assert_eq!(
        (quoted(&last, "question"), quoted(&last, "standard_answer")),
        ("swali moja".to_owned(), "right sw one".to_owned())
    );
    let counts = &artefact.summary().counts;
    assert_eq!((counts["new queries"], counts["sw: new candidates"], counts["negative"]), (1, 3, 1));
    assert!((artefact.summary().values["sw: novelty"] - 0.6).abs() < 1e-12);
}

#[test]
fn candidates_beyond_the_first_list_do_not_make_up_for_missing_negatives() {
    let (room, server) = (Room::new(), server());
    let llm = room.llm(&server, None);
    let judgements = room.judged(&rules(), &llm);
    let inputs = GenerateInputs { first: 1, ..room.inputs(&judgements) };
    let written = write_queries(&inputs, &config(), &llm, &Progress::silent()).unwrap();
    let short: Vec<&str> = written.queries.values().flatten().map(|generated| generated.query.as_str()).collect();
    assert_eq!(short, ["1", "2"], "query 2 has two negatives, but only one in the first list");
}

#[test]
fn the_ledger_alone_gives_the_same_supplement() {
    let (room, server) = (Room::new(), server());
    let first = room.generate(&config(), &room.llm(&server, None), &retrieve).unwrap();
    let calls = server.seen().len();
    std::fs::remove_dir_all(first.folder()).unwrap();
    let again = room.generate(&config(), &room.offline(), &retrieve).unwrap();
    assert_eq!((again.manifest(), server.seen().len()), (first.manifest(), calls));
    let unused = |_: &Language, _: &[(String, String)]| panic!("up to date");
    room.generate(&config(), &room.offline(), &unused).unwrap();
}

#[test]
fn direct_writes_from_the_positive() {
    let (room, server) = (Room::new(), server());
    let direct = GenerateConfig { method: Method::Direct, ..config() };
    let artefact = room.generate(&direct, &room.llm(&server, None), &retrieve).unwrap();
    let row = &rows(&artefact)[0];
    assert_eq!((row.summary.as_ref(), row.generated.as_str()), (None, "swali jipya: right sw one"));
}

#[test]
fn no_method_asks_nobody_and_leaves_empty_files() {
    let room = Room::new();
    let server = server();
    let llm = room.llm(&server, None);
    let judgements = room.judged(&rules(), &llm);
    let calls = server.seen().len();
    let none = GenerateConfig { method: Method::None, model: String::new(), ..config() };
    let unused = |_: &Language, _: &[(String, String)]| panic!("nothing to retrieve");
    let out = room.path("generate");
    let artefact = generate(&room.inputs(&judgements), &none, &llm, &out, &unused, &Progress::silent()).unwrap();
    assert!(rows(&artefact).is_empty() && server.seen().len() == calls);
}

/// The supplement when the model writes `reply` where it should write a query.
fn rejected(summary: &'static str, reply: &'static str) -> (QuerySupplement, usize) {
    let room = Room::new();
    let server = StandIn::start(move |_, body| {
        let rules = body["messages"][0]["content"].as_str().unwrap();
        Play::Say(match rules {
            rules if rules.starts_with("Summarise") => summary.into(),
            rules if rules.starts_with("Write a search query") => reply.into(),
            _ => honest(body),
        })
    });
    let unused = |_: &Language, _: &[(String, String)]| panic!("a rejected query is not used");
    let artefact = room.generate(&config(), &room.llm(&server, None), &unused).unwrap();
    let writing = server.seen().iter().filter(|seen| seen.body["model"] == "writer").count();
    (rows(&artefact).remove(0), writing)
}

#[test]
fn unusable_queries_are_kept_with_the_reason_and_not_used() {
    for (reply, reason) in
        [("  \n", Rejection::Empty), ("Swali  MOJA", Rejection::Copy), ("これは何ですか", Rejection::Language)]
    {
        let (row, _) = rejected("muhtasari", reply);
        assert_eq!((row.rejected, row.candidates.len(), row.judgements.len()), (Some(reason), 0, 0));
    }
    let (row, calls) = rejected(" ", "swali");
    assert_eq!((row.rejected, row.summary.as_deref(), calls), (Some(Rejection::Empty), Some(""), 1));
}

#[test]
fn what_counts_as_a_negative_follows_the_rule_for_the_unjudged() {
    let short = |rule: UnjudgedRule| -> Vec<String> {
        let (room, server) = (Room::new(), server());
        let llm = room.llm(&server, None);
        let judgements = room.judged(&JudgeConfig { depth: 1, unjudged: rule, ..rules() }, &llm);
        let written = write_queries(&room.inputs(&judgements), &config(), &llm, &Progress::silent()).unwrap();
        written.queries.into_values().flatten().map(|generated| generated.query).collect()
    };
    assert_eq!(short(UnjudgedRule::Exclude), ["1", "2"]);
    assert_eq!(short(UnjudgedRule::Keep), ["1"], "only one candidate is left whatever becomes of the unjudged");
}

#[test]
fn a_spent_budget_leaves_queries_without_a_new_one() {
    let (room, server) = (Room::new(), server());
    let judgements = room.judged(&rules(), &room.llm(&server, None));
    let unused = |_: &Language, _: &[(String, String)]| panic!("nothing was written");
    for calls in [0, 1] {
        let llm = room.llm(&server, Some(calls));
        let out = room.path(&format!("generate {calls}"));
        let artefact =
            generate(&room.inputs(&judgements), &config(), &llm, &out, &unused, &Progress::silent()).unwrap();
        assert_eq!(artefact.summary().counts["queries without a new one: budget"], 1);
        assert!(artefact.summary().notes[0].contains("before 1 new queries"), "{:?}", artefact.summary().notes);
    }
}

#[test]
fn new_candidates_are_cut_at_the_depth() {
    let (room, server) = (Room::new(), server());
    let artefact =
        room.generate(&GenerateConfig { depth: 1, ..config() }, &room.llm(&server, None), &retrieve).unwrap();
    let row = &rows(&artefact)[0];
    assert_eq!((row.candidates.len(), row.candidates[0].passage.as_str()), (1, "e#0"));
    assert!((row.novelty - 0.6).abs() < 1e-12, "novelty looks at the whole list");
}

#[test]
fn artefacts_that_do_not_belong_together_are_refused() {
    let (room, server) = (Room::new(), server());
    let llm = room.llm(&server, None);
    let judgements = room.judged(&rules(), &llm);
    let others = artefact(&room.path("other"), "mine", &[("sw", vec![list("1", &[("b#0", 0.9, None)])])]);
    let inputs = GenerateInputs { candidates: &others, ..room.inputs(&judgements) };
    let message = write_queries(&inputs, &config(), &llm, &Progress::silent()).unwrap_err().to_string();
    assert!(message.contains("sw: candidates and judgements differ"), "{message}");
    let inputs = GenerateInputs { judgements: &room.candidates, ..room.inputs(&judgements) };
    let text = write_queries(&inputs, &config(), &llm, &Progress::silent()).unwrap_err().to_string();
    assert!(text.contains("expected an artefact of `judge`"), "{text}");
    let silent = |_: &Language, _: &[(String, String)]| Ok(Vec::new());
    let message = room.generate(&config(), &llm, &silent).unwrap_err().to_string();
    assert!(message.contains("expected the lists of 1 new queries"), "{message}");
}

/// Seventy queries without enough negatives in one language: the first candidate is their only one.
fn seventy(folder: &std::path::Path) -> (Dataset, Artefact) {
    let ids: Vec<String> = (0..70).map(|query| format!("q{query}")).collect();
    let passages = [("+", "right"), ("a", "wrong"), ("n", "half found"), ("w", "wrong found")];
    let queries: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), "swali la kwanza")).collect();
    let qrels: Vec<(&str, &str, i32)> = ids.iter().map(|id| (id.as_str(), "+", 1)).collect();
    let texts = Texts { tag: "sw", passages: &passages, queries: &queries, qrels: &qrels };
    let dataset = dataset(&folder.join("data"), &[texts]);
    let lists: Vec<QueryCandidates> = ids.iter().map(|id| list(id, &[("a", 0.9, None)])).collect();
    (dataset, artefact(&folder.join("mine"), "mine", &[("sw", lists)]))
}

/// The artefact where every new query finds `found`, with the room that it lies in.
fn tried(config: &GenerateConfig, found: &'static str) -> (Artefact, Room) {
    let folder = tempfile::tempdir().unwrap();
    let (dataset, candidates) = seventy(folder.path());
    let room = Room { folder, dataset, candidates };
    let server = server();
    let retrieve = |_: &Language, queries: &[(String, String)]| {
        Ok(queries.iter().map(|(id, _)| list(id, &[(found, 0.5, None)])).collect())
    };
    let artefact = room.generate(config, &room.llm(&server, None), &retrieve).unwrap();
    (artefact, room)
}

#[test]
fn a_language_stops_where_generation_adds_nothing() {
    let (artefact, _room) = tried(&config(), "n");
    assert_eq!(rows(&artefact).len(), 50, "the probe found no negative in any query");
    let summary = artefact.summary();
    assert_eq!(summary.counts["queries left out: generation adds nothing"], 20);
    assert!(summary.notes[0].contains("sw: generation stopped, for only 0 of 50"), "{:?}", summary.notes);
    let text = std::fs::read_to_string(artefact.path("gains.json")).unwrap();
    let gains: std::collections::BTreeMap<Language, Gain> = serde_json::from_str(&text).unwrap();
    let gain = gains.values().next().unwrap();
    assert_eq!((gain.tried, gain.used, gain.left_out, gain.novelty), (50, 50, 20, Some(1.0)));
    assert_eq!(gain.relevant, judge::Estimate::wilson(50, 50), "what is found is relevant");
    let (artefact, _room) = tried(&GenerateConfig { stop_below: 0.0, ..config() }, "n");
    assert_eq!(rows(&artefact).len(), 70, "told never to stop");
    let (artefact, _room) = tried(&GenerateConfig { probe: 70, ..config() }, "n");
    assert_eq!(rows(&artefact).len(), 70, "no more queries than the probe");
    let (artefact, _room) = tried(&config(), "w");
    let ids: Vec<String> = rows(&artefact).into_iter().map(|row| row.query).collect();
    assert_eq!(ids, (0..70).map(|query| format!("q{query}")).collect::<Vec<_>>(), "all, in the order of mining");
}

#[test]
fn the_authors_prompt_can_be_chosen() {
    let (room, server) = (Room::new(), server());
    let paper = GenerateConfig { prompts: Prompts::Paper, ..config() };
    room.generate(&paper, &room.llm(&server, None), &|_, queries| {
        Ok(queries.iter().map(|(id, _)| list(id, &[])).collect())
    })
    .unwrap();
    let sent: Vec<Value> =
        server.seen().into_iter().map(|seen| seen.body).filter(|body| body["model"] == "writer").collect();
    assert_eq!((sent.len(), quoted(&sent[0], "question").as_str()), (2, ""));
    assert_eq!((&sent[0]["temperature"], &sent[1]["max_tokens"]), (&serde_json::json!(0.7), &serde_json::json!(128)));
}

#[test]
fn a_batch_is_laid_out_layer_by_layer() {
    let (room, server) = (Room::new(), server());
    let judgements = room.judged(&rules(), &room.llm(&server, None));
    let asked = |_: &Language, _: &[(String, String)]| panic!("no query is written yet");
    let llm = room.offline().collecting();
    rehearse(&room.inputs(&judgements), &config(), &llm, &asked, &Progress::silent()).unwrap();
    assert_eq!(llm.collected(), 1, "the summary, without which there is no query");
}
