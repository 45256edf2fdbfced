//! A run: for every query a ranked list of passages. Also THE tie rule, which every ranking obeys.

use std::cmp::Ordering;
use std::io::Write;
use std::path::Path;

use rayon::prelude::*;

use crate::corpus::{Corpus, PassageIndex};
use crate::error::{Error, Result};
use crate::lines::Lines;
use crate::queries::{Queries, QueryIndex};

/// A passage and its score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// The passage.
    pub passage: PassageIndex,
    /// Higher is better; never NaN.
    pub score: f32,
}

/// THE tie rule: score descending, then passage id descending in byte order, as `trec_eval` sorts.
///
/// `id_ranks` are [`Corpus::id_ranks`]. `Less` means that `a` is ranked before `b`.
pub fn rank_order(a: &Scored, b: &Scored, id_ranks: &[u32]) -> Ordering {
    b.score.total_cmp(&a.score).then_with(|| id_ranks[b.passage.at()].cmp(&id_ranks[a.passage.at()]))
}

/// One query's passages in rank order.
pub type Ranking = Vec<Scored>;

/// The rankings of one language and split, one for every query.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Run {
    rankings: Vec<Ranking>,
}

impl Run {
    /// Takes one list for every query, in query order, and sorts each by THE tie rule.
    ///
    /// A negative zero counts as zero, so that equal scores are ties.
    pub fn new(mut rankings: Vec<Ranking>, id_ranks: &[u32]) -> Self {
        rankings.par_iter_mut().for_each(|ranking| {
            ranking.iter_mut().for_each(|scored| scored.score += 0.0);
            ranking.sort_unstable_by(|a, b| rank_order(a, b, id_ranks));
        });
        Self { rankings }
    }

    /// The ranking of a query; empty where nothing was found.
    pub fn ranking(&self, query: QueryIndex) -> &[Scored] {
        &self.rankings[query.at()]
    }

    /// All rankings, in query order.
    pub fn rankings(&self) -> &[Ranking] {
        &self.rankings
    }

    /// Reads a TREC run: `query-id Q0 passage-id rank score tag`. The rank column is ignored, scores are f32, as in `trec_eval`.
    ///
    /// # Errors
    /// Another number of columns, an unknown query or passage, a score that is no finite number, a passage twice for a query.
    pub fn read(path: &Path, queries: &Queries, corpus: &Corpus) -> Result<Self> {
        let mut rankings = vec![Ranking::new(); queries.len()];
        crate::lines::for_each_block(path, |first, text| {
            let parts = crate::lines::parse_parts(path, first, text, |lines| grouped(lines, queries, corpus))?;
            parts.into_iter().flatten().for_each(|(query, ranking)| rankings[query.at()].extend(ranking));
            Ok(())
        })?;
        let run = Self::new(rankings, &corpus.id_ranks());
        let twice = |(query, ranking): (usize, &Ranking)| Some((QueryIndex(query as u32), repeated(ranking)?));
        match run.rankings.par_iter().enumerate().find_map_first(twice) {
            Some((query, passage)) => Err(listed_twice(path, &queries.query(query).id, corpus.id(passage))),
            None => Ok(run),
        }
    }

    /// Writes a TREC run, queries in input order, ranks from 1; scores so that reading them gives the same f32.
    pub fn write(&self, output: &mut impl Write, names: RunNames<'_>) -> Result<u64> {
        let mut rows = 0;
        for (query, ranking) in names.queries.iter().zip(&self.rankings) {
            for (rank, scored) in ranking.iter().enumerate() {
                let id = names.corpus.id(scored.passage);
                writeln!(output, "{} Q0 {id} {} {} {}", query.1.id, rank + 1, scored.score, names.tag)
                    .map_err(Error::io(names.path))?;
                rows += 1;
            }
        }
        Ok(rows)
    }

    /// Keeps the first `depth` passages of every query.
    pub fn truncate(&mut self, depth: usize) {
        for ranking in &mut self.rankings {
            ranking.truncate(depth);
        }
    }
}

/// The outside names that a written run needs.
#[derive(Clone, Copy)]
pub struct RunNames<'a> {
    /// The file, named in errors.
    pub path: &'a Path,
    /// The queries of the run.
    pub queries: &'a Queries,
    /// The corpus of the run.
    pub corpus: &'a Corpus,
    /// The last column: the system's name.
    pub tag: &'a str,
}

/// A line of a TREC run, taken apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RunLine<'a> {
    /// The query's id.
    pub query: &'a str,
    /// The passage's id.
    pub passage: &'a str,
    /// The score; finite, and never a negative zero.
    pub score: f32,
}

impl<'a> RunLine<'a> {
    /// Takes `query-id Q0 passage-id rank score tag` apart; an error says what stands there instead.
    pub fn parse(line: &'a str) -> std::result::Result<Self, String> {
        let mut fields = line.split_ascii_whitespace();
        let columns = [(); 6].map(|()| fields.next());
        let ([Some(query), _, Some(passage), _, Some(score), Some(_)], None) = (columns, fields.next()) else {
            let count = line.split_ascii_whitespace().count();
            let remedy = if count == 4 { "is this a qrels file?" } else { "ids and tag must not hold white space" };
            return Err(format!("expected 6 columns `query-id Q0 passage-id rank score tag`, got {count}; {remedy}"));
        };
        let parsed = score.parse().ok().filter(|score: &f32| score.is_finite());
        let unusable = || format!("expected a finite score, got `{score}`; mend the retriever or remove the line");
        Ok(Self { query, passage, score: parsed.ok_or_else(unusable)? + 0.0 })
    }
}

/// The passages of some lines, those of one query together as long as they follow each other.
fn grouped(
    lines: Lines<'_, '_>,
    queries: &Queries,
    corpus: &Corpus,
) -> std::result::Result<Vec<(QueryIndex, Ranking)>, (u64, String)> {
    let mut groups: Vec<(QueryIndex, Ranking)> = Vec::new();
    let mut last = "";
    for (number, line) in lines {
        let fail = |message: String| (number, message);
        let RunLine { query, passage, score } = RunLine::parse(line).map_err(fail)?;
        if groups.is_empty() || query != last {
            let unknown = || fail(format!("no query has the id `{query}`; run and queries must be of one data set"));
            groups.push((queries.find(query).ok_or_else(unknown)?, Ranking::new()));
            last = query;
        }
        let unknown = || fail(format!("no passage has the id `{passage}`; run and corpus must be of one data set"));
        let scored = Scored { passage: corpus.find(passage).ok_or_else(unknown)?, score };
        groups.last_mut().expect("a group was begun").1.push(scored);
    }
    Ok(groups)
}

/// A passage that stands twice in a ranking.
fn repeated(ranking: &[Scored]) -> Option<PassageIndex> {
    let mut passages: Vec<PassageIndex> = ranking.iter().map(|scored| scored.passage).collect();
    passages.sort_unstable();
    passages.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

/// The error for a passage that a run lists twice for a query, at the second line.
pub fn listed_twice(path: &Path, query: &str, passage: &str) -> Error {
    let (mut seen, mut second) = (0, 0);
    let counted = crate::lines::for_each(path, |number, line| {
        let is_pair = RunLine::parse(line).is_ok_and(|line| line.query == query && line.passage == passage);
        seen += u64::from(is_pair);
        if is_pair && seen == 2 {
            second = number;
        }
        Ok(())
    });
    let message = format!("passage `{passage}` is listed twice for query `{query}`; keep one line");
    counted.err().unwrap_or_else(|| Error::line(path, second, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::corpus_of;
    use crate::queries::Query;
    use proptest::prelude::*;

    fn queries(count: usize) -> Queries {
        let mut queries = Queries::default();
        for number in 0..count {
            queries.push(Query { id: format!("q{number}"), text: "?".to_owned() }).unwrap();
        }
        queries
    }

    fn read(text: &str) -> Result<Run> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.trec");
        std::fs::write(&path, text).unwrap();
        Run::read(&path, &queries(2), &corpus_of(&[("a", "", ""), ("b", "", ""), ("c", "", "")]))
    }

    #[test]
    fn ranks_are_ignored_and_ties_fall_to_the_higher_id() {
        let run = read("q1 Q0 a 1 0.5 x\nq1 Q0 b 9 1e0 x\r\n\nq1\tQ0\tc\t3\t0.5\tx\n").unwrap();
        let order: Vec<u32> = run.ranking(QueryIndex(1)).iter().map(|scored| scored.passage.0).collect();
        assert_eq!(order, [1, 2, 0]);
        assert!(run.ranking(QueryIndex(0)).is_empty());
        let zeros = read("q0 Q0 a 1 0 x\nq0 Q0 b 2 -0 x\n").unwrap();
        assert_eq!(zeros.ranking(QueryIndex(0))[0].passage, PassageIndex(1), "a negative zero is a zero");
    }

    #[test]
    fn bad_lines_are_named_with_a_remedy() {
        let good = "q0 Q0 a 1 2 x\nq0 Q0 b 2 1 x\n";
        for (line, expected) in [
            ("q1 Q0 a 1 2", "x.trec:3: expected 6 columns `query-id Q0 passage-id rank score tag`, got 5; ids"),
            ("q1 Q0 a 1 2 x y", "got 7; ids and tag must not hold white space"),
            (
                "q1 0 a 1",
                "x.trec:3: expected 6 columns `query-id Q0 passage-id rank score tag`, got 4; is this a qrels",
            ),
            ("q1 Q0 a 1 NaN x", "x.trec:3: expected a finite score, got `NaN`; mend the retriever or remove the line"),
            ("q1 Q0 a 1 1e99 x", "expected a finite score, got `1e99`"),
            ("q1 Q0 a 1 high x", "expected a finite score, got `high`"),
            ("q9 Q0 a 1 2 x", "x.trec:3: no query has the id `q9`; run and queries must be of one data set"),
            ("q1 Q0 z 1 2 x", "x.trec:3: no passage has the id `z`; run and corpus must be of one data set"),
            ("q0 Q0 a 3 0 x", "x.trec:3: passage `a` is listed twice for query `q0`; keep one line"),
        ] {
            let message = read(&format!("{good}{line}\n")).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    proptest! {
        #[test]
        fn a_written_run_reads_back(scores in prop::collection::btree_map((0_u32..4, 0_u32..30), any::<f32>(), 0..60)) {
            let names: Vec<String> = (0..30).map(|number| format!("p{number}")).collect();
            let corpus = corpus_of(&names.iter().map(|id| (id.as_str(), "", "")).collect::<Vec<_>>());
            let queries = queries(4);
            let mut rankings = vec![Ranking::new(); 4];
            for ((query, passage), score) in scores.into_iter().filter(|(_, score)| score.is_finite()) {
                rankings[query as usize].push(Scored { passage: PassageIndex(passage), score });
            }
            let run = Run::new(rankings, &corpus.id_ranks());
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("x.trec");
            let mut bytes = Vec::new();
            run.write(&mut bytes, RunNames { path: &path, queries: &queries, corpus: &corpus, tag: "t" }).unwrap();
            std::fs::write(&path, bytes).unwrap();
            prop_assert_eq!(Run::read(&path, &queries, &corpus).unwrap(), run);
        }
    }
}
