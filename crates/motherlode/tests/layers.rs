//! Holds the direction of imports: inside the library each room imports only rooms before it in this order.
#![expect(clippy::unwrap_used, reason = "a test stops where something unexpected happens")]

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms in order; those of one line may import one another.
const ORDER: [&[&str]; 28] = [
    &["error"],
    &["config", "random", "progress", "mapped", "memory", "lines", "html", "database", "untied"],
    &["gguf"],
    &["engine"],
    &["artefact"],
    &["corpus"],
    &["queries"],
    &["qrels"],
    &["run"],
    &["text"],
    &["dataset"],
    &["fetch"],
    &["llm"],
    &["encode"],
    &["index"],
    &["search"],
    &["fuse"],
    &["mine"],
    &["judge"],
    &["what_if"],
    &["generate"],
    &["topic"],
    &["sample"],
    &["batch"],
    &["evaluate"],
    &["train"],
    &["instruct"],
    &["report", "inspect", "recipe"],
];

fn level(room: &str) -> Option<usize> {
    ORDER.iter().position(|rooms| rooms.contains(&room))
}

fn source_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { source_files(&path) } else { vec![path] }).collect()
}

/// The rooms that a file names behind `crate::`; its tests may use what they need.
fn imported(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let code: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let room = |rest: &str| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
    code.split("crate::").skip(1).map(room).collect()
}

#[test]
fn rooms_import_only_rooms_before_them() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for path in source_files(&source) {
        let inside = path.strip_prefix(&source).unwrap();
        let first = inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        if first == "lib" {
            continue;
        }
        let own = level(first).unwrap_or_else(|| panic!("{first} has no place in the order of rooms"));
        for room in imported(&fs::read_to_string(&path).unwrap()) {
            if level(&room).is_some_and(|level| level > own) {
                wrong.push(format!("{} imports {room}", inside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports against the direction:\n{}", wrong.join("\n"));
}

#[test]
fn report_and_inspect_are_imported_by_nobody_but_the_recipe() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for path in source_files(&source) {
        let inside = path.strip_prefix(&source).unwrap().to_str().unwrap();
        let imports = imported(&fs::read_to_string(&path).unwrap());
        for room in ["report", "inspect"] {
            if !inside.starts_with(room) && !inside.starts_with("recipe") {
                assert!(!imports.contains(&room.to_owned()), "{inside} imports {room}");
            }
        }
    }
}
