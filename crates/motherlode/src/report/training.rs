//! Training: loss, learning rate, gradient norm and validation over the steps, every arm a line.

use std::collections::{BTreeMap, BTreeSet};

use super::chart::{Chart, Line};
use super::material::{Material, Shared, lines_of};
use super::page::Section;
use super::table::{Cell, Table};
use crate::error::Result;
use crate::html::{Html, element};
use crate::train::checkpoint::{StepRecord, ValidationRecord};

/// Rows of the table under a chart; the CSV file of all steps has the rest.
const ROWS: usize = 10;

/// A quantity of every step, for a chart.
struct Quantity {
    name: &'static str,
    axis: &'static str,
    of: fn(&StepRecord) -> f64,
}

const QUANTITIES: [Quantity; 4] = [
    Quantity { name: "Loss", axis: "Mean loss, natural log", of: |record| record.loss },
    Quantity { name: "Learning rate", axis: "Learning rate", of: |record| f64::from(record.rate) },
    Quantity { name: "Gradient norm", axis: "Norm before clipping", of: |record| f64::from(record.gradient_norm) },
    Quantity { name: "Batch accuracy", axis: "Positive ranked first", of: |record| record.accuracy },
];

struct Training {
    name: String,
    log: Vec<StepRecord>,
    validations: Vec<ValidationRecord>,
}

/// The section.
pub(super) fn training(material: &Material<'_>) -> Result<Section> {
    let mut section = Section::new("training", "Training");
    let read = |shared: Shared<'_>| {
        let (log, validations) =
            (lines_of(shared.artefact, "log.jsonl")?, lines_of(shared.artefact, "validation.jsonl")?);
        Ok(Training { name: shared.label, log, validations })
    };
    let trainings: Vec<Training> = material.shared("trained").into_iter().map(read).collect::<Result<_>>()?;
    if trainings.is_empty() {
        section.say("No model was trained in this experiment.");
        return Ok(section);
    }
    section.table("trainings", &overview(&trainings));
    let validation = validation(&trainings, &mut section);
    let quantities = QUANTITIES.iter().filter_map(|quantity| steps(quantity, &trainings, &mut section));
    let charts: Vec<Html> = validation.into_iter().chain(quantities).collect();
    section.grid(charts);
    let shares_over_steps = trainings.iter().filter_map(|training| share_chart(training, &mut section)).collect();
    section.grid(shares_over_steps);
    shares(&trainings, &mut section);
    let file = section.file("log", log_csv(&trainings));
    let link = element("a").attribute("href", file).attribute("download", "").text("one CSV file");
    section.add(element("p").text("All steps are in ").child(link).text("."));
    Ok(section)
}

fn overview(trainings: &[Training]) -> Table {
    let columns =
        ["Arm", "Steps", "Epochs", "First loss", "Last loss", "Untouched validation", "Best validation", "at step"];
    let mut table = Table::new("Trainings; validation is nDCG@10 on queries set aside, macro mean", columns);
    for training in trainings {
        let loss =
            |record: Option<&StepRecord>| record.map_or_else(Cell::missing, |record| Cell::number(record.loss, 3));
        let untouched = training.validations.iter().find(|record| record.step == 0);
        // The first of equals, as training keeps it.
        let best = training
            .validations
            .iter()
            .fold(None, |best, record| if is_better(best, record) { Some(record) } else { best });
        table.push(vec![
            Cell::text(&training.name),
            Cell::count(training.log.len() as u64),
            Cell::count(training.log.last().map_or(0, |record| u64::from(record.epoch) + 1)),
            loss(training.log.first()),
            loss(training.log.last()),
            untouched.map_or_else(Cell::missing, points),
            best.map_or_else(Cell::missing, points),
            best.map_or_else(Cell::missing, |record| Cell::count(record.step)),
        ]);
    }
    table
}

fn is_better(best: Option<&ValidationRecord>, record: &ValidationRecord) -> bool {
    best.is_none_or(|best| record.macro_average > best.macro_average)
}

fn points(record: &ValidationRecord) -> Cell {
    Cell::shown(format!("{:.1}", 100.0 * record.macro_average), record.macro_average)
}

fn validation(trainings: &[Training], section: &mut Section) -> Option<Html> {
    let line = |training: &Training| Line {
        name: training.name.clone(),
        points: training.validations.iter().map(|record| (record.step as f64, 100.0 * record.macro_average)).collect(),
    };
    let lines: Vec<Line> = trainings.iter().map(line).collect();
    let mut table = Table::new(
        "Validation nDCG@10 by step, macro mean in points of a hundred; step 0 is the untouched model",
        std::iter::once("Step").chain(trainings.iter().map(|training| training.name.as_str())),
    );
    let mut rows: BTreeMap<u64, Vec<Cell>> = BTreeMap::new();
    for (place, training) in trainings.iter().enumerate() {
        for record in &training.validations {
            rows.entry(record.step).or_insert_with(|| vec![Cell::missing(); trainings.len()])[place] = points(record);
        }
    }
    for (step, cells) in rows {
        table.push([Cell::count(step)].into_iter().chain(cells).collect());
    }
    let title = "Validation nDCG@10".to_owned();
    let chart = Chart { title, x: "Step".to_owned(), y: "nDCG@10, points".to_owned(), lines };
    section.charted("validation", &chart, &table)
}

fn steps(quantity: &Quantity, trainings: &[Training], section: &mut Section) -> Option<Html> {
    let line = |training: &Training| Line {
        name: training.name.clone(),
        points: training.log.iter().map(|record| (record.step as f64, (quantity.of)(record))).collect(),
    };
    let chart = Chart {
        title: quantity.name.to_owned(),
        x: "Step".to_owned(),
        y: quantity.axis.to_owned(),
        lines: trainings.iter().map(line).collect(),
    };
    section.charted(quantity.name, &chart, &step_table(quantity, trainings))
}

/// Means over equal stretches of steps.
fn step_table(quantity: &Quantity, trainings: &[Training]) -> Table {
    let mut table = Table::new(
        format!("{}, mean over each stretch of steps", quantity.name),
        std::iter::once("Steps").chain(trainings.iter().map(|training| training.name.as_str())),
    );
    for (start, end) in stretches(trainings) {
        let cell = |training: &Training| {
            let within = training.log.iter().filter(|record| (start..=end).contains(&record.step));
            mean(within.map(quantity.of)).map_or_else(Cell::missing, significant)
        };
        table.push([Cell::text(stretch_name(start, end))].into_iter().chain(trainings.iter().map(cell)).collect());
    }
    table
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (count, sum) = values.fold((0u64, 0.0), |(count, sum), value| (count + 1, sum + value));
    (count > 0).then(|| sum / count as f64)
}

/// Three digits, whatever the size of the value.
fn significant(value: f64) -> Cell {
    match value.abs() {
        size if size > 0.0 && size < 0.001 => Cell::shown(format!("{value:.2e}"), value),
        _ => Cell::number(value, 3),
    }
}

/// Which negatives moved the model: the mean share of the gradient by their provenance.
fn shares(trainings: &[Training], section: &mut Section) {
    let mut names: Vec<&String> =
        trainings.iter().flat_map(|t| &t.log).flat_map(|record| record.shares.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let caption = "Share of the gradient on negatives by where they came from, mean over the steps";
    let columns = std::iter::once("Source").chain(trainings.iter().map(|training| training.name.as_str()));
    let mut table = Table::new(caption, columns);
    for name in names {
        let share = |training: &Training| {
            let shares = training.log.iter().map(|record| record.shares.get(name).copied().unwrap_or(0.0));
            mean(shares).map_or_else(Cell::missing, Cell::percent)
        };
        table.push([Cell::text(name)].into_iter().chain(trainings.iter().map(share)).collect());
    }
    section.table("gradient shares", &table);
}

/// The same over the steps of one training.
fn share_chart(training: &Training, section: &mut Section) -> Option<Html> {
    let names: BTreeSet<&String> = training.log.iter().flat_map(|record| record.shares.keys()).collect();
    let share = |record: &StepRecord, name: &str| record.shares.get(name).copied().unwrap_or(0.0);
    let line = |name: &&String| Line {
        name: (*name).clone(),
        points: training.log.iter().map(|record| (record.step as f64, 100.0 * share(record, name))).collect(),
    };
    let title = format!("Share of the gradient by source of negatives: {}", training.name);
    let (x, y) = ("Step".to_owned(), "Share of the gradient, %".to_owned());
    let chart = Chart { title: title.clone(), x, y, lines: names.iter().map(line).collect() };
    let columns = std::iter::once("Steps").chain(names.iter().map(|name| name.as_str()));
    let mut table = Table::new(format!("{title}, mean over each stretch of steps"), columns);
    for (start, end) in stretches(std::slice::from_ref(training)) {
        let within = || training.log.iter().filter(|record| (start..=end).contains(&record.step));
        let cell =
            |name: &&String| mean(within().map(|record| share(record, name))).map_or_else(Cell::missing, Cell::percent);
        table.push(std::iter::once(Cell::text(stretch_name(start, end))).chain(names.iter().map(cell)).collect());
    }
    section.charted(format!("gradient shares over steps {}", training.name), &chart, &table)
}

/// Equal stretches of steps, first and last step of each.
fn stretches(trainings: &[Training]) -> Vec<(u64, u64)> {
    let last = trainings.iter().filter_map(|training| training.log.last()).map(|record| record.step).max().unwrap_or(0);
    let stretch = (last + 1).div_ceil(ROWS as u64).max(1);
    (0..=last).step_by(stretch as usize).map(|start| (start, (start + stretch - 1).min(last))).collect()
}

fn stretch_name(start: u64, end: u64) -> String {
    if start == end { start.to_string() } else { format!("{start}–{end}") }
}

/// All steps of all trainings with all digits.
fn log_csv(trainings: &[Training]) -> String {
    let columns = ["arm", "step", "epoch", "language", "loss", "rate", "gradient norm", "accuracy"];
    let mut table = Table::new("", columns);
    for (training, record) in trainings.iter().flat_map(|t| t.log.iter().map(move |record| (t, record))) {
        let mut row = vec![
            Cell::text(&training.name),
            Cell::count(record.step),
            Cell::count(u64::from(record.epoch)),
            Cell::text(&record.language),
        ];
        row.extend(QUANTITIES.iter().map(|quantity| Cell::number((quantity.of)(record), 3)));
        table.push(row);
    }
    table.csv()
}
