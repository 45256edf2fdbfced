//! Validation: nDCG@10 of the queries that `sample` set aside, by exact search with the weights as they are now.
//!
//! Passages are encoded and scored tile by tile and only the best of each query are kept, so memory does not grow with
//! the corpus. The dev queries are never touched here.

use std::collections::{BTreeMap, BTreeSet};

use super::checkpoint::ValidationRecord;
use super::teacher::language_files;
use super::texts::Texts;
use super::{Pool, TrainInputs};
use crate::corpus::{Language, PassageIndex};
use crate::dataset::{Dataset, Partition, Split};
use crate::encode::encode_batches;
use crate::engine::{Embeddings, Encoder};
use crate::error::{Error, Result};
use crate::evaluate::measures::ndcg;
use crate::index::exact::{Member, Search, Similarity, top_k_of_sum};
use crate::mine::QueryCandidates;
use crate::progress::Progress;
use crate::queries::QueryIndex;
use crate::run::{Ranking, Scored, rank_order};
use crate::sample::Example;

/// nDCG is cut here, as in every table of the report.
const DEPTH: usize = 10;
/// Passages that are encoded before their scores are taken.
const TILE: usize = 4096;
/// Bytes for the tiles of scores.
const SEARCH_MEMORY: usize = 64 << 20;

/// The validation queries of one language and the passages they are searched in.
struct LanguagePool {
    language: Language,
    queries: Vec<QueryIndex>,
    passages: Vec<PassageIndex>,
    id_ranks: Vec<u32>,
}

/// The validation set.
pub(super) struct Validation<'a> {
    dataset: &'a Dataset,
    similarity: Similarity,
    batch_tokens: usize,
    pools: Vec<LanguagePool>,
}

impl<'a> Validation<'a> {
    /// Collects the queries of `LANG.validation.jsonl` and their passages.
    ///
    /// # Errors
    /// A query that the data set has not; a reduced pool without the candidates of `mine`.
    pub(super) fn open(inputs: &TrainInputs<'a>, pool: Pool, similarity: Similarity) -> Result<Self> {
        let mut pools = Vec::new();
        for partition in &inputs.dataset.partitions {
            let file = format!("{}.validation.jsonl", partition.language);
            if inputs.examples.has(&file) {
                let examples: Vec<Example> = inputs.examples.read_lines(&file)?;
                pools.extend(language_pool(inputs, partition, &examples, pool)?);
            }
        }
        let batch_tokens = inputs.encoder.batch_tokens;
        Ok(Self { dataset: inputs.dataset, similarity, batch_tokens, pools })
    }

    /// Whether there is nothing to validate with.
    pub(super) fn is_empty(&self) -> bool {
        self.pools.is_empty()
    }

    /// Number of queries.
    pub(super) fn queries(&self) -> usize {
        self.pools.iter().map(|pool| pool.queries.len()).sum()
    }

    /// Number of passages that are searched.
    pub(super) fn passages(&self) -> usize {
        self.pools.iter().map(|pool| pool.passages.len()).sum()
    }

    /// nDCG@10 of encoders of queries and of passages, per language and their mean.
    pub(super) fn measure(
        &self,
        step: u64,
        encoders: [&dyn Encoder; 2],
        texts: &Texts<'_>,
        progress: &Progress<'_>,
    ) -> Result<ValidationRecord> {
        progress.begin(&format!("validate at step {step}"), self.passages(), "passages");
        let mut languages = BTreeMap::new();
        for pool in &self.pools {
            let value = self.measure_pool(pool, encoders, texts, progress)?;
            languages.insert(pool.language.to_string(), value);
        }
        let macro_average = languages.values().sum::<f64>() / languages.len().max(1) as f64;
        Ok(ValidationRecord { step, macro_average, languages })
    }

    fn measure_pool(
        &self,
        pool: &LanguagePool,
        [of_queries, of_passages]: [&dyn Encoder; 2],
        texts: &Texts<'_>,
        progress: &Progress<'_>,
    ) -> Result<f64> {
        let partition = self.dataset.partition(&pool.language)?;
        let judged = partition.split(Split::Train)?;
        let query_texts: Vec<&str> =
            pool.queries.iter().map(|query| judged.queries.query(*query).text.as_str()).collect();
        let queries = encode_batches(of_queries, &texts.queries(&query_texts)?, self.batch_tokens)?;
        let mut rankings = vec![Ranking::new(); pool.queries.len()];
        for tile in pool.passages.chunks(TILE) {
            let tokens = texts.passages(&partition.corpus, tile)?;
            let passages = encode_batches(of_passages, &tokens, self.batch_tokens)?;
            let found = self.search(&queries, &passages, &tile_ranks(tile, &pool.id_ranks))?;
            for (ranking, found) in rankings.iter_mut().zip(found) {
                let place = |scored: Scored| Scored { passage: tile[scored.passage.at()], ..scored };
                ranking.extend(found.into_iter().map(place));
                ranking.sort_unstable_by(|a, b| rank_order(a, b, &pool.id_ranks));
                ranking.truncate(DEPTH);
            }
            progress.advance(tile.len());
        }
        let value = |(ranking, query): (&Ranking, &QueryIndex)| ndcg(ranking, judged.qrels.judged(*query), DEPTH);
        Ok(rankings.iter().zip(&pool.queries).map(value).sum::<f64>() / pool.queries.len() as f64)
    }

    fn search(&self, queries: &Embeddings, passages: &Embeddings, id_ranks: &[u32]) -> Result<Vec<Ranking>> {
        let (queries, passages) = (queries.into(), passages.into());
        let member = Member { queries, passages, weight: 1.0, similarity: self.similarity };
        let silent = Progress::silent();
        let (task, sieve) = ("search", None);
        let search = Search { depth: DEPTH, id_ranks, memory: SEARCH_MEMORY, task, progress: &silent, sieve };
        top_k_of_sum(&[member], search)
    }
}

fn tile_ranks(tile: &[PassageIndex], id_ranks: &[u32]) -> Vec<u32> {
    tile.iter().map(|passage| id_ranks[passage.at()]).collect()
}

fn language_pool(
    inputs: &TrainInputs<'_>,
    partition: &Partition,
    examples: &[Example],
    pool: Pool,
) -> Result<Option<LanguagePool>> {
    if examples.is_empty() {
        return Ok(None);
    }
    let language = partition.language.clone();
    let known = &partition.split(Split::Train)?.queries;
    let find = |example: &Example| {
        let missing = || Error::data(format!("no train query of `{language}` has the id `{}`", example.query));
        known.find(&example.query).ok_or_else(missing)
    };
    let queries = examples.iter().map(find).collect::<Result<Vec<_>>>()?;
    let passages = match pool {
        Pool::Corpus => partition.corpus.indices().collect(),
        Pool::Reduced => reduced(inputs, partition, &queries)?,
    };
    Ok(Some(LanguagePool { language, queries, passages, id_ranks: partition.corpus.id_ranks() }))
}

/// The positives and mined candidates of the queries, by position.
fn reduced(inputs: &TrainInputs<'_>, partition: &Partition, queries: &[QueryIndex]) -> Result<Vec<PassageIndex>> {
    let judged = partition.split(Split::Train)?;
    let mut passages: BTreeSet<PassageIndex> =
        queries.iter().flat_map(|query| judged.qrels.positives(*query)).collect();
    let missing = || Error::config("train: `validation.pool = \"reduced\"` needs the candidates of `mine`");
    let candidates = inputs.candidates.ok_or_else(missing)?;
    let wanted: BTreeSet<QueryIndex> = queries.iter().copied().collect();
    if let Some(file) = language_files(candidates)?.get(&partition.language) {
        for line in candidates.read_lines::<QueryCandidates>(file)? {
            if judged.queries.find(&line.query).is_some_and(|query| wanted.contains(&query)) {
                passages.extend(line.candidates.iter().filter_map(|found| partition.corpus.find(&found.passage)));
            }
        }
    }
    Ok(passages.into_iter().collect())
}
