//! The pages of recipes: of one, of several side by side, and what people said in `inspect`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::place::Workshop;
use super::settings::Variant;
use super::walk::experiment;
use crate::artefact::Artefact;
use crate::error::{Error, Result};
use crate::evaluate::Comparison;
use crate::inspect::{Label, Labels, Pair};
use crate::report::{Arm, Experiment, HumanGrade, report, side_by_side};

/// What an experiment left behind.
pub struct Finished {
    /// The page to open.
    pub page: PathBuf,
    /// What came out, as text.
    pub summary: String,
}

/// Writes the pages of a recipe anew, from artefacts that are all there: for a workshop that
/// [only looks](Workshop::only_look).
///
/// # Errors
/// A stage that is not made yet.
pub fn pages(workshop: &Workshop<'_>, variants: &[Variant]) -> Result<Finished> {
    finish(workshop, &experiment(workshop, variants, None)?)
}

/// Writes the pages of several recipes anew and a page that puts them side by side, as [`pages`] does for one.
///
/// # Errors
/// Two recipes of one name, whose pages would lie in the same folder; a stage that is not made yet.
pub fn pages_side_by_side(workshop: &Workshop<'_>, recipes: &[Vec<Variant>]) -> Result<Finished> {
    let experiments: Vec<Experiment> =
        recipes.iter().map(|variants| experiment(workshop, variants, None)).collect::<Result<_>>()?;
    let names: Vec<&str> = experiments.iter().map(|experiment| experiment.name.as_str()).collect();
    if let Some(twice) = names.iter().find(|name| names.iter().filter(|other| other == name).count() > 1) {
        return Err(Error::config(format!("two of the recipes are named `{twice}`; give one another `name`")));
    }
    let mut summary = String::new();
    for experiment in &experiments {
        summary += &format!("{}\n\n{}\n", experiment.name, finish(workshop, experiment)?.summary);
    }
    let folder = workshop.pages(&names.join("-beside-"));
    let own: Vec<String> = names.iter().map(|name| format!("../{name}/index.html")).collect();
    side_by_side(&experiments, &own, &folder)?;
    Ok(Finished { page: folder.join("index.html"), summary })
}

pub(super) fn finish(workshop: &Workshop<'_>, experiment: &Experiment) -> Result<Finished> {
    let summary = Comparison::read(&experiment.comparison)?.to_summary();
    let pages = workshop.pages(&experiment.name);
    report(experiment, &pages)?;
    Ok(Finished { page: pages.join("index.html"), summary })
}

/// What people said of the pairs of the arms' data sets, where there are labels.
pub(super) fn people(workshop: &Workshop<'_>, arms: &[Arm]) -> Result<Vec<HumanGrade>> {
    let path = workshop.labels();
    if !path.exists() {
        return Ok(Vec::new());
    }
    let labels = Labels::open(&path)?;
    let datasets: BTreeSet<&str> =
        arms.iter().filter_map(|arm| arm.artefacts.get("dataset")).map(Artefact::key).collect();
    let mut people = Vec::new();
    for dataset in datasets {
        for Label { pair, annotator, grade, .. } in labels.current(dataset)? {
            let Pair { language, query, passage } = pair;
            people.push(HumanGrade { language, query, passage, annotator, grade });
        }
    }
    Ok(people)
}
