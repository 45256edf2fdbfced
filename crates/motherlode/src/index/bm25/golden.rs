//! Scores and rankings beside those of Lucene itself, where `../shared` is there. `tests/golden/lucene.py` makes the files.

use std::collections::HashMap;
use std::path::Path;

use super::{Bm25Config, Bm25Index, build::Build};
use crate::artefact;
use crate::corpus::{Corpus, Language, corpus_of};
use crate::progress::Progress;
use crate::text::analyse::golden::{mini_miracl, passages, repository};

const SAME_CHAIN: [&str; 15] =
    ["ar", "bn", "en", "es", "fa", "fi", "fr", "hi", "id", "ja", "ko", "ru", "sw", "te", "zh"];
/// Thai words are near to Lucene's, not the same.
const NEAR_CHAIN: &str = "th";

/// A language of mini-MIRACL with its index and what its dev queries look for.
struct Judged {
    corpus: Corpus,
    index: Bm25Index,
    queries: HashMap<String, String>,
    relevant: HashMap<String, Vec<String>>,
}

fn rows(path: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

fn open(data: &Path, tag: &str) -> Judged {
    let passages = passages(data, tag);
    let passages: Vec<(&str, &str, &str)> =
        passages.iter().map(|passage| (&*passage.docid, &*passage.title, &*passage.text)).collect();
    let corpus = corpus_of(&passages);
    let (config, folder) = (Bm25Config::default(), tempfile::tempdir().unwrap());
    let (path, analyser) = (folder.path().join("bm25.bin"), config.analyser(&Language::new(tag).unwrap()));
    let progress = &Progress::silent();
    let build =
        Build { corpus: &corpus, analyser: &analyser, config: &config, scratch: folder.path(), progress };
    artefact::write_whole(&path, |output| build.write(output, &path)).unwrap();
    let index = Bm25Index::open(&path).unwrap();
    let queries = rows(&data.join(tag).join("topics.dev.tsv"));
    let mut relevant: HashMap<String, Vec<String>> = HashMap::new();
    for row in rows(&data.join(tag).join("qrels.dev.tsv")).iter().filter(|row| row[3] != "0") {
        relevant.entry(row[0].clone()).or_default().push(row[2].clone());
    }
    Judged { corpus, index, queries: queries.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect(), relevant }
}

impl Judged {
    fn search(&self, query: &str, depth: usize) -> Vec<(String, f32)> {
        let ranking = self.index.search(&[&self.queries[query]], depth, &self.corpus.id_ranks()).remove(0);
        ranking.iter().map(|scored| (self.corpus.id(scored.passage).to_owned(), scored.score)).collect()
    }

    /// nDCG@10 and Recall@100 over the dev queries, grades 0 and 1.
    fn measure(&self) -> (f64, f64) {
        let (mut ndcg, mut recall) = (0.0, 0.0);
        for (query, relevant) in &self.relevant {
            let found = self.search(query, 100);
            let gain = |rank: usize| 1.0 / (rank as f64 + 2.0).log2();
            let is_relevant = |rank: &usize| relevant.contains(&found[*rank].0);
            let ideal: f64 = (0..relevant.len().min(10)).map(gain).sum();
            ndcg += (0..found.len().min(10)).filter(is_relevant).map(gain).sum::<f64>() / ideal;
            recall += (0..found.len()).filter(is_relevant).count() as f64 / relevant.len() as f64;
        }
        let queries = self.relevant.len() as f64;
        (ndcg / queries, recall / queries)
    }

    /// Share of the golden rankings with the same passages at the same scores, those that tie with the last one apart.
    fn equal_rankings(&self, golden: &[Vec<String>]) -> f64 {
        let is_equal = |row: &&Vec<String>| {
            let found = self.search(&row[0], 20);
            let expected: Vec<(&str, f32)> = row[1..]
                .iter()
                .map(|hit| hit.rsplit_once('=').map(|(id, score)| (id, score.parse::<f32>().unwrap())).unwrap())
                .collect();
            let last = expected.last().map_or(0.0, |(_, score)| *score);
            let scores = |hits: &[f32]| hits.iter().map(|score| score.to_bits()).collect::<Vec<u32>>();
            let ours: Vec<f32> = found.iter().map(|(_, score)| *score).collect();
            let theirs: Vec<f32> = expected.iter().map(|(_, score)| *score).collect();
            let all: HashMap<&str, f32> = expected.iter().copied().collect();
            scores(&ours) == scores(&theirs)
                && found.iter().all(|(id, score)| score.to_bits() == last.to_bits() || all.get(id.as_str()) == Some(score))
        };
        golden.iter().filter(is_equal).count() as f64 / golden.len() as f64
    }
}

#[test]
fn scores_and_rankings_of_mini_miracl_are_those_of_lucene() {
    let Some(data) = mini_miracl() else { return };
    let golden = repository().join("tests/golden/lucene");
    println!("language  queries  nDCG@10 ours, Lucene  Recall@100 ours, Lucene  equal rankings");
    for row in rows(&golden.join("measures.tsv")).iter().filter(|row| row[0] != "ja-morphemes") {
        let language = open(&data, &row[0]);
        let (ndcg, recall) = language.measure();
        let (their_ndcg, their_recall): (f64, f64) = (row[2].parse().unwrap(), row[3].parse().unwrap());
        let equal = language.equal_rankings(&rows(&golden.join(format!("{}.rankings.tsv", row[0]))));
        println!("{} {} {ndcg:.4} {their_ndcg:.4} {recall:.4} {their_recall:.4} {equal:.3}", row[0], row[1]);
        if SAME_CHAIN.contains(&&*row[0]) {
            assert!((ndcg - their_ndcg).abs() <= 0.002, "{}: nDCG@10 {ndcg} for {their_ndcg}", row[0]);
            assert!(equal >= 0.95, "{}: {equal} of the rankings are equal", row[0]);
        } else {
            assert!(row[0] == NEAR_CHAIN && (ndcg - their_ndcg).abs() <= 0.02, "{ndcg} for {their_ndcg}");
        }
    }
}
