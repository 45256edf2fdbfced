//! Measuring and comparing TREC files from the command line, without a data set.
#![expect(clippy::unwrap_used, reason = "a test stops where something unexpected happens")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Qrels of six queries, and runs that rank the relevant passage of query i at rank 1 + i % `width`.
fn prepare(folder: &Path) {
    let mut qrels = String::new();
    for query in 0..6 {
        qrels += &format!("q{query} 0 d0 2\nq{query} 0 d1 0\n");
    }
    fs::write(folder.join("qrels.tsv"), qrels).unwrap();
    for width in [1, 2, 3] {
        let mut run = String::new();
        for query in 0..6 {
            for rank in 0..3 {
                let passage = if rank == query % width { 0 } else { rank + 2 };
                run += &format!("q{query} Q0 d{passage} {} {} x\n", rank + 1, 3 - rank);
            }
        }
        fs::write(folder.join(format!("{width}.trec")), run).unwrap();
    }
}

fn motherlode(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_motherlode"));
    command.current_dir(folder).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_run_file_is_measured_against_a_qrels_file() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let arguments =
        ["evaluate", "--run-file", "2.trec", "--qrels-file", "qrels.tsv", "--set", "evaluate.measures=[\"MRR@10\"]"];
    let output = motherlode(folder.path(), &arguments);
    assert_eq!(text(&output), "     queries  found  unjudged@10  MRR@10\nund        6      6         2.00  0.7500\n");
    let output = motherlode(folder.path(), &[&arguments[..], &["--per-query"]].concat());
    assert!(text(&output).starts_with("und\tq0\tMRR@10\t1\nund\tq1\tMRR@10\t0.5\n"), "{}", text(&output));
    fs::write(folder.path().join("more.trec"), "q0 Q0 d0 1 1 x\nq9 Q0 d0 1 1 x\n").unwrap();
    let arguments = ["evaluate", "--run-file", "more.trec", "--qrels-file", "qrels.tsv"];
    let output = motherlode(folder.path(), &arguments);
    assert!(text(&output).ends_with("note: 1 queries of the run that nobody judged, left out\n"), "{}", text(&output));
    let both = ["sw=1.trec", "te=2.trec"].map(|file| ["--run-file", file]).concat();
    let qrels = ["te=qrels.tsv", "sw=qrels.tsv"].map(|file| ["--qrels-file", file]).concat();
    let output = motherlode(folder.path(), &[&["evaluate"][..], &both, &qrels].concat());
    let shown = text(&output);
    assert!(shown.contains("\nsw ") && shown.contains("\nte ") && shown.contains("\nmacro "), "{shown}");
}

#[test]
fn wrong_files_and_arguments_are_named() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    fs::write(folder.path().join("bad.trec"), "q0 Q0 d0 1 2 x\nq0 Q0 d1 2 NaN x\n").unwrap();
    for (arguments, expected) in [
        (
            &["--run-file", "bad.trec", "--qrels-file", "qrels.tsv"][..],
            "bad.trec:2: expected a finite score, got `NaN`",
        ),
        (&["--run-file", "qrels.tsv", "--qrels-file", "qrels.tsv"], "qrels.tsv:1: expected 6 columns"),
        (&["--run-file", "1.trec", "--qrels-file", "1.trec"], "1.trec:1: expected 4 columns"),
        (&["--run-file", "none.trec", "--qrels-file", "qrels.tsv"], "none.trec: No such file"),
        (&["--run-file", "sw=1.trec", "--qrels-file", "qrels.tsv"], "no --qrels-file of this language"),
        (&["--run-file", "1.trec"], "--qrels-file"),
        (&["some", "run", "--out", "x", "--run-file", "1.trec", "--qrels-file", "qrels.tsv"], "cannot be used with"),
        (&["some", "run"], "--out"),
        (&[], "required arguments"),
    ] {
        let output = motherlode(folder.path(), &[&["evaluate"], arguments].concat());
        assert!(!output.status.success() && text(&output).contains(expected), "{arguments:?}: {}", text(&output));
    }
}

#[test]
fn systems_of_files_are_compared_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let measured = |width: usize| -> PathBuf {
        let (run, out) = (format!("{width}.trec"), folder.path().join(format!("measures-{width}")));
        let arguments = ["evaluate", "--run-file", &run, "--qrels-file", "qrels.tsv", "--out", out.to_str().unwrap()];
        let output = motherlode(folder.path(), &arguments);
        assert!(output.status.success(), "{}", text(&output));
        out
    };
    let [one, two, three] = [1, 2, 3].map(|width| measured(width).display().to_string());
    let systems = [format!("base={three}"), format!("new={two}"), format!("new={one}"), format!("old={one}")];
    let systems: Vec<&str> = systems.iter().map(String::as_str).collect();
    for (format, expected) in [
        ("text", "new (mean of 2 seeds ± standard deviation) against base: better in 0, worse in 0 of 1 languages"),
        ("markdown", "## Unjudged passages among the first 10"),
        ("latex", "\\begin{tabular}{lrr}"),
        ("csv", "measure,judgements,system,seeds,language,queries"),
        ("json", "\"baseline\": \"base\""),
    ] {
        let options = ["compare", "--out", "comparison", "--format", format];
        let output = motherlode(folder.path(), &[&options[..], &systems].concat());
        assert!(output.status.success() && text(&output).contains(expected), "{format}: {}", text(&output));
    }
}
