//! Measuring a run file against a qrels file alone, with no data set at hand, as `trec_eval` is used.
//!
//! Ids are not looked up anywhere: a passage that only the run knows counts as unjudged, a query that only the run
//! knows is left out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read;
use std::path::Path;

use rayon::prelude::*;

use super::{Graded, Measure, Values};
use crate::error::{Error, Result};

/// The text of a file, unpacked where its name ends in `.gz`.
pub fn read_text(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    crate::lines::open(path)?.read_to_end(&mut bytes).map_err(Error::io(path))?;
    String::from_utf8(bytes).map_err(|error| Error::file(path, format!("{error}; convert the file to UTF-8")))
}

/// A TREC run: for every query its passages with their scores, in the order of the file.
#[derive(Debug, Default)]
pub struct RunText<'a> {
    rankings: BTreeMap<&'a str, Vec<(f32, &'a str)>>,
}

impl<'a> RunText<'a> {
    /// Parses `query-id Q0 passage-id rank score tag` lines; `path` is named in errors.
    ///
    /// # Errors
    /// Another number of columns, a score that is no finite number, a passage twice for a query.
    pub fn parse(path: &Path, text: &'a str) -> Result<Self> {
        let parts = parse_parts(path, text, |part| {
            let mut groups: Vec<(&str, Vec<(f32, &str)>)> = Vec::new();
            for (number, line) in lines(part) {
                let (query, passage, score) = run_line(line).map_err(|message| (number, message))?;
                match groups.last_mut() {
                    Some((last, ranking)) if *last == query => ranking.push((score, passage)),
                    _ => groups.push((query, vec![(score, passage)])),
                }
            }
            Ok(groups)
        })?;
        let mut rankings: BTreeMap<&str, Vec<(f32, &str)>> = BTreeMap::new();
        for (query, ranking) in parts.into_iter().flatten() {
            rankings.entry(query).or_default().extend(ranking);
        }
        let run = Self { rankings };
        match run.rankings.par_iter().find_map_first(|(query, ranking)| Some((*query, repeated(ranking)?))) {
            Some((query, passage)) => Err(listed_twice(path, text, (query, passage))),
            None => Ok(run),
        }
    }

    /// The measures of every judged query, in byte order of their ids.
    ///
    /// *Order and ties*: as `trec_eval` sorts. `complete` is its flag -c: judged queries without a ranking count 0.
    pub fn measure(&self, qrels: &QrelsText<'_>, measures: &[Measure], complete: bool) -> Vec<(String, Values)> {
        let judged: Vec<(&str, &HashMap<&str, i32>)> = qrels.grades.iter().map(|(id, grades)| (*id, grades)).collect();
        let scored = judged.par_iter().filter(|(query, _)| complete || self.rankings.contains_key(query));
        let graded = |query: &str, grades| grade(self.rankings.get(query).map_or(&[][..], Vec::as_slice), grades);
        scored.map(|(query, grades)| ((*query).to_owned(), graded(query, grades).values(measures))).collect()
    }
}

/// TREC qrels: for every query its judged passages with their grades.
#[derive(Debug, Default)]
pub struct QrelsText<'a> {
    grades: BTreeMap<&'a str, HashMap<&'a str, i32>>,
}

impl<'a> QrelsText<'a> {
    /// Parses `query-id ignored passage-id grade` lines; `path` is named in errors.
    ///
    /// # Errors
    /// Another number of columns, a grade that is no integer, a pair judged twice.
    pub fn parse(path: &Path, text: &'a str) -> Result<Self> {
        let mut grades: BTreeMap<&str, HashMap<&str, i32>> = BTreeMap::new();
        for (number, line) in lines(text) {
            let (query, passage, grade) = qrels_line(line).map_err(|message| Error::line(path, number, message))?;
            if grades.entry(query).or_default().insert(passage, grade).is_some() {
                let message = format!("query `{query}` and passage `{passage}` are judged twice; keep one line");
                return Err(Error::line(path, number, message));
            }
        }
        Ok(Self { grades })
    }
}

fn grade(ranking: &[(f32, &str)], grades: &HashMap<&str, i32>) -> Graded {
    let mut sorted = ranking.to_vec();
    sorted.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then_with(|| b.1.cmp(a.1)));
    let hit = |(rank, (_, passage)): (usize, &(f32, &str))| grades.get(passage).map(|grade| (rank, *grade));
    Graded::from_hits(sorted.iter().enumerate().filter_map(hit).collect(), sorted.len(), grades.values().copied())
}

fn run_line(line: &str) -> std::result::Result<(&str, &str, f32), String> {
    let mut fields = line.split_ascii_whitespace();
    let columns = [(); 6].map(|()| fields.next());
    let ([Some(query), _, Some(passage), _, Some(score), Some(_)], None) = (columns, fields.next()) else {
        let count = line.split_ascii_whitespace().count();
        return Err(format!("expected 6 columns `query-id Q0 passage-id rank score tag`, got {count}"));
    };
    let parsed = score.parse().ok().filter(|score: &f32| score.is_finite());
    let score = parsed.ok_or_else(|| format!("expected a finite score, got `{score}`"))?;
    Ok((query, passage, score + 0.0))
}

fn qrels_line(line: &str) -> std::result::Result<(&str, &str, i32), String> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [query, _, passage, grade] = fields[..] else {
        return Err(format!("expected 4 columns `query-id Q0 passage-id grade`, got {}", fields.len()));
    };
    let grade = grade.parse().map_err(|_| format!("expected an integer grade, got `{grade}`"))?;
    Ok((query, passage, grade))
}

/// Lines that are not blank, with their numbers from 1.
fn lines(text: &str) -> impl Iterator<Item = (u64, &str)> {
    (1..).zip(text.split('\n')).filter(|(_, line)| !line.trim_ascii().is_empty())
}

/// Parses parts of a text on all threads, in order; a part's error holds the line number within it.
fn parse_parts<'a, T: Send>(
    path: &Path,
    text: &'a str,
    parse: impl Fn(&'a str) -> std::result::Result<T, (u64, String)> + Sync,
) -> Result<Vec<T>> {
    let parts = split_at_lines(text, rayon::current_num_threads() * 4);
    let parsed: Vec<std::result::Result<T, (u64, String)>> = parts.par_iter().map(|part| parse(part)).collect();
    let mut before = 0;
    let mut results = Vec::new();
    for (part, result) in parts.iter().zip(parsed) {
        results.push(result.map_err(|(number, message)| Error::line(path, before + number, message))?);
        before += part.bytes().filter(|byte| *byte == b'\n').count() as u64;
    }
    Ok(results)
}

/// Cuts a text into at most `count` parts of whole lines.
fn split_at_lines(mut text: &str, count: usize) -> Vec<&str> {
    let size = text.len() / count + 1;
    let mut parts = Vec::new();
    while text.len() > size {
        let Some(end) = text.as_bytes()[size..].iter().position(|byte| *byte == b'\n') else { break };
        let (part, rest) = text.split_at(size + end + 1);
        parts.push(part);
        text = rest;
    }
    parts.push(text);
    parts
}

fn repeated<'a>(ranking: &[(f32, &'a str)]) -> Option<&'a str> {
    let mut seen = HashSet::with_capacity(ranking.len());
    ranking.iter().map(|(_, passage)| *passage).find(|passage| !seen.insert(*passage))
}

/// The error for a pair that a run lists twice, at its second line.
fn listed_twice(path: &Path, text: &str, pair: (&str, &str)) -> Error {
    let is_pair = |line: &str| run_line(line).is_ok_and(|(query, passage, _)| (query, passage) == pair);
    let number = lines(text).filter(|(_, line)| is_pair(line)).nth(1).map_or(0, |(number, _)| number);
    Error::line(path, number, format!("passage `{}` is listed twice for query `{}`; keep one line", pair.1, pair.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_alone_give_trec_evals_values() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/evaluate");
        for case in 0..4 {
            let read = |extension: &str| read_text(&folder.join(format!("{case}.{extension}"))).unwrap();
            let (run, qrels, expected) = (read("trec"), read("qrels"), read("json"));
            let expected: serde_json::Value = serde_json::from_str(&expected).unwrap();
            let measures: Vec<Measure> =
                expected["found"].as_object().unwrap().keys().map(|name| name.parse().unwrap()).collect();
            let (run, qrels) = (RunText::parse(&folder, &run).unwrap(), QrelsText::parse(&folder, &qrels).unwrap());
            let rows = run.measure(&qrels, &measures, false);
            assert_eq!(rows.len(), expected["per_query"].as_object().unwrap().len());
            for (query, values) in rows {
                for (measure, value) in values {
                    let expected = expected["per_query"][&query][measure.to_string()].as_f64().unwrap();
                    assert!((value - expected).abs() < 1e-12, "{query} {measure}: {value} is not {expected}");
                }
            }
            assert_eq!(run.measure(&qrels, &measures, true).len(), qrels.grades.len());
        }
    }

    #[test]
    fn bad_lines_are_named() {
        let path = Path::new("x.trec");
        let good: String = (0..100).map(|number| format!("q Q0 p{number} 1 2.5 x\r\n\n")).collect();
        assert_eq!(RunText::parse(path, &good).unwrap().rankings["q"].len(), 100);
        for (line, expected) in [
            ("q Q0 d 1 2.5", "x.trec:201: expected 6 columns `query-id Q0 passage-id rank score tag`, got 5"),
            ("q Q0 d 1 2.5 x y", "x.trec:201: expected 6 columns"),
            ("q Q0 d 1 NaN x", "x.trec:201: expected a finite score, got `NaN`"),
            ("q Q0 p7 1 2.5 x", "x.trec:201: passage `p7` is listed twice for query `q`; keep one line"),
        ] {
            let message = RunText::parse(path, &format!("{good}{line}")).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        for (text, expected) in [
            ("q 0 d", "x.trec:1: expected 4 columns"),
            ("q 0 d one", "x.trec:1: expected an integer grade, got `one`"),
            ("q 0 d 1\nq 0 d 0", "x.trec:2: query `q` and passage `d` are judged twice"),
        ] {
            let message = QrelsText::parse(path, text).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
