//! Reads every row of a language's files once and refuses what later stages could not use.
//!
//! Memory: 20 bytes a passage, and the queries and judgements themselves.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use rand::RngExt;

use crate::artefact::Summary;
use crate::corpus::{Corpus, Language};
use crate::dataset::Split;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::qrels::Qrels;
use crate::queries::{Queries, Query};

use super::dataset::{DatasetConfig, Layout, WithoutPositives};
use super::rows::{Judgement, LanguageFiles, Place, SplitFiles};

/// Checks languages, one independently of the other.
pub(super) struct Checker<'a> {
    pub(super) config: &'a DatasetConfig,
    pub(super) seed: u64,
    pub(super) progress: &'a Progress<'a>,
}

/// A language whose files have been read once and found good.
#[derive(Debug)]
pub(super) struct Checked {
    /// The queries that stay.
    pub(super) splits: BTreeMap<Split, CheckedSplit>,
    /// What was counted.
    pub(super) summary: Summary,
}

/// The queries of a split that stay, and their judgements.
#[derive(Debug, Default)]
pub(super) struct CheckedSplit {
    /// In input order.
    pub(super) queries: Queries,
    judgements: Vec<CheckedJudgement>,
}

#[derive(Debug)]
struct CheckedJudgement {
    query: String,
    passage: String,
    grade: i32,
}

impl CheckedSplit {
    /// The judgements by position in `corpus`, which holds the passages that were checked.
    pub(super) fn qrels(&self, corpus: &Corpus) -> Result<Qrels> {
        let mut qrels = Qrels::empty(self.queries.len());
        for row in &self.judgements {
            let gone = || Error::data(format!("`{}` vanished while the data set was read; try again", row.passage));
            let query = self.queries.find(&row.query).ok_or_else(gone)?;
            qrels.insert(query, corpus.find(&row.passage).ok_or_else(gone)?, row.grade);
        }
        Ok(qrels)
    }
}

impl Checker<'_> {
    /// Checks all files of a language.
    pub(super) fn language(&self, files: &LanguageFiles) -> Result<Checked> {
        let language = &files.language;
        let ids = PassageIds::read(self.config.layout, &files.corpus, self.progress)?;
        let mut summary = Summary::default();
        summary.count(format!("{language}: passages"), ids.len());
        let mut splits = BTreeMap::new();
        for (split, paths) in &files.splits {
            let rows = SplitRows::read(self.config.layout, paths, &ids)?;
            splits.insert(*split, self.split(language, *split, rows, &mut summary)?);
        }
        for split in Split::ALL.into_iter().filter(|split| !splits.contains_key(split)) {
            summary.note(format!("`{language}` has no {} queries", split.name()));
        }
        if splits.values().all(|split| split.queries.is_empty()) {
            let message = format!("`{language}`: expected queries of a split, there are none; check the splits' names");
            return Err(files.corpus.first().map_or_else(|| Error::data(&message), |path| Error::file(path, &message)));
        }
        Ok(Checked { splits, summary })
    }

    /// Decides which queries stay, and counts.
    fn split(
        &self,
        language: &Language,
        split: Split,
        rows: SplitRows<'_>,
        summary: &mut Summary,
    ) -> Result<CheckedSplit> {
        let name = format!("{language}: {}", split.name());
        let without = rows.without_positives();
        if !without.is_empty() && self.config.queries_without_positives == WithoutPositives::Error {
            return Err(rows.no_positive(&without));
        }
        summary.count(format!("{name} queries dropped: no positive"), without.len());
        let mut kept: Vec<&Row> = rows.queries.iter().filter(|row| !without.contains(&row.id)).collect();
        if let (Split::Train, Some(limit)) = (split, self.config.train_queries) {
            let before = kept.len();
            kept = self.choose(language, kept, limit);
            summary.count(format!("{name} queries dropped: not chosen"), before - kept.len());
        }
        let mut checked = CheckedSplit::default();
        for row in kept {
            checked.queries.push(Query { id: row.id.clone(), text: row.text.clone() })?;
        }
        checked.judgements =
            rows.judgements.into_iter().filter(|row| checked.queries.find(&row.query).is_some()).collect();
        let unrelevant = checked.judgements.iter().filter(|row| row.grade <= 0).count();
        summary.count(format!("{name} queries"), checked.queries.len());
        summary.count(format!("{name} judgements"), checked.judgements.len());
        summary.count(format!("{name} judgements of grade 0"), unrelevant);
        Ok(checked)
    }

    /// `limit` queries by a draw for each, in input order; a smaller limit chooses a part of what a larger one does.
    fn choose<'r>(&self, language: &Language, queries: Vec<&'r Row>, limit: usize) -> Vec<&'r Row> {
        let draw = |row: &Row| {
            let item = format!("{language}/{}", row.id);
            crate::random::keyed(self.seed, "fetch: train queries", &item).random::<u64>()
        };
        let mut drawn: Vec<(u64, usize)> = queries.iter().enumerate().map(|(place, row)| (draw(row), place)).collect();
        drawn.sort_unstable();
        let chosen: HashSet<usize> = drawn.into_iter().take(limit).map(|(_, place)| place).collect();
        queries.into_iter().enumerate().filter(|(place, _)| chosen.contains(place)).map(|(_, row)| row).collect()
    }
}

/// A query with its line.
#[derive(Debug)]
struct Row {
    line: u64,
    id: String,
    text: String,
}

/// What stands in the files of a split.
struct SplitRows<'a> {
    paths: &'a SplitFiles,
    queries: Vec<Row>,
    judgements: Vec<CheckedJudgement>,
}

impl<'a> SplitRows<'a> {
    fn read(layout: Layout, paths: &'a SplitFiles, ids: &PassageIds) -> Result<Self> {
        let mut queries = read_queries(layout, &paths.queries)?;
        let known: HashSet<&str> = queries.iter().map(|row| row.id.as_str()).collect();
        let mut lines = HashMap::new();
        let mut judgements = Vec::new();
        layout.judgements(&paths.qrels, &mut |place, row| {
            let checked = check_judgement(place, row, &known, ids)?;
            match lines.entry((checked.query.clone(), checked.passage.clone())) {
                Entry::Occupied(first) => Err(judged_twice(place, row, *first.get())),
                Entry::Vacant(entry) => {
                    entry.insert(place.line);
                    judgements.push(checked);
                    Ok(())
                }
            }
        })?;
        if layout.shares_queries() {
            let judged: HashSet<&str> = judgements.iter().map(|row| row.query.as_str()).collect();
            queries.retain(|row| judged.contains(row.id.as_str()));
        }
        Ok(Self { paths, queries, judgements })
    }

    fn without_positives(&self) -> HashSet<String> {
        let positive = self.judgements.iter().filter(|row| row.grade >= 1).map(|row| row.query.as_str());
        let positive: HashSet<&str> = positive.collect();
        let without = self.queries.iter().filter(|row| !positive.contains(row.id.as_str()));
        without.map(|row| row.id.clone()).collect()
    }

    fn no_positive(&self, without: &HashSet<String>) -> Error {
        let first = self.queries.iter().find(|row| without.contains(&row.id));
        let (line, id) = first.map_or((1, ""), |row| (row.line, row.id.as_str()));
        let message = format!(
            "query `{id}`{} without a passage of grade 1 or above in {}; judge one, remove the query, or set \
             queries_without_positives = \"skip\"",
            if without.len() == 1 { " is".to_owned() } else { format!(" and {} more are", without.len() - 1) },
            self.paths.qrels.display()
        );
        Error::line(&self.paths.queries, line, message)
    }
}

fn read_queries(layout: Layout, path: &Path) -> Result<Vec<Row>> {
    let mut queries: Vec<Row> = Vec::new();
    let mut lines: HashMap<String, u64> = HashMap::new();
    layout.queries(path, &mut |place, id, text| {
        if let Some(first) = lines.insert(id.to_owned(), place.line) {
            return Err(twice(place, "query", id, (path, first)));
        }
        queries.push(Row { line: place.line, id: id.to_owned(), text: text.to_owned() });
        Ok(())
    })?;
    Ok(queries)
}

fn check_judgement(
    place: Place<'_>,
    row: Judgement<'_>,
    queries: &HashSet<&str>,
    passages: &PassageIds,
) -> Result<CheckedJudgement> {
    let Judgement { query, passage, grade } = row;
    if !queries.contains(query) {
        return Err(place.error(format!("no query has the id `{query}`; qrels and queries must match")));
    }
    if !passages.contains(passage) {
        return Err(place.error(format!("no passage has the id `{passage}`; qrels and corpus must match")));
    }
    let whole = grade.parse().map_err(|_| place.error(format!("expected a whole number as grade, got `{grade}`")))?;
    Ok(CheckedJudgement { query: query.to_owned(), passage: passage.to_owned(), grade: whole })
}

fn judged_twice(place: Place<'_>, row: Judgement<'_>, first: u64) -> Error {
    let Judgement { query, passage, .. } = row;
    place.error(format!("query `{query}` and passage `{passage}` are judged in line {first} already; keep one line"))
}

fn twice(place: Place<'_>, what: &str, id: &str, (path, line): (&Path, u64)) -> Error {
    let first = format!("{}:{line}", path.display());
    place.error(format!("the {what} id `{id}` stands at {first} already; make ids unique"))
}

/// The ids of a corpus by digest, in ascending order of the digests, with the rows they stand in.
struct PassageIds(Vec<([u8; 16], u32)>);

impl PassageIds {
    fn read(layout: Layout, files: &[PathBuf], progress: &Progress<'_>) -> Result<Self> {
        let mut ids = Vec::new();
        for path in files {
            layout.passages(path, &mut |place, passage| {
                let row = u32::try_from(ids.len())
                    .map_err(|_| place.error("more than 4,294,967,295 passages of a language; split the corpus"))?;
                ids.push((digest(passage.id), row));
                Ok(())
            })?;
            progress.advance(1);
        }
        ids.sort_unstable();
        if let Some(pair) = ids.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(repeated(layout, files, [pair[0].1, pair[1].1]));
        }
        match files.first() {
            Some(path) if ids.is_empty() => Err(Error::file(path, "expected passages, the corpus is empty")),
            _ => Ok(Self(ids)),
        }
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn contains(&self, id: &str) -> bool {
        let wanted = digest(id);
        self.0.binary_search_by(|(digest, _)| digest.cmp(&wanted)).is_ok()
    }
}

/// 128 bits of BLAKE3: among 100 million ids the chance that two different ones meet is below 10⁻²².
fn digest(id: &str) -> [u8; 16] {
    blake3::hash(id.as_bytes()).as_bytes()[..16].try_into().expect("sixteen bytes")
}

/// Reads the files once more to say where the two rows stand.
fn repeated(layout: Layout, files: &[PathBuf], rows: [u32; 2]) -> Error {
    let mut row = 0;
    let mut first: Option<(PathBuf, u64)> = None;
    for path in files {
        let found = layout.passages(path, &mut |place, passage| {
            let error = match &first {
                Some((path, line)) if row == rows[1] => Err(twice(place, "passage", passage.id, (path, *line))),
                _ => Ok(()),
            };
            if row == rows[0] {
                first = Some((place.path.to_path_buf(), place.line));
            }
            row += 1;
            error
        });
        if let Err(error) = found {
            return error;
        }
    }
    Error::data("the corpus changed while it was read; try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smaller_limit_chooses_a_part_of_what_a_larger_one_does() {
        let config = DatasetConfig::default();
        let progress = Progress::silent();
        let checker = Checker { config: &config, seed: 5, progress: &progress };
        let rows: Vec<Row> = (0..50).map(|line| Row { line, id: format!("q{line}"), text: String::new() }).collect();
        let language = Language::new("sw").unwrap();
        let lines = |limit| -> Vec<u64> {
            checker.choose(&language, rows.iter().collect(), limit).iter().map(|row| row.line).collect()
        };
        let (ten, thirty) = (lines(10), lines(30));
        assert_eq!((ten.len(), thirty.len(), lines(80).len()), (10, 30, 50));
        assert!(ten.is_sorted() && ten.iter().all(|line| thirty.contains(line)));
    }
}
