//! Terms beside those of Lucene itself. `tests/golden/lucene.py` makes the files and tells what stands in them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use sha2::{Digest, Sha256};

use super::{Analyser, Chain, JapaneseDictionary};
use crate::corpus::Language;

const LANGUAGES: [&str; 16] =
    ["ar", "bn", "en", "es", "fa", "fi", "fr", "hi", "id", "ja", "ko", "ru", "sw", "te", "th", "zh"];

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// IPADIC as Debian's package `mecab-ipadic` has it; none, and a word about it, where it is not there.
static DICTIONARY: LazyLock<Option<JapaneseDictionary>> = LazyLock::new(|| {
    let folder = Path::new("/usr/share/mecab/dic/ipadic");
    if !folder.join("matrix.def").exists() {
        println!("the chain `japanese` is left out: there is no {}", folder.display());
        return None;
    }
    Some(JapaneseDictionary::compile(folder).unwrap())
});

/// The language of a chain's texts.
pub(crate) fn language(chain: &str) -> Language {
    Language::new(match chain {
        "fa-stemmed" => "fa",
        "japanese" => "ja",
        language => language,
    })
    .unwrap()
}

/// The analyser of a chain by its name in the golden files, none where its dictionary is not there.
pub(crate) fn analyser(name: &str) -> Option<Analyser> {
    let (language, chain) = match name {
        "fa-stemmed" => (language(name), Chain::PersianStemmed),
        "japanese" => (language(name), Chain::Japanese),
        _ => (language(name), Chain::ByLanguage),
    };
    let analyser = Analyser::new(chain, &language);
    if analyser.lacks_dictionary() { Some(analyser.with_dictionary(DICTIONARY.clone()?)) } else { Some(analyser) }
}

/// Whether words come from another dictionary than Lucene's, so that terms are near to its, not the same.
fn is_near(chain: &str) -> bool {
    ["japanese", "th"].contains(&chain)
}

/// Sentences, how many of them have equal terms, and the F1 of all terms.
#[derive(Default)]
struct Agreement {
    sentences: usize,
    equal: usize,
    shared: usize,
    ours: usize,
    theirs: usize,
}

impl Agreement {
    fn add<T: Clone + Eq + std::hash::Hash>(&mut self, ours: &[T], theirs: &[T]) {
        let mut left: HashMap<T, usize> = HashMap::new();
        theirs.iter().for_each(|term| *left.entry(term.clone()).or_default() += 1);
        let shared = ours.iter().filter(|term| {
            let count = left.get_mut(*term).filter(|count| **count > 0);
            count.map(|count| *count -= 1).is_some()
        });
        self.shared += shared.count();
        self.sentences += 1;
        self.equal += usize::from(ours == theirs);
        self.ours += ours.len();
        self.theirs += theirs.len();
    }

    /// Prints how far the terms agree; whether it is enough.
    fn check(&self, language: &str) -> bool {
        let equal = self.equal as f64 / self.sentences as f64;
        let f1 = 2.0 * self.shared as f64 / (self.ours + self.theirs) as f64;
        println!("{language}: {} of {} sentences equal, F1 {f1:.4}", self.equal, self.sentences);
        if is_near(language) { f1 >= 0.95 } else { equal >= 0.99 }
    }
}

#[test]
fn terms_of_the_demo_are_those_of_lucene() {
    #[derive(serde::Deserialize)]
    struct Row {
        chain: String,
        text: String,
        terms: Vec<String>,
    }
    let lines = std::fs::read_to_string(repository().join("tests/golden/lucene/demo.jsonl")).unwrap();
    let rows: Vec<Row> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut enough = true;
    for language in LANGUAGES.into_iter().chain(["fa-stemmed", "japanese"]) {
        let (Some(analyser), mut agreement) = (analyser(language), Agreement::default()) else { continue };
        for row in rows.iter().filter(|row| row.chain == language) {
            let ours = analyser.terms(&row.text);
            if ours != row.terms && !is_near(language) {
                println!("{language}: {ours:?}\n    {:?}", row.terms);
            }
            agreement.add(&ours, &row.terms);
        }
        assert!(agreement.sentences > 20, "{language}");
        enough &= agreement.check(language);
    }
    assert!(enough, "too few sentences are equal");
}

/// mini-MIRACL, in a folder `shared` beside the repository or above it; none, and a word about it, where it is not there.
pub(crate) fn mini_miracl() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|above| above.join("shared/data/mini-miracl"));
    let found = folder.into_iter().find(|folder| folder.is_dir());
    if found.is_none() {
        println!("skipped: there is no ../shared/data/mini-miracl");
    }
    found
}

/// A line of a MIRACL corpus.
#[derive(serde::Deserialize)]
pub(crate) struct Passage {
    pub(crate) docid: String,
    pub(crate) title: String,
    pub(crate) text: String,
}

/// The passages of a language of mini-MIRACL.
pub(crate) fn passages(mini_miracl: &Path, language: &str) -> Vec<Passage> {
    let file = std::fs::File::open(mini_miracl.join(language).join("corpus.jsonl.gz")).unwrap();
    let mut lines = String::new();
    std::io::Read::read_to_string(&mut flate2::read::MultiGzDecoder::new(file), &mut lines).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Terms are compared by the first 16 bits of their digests, so that the passages are not copied.
#[test]
fn terms_of_mini_miracl_are_those_of_lucene() {
    let Some(data) = mini_miracl() else { return };
    let mut enough = true;
    for language in LANGUAGES.into_iter().chain(["japanese"]) {
        let Some(analyser) = analyser(language) else { continue };
        let passages = passages(&data, self::language(language).as_str()).into_iter();
        let corpus: HashMap<String, String> = passages.map(|passage| (passage.docid, passage.text)).collect();
        let file = repository().join(format!("tests/golden/lucene/{language}.sentences.tsv"));
        let mut agreement = Agreement::default();
        for line in std::fs::read_to_string(file).unwrap().lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let (start, end): (usize, usize) = (fields[1].parse().unwrap(), fields[2].parse().unwrap());
            let sentence: String = corpus[fields[0]].chars().skip(start).take(end - start).collect();
            let terms = analyser.terms(&sentence);
            let digest = |term: &String| {
                let digest = Sha256::digest(term.as_bytes());
                format!("{:02x}{:02x}", digest[0], digest[1])
            };
            let ours: Vec<String> = terms.iter().map(digest).collect();
            let theirs: Vec<String> =
                fields[3].as_bytes().chunks(4).map(|digits| String::from_utf8_lossy(digits).into_owned()).collect();
            if ours != theirs && !is_near(language) {
                println!("{language}: {sentence}\n    {terms:?}");
            }
            agreement.add(&ours, &theirs);
        }
        assert!(agreement.sentences >= 200, "{language}");
        enough &= agreement.check(language);
    }
    assert!(enough, "too few sentences are equal");
}
