//! Which stages of a recipe are there, without doing any.

use std::fmt::Write;

use super::place::{Seen, Workshop};
use super::settings::Variant;
use super::walk;
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
