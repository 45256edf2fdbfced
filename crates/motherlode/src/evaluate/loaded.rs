//! The evaluations of a system's seeds in memory, checked against each other and against the baseline's.

use std::collections::{BTreeMap, BTreeSet};

use super::compare::{System, Target, Unjudged};
use super::significance::mean;
use super::{Judgements, MeasureTable, Pool, QueryMeasures};
use crate::artefact::Artefact;
use crate::corpus::Language;
use crate::dataset::Split;
use crate::error::{Error, Result};

/// One seed: its table and its queries by language and id.
struct Seed {
    table: MeasureTable,
    queries: BTreeMap<Language, BTreeMap<String, QueryMeasures>>,
}

impl Seed {
    fn read(artefact: &Artefact) -> Result<Self> {
        let artefact = artefact.clone().expect_stage(super::STAGE)?;
        let table = MeasureTable::read(&artefact)?;
        let mut queries = BTreeMap::new();
        for language in table.languages.keys() {
            let rows = QueryMeasures::read(&artefact, language)?;
            queries.insert(language.clone(), rows.into_iter().map(|row| (row.query.clone(), row)).collect());
        }
        Ok(Self { table, queries })
    }

    fn targets(&self, language: &Language) -> Vec<Target> {
        let means = &self.table.languages[language];
        let of = |judgements, values: &super::Values| {
            values.keys().map(|measure| Target { measure: *measure, judgements }).collect::<Vec<_>>()
        };
        let truth = means.truth.as_ref().map(|values| of(Judgements::Truth, values));
        of(Judgements::Qrels, &means.mean).into_iter().chain(truth.into_iter().flatten()).collect()
    }
}

/// A system with all its seeds, each of which scored the same queries by the same measures.
pub(super) struct ScoredSystem {
    pub(super) name: String,
    seeds: Vec<Seed>,
}

/// The paired differences of one language.
pub(super) struct Paired<'a> {
    pub(super) language: &'a Language,
    /// System minus baseline, each averaged over its seeds; one per query.
    pub(super) differences: Vec<f64>,
}

impl ScoredSystem {
    /// Reads the seeds and checks that they are alike.
    pub(super) fn read(system: &System) -> Result<Self> {
        let mut seeds = Vec::new();
        for (number, artefact) in system.seeds.iter().enumerate() {
            let seed = Seed::read(artefact)?;
            if let Some(first) = seeds.first() {
                let names =
                    (format!("seed {} of `{}`", number + 1, system.name), format!("seed 1 of `{}`", system.name));
                expect_alike(&seed, first, (&names.0, &names.1))?;
            }
            seeds.push(seed);
        }
        Ok(Self { name: system.name.clone(), seeds })
    }

    /// Refuses to compare with a baseline that was scored otherwise.
    pub(super) fn expect_like(&self, baseline: &Self) -> Result<()> {
        let names = (format!("`{}`", self.name), format!("the baseline `{}`", baseline.name));
        expect_alike(self.first(), baseline.first(), (&names.0, &names.1))
    }

    pub(super) fn seeds(&self) -> usize {
        self.seeds.len()
    }

    pub(super) fn split(&self) -> Option<Split> {
        self.first().table.split
    }

    pub(super) fn pools(&self) -> BTreeMap<Language, Pool> {
        self.first().table.pools()
    }

    /// Unjudged passages among the first 10, averaged over the seeds.
    pub(super) fn unjudged(&self) -> Unjudged {
        let of = |language: &Language| {
            let seeds = self.seeds.iter().map(|seed| seed.table.languages[language].unjudged_at_10);
            (language.clone(), mean(&seeds.collect::<Vec<f64>>()))
        };
        let languages: BTreeMap<Language, f64> = self.first().table.languages.keys().map(of).collect();
        let macro_mean = mean(&languages.values().copied().collect::<Vec<f64>>());
        Unjudged { name: self.name.clone(), languages, macro_mean }
    }

    /// Everything that at least one language was measured by, against the qrels first.
    pub(super) fn targets(&self) -> Vec<Target> {
        let mut targets: Vec<Target> = Vec::new();
        for language in self.first().queries.keys() {
            targets.extend(self.first().targets(language));
        }
        targets.sort_by_key(|target| (target.judgements, target.measure));
        targets.dedup();
        targets
    }

    pub(super) fn languages_with(&self, target: Target) -> Vec<&Language> {
        self.first().queries.keys().filter(|language| self.first().targets(language).contains(&target)).collect()
    }

    /// Number of scored queries of a language.
    pub(super) fn queries(&self, language: &Language) -> usize {
        self.first().queries[language].len()
    }

    /// The mean of every seed.
    pub(super) fn means_of_seeds(&self, language: &Language, target: Target) -> Vec<f64> {
        let mean_of = |seed: &Seed| {
            let rows = seed.queries[language].values();
            mean(&rows.map(|row| value(row, target)).collect::<Vec<f64>>())
        };
        self.seeds.iter().map(mean_of).collect()
    }

    pub(super) fn paired<'a>(&self, baseline: &Self, language: &'a Language, target: Target) -> Paired<'a> {
        let difference = |id: &String| self.value(language, id, target) - baseline.value(language, id, target);
        Paired { language, differences: self.first().queries[language].keys().map(difference).collect() }
    }

    /// The value of a query, averaged over the seeds.
    fn value(&self, language: &Language, id: &str, target: Target) -> f64 {
        let sum: f64 = self.seeds.iter().map(|seed| value(&seed.queries[language][id], target)).sum();
        sum / self.seeds.len() as f64
    }

    fn first(&self) -> &Seed {
        self.seeds.first().expect("a system without a seed was refused")
    }
}

fn value(row: &QueryMeasures, target: Target) -> f64 {
    row.values(target.judgements).and_then(|values| values.get(&target.measure)).copied().unwrap_or(0.0)
}

/// Checks that two evaluations can be compared: `names` are theirs, for the message. What an evaluation of files alone
/// does not know is not compared.
fn expect_alike(seed: &Seed, other: &Seed, names: (&str, &str)) -> Result<()> {
    let (name, other_name) = names;
    let (table, other_table) = (&seed.table, &other.table);
    let differ = |what: String| Err(Error::data(format!("{name} and {other_name} cannot be compared: {what}")));
    if let (Some(one), Some(two)) = (table.split, other_table.split)
        && one != two
    {
        return differ(format!("one was scored on {}, the other on {}", one.name(), two.name()));
    }
    if table.complete != other_table.complete {
        return differ("only one counts queries without a ranking; evaluate both with the same `complete`".to_owned());
    }
    if let Some(what) = difference_of_sets(&seed.queries, &other.queries, |language| format!("language {language}")) {
        return differ(format!("{what}; evaluate both on the same languages"));
    }
    for (language, queries) in &seed.queries {
        if let Some(what) =
            difference_of_sets(queries, &other.queries[language], |id| format!("{language} query `{id}`"))
        {
            return differ(format!("{what}; evaluate both on the same queries"));
        }
        if seed.targets(language) != other.targets(language) {
            return differ(format!("they have other measures for {language}; evaluate both with the same ones"));
        }
        let passages = [table, other_table].map(|table| table.languages[language].pool.passages);
        if let [Some(one), Some(two)] = passages
            && one != two
        {
            return differ(format!("the {language} corpus of one has {one} passages, that of the other {two}"));
        }
    }
    Ok(())
}

/// What only the first and what only the second has, counted and with an example; none if they have the same keys.
fn difference_of_sets<K: Ord, A, B>(
    first: &BTreeMap<K, A>,
    second: &BTreeMap<K, B>,
    describe: impl Fn(&K) -> String,
) -> Option<String> {
    let (first, second): (BTreeSet<&K>, BTreeSet<&K>) = (first.keys().collect(), second.keys().collect());
    let only = |who: &str, mine: &BTreeSet<&K>, theirs: &BTreeSet<&K>| {
        let mut missing = mine.difference(theirs);
        let example = describe(missing.next()?);
        Some(match missing.count() {
            0 => format!("only the {who} has {example}"),
            more => format!("only the {who} has {example} and {more} more"),
        })
    };
    let found: Vec<String> =
        [only("first", &first, &second), only("second", &second, &first)].into_iter().flatten().collect();
    (!found.is_empty()).then(|| found.join(", "))
}
