//! Examples with dense numbers in place of ids, so that planning compares integers.

use std::collections::{BTreeMap, HashMap, HashSet};

use rand::seq::SliceRandom;

use crate::corpus::Language;
use crate::error::{Error, Result};
use crate::random;
use crate::sample::{Example, Provenance};
use crate::topic::Topic;

/// A passage that some query brings.
pub(super) struct Passage {
    pub(super) id: String,
    pub(super) language: usize,
    pub(super) topic: Topic,
}

/// A query with what it may bring, passages by number.
pub(super) struct Query {
    pub(super) id: String,
    pub(super) language: usize,
    /// The topic of its first positive.
    pub(super) topic: Topic,
    pub(super) positives: Vec<u32>,
    /// Shuffled by seed.
    pub(super) negatives: Vec<(u32, Provenance)>,
    /// Among the passages that any query brings, those that are no negatives of this one; its positives are among them.
    pub(super) relevant: Vec<u32>,
}

/// All training queries and every passage that they bring.
pub(super) struct Material {
    pub(super) languages: Vec<Language>,
    pub(super) passages: Vec<Passage>,
    pub(super) queries: Vec<Query>,
}

impl Material {
    /// Numbers languages, queries and passages in the order of the examples.
    pub(super) fn new(
        examples: &BTreeMap<Language, Vec<Example>>,
        topic_of: impl Fn(&Language, &str) -> Result<Topic>,
        seed: u64,
    ) -> Result<Self> {
        let mut material =
            Self { languages: examples.keys().cloned().collect(), passages: Vec::new(), queries: Vec::new() };
        for (language, (name, examples)) in examples.iter().enumerate() {
            let numbers = material.number_passages(language, examples, |passage| topic_of(name, passage))?;
            for example in examples {
                let query = material.query(language, example, &numbers, seed)?;
                material.queries.push(query);
            }
        }
        if material.queries.is_empty() {
            return Err(Error::data("there are no training examples to plan batches for; run `sample` again"));
        }
        Ok(material)
    }

    /// Gives a number to every positive and negative of one language.
    fn number_passages<'a>(
        &mut self,
        language: usize,
        examples: &'a [Example],
        topic_of: impl Fn(&str) -> Result<Topic>,
    ) -> Result<HashMap<&'a str, u32>> {
        let mut numbers = HashMap::new();
        for example in examples {
            let negatives = example.negatives.iter().map(|negative| &negative.passage);
            for id in example.positives.iter().chain(negatives) {
                if !numbers.contains_key(id.as_str()) {
                    numbers.insert(id.as_str(), self.passages.len() as u32);
                    self.passages.push(Passage { id: id.clone(), language, topic: topic_of(id)? });
                }
            }
        }
        Ok(numbers)
    }

    fn query(&self, language: usize, example: &Example, numbers: &HashMap<&str, u32>, seed: u64) -> Result<Query> {
        let name = &self.languages[language];
        let positives: Vec<u32> = example.positives.iter().map(|id| numbers[id.as_str()]).collect();
        let first = positives.first().ok_or_else(|| {
            Error::data(format!("query `{}` of `{name}` has no positive; leave it out of the examples", example.query))
        })?;
        let topic = self.passages[*first as usize].topic;
        let number = |negative: &crate::sample::Negative| (numbers[negative.passage.as_str()], negative.provenance);
        let mut negatives: Vec<_> = example.negatives.iter().map(number).collect();
        negatives.shuffle(&mut random::keyed(seed, "batch.negatives", &format!("{name}/{}", example.query)));
        let mut seen = HashSet::new();
        let known = example.relevant.iter().filter_map(|id| numbers.get(id.as_str()).copied());
        let relevant = positives.iter().copied().chain(known).filter(|passage| seen.insert(*passage)).collect();
        Ok(Query { id: example.query.clone(), language, topic, positives, negatives, relevant })
    }
}
