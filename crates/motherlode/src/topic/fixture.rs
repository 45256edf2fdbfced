//! Small data sets for the tests of this room and the ones after it.

use std::io::Write;
use std::path::Path;

use crate::artefact::{self, Artefact, Draft, Outcome, Recipe, Summary};
use crate::corpus::{CorpusWriter, Passage};
use crate::dataset::{Dataset, Split};
use crate::error::Error;

/// One language of a data set to be: passages as (id, title, text); per split the lines of its queries and qrels files.
pub(crate) struct Sketch {
    pub(crate) language: &'static str,
    pub(crate) passages: Vec<(String, String, String)>,
    pub(crate) splits: Vec<(Split, String, String)>,
}

/// The data set, written below `folder`.
pub(crate) fn dataset(folder: &Path, sketches: &[Sketch]) -> Dataset {
    let artefact = write(&folder.join("dataset"), Recipe::new(Dataset::STAGE, 1, &()).unwrap(), |draft| {
        for sketch in sketches {
            let path = format!("{}/passages.bin", sketch.language);
            draft
                .write(&path, |output| {
                    let mut writer = CorpusWriter::new(output, folder)?;
                    for (id, title, text) in &sketch.passages {
                        writer.push(Passage { id, title, text })?;
                    }
                    writer.finish()
                })
                .unwrap();
            for (split, queries, qrels) in &sketch.splits {
                for (name, text) in [("queries", queries), ("qrels", qrels)] {
                    let path = format!("{}/{name}.{}.tsv", sketch.language, split.name());
                    draft
                        .write(&path, |output| output.write_all(text.as_bytes()).map(|()| 1).map_err(Error::io(folder)))
                        .unwrap();
                }
            }
        }
    });
    Dataset::open(&artefact).unwrap()
}

/// An artefact whose files `fill` writes.
pub(crate) fn write(folder: &Path, recipe: Recipe, fill: impl FnOnce(&mut Draft)) -> Artefact {
    match artefact::draft(folder, recipe).unwrap() {
        Outcome::UpToDate(artefact) => artefact,
        Outcome::Write(mut draft) => {
            fill(&mut draft);
            draft.commit(Summary::default()).unwrap()
        }
    }
}
