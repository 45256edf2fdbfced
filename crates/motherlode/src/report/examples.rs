//! Examples in their own scripts: false negatives that the judge found, and negatives found through generated queries.

use super::material::{Material, Shared, candidates_of, language_name, lines_of};
use super::page::Section;
use crate::corpus::Passage;
use crate::dataset::{Partition, Split};
use crate::error::Result;
use crate::generate::QuerySupplement;
use crate::html::{Element, beginning, element};
use crate::judge::{Judgement, QueryJudgements, Verdict};
use crate::mine::Candidate;

/// Examples a language.
const EXAMPLES: usize = 3;
/// Longest passage that is shown whole, in characters.
const CHARACTERS: usize = 700;

/// The section on false negatives.
pub(super) fn false_negatives(material: &Material<'_>) -> Result<Section> {
    let mut section = Section::new("false-negatives", "False negatives found");
    let Some(shared) = material.shared("judgements").into_iter().next() else {
        section.say("No language model judged candidates in this experiment.");
        return Ok(section);
    };
    section.say(format!(
        "Candidates that the judge says answer the query, though no label says so: up to {EXAMPLES} a language, those that \
         the untouched model scores highest ({}). Criteria are graded 0 to 2.",
        shared.label
    ));
    for partition in material.partitions(shared.arm) {
        let found = found(&shared, partition)?;
        cards(&mut section, partition, found.iter().filter_map(|found| found_card(partition, found)).collect());
    }
    Ok(section)
}

/// The section on supplements.
pub(super) fn supplements(material: &Material<'_>) -> Result<Section> {
    let mut section = Section::new("supplements", "Negatives found through generated queries");
    let Some(shared) = material.shared("supplement").into_iter().next() else { return Ok(section) };
    section.say(format!(
        "For queries short of negatives a language model wrote another query, whose candidates were judged in turn: up to \
         {EXAMPLES} a language ({}).",
        shared.label
    ));
    for partition in material.partitions(shared.arm) {
        let rows: Vec<QuerySupplement> = lines_of(shared.artefact, &format!("{}.jsonl", partition.language))?;
        let cards_of = rows.iter().filter_map(|row| supplement_card(partition, row)).take(EXAMPLES);
        cards(&mut section, partition, cards_of.collect());
    }
    Ok(section)
}

fn cards(section: &mut Section, partition: &Partition, cards: Vec<Element>) {
    if !cards.is_empty() {
        section.heading(language_name(&partition.language));
        section.add(element("div").class("cards").children(cards));
    }
}

/// A false negative with what was known of it.
struct Found {
    query: String,
    judgement: Judgement,
    candidate: Option<Candidate>,
}

/// The false negatives of a language that the untouched model scores highest, one a query; ties by query id.
fn found(shared: &Shared<'_>, partition: &Partition) -> Result<Vec<Found>> {
    let rows: Vec<QueryJudgements> = lines_of(shared.artefact, &format!("{}.jsonl", partition.language))?;
    let candidates = candidates_of(shared.arm, &partition.language)?;
    let mut found = Vec::new();
    for row in rows {
        let mut of_query: Vec<Found> = Vec::new();
        let list = candidates.get(&row.query).map_or(&[][..], |list| &list.candidates);
        for judgement in row.judgements.into_iter().filter(|judgement| judgement.verdict == Verdict::FalseNegative) {
            let candidate = list.iter().find(|candidate| candidate.passage == judgement.passage).cloned();
            of_query.push(Found { query: row.query.clone(), judgement, candidate });
        }
        of_query.sort_by(|a, b| score(b).total_cmp(&score(a)));
        found.extend(of_query.into_iter().next());
    }
    found.sort_by(|a, b| score(b).total_cmp(&score(a)).then_with(|| a.query.cmp(&b.query)));
    found.truncate(EXAMPLES);
    Ok(found)
}

fn score(found: &Found) -> f32 {
    found.candidate.as_ref().map_or(f32::NEG_INFINITY, |candidate| candidate.model_score)
}

fn found_card(partition: &Partition, found: &Found) -> Option<Element> {
    let judged = partition.split(Split::Train).ok()?;
    let query = judged.queries.find(&found.query)?;
    let mut list = element("dl").children(term("Query", query_text(partition, &judged.queries.query(query).text)));
    list = list.children(term("Passage found", passage_text(partition, &found.judgement.passage)?));
    list = list.children(term("Verdict", element("dd").class("verdict").text(verdict(found))));
    let positive = judged.qrels.positives(query).next().map(|positive| partition.corpus.passage(positive));
    let card = element("article").class("card").child(list);
    Some(match positive {
        Some(positive) => {
            let summary = element("summary").text("The labelled positive, to compare");
            card.child(element("details").child(summary).child(words("div", partition, &positive)))
        }
        None => card,
    })
}

fn verdict(found: &Found) -> String {
    let grade = |grade: Option<u8>| grade.map_or_else(|| "not recorded".to_owned(), |grade| grade.to_string());
    let (accuracy, completeness) = (grade(found.judgement.accuracy), grade(found.judgement.completeness));
    let place = found.candidate.as_ref().map_or_else(String::new, |candidate| {
        format!("; rank {}, model score {:.3}", candidate.rank, candidate.model_score)
    });
    format!("False negative: accuracy {accuracy}, completeness {completeness}{place}")
}

/// A supplement with the first candidate that became a negative.
fn supplement_card(partition: &Partition, row: &QuerySupplement) -> Option<Element> {
    let judged = partition.split(Split::Train).ok()?;
    let query = &judged.queries.query(judged.queries.find(&row.query)?).text;
    let negative = row.judgements.iter().find(|judgement| judgement.verdict == Verdict::Negative)?;
    let mut list = element("dl").children(term("Query", query_text(partition, query)));
    if let Some(summary) = &row.summary {
        list = list.children(term("Summary of the positive", foreign("dd", partition, &shortened(summary))));
    }
    list = list.children(term("Generated query", query_text(partition, &row.generated)));
    list = list.children(term("Negative found", passage_text(partition, &negative.passage)?));
    let kept = row.judgements.iter().filter(|judgement| judgement.verdict == Verdict::Negative).count();
    let novelty = format!("{kept} negatives of {} candidates; {:.0} % new", row.candidates.len(), 100.0 * row.novelty);
    Some(
        element("article")
            .class("card")
            .child(list.children(term("Yield", element("dd").class("verdict").text(novelty)))),
    )
}

fn term(name: &str, description: Element) -> [Element; 2] {
    [element("dt").text(name), description]
}

fn query_text(partition: &Partition, text: &str) -> Element {
    foreign("dd", partition, &shortened(text)).class("query")
}

fn passage_text(partition: &Partition, id: &str) -> Option<Element> {
    let passage = partition.corpus.passage(partition.corpus.find(id)?);
    Some(words("dd", partition, &passage))
}

/// A passage's title and text; each finds its own direction.
fn words(tag: &'static str, partition: &Partition, passage: &Passage<'_>) -> Element {
    let text = foreign("div", partition, &shortened(passage.text));
    let title = foreign("div", partition, passage.title);
    let children = if passage.title.is_empty() { vec![text] } else { vec![title.class("title"), text] };
    element(tag).children(children)
}

fn foreign(tag: &'static str, partition: &Partition, text: &str) -> Element {
    element(tag).foreign(&partition.language).text(text)
}

/// The beginning of a long text.
fn shortened(text: &str) -> String {
    match beginning(text, CHARACTERS) {
        (beginning, false) => format!("{beginning}…"),
        (whole, true) => whole.to_owned(),
    }
}
