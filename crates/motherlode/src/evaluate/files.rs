//! Measuring run files against qrels files alone, with no data set at hand, as `trec_eval` is used.
//!
//! Ids are not looked up anywhere: a passage that only the run knows counts as unjudged, a query that only the run
//! knows is left out and counted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use foldhash::{HashMap, HashSet, HashSetExt};
use rayon::prelude::*;

use super::{EvaluateConfig, FORMAT, Graded, Measure, Measured, Measurements, Pool, QueryMeasures, STAGE};
use crate::artefact::{self, Artefact, Outcome, Recipe, Summary};
use crate::corpus::Language;
use crate::error::{Error, Result};
use crate::lines::{self, Lines};
use crate::qrels;
use crate::run::{RunLine, listed_twice};

/// The count of queries that only a run knows.
pub const UNJUDGED_QUERIES: &str = "queries of the run that nobody judged";

/// The files of one language.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The language; `und`, undetermined, where nobody said.
    pub language: Language,
    /// A TREC run, plain or gzip.
    pub run: PathBuf,
    /// TREC qrels, plain or gzip.
    pub qrels: PathBuf,
}

/// The measures of every judged query by language, and their means, in memory.
///
/// # Errors
/// Two pairs of one language, a line that is none of a run or of qrels, a run of which no query is judged.
pub fn measure_files(files: &[Files], config: &EvaluateConfig) -> Result<Measurements> {
    config.validate()?;
    let mut summary = Summary::default();
    let measured = measure(files, config, &mut summary)?;
    let table = measured.table(None, config)?;
    let queries = measured.languages.into_iter().map(|(language, (_, queries))| (language, queries)).collect();
    Ok(Measurements { table, queries, summary })
}

/// The same as an artefact of the stage `evaluate`, which `compare` takes beside those of a data set.
pub fn evaluate_files(files: &[Files], config: &EvaluateConfig, out: &Path) -> Result<Artefact> {
    config.validate()?;
    let content = serde_json::json!({ "evaluate": config, "files": true });
    let mut recipe = Recipe::new(STAGE, FORMAT, &content)?;
    for Files { language, run, qrels } in files {
        recipe = recipe.input_key(&format!("{language} run"), &artefact::hash_file(run)?);
        recipe = recipe.input_key(&format!("{language} qrels"), &artefact::hash_file(qrels)?);
    }
    let draft = match artefact::draft(out, recipe)? {
        Outcome::UpToDate(artefact) => return Ok(artefact),
        Outcome::Write(draft) => draft,
    };
    let mut summary = Summary::default();
    measure(files, config, &mut summary)?.commit(draft, summary, None, config)
}

fn measure(files: &[Files], config: &EvaluateConfig, summary: &mut Summary) -> Result<Measured> {
    let mut measured = Measured::default();
    for (at, Files { language, run, qrels }) in files.iter().enumerate() {
        if files[..at].iter().any(|other| other.language == *language) {
            return Err(Error::config(format!(
                "`{language}` has two runs; evaluate each system on its own, then compare"
            )));
        }
        let (run_text, qrels_text) = (lines::read(run)?, lines::read(qrels)?);
        let parsed = RunText::parse(run, &run_text)?;
        let judged = QrelsText::parse(qrels, &qrels_text)?;
        let unknown = parsed.rankings.keys().filter(|query| !judged.grades.contains_key(*query));
        let (unknown, all) = (unknown.count(), parsed.rankings.len());
        if unknown == all {
            return Err(nothing_judged(run, qrels, &parsed, &judged));
        }
        summary.count(UNJUDGED_QUERIES, unknown);
        let rows = parsed.measure(&judged, &config.measures, config.complete);
        let pool = Pool { passages: None, declared: config.declared(language) };
        measured.add(language, pool, rows, summary);
    }
    Ok(measured)
}

fn nothing_judged(run: &Path, qrels: &Path, parsed: &RunText<'_>, judged: &QrelsText<'_>) -> Error {
    let first = |id: Option<&&str>| id.map_or("nothing".to_owned(), |id| format!("query `{id}`"));
    let (ours, theirs) = (first(parsed.rankings.keys().next()), first(judged.grades.keys().next()));
    let message = format!(
        "no query of the run is judged in {}: the run begins with {ours}, the qrels with {theirs}",
        qrels.display()
    );
    Error::file(run, message + "; are both of one split?")
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
        let parts = lines::parse_parts(path, 1, text, grouped)?;
        let mut rankings: BTreeMap<&str, Vec<(f32, &str)>> = BTreeMap::new();
        for (query, ranking) in parts.into_iter().flatten() {
            rankings.entry(query).or_default().extend(ranking);
        }
        let run = Self { rankings };
        match run.rankings.par_iter().find_map_first(|(query, ranking)| Some((*query, repeated(ranking)?))) {
            Some((query, passage)) => Err(listed_twice(path, query, passage)),
            None => Ok(run),
        }
    }

    /// The measures of every judged query, in byte order of their ids.
    ///
    /// *Order and ties*: as `trec_eval` sorts. `complete` is its flag -c: judged queries without a ranking count 0.
    pub fn measure(&self, qrels: &QrelsText<'_>, measures: &[Measure], complete: bool) -> Vec<QueryMeasures> {
        let judged: Vec<(&str, &Grades<'_>)> = qrels.grades.iter().map(|(id, grades)| (*id, grades)).collect();
        let scored = judged.par_iter().filter(|(query, _)| complete || self.rankings.contains_key(query));
        let graded = |query: &str, grades| grade(self.rankings.get(query).map_or(&[][..], Vec::as_slice), grades);
        scored.map(|(query, grades)| QueryMeasures::new(query, &graded(query, grades), measures)).collect()
    }
}

type Grades<'a> = HashMap<&'a str, i32>;

/// TREC qrels: for every query its judged passages with their grades.
#[derive(Debug, Default)]
pub struct QrelsText<'a> {
    grades: BTreeMap<&'a str, Grades<'a>>,
}

impl<'a> QrelsText<'a> {
    /// Parses `query-id ignored passage-id grade` lines; `path` is named in errors.
    ///
    /// # Errors
    /// Another number of columns, a grade that is no integer, a pair judged twice.
    pub fn parse(path: &Path, text: &'a str) -> Result<Self> {
        let parsed = lines::parse_parts(path, 1, text, judgements)?;
        let mut grades: BTreeMap<&str, Grades<'_>> = BTreeMap::new();
        for (query, passage, grade) in parsed.into_iter().flatten() {
            if grades.entry(query).or_default().insert(passage, grade).is_some() {
                return Err(judged_twice(path, text, (query, passage)));
            }
        }
        Ok(Self { grades })
    }
}

/// What some lines hold; or the number of a line and what is wrong with it.
type Parsed<T> = std::result::Result<Vec<T>, (u64, String)>;

/// A query and its passages with their scores.
type Ranked<'a> = (&'a str, Vec<(f32, &'a str)>);

/// Query, passage and grade of some lines.
fn judgements<'a>(lines: Lines<'a, '_>) -> Parsed<(&'a str, &'a str, i32)> {
    let parse = |line: &'a str| {
        let (query, passage, grade) = qrels::columns(line)?;
        Ok((query, passage, qrels::parse_grade(grade)?))
    };
    lines.map(|(number, line)| parse(line).map_err(|message| (number, message))).collect()
}

/// The error for a pair that stands twice in qrels, at its second line.
fn judged_twice(path: &Path, text: &str, pair: (&str, &str)) -> Error {
    let is_pair = |line: &str| qrels::columns(line).is_ok_and(|(query, passage, _)| (query, passage) == pair);
    let line = (1..).zip(text.split('\n')).filter(|(_, line)| is_pair(line)).nth(1).map_or(0, |(number, _)| number);
    let (query, passage) = pair;
    Error::line(path, line, format!("query `{query}` and passage `{passage}` are judged twice; keep one line"))
}

/// The passages of some lines, those of one query together as long as they follow each other.
fn grouped<'a>(lines: Lines<'a, '_>) -> Parsed<Ranked<'a>> {
    let mut groups: Vec<Ranked<'_>> = Vec::new();
    for (number, line) in lines {
        let RunLine { query, passage, score } = RunLine::parse(line).map_err(|message| (number, message))?;
        match groups.last_mut() {
            Some((last, ranking)) if *last == query => ranking.push((score, passage)),
            _ => groups.push((query, vec![(score, passage)])),
        }
    }
    Ok(groups)
}

fn grade(ranking: &[(f32, &str)], grades: &Grades<'_>) -> Graded {
    let hit = |(rank, passage): (usize, &str)| grades.get(passage).map(|grade| (rank, *grade));
    Graded::from_hits(in_order(ranking).enumerate().filter_map(hit).collect(), ranking.len(), grades.values().copied())
}

/// The passages by score, then by id, both descending.
///
/// Scores and places are sorted as integers, and ids are compared only where scores tie.
fn in_order<'a>(ranking: &[(f32, &'a str)]) -> impl Iterator<Item = &'a str> {
    let key = |(place, (score, _)): (usize, &(f32, &str))| (u64::from(!ascending_bits(*score)) << 32) | place as u64;
    let passage = move |key: u64| ranking[(key & 0xffff_ffff) as usize].1;
    let mut keys: Vec<u64> = ranking.iter().enumerate().map(key).collect();
    keys.sort_unstable();
    for tied in keys.chunk_by_mut(|a, b| a >> 32 == b >> 32).filter(|tied| tied.len() > 1) {
        tied.sort_unstable_by(|a, b| passage(*b).cmp(passage(*a)));
    }
    keys.into_iter().map(passage)
}

/// Bits that compare as integers like the numbers.
fn ascending_bits(score: f32) -> u32 {
    let bits = score.to_bits();
    if bits >> 31 == 1 { !bits } else { bits | (1 << 31) }
}

fn repeated<'a>(ranking: &[(f32, &'a str)]) -> Option<&'a str> {
    let mut seen = HashSet::with_capacity(ranking.len());
    ranking.iter().map(|(_, passage)| *passage).find(|passage| !seen.insert(*passage))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::corpus_of;
    use crate::evaluate::significance::mean;
    use crate::qrels::Qrels;
    use crate::queries::{Queries, Query};
    use crate::run::Run;
    use proptest::prelude::*;

    fn golden(case: usize) -> (PathBuf, PathBuf, serde_json::Value) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/evaluate");
        let file = |extension: &str| folder.join(format!("{case}.{extension}"));
        let expected = std::fs::read_to_string(file("json")).unwrap();
        (file("trec"), file("qrels"), serde_json::from_str(&expected).unwrap())
    }

    fn pair(run: &Path, qrels: &Path) -> [Files; 1] {
        [Files { language: Language::new("und").unwrap(), run: run.to_owned(), qrels: qrels.to_owned() }]
    }

    #[test]
    fn files_alone_give_trec_evals_values_with_and_without_c() {
        for (run, qrels, expected) in (0..6).map(golden) {
            let names = expected["found"].as_object().unwrap().keys();
            let measures: Vec<Measure> = names.map(|name| name.parse().unwrap()).collect();
            for (complete, means) in [(false, "found"), (true, "complete")] {
                let config = EvaluateConfig { measures: measures.clone(), complete, ..EvaluateConfig::default() };
                let Measurements { table, queries, .. } = measure_files(&pair(&run, &qrels), &config).unwrap();
                let (scored, judged) =
                    (&queries[&Language::new("und").unwrap()], expected["per_query"].as_object().unwrap());
                assert_eq!(scored.iter().filter(|row| row.retrieved > 0).count(), judged.len());
                for row in scored.iter().filter(|row| row.retrieved > 0) {
                    for (measure, value) in &row.values {
                        let expected = judged[&row.query][measure.to_string()].as_f64().unwrap();
                        assert!((value - expected).abs() < 1e-12, "{} {measure}: {value} {expected}", row.query);
                    }
                }
                for (measure, value) in &table.mean {
                    let expected = expected[means][measure.to_string()].as_f64().unwrap();
                    assert!((value - expected).abs() < 1e-12, "{means} {measure}: {value} is not {expected}");
                    let values: Vec<f64> = scored.iter().map(|row| row.values[measure]).collect();
                    assert!((value - mean(&values)).abs() < 1e-12);
                }
            }
        }
    }

    #[test]
    fn an_artefact_of_files_reads_like_one_of_a_data_set() {
        let folder = tempfile::tempdir().unwrap();
        let (run, qrels, _) = golden(0);
        let config = EvaluateConfig::default();
        let artefact = evaluate_files(&pair(&run, &qrels), &config, &folder.path().join("out")).unwrap();
        let (read, measured) = (Measurements::read(&artefact), measure_files(&pair(&run, &qrels), &config));
        let Measurements { table, queries, summary } = read.unwrap();
        let measured = measured.unwrap();
        assert_eq!((&table, &queries), (&measured.table, &measured.queries));
        assert_eq!((table.split, table.languages.len()), (None, 1));
        assert!(table.to_text().starts_with("     queries  found  unjudged@10  nDCG@10"), "{}", table.to_text());
        assert_eq!(summary.counts[UNJUDGED_QUERIES], 3);
        assert!(measured.summary.counts.iter().all(|(name, count)| summary.counts[name] == *count));
        let again = evaluate_files(&pair(&run, &qrels), &config, &folder.path().join("out")).unwrap();
        assert_eq!(again.key(), artefact.key());
        let twice = [&pair(&run, &qrels)[..], &pair(&run, &qrels)[..]].concat();
        assert!(measure_files(&twice, &config).unwrap_err().to_string().contains("`und` has two runs"));
    }

    #[test]
    fn bad_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let (run, qrels) = (folder.path().join("x.trec"), folder.path().join("x.qrels"));
        let good = (0..100).map(|number| format!("q Q0 p{number} 1 2.5 x\r\n\n")).collect::<Vec<_>>().concat();
        let fail = |run_text: &str, qrels_text: &str| {
            std::fs::write(&run, run_text).unwrap();
            std::fs::write(&qrels, qrels_text).unwrap();
            measure_files(&pair(&run, &qrels), &EvaluateConfig::default()).unwrap_err().to_string()
        };
        for (line, expected) in [
            ("q Q0 d 1 2.5", "x.trec:201: expected 6 columns `query-id Q0 passage-id rank score tag`, got 5"),
            ("q Q0 d 1 2.5 x y", "x.trec:201: expected 6 columns"),
            ("q Q0 d 1 NaN x", "x.trec:201: expected a finite score, got `NaN`"),
            ("q Q0 p7 1 2.5 x", "x.trec:201: passage `p7` is listed twice for query `q`; keep one line"),
        ] {
            let message = fail(&format!("{good}{line}"), "q 0 d 1\n");
            assert!(message.contains(expected), "{message}");
        }
        for (text, expected) in [
            ("q 0 d", "x.qrels:1: expected 4 columns"),
            ("q 0 d one", "x.qrels:1: expected an integer grade, got `one`"),
            ("q 0 d 1\nq 0 d 0", "x.qrels:2: query `q` and passage `d` are judged twice"),
            ("r 0 d 1", "the run begins with query `q`, the qrels with query `r`; are both of one split?"),
            ("", "the qrels with nothing"),
        ] {
            let message = fail(&good, text);
            assert!(message.contains(expected), "{message}");
        }
        assert!(fail("", "q 0 d 1\n").contains("the run begins with nothing"));
    }

    proptest! {
        #[test]
        fn files_alone_and_a_data_set_give_the_same_values(
            run in prop::collection::btree_map((0_u32..4, 0_u32..40), -4_i32..12, 0..80),
            grades in prop::collection::btree_map((0_u32..4, 0_u32..40), -2_i32..4, 1..60),
        ) {
            let line = |((q, passage), score): (&(u32, u32), &i32)| format!("q{q} Q0 d{passage} 0 {score}e-1 x\n");
            let judgement = |((q, passage), grade): (&(u32, u32), &i32)| format!("q{q} 0 d{passage} {grade}\n");
            let (run, qrels): (String, String) =
                (run.iter().map(line).collect(), grades.iter().map(judgement).collect());
            let folder = tempfile::tempdir().unwrap();
            let (run_path, qrels_path) = (folder.path().join("x.trec"), folder.path().join("x.qrels"));
            std::fs::write(&run_path, &run).unwrap();
            std::fs::write(&qrels_path, &qrels).unwrap();
            let mut queries = Queries::default();
            for n in 0..4 {
                queries.push(Query { id: format!("q{n}"), text: "?".to_owned() }).unwrap();
            }
            let ids: Vec<String> = (0..40).map(|number| format!("d{number}")).collect();
            let corpus = corpus_of(&ids.iter().map(|id| (id.as_str(), "", "")).collect::<Vec<_>>());
            let ranked = Run::read(&run_path, &queries, &corpus).unwrap();
            let judged = Qrels::read(&qrels_path, &queries, &corpus).unwrap();
            let measures: Vec<Measure> = ["nDCG@3", "nDCG@20", "Recall@5", "MRR@10", "MAP", "P@4", "judged@10"]
                .map(|name| name.parse().unwrap())
                .to_vec();
            let (run, qrels) =
                (RunText::parse(&run_path, &run).unwrap(), QrelsText::parse(&qrels_path, &qrels).unwrap());
            let found = run.measure(&qrels, &measures, true);
            let scored = queries.iter().filter(|(index, _)| !judged.judged(*index).is_empty());
            let expected: Vec<QueryMeasures> = scored
                .map(|(index, query)| {
                    let graded = Graded::new(ranked.ranking(index), judged.judged(index));
                    QueryMeasures::new(&query.id, &graded, &measures)
                })
                .collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn the_order_is_that_of_scores_then_ids_descending(
            scores in
                prop::collection::btree_map("[a-c]{1,3}", prop_oneof![-2.0_f32..2.0, Just(0.0), Just(1.0)], 0..30),
        ) {
            let ranking: Vec<(f32, &str)> = scores.iter().map(|(id, score)| (*score, id.as_str())).collect();
            let mut sorted = ranking.clone();
            sorted.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| b.1.cmp(a.1)));
            let expected: Vec<&str> = sorted.into_iter().map(|(_, id)| id).collect();
            prop_assert_eq!(in_order(&ranking).collect::<Vec<_>>(), expected);
        }
    }
}
