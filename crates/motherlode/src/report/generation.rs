//! Generation: what new queries brought in each language, and where it stopped.

use std::collections::BTreeMap;

use super::judging::estimate;
use super::material::{Material, json_of, language_name};
use super::page::Section;
use super::table::{Cell, Table};
use crate::corpus::Language;
use crate::error::Result;
use crate::generate::Gain;

/// The section; empty where no query was generated.
pub(super) fn generation(material: &Material<'_>) -> Result<Section> {
    let mut section = Section::new("generation", "Generation");
    for shared in material.shared("supplement") {
        let gains: BTreeMap<Language, Gain> = json_of(shared.artefact, "gains.json")?.unwrap_or_default();
        let caption = format!(
            "What generated queries brought ({}), with 95 % Wilson intervals. A language stops after a probe that hardly ever \
             brought a new negative",
            shared.label
        );
        section.table(format!("gains {}", shared.label), &table(&caption, &gains));
    }
    Ok(section)
}

fn table(caption: &str, gains: &BTreeMap<Language, Gain>) -> Table {
    let columns = [
        "Language",
        "Queries tried",
        "New queries used",
        "New in their lists",
        "Queries with a new negative",
        "New candidates found relevant",
        "Queries left out",
        "Decision",
    ];
    let mut table = Table::new(caption, columns);
    for (language, gain) in gains {
        table.push(vec![
            Cell::text(language_name(language)),
            Cell::count(gain.tried as u64),
            Cell::count(gain.used as u64),
            gain.novelty.map_or_else(Cell::missing, Cell::percent),
            estimate(gain.adding),
            estimate(gain.relevant),
            Cell::count(gain.left_out as u64),
            Cell::text(if gain.left_out > 0 { "stopped" } else { "went on" }).strong(gain.left_out > 0),
        ]);
    }
    table
}
