//! Writes a data set in a public layout, so that other tools read it: the counterpart of the readers.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use parquet::errors::ParquetError;
use serde_json::json;

use crate::artefact::write_whole;
use crate::dataset::{Dataset, JudgedQueries, Partition, Split};
use crate::error::{Error, Result};
use crate::queries::{Queries, Query};

use super::dataset::Layout;
use super::parquet::TableWriter;

/// Writes every language into its own folder inside `folder`, in the given layout; existing files are replaced.
///
/// BEIR's folders each hold one data set. Reading what was written gives the same passages, queries and judgements.
///
/// # Errors
/// The file system refuses; for BEIR, one query id with two texts in train and dev.
pub fn export(dataset: &Dataset, layout: Layout, folder: &Path) -> Result<()> {
    for partition in &dataset.partitions {
        let folder = folder.join(partition.language.as_str());
        match layout {
            Layout::Miracl => miracl(partition, &folder)?,
            Layout::Beir => beir(partition, &folder)?,
            Layout::Parquet => parquet(partition, &folder)?,
        }
    }
    Ok(())
}

fn splits(partition: &Partition) -> impl Iterator<Item = (Split, &JudgedQueries)> {
    Split::ALL.into_iter().filter_map(|split| Some((split, partition.split(split).ok()?)))
}

/// Calls `visit` with query id, passage id and grade of every judgement.
fn each_judgement(
    partition: &Partition,
    rows: &JudgedQueries,
    mut visit: impl FnMut(&str, &str, i32) -> Result<()>,
) -> Result<()> {
    for (index, query) in rows.queries.iter() {
        for (passage, grade) in rows.qrels.judged(index) {
            visit(&query.id, partition.corpus.id(*passage), *grade)?;
        }
    }
    Ok(())
}

fn write_line(output: &mut BufWriter<File>, path: &Path, line: &impl std::fmt::Display) -> Result<()> {
    writeln!(output, "{line}").map_err(Error::io(path))
}

fn miracl(partition: &Partition, folder: &Path) -> Result<()> {
    let path = folder.join("corpus.jsonl");
    write_whole(&path, |output| {
        partition.corpus.iter().try_for_each(|passage| {
            let line = json!({"docid": passage.id, "title": passage.title, "text": passage.text});
            write_line(output, &path, &line)
        })
    })?;
    for (split, rows) in splits(partition) {
        let path = folder.join(format!("topics.{}.tsv", split.name()));
        write_whole(&path, |output| rows.queries.write_tsv(output, &path))?;
        let path = folder.join(format!("qrels.{}.tsv", split.name()));
        write_whole(&path, |output| rows.qrels.write(output, &path, &rows.queries, &partition.corpus))?;
    }
    Ok(())
}

fn beir(partition: &Partition, folder: &Path) -> Result<()> {
    let path = folder.join("corpus.jsonl");
    write_whole(&path, |output| {
        partition.corpus.iter().try_for_each(|passage| {
            let line = json!({"_id": passage.id, "title": passage.title, "text": passage.text});
            write_line(output, &path, &line)
        })
    })?;
    let queries = all_queries(partition)?;
    let path = folder.join("queries.jsonl");
    write_whole(&path, |output| {
        let mut lines = queries.iter().map(|(_, query)| json!({"_id": query.id, "text": query.text}));
        lines.try_for_each(|line| write_line(output, &path, &line))
    })?;
    for (split, rows) in splits(partition) {
        let path = folder.join(format!("qrels/{}.tsv", split.name()));
        write_whole(&path, |output| {
            write_line(output, &path, &"query-id\tcorpus-id\tscore")?;
            each_judgement(partition, rows, |query, passage, grade| {
                write_line(output, &path, &format_args!("{query}\t{passage}\t{grade}"))
            })
        })?;
    }
    Ok(())
}

/// The queries of both splits; BEIR keeps them in one file.
fn all_queries(partition: &Partition) -> Result<Queries> {
    let mut all = Queries::default();
    for (_, rows) in splits(partition) {
        for (_, query) in rows.queries.iter() {
            match all.find(&query.id).map(|index| all.query(index)) {
                Some(Query { text, .. }) if *text != query.text => {
                    let message =
                        format!("query id `{}` has another text in train than in dev; make ids unique", query.id);
                    return Err(Error::data(message));
                }
                Some(_) => {}
                None => drop(all.push(query.clone())?),
            }
        }
    }
    Ok(all)
}

fn parquet(partition: &Partition, folder: &Path) -> Result<()> {
    let corpus = &partition.corpus;
    table(&folder.join("corpus.parquet"), (&["docid", "title", "text"], &[]), |push| {
        corpus.iter().try_for_each(|passage| push(&[passage.id, passage.title, passage.text], &[]))
    })?;
    for (split, rows) in splits(partition) {
        table(&folder.join(format!("queries.{}.parquet", split.name())), (&["id", "text"], &[]), |push| {
            rows.queries.iter().try_for_each(|(_, query)| push(&[&query.id, &query.text], &[]))
        })?;
        let columns: (&[&str], &[&str]) = (&["query-id", "corpus-id"], &["score"]);
        table(&folder.join(format!("qrels.{}.parquet", split.name())), columns, |push| {
            each_judgement(partition, rows, |query, passage, grade| push(&[query, passage], &[grade.into()]))
        })?;
    }
    Ok(())
}

type PushRow<'p> = dyn FnMut(&[&str], &[i64]) -> Result<()> + 'p;

/// Writes one Parquet file; `columns` are the names of the texts and of the numbers.
fn table(path: &Path, columns: (&[&str], &[&str]), rows: impl FnOnce(&mut PushRow<'_>) -> Result<()>) -> Result<()> {
    let refused = |error: ParquetError| Error::file(path, format!("cannot be written: {error}"));
    write_whole(path, |output| {
        let mut writer = TableWriter::new(output, columns.0, columns.1).map_err(refused)?;
        rows(&mut |texts, numbers| writer.push(texts, numbers).map_err(refused))?;
        writer.finish().map_err(refused)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::artefact::Artefact;
    use crate::corpus::Language;
    use crate::fetch::{DatasetConfig, dataset};
    use crate::progress::Progress;

    fn fetch(source: &Path, layout: Layout, out: &Path) -> Result<Artefact> {
        let languages = vec![Language::new("sw").unwrap()];
        let config = DatasetConfig { source: source.display().to_string(), layout, languages, ..Default::default() };
        dataset(&config, 1, out, &Progress::silent())
    }

    /// A data set in MIRACL's layout, with what needs care: quotes, no title, grades 0 and 2, several scripts.
    fn original(folder: &Path) -> Artefact {
        let sw = folder.join("miracl/sw");
        fs::create_dir_all(&sw).unwrap();
        let corpus = "{\"docid\":\"a#0\",\"title\":\"M\\\"aji\",\"text\":\"水 \\t maji\"}\n{\"docid\":\"a#1\",\"text\":\"ya\"}\n";
        fs::write(sw.join("corpus.jsonl"), corpus).unwrap();
        fs::write(sw.join("topics.train.tsv"), "1\tMaji?\n2\tYa?\n").unwrap();
        fs::write(sw.join("qrels.train.tsv"), "1 0 a#0 2\n1 0 a#1 0\n2 0 a#1 1\n").unwrap();
        fs::write(sw.join("topics.dev.tsv"), "3\t水は?\n").unwrap();
        fs::write(sw.join("qrels.dev.tsv"), "3 0 a#0 1\n").unwrap();
        fetch(&folder.join("miracl"), Layout::Miracl, &folder.join("original")).unwrap()
    }

    fn digests(artefact: &Artefact) -> Vec<(String, String)> {
        artefact.manifest().files.iter().map(|file| (file.path.clone(), file.blake3.clone())).collect()
    }

    #[test]
    fn every_layout_reads_back_what_it_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let artefact = original(folder.path());
        let data = Dataset::open(&artefact).unwrap();
        for (layout, inside) in
            [(Layout::Miracl, ""), (Layout::Beir, "sw"), (Layout::Parquet, ""), (Layout::Parquet, "sw")]
        {
            let name = format!("{layout:?}{inside}");
            let written = folder.path().join(&name);
            export(&data, layout, &written).unwrap();
            let again = fetch(&written.join(inside), layout, &folder.path().join(format!("{name}.out"))).unwrap();
            assert_eq!(digests(&again), digests(&artefact), "{name}");
            assert_eq!(again.summary(), artefact.summary(), "{name}");
        }
    }

    #[test]
    fn truncated_or_foreign_parquet_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let data = Dataset::open(&original(folder.path())).unwrap();
        let written = folder.path().join("parquet");
        export(&data, Layout::Parquet, &written).unwrap();
        let message = || fetch(&written, Layout::Parquet, &folder.path().join("out")).unwrap_err().to_string();
        let corpus = written.join("sw/corpus.parquet");
        let whole = fs::read(&corpus).unwrap();
        fs::write(&corpus, &whole[..whole.len() - 10]).unwrap();
        assert!(message().contains("corpus.parquet: expected a whole Parquet file"), "{}", message());
        fs::copy(written.join("sw/qrels.dev.parquet"), &corpus).unwrap();
        assert!(
            message().contains("expected a column `docid` or `_id`, got query-id, corpus-id, score"),
            "{}",
            message()
        );
        table(&corpus, (&["docid", "text"], &[]), |push| push(&["a", "x"], &[]).and_then(|()| push(&["a", "y"], &[])))
            .unwrap();
        assert!(message().contains("corpus.parquet:2: the passage id `a` stands at"), "{}", message());
        table(&corpus, (&["docid", "text"], &[]), |_| Ok(())).unwrap();
        assert!(message().contains("the corpus is empty"), "{}", message());
        assert!(!folder.path().join("out").exists());
    }

    #[test]
    fn beir_needs_its_language_its_header_and_the_right_split_names() {
        let folder = tempfile::tempdir().unwrap();
        let data = Dataset::open(&original(folder.path())).unwrap();
        export(&data, Layout::Beir, &folder.path().join("beir")).unwrap();
        let source = folder.path().join("beir/sw");
        let out = folder.path().join("out");
        let run = |languages: &[&str], dev: &str| {
            let languages = languages.iter().map(|tag| Language::new(tag).unwrap()).collect();
            let config = DatasetConfig {
                source: source.display().to_string(),
                layout: Layout::Beir,
                languages,
                dev_split: dev.into(),
                ..Default::default()
            };
            dataset(&config, 1, &out, &Progress::silent())
        };
        assert!(run(&[], "dev").unwrap_err().to_string().contains("holds one language"));
        fs::rename(source.join("qrels/dev.tsv"), source.join("qrels/test.tsv")).unwrap();
        let artefact = run(&["sw"], "test").unwrap();
        assert_eq!(artefact.summary().counts["sw: dev queries"], 1);
        fs::remove_file(source.join("qrels/train.tsv")).unwrap();
        let message = run(&["sw"], "dev").unwrap_err().to_string();
        assert!(message.contains("test.tsv") && message.contains("dev_split"), "{message}");
        fs::write(source.join("qrels/test.tsv"), "3\ta#0\t1\n").unwrap();
        let message = run(&["sw"], "test").unwrap_err().to_string();
        assert!(message.contains("test.tsv:1: expected the header"), "{message}");
    }
}
