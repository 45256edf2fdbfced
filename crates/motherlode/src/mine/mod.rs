//! Mining: from a fused run to candidates for hard negatives, with every positive and its twins removed.
//!
//! Reads the fused run of the train queries, the runs of the ensemble's members, and the vectors of the untouched model
//! that is to be tuned; writes `LANG.jsonl`, one [`QueryCandidates`] a line, in query order. Queries without a positive
//! are left out and counted. [`filter`] holds the baseline miners, which choose among these candidates.

mod agreement;
pub mod filter;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

use self::agreement::Agreement;
use crate::artefact::{self, Artefact, Outcome, Recipe, Summary};
use crate::corpus::PassageIndex;
use crate::dataset::{Dataset, JudgedQueries, Partition, Split};
use crate::encode::{self, Matrix, Vectors, VectorsOf};
use crate::error::{Error, Result};
use crate::fuse;
use crate::index::exact::Similarity;
use crate::progress::Progress;
use crate::queries::QueryIndex;
use crate::run::{Run, Scored};
use crate::search::{self, expect_input, open_run};
use crate::text::normalise::{TextDigest, text_digest};

/// Name of the stage.
pub const STAGE: &str = "mine";
const FORMAT: u32 = 1;

/// What one retriever said of a candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The retriever's name in the recipe.
    pub retriever: String,
    /// Its rank in that retriever's list, from 1.
    pub rank: u32,
    /// That retriever's score.
    pub score: f32,
}

/// A passage that may become a hard negative of a query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The passage's id.
    pub passage: String,
    /// Rank in the fused list after positives were removed, from 1.
    pub rank: u32,
    /// Score of the fused list.
    pub score: f32,
    /// Cosine (or dot product) under the untouched model that is to be tuned.
    pub model_score: f32,
    /// Grade by people, where they judged the pair; always 0 or below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub human_grade: Option<i32>,
    /// What each retriever that listed it said.
    pub evidence: Vec<Evidence>,
}

/// The candidates of one query: a line of `LANG.jsonl` in the artefact of `mine`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueryCandidates {
    /// The query's id.
    pub query: String,
    /// Its positives with their score under the untouched model, best first.
    pub positives: Vec<(String, f32)>,
    /// The candidates by rank.
    pub candidates: Vec<Candidate>,
}

/// How candidates are mined.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MineConfig {
    /// Candidates of a query, K.
    pub depth: usize,
    /// Further candidates behind the first K, with which `sample` fills up queries that fall short of negatives.
    pub deeper: usize,
    /// How the untouched model's vectors are compared.
    pub similarity: Similarity,
}

impl Default for MineConfig {
    fn default() -> Self {
        Self { depth: 40, deeper: 0, similarity: Similarity::Dot }
    }
}

impl MineConfig {
    /// Checks the ranges.
    pub fn validate(&self) -> Result<()> {
        match self.depth {
            0 => Err(Error::config("`mine.depth`: expected 1 or more, got 0")),
            _ => Ok(()),
        }
    }
}

/// The file of a language inside the artefact.
pub fn file_name(language: &crate::corpus::Language) -> String {
    format!("{language}.jsonl")
}

/// What is known of a query whose candidates are wanted.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The language.
    pub partition: &'a Partition,
    /// The split that the query belongs to, with its judgements.
    pub judged: &'a JudgedQueries,
    /// The query. Its positives are removed, and it is what model scores are about, whatever text found the lists.
    pub query: QueryIndex,
    /// Its vector under the untouched model, d values.
    pub vector: &'a [f32],
    /// The passages' vectors under that model, n × d.
    pub passages: Matrix<'a>,
}

/// One retriever's list.
#[derive(Clone, Copy)]
pub struct RetrieverList<'a> {
    /// The retriever's name in the recipe.
    pub name: &'a str,
    /// What it listed, in rank order.
    pub ranking: &'a [Scored],
}

/// What was found for a query.
#[derive(Clone, Copy)]
pub struct Found<'a> {
    /// The fused list, in rank order; deeper than K by as many as may be removed.
    pub fused: &'a [Scored],
    /// The members' lists, for the evidence.
    pub members: &'a [RetrieverList<'a>],
    /// Passages that are not wanted again, such as the first list's when a generated query is mined.
    pub exclude: &'a BTreeSet<PassageIndex>,
}

/// The candidates of one query, and what was removed on the way to them.
#[derive(Debug, Clone, PartialEq)]
pub struct Mined {
    /// The candidates; fewer than K where the fused list ends before.
    pub candidates: QueryCandidates,
    /// Positives met in the fused list, by id.
    pub positives: usize,
    /// Passages met there with the text of a positive under another id.
    pub twins: usize,
    /// Passages met there that were to be excluded.
    pub excluded: usize,
}

/// The candidates of a query: the fused list without its positives, their twins, and `exclude`, cut to depth K and what is configured behind it.
///
/// Order: candidates as in the fused list, positives by score under THE tie rule.
pub fn candidates_for(question: Question<'_>, found: Found<'_>, config: &MineConfig) -> Mined {
    let corpus = &question.partition.corpus;
    let score = |passage: PassageIndex| config.similarity.of(question.vector, question.passages.row(passage.at()));
    let positives: BTreeSet<PassageIndex> = question.judged.qrels.positives(question.query).collect();
    let twins = Twins::of(question, &positives);
    let evidence = gather_evidence(found.members);
    let mut mined = Mined {
        candidates: QueryCandidates {
            query: question.judged.queries.query(question.query).id.clone(),
            positives: score_positives(question, &positives, score),
            candidates: Vec::with_capacity(config.depth + config.deeper),
        },
        positives: 0,
        twins: 0,
        excluded: 0,
    };
    for scored in found.fused {
        let passage = scored.passage;
        if mined.candidates.candidates.len() == config.depth + config.deeper {
            break;
        } else if positives.contains(&passage) {
            mined.positives += 1;
        } else if found.exclude.contains(&passage) {
            mined.excluded += 1;
        } else if twins.contains(corpus.passage(passage).text) {
            mined.twins += 1;
        } else {
            mined.candidates.candidates.push(Candidate {
                passage: corpus.id(passage).to_owned(),
                rank: mined.candidates.candidates.len() as u32 + 1,
                score: scored.score,
                model_score: score(passage),
                human_grade: question.judged.qrels.grade(question.query, passage),
                evidence: evidence.get(&passage).cloned().unwrap_or_default(),
            });
        }
    }
    mined
}

/// The texts of a query's positives.
struct Twins {
    beginnings: HashSet<String>,
    digests: HashSet<TextDigest>,
}

impl Twins {
    fn of(question: Question<'_>, positives: &BTreeSet<PassageIndex>) -> Self {
        let texts = || positives.iter().map(|passage| question.partition.corpus.passage(*passage).text);
        Self { beginnings: texts().map(beginning).collect(), digests: texts().map(text_digest).collect() }
    }

    /// Whole texts are normalised only where the beginnings agree.
    fn contains(&self, text: &str) -> bool {
        self.beginnings.contains(&beginning(text)) && self.digests.contains(&text_digest(text))
    }
}

/// The first characters of a text's normal form without blanks: equal for twins, and cheap. The two small sigmas count as
/// one, because which of them is right depends on the characters around.
fn beginning(text: &str) -> String {
    ascii_beginning(text).unwrap_or_else(|| any_beginning(text))
}

/// Characters of a beginning.
const LENGTH: usize = 24;

fn any_beginning(text: &str) -> String {
    let characters = text.nfkc().flat_map(char::to_lowercase).filter(|character| !character.is_whitespace());
    characters.map(|character| if character == 'ς' { 'σ' } else { character }).take(LENGTH).collect()
}

/// The beginning of a text whose first characters, and the one behind them, which might change the last, are ASCII: this is
/// much faster.
fn ascii_beginning(text: &str) -> Option<String> {
    let mut beginning = String::with_capacity(LENGTH);
    for byte in text.bytes() {
        if !byte.is_ascii() {
            return None;
        } else if beginning.len() == LENGTH {
            return Some(beginning);
        } else if !byte.is_ascii_whitespace() && byte != 0x0b {
            beginning.push(byte.to_ascii_lowercase().into());
        }
    }
    Some(beginning)
}

/// What each retriever said of each passage it listed, in the order of the retrievers.
fn gather_evidence(members: &[RetrieverList<'_>]) -> HashMap<PassageIndex, Vec<Evidence>> {
    let mut evidence: HashMap<PassageIndex, Vec<Evidence>> = HashMap::new();
    for member in members {
        for (rank, scored) in (1..).zip(member.ranking) {
            let said = Evidence { retriever: member.name.to_owned(), rank, score: scored.score };
            evidence.entry(scored.passage).or_default().push(said);
        }
    }
    evidence
}

fn score_positives(
    question: Question<'_>,
    positives: &BTreeSet<PassageIndex>,
    score: impl Fn(PassageIndex) -> f32,
) -> Vec<(String, f32)> {
    let corpus = &question.partition.corpus;
    let mut scored: Vec<(String, f32)> =
        positives.iter().map(|passage| (corpus.id(*passage).to_owned(), score(*passage))).collect();
    scored.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| b.0.cmp(&a.0)));
    scored
}

/// A retriever of the ensemble and its runs.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// Its name in the recipe.
    pub name: &'a str,
    /// Its runs, an artefact of `search`.
    pub run: &'a Artefact,
}

/// What candidates are mined from.
#[derive(Debug, Clone, Copy)]
pub struct MineInputs<'a> {
    /// The data set, whose train queries are mined for.
    pub dataset: &'a Dataset,
    /// The fused runs of the train queries.
    pub fused: &'a Artefact,
    /// The ensemble, in the order in which evidence is listed.
    pub members: &'a [Member<'a>],
    /// Vectors of the untouched model that is to be tuned, with the train queries.
    pub embeddings: &'a Artefact,
}

/// Mines the train queries of every language: the stage `mine`.
pub fn mine(inputs: MineInputs<'_>, config: &MineConfig, out: &Path, progress: &Progress<'_>) -> Result<Artefact> {
    config.validate()?;
    let mut draft = match artefact::draft(out, recipe(inputs, config)?)? {
        Outcome::UpToDate(artefact) => return Ok(artefact),
        Outcome::Write(draft) => draft,
    };
    let mut summary = Summary::default();
    for partition in inputs.dataset.partitions.iter().filter(|partition| partition.has(Split::Train)) {
        let mined = mine_partition(inputs, config, partition, progress)?;
        summarise(&mut summary, &mined, inputs.members, config, partition)?;
        draft.write_lines(&file_name(&partition.language), mined.iter().map(|mined| &mined.candidates))?;
    }
    draft.commit(summary)
}

fn recipe(inputs: MineInputs<'_>, config: &MineConfig) -> Result<Recipe> {
    let runs = &[search::STAGE, fuse::STAGE];
    expect_input(inputs.fused, runs, inputs.dataset)?;
    expect_input(inputs.embeddings, &[encode::STAGE], inputs.dataset)?;
    let mut recipe = Recipe::new(STAGE, FORMAT, config)?
        .input_key("dataset", &inputs.dataset.key)
        .input("fused", inputs.fused)
        .input("embeddings", inputs.embeddings);
    for (place, member) in inputs.members.iter().enumerate() {
        expect_input(member.run, runs, inputs.dataset)?;
        recipe = recipe.input(&format!("member {place} {}", member.name), member.run);
    }
    Ok(recipe)
}

fn mine_partition(
    inputs: MineInputs<'_>,
    config: &MineConfig,
    partition: &Partition,
    progress: &Progress<'_>,
) -> Result<Vec<Mined>> {
    let (dataset, language, split) = (inputs.dataset, &partition.language, Split::Train);
    let judged = partition.split(split)?;
    let fused = open_run(inputs.fused, dataset, language, split)?;
    // An ensemble of one is often its own fused run, which is not read twice.
    let open = |member: &Member<'_>| {
        let other = member.run.key() != inputs.fused.key();
        other.then(|| open_run(member.run, dataset, language, split)).transpose()
    };
    let runs: Vec<Option<Run>> = inputs.members.iter().map(open).collect::<Result<_>>()?;
    let queries = Vectors::open(inputs.embeddings, language, VectorsOf::Queries(split))?;
    let passages = Vectors::open(inputs.embeddings, language, VectorsOf::Passages)?;
    let nothing = BTreeSet::new();
    let wanted: Vec<QueryIndex> =
        judged.queries.iter().map(|(query, _)| query).filter(|q| judged.qrels.positives(*q).next().is_some()).collect();
    progress.begin(&format!("mine {language}"), wanted.len(), "queries");
    let mine_one = |query: &QueryIndex| {
        let members: Vec<RetrieverList<'_>> = inputs
            .members
            .iter()
            .zip(&runs)
            .map(|(member, run)| RetrieverList {
                name: member.name,
                ranking: run.as_ref().unwrap_or(&fused).ranking(*query),
            })
            .collect();
        let vector = queries.matrix().row(query.at());
        let question = Question { partition, judged, query: *query, vector, passages: passages.matrix() };
        let found = Found { fused: fused.ranking(*query), members: &members, exclude: &nothing };
        let mined = candidates_for(question, found, config);
        progress.advance(1);
        mined
    };
    Ok(wanted.par_iter().map(mine_one).collect())
}

/// Counts what a language brought.
fn summarise(
    summary: &mut Summary,
    mined: &[Mined],
    members: &[Member<'_>],
    config: &MineConfig,
    partition: &Partition,
) -> Result<()> {
    let queries = partition.split(Split::Train)?.queries.len();
    let sum = |of: fn(&Mined) -> usize| mined.iter().map(of).sum::<usize>();
    let candidates = sum(|mined| mined.candidates.candidates.len());
    let asked = config.depth + config.deeper;
    let missing = mined.len() * asked - candidates;
    let short = mined.iter().filter(|mined| mined.candidates.candidates.len() < asked).count();
    summary.count("queries", mined.len());
    summary.count("candidates", candidates);
    summary.count("dropped: query without a positive", queries - mined.len());
    summary.count("dropped: positive by id", sum(|mined| mined.positives));
    summary.count("dropped: positive by text", sum(|mined| mined.twins));
    summary.count("queries with fewer candidates than asked", short);
    summary.count("candidates asked but not there", missing);
    for member in members {
        let agreement = Agreement::of(member.name, mined.iter().map(|mined| &mined.candidates), config.depth);
        for (measure, value) in agreement.values() {
            summary.value(format!("{measure} {} {}", partition.language, member.name), value);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::fixture::{WordVectors, dataset, embeddings, english};
    use crate::fuse::{FuseConfig, FuseInputs, Method};
    use crate::index::bm25::{self, Bm25Config, IndexInputs};
    use crate::search::SearchConfig;

    const ENGINE: WordVectors = WordVectors { seed: 1, dimension: 16 };

    fn mine_fixture(folder: &Path, config: &MineConfig) -> (Dataset, Artefact) {
        let (dataset, silent) = (dataset(folder), Progress::silent());
        let at = |name: &str| folder.join(name);
        let search = SearchConfig::default();
        let vectors = embeddings(folder, &dataset, &ENGINE);
        let index = bm25::index(
            IndexInputs { dataset: &dataset, dictionary: None },
            &Bm25Config::default(),
            &at("index"),
            &silent,
        )
        .unwrap();
        let dense = search::DenseInputs { embeddings: &vectors, sieve: None };
        let dense = search::dense(&dataset, dense, Split::Train, &search, &at("dense"), &silent).unwrap();
        let lexical = search::lexical(&dataset, &index, Split::Train, &search, &at("lexical"), &silent).unwrap();
        let members =
            [fuse::Member { name: "words", artefact: &dense }, fuse::Member { name: "bm25", artefact: &lexical }];
        let inputs = FuseInputs { dataset: &dataset, split: Split::Train, members: &members, sieve: None };
        let rrf = FuseConfig { method: Method::Rrf, ..FuseConfig::default() };
        let fused = fuse::fuse(inputs, &rrf, &at("fused"), &silent).unwrap();
        let members = [Member { name: "words", run: &dense }, Member { name: "bm25", run: &lexical }];
        let inputs = MineInputs { dataset: &dataset, fused: &fused, members: &members, embeddings: &vectors };
        let artefact = mine(inputs, config, &at("mined"), &silent).unwrap();
        (dataset, artefact)
    }

    proptest::proptest! {
        #[test]
        fn ascii_beginnings_are_those_of_the_slow_way(text in "[ -~\\t\\x0b\\n]{0,40}[ a-zé\u{301}ﬁ]{0,30}") {
            if let Some(ascii) = ascii_beginning(&text) {
                proptest::prop_assert_eq!(ascii, any_beginning(&text));
            }
        }
    }

    #[test]
    fn positives_and_their_twins_never_become_candidates() {
        let folder = tempfile::tempdir().unwrap();
        let (_, artefact) = mine_fixture(folder.path(), &MineConfig::default());
        let queries: Vec<QueryCandidates> = artefact.read_lines("en.jsonl").unwrap();
        let ids = |query: &QueryCandidates| -> BTreeSet<String> {
            query.candidates.iter().map(|candidate| candidate.passage.clone()).collect()
        };
        assert_eq!(ids(&queries[0]), ["p1", "p3", "p4", "p6", "p7", "p8"].map(str::to_owned).into(), "p2 and twin p5");
        assert_eq!(ids(&queries[1]), ["p1", "p2", "p5", "p6", "p7", "p8"].map(str::to_owned).into());
        let human = queries[0].candidates.iter().find(|candidate| candidate.passage == "p7").unwrap();
        assert_eq!(human.human_grade, Some(0));
        assert_eq!(queries[1].positives.len(), 2);
        assert!(queries[1].positives[0].1 >= queries[1].positives[1].1);
        let counts = &artefact.summary().counts;
        assert_eq!((counts["dropped: positive by id"], counts["dropped: positive by text"]), (3, 1));
        assert_eq!((counts["queries"], counts["candidates"]), (2, 12));
        assert_eq!(counts["candidates asked but not there"], 2 * 40 - 12);
        let values = &artefact.summary().values;
        assert!(values.contains_key("spearman en bm25") && values.contains_key("unique contribution en words"));
    }

    #[test]
    fn candidates_carry_ranks_scores_and_evidence() {
        let folder = tempfile::tempdir().unwrap();
        let (dataset, artefact) = mine_fixture(
            folder.path(),
            &MineConfig { depth: 3, similarity: Similarity::Cosine, ..MineConfig::default() },
        );
        let queries: Vec<QueryCandidates> = artefact.read_lines("en.jsonl").unwrap();
        let (corpus, language) = (&dataset.partitions[0].corpus, english());
        let vectors = Artefact::open(&folder.path().join("1-16")).unwrap();
        let q = Vectors::open(&vectors, &language, VectorsOf::Queries(Split::Train)).unwrap();
        let p = Vectors::open(&vectors, &language, VectorsOf::Passages).unwrap();
        for (row, query) in queries.iter().enumerate() {
            assert_eq!(query.candidates.iter().map(|candidate| candidate.rank).collect::<Vec<_>>(), [1, 2, 3]);
            assert!(query.candidates.is_sorted_by(|a, b| a.score >= b.score));
            for candidate in &query.candidates {
                let passage = corpus.find(&candidate.passage).unwrap();
                let expected = Similarity::Cosine.of(q.matrix().row(row), p.matrix().row(passage.at()));
                assert!((candidate.model_score - expected).abs() < 1e-6);
                assert_eq!(candidate.evidence[0].retriever, "words");
                let rrf: f32 = candidate.evidence.iter().map(|evidence| 1.0 / (60.0 + evidence.rank as f32)).sum();
                assert!((candidate.score - rrf).abs() < 1e-6);
            }
        }
        assert_eq!(artefact.summary().counts["queries with fewer candidates than asked"], 0);
    }

    #[test]
    fn twins_have_equal_beginnings() {
        for (a, b) in
            [(" Ｆｕｌｌ\u{a0}width", "full width"), ("ΣΑΣ ΟΔΟΣ", "σας οδος"), ("İstanbul", "i\u{307}stanbul")]
        {
            assert_eq!(text_digest(a), text_digest(b));
            assert_eq!(beginning(a), beginning(b));
        }
        assert_ne!(beginning("lions hunt"), beginning("lions sleep"));
    }

    #[test]
    fn known_passages_are_not_mined_again() {
        let folder = tempfile::tempdir().unwrap();
        let dataset = dataset(folder.path());
        let (partition, vectors) = (&dataset.partitions[0], [0.5; 16]);
        let passages = Matrix::new(2, &vectors).unwrap();
        let fused: Vec<Scored> =
            partition.corpus.indices().map(|passage| Scored { passage, score: -(passage.0 as f32) }).collect();
        let exclude = BTreeSet::from([PassageIndex(0), PassageIndex(5)]);
        let judged = partition.split(Split::Train).unwrap();
        let question = Question { partition, judged, query: QueryIndex(0), vector: &[1.0, 2.0], passages };
        let found = Found { fused: &fused, members: &[], exclude: &exclude };
        let mined = candidates_for(question, found, &MineConfig { depth: 3, ..MineConfig::default() });
        let ids: Vec<&str> = mined.candidates.candidates.iter().map(|candidate| candidate.passage.as_str()).collect();
        assert_eq!(ids, ["p3", "p4", "p7"]);
        assert_eq!((mined.positives, mined.twins, mined.excluded), (1, 1, 2));
        assert!((mined.candidates.positives[0].1 - 1.5).abs() < 1e-6);
    }

    #[test]
    fn a_depth_of_zero_and_a_swapped_artefact_are_refused() {
        assert!(
            MineConfig { depth: 0, ..MineConfig::default() }
                .validate()
                .unwrap_err()
                .to_string()
                .contains("`mine.depth`")
        );
        let folder = tempfile::tempdir().unwrap();
        let dataset = dataset(folder.path());
        let vectors = embeddings(folder.path(), &dataset, &ENGINE);
        let inputs = MineInputs { dataset: &dataset, fused: &vectors, members: &[], embeddings: &vectors };
        let error = mine(inputs, &MineConfig::default(), &folder.path().join("x"), &Progress::silent());
        assert!(error.unwrap_err().to_string().contains("expected an artefact of `search` or `fuse`"));
    }
}
