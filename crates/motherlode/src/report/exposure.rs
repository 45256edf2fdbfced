//! What every epoch of a plan shows of each language and topic.

use std::collections::BTreeMap;

use super::material::{Shared, language_name};
use super::page::{Section, folded};
use super::table::{Cell, Table};
use crate::batch::Step;
use crate::corpus::Language;
use crate::topic::{Topic, Topics};

/// Queries drawn, by epoch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Epochs {
    count: usize,
    languages: BTreeMap<Language, Vec<u64>>,
    topics: BTreeMap<Topic, Vec<u64>>,
}

impl Epochs {
    /// Counts a step and the topics of its queries.
    pub(super) fn add(&mut self, step: &Step, topics: &[Topic]) {
        let epoch = step.epoch as usize;
        self.count = self.count.max(epoch + 1);
        for row in &step.rows {
            count(self.languages.entry(row.language.clone()).or_default(), epoch);
        }
        for topic in topics {
            count(self.topics.entry(*topic).or_default(), epoch);
        }
    }
}

fn count(epochs: &mut Vec<u64>, epoch: usize) {
    if epochs.len() <= epoch {
        epochs.resize(epoch + 1, 0);
    }
    epochs[epoch] += 1;
}

/// Adds the tables of one plan, folded.
pub(super) fn add(shared: &Shared<'_>, epochs: &Epochs, topics: Option<&Topics>, section: &mut Section) {
    let of_language = |(language, draws): (&Language, &Vec<u64>)| (language_name(language), draws.clone());
    let languages: Vec<(String, Vec<u64>)> = epochs.languages.iter().map(of_language).collect();
    let of_topic = |(topic, draws): (&Topic, &Vec<u64>)| {
        let label = topics.and_then(|topics| topics.labels.get(topic.0 as usize)).map_or("", String::as_str);
        (format!("{}: {label}", topic.0), draws.clone())
    };
    let drawn: Vec<(String, Vec<u64>)> = epochs.topics.iter().map(of_topic).collect();
    for (what, rows) in [("Language", languages), ("Topic", drawn)] {
        let table = table(what, &rows, epochs.count, &shared.label);
        let name = format!("{what} by epoch {}", shared.label);
        if let Some(table) = section.tabled(&name, &table) {
            section.add(folded(
                format!("Queries drawn in every epoch, by {} ({})", what.to_lowercase(), shared.label),
                table,
            ));
        }
    }
}

fn table(what: &str, rows: &[(String, Vec<u64>)], epochs: usize, label: &str) -> Table {
    let numbers = (1..=epochs).map(|epoch| format!("Epoch {epoch}"));
    let columns = [what, "Share", "Least", "Most"].into_iter().map(str::to_owned).chain(numbers);
    let caption = format!("Queries drawn in every epoch ({label}). Share: of all draws; least and most: in an epoch");
    let mut table = Table::new(caption, columns);
    let all: u64 = rows.iter().flat_map(|(_, draws)| draws).sum();
    for (name, draws) in rows {
        let of_epoch = |epoch: usize| draws.get(epoch).copied().unwrap_or(0);
        let counts: Vec<u64> = (0..epochs).map(of_epoch).collect();
        let ends = [counts.iter().min(), counts.iter().max()].map(|count| Cell::count(count.copied().unwrap_or(0)));
        let name = if what == "Topic" { Cell::text(name).foreign("und") } else { Cell::text(name) };
        let row = [name, Cell::share(draws.iter().sum(), all)].into_iter().chain(ends);
        table.push(row.chain(counts.iter().copied().map(Cell::count)).collect());
    }
    table
}
