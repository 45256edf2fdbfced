//! Which stages of a recipe are there, without doing any.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::place::{Seen, Workshop};
use super::settings::Variant;
use super::walk;
use crate::error::Result;
use crate::inspect::Arm;
use crate::memory::readable;

/// One line a stage for every variant, down to the first that is missing: what lies where, how large it is.
pub fn status(workshop: &Workshop<'_>, variants: &[Variant]) -> String {
    let mut text = String::new();
    for variant in variants {
        let _ = writeln!(text, "{}, seed {}", variant.name, variant.seed);
        workshop.forget();
        let stopped = walk::look(workshop, variant);
        for Seen { stage, folder, bytes } in workshop.seen() {
            let _ = writeln!(text, "  {stage:<9} {:>9}  {}", readable(bytes), folder.display());
        }
        let _ = match stopped {
            Ok(()) => writeln!(text, "  complete"),
            Err(error) => writeln!(text, "  next: {error}"),
        };
    }
    text
}

/// The stages whose artefacts can be inspected, with the roles that they have there.
const INSPECTED: [(&str, &str); 8] = [
    ("dataset", "dataset"),
    ("index", "index"),
    ("mine", "candidates"),
    ("judge", "judgements"),
    ("generate", "supplement"),
    ("topic", "topics"),
    ("sample", "examples"),
    ("batch", "batches"),
];

/// What is made of a variant so far, to be inspected, in a workshop that [only looks](Workshop::only_look).
///
/// # Errors
/// Not even candidates are there; a finished artefact that fails its check.
pub fn arm(workshop: &Workshop<'_>, variant: &Variant) -> Result<Arm> {
    workshop.forget();
    let stopped = walk::look(workshop, variant).err();
    let mut artefacts = BTreeMap::new();
    for seen in workshop.seen() {
        let role = INSPECTED.iter().find(|(stage, _)| *stage == seen.stage).map(|(_, role)| *role);
        artefacts.extend(role.and_then(|role| Some((role.to_owned(), workshop.known(&seen.folder)?))));
    }
    match stopped {
        Some(error) if !artefacts.contains_key("candidates") => Err(error),
        stopped => Ok(Arm {
            experiment: variant.settings.name.clone(),
            name: variant.name.clone(),
            seed: variant.seed,
            artefacts,
            missing: stopped.map(|error| error.to_string()),
        }),
    }
}
