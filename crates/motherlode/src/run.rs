//! A run: for every query a ranked list of passages. Also THE tie rule, which every ranking obeys.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::io::Write;
use std::path::Path;

use crate::corpus::{Corpus, PassageIndex};
use crate::error::{Error, Result};
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
        for ranking in &mut rankings {
            for scored in ranking.iter_mut() {
                scored.score += 0.0;
            }
            ranking.sort_unstable_by(|a, b| rank_order(a, b, id_ranks));
        }
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
        let mut seen = HashSet::new();
        crate::lines::for_each(path, |number, line| {
            let fail = |message: String| Error::line(path, number, message);
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [query, _, passage, _, score, _] = fields[..] else {
                return Err(fail(format!(
                    "expected 6 columns `query-id Q0 passage-id rank score tag`, got {}",
                    fields.len()
                )));
            };
            let query = queries.find(query).ok_or_else(|| fail(format!("no query has the id `{query}`")))?;
            let found = corpus.find(passage).ok_or_else(|| fail(format!("no passage has the id `{passage}`")))?;
            let score: f32 = score
                .parse()
                .ok()
                .filter(|score: &f32| score.is_finite())
                .ok_or_else(|| fail(format!("expected a finite score, got `{score}`")))?;
            if !seen.insert((query, found)) {
                return Err(fail(format!("passage `{passage}` is listed twice for this query; keep one line")));
            }
            rankings[query.at()].push(Scored { passage: found, score });
            Ok(())
        })?;
        Ok(Self::new(rankings, &corpus.id_ranks()))
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
