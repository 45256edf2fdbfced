//! Several experiments side by side: their answers, their systems in one table a measure, and what they set differently.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::arms::{first_seeds, points};
use super::front;
use super::material::{Material, language_name};
use super::page::{self, Section};
use super::settings::Differences;
use super::table::{Cell, Table};
use super::{Arm, Experiment};
use crate::corpus::Language;
use crate::error::{Error, Result};
use crate::evaluate::compare::{MeasureComparison, SystemValues};
use crate::evaluate::{Judgements, Measure};
use crate::html::element;

/// Writes the page of several experiments and its CSV files into `folder`. `pages` are the addresses of their own pages,
/// relative to it, in the same order.
///
/// Values stand side by side and are not tested against one another, for every experiment was compared with its own
/// baseline.
///
/// # Errors
/// Fewer than two experiments, or as many pages as there are none of; and those of the report of one.
pub fn side_by_side(experiments: &[Experiment], pages: &[String], folder: &Path) -> Result<()> {
    if experiments.len() < 2 || experiments.len() != pages.len() {
        let (experiments, pages) = (experiments.len(), pages.len());
        return Err(Error::data(format!(
            "expected two or more experiments with a page each, got {experiments} and {pages}"
        )));
    }
    let materials: Vec<Material> = experiments.iter().map(Material::open).collect::<Result<_>>()?;
    let title = experiments.iter().map(|experiment| experiment.name.as_str()).collect::<Vec<_>>().join(" beside ");
    let sections = [values(&materials), settings(&materials)];
    let sections: Vec<Section> = sections.into_iter().filter(|section| !section.is_empty()).collect();
    page::write(folder, &title, answers(&materials, pages), &sections)
}

/// What each experiment answers, with the way to its page; and what must not be missed in comparing them.
fn answers(materials: &[Material<'_>], pages: &[String]) -> Section {
    let mut section = Section::new("front", "");
    let datasets: BTreeSet<Vec<&str>> =
        materials.iter().map(|material| material.datasets().map(|dataset| dataset.key.as_str()).collect()).collect();
    if datasets.len() > 1 {
        section.say("These experiments have different data sets: their values cannot be compared.");
    }
    let splits = materials.iter().map(|material| material.comparison.split).collect::<Vec<_>>();
    if splits.windows(2).any(|pair| pair[0] != pair[1]) {
        section.say("These experiments were scored on different splits: their values cannot be compared.");
    }
    for (material, page) in materials.iter().zip(pages) {
        let link = element("a").attribute("href", page).text(&material.experiment.name);
        section.add(element("h2").child(link));
        section.add(element("ul").class("answers").children(front::answers(material)));
        section.say(front::cost(&front::by_stage(material)));
    }
    section
}

/// A system of one of the experiments.
struct Column<'a> {
    name: String,
    values: &'a SystemValues,
}

/// For every measure a table: languages down, the systems of all experiments across.
fn values(materials: &[Material<'_>]) -> Section {
    let mut section = Section::new("values", "Values side by side");
    section.say(
        "Values are in points of a hundred, ± the standard deviation over seeds. Each experiment was tested against its own \
         baseline, on its own page; here nothing is tested. Equal baselines stand once.",
    );
    let measures: BTreeSet<Measure> =
        materials.iter().flat_map(|material| &material.comparison.measures).map(|by| by.measure).collect();
    for judgements in [Judgements::Qrels, Judgements::Truth] {
        for measure in &measures {
            let by = |material: &Material<'_>| -> Option<usize> {
                let found = |by: &MeasureComparison| by.measure == *measure && by.judgements == judgements;
                material.comparison.measures.iter().position(found)
            };
            let found: Vec<(&Material, &MeasureComparison)> = materials
                .iter()
                .filter_map(|material| Some((material, &material.comparison.measures[by(material)?])))
                .collect();
            let suffix = if judgements == Judgements::Truth { " against the hidden truth" } else { "" };
            section.table(format!("{measure}{suffix}"), &table(&format!("{measure}{suffix}"), &found));
        }
    }
    section
}

fn table(title: &str, found: &[(&Material<'_>, &MeasureComparison)]) -> Table {
    let columns = columns(found);
    let names = columns.iter().map(|column| column.name.clone());
    let mut table = Table::new(title, std::iter::once("Language".to_owned()).chain(names));
    let languages: BTreeSet<&Language> = found.iter().flat_map(|(_, by)| by.queries.keys()).collect();
    for language in languages {
        let cells = columns.iter().map(|column| points(column.values.languages.get(language).copied()));
        table.push(std::iter::once(Cell::text(language_name(language))).chain(cells).collect());
    }
    let cells = columns.iter().map(|column| points(Some(column.values.macro_mean)));
    table.total(std::iter::once(Cell::text("Macro mean")).chain(cells).collect());
    table
}

/// All systems; one that two experiments share, by the key of its evaluation, stands once and under its bare name.
fn columns<'a>(found: &[(&'a Material<'a>, &'a MeasureComparison)]) -> Vec<Column<'a>> {
    let mut columns: Vec<Column> = Vec::new();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (material, by) in found {
        let systems = std::iter::once(&by.baseline).chain(by.systems.iter().map(|system| &system.values));
        for values in systems {
            let baseline = material.experiment.baselines.iter().find(|(name, _)| *name == values.name);
            let key = baseline.map(|(_, artefact)| artefact.key());
            if let Some(key) = key
                && let Some(place) = seen.get(key)
            {
                columns[*place].name.clone_from(&values.name);
                continue;
            }
            if let Some(key) = key {
                seen.insert(key, columns.len());
            }
            columns.push(Column { name: format!("{}: {}", material.experiment.name, values.name), values });
        }
    }
    columns
}

/// What the arms of all experiments set differently from one another.
fn settings(materials: &[Material<'_>]) -> Section {
    let mut section = Section::new("settings", "What they set differently");
    let named: Vec<(&str, &Arm)> = materials
        .iter()
        .flat_map(|material| {
            let name = material.experiment.name.as_str();
            first_seeds(material).into_iter().map(move |arm| (name, arm))
        })
        .collect();
    let arms: Vec<&Arm> = named.iter().map(|(_, arm)| *arm).collect();
    let differences = Differences::between(&arms);
    let mut table = Table::new("Knobs that are not equal everywhere", ["Experiment", "Arm", "Knobs"]);
    if !differences.names.is_empty() {
        for (place, (experiment, arm)) in named.iter().enumerate() {
            table.push(vec![Cell::text(experiment), Cell::text(&arm.name), Cell::text(differences.line(place))]);
        }
    }
    section.table("knobs", &table);
    section
}
