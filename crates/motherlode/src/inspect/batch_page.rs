//! One training step: its queries with what they bring, and the score matrix with its masks.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use hyper::StatusCode;

use super::Inspector;
use super::answer::Answer;
use super::layout::{document, facts, field, link, path, refusal, table};
use super::passages;
use crate::batch::{Row, Step};
use crate::corpus::{Language, language_name};
use crate::error::Result;
use crate::html::{Element, Html, element, grouped};

/// Side of a cell of the matrix.
const CELL: usize = 8;

impl Inspector {
    /// The page of a step by its number as it stands in the address.
    pub(super) fn batch_page(&self, number: &str) -> Result<Answer> {
        let Some(steps) = &self.catalogue.steps else {
            let note = "No batches are planned yet: run the experiment up to `batch`.";
            return Ok(document(&self.arm, "Batches", "Batches", element("p").text(note).into()));
        };
        let Some(place) = number.trim().parse::<usize>().ok().filter(|place| *place < steps.len()) else {
            let reason = format!("there are steps 0 to {}", steps.len().saturating_sub(1));
            return Ok(refusal(StatusCode::NOT_FOUND, &reason));
        };
        let step = steps.step(place)?;
        let content = element("div").class("batch").child(navigation(place, steps.len()));
        let content = content.child(element("h1").text(format!("Step {place}"))).child(self.step_facts(&step));
        let content = content.child(matrix(&step)).child(self.rows_table(&step));
        Ok(document(&self.arm, &format!("Step {place}"), "Batches", content.into()))
    }

    fn step_facts(&self, step: &Step) -> Element {
        let languages: BTreeSet<&Language> = step.rows.iter().map(|row| &row.language).collect();
        let names: Vec<String> = languages.into_iter().map(language_name).collect();
        let masked: usize = step.rows.iter().map(|row| row.masked.len()).sum();
        let columns = step.columns().len();
        let mut topics: BTreeMap<&str, usize> = BTreeMap::new();
        step.rows.iter().for_each(|row| *topics.entry(self.topic_of(row)).or_default() += 1);
        let topics = topics.into_iter().filter(|(label, _)| !label.is_empty()).map(|(label, count)| {
            let label = element("span").attribute("dir", "auto").text(label);
            element("li").child(label).text(format!(" {count}"))
        });
        facts(vec![
            ("Epoch", Html::text(step.epoch)),
            ("Queries", Html::text(step.rows.len())),
            ("Language", Html::text(names.join(", "))),
            ("Passages", Html::text(columns)),
            ("Cells", Html::text(grouped((columns * step.rows.len()) as u64))),
            ("Masked cells", Html::text(masked)),
            ("Topics", element("ul").class("inline").children(topics).into()),
        ])
    }

    fn topic_of(&self, row: &Row) -> &str {
        let found = self.catalogue.find(row.language.as_str(), &row.query);
        let topic = found.and_then(|place| self.catalogue.rows[place].topic);
        topic.map_or("", |topic| self.catalogue.label(topic))
    }

    fn rows_table(&self, step: &Step) -> Element {
        let columns = step.columns();
        let bringers = bringers(step);
        let rows = step.rows.iter().enumerate().map(|(number, row)| {
            let address = path(&["query", row.language.as_str(), &row.query]);
            let text = self.catalogue.find(row.language.as_str(), &row.query).map(|place| {
                let query = self.catalogue.query(&self.catalogue.rows[place]);
                link(&address, &query.text).foreign(&row.language).class("query").flag("data-stop", true)
            });
            let name = element("div").attribute("id", format!("row-{number}")).children(text);
            let name = name.child(element("small").text(format!("{number}. {}", row.query)));
            let negatives = row.negatives.iter().map(|negative| {
                self.brought(row, &negative.passage).child(element("small").text(negative.provenance.name()))
            });
            let masked = row.masked.iter().filter_map(|column| columns.get(*column as usize)).map(|column| {
                let from = bringers.get(column).map_or_else(String::new, |from| format!("brought by {from}"));
                self.brought(row, column.1).child(element("small").text(from))
            });
            vec![
                name.into(),
                element("span").attribute("dir", "auto").text(self.topic_of(row)).into(),
                element("ul").child(self.brought(row, &row.positive)).into(),
                element("ul").children(negatives).into(),
                element("ul").children(masked).into(),
            ]
        });
        let columns =
            [("Query", false), ("Topic", false), ("Positive", false), ("Negatives", false), ("Masked for it", false)];
        table("What each query brings to the step", &columns, rows.collect())
    }

    /// A passage in a list; those of a mixed step are of the row's language, as the planner has it.
    fn brought(&self, row: &Row, id: &str) -> Element {
        let partition = self.catalogue.dataset.partition(&row.language).ok();
        let passage = partition.and_then(|partition| Some(partition.corpus.passage(partition.corpus.find(id)?)));
        let words = passage.map(|passage| passages::short(&row.language, &passage));
        element("li").child(element("code").text(id)).text(" ").children(words).text(" ")
    }
}

fn navigation(place: usize, count: usize) -> Element {
    let to = |step: usize, text: &str| link(format!("/batch/{step}"), text);
    let before = (place > 0).then(|| [to(0, "First"), to(place - 1, "Previous").attribute("data-key", "p")]);
    let after = (place + 1 < count).then(|| [to(place + 1, "Next").attribute("data-key", "n"), to(count - 1, "Last")]);
    let here = element("span").text(format!("Step {place} of 0 to {}", count - 1));
    let form = element("form").attribute("action", "/batch");
    let form = form.child(field("step", "Go to step", place).class("bound")).child(element("button").text("Go"));
    let pager = element("nav").class("pager").attribute("aria-label", "Steps").children(before.into_iter().flatten());
    pager.child(here).children(after.into_iter().flatten()).child(form)
}

/// The query that brings each passage first.
fn bringers(step: &Step) -> HashMap<(&Language, &str), &str> {
    let mut bringers = HashMap::new();
    for row in &step.rows {
        let negatives = row.negatives.iter().map(|negative| negative.passage.as_str());
        for passage in std::iter::once(row.positive.as_str()).chain(negatives) {
            bringers.entry((&row.language, passage)).or_insert(row.query.as_str());
        }
    }
    bringers
}

/// The score matrix as a picture: queries down, passages across. What is neither marked nor masked is a negative that
/// another query brings.
fn matrix(step: &Step) -> Element {
    let columns = step.columns();
    let place: HashMap<(&Language, &str), usize> =
        columns.iter().enumerate().map(|(at, column)| (*column, at)).collect();
    let cell = |row: usize, column: usize, class: &'static str| {
        let [x, y] = [column, row].map(|place| place * CELL);
        let cell = element("rect").class(class).attribute("x", x).attribute("y", y);
        cell.attribute("width", CELL - 1).attribute("height", CELL - 1)
    };
    let mut cells = Vec::new();
    for (number, row) in step.rows.iter().enumerate() {
        let at = |passage: &str| place[&(&row.language, passage)];
        cells.extend(row.negatives.iter().map(|negative| cell(number, at(&negative.passage), "own")));
        cells.push(cell(number, at(&row.positive), "positive"));
        cells.extend(row.masked.iter().map(|column| cell(number, *column as usize, "masked")));
    }
    let (width, height) = (columns.len() * CELL, step.rows.len() * CELL);
    let label = format!(
        "Score matrix of {} queries by {} passages; the table below has the same",
        step.rows.len(),
        columns.len()
    );
    let picture = element("svg").class("matrix").attribute("viewBox", format!("0 0 {width} {height}"));
    let picture = picture.attribute("width", width).attribute("height", height).attribute("role", "img");
    let ground = element("rect").class("others").attribute("width", width).attribute("height", height);
    let picture = picture.attribute("aria-label", label).child(ground).children(cells);
    let kinds =
        [("positive", "its positive"), ("own", "its negatives"), ("others", "others' passages"), ("masked", "masked")];
    let kinds = kinds.map(|(class, words)| element("li").child(element("span").class(class)).text(words));
    let legend = element("ul").class("kinds").children(kinds);
    let caption = element("figcaption").text("Queries down, passages across").child(legend);
    let scroll = element("div").class("scroll").attribute("tabindex", "0").attribute("role", "region");
    element("figure").child(caption).child(scroll.attribute("aria-label", "Score matrix").child(picture))
}
