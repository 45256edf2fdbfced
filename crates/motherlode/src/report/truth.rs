//! The hidden truth of a made data set, set against what the judge did. Only this page and tests ever read it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::material::{Material, Shared, candidates_of, language_name, lines_of};
use super::table::{Cell, Table};
use crate::corpus::Language;
use crate::dataset::Split;
use crate::error::{Error, Result};
use crate::generate::QuerySupplement;
use crate::judge::{Judgement, QueryJudgements, Verdict};
use crate::sample::Example;

type Pair = (String, String);

/// Relevant pairs of (query, passage) ids of the train split.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Truth {
    languages: BTreeMap<Language, RelevantPairs>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct RelevantPairs {
    labelled: BTreeSet<Pair>,
    hidden: BTreeSet<Pair>,
}

impl RelevantPairs {
    fn is_relevant(&self, pair: &Pair) -> bool {
        self.labelled.contains(pair) || self.hidden.contains(pair)
    }
}

impl Truth {
    /// Reads `language<TAB>split<TAB>query<TAB>passage<TAB>labelled|hidden` lines.
    ///
    /// # Errors
    /// A line that is none.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let mut truth = Self::default();
        crate::lines::for_each(path, |number, line| {
            let fields: Vec<&str> = line.split('\t').collect();
            let [language, split, query, passage, label @ ("labelled" | "hidden")] = fields[..] else {
                let expected = "expected `language<TAB>split<TAB>query<TAB>passage<TAB>labelled|hidden`";
                return Err(Error::line(path, number, expected));
            };
            let language = Language::new(language).map_err(|error| Error::line(path, number, error.to_string()))?;
            if split == Split::Train.name() {
                let pairs = truth.languages.entry(language).or_default();
                let pairs = if label == "hidden" { &mut pairs.hidden } else { &mut pairs.labelled };
                pairs.insert((query.to_owned(), passage.to_owned()));
            }
            Ok(())
        })?;
        Ok(truth)
    }

    /// What became of the hidden false negatives and the true negatives that a judge saw, as a table; with the sums.
    pub(super) fn judged(&self, material: &Material<'_>, shared: &Shared<'_>) -> Result<(Table, Fate)> {
        let columns = [
            "Language",
            "Hidden false negatives",
            "… among candidates",
            "… judged",
            "… found",
            "Found of those among candidates",
            "True negatives judged",
            "… eliminated",
            "Eliminated by mistake",
        ];
        let caption = "Hidden false negatives: answers that the data set's labels leave out. Found: graded 1 or 2. \
                       True negatives: pairs that are in no way relevant";
        let (mut table, mut total) = (Table::new(caption, columns), Fate::default());
        for partition in material.partitions(shared.arm) {
            let Some(pairs) = self.languages.get(&partition.language) else { continue };
            let fate = fate(pairs, shared, &partition.language)?;
            table.push(fate.row(&language_name(&partition.language)));
            total.add(fate);
        }
        table.total(total.row("All"));
        Ok((table, total))
    }

    /// How many hidden false negatives the arms train against, as negatives of their own query.
    pub(super) fn trained_against(&self, material: &Material<'_>) -> Result<Table> {
        let columns = ["Arm", "Negatives", "Hidden false negatives among them", "Share"];
        let mut table = Table::new("Hidden false negatives that still serve as negatives in training", columns);
        for shared in material.shared("examples") {
            let (mut negatives, mut wrong) = (0, 0);
            for partition in material.partitions(shared.arm) {
                let pairs = self.languages.get(&partition.language);
                let examples: Vec<Example> = lines_of(shared.artefact, &format!("{}.train.jsonl", partition.language))?;
                for example in &examples {
                    negatives += example.negatives.len() as u64;
                    let pair = |passage: &str| (example.query.clone(), passage.to_owned());
                    let is_hidden = |passage: &str| pairs.is_some_and(|pairs| pairs.hidden.contains(&pair(passage)));
                    wrong += example.negatives.iter().filter(|negative| is_hidden(&negative.passage)).count() as u64;
                }
            }
            table.push(vec![
                Cell::text(&shared.label),
                Cell::count(negatives),
                Cell::count(wrong),
                Cell::share(wrong, negatives),
            ]);
        }
        Ok(table)
    }
}

/// Counts of pairs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Fate {
    /// Hidden false negatives of the queries.
    pub(super) hidden: u64,
    /// Those that came among the candidates.
    pub(super) listed: u64,
    /// Those of them that got a verdict.
    pub(super) judged: u64,
    /// Those of them that the verdict eliminates.
    pub(super) found: u64,
    /// Candidates that are not relevant and got a verdict.
    pub(super) negatives: u64,
    /// Those of them that the verdict eliminates.
    pub(super) eliminated: u64,
}

impl Fate {
    fn add(&mut self, other: Self) {
        self.hidden += other.hidden;
        self.listed += other.listed;
        self.judged += other.judged;
        self.found += other.found;
        self.negatives += other.negatives;
        self.eliminated += other.eliminated;
    }

    fn count(&mut self, is_hidden: bool, verdict: Verdict) {
        let (judged, eliminated) = (u64::from(verdict.grade().is_some()), u64::from(verdict.is_eliminated()));
        if is_hidden {
            self.listed += 1;
            self.judged += judged;
            self.found += eliminated;
        } else {
            self.negatives += judged;
            self.eliminated += eliminated;
        }
    }

    fn row(self, name: &str) -> Vec<Cell> {
        let counts = [self.hidden, self.listed, self.judged, self.found];
        let mut row = vec![Cell::text(name)];
        row.extend(counts.map(Cell::count));
        row.push(Cell::share(self.found, self.listed));
        row.extend([self.negatives, self.eliminated].map(Cell::count));
        row.push(Cell::share(self.eliminated, self.negatives));
        row
    }
}

/// Follows the pairs of one language through candidates and supplement.
fn fate(truth: &RelevantPairs, shared: &Shared<'_>, language: &Language) -> Result<Fate> {
    let file = format!("{language}.jsonl");
    let mut fate = Fate::default();
    let queries = candidates_of(shared.arm, language)?;
    fate.hidden = truth.hidden.iter().filter(|(query, _)| queries.contains_key(query)).count() as u64;
    let mut count = |query: &str, judgements: &[Judgement]| {
        for judgement in judgements {
            let pair = (query.to_owned(), judgement.passage.clone());
            let is_hidden = truth.hidden.contains(&pair);
            if is_hidden || !truth.is_relevant(&pair) {
                fate.count(is_hidden, judgement.verdict);
            }
        }
    };
    let rows: Vec<QueryJudgements> = lines_of(shared.artefact, &file)?;
    rows.iter().for_each(|row| count(&row.query, &row.judgements));
    if let Some(supplement) = shared.arm.artefacts.get("supplement") {
        let rows: Vec<QuerySupplement> = lines_of(supplement, &file)?;
        rows.iter().for_each(|row| count(&row.query, &row.judgements));
    }
    Ok(fate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_train_pairs_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("truth.tsv");
        std::fs::write(&path, "sw\ttrain\tq1\tp1\tlabelled\nsw\ttrain\tq1\tp2\thidden\nsw\tdev\tq2\tp3\thidden\n")
            .unwrap();
        let truth = Truth::read(&path).unwrap();
        let pairs = &truth.languages[&Language::new("sw").unwrap()];
        assert_eq!((pairs.labelled.len(), pairs.hidden.len()), (1, 1));
        std::fs::write(&path, "sw\ttrain\tq1\tp1\tmaybe\n").unwrap();
        assert!(Truth::read(&path).unwrap_err().to_string().contains("truth.tsv:1: expected `language<TAB>split"));
    }

    #[test]
    fn a_verdict_counts_for_what_the_pair_is() {
        let mut fate = Fate::default();
        fate.count(true, Verdict::Excluded);
        fate.count(true, Verdict::Unjudged);
        fate.count(false, Verdict::Negative);
        fate.count(false, Verdict::FalseNegative);
        assert_eq!(fate, Fate { hidden: 0, listed: 2, judged: 1, found: 1, negatives: 2, eliminated: 1 });
    }
}
