//! The ensemble of a recipe: its members' runs, and retrieval for queries that did not exist when the runs were made.

use crate::artefact::Artefact;
use crate::corpus::Language;
use crate::dataset::{Dataset, Partition, Split};
use crate::encode::{EncoderConfig, Matrix, TextEncoder, Vectors, VectorsOf};
use crate::engine::{Embeddings, Engine};
use crate::error::{Error, Result};
use crate::fuse::{FuseConfig, Heard, Member, fuse_rankings};
use crate::index::bm25::{Bm25Index, file_name};
use crate::index::exact::top_k;
use crate::mine::{Lists, MineConfig, Miners, QueryCandidates};
use crate::progress::Progress;
use crate::run::Ranking;

/// Bytes for the tiles of a search over new texts.
const MEMORY: usize = crate::search::DEFAULT_MEMORY;

/// The members with what is needed to ask them anew.
pub(super) struct Ensemble {
    fuse: FuseConfig,
    mine: MineConfig,
    members: Vec<Asked>,
}

struct Asked {
    name: String,
    run: Artefact,
    source: Source,
}

enum Source {
    Lexical { index: Artefact },
    Dense { vectors: Artefact, model: Artefact, encoder: EncoderConfig },
}

impl Ensemble {
    pub(super) fn new(fuse: FuseConfig, mine: MineConfig) -> Self {
        Self { fuse, mine, members: Vec::new() }
    }

    pub(super) fn lexical(&mut self, name: &str, run: Artefact, index: Artefact) {
        self.members.push(Asked { name: name.to_owned(), run, source: Source::Lexical { index } });
    }

    pub(super) fn dense(&mut self, name: &str, run: Artefact, vectors: Artefact, model: (Artefact, EncoderConfig)) {
        let source = Source::Dense { vectors, model: model.0, encoder: model.1 };
        self.members.push(Asked { name: name.to_owned(), run, source });
    }

    /// The members with their runs over the train queries.
    pub(super) fn members(&self) -> Vec<Member<'_>> {
        let member = |member| {
            let Asked { name, run, source } = member;
            Member { name, run, embeddings: source.vectors() }
        };
        self.members.iter().map(member).collect()
    }

    /// Vectors of the first dense member.
    pub(super) fn first_vectors(&self) -> Option<&Artefact> {
        self.members.iter().find_map(|member| member.source.vectors())
    }

    /// Candidates for new texts of train queries: every (query id, new text) goes through all members, is fused and
    /// mined as its query's own text was. `untouched` holds the vectors of the model that is to be tuned.
    pub(super) fn retrieve(
        &self,
        engine: &dyn Engine,
        dataset: &Dataset,
        untouched: &Artefact,
        asked: (&Language, &[(String, String)]),
    ) -> Result<Vec<QueryCandidates>> {
        let (language, queries) = asked;
        let partition = dataset.partition(language)?;
        let question = Question {
            partition,
            texts: queries.iter().map(|(_, text)| text.as_str()).collect(),
            id_ranks: partition.corpus.id_ranks(),
            depth: self.fuse.depth,
        };
        let answers: Vec<Answer> = self.members.iter().map(|member| member.source.ask(&question, engine)).collect::<Result<_>>()?;
        let heard = self.members.iter().zip(&answers).map(|(member, answer)| answer.heard(&member.name));
        let heard: Vec<Heard<'_>> = heard.collect::<Result<_>>()?;
        let fused = fuse_rankings(heard, &self.fuse, &question.id_ranks, &Progress::silent())?;
        self.mine_new(partition, untouched, queries, (&answers, &fused))
    }

    fn mine_new(
        &self,
        partition: &Partition,
        untouched: &Artefact,
        queries: &[(String, String)],
        found: (&[Answer], &[Ranking]),
    ) -> Result<Vec<QueryCandidates>> {
        let (answers, fused) = found;
        let judged = partition.split(Split::Train)?;
        let passages = Vectors::open(untouched, &partition.language, VectorsOf::Passages)?;
        let vectors = Vectors::open(untouched, &partition.language, VectorsOf::Queries(Split::Train))?;
        let miners = Miners::new(partition, &judged.qrels, passages.matrix(), &self.mine);
        let mut mined = Vec::with_capacity(queries.len());
        for (at, (id, _)) in queries.iter().enumerate() {
            let query = judged.queries.find(id).ok_or_else(|| Error::data(format!("no train query has the id `{id}`")))?;
            let members = self.members.iter().zip(answers);
            let members = members.map(|(member, answer)| (member.name.as_str(), answer.rankings[at].as_slice())).collect();
            let lists = Lists { fused: &fused[at], members };
            mined.push(miners.candidates(query, id, &lists, vectors.matrix().row(query.at())).0);
        }
        Ok(mined)
    }
}

/// New texts for one language.
struct Question<'a> {
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

impl Answer {
    fn heard<'a>(&'a self, name: &'a str) -> Result<Heard<'a>> {
        let vectors = match &self.vectors {
            Some((queries, passages)) => Some((Matrix::new(queries.dimension(), queries.values())?, passages.matrix())),
            None => None,
        };
        Ok(Heard { name, rankings: &self.rankings, vectors })
    }
}

impl Source {
    fn vectors(&self) -> Option<&Artefact> {
        match self {
            Self::Lexical { .. } => None,
            Self::Dense { vectors, .. } => Some(vectors),
        }
    }

    fn ask(&self, question: &Question<'_>, engine: &dyn Engine) -> Result<Answer> {
        let language = &question.partition.language;
        match self {
            Self::Lexical { index } => {
                let bm25 = Bm25Index::open(&index.path(&file_name(language)), language)?;
                Ok(Answer { rankings: bm25.search(&question.texts, question.depth, &question.id_ranks), vectors: None })
            }
            Self::Dense { vectors, model, encoder } => {
                let queries = TextEncoder::open(engine, model.folder(), encoder)?.queries(&question.texts)?;
                let passages = Vectors::open(vectors, language, VectorsOf::Passages)?;
                let matrix = Matrix::new(queries.dimension(), queries.values())?;
                let rankings = top_k(matrix, passages.matrix(), question.depth, &question.id_ranks, MEMORY)?;
                Ok(Answer { rankings, vectors: Some((queries, passages)) })
            }
        }
    }
}
