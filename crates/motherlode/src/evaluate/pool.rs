//! What was ranked: the whole declared corpus, or a smaller pool, which makes every measure look better.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::EvaluateConfig;
use crate::corpus::Language;
use crate::dataset::Partition;
use crate::error::{Error, Result};

/// Passages of MIRACL's corpora, version 1.0, by language.
///
/// *Source*: the data set card of `miracl/miracl-corpus`; 90,416,887 without German and Yoruba.
const MIRACL: [(&str, usize); 18] = [
    ("ar", 2_061_414),
    ("bn", 297_265),
    ("de", 15_866_222),
    ("en", 32_893_221),
    ("es", 10_373_953),
    ("fa", 2_207_172),
    ("fi", 1_883_509),
    ("fr", 14_636_953),
    ("hi", 506_264),
    ("id", 1_446_315),
    ("ja", 6_953_614),
    ("ko", 1_486_752),
    ("ru", 9_543_918),
    ("sw", 131_924),
    ("te", 518_079),
    ("th", 542_166),
    ("yo", 49_043),
    ("zh", 4_934_368),
];

/// A public collection whose numbers of passages are known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Collection {
    /// MIRACL, with all its passages.
    Miracl,
}

/// How many passages were ranked, of how many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Passages of the corpus that was ranked; none where only files of a run and qrels were at hand.
    pub passages: Option<usize>,
    /// Passages of the corpus that was declared; none where nobody declared one.
    pub declared: Option<usize>,
}

impl Pool {
    /// Whether fewer passages were ranked than declared.
    pub fn is_reduced(self) -> bool {
        self.passages.zip(self.declared).is_some_and(|(passages, declared)| passages < declared)
    }
}

impl EvaluateConfig {
    /// Passages of the declared corpus of a language.
    pub(super) fn declared(&self, language: &Language) -> Option<usize> {
        let known = |Collection::Miracl| MIRACL.iter().find(|(tag, _)| *tag == language.as_str()).map(|(_, n)| *n);
        self.corpus_passages.get(language).copied().or_else(|| self.collection.and_then(known))
    }

    pub(super) fn pool(&self, partition: &Partition) -> Pool {
        Pool { passages: Some(partition.corpus.len()), declared: self.declared(&partition.language) }
    }

    /// Refuses corpora that are smaller than the declared ones, unless `reduced_pool` allows them.
    pub fn check_pool<'a>(&self, partitions: impl IntoIterator<Item = &'a Partition>) -> Result<()> {
        let pools = partitions.into_iter().map(|partition| (partition.language.clone(), self.pool(partition)));
        let reduced: BTreeMap<Language, Pool> = pools.filter(|(_, pool)| pool.is_reduced()).collect();
        if reduced.is_empty() || self.reduced_pool {
            return Ok(());
        }
        Err(Error::data(format!(
            "the corpus is smaller than the one declared for evaluation: {}; such scores are too high and cannot be \
             compared. Fetch the whole corpus, or set `evaluate.reduced_pool = true` to have the result labelled",
            described(&reduced)
        )))
    }
}

/// What a reader of the results must not miss, where some language's pool was reduced.
pub fn label(pools: &BTreeMap<Language, Pool>) -> Option<String> {
    let reduced = pools.iter().filter(|(_, pool)| pool.is_reduced()).map(|(language, pool)| (language.clone(), *pool));
    let reduced: BTreeMap<Language, Pool> = reduced.collect();
    let text = described(&reduced);
    (!reduced.is_empty()).then(|| format!("Reduced pool, not comparable with results over the whole corpus: {text}."))
}

fn described(pools: &BTreeMap<Language, Pool>) -> String {
    let one = |(language, pool): (&Language, &Pool)| {
        let (passages, declared) = (pool.passages.unwrap_or(0), pool.declared.unwrap_or(0));
        format!("{language} {passages} of {declared} passages")
    };
    pools.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_languages_of_the_paper_sum_up_to_what_it_says() {
        let of_the_paper = MIRACL.iter().filter(|(tag, _)| !["de", "yo"].contains(tag));
        assert_eq!(of_the_paper.map(|(_, passages)| passages).sum::<usize>(), 90_416_887);
    }

    #[test]
    fn numbers_by_hand_win_and_unknown_languages_are_not_declared() {
        let language = |tag| Language::new(tag).unwrap();
        let corpus_passages = [(language("sw"), 7)].into();
        let config =
            EvaluateConfig { collection: Some(Collection::Miracl), corpus_passages, ..EvaluateConfig::default() };
        let declared = ["sw", "te", "xx"].map(|tag| config.declared(&language(tag)));
        assert_eq!(declared, [Some(7), Some(518_079), None]);
        assert_eq!(EvaluateConfig::default().declared(&language("sw")), None);
    }

    #[test]
    fn only_a_smaller_pool_is_labelled() {
        let pool = |passages, declared| Pool { passages, declared };
        let language = |tag| Language::new(tag).unwrap();
        let whole = [(language("sw"), pool(Some(5), Some(5))), (language("te"), pool(None, Some(5)))];
        assert_eq!(label(&whole.into()), None);
        let reduced = label(&[(language("sw"), pool(Some(4), Some(5)))].into()).unwrap();
        assert!(reduced.ends_with("over the whole corpus: sw 4 of 5 passages."), "{reduced}");
    }
}
