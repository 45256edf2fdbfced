//! The audit sample: candidates that people are to grade, a fixed number of every language and verdict.
//!
//! Within a stratum the pairs with the smallest random numbers keyed by their ids are taken, so that a larger sample keeps
//! those of a smaller one; they stand in another random order, so that nothing tells the verdict. A pair that people
//! judged before is not drawn.

use std::collections::BTreeMap;

use rand::RngExt;
use rayon::prelude::*;

use super::catalogue::{Catalogue, LanguageFiles};
use super::labels::Pair;
use crate::corpus::Language;
use crate::error::Result;
use crate::judge::Verdict;
use crate::random::keyed;

/// What the judge said, as far as samples are drawn by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stratum {
    /// Grade 0.
    Negative,
    /// Grade 1.
    Excluded,
    /// Grade 2.
    FalseNegative,
    /// Nothing that counts.
    NoVerdict,
}

impl Stratum {
    /// The three grades, in order.
    pub(super) const GRADES: [Self; 3] = [Self::Negative, Self::Excluded, Self::FalseNegative];

    /// The stratum of a verdict; none for what people judged before.
    pub(super) fn of(verdict: Verdict) -> Option<Self> {
        match verdict {
            Verdict::Negative => Some(Self::Negative),
            Verdict::Excluded => Some(Self::Excluded),
            Verdict::FalseNegative => Some(Self::FalseNegative),
            Verdict::Unknown | Verdict::Abstained | Verdict::Unjudged => Some(Self::NoVerdict),
            Verdict::Human => None,
        }
    }

    /// The judge's grade, 0 to 2.
    pub(super) fn grade(self) -> Option<usize> {
        Self::GRADES.iter().position(|other| *other == self)
    }
}

/// A pair of the sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    /// The query and the passage.
    pub(super) pair: Pair,
    /// The query's row in the catalogue.
    pub(super) row: u32,
    /// Hidden from whoever grades.
    pub(super) stratum: Stratum,
}

/// The sample, and from how many pairs it was drawn.
#[derive(Debug)]
pub(super) struct Audit {
    /// By language, then in random order.
    pub(super) items: Vec<Item>,
    /// All candidates by language and stratum.
    pub(super) population: BTreeMap<(Language, Stratum), usize>,
    places: BTreeMap<Pair, usize>,
}

/// A candidate while the sample is drawn.
struct Drawn {
    key: u64,
    row: u32,
    passage: String,
}

impl Audit {
    /// Draws `size` pairs of every stratum, or all where there are no more.
    pub(super) fn draw(catalogue: &Catalogue, size: usize, seed: u64) -> Result<Self> {
        let (mut items, mut population) = (Vec::new(), BTreeMap::new());
        for files in &catalogue.languages {
            let rows: Vec<Vec<(Stratum, Drawn)>> = files
                .rows
                .clone()
                .into_par_iter()
                .map(|row| strata(catalogue, files, row, seed))
                .collect::<Result<_>>()?;
            let mut by_stratum: BTreeMap<Stratum, Vec<Drawn>> = BTreeMap::new();
            for (stratum, drawn) in rows.into_iter().flatten() {
                by_stratum.entry(stratum).or_default().push(drawn);
            }
            let mut of_language = Vec::new();
            for (stratum, mut drawn) in by_stratum {
                population.insert((files.language.clone(), stratum), drawn.len());
                drawn.sort_by(|a, b| a.key.cmp(&b.key).then(a.row.cmp(&b.row)).then_with(|| a.passage.cmp(&b.passage)));
                drawn.truncate(size);
                of_language.extend(drawn.into_iter().map(|drawn| item(catalogue, files, stratum, drawn)));
            }
            of_language.sort_by_cached_key(|item| {
                (keyed(seed, "inspect audit order", &item.pair.to_string()).random::<u64>(), item.pair.clone())
            });
            items.append(&mut of_language);
        }
        Ok(Self::of(items, population))
    }

    /// A sample of these pairs.
    pub(super) fn of(items: Vec<Item>, population: BTreeMap<(Language, Stratum), usize>) -> Self {
        let places = items.iter().enumerate().map(|(place, item)| (item.pair.clone(), place)).collect();
        Self { items, population, places }
    }

    /// Where a pair stands in the sample.
    pub(super) fn find(&self, pair: &Pair) -> Option<usize> {
        self.places.get(pair).copied()
    }
}

fn item(catalogue: &Catalogue, files: &LanguageFiles, stratum: Stratum, drawn: Drawn) -> Item {
    let query = catalogue.query(&catalogue.rows[drawn.row as usize]).id.clone();
    let pair = Pair { language: files.language.clone(), query, passage: drawn.passage };
    Item { pair, row: drawn.row, stratum }
}

/// The candidates of one row by stratum.
fn strata(catalogue: &Catalogue, files: &LanguageFiles, place: usize, seed: u64) -> Result<Vec<(Stratum, Drawn)>> {
    let row = &catalogue.rows[place];
    let query = &catalogue.query(row).id;
    let draw = |passage: &str| {
        let name = format!("{}/{query}/{passage}", files.language);
        let key = keyed(seed, "inspect audit", &name).random::<u64>();
        Drawn { key, row: place as u32, passage: passage.to_owned() }
    };
    if let Some(facts) = files.verdicts(row)? {
        let judged = facts.judgements.iter();
        let strata = judged.filter_map(|fact| Some((Stratum::of(fact.verdict)?, draw(&fact.passage))));
        return Ok(strata.collect());
    }
    let listed = files.listed(row)?;
    let unjudged = listed.candidates.iter().filter(|fact| fact.human_grade.is_none());
    Ok(unjudged.map(|fact| (Stratum::NoVerdict, draw(&fact.passage))).collect())
}
