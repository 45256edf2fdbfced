//! Topics: how many passages, how many train queries of each language, and how often steps draw them.

use std::collections::BTreeMap;

use super::material::{Material, Shared, language_name};
use super::page::Section;
use super::table::{Cell, Table};
use crate::dataset::{Partition, Split};
use crate::error::Result;
use crate::topic::{Topic, Topics};

/// Most topics whose columns stand side by side.
const COLUMNS: usize = 20;

/// Adds the tables of one artefact of `topic`.
pub(super) fn add(material: &Material<'_>, shared: &Shared<'_>, section: &mut Section) -> Result<()> {
    let topics = Topics::open(shared.artefact)?;
    section.table(format!("topics {}", shared.label), &of_passages(shared, &topics));
    if topics.labels.len() <= COLUMNS {
        section.table(format!("topics by language {}", shared.label), &of_queries(material, shared, &topics));
    }
    Ok(())
}

fn of_passages(shared: &Shared<'_>, topics: &Topics) -> Table {
    let mut table = Table::new(format!("Topics of the passages ({})", shared.label), ["Topic", "Passages", "Share"]);
    let mut counts = vec![0; topics.labels.len()];
    for topic in topics.passages.values().flatten() {
        if let Some(count) = counts.get_mut(topic.0 as usize) {
            *count += 1;
        }
    }
    let all = counts.iter().sum();
    for (number, (label, count)) in topics.labels.iter().zip(&counts).enumerate() {
        table.push(vec![topic_cell(number, label), Cell::count(*count), Cell::share(*count, all)]);
    }
    table
}

/// Train queries by language and the topic of their first positive.
fn of_queries(material: &Material<'_>, shared: &Shared<'_>, topics: &Topics) -> Table {
    let numbers = 0..topics.labels.len();
    let columns = std::iter::once("Language".to_owned()).chain(numbers.clone().map(|number| number.to_string()));
    let caption = "Train queries by the topic of their first positive; the numbers are those of the table above";
    let mut table = Table::new(caption, columns.chain(["Total".to_owned()]));
    let mut total: BTreeMap<Topic, u64> = BTreeMap::new();
    for partition in material.partitions(shared.arm) {
        let counts = counts(partition, topics);
        counts.iter().for_each(|(topic, count)| *total.entry(*topic).or_default() += count);
        table.push(row(&language_name(&partition.language), &counts, topics.labels.len()));
    }
    table.total(row("All", &total, topics.labels.len()));
    table
}

fn counts(partition: &Partition, topics: &Topics) -> BTreeMap<Topic, u64> {
    let mut counts = BTreeMap::new();
    let (Ok(judged), Some(passages)) = (partition.split(Split::Train), topics.passages.get(&partition.language)) else {
        return counts;
    };
    for (query, _) in judged.queries.iter() {
        let first = judged.qrels.positives(query).next();
        if let Some(topic) = first.and_then(|positive| passages.get(positive.at())) {
            *counts.entry(*topic).or_default() += 1;
        }
    }
    counts
}

fn row(name: &str, counts: &BTreeMap<Topic, u64>, topics: usize) -> Vec<Cell> {
    let count = |number: usize| Cell::count(counts.get(&Topic(number as u32)).copied().unwrap_or(0));
    let cells = std::iter::once(Cell::text(name)).chain((0..topics).map(count));
    cells.chain([Cell::count(counts.values().sum())]).collect()
}

/// Queries that the planned steps draw, by topic.
pub(super) fn draws(shared: &Shared<'_>, topics: &Topics, drawn: &BTreeMap<Topic, u64>) -> Table {
    let mut table =
        Table::new(format!("Queries drawn by topic of their positive ({})", shared.label), ["Topic", "Draws", "Share"]);
    let all = drawn.values().sum();
    for (number, label) in topics.labels.iter().enumerate() {
        let draws = drawn.get(&Topic(number as u32)).copied().unwrap_or(0);
        table.push(vec![topic_cell(number, label), Cell::count(draws), Cell::share(draws, all)]);
    }
    table
}

/// The label of a topic, which is made of titles of any language.
pub(super) fn topic_cell(number: usize, label: &str) -> Cell {
    Cell::text(format!("{number}: {label}")).foreign("und")
}
