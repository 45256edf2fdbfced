//! The guard: what of the dev queries the training data has seen, and passages that stand under several ids.
//!
//! `sample` and `evaluate` count the findings in their summaries and list them in [`FILE`].

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::artefact::Summary;
use crate::corpus::{Language, PassageIndex};
use crate::dataset::{Partition, Split};
use crate::error::{Error, Result};
use crate::queries::Queries;
use crate::text::near::near_pairs;
use crate::text::normalise::normalise;
use crate::text::twins::Twins;

/// The file in which the findings are listed, one a line.
pub const FILE: &str = "overlaps.jsonl";

/// Two queries are near-equal from this similarity of their trigrams on, see [`near_pairs`].
const NEAR: f64 = 0.9;

/// How many findings an error names.
const NAMED: usize = 5;

/// What happens when training data and dev queries overlap, or passages stand under several ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guard {
    /// It is counted in the summary and listed.
    #[default]
    Count,
    /// It is an error.
    Strict,
}

/// What a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A dev query whose normalised text train queries have too.
    EqualQueries,
    /// A dev query whose text is nearly that of train queries.
    NearQueries,
    /// A dev positive that is, or has the text of, a positive of train queries.
    PositiveAsPositive,
    /// A dev positive that is, or has the text of, a negative of train queries.
    PositiveAsNegative,
    /// A passage whose normalised text stands under other ids too.
    DuplicatePassages,
}

impl Kind {
    const ALL: [Self; 5] = [
        Self::EqualQueries,
        Self::NearQueries,
        Self::PositiveAsPositive,
        Self::PositiveAsNegative,
        Self::DuplicatePassages,
    ];

    /// The name under which findings are counted.
    pub fn count_name(self) -> &'static str {
        match self {
            Self::EqualQueries => "leak: dev queries equal to train queries",
            Self::NearQueries => "leak: dev queries near-equal to train queries",
            Self::PositiveAsPositive => "leak: dev positives among training positives",
            Self::PositiveAsNegative => "leak: dev positives among training negatives",
            Self::DuplicatePassages => "duplicates: texts under several passage ids",
        }
    }
}

/// A line of [`FILE`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// The language.
    pub language: Language,
    /// What it is.
    pub kind: Kind,
    /// The id of the dev query, of the dev positive, or of the first of the duplicates.
    pub id: String,
    /// Ids of the train queries, or of the other duplicates.
    pub with: Vec<String>,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (language, id, first) = (&self.language, &self.id, self.with.first().map_or("", String::as_str));
        match self.kind {
            Kind::EqualQueries => write!(formatter, "{language} dev query `{id}` equals train query `{first}`"),
            Kind::NearQueries => write!(formatter, "{language} dev query `{id}` is nearly train query `{first}`"),
            Kind::PositiveAsPositive => {
                write!(formatter, "{language} dev positive `{id}` is a positive of train query `{first}`")
            }
            Kind::PositiveAsNegative => {
                write!(formatter, "{language} dev positive `{id}` is a negative of train query `{first}`")
            }
            Kind::DuplicatePassages => write!(formatter, "{language} passages `{id}` and `{first}` have one text"),
        }
    }
}

/// What is trained on, by position.
pub(crate) struct Trained {
    /// The train query's id.
    pub(crate) query: String,
    /// Its positives.
    pub(crate) positives: Vec<PassageIndex>,
    /// Its negatives.
    pub(crate) negatives: Vec<PassageIndex>,
}

/// Some passages of a query that was trained on.
type Passages = fn(&Trained) -> &[PassageIndex];

/// The findings of one language, by kind, each kind in the order of the data.
///
/// Queries are compared with all train queries, since those that are set aside for validation steer training too.
pub(crate) fn findings(partition: &Partition, training: &[Trained], twins: &Twins) -> Result<Vec<Finding>> {
    let language = &partition.language;
    let finding = |kind, id: &str, with: Vec<String>| Finding { language: language.clone(), kind, id: id.into(), with };
    let mut found = Vec::new();
    if partition.has(Split::Dev) {
        if partition.has(Split::Train) {
            let (dev, train) = (&partition.split(Split::Dev)?.queries, &partition.split(Split::Train)?.queries);
            found.extend(equal_queries(dev, train).map(|(id, with)| finding(Kind::EqualQueries, id, with)));
            found.extend(near_queries(dev, train).into_iter().map(|(id, with)| finding(Kind::NearQueries, &id, with)));
        }
        let positives: [(Kind, Passages); 2] = [
            (Kind::PositiveAsPositive, |trained| &trained.positives),
            (Kind::PositiveAsNegative, |trained| &trained.negatives),
        ];
        for (kind, of) in positives {
            let reused = reused_positives(partition, training, twins, of)?;
            found.extend(reused.into_iter().map(|(passage, with)| finding(kind, partition.corpus.id(passage), with)));
        }
    }
    let ids = |group: &[PassageIndex]| group.iter().map(|index| partition.corpus.id(*index).to_owned()).collect();
    let duplicates = twins.groups().iter();
    found.extend(
        duplicates.map(|group| finding(Kind::DuplicatePassages, partition.corpus.id(group[0]), ids(&group[1..]))),
    );
    Ok(found)
}

/// Ids of dev queries, each with the train queries of the same normalised text.
fn equal_queries<'a>(dev: &'a Queries, train: &Queries) -> impl Iterator<Item = (&'a str, Vec<String>)> {
    let mut by_text: HashMap<String, Vec<String>> = HashMap::new();
    for (_, query) in train.iter() {
        by_text.entry(normalise(&query.text)).or_default().push(query.id.clone());
    }
    dev.iter().filter_map(move |(_, query)| Some((query.id.as_str(), by_text.get(&normalise(&query.text))?.clone())))
}

/// The same for texts that are nearly, but not quite, equal.
fn near_queries(dev: &Queries, train: &Queries) -> Vec<(String, Vec<String>)> {
    let texts = |queries: &Queries| queries.iter().map(|(_, query)| normalise(&query.text)).collect::<Vec<_>>();
    let (dev_texts, train_texts) = (texts(dev), texts(train));
    let left: Vec<&str> = dev_texts.iter().map(String::as_str).collect();
    let right: Vec<&str> = train_texts.iter().map(String::as_str).collect();
    let ids = |queries: &Queries| queries.iter().map(|(_, query)| query.id.clone()).collect::<Vec<_>>();
    let (dev_ids, train_ids) = (ids(dev), ids(train));
    let mut found: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for pair in near_pairs(&left, &right, NEAR) {
        if left[pair.left] != right[pair.right] {
            found.entry(pair.left).or_default().push(train_ids[pair.right].clone());
        }
    }
    found.into_iter().map(|(at, with)| (dev_ids[at].clone(), with)).collect()
}

/// Dev positives that training uses in one role, or that have the text of one; each with the train queries, by id.
fn reused_positives(
    partition: &Partition,
    training: &[Trained],
    twins: &Twins,
    of: Passages,
) -> Result<BTreeMap<PassageIndex, Vec<String>>> {
    let dev = partition.split(Split::Dev)?;
    let positives = dev.queries.iter().flat_map(|(index, _)| dev.qrels.positives(index));
    let mut representatives: BTreeMap<PassageIndex, PassageIndex> = BTreeMap::new();
    for passage in positives.collect::<BTreeSet<_>>() {
        representatives.entry(twins.representative(passage)).or_insert(passage);
    }
    let mut reused: BTreeMap<PassageIndex, Vec<String>> = BTreeMap::new();
    for trained in training {
        let used: BTreeSet<PassageIndex> = of(trained).iter().map(|passage| twins.representative(*passage)).collect();
        for positive in used.iter().filter_map(|passage| representatives.get(passage)) {
            reused.entry(*positive).or_default().push(trained.query.clone());
        }
    }
    Ok(reused)
}

/// Counts the findings in a summary, kinds without any as 0; under the strict guard any is an error.
///
/// `stage` names the section of the configuration.
pub(crate) fn count_or_refuse(findings: &[Finding], guard: Guard, stage: &str, summary: &mut Summary) -> Result<()> {
    for kind in Kind::ALL {
        summary.count(kind.count_name(), findings.iter().filter(|finding| finding.kind == kind).count());
    }
    if guard == Guard::Count || findings.is_empty() {
        return Ok(());
    }
    let named: Vec<String> = findings.iter().take(NAMED).map(ToString::to_string).collect();
    let more = findings.len() - named.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Err(Error::data(format!(
        "training data and dev overlap, or passages stand under several ids: {}{more}; remove them from the data, or set \
         `{stage}.guard = \"count\"` to have them counted and listed",
        named.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Dataset;
    use crate::topic::fixture::{Sketch, dataset};

    /// `p3` has the text of `p1`. Dev asks `t1` with another form, `t2` with another ending, and something new.
    fn made() -> Dataset {
        let texts = ["one", "two", "three", "Two ", "four"];
        let passages = texts.iter().enumerate().map(|(at, text)| (format!("p{at}"), String::new(), (*text).to_owned()));
        let train = "t1\tWhere does the Nile begin?\nt2\tWho was the first president of the republic of Kenya\n";
        let dev =
            "d1\twhere does  the nile begin?\nd2\tWho was the first president of the Republic of Kenya?!\nd3\tNew\n";
        let splits = vec![
            (Split::Train, train.to_owned(), "t1 0 p0 1\nt2 0 p2 1\n".to_owned()),
            (Split::Dev, dev.to_owned(), "d1 0 p1 1\nd2 0 p2 1\nd3 0 p4 1\n".to_owned()),
        ];
        let folder = tempfile::tempdir().unwrap();
        dataset(folder.path(), &[Sketch { language: "en", passages: passages.collect(), splits }])
    }

    fn found(training: &[Trained]) -> Vec<(Kind, String, Vec<String>)> {
        let data = made();
        let twins = Twins::find(&data.partitions[0].corpus);
        let findings = findings(&data.partitions[0], training, &twins).unwrap();
        findings.into_iter().map(|finding| (finding.kind, finding.id, finding.with)).collect()
    }

    fn line(kind: Kind, id: &str, with: &[&str]) -> (Kind, String, Vec<String>) {
        (kind, id.to_owned(), with.iter().map(|id| (*id).to_owned()).collect())
    }

    #[test]
    fn queries_are_equal_but_for_their_form_or_nearly() {
        let expected = [
            line(Kind::EqualQueries, "d1", &["t1"]),
            line(Kind::NearQueries, "d2", &["t2"]),
            line(Kind::DuplicatePassages, "p1", &["p3"]),
        ];
        assert_eq!(found(&[]), expected);
    }

    #[test]
    fn a_dev_positive_is_found_in_training_by_its_text() {
        let trained = |query: &str, positives: &[u32], negatives: &[u32]| Trained {
            query: query.to_owned(),
            positives: positives.iter().map(|at| PassageIndex(*at)).collect(),
            negatives: negatives.iter().map(|at| PassageIndex(*at)).collect(),
        };
        let lines = found(&[trained("t1", &[0], &[3, 1, 4]), trained("t2", &[2], &[3])]);
        let expected = [
            line(Kind::PositiveAsPositive, "p2", &["t2"]),
            line(Kind::PositiveAsNegative, "p1", &["t1", "t2"]),
            line(Kind::PositiveAsNegative, "p4", &["t1"]),
        ];
        assert_eq!(lines[2..5], expected);
    }

    #[test]
    fn findings_are_counted_or_refused_with_their_ids() {
        let language = Language::new("en").unwrap();
        let finding = |number: usize| Finding {
            language: language.clone(),
            kind: Kind::DuplicatePassages,
            id: format!("p{number}"),
            with: vec!["q".to_owned()],
        };
        let (findings, mut summary) = ((0..7).map(finding).collect::<Vec<_>>(), Summary::default());
        count_or_refuse(&findings, Guard::Count, "sample", &mut summary).unwrap();
        assert_eq!(summary.counts["duplicates: texts under several passage ids"], 7);
        assert_eq!(summary.counts["leak: dev queries equal to train queries"], 0);
        let message = count_or_refuse(&findings, Guard::Strict, "sample", &mut summary).unwrap_err().to_string();
        assert!(message.contains("en passages `p4` and `q` have one text and 2 more; remove them"), "{message}");
        count_or_refuse(&[], Guard::Strict, "sample", &mut summary).unwrap();
    }
}
