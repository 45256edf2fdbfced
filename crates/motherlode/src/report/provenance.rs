//! Provenance: the key, seed, inputs and full configuration of every artefact behind the page.

use super::material::{Material, Taken};
use super::page::Section;
use super::table::{Cell, Table};
use crate::artefact::Artefact;
use crate::html::{Element, element};

/// The section.
pub(super) fn provenance(material: &Material<'_>) -> Section {
    let mut section = Section::new("provenance", "Where every number comes from");
    section.say(
        "Equal keys mean equal configuration, seed and inputs, and so equal results. The configurations are folded under \
         the table.",
    );
    let mut table =
        Table::new("Artefacts behind this page", ["Role", "Stage", "Key", "Seed", "Bytes", "Seconds", "Arms"]);
    for (role, artefact) in material.artefacts() {
        let manifest = artefact.manifest();
        table.push(vec![
            Cell::text(role),
            Cell::text(&manifest.stage),
            Cell::text(&manifest.key),
            Cell::shown(manifest.seed, manifest.seed),
            Cell::count(manifest.files.iter().map(|file| file.bytes).sum()),
            Taken::by(artefact).map_or_else(Cell::missing, |taken| Cell::number(taken.seconds, 1)),
            Cell::text(arms(material, artefact)),
        ]);
    }
    section.table("artefacts", &table);
    let configurations = material.artefacts().into_iter().map(|(role, artefact)| configuration(role, artefact));
    section.add(element("div").class("configurations").children(configurations));
    section
}

fn arms(material: &Material<'_>, artefact: &Artefact) -> String {
    let has = |arm: &&super::Arm| arm.artefacts.values().any(|other| other.key() == artefact.key());
    material.label(&material.experiment.arms.iter().filter(has).collect::<Vec<_>>())
}

fn configuration(role: &str, artefact: &Artefact) -> Element {
    let manifest = artefact.manifest();
    let content = serde_json::json!({ "config": manifest.config, "seed": manifest.seed, "inputs": manifest.inputs });
    let text = serde_json::to_string_pretty(&content).expect("a JSON value is always writable");
    let summary = element("summary").text(format!("{role} ({}) ", manifest.stage));
    let summary = summary.child(element("code").text(&manifest.key));
    element("details").child(summary).child(element("pre").child(element("code").text(text)))
}
