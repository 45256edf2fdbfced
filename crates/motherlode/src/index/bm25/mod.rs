//! BM25 over an inverted index of our own, one mapped file a language.
//!
//! Score of a passage: Σ over the query's terms (a repeated term counts again) of idf · tf / (tf + k1 (1 − b + b · length /
//! average)), with idf = ln(1 + (N − n + ½) / (n + ½)). N and the average count passages that have a term at all. Lengths
//! are rounded to a byte, and everything is computed in the precision and in the form of Lucene's `BM25Similarity` (8 and
//! later: without the constant factor k1 + 1), so that scores equal Anserini's to the last bit; one thing differs: a term
//! that a passage has more than 127 times is counted with four significant bits.

mod build;
mod file;
mod impact;
mod invert;
mod prune;
mod rounding;
mod search;

#[cfg(test)]
mod golden;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use self::search::Bm25Index;
use crate::artefact::{self, Artefact, Draft, Outcome, Recipe, Summary};
use crate::corpus::Language;
use crate::dataset::{Dataset, Partition};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::text::analyse::{Analyser, Chain, JapaneseDictionary};

const FORMAT: u32 = 3;

/// How texts become terms and how passages are weighed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bm25Config {
    /// How soon a repeated term stops to count; 0 and above.
    pub k1: f64,
    /// How much long passages are held back: 0 (not) to 1 (in proportion).
    pub b: f64,
    /// The chain of steps from a text to terms, for all languages.
    pub analyser: Chain,
    /// Other chains for single languages, such as `fa = "persian-stemmed"`.
    pub analysers: BTreeMap<Language, Chain>,
    /// Whether stop words are left out, where the chain has a list.
    pub stop_words: bool,
    /// Whether words are stemmed, where the chain has a stemmer.
    pub stemming: bool,
    /// Bytes for building an index, at least a mebibyte a thread. The index does not depend on it, so it is no part of the
    /// key.
    #[serde(skip_serializing)]
    pub memory: usize,
}

impl Default for Bm25Config {
    /// Anserini's values.
    fn default() -> Self {
        Self {
            k1: 0.9,
            b: 0.4,
            analyser: Chain::ByLanguage,
            analysers: BTreeMap::new(),
            stop_words: true,
            stemming: true,
            memory: 1 << 30,
        }
    }
}

impl Bm25Config {
    /// Checks the ranges.
    pub fn validate(&self) -> Result<()> {
        if !(self.k1 >= 0.0 && self.k1.is_finite()) {
            return Err(Error::config(format!("`index.k1`: expected 0 or more, got {}", self.k1)));
        }
        if !(0.0..=1.0).contains(&self.b) {
            return Err(Error::config(format!("`index.b`: expected 0 to 1, got {}", self.b)));
        }
        Ok(())
    }

    /// The analyser of a language.
    pub fn analyser(&self, language: &Language) -> Analyser {
        let chain = self.analysers.get(language).copied().unwrap_or(self.analyser);
        Analyser::new(chain, language).with(self.stop_words, self.stemming)
    }
}

/// Name of the stage that writes indexes.
pub const STAGE: &str = "index";

/// The index file of a language inside the artefact.
pub fn file_name(language: &Language) -> String {
    format!("{language}/bm25.bin")
}

/// Beside an index, the dictionary that its analyser needs.
const DICTIONARY: &str = "words.dic";

/// What is indexed.
#[derive(Clone, Copy)]
pub struct IndexInputs<'a> {
    /// The data set.
    pub dataset: &'a Dataset,
    /// The folder of a Japanese dictionary, IPADIC's files, for chains that need one.
    pub dictionary: Option<&'a Path>,
}

impl IndexInputs<'_> {
    fn recipe(&self, config: &Bm25Config) -> Result<Recipe> {
        let mut recipe = Recipe::new(STAGE, FORMAT, config)?.input_key("dataset", &self.dataset.key);
        let mut lacks_dictionary = false;
        for partition in &self.dataset.partitions {
            let (language, analyser) = (&partition.language, config.analyser(&partition.language));
            lacks_dictionary |= analyser.lacks_dictionary();
            recipe = recipe.input_key(&format!("analyser {language}"), &analyser.name());
        }
        match self.dictionary {
            Some(folder) if lacks_dictionary => Ok(recipe.input_key("dictionary", &JapaneseDictionary::key(folder)?)),
            None if lacks_dictionary => Err(Error::config(
                "`index.analysers`: the chain `japanese` needs a dictionary; name the folder of IPADIC's files, such as \
                 Debian's /usr/share/mecab/dic/ipadic, or take the chain `bigrams`",
            )),
            _ => Ok(recipe),
        }
    }
}

/// Indexes every language of a data set: the stage `index`.
pub fn index(inputs: IndexInputs<'_>, config: &Bm25Config, out: &Path, progress: &Progress<'_>) -> Result<Artefact> {
    config.validate()?;
    let mut draft = match artefact::draft(out, inputs.recipe(config)?)? {
        Outcome::UpToDate(artefact) => return Ok(artefact),
        Outcome::Write(draft) => draft,
    };
    let mut summary = Summary::default();
    for partition in &inputs.dataset.partitions {
        index_language(partition, inputs.dictionary, config, &mut draft, progress)?;
        Bm25Index::open(&draft.path(&file_name(&partition.language)))?.describe(&partition.language, &mut summary);
    }
    draft.commit(summary)
}

fn index_language(
    partition: &Partition,
    dictionary: Option<&Path>,
    config: &Bm25Config,
    draft: &mut Draft,
    progress: &Progress<'_>,
) -> Result<()> {
    let (language, corpus, scratch) = (&partition.language, &partition.corpus, &draft.scratch()?);
    let mut analyser = config.analyser(language);
    if let Some(folder) = dictionary.filter(|_| analyser.lacks_dictionary()) {
        let dictionary = JapaneseDictionary::compile(folder)?;
        let file = format!("{language}/{DICTIONARY}");
        let path = draft.path(&file);
        draft.write(&file, |output| dictionary.write(output, &path).map(|()| 1))?;
        analyser = analyser.with_dictionary(dictionary);
    }
    let file = file_name(language);
    let path = draft.path(&file);
    progress.begin(&format!("index {language}"), corpus.len(), "passages");
    draft.write(&file, |output| {
        build::Build { corpus, analyser: &analyser, config, scratch, progress }.write(output, &path)?;
        Ok(corpus.len() as u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::{Corpus, corpus_of};

    fn language() -> Language {
        Language::new("en").unwrap()
    }

    /// The bytes of an index.
    fn bytes_of(corpus: &Corpus, config: &Bm25Config) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let (path, progress) = (folder.path().join("bm25.bin"), &Progress::silent());
        let (analyser, scratch) = (&config.analyser(&language()), folder.path());
        let build = build::Build { corpus, analyser, config, scratch, progress };
        artefact::write_whole(&path, |output| build.write(output, &path)).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "scratch files are gone");
        std::fs::read(path).unwrap()
    }

    fn index_of(corpus: &Corpus, config: &Bm25Config) -> Bm25Index {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bm25.bin");
        std::fs::write(&path, bytes_of(corpus, config)).unwrap();
        Bm25Index::open(&path).unwrap()
    }

    fn plain() -> Bm25Config {
        Bm25Config { analyser: Chain::Plain, ..Bm25Config::default() }
    }

    fn search(corpus: &Corpus, text: &str, depth: usize) -> Vec<(String, f32)> {
        let index = index_of(corpus, &plain());
        let ranking = index.search(&[text], depth, &corpus.id_ranks()).remove(0);
        ranking.iter().map(|scored| (corpus.id(scored.passage).to_owned(), scored.score)).collect()
    }

    /// Golden, Python 3.13:
    /// ```python
    /// from math import log
    /// docs = {"a": "Cats Cats and dogs", "b": "a dog barks", "c": "the cats sleep and cats purr all day", "d": ""}
    /// toks = {i: t.lower().split() for i, t in docs.items() if t}
    /// N, avg = len(toks), sum(map(len, toks.values())) / len(toks)
    /// for i, t in toks.items():
    ///     score = 0
    ///     for w in "cats and cats".split():
    ///         n = sum(w in u for u in toks.values()); tf = t.count(w)
    ///         score += log(1 + (N - n + .5) / (n + .5)) * tf / (tf + .9 * (1 - .4 + .4 * len(t) / avg))
    ///     print(i, score)
    /// ```
    #[test]
    fn scores_equal_the_formula() {
        let corpus = corpus_of(&[
            ("a", "Cats", "Cats and dogs"),
            ("b", "", "a dog barks"),
            ("c", "", "the cats sleep and cats purr all day"),
            ("d", "", ""),
        ]);
        let found = search(&corpus, "cats and CATS unknown", 10);
        assert_eq!(found.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["a", "c"]);
        assert!((found[0].1 - GOLDEN_A).abs() < 1e-6 && (found[1].1 - GOLDEN_C).abs() < 1e-6, "{found:?}");
    }
    const GOLDEN_A: f32 = 0.921_899_5;
    const GOLDEN_C: f32 = 0.825_461_2;

    #[test]
    fn ties_fall_to_the_higher_id_and_unmatched_passages_are_absent() {
        let corpus = corpus_of(&[("a", "", "x y"), ("c", "", "x z"), ("b", "", "x w"), ("d", "", "q")]);
        let ids: Vec<String> = search(&corpus, "x", 2).into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, ["c", "b"]);
        assert!(search(&corpus, "nothing of it", 5).is_empty());
        assert!(search(&corpus, "x", 0).is_empty());
        assert!(search(&corpus_of(&[]), "x", 5).is_empty());
    }

    #[test]
    fn many_segments_and_windows_give_what_one_passage_at_a_time_gives() {
        let texts: Vec<String> = (0..70_000).map(|n| format!("w{} common w{} w{0}", n % 97, n % 1009)).collect();
        let ids: Vec<String> = (0..texts.len()).map(|n| format!("p{n}")).collect();
        let rows: Vec<(&str, &str, &str)> =
            ids.iter().zip(&texts).map(|(id, text)| (id.as_str(), "", text.as_str())).collect();
        let corpus = corpus_of(&rows);
        let found = search(&corpus, "w5 w1000", 300);
        let mut expected: Vec<(String, f32)> = Vec::new();
        let count = |test: &dyn Fn(usize) -> usize| (0..texts.len()).filter(|n| test(*n) > 0).count() as f64;
        let all = texts.len() as f64;
        let frequency = |word: usize| move |n: usize| 2 * usize::from(n % 97 == word) + usize::from(n % 1009 == word);
        let mut scores = vec![0.0_f64; texts.len()];
        for word in [1000, 5] {
            let containing = count(&frequency(word));
            let idf = (1.0 + (all - containing + 0.5) / (containing + 0.5)).ln();
            for (n, score) in scores.iter_mut().enumerate() {
                let tf = frequency(word)(n) as f64;
                *score += idf * tf / (tf + 0.9);
            }
        }
        expected.extend(ids.iter().zip(&scores).filter(|(_, s)| **s > 0.0).map(|(id, s)| (id.clone(), *s as f32)));
        expected.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| b.0.cmp(&a.0)));
        for (found, expected) in found.iter().zip(&expected) {
            assert!(found.0 == expected.0 && (found.1 - expected.1).abs() < 1e-5, "{found:?} {expected:?}");
        }
        assert_eq!(found.len(), 300);
    }

    #[test]
    fn neither_threads_nor_memory_change_a_byte() {
        let texts: Vec<String> = (0..30_000).map(|n| format!("w{} w{} w{}", n % 7, n % 1009, n * n % 512)).collect();
        let ids: Vec<String> = (0..texts.len()).map(|n| n.to_string()).collect();
        let rows: Vec<(&str, &str, &str)> = ids.iter().zip(&texts).map(|(id, text)| (&**id, "", &**text)).collect();
        let corpus = corpus_of(&rows);
        let bytes = |threads, memory| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| bytes_of(&corpus, &Bm25Config { memory, ..Bm25Config::default() }))
        };
        let expected = bytes(1, 1 << 30);
        assert!(expected == bytes(3, 1 << 30) && expected == bytes(2, 1));
    }

    #[test]
    fn a_damaged_index_and_another_analyser_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bm25.bin");
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Bm25Index::open(&path).unwrap_err().to_string()
        };
        assert!(refused(&[b'x'; 200]).contains("not a BM25 index"));
        let bytes = bytes_of(&corpus_of(&[("a", "", "x")]), &plain());
        assert!(refused(&bytes[..bytes.len() - 8]).contains("truncated"));
        let name = b"plain-words/2";
        let place = bytes.windows(name.len()).position(|window| window == name).unwrap();
        let mut older = bytes;
        older[place + name.len() - 1] = b'1';
        assert!(refused(&older).contains("index again"));
    }

    #[test]
    fn values_out_of_range_are_refused() {
        assert!(Bm25Config { k1: -1.0, ..Bm25Config::default() }.validate().is_err());
        let message = Bm25Config { b: 1.5, ..Bm25Config::default() }.validate().unwrap_err().to_string();
        assert!(message.contains("`index.b`"));
    }

    #[test]
    fn languages_may_have_chains_of_their_own() {
        let table = crate::config::parse_table("x", "analyser = 'plain'\nanalysers.fa = 'persian-stemmed'").unwrap();
        let config: Bm25Config = crate::config::from_table("index", table).unwrap();
        let name = |tag| config.analyser(&Language::new(tag).unwrap()).name();
        assert_eq!(name("en"), "plain-words/2");
        assert!(name("fa").ends_with("+persian-stem/2"));
        let table = crate::config::parse_table("x", "analyser = 'enlish'").unwrap();
        let message = crate::config::from_table::<Bm25Config>("index", table).unwrap_err().to_string();
        assert!(message.contains("did you mean `english`?"), "{message}");
    }
}
