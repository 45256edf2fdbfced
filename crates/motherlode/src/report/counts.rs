//! What went through the pipeline: every stage's counts, in, out and dropped per reason, as its manifest has them.

use super::material::{Material, ROLES, Shared};
use super::page::{Section, folded};
use super::table::{Cell, Table};
use crate::artefact::Summary;
use crate::html::{Html, element};

/// The section.
pub(super) fn counts(material: &Material<'_>) -> Section {
    let mut section = Section::new("counts", "What went through the pipeline");
    section.say(
        "Each stage as its manifest counts it. Counts of single languages and topics are folded away; what a stage counts \
         only by language is summed here.",
    );
    for role in ROLES {
        let pieces = material.shared(role).iter().map(|shared| stage(role, shared, &mut section)).collect();
        section.grid(pieces);
    }
    section
}

fn stage(role: &str, shared: &Shared<'_>, section: &mut Section) -> Html {
    let stage = &shared.artefact.manifest().stage;
    let title = format!("{role}, made by {stage} for {}", shared.label);
    let (whole, parts) = split(shared.artefact.summary());
    let whole = section.tabled(format!("{role} {}", shared.label), &table(&title, &whole));
    let parts = section.tabled(format!("{role} {} details", shared.label), &table("By language and topic", &parts));
    element("div")
        .children(whole)
        .children(parts.map(|parts| folded(format!("{role} by language and topic"), parts)))
        .into()
}

/// The summary of the whole, and that of its languages and topics. Counts that only languages have are summed.
fn split(summary: &Summary) -> (Summary, Summary) {
    let (mut whole, mut parts) = (Summary::default(), Summary::default());
    for (name, count) in &summary.counts {
        let part = if is_part(name) { &mut parts } else { &mut whole };
        part.counts.insert(name.clone(), *count);
        if let Some(name) = of_language(name).filter(|name| !summary.counts.contains_key(*name)) {
            whole.count(name, *count as usize);
        }
    }
    for (name, value) in &summary.values {
        let part = if is_part(name) { &mut parts } else { &mut whole };
        part.values.insert(name.clone(), *value);
    }
    (whole, parts)
}

/// The name of a count of one language, such as `queries` of `sw: queries`.
fn of_language(name: &str) -> Option<&str> {
    let is_tag = |prefix: &str| prefix.len() <= 3 && prefix.bytes().all(|byte| byte.is_ascii_lowercase());
    name.split_once(": ").filter(|(prefix, _)| is_tag(prefix)).map(|(_, name)| name)
}

/// Whether a count is of one language (`sw: queries`) or one topic (`rows of topic 03 Sports`), not of all.
fn is_part(name: &str) -> bool {
    let is_numbered = |rest: &str| rest.bytes().next().is_some_and(|byte| byte.is_ascii_digit());
    of_language(name).is_some() || name.split_once("topic ").is_some_and(|(_, rest)| is_numbered(rest))
}

fn table(title: &str, summary: &Summary) -> Table {
    let mut table = Table::new(title, ["Count", "Value"]);
    for (name, count) in &summary.counts {
        table.push(vec![Cell::text(name), Cell::count(*count)]);
    }
    for (name, value) in &summary.values {
        table.push(vec![Cell::text(name), Cell::number(*value, 3)]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_and_topics_are_parts() {
        for part in ["sw: negatives judged", "topic 03", "rows of topic 03 Sports", "yue: queries"] {
            assert!(is_part(part), "{part}");
        }
        for whole in ["queries", "dropped: not mined", "removed: positive by text", "topics", "topic words"] {
            assert!(!is_part(whole), "{whole}");
        }
    }

    #[test]
    fn what_only_languages_count_is_summed() {
        let mut summary = Summary::default();
        for (name, count) in [("ar: passages", 3), ("sw: passages", 4), ("queries", 5), ("ar: queries", 2)] {
            summary.count(name, count);
        }
        let (whole, parts) = split(&summary);
        assert_eq!(whole.counts, [("passages".to_owned(), 7), ("queries".to_owned(), 5)].into());
        assert_eq!(parts.counts.len(), 3);
    }
}
