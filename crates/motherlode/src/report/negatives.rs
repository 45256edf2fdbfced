//! What training sees: negatives by provenance, languages and topics of the planned steps, and the topics themselves.

use std::collections::{BTreeMap, BTreeSet};

use super::material::{Material, Shared, language_name, lines_of};
use super::page::Section;
use super::table::{Cell, Table};
use super::{exposure, topics};
use crate::batch::{Row, Step};
use crate::corpus::Language;
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::judge::QueryJudgements;
use crate::lines;
use crate::sample::{Example, Provenance};
use crate::topic::{Topic, Topics};

const PROVENANCES: [(Provenance, &str); 7] = [
    (Provenance::Judged, "Judged"),
    (Provenance::Supplement, "Supplement"),
    (Provenance::Human, "By people"),
    (Provenance::Deeper, "Deeper ranks"),
    (Provenance::Mined, "By a score rule"),
    (Provenance::Unjudged, "Unjudged"),
    (Provenance::Random, "Random"),
];

/// The section.
pub(super) fn negatives(material: &Material<'_>) -> Result<Section> {
    let mut section = Section::new("batches", "Negatives, batches and topics");
    for shared in material.shared("examples") {
        section.table(format!("negatives {}", shared.label), &provenance(material, &shared)?);
        section.table(format!("sources {}", shared.label), &sources(material, &shared)?);
    }
    for shared in material.shared("batches") {
        if let Some(dataset) = material.dataset(shared.arm) {
            batches(&shared, dataset, &mut section)?;
        }
    }
    for shared in material.shared("topics") {
        topics::add(material, &shared, &mut section)?;
    }
    Ok(section)
}

fn provenance(material: &Material<'_>, shared: &Shared<'_>) -> Result<Table> {
    let columns = ["Language", "Queries", "Negatives"].into_iter().chain(PROVENANCES.map(|(_, name)| name));
    let mut table = Table::new(format!("Training negatives by where they came from ({})", shared.label), columns);
    let mut total = (0, BTreeMap::new());
    for partition in material.partitions(shared.arm) {
        let examples: Vec<Example> = lines_of(shared.artefact, &format!("{}.train.jsonl", partition.language))?;
        let mut counts = BTreeMap::new();
        for negative in examples.iter().flat_map(|example| &example.negatives) {
            *counts.entry(negative.provenance).or_default() += 1;
            *total.1.entry(negative.provenance).or_default() += 1;
        }
        total.0 += examples.len() as u64;
        if !examples.is_empty() {
            table.push(provenance_row(&language_name(&partition.language), examples.len() as u64, &counts));
        }
    }
    table.total(provenance_row("All", total.0, &total.1));
    Ok(table)
}

fn provenance_row(name: &str, queries: u64, counts: &BTreeMap<Provenance, u64>) -> Vec<Cell> {
    let count = |(provenance, _): (Provenance, &str)| Cell::count(counts.get(&provenance).copied().unwrap_or(0));
    let mut row = vec![Cell::text(name), Cell::count(queries), Cell::count(counts.values().sum())];
    row.extend(PROVENANCES.map(count));
    row
}

/// Negatives by the stage of the method that brought them, beside what the judge eliminated of the first list.
fn sources(material: &Material<'_>, shared: &Shared<'_>) -> Result<Table> {
    let columns = [
        "Language",
        "Retrieved",
        "Generated",
        "Random",
        "Retrieved, share",
        "Generated, share",
        "Eliminated of the candidates judged",
    ];
    let caption = format!(
        "Hard negatives by stage ({}): retrieved for the query, or through a generated query; and the candidates that the \
         judge eliminated",
        shared.label
    );
    let mut table = Table::new(caption, columns);
    let Some(judgements) = shared.arm.artefacts.get("judgements") else { return Ok(table) };
    let mut total = Sources::default();
    for partition in material.partitions(shared.arm) {
        let mut own = Sources::default();
        let examples: Vec<Example> = lines_of(shared.artefact, &format!("{}.train.jsonl", partition.language))?;
        for negative in examples.iter().flat_map(|example| &example.negatives) {
            match negative.provenance {
                Provenance::Supplement => own.generated += 1,
                Provenance::Random => own.random += 1,
                _ => own.retrieved += 1,
            }
        }
        let rows: Vec<QueryJudgements> = lines_of(judgements, &format!("{}.jsonl", partition.language))?;
        for judgement in rows.iter().flat_map(|row| &row.judgements) {
            own.eliminated += u64::from(judgement.verdict.is_eliminated());
            own.judged += u64::from(judgement.verdict.grade().is_some());
        }
        if !examples.is_empty() {
            table.push(own.row(&language_name(&partition.language)));
        }
        total.add(&own);
    }
    table.total(total.row("All"));
    Ok(table)
}

#[derive(Default)]
struct Sources {
    retrieved: u64,
    generated: u64,
    random: u64,
    eliminated: u64,
    judged: u64,
}

impl Sources {
    fn add(&mut self, other: &Self) {
        self.retrieved += other.retrieved;
        self.generated += other.generated;
        self.random += other.random;
        self.eliminated += other.eliminated;
        self.judged += other.judged;
    }

    fn row(&self, name: &str) -> Vec<Cell> {
        let all = self.retrieved + self.generated + self.random;
        let counts = [self.retrieved, self.generated, self.random].map(Cell::count);
        let shares = [Cell::share(self.retrieved, all), Cell::share(self.generated, all)];
        let eliminated = [Cell::share(self.eliminated, self.judged)];
        std::iter::once(Cell::text(name)).chain(counts).chain(shares).chain(eliminated).collect()
    }
}

/// What the planned steps of one language, or all, hold.
#[derive(Default)]
struct Exposure {
    steps: u64,
    queries: u64,
    topics: u64,
    single_topic: u64,
    masked: u64,
    distinct: BTreeSet<String>,
}

impl Exposure {
    fn add(&mut self, step: &Step, topics: u64) {
        self.steps += 1;
        self.queries += step.rows.len() as u64;
        self.topics += topics;
        self.single_topic += u64::from(topics == 1);
        self.masked += step.rows.iter().map(|row| row.masked.len() as u64).sum::<u64>();
        self.distinct.extend(step.rows.iter().map(|row| format!("{}\t{}", row.language, row.query)));
    }

    fn row(&self, name: &str, knows_topics: bool) -> Vec<Cell> {
        let mean = |sum: u64| Cell::number(sum as f64 / self.steps.max(1) as f64, 1);
        let of_topics = |cell: Cell| if knows_topics { cell } else { Cell::missing() };
        vec![
            Cell::text(name),
            Cell::count(self.steps),
            mean(self.queries),
            Cell::count(self.distinct.len() as u64),
            of_topics(mean(self.topics)),
            of_topics(Cell::count(self.single_topic)),
            Cell::count(self.masked),
        ]
    }
}

fn batches(shared: &Shared<'_>, dataset: &Dataset, section: &mut Section) -> Result<()> {
    let topics = shared.arm.artefacts.get("topics").map(Topics::open).transpose()?;
    let topic_of = |row: &Row| topic_of(topics.as_ref()?, dataset, row);
    let (mut languages, mut total): (BTreeMap<String, Exposure>, _) = (BTreeMap::new(), Exposure::default());
    let mut drawn: BTreeMap<Topic, u64> = BTreeMap::new();
    let mut epochs = exposure::Epochs::default();
    let path = shared.artefact.path("batches.jsonl");
    lines::for_each(&path, |number, line| {
        let step: Step = serde_json::from_str(line).map_err(|error| Error::line(&path, number, error.to_string()))?;
        let of_rows: Vec<Topic> = step.rows.iter().filter_map(topic_of).collect();
        of_rows.iter().for_each(|topic| *drawn.entry(*topic).or_default() += 1);
        epochs.add(&step, &of_rows);
        let present = of_rows.into_iter().collect::<BTreeSet<_>>().len() as u64;
        languages.entry(language_of(&step)).or_default().add(&step, present);
        total.add(&step, present);
        Ok(())
    })?;
    let caption = format!(
        "Planned steps ({}). Masked: pairs of a query and another query’s passage that must not count as a negative",
        shared.label
    );
    let columns = [
        "Language",
        "Steps",
        "Queries a step",
        "Distinct queries",
        "Topics a step",
        "Steps of one topic",
        "Masked pairs",
    ];
    let mut table = Table::new(caption, columns);
    languages.iter().for_each(|(language, exposure)| table.push(exposure.row(language, topics.is_some())));
    table.total(total.row("All", topics.is_some()));
    section.table(format!("steps {}", shared.label), &table);
    collisions(shared, section);
    exposure::add(shared, &epochs, topics.as_ref(), section);
    if let Some(topics) = &topics {
        section.table(format!("topics of steps {}", shared.label), &topics::draws(shared, topics, &drawn));
    }
    Ok(())
}

fn topic_of(topics: &Topics, dataset: &Dataset, row: &Row) -> Option<Topic> {
    let positive = dataset.partition(&row.language).ok()?.corpus.find(&row.positive)?;
    topics.passages.get(&row.language)?.get(positive.at()).copied()
}

/// The language of a step's queries, or `mixed`.
fn language_of(step: &Step) -> String {
    let languages: BTreeSet<&Language> = step.rows.iter().map(|row| &row.language).collect();
    match languages.first() {
        Some(language) if languages.len() == 1 => language_name(language),
        _ => "mixed".to_owned(),
    }
}

/// What the plan counted of collisions, which the steps themselves no longer show.
fn collisions(shared: &Shared<'_>, section: &mut Section) {
    let counts = shared.artefact.summary().counts.iter();
    let mut found = counts.filter(|(name, _)| name.contains("collision") || name.contains("avoided")).peekable();
    if found.peek().is_some() {
        let mut table = Table::new(format!("Collisions ({})", shared.label), ["Count", "Value"]);
        found.for_each(|(name, count)| table.push(vec![Cell::text(name), Cell::count(*count)]));
        section.table(format!("collisions {}", shared.label), &table);
    }
}
