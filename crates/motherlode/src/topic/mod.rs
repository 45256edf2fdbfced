//! Topics: the subject class of every passage.
//!
//! Reads the data set and, by method, passage vectors (`LANG/passages.f32` of an `encode` artefact: raw `f32`, row-major,
//! the dimension in the summary), fastText classifiers, or a table of the user's own labels. Writes `topics.json`.

mod classify;
mod cluster;
mod field;
#[cfg(test)]
pub(crate) mod fixture;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::artefact::{self, Artefact, Outcome, Recipe, Summary};
use crate::corpus::Language;
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// The name of the stage.
pub const STAGE: &str = "topic";
const FORMAT: u32 = 1;
const FILE: &str = "topics.json";

/// A subject class, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Topic(pub u32);

/// The topics of a data set: what the artefact of `topic` holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Topics {
    /// A readable name for every topic, by number.
    pub labels: Vec<String>,
    /// For every language the topic of each passage, by position in the corpus.
    pub passages: BTreeMap<Language, Vec<Topic>>,
}

impl Topics {
    /// Reads `topics.json` of the artefact.
    pub fn open(artefact: &Artefact) -> Result<Self> {
        let path = artefact.path(FILE);
        let text = std::fs::read_to_string(&path).map_err(crate::Error::io(&path))?;
        serde_json::from_str(&text).map_err(|error| crate::Error::file(&path, error.to_string()))
    }

    /// The topic of a passage by its id.
    ///
    /// # Errors
    /// The data set has no such language or passage, or the topics were made from another data set.
    pub fn of(&self, dataset: &Dataset, language: &Language, passage: &str) -> Result<Topic> {
        let index = dataset.partition(language)?.corpus.find(passage).ok_or_else(|| {
            Error::data(format!("`{language}` has no passage `{passage}`; was it taken from another data set?"))
        })?;
        self.passages.get(language).and_then(|topics| topics.get(index.at())).copied().ok_or_else(|| {
            Error::data(format!("no topic for passage `{passage}` of `{language}`; run `topic` on this data set again"))
        })
    }
}

/// Where topics come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Spherical k-means over passage vectors of all languages.
    #[default]
    Cluster,
    /// The paper's way: English fastText classifiers trained on Yahoo Answers and DBpedia, mapped to its 12 classes.
    Fasttext,
    /// The user's own labels.
    Field,
}

/// The knobs of `topic`; all but `method` concern clusters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TopicConfig {
    /// Where topics come from.
    pub method: Method,
    /// Number of clusters, C. Fewer come out where there are fewer distinct vectors.
    pub classes: usize,
    /// Passages on which the clusters are fitted, the same number from every language as far as it has them.
    pub sample: usize,
    /// The most rounds of k-means.
    pub iterations: usize,
    /// Whether the mean vector of its language is taken off every vector, so that clusters are subjects, not languages.
    pub center_languages: bool,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self { method: Method::default(), classes: 12, sample: 50_000, iterations: 50, center_languages: true }
    }
}

impl TopicConfig {
    /// Checks the ranges.
    pub fn validate(&self) -> Result<()> {
        let knobs = [("classes", self.classes), ("sample", self.sample), ("iterations", self.iterations)];
        if let Some((name, _)) = knobs.iter().find(|(_, value)| *value == 0) {
            return Err(Error::config(format!("`topic.{name}`: expected at least 1, got 0")));
        }
        if self.sample < self.classes {
            let (sample, classes) = (self.sample, self.classes);
            return Err(Error::config(format!("`topic.sample`: expected at least {classes} (classes), got {sample}")));
        }
        Ok(())
    }
}

/// What `topic` reads; which of the optional ones are needed depends on the method.
#[derive(Debug, Clone, Copy)]
pub struct TopicInputs<'a> {
    /// The passages.
    pub dataset: &'a Dataset,
    /// For `cluster`: passage vectors of one model.
    pub embeddings: Option<&'a Artefact>,
    /// For `fasttext`: the Yahoo-Answers classifier (`.bin` or `.ftz`). One of the two classifiers is enough.
    pub yahoo: Option<&'a Path>,
    /// For `fasttext`: the DBpedia classifier, asked where Yahoo's label belongs to no class.
    pub dbpedia: Option<&'a Path>,
    /// For `field`: lines of `LANG<TAB>docid<TAB>label`.
    pub labels: Option<&'a Path>,
}

/// The topic of every passage of the data set, as an artefact.
///
/// # Errors
/// What the method needs is not among the inputs, vectors that do not fit the data set or hold NaN, a classifier with
/// labels outside the table, labels for unknown passages.
pub fn topic(
    inputs: &TopicInputs,
    config: &TopicConfig,
    seed: u64,
    out: &Path,
    progress: &Progress,
) -> Result<Artefact> {
    config.validate()?;
    let mut draft = match artefact::draft(out, recipe(inputs, config, seed)?)? {
        Outcome::UpToDate(artefact) => return Ok(artefact),
        Outcome::Write(draft) => draft,
    };
    let mut summary = Summary::default();
    let topics = match config.method {
        Method::Cluster => cluster::topics(inputs, config, seed, progress, &mut summary)?,
        Method::Fasttext => classify::topics(inputs, progress)?,
        Method::Field => field::topics(inputs, &mut summary)?,
    };
    summarise(&topics, &mut summary);
    let path = draft.path(FILE);
    draft.write(FILE, |output| {
        serde_json::to_writer(output, &topics).map_err(|error| Error::file(&path, error.to_string()))?;
        Ok(topics.passages.values().map(|passages| passages.len() as u64).sum())
    })?;
    draft.commit(summary)
}

/// The key of the artefact: only the inputs that the method reads take part.
fn recipe(inputs: &TopicInputs, config: &TopicConfig, seed: u64) -> Result<Recipe> {
    let recipe = Recipe::new(STAGE, FORMAT, config)?.seed(seed).input_key("dataset", &inputs.dataset.key);
    let with_file = |recipe: Recipe, role: &str, path: Option<&Path>| match path {
        Some(path) => Ok(recipe.input_key(role, &artefact::hash_file(path)?)),
        None => Ok(recipe),
    };
    match config.method {
        Method::Cluster => Ok(recipe.input("embeddings", needed(inputs.embeddings, "cluster", "embeddings")?)),
        Method::Fasttext if inputs.yahoo.is_none() && inputs.dbpedia.is_none() => {
            Err(Error::config("`topic.method = \"fasttext\"` needs a Yahoo or a DBpedia classifier; name its file"))
        }
        Method::Fasttext => with_file(with_file(recipe, "yahoo", inputs.yahoo)?, "dbpedia", inputs.dbpedia),
        Method::Field => with_file(recipe, "labels", Some(needed(inputs.labels, "field", "labels")?)),
    }
}

fn needed<'a, T: ?Sized>(input: Option<&'a T>, method: &str, name: &str) -> Result<&'a T> {
    input.ok_or_else(|| Error::config(format!("`topic.method = \"{method}\"` needs {name}; name them")))
}

/// Counts passages per topic, and says how much a passage's topic tells of its language.
fn summarise(topics: &Topics, summary: &mut Summary) {
    let mut table = vec![vec![0u64; topics.passages.len()]; topics.labels.len()];
    for (language, passages) in topics.passages.values().enumerate() {
        for topic in passages {
            table[topic.0 as usize][language] += 1;
        }
    }
    for (number, row) in table.iter().enumerate() {
        summary.count(format!("topic {number:02}"), row.iter().sum::<u64>() as usize);
    }
    summary.count("topics", topics.labels.len());
    summary.value("share of topic information that is language", language_share(&table));
}

/// Mutual information of topic (rows) and language (columns) over the topics' entropy: 0 if independent, 1 if determined.
fn language_share(table: &[Vec<u64>]) -> f64 {
    let total: u64 = table.iter().flatten().sum();
    let share = |count: u64| count as f64 / total as f64;
    let languages: Vec<f64> = (0..table.first().map_or(0, Vec::len))
        .map(|language| share(table.iter().map(|row| row[language]).sum()))
        .collect();
    let (mut information, mut entropy) = (0.0, 0.0);
    for row in table {
        let topic = share(row.iter().sum());
        entropy -= if topic > 0.0 { topic * topic.ln() } else { 0.0 };
        for (count, language) in row.iter().zip(&languages).filter(|(count, _)| **count > 0) {
            information += share(*count) * (share(*count) / (topic * language)).ln();
        }
    }
    if entropy > 0.0 { information / entropy } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_that_are_languages_score_one_and_independent_ones_zero() {
        assert!((language_share(&[vec![5, 0], vec![0, 5]]) - 1.0).abs() < 1e-12);
        assert!(language_share(&[vec![5, 5], vec![5, 5]]).abs() < 1e-12);
        assert!(language_share(&[]).abs() < 1e-12);
    }

    #[test]
    fn ranges_are_checked() {
        assert!(TopicConfig::default().validate().is_ok());
        let message = TopicConfig { iterations: 0, ..TopicConfig::default() }.validate().unwrap_err().to_string();
        assert!(message.contains("`topic.iterations`"), "{message}");
        assert!(TopicConfig { sample: 3, ..TopicConfig::default() }.validate().is_err());
    }

    #[test]
    fn each_method_says_what_it_lacks() {
        let dataset = Dataset { key: "d".into(), partitions: Vec::new() };
        let inputs = TopicInputs { dataset: &dataset, embeddings: None, yahoo: None, dbpedia: None, labels: None };
        for (method, lacking) in
            [(Method::Cluster, "embeddings"), (Method::Fasttext, "classifier"), (Method::Field, "labels")]
        {
            let config = TopicConfig { method, ..TopicConfig::default() };
            let message = recipe(&inputs, &config, 0).unwrap_err().to_string();
            assert!(message.contains(lacking), "{message}");
        }
    }
}
