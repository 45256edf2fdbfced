//! The ensemble: its members, and retrieval for queries that did not exist when their runs were made.

use std::collections::BTreeSet;

use crate::artefact::Artefact;
use crate::corpus::Language;
use crate::dataset::{Dataset, Partition, Split};
use crate::encode::{EncoderConfig, Matrix, TextEncoder, Vectors, VectorsOf};
use crate::engine::{Embeddings, Engine};
use crate::error::{Error, Result};
use crate::fuse::{self, FuseConfig, MemberVectors, Method, fuse_rankings, fuse_vectors};
use crate::index::bm25::{Bm25Index, file_name};
use crate::index::exact::top_k;
use crate::mine::{self, Found, MineConfig, QueryCandidates, Question, RetrieverList, candidates_for};
use crate::progress::Progress;
use crate::run::Ranking;
use crate::search::DEFAULT_MEMORY;

/// The retrievers, asked one by one, and how their answers become candidates.
pub struct Ensemble {
    fuse: FuseConfig,
    mine: MineConfig,
    members: Vec<Asked>,
}

struct Asked {
    name: String,
    source: Source,
}

struct Dense {
    vectors: Artefact,
    model: Artefact,
    encoder: EncoderConfig,
}

enum Source {
    Lexical { index: Box<Artefact> },
    Dense(Box<Dense>),
}

impl Ensemble {
    /// An ensemble without members.
    pub fn new(fuse: FuseConfig, mine: MineConfig) -> Self {
        Self { fuse, mine, members: Vec::new() }
    }

    /// Adds BM25 over an artefact of `index`.
    pub fn lexical(&mut self, name: &str, index: Artefact) {
        self.members.push(Asked { name: name.to_owned(), source: Source::Lexical { index: Box::new(index) } });
    }

    /// Adds an encoder: the passages' vectors, and the model that made them, used in the same way.
    pub fn dense(&mut self, name: &str, vectors: Artefact, model: Artefact, encoder: EncoderConfig) {
        let source = Source::Dense(Box::new(Dense { vectors, model, encoder }));
        self.members.push(Asked { name: name.to_owned(), source });
    }

    /// What `fuse` takes: vectors for `concat`, else the members' `runs`, in their order.
    ///
    /// # Errors
    /// `concat` with a member that has no vectors.
    pub(super) fn fused<'a>(&'a self, runs: &'a [Artefact]) -> Result<Vec<fuse::Member<'a>>> {
        let concat = self.fuse.method == Method::Concat;
        if let Some(Asked { name, .. }) = self.members.iter().find(|member| concat && member.vectors().is_none()) {
            let message =
                format!("`fuse.method = \"concat\"` needs vectors, and `{name}` has none; use rrf or combsum");
            return Err(Error::config(message));
        }
        let member = |(member, run): (&'a Asked, &'a Artefact)| fuse::Member {
            name: &member.name,
            artefact: member.vectors().filter(|_| concat).unwrap_or(run),
        };
        Ok(self.members.iter().zip(runs).map(member).collect())
    }

    /// The members' `runs` over the train queries, for the evidence.
    pub(super) fn evidence<'a>(&'a self, runs: &'a [Artefact]) -> Vec<mine::Member<'a>> {
        self.members.iter().zip(runs).map(|(member, run)| mine::Member { name: &member.name, run }).collect()
    }

    /// What the members search in and their `runs`, by role.
    pub(super) fn artefacts(self, runs: Vec<Artefact>) -> impl Iterator<Item = (String, Artefact)> {
        self.members.into_iter().zip(runs).flat_map(|(Asked { name, source }, run)| {
            let searched = match source {
                Source::Lexical { index } => *index,
                Source::Dense(dense) => dense.vectors,
            };
            [(format!("member {name}"), searched), (format!("run of {name}"), run)]
        })
    }

    /// Vectors of the first dense member.
    pub(super) fn first_vectors(&self) -> Option<&Artefact> {
        self.members.iter().find_map(Asked::vectors)
    }

    /// Candidates for new texts of train queries: every (query id, new text) goes through all members, is fused and
    /// mined as its query's own text was. `untouched` holds the vectors of the model that is to be tuned.
    ///
    /// *Order*: as asked.
    ///
    /// # Errors
    /// A query that the data set has not, artefacts that do not belong together.
    pub fn retrieve(
        &self,
        engine: &dyn Engine,
        dataset: &Dataset,
        untouched: &Artefact,
        asked: (&Language, &[(String, String)]),
    ) -> Result<Vec<QueryCandidates>> {
        let (language, queries) = asked;
        let partition = dataset.partition(language)?;
        let text = NewTexts {
            partition,
            texts: queries.iter().map(|(_, text)| text.as_str()).collect(),
            id_ranks: partition.corpus.id_ranks(),
            depth: self.fuse.depth,
        };
        let answers: Vec<Answer> =
            self.members.iter().map(|member| member.source.ask(&text, engine)).collect::<Result<_>>()?;
        let fused = self.fuse_answers(&answers, &text.id_ranks)?;
        let asked: Vec<&str> = queries.iter().map(|(id, _)| id.as_str()).collect();
        self.mine_new(partition, untouched, &asked, (&answers, &fused))
    }

    fn fuse_answers(&self, answers: &[Answer], id_ranks: &[u32]) -> Result<Vec<Ranking>> {
        if self.fuse.method == Method::Concat {
            let mut members = Vec::new();
            for (member, answer) in self.members.iter().zip(answers) {
                let (queries, passages) = answer.vectors.as_ref().expect("members without vectors were refused");
                let queries = Matrix::new(queries.dimension(), queries.values())?;
                members.push(MemberVectors { name: &member.name, queries, passages: passages.matrix() });
            }
            return fuse_vectors(&members, &self.fuse, id_ranks, None, &Progress::silent());
        }
        let lists = self.members.iter().zip(answers);
        let lists: Vec<(&str, &[Ranking])> =
            lists.map(|(member, answer)| (member.name.as_str(), answer.rankings.as_slice())).collect();
        fuse_rankings(&lists, &self.fuse, id_ranks)
    }

    fn mine_new(
        &self,
        partition: &Partition,
        untouched: &Artefact,
        queries: &[&str],
        found: (&[Answer], &[Ranking]),
    ) -> Result<Vec<QueryCandidates>> {
        let (answers, fused) = found;
        let judged = partition.split(Split::Train)?;
        let passages = Vectors::open(untouched, &partition.language, VectorsOf::Passages)?;
        let vectors = Vectors::open(untouched, &partition.language, VectorsOf::Queries(Split::Train))?;
        let nothing = BTreeSet::new();
        let mine_one = |(at, id): (usize, &&str)| {
            let missing = || Error::data(format!("no train query has the id `{id}`"));
            let query = judged.queries.find(id).ok_or_else(missing)?;
            let list = |(member, answer): (&'_ Asked, &'_ Answer)| -> (String, Ranking) {
                (member.name.clone(), answer.rankings[at].clone())
            };
            let lists: Vec<(String, Ranking)> = self.members.iter().zip(answers).map(list).collect();
            let members: Vec<RetrieverList<'_>> =
                lists.iter().map(|(name, ranking)| RetrieverList { name, ranking }).collect();
            let vector = vectors.matrix().row(query.at());
            let question = Question { partition, judged, query, vector, passages: passages.matrix() };
            let found = Found { fused: &fused[at], members: &members, exclude: &nothing };
            Ok(candidates_for(question, found, &self.mine).candidates)
        };
        queries.iter().enumerate().map(mine_one).collect()
    }
}

impl Asked {
    fn vectors(&self) -> Option<&Artefact> {
        match &self.source {
            Source::Lexical { .. } => None,
            Source::Dense(dense) => Some(&dense.vectors),
        }
    }
}

/// New texts for one language.
struct NewTexts<'a> {
    partition: &'a Partition,
    texts: Vec<&'a str>,
    id_ranks: Vec<u32>,
    depth: usize,
}

/// A member's lists for new texts, and for a dense one the vectors behind them.
struct Answer {
    rankings: Vec<Ranking>,
    vectors: Option<(Embeddings, Vectors)>,
}

impl Source {
    fn ask(&self, new: &NewTexts<'_>, engine: &dyn Engine) -> Result<Answer> {
        let language = &new.partition.language;
        match self {
            Self::Lexical { index } => {
                let bm25 = Bm25Index::open(&index.path(&file_name(language)))?;
                Ok(Answer { rankings: bm25.search(&new.texts, new.depth, &new.id_ranks), vectors: None })
            }
            Self::Dense(dense) => {
                let Dense { vectors, model, encoder } = &**dense;
                let queries = TextEncoder::open(engine, model.folder(), encoder)?.queries(&new.texts)?;
                let passages = Vectors::open(vectors, language, VectorsOf::Passages)?;
                let matrix = Matrix::new(queries.dimension(), queries.values())?;
                let rankings = top_k(matrix, passages.matrix(), new.depth, &new.id_ranks, DEFAULT_MEMORY)?;
                Ok(Answer { rankings, vectors: Some((queries, passages)) })
            }
        }
    }
}
