//! `instruct` from end to end: twenty instructions, a stand-in that translates them, a random model that learns them.
#![expect(clippy::unwrap_used, reason = "a test stops where something unexpected happens")]

mod stand_in;
mod tiny;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tiny::write_tiny_chat_model;

/// The demonstration's instructions, a line each.
fn demo() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/demo/instructions.jsonl");
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The demonstration's translation of what is asked for.
fn translation(request: &Value, demo: &[Value]) -> String {
    let text = |it: &Value, name: &str| it[name].as_str().unwrap().to_owned();
    let [rules, asked] = [0, 1].map(|place| text(&request["messages"][place], "content"));
    let language = demo.iter().map(|it| text(it, "language")).find(|tag| rules.contains(&format!("({tag})"))).unwrap();
    let source = demo.iter().find(|it| asked.contains(&text(it, "output"))).unwrap();
    let found = demo.iter().find(|it| it["id"] == source["id"] && text(it, "language") == language).unwrap();
    ["instruction", "input", "output"].map(|name| format!("<{name}>\n{}\n</{name}>\n", text(found, name))).concat()
}

/// The English instructions, and a model whose vocabulary has the words of all languages.
fn prepare(folder: &Path) -> (PathBuf, PathBuf) {
    let (demo, model, file) = (demo(), folder.join("model"), folder.join("english.jsonl"));
    let english = demo.iter().filter(|it| it["language"] == "en").map(|it| format!("{it}\n"));
    fs::write(&file, english.collect::<String>()).unwrap();
    let texts: Vec<String> = demo.iter().map(ToString::to_string).collect();
    write_tiny_chat_model(&model, &texts);
    (file, model)
}

/// The command with the knobs of these tests.
fn instruct(file: &Path, model: &Path, out: &Path, more: &[&str]) -> Command {
    let ledger = out.with_file_name("ledger.sqlite");
    let paths = [file, Path::new("--model"), model, Path::new("--out"), out, Path::new("--ledger"), &ledger];
    let knobs = [
        "instruct.translator=translator",
        "instruct.epochs=2",
        "instruct.rate=2e-2",
        "instruct.max_tokens=512",
        "instruct.checkpoint_every=7",
        "instruct.merge=true",
        "instruct.lora.dropout=0.1",
    ];
    let mut command = Command::new(env!("CARGO_BIN_EXE_motherlode"));
    command.arg("instruct").args(paths).env("RAYON_NUM_THREADS", "2").stdin(Stdio::null());
    for knob in knobs.iter().chain(more) {
        command.args(["--set", knob]);
    }
    command
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    text(&output)
}

/// The files of an artefact but for its times, by path.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = PathBuf::from(path.file_name().unwrap());
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(inner, bytes)| (name.join(inner), bytes)));
        } else if name != Path::new("timing.json") {
            found.insert(name, fs::read(path).unwrap());
        }
    }
    found
}

fn lines(folder: &Path, file: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder.join(file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn instructions_are_translated_and_learnt_and_a_killed_stage_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (file, model) = prepare(folder.path());
    let all = demo();
    let server = stand_in::Server::answering(move |request| translation(request, &all));
    let (out, endpoint) = (folder.path().join("straight/out"), format!("llm.endpoints=[\"{}\"]", server.address()));
    fs::create_dir_all(out.parent().unwrap()).unwrap();
    let said = succeed(&mut instruct(&file, &model, &out, &[&endpoint]));
    println!("{said}");

    let kept = lines(&out, "instructions.jsonl");
    assert_eq!((kept.len(), lines(&out, "dropped.jsonl").len()), (320, 0));
    for language in ["ar", "en", "te", "zh"] {
        assert_eq!(kept.iter().filter(|it| it["language"] == language).count(), 20, "{language}");
    }
    let translated = kept.iter().filter(|it| it["provenance"]["kind"] == "translated").count();
    let aside = kept.iter().filter(|it| it["validation"] == true).count();
    assert_eq!((translated, aside), (300, 32));
    let log = lines(&out, "log.jsonl");
    assert_eq!(log.len(), 36);
    let loss = |record: &Value| record["loss"].as_f64().unwrap();
    assert!(loss(&log[35]) < loss(&log[0]) - 0.5, "{} and {}", log[0], log[35]);
    let validations = lines(&out, "validation.jsonl");
    assert_eq!(validations.len(), 3);
    assert!(loss(&validations[2]) < loss(&validations[0]) - 0.3, "{validations:?}");
    let adapter: Value =
        serde_json::from_str(&fs::read_to_string(out.join("adapter/adapter_config.json")).unwrap()).unwrap();
    assert_eq!((&adapter["r"], &adapter["task_type"]), (&8.into(), &"CAUSAL_LM".into()));
    assert!(out.join("merged/tokenizer.json").is_file() && out.join("merged/model.safetensors").is_file());

    // Killed at moments that differ from run to run, with nothing but the ledger to ask.
    let killed = folder.path().join("killed/out");
    fs::create_dir_all(killed.parent().unwrap()).unwrap();
    fs::copy(out.with_file_name("ledger.sqlite"), killed.with_file_name("ledger.sqlite")).unwrap();
    for round in 0..6_u64 {
        let mut command = instruct(&file, &model, &killed, &[]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let noise =
            u64::from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos());
        std::thread::sleep(Duration::from_millis(50 + (noise / 1000) % (300 * (round + 1))));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    succeed(&mut instruct(&file, &model, &killed, &[]));
    let (expected, found) = (files(&out), files(&killed));
    assert_eq!(expected.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>());
    for (path, bytes) in &expected {
        assert!(bytes == &found[path], "{} differs from the straight run", path.display());
    }
}

#[test]
fn what_is_wrong_is_said_before_anything_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (file, model) = prepare(folder.path());
    let out = folder.path().join("out");
    let refused = |file: &Path, model: &Path, more: &[&str]| {
        let output = instruct(file, model, &out, more).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        text(&output)
    };
    for (knob, expected) in [
        ("instruct.rate=0", "`instruct.rate`"),
        ("instruct.max_tokens=4096", "`instruct.max_tokens`: expected at most 1024"),
        ("instruct.translator=\"\"", "`instruct.translator`: expected the name of a model"),
        ("instruct.languages=[\"xx\"]", "the script of `xx` is not known"),
        ("instruct.lora.targets=[\"nothing\"]", "nothing"),
        ("instruct.memory=1000000", "memory"),
        ("instruct.quux=1", "quux"),
    ] {
        let said = refused(&file, &model, &[knob]);
        assert!(said.contains(expected), "{knob}: {said}");
    }
    assert!(refused(&file, &model, &[]).contains("llm.endpoints"), "nobody translates");
    let broken = folder.path().join("broken.jsonl");
    fs::write(&broken, "{\"instruction\": \"Summarize.\", \"input\": \"a\", \"output\": \"b\"}\n{\n").unwrap();
    assert!(refused(&broken, &model, &[]).contains("broken.jsonl:2: expected an object with `instruction`"));
    fs::write(&broken, "{\"instruction\": \"Translate.\", \"input\": \"a\", \"output\": \"b\"}\n").unwrap();
    assert!(refused(&broken, &model, &[]).contains("none of 1 instructions is taken by `instruct.select`"));
    fs::remove_file(model.join("tokenizer_config.json")).unwrap();
    assert!(refused(&file, &model, &[]).contains("tokenizer_config.json"));
    assert!(refused(&file, &folder.path().join("nowhere"), &[]).contains("nowhere"));
}
