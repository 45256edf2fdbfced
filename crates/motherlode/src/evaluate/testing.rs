//! Small data sets and runs as artefacts, for the tests of this room.

use std::io::Write;
use std::path::Path;

use crate::artefact::{self, Artefact, Draft, Outcome, Recipe, Summary};
use crate::corpus::{CorpusWriter, Passage};
use crate::dataset::Dataset;
use crate::error::{Error, Result};

/// One language: number of passages `p0`, `p1`, …; queries of the splits; qrels of dev.
pub(super) struct Language<'a> {
    pub(super) tag: &'a str,
    pub(super) passages: usize,
    pub(super) train: &'a str,
    pub(super) dev: &'a str,
    pub(super) qrels: &'a str,
}

/// A data set as `fetch` writes it.
pub(super) fn dataset(folder: &Path, languages: &[Language<'_>]) -> Dataset {
    let mut draft = begin(&folder.join("data"), "fetch", "");
    for language in languages {
        passages(&mut draft, language).unwrap();
        let mut file = |name: &str, text: &str| put(&mut draft, &format!("{}/{name}.tsv", language.tag), text);
        file("queries.dev", language.dev);
        file("qrels.dev", language.qrels);
        if !language.train.is_empty() {
            file("queries.train", language.train);
            file("qrels.train", "");
        }
    }
    Dataset::open(&draft.commit(Summary::default()).unwrap()).unwrap()
}

/// A run as `search` writes it, from (file, content).
pub(super) fn run(folder: &Path, name: &str, files: &[(&str, String)]) -> Artefact {
    let content: String = files.iter().map(|(_, text)| text.as_str()).collect();
    let mut draft = begin(&folder.join(name), "search", &content);
    for (file, text) in files {
        put(&mut draft, file, text);
    }
    draft.commit(Summary::default()).unwrap()
}

fn begin(folder: &Path, stage: &str, content: &str) -> Draft {
    let config = serde_json::json!({ "content": content });
    match artefact::draft(folder, Recipe::new(stage, 1, &config).unwrap()).unwrap() {
        Outcome::Write(draft) => draft,
        Outcome::UpToDate(_) => panic!("{} was written before", folder.display()),
    }
}

fn put(draft: &mut Draft, file: &str, text: &str) {
    let path = draft.path(file);
    draft.write(file, |output| output.write_all(text.as_bytes()).map(|()| 1).map_err(Error::io(&path))).unwrap();
}

fn passages(draft: &mut Draft, language: &Language<'_>) -> Result<()> {
    let file = format!("{}/passages.bin", language.tag);
    let path = draft.path(&file);
    draft.write(&file, |output| {
        let mut writer = CorpusWriter::new(output, &path)?;
        for number in 0..language.passages {
            writer.push(Passage { id: &format!("p{number}"), title: "", text: "text" })?;
        }
        writer.finish()
    })
}
