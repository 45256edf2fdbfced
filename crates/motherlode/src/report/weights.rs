//! The weights of negatives: their parts and range for every arm, and the factors of languages and topics.

use super::Arm;
use super::arms::{by_measure, first_seeds, points};
use super::front::{HEADLINE, system_named};
use super::material::{Material, language_name};
use super::page::{Section, folded};
use super::table::{Cell, Table, signed};
use super::topics::topic_cell;
use crate::artefact::Artefact;
use crate::batch::Exposure;
use crate::batch::weights::{Law, WeightConfig, weights};
use crate::error::{Error, Result};
use crate::html::{Html, element};
use crate::topic::Topics;

/// How an arm is said to weigh.
struct Weighing<'a> {
    arm: &'a Arm,
    trained: &'a Artefact,
    reading: String,
    config: WeightConfig,
}

impl<'a> Weighing<'a> {
    fn of(arm: &'a Arm) -> Result<Option<Self>> {
        let Some(trained) = arm.artefacts.get("trained") else { return Ok(None) };
        let train = &trained.manifest().config["train"];
        let Some(reading) = train["reading"].as_str() else { return Ok(None) };
        let wrong = |error: serde_json::Error| Error::file(trained.folder(), error.to_string());
        let config = serde_json::from_value(train["weights"].clone()).map_err(wrong)?;
        Ok(Some(Self { arm, trained, reading: reading.to_owned(), config }))
    }

    fn is_weighed(&self) -> bool {
        self.reading != "none"
    }
}

/// The section; empty where nothing was trained.
pub(super) fn weighing(material: &Material<'_>) -> Result<Section> {
    let mut section = Section::new("weights", "Weights of negatives");
    let arms: Vec<Weighing> =
        first_seeds(material).into_iter().filter_map(|arm| Weighing::of(arm).transpose()).collect::<Result<_>>()?;
    section.table("arms", &of_arms(material, &arms));
    let mut told: Vec<(&str, &WeightConfig)> = Vec::new();
    let mut pieces: Vec<Html> = Vec::new();
    for weighing in arms.iter().filter(|weighing| weighing.is_weighed()) {
        let Some(batches) = weighing.arm.artefacts.get("batches").filter(|batches| batches.has(EXPOSURE)) else {
            continue;
        };
        if told.contains(&(batches.key(), &weighing.config)) {
            continue;
        }
        told.push((batches.key(), &weighing.config));
        pieces.extend(factors(weighing, batches, &mut section)?);
    }
    section.grid(pieces);
    Ok(section)
}

const EXPOSURE: &str = crate::batch::exposure::FILE;

/// α, β and what they come to, with quality beside.
fn of_arms(material: &Material<'_>, arms: &[Weighing<'_>]) -> Table {
    let caption = "Weights ω = α·a(language) + β·b(topic) of negatives, scaled to mean 1, so that only α : β counts. Reading: \
                   what ω does in the loss. τ·ln ω is by how much a weight shifts a negative, in units of the similarity";
    let columns = [
        "Arm",
        "Reading",
        "α",
        "β",
        "α + β",
        "Law of languages",
        "Law of topics",
        "Least τ·ln ω",
        "Greatest τ·ln ω",
        "nDCG@10",
    ];
    let mut table = Table::new(caption, columns);
    for weighing in arms {
        let WeightConfig { alpha, beta, language_law, topic_law } = &weighing.config;
        let shift = |name: &str| {
            let value = weighing.trained.summary().values.get(name).filter(|_| weighing.is_weighed());
            value.map_or_else(Cell::missing, |value| Cell::shown(signed(*value, 3), value))
        };
        let number = |value: f64| if weighing.is_weighed() { Cell::number(value, 2) } else { Cell::missing() };
        let system = by_measure(material, HEADLINE).and_then(|by| system_named(by, &weighing.arm.name));
        table.push(vec![
            Cell::text(&weighing.arm.name),
            Cell::text(&weighing.reading),
            number(*alpha),
            number(*beta),
            number(alpha + beta),
            Cell::text(if weighing.is_weighed() { law(language_law) } else { "–".to_owned() }),
            Cell::text(if weighing.is_weighed() { law(topic_law) } else { "–".to_owned() }),
            shift("least τ·ln ω"),
            shift("greatest τ·ln ω"),
            points(system.map(|system| system.values.macro_mean)),
        ]);
    }
    table
}

fn law(law: &Law) -> String {
    match law {
        Law::Inverse => "1 / share".to_owned(),
        Law::SharePower { gamma } => format!("share ^ {gamma}"),
        Law::EffectiveNumber { beta } => format!("effective number, β {beta}"),
        Law::Constant => "constant".to_owned(),
        Law::Table(_) => "a table".to_owned(),
    }
}

/// The factors of languages and topics of one plan, folded, with their shares among the planned negatives.
fn factors(weighing: &Weighing<'_>, batches: &Artefact, section: &mut Section) -> Result<Option<Html>> {
    let exposure = Exposure::open(batches)?;
    let weights = weights(&exposure, &weighing.config)?;
    let labels = match weighing.arm.artefacts.get("topics") {
        Some(topics) => Topics::open(topics)?.labels,
        None => Vec::new(),
    };
    let name = &weighing.arm.name;
    let columns = |what: &'static str| [what, "Share of negatives", "Factor"];
    let mut languages = Table::new(format!("Factors a of languages ({name})"), columns("Language"));
    let all: u64 = exposure.language.values().sum();
    for (language, factor) in weights.languages() {
        let share = Cell::share(exposure.language.get(language).copied().unwrap_or(0), all);
        languages.push(vec![Cell::text(language_name(language)), share, Cell::number(*factor, 2)]);
    }
    let mut topics = Table::new(format!("Factors b of topics ({name})"), columns("Topic"));
    for (number, (cells, factor)) in exposure.topic.iter().zip(weights.topics()).enumerate() {
        let label = labels.get(number).map_or("", String::as_str);
        topics.push(vec![topic_cell(number, label), Cell::share(*cells, all), Cell::number(*factor, 2)]);
    }
    let tables = [("languages", &languages), ("topics", &topics)];
    let tables: Vec<Html> =
        tables.iter().filter_map(|(what, table)| section.tabled(format!("{what} {name}"), table)).collect();
    let content = element("div").children(tables);
    Ok(Some(folded(format!("Factors of languages and topics: {name}"), content.into()).into()))
}
