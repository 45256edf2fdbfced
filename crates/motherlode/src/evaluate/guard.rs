//! What must not be scored: queries on which the model was selected; and what of the scored queries it has seen.

use super::EvaluateInputs;
use crate::artefact::Artefact;
use crate::dataset::{Partition, Split};
use crate::error::{Error, Result};
use crate::sample::guard::{self as overlap, Finding, Trained};
use crate::sample::{self, Example};
use crate::text::normalise::normalise;
use crate::text::twins::Twins;

/// Refuses to score queries that chose the model (by early stopping, checkpoint or threshold): those that `sample` set
/// aside.
///
/// An id that another split also uses, for another text, is not the same query.
pub(super) fn refuse_selected(partition: &Partition, split: Split, examples: Option<&Artefact>) -> Result<()> {
    if let Some(other) = examples.filter(|artefact| artefact.manifest().stage != sample::STAGE) {
        let message = format!("expected an artefact of `sample`, this one is of `{}`", other.manifest().stage);
        return Err(Error::file(other.folder(), message));
    }
    let selection = read_examples(partition, examples, "validation")?;
    let queries = &partition.split(split)?.queries;
    let is_scored = |id: &str| {
        queries.find(id).is_some_and(|found| !means_another(partition, split, id, &queries.query(found).text))
    };
    let mut scored = selection.iter().map(|example| &example.query).filter(|id| is_scored(id));
    let (Some(id), language) = (scored.next(), &partition.language) else { return Ok(()) };
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

/// What the guard of `sample` finds in the languages to be scored; nothing where train queries are scored.
pub(super) fn findings(partitions: &[&Partition], inputs: &EvaluateInputs<'_>) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    if inputs.split == Split::Dev {
        for partition in partitions {
            let training = trained(partition, inputs.examples)?;
            found.extend(overlap::findings(partition, &training, &Twins::find(&partition.corpus))?);
        }
    }
    Ok(found)
}

/// The examples of a language that the model was trained on.
fn trained(partition: &Partition, examples: Option<&Artefact>) -> Result<Vec<Trained>> {
    let passage = |id: &String| {
        let gone =
            || Error::data(format!("`{}` has no passage `{id}`, an example has; sample again", partition.language));
        partition.corpus.find(id).ok_or_else(gone)
    };
    let trained = |example: Example| {
        Ok(Trained {
            positives: example.positives.iter().map(passage).collect::<Result<_>>()?,
            negatives: example.negatives.iter().map(|negative| passage(&negative.passage)).collect::<Result<_>>()?,
            query: example.query,
        })
    };
    read_examples(partition, examples, "train")?.into_iter().map(trained).collect()
}

fn read_examples(partition: &Partition, examples: Option<&Artefact>, part: &str) -> Result<Vec<Example>> {
    let file = format!("{}.{part}.jsonl", partition.language);
    match examples.filter(|artefact| artefact.has(&file)) {
        Some(artefact) => artefact.read_lines(&file),
        None => Ok(Vec::new()),
    }
}
