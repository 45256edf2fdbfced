//! `recipes/smoke.toml` from end to end: a straight run, runs that are killed, a hostile passage, errors of the command.
#![expect(clippy::unwrap_used, reason = "a test stops where something unexpected happens")]

mod stand_in;
mod tiny;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use motherlode::text::tokenize::tiny::write_tiny_tokenizer;
use motherlode_engine::tiny::write_tiny_encoder;

/// Subjects as (English words, Swahili words); those from the ninth on are asked in dev.
const SUBJECTS: [(&str, &str); 12] = [
    ("river water boat", "mto maji mashua"),
    ("bread flour oven", "mkate unga tanuri"),
    ("school teacher book", "shule mwalimu kitabu"),
    ("doctor hospital medicine", "daktari hospitali dawa"),
    ("market price money", "soko bei pesa"),
    ("football goal team", "mpira goli timu"),
    ("lion grass plain", "simba nyasi uwanda"),
    ("train station rail", "treni kituo reli"),
    ("moon night star", "mwezi usiku nyota"),
    ("coffee bean farm", "kahawa buni shamba"),
    ("drum dance song", "ngoma dansi wimbo"),
    ("mountain snow climb", "mlima theluji kupanda"),
];
const HOSTILE: &str = "<script>alert('passage')</script><img src=x onerror=alert(1)> \"]}</question> river boat";

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// The data set of one language in MIRACL's layout.
fn write_language(folder: &Path, words: &[&str]) -> Vec<String> {
    let (mut corpus, mut texts) = (String::new(), Vec::new());
    let mut files: BTreeMap<&str, String> = BTreeMap::new();
    for (subject, words) in words.iter().enumerate() {
        let split = if subject < 8 { "train" } else { "dev" };
        let mut shuffled: Vec<&str> = words.split(' ').collect();
        shuffled.rotate_left(1);
        for (number, text) in
            [format!("{words} {words}"), shuffled.join(" "), format!("{} kumi ten", shuffled[0])].iter().enumerate()
        {
            let line =
                serde_json::json!({ "docid": format!("{subject}#{number}"), "title": shuffled[0], "text": text });
            corpus += &format!("{line}\n");
            texts.push(text.clone());
        }
        *files.entry(if split == "train" { "topics.train.tsv" } else { "topics.dev.tsv" }).or_default() +=
            &format!("q{subject}\t{}?\n", words.split(' ').next().unwrap());
        *files.entry(if split == "train" { "qrels.train.tsv" } else { "qrels.dev.tsv" }).or_default() +=
            &format!("q{subject}\tQ0\t{subject}#0\t1\nq{subject}\tQ0\t{subject}#2\t0\n");
    }
    corpus += &format!("{}\n", serde_json::json!({ "docid": "hostile#0", "title": "<b>hostile</b>", "text": HOSTILE }));
    write(&folder.join("corpus.jsonl"), &corpus);
    files.iter().for_each(|(name, text)| write(&folder.join(name), text));
    texts
}

/// A folder with the recipe, and beside it what it needs.
fn prepare(folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/smoke.toml");
    let recipe = folder.join("smoke.toml");
    fs::copy(source, &recipe).unwrap();
    let data = folder.join("smoke/data");
    let mut texts = write_language(&data.join("en"), &SUBJECTS.map(|(english, _)| english));
    texts.extend(write_language(&data.join("sw"), &SUBJECTS.map(|(_, swahili)| swahili)));
    let encoder = folder.join("smoke/encoder");
    fs::create_dir_all(&encoder).unwrap();
    let vocabulary = write_tiny_tokenizer(&encoder, &texts).unwrap();
    write_tiny_encoder(&encoder, vocabulary, 32, 2, 3).unwrap();
    recipe
}

fn motherlode(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_motherlode"));
    command.args(arguments).env("RAYON_NUM_THREADS", "2").stdin(Stdio::null());
    command
}

fn run(recipe: &Path, work: &Path, overrides: &[&str]) -> Output {
    let mut arguments = vec!["run", recipe.to_str().unwrap(), "--work", work.to_str().unwrap()];
    overrides.iter().for_each(|assignment| arguments.extend(["--set", assignment]));
    motherlode(&arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Everything under `artefacts` but times and locks, by path.
fn artefacts(work: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(folder: &Path, root: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, found);
            } else if path.file_name().unwrap() != "timing.json"
                && path.extension().is_none_or(|extension| extension != "lock")
            {
                found.insert(path.strip_prefix(root).unwrap().to_path_buf(), fs::read(&path).unwrap());
            }
        }
    }
    let (root, mut found) = (work.join("artefacts"), BTreeMap::new());
    walk(&root, &root, &mut found);
    found
}

/// A straight run whose answers come from a stand-in server: its work folder holds the ledger for later runs.
fn straight(folder: &Path) -> (PathBuf, PathBuf) {
    let recipe = prepare(folder);
    let work = folder.join("straight");
    let server = stand_in::Server::start();
    let endpoint = format!("llm.endpoints=[\"{}\"]", server.address());
    let output = run(&recipe, &work, &[&endpoint]);
    assert!(output.status.success(), "{}", text(&output));
    (recipe, work)
}

/// A new work folder with nothing but the ledger of another.
fn with_ledger_of(work: &Path, name: &str) -> PathBuf {
    let new = work.with_file_name(name);
    fs::create_dir_all(&new).unwrap();
    fs::copy(work.join("ledger.sqlite"), new.join("ledger.sqlite")).unwrap();
    new
}

#[test]
fn the_smoke_recipe_runs_resumes_and_survives_being_killed() {
    let folder = tempfile::tempdir().unwrap();
    let (recipe, work) = straight(folder.path());
    let expected = artefacts(&work);
    assert!(expected.keys().all(|path| !path.to_str().unwrap().contains("partial")));
    for stage in [
        "dataset", "model", "index", "encode", "search", "fuse", "mine", "judge", "generate", "topic", "sample",
        "batch", "train", "evaluate", "compare",
    ] {
        assert!(expected.keys().any(|path| path.starts_with(stage)), "no artefact of {stage}");
    }

    let again = run(&recipe, &work, &[]);
    assert!(again.status.success() && !text(&again).contains("done in"), "everything is up to date: {}", text(&again));

    let page = fs::read_to_string(work.join("smoke/index.html")).unwrap();
    assert!(!page.contains("<script>alert") && !page.contains("<img src=x"), "a passage must show as text");

    let killed = with_ledger_of(&work, "killed");
    let arguments = ["run", recipe.to_str().unwrap(), "--work", killed.to_str().unwrap()];
    for round in 0..10_u64 {
        let mut child = motherlode(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Moments that differ from run to run of the test, spread over the length of a run.
        let noise =
            u64::from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos());
        std::thread::sleep(Duration::from_millis(20 + (noise / 1000) % (150 * (round + 1))));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let output = run(&recipe, &killed, &[]);
    assert!(output.status.success(), "{}", text(&output));
    let found = artefacts(&killed);
    let paths = |all: &BTreeMap<PathBuf, Vec<u8>>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(paths(&expected), paths(&found));
    for (path, bytes) in &expected {
        assert!(bytes == &found[path], "{} differs from the straight run", path.display());
    }
}

#[test]
fn a_pair_without_an_answer_and_without_a_server_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = prepare(folder.path());
    let output = run(&recipe, &folder.path().join("work"), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("llm.endpoints"), "{}", text(&output));
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_name() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = prepare(folder.path());
    let output = run(&recipe, &folder.path().join("work"), &["judge.votse=4"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("did you mean `votes`?"), "{}", text(&output));
    assert!(!folder.path().join("work").exists(), "nothing may be done before the recipe is right");
}

#[test]
fn plan_and_status_do_nothing_that_costs() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = prepare(folder.path());
    let work = folder.path().join("work");
    let arguments =
        |verb: &'static str| [verb, recipe.to_str().unwrap(), "--work", work.to_str().unwrap()].map(str::to_owned);
    let status = motherlode(&arguments("status").each_ref().map(String::as_str)).output().unwrap();
    assert!(text(&status).contains("dataset is not made yet"), "{}", text(&status));
    let plan = motherlode(&arguments("plan").each_ref().map(String::as_str)).output().unwrap();
    let plan = text(&plan);
    assert!(
        plan.contains("74 passages, 16 train queries") && plan.contains("calls") && plan.contains("steps"),
        "{plan}"
    );
}

/// The folder of the one artefact of a stage whose manifest holds this text.
fn artefact(work: &Path, stage: &str, text: &str) -> String {
    let folders = fs::read_dir(work.join("artefacts").join(stage)).unwrap().map(|entry| entry.unwrap().path());
    let has = |folder: &PathBuf| {
        fs::read_to_string(folder.join("manifest.json")).is_ok_and(|manifest| manifest.contains(text))
    };
    let found: Vec<PathBuf> = folders.filter(has).collect();
    assert_eq!(found.len(), 1, "artefacts of {stage} with {text}: {found:?}");
    found[0].to_str().unwrap().to_owned()
}

fn key(folder: &str) -> String {
    let manifest = fs::read_to_string(Path::new(folder).join("manifest.json")).unwrap();
    serde_json::from_str::<serde_json::Value>(&manifest).unwrap()["key"].as_str().unwrap().to_owned()
}

fn succeed(arguments: &[&str]) -> String {
    let output = motherlode(arguments).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    text(&output)
}

#[test]
fn verbs_work_on_what_a_recipe_made() {
    let folder = tempfile::tempdir().unwrap();
    let (recipe, work) = straight(folder.path());
    let [recipe, work_name] = [&recipe, &work].map(|path| path.to_str().unwrap());

    let page = work.join("smoke/index.html");
    fs::remove_dir_all(work.join("smoke")).unwrap();
    let said = succeed(&["report", recipe, "--work", work_name]);
    assert!(said.contains("untouched") && page.is_file(), "{said}");

    let [dataset, model, index] = ["dataset", "model", "index"].map(|stage| artefact(&work, stage, ""));
    let vectors = artefact(&work, "encode", &key(&model));
    let [candidates, judgements] = ["mine", "judge"].map(|stage| artefact(&work, stage, ""));
    let (ledger, out) = (work.join("ledger.sqlite"), folder.path().join("generated"));
    let members = [format!("tiny={vectors},{model}"), format!("bm25={index}")];
    let arguments = ["generate", &dataset, &candidates, &judgements, &members[0], &members[1], "--vectors", &vectors];
    let knobs = ["--config", recipe, "--ledger", ledger.to_str().unwrap(), "--out", out.to_str().unwrap()];
    succeed(&[&arguments[..], &knobs].concat());
    let recipes_own = PathBuf::from(artefact(&work, "generate", ""));
    for file in ["en.jsonl", "sw.jsonl"] {
        let [own, new] = [&recipes_own, &out].map(|folder| fs::read_to_string(folder.join(file)).unwrap());
        assert!(own.lines().count() > 0 && own == new, "{file}");
    }

    let said = succeed(&["what-if", &candidates, "--judgements", &judgements]);
    assert!(said.contains("judge, grade 0") && said.contains("margin 0.15"), "{said}");

    let [empty, batch, nothing] = ["empty.sqlite", "batch.jsonl", "nothing"].map(|name| folder.path().join(name));
    let [empty, batch_name, nothing_name] = [&empty, &batch, &nothing].map(|path| path.to_str().unwrap());
    let knobs = ["--config", recipe, "--ledger", empty, "--batch-out", batch_name, "--out", nothing_name];
    let said = succeed(&[&["judge", &dataset, &candidates][..], &knobs].concat());
    let requests = fs::read_to_string(&batch).unwrap().lines().count();
    assert!(requests > 0 && said.contains(&format!("{requests} requests to stand-in")), "{said}");
    assert!(!nothing.exists(), "a batch is no artefact");
}

#[test]
fn queries_and_passages_may_have_encoders_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = prepare(folder.path());
    let text_of_recipe = fs::read_to_string(&recipe).unwrap();
    write(&recipe, text_of_recipe.split("[[arm]]").next().unwrap());
    let [first, other] = ["smoke/encoder", "smoke/other"].map(|name| folder.path().join(name));
    fs::create_dir_all(&other).unwrap();
    fs::copy(first.join("tokenizer.json"), other.join("tokenizer.json")).unwrap();
    let config: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(first.join("config.json")).unwrap()).unwrap();
    write_tiny_encoder(&other, config["vocab_size"].as_u64().unwrap() as usize, 32, 2, 4).unwrap();

    let run_with = |name: &str, assignment: &str| {
        let work = folder.path().join(name);
        let knobs = ["judge.method=\"none\"", "generate.method=\"none\"", assignment];
        let output = run(&recipe, &work, &knobs);
        assert!(output.status.success(), "{}", text(&output));
        work
    };
    let vectors = |work: &Path, model: &str, file: &str| {
        let model = artefact(work, "model", model);
        fs::read(Path::new(&artefact(work, "encode", &key(&model))).join(file)).unwrap()
    };
    let untied = run_with("untied", "model.passage_model=\"smoke/other\"");
    let tied = run_with("tied", "model.name=\"smoke/encoder\"");
    let another = run_with("another", "model.name=\"smoke/other\"");
    for language in ["en", "sw"] {
        let [queries, passages] = ["queries.dev.f32", "passages.f32"].map(|file| format!("{language}/{file}"));
        let pair = "query_model/model.safetensors";
        assert_eq!(vectors(&untied, pair, &queries), vectors(&tied, "", &queries));
        assert_eq!(vectors(&untied, pair, &passages), vectors(&another, "\"other\"", &passages));
    }
    let trained = PathBuf::from(artefact(&untied, "train", ""));
    for name in ["query_model", "passage_model"] {
        assert!(
            trained.join(name).join("model.safetensors").is_file()
                && trained.join(name).join("tokenizer.json").is_file()
        );
    }
    assert!(!trained.join("model.safetensors").exists());
}

/// New queries by a model that runs in the process, before and after it was tuned: what they find beyond the first lists.
#[test]
fn a_tuned_model_generates_in_the_process_and_its_novelty_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (recipe, work) = straight(folder.path());
    let [base, instructions, tuned] = ["base", "instructions.jsonl", "tuned"].map(|name| folder.path().join(name));
    let texts: Vec<String> = SUBJECTS.iter().map(|(english, swahili)| format!("{english} {swahili}")).collect();
    tiny::write_tiny_chat_model(&base, &texts);
    let line = |(number, (english, swahili)): (usize, &(&str, &str))| {
        let line = |language: &str, words: &str| {
            let answer = words.split(' ').next().unwrap();
            serde_json::json!({ "id": number.to_string(), "language": language, "instruction": "Summarize it.",
                "input": words, "output": answer })
            .to_string()
        };
        format!("{}\n{}\n", line("en", english), line("sw", swahili))
    };
    write(&instructions, &SUBJECTS.iter().enumerate().map(line).collect::<String>());
    let [base, instructions, tuned] = [&base, &instructions, &tuned].map(|path| path.to_str().unwrap());
    let ledger = folder.path().join("ledger.sqlite");
    let knobs = ["--set", "instruct.languages=[\"en\", \"sw\"]", "--set", "instruct.max_tokens=1024"];
    let more = ["--set", "instruct.merge=true", "--set", "instruct.epochs=2", "--ledger", ledger.to_str().unwrap()];
    let arguments = ["instruct", instructions, "--model", base, "--out", tuned];
    succeed(&[&arguments[..], &knobs, &more].concat());

    let [dataset, model, index] = ["dataset", "model", "index"].map(|stage| artefact(&work, stage, ""));
    let vectors = artefact(&work, "encode", &key(&model));
    let [candidates, judgements] = ["mine", "judge"].map(|stage| artefact(&work, stage, ""));
    let members = [format!("tiny={vectors},{model}"), format!("bm25={index}")];
    let inputs = ["generate", &dataset, &candidates, &judgements, &members[0], &members[1], "--vectors", &vectors];
    let server = stand_in::Server::start();
    let endpoint = format!("llm.endpoints=[\"{}\"]", server.address());
    let merged = format!("{tuned}/merged");
    let embedded = format!(
        "llm.embedded=[{{name=\"base\",file=\"{base}\",precision=\"f32\"}},\
         {{name=\"tuned\",file=\"{merged}\",precision=\"f32\"}}]"
    );
    let written = ["base", "tuned"].map(|name| {
        let (out, model) = (folder.path().join(format!("generated-{name}")), format!("generate.model={name}"));
        let recipe = recipe.to_str().unwrap();
        let paths = ["--config", recipe, "--ledger", ledger.to_str().unwrap(), "--out", out.to_str().unwrap()];
        let said = succeed(&[&inputs[..], &paths, &["--set", &model, "--set", &endpoint, "--set", &embedded]].concat());
        println!("{name}: {said}");
        let gains = fs::read_to_string(out.join("gains.json")).unwrap();
        let gains: serde_json::Value = serde_json::from_str(&gains).unwrap();
        for language in ["en", "sw"] {
            let (gain, name) = (&gains[language], format!("{language}: novelty"));
            assert!(gain["tried"].as_u64().unwrap() > 0, "{gain}");
            assert_eq!(gain["novelty"].is_null(), gain["used"] == 0, "{gain}");
            assert_eq!(said.contains(&name), gain["used"] != 0, "{said}");
        }
        fs::read_to_string(out.join("en.jsonl")).unwrap()
    });
    assert_ne!(written[0], written[1], "the tuned model writes something else");
}

#[test]
fn a_ledger_is_counted_checked_and_moved() {
    let folder = tempfile::tempdir().unwrap();
    let (_, work) = straight(folder.path());
    let (ledger, other, lines) = (work.join("ledger.sqlite"), folder.path().join("other"), folder.path().join("lines"));
    let [ledger, other, lines] = [&ledger, &other, &lines].map(|path| path.to_str().unwrap());
    let stats = succeed(&["ledger", "stats", ledger]);
    assert!(stats.contains("stand-in, judge-1") && stats.contains("stand-in, query-1"), "{stats}");
    succeed(&["ledger", "export", "--ledger", ledger, lines]);
    let merged = succeed(&["ledger", "merge", "--ledger", other, lines]);
    assert!(merged.contains("0 were known"), "{merged}");
    let [before, after] = [ledger, other].map(|ledger| succeed(&["ledger", "verify", ledger]));
    assert_eq!(before, after);
    let missing = motherlode(&["ledger", "stats", "nowhere.sqlite"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing).contains("there is no ledger"), "{}", text(&missing));
}

#[test]
fn ctrl_c_ends_at_once_and_says_how_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = prepare(folder.path());
    let work = folder.path().join("work");
    // A server that takes questions and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("llm.endpoints=[\"http://{}/v1\"]", silent.local_addr().unwrap());
    let arguments = ["run", recipe.to_str().unwrap(), "--work", work.to_str().unwrap(), "--set", &endpoint];
    let mut child = motherlode(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.trim_start().starts_with("mine ")), "candidates come before the judge");
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let said: Vec<String> = lines.collect();
    assert!(said.iter().any(|line| line.contains("stopped; finished stages") && line.contains("goes on")), "{said:?}");
}

#[test]
fn progress_can_be_read_by_programs_and_training_by_tensorboard() {
    let folder = tempfile::tempdir().unwrap();
    let (recipe, work) = straight(folder.path());
    let new = with_ledger_of(&work, "json");
    let arguments = ["--progress", "json", "run", recipe.to_str().unwrap(), "--work", new.to_str().unwrap()];
    let output = motherlode(&arguments).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let lines = String::from_utf8(output.stderr).unwrap();
    let events: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let has = |kind: &str, key: &str, part: &str| {
        events.iter().any(|event| event["event"] == kind && event[key].as_str().is_some_and(|said| said.contains(part)))
    };
    assert!(has("begin", "task", "train") && has("message", "text", "mine "), "{lines}");
    let told = fs::read_dir(new.join("tensorboard/smoke")).unwrap().map(|entry| entry.unwrap().path());
    let runs: Vec<PathBuf> = told.collect();
    assert!(!runs.is_empty());
    for run in runs {
        assert!(fs::metadata(run.join("events.out.tfevents.0.motherlode")).unwrap().len() > 100);
        assert!(fs::read_to_string(run.join("metrics.jsonl")).unwrap().contains("\"kind\":\"step\""));
    }
    let missing = motherlode(&["--progress", "json", "status", "nowhere.toml"]).output().unwrap();
    let error: serde_json::Value = serde_json::from_slice(&missing.stderr).unwrap();
    assert_eq!(error["event"], "error");
    let status =
        succeed(&["status", recipe.to_str().unwrap(), "--work", new.to_str().unwrap(), "--set", "mine.depth=3"]);
    assert!(status.contains("mine is not made yet; ") && status.contains("was made with mine.depth "), "{status}");
}

#[test]
fn shells_and_man_are_told_every_verb() {
    let folder = tempfile::tempdir().unwrap();
    let script = succeed(&["completions", "bash"]);
    assert!(script.contains("what-if") && script.contains("--progress"));
    succeed(&["man", folder.path().to_str().unwrap()]);
    for (page, part) in [("motherlode.1", "inspect"), ("motherlode-report.1", "side by side")] {
        let page = fs::read_to_string(folder.path().join(page)).unwrap();
        assert!(page.contains(part), "{page}");
    }
}
