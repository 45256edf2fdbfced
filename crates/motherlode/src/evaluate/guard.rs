//! What must not be scored: queries on which the model was selected.

use crate::corpus::Language;
use crate::dataset::{Partition, Split};
use crate::error::{Error, Result};
use crate::text::normalise::normalise;

/// Refuses to score queries that chose the model (by early stopping, checkpoint or threshold).
///
/// `selection` lists languages and query ids. An id that another split also uses, for another text, is not the same
/// query.
pub(super) fn refuse_selected(partition: &Partition, split: Split, selection: &[(Language, String)]) -> Result<()> {
    let queries = &partition.split(split)?.queries;
    let is_scored = |id: &str| {
        queries.find(id).is_some_and(|found| !means_another(partition, split, id, &queries.query(found).text))
    };
    let chosen = |(language, id): &&(Language, String)| *language == partition.language && is_scored(id);
    let mut scored = selection.iter().filter(chosen);
    let Some((language, id)) = scored.next() else { return Ok(()) };
    Err(Error::data(format!(
        "the model was selected on {} of the {language} queries to be scored, such as `{id}`; score queries that neither \
         training nor validation has seen",
        scored.count() + 1
    )))
}

/// Whether another split has this id with another text.
fn means_another(partition: &Partition, split: Split, id: &str, text: &str) -> bool {
    let others = Split::ALL.into_iter().filter(|other| *other != split && partition.has(*other));
    let mut found = others.filter_map(|other| {
        let queries = &partition.split(other).ok()?.queries;
        queries.find(id).map(|index| queries.query(index).text.clone())
    });
    found.any(|other| normalise(&other) != normalise(text))
}

/// Ids of queries whose text, but for its form, is also asked in another split.
pub(super) fn repeated_queries(partition: &Partition, split: Split) -> Result<Vec<String>> {
    let mut seen = std::collections::HashSet::new();
    for other in Split::ALL.into_iter().filter(|other| *other != split && partition.has(*other)) {
        seen.extend(partition.split(other)?.queries.iter().map(|(_, query)| normalise(&query.text)));
    }
    let queries = &partition.split(split)?.queries;
    let repeated = queries.iter().filter(|(_, query)| seen.contains(&normalise(&query.text)));
    Ok(repeated.map(|(_, query)| query.id.clone()).collect())
}
