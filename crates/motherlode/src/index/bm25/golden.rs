//! Scores and rankings beside those of Lucene itself, where `../shared` is there. `tests/golden/lucene.py` makes the files.

use std::collections::HashMap;
use std::path::Path;

use super::{Bm25Config, Bm25Index, build::Build};
use crate::artefact;
use crate::corpus::{Corpus, corpus_of};
use crate::progress::Progress;
use crate::text::analyse::golden::{analyser, language, mini_miracl, passages, repository};

/// Chains with other terms than Lucene's here and there: those with a dictionary of words, Finnish by a newer Snowball.
const OTHER_TERMS: [&str; 3] = ["fi", "japanese", "th"];

/// A language of mini-MIRACL with its index by a chain and what its dev queries look for.
struct Judged {
    chain: String,
    corpus: Corpus,
    index: Bm25Index,
    queries: HashMap<String, String>,
    relevant: HashMap<String, Vec<String>>,
}

fn rows(path: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// None if the chain's dictionary is not there.
fn open(data: &Path, chain: &str) -> Option<Judged> {
    let (analyser, tag) = (&analyser(chain)?, &language(chain));
    let (tag, name) = (tag.as_str(), analyser.name());
    let passages = passages(data, tag);
    let passages: Vec<(&str, &str, &str)> =
        passages.iter().map(|passage| (&*passage.docid, &*passage.title, &*passage.text)).collect();
    let corpus = corpus_of(&passages);
    let (config, folder) = (Bm25Config::default(), tempfile::tempdir().unwrap());
    let path = folder.path().join("bm25.bin");
    let progress = &Progress::silent();
    let build = Build { corpus: &corpus, analyser, config: &config, scratch: folder.path(), progress };
    artefact::write_whole(&path, |output| build.write(output, &path)).unwrap();
    if let Some(dictionary) = analyser.dictionary() {
        let path = folder.path().join(super::DICTIONARY);
        dictionary.write(&mut std::fs::File::create(&path).unwrap(), &path).unwrap();
    }
    let index = Bm25Index::open(&path).unwrap();
    let queries = rows(&data.join(tag).join("topics.dev.tsv"));
    let mut relevant: HashMap<String, Vec<String>> = HashMap::new();
    for row in rows(&data.join(tag).join("qrels.dev.tsv")).iter().filter(|row| row[3] != "0") {
        relevant.entry(row[0].clone()).or_default().push(row[2].clone());
    }
    let queries = queries.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    Some(Judged { chain: name, corpus, index, queries, relevant })
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

    /// Shares of the golden rankings with the same passages, those that tie with the last one apart: at scores that are
    /// near, and at scores equal to the last bit.
    fn equal_rankings(&self, golden: &[Vec<String>]) -> (f64, f64) {
        let (mut near, mut equal) = (0, 0);
        for row in golden {
            let found = self.search(&row[0], 20);
            let hits = row[1..].iter().map(|hit| hit.rsplit_once('=').unwrap());
            let hits: Vec<(&str, f32)> = hits.map(|(id, score)| (id, score.parse().unwrap())).collect();
            let expected: HashMap<&str, f32> = hits.iter().copied().collect();
            let is_near = |ours: f32, theirs: f32| (ours - theirs).abs() <= 1e-5 * theirs;
            let last = hits.last().map_or(0.0, |(_, score)| *score);
            let pairs = || found.iter().zip(&hits).map(|((_, ours), (_, theirs))| (*ours, *theirs));
            let is_known = |(id, score): &(String, f32)| {
                expected.get(id.as_str()).map_or(is_near(*score, last), |theirs| is_near(*score, *theirs))
            };
            if found.len() == hits.len() && pairs().all(|(a, b)| is_near(a, b)) && found.iter().all(is_known) {
                near += 1;
                equal += usize::from(pairs().all(|(a, b)| a.to_bits() == b.to_bits()));
            }
        }
        (f64::from(near) / golden.len() as f64, equal as f64 / golden.len() as f64)
    }
}

#[test]
fn scores_and_rankings_of_mini_miracl_are_those_of_lucene() {
    let Some(data) = mini_miracl() else { return };
    let golden = repository().join("tests/golden/lucene");
    println!("name queries | nDCG@10: ours Lucene's | Recall@100: ours Lucene's | rankings: near equal | chain");
    for row in rows(&golden.join("measures.tsv")) {
        let Some(language) = open(&data, &row[0]) else { continue };
        let (ndcg, recall) = language.measure();
        let (their_ndcg, their_recall): (f64, f64) = (row[2].parse().unwrap(), row[3].parse().unwrap());
        let (near, equal) = language.equal_rankings(&rows(&golden.join(format!("{}.rankings.tsv", row[0]))));
        println!(
            "{} {} | {ndcg:.4} {their_ndcg:.4} | {recall:.4} {their_recall:.4} | {near:.2} {equal:.2} | {}",
            row[0], row[1], language.chain
        );
        let (tolerance, enough) = if OTHER_TERMS.contains(&&*row[0]) { (0.02, 0.0) } else { (0.002, 0.95) };
        assert!((ndcg - their_ndcg).abs() <= tolerance, "{}: nDCG@10 {ndcg} for {their_ndcg}", row[0]);
        assert!(near >= enough, "{}: {near} of the rankings are those of Lucene", row[0]);
    }
}
