//! Words of the data on a page: each in its language, its direction its own, and never as markup.

use super::catalogue::{Catalogue, Row};
use crate::corpus::Passage;
use crate::html::{Element, beginning, element};

/// Longest passage that is shown at once, in graphemes; the rest opens.
const SHOWN: usize = 700;
/// Longest passage in a table.
const SHORT: usize = 90;

/// A passage's title and text, whole.
pub(super) fn whole(language: impl std::fmt::Display + Copy, passage: &Passage<'_>) -> Element {
    titled(language, passage).child(element("div").foreign(language).text(passage.text))
}

/// A passage's title and the beginning of its text; a longer text opens.
pub(super) fn opening(language: impl std::fmt::Display + Copy, passage: &Passage<'_>) -> Element {
    let words = titled(language, passage);
    match beginning(passage.text, SHOWN) {
        (_, true) => words.child(element("div").foreign(language).text(passage.text)),
        (first, false) => {
            let first = element("div").foreign(language).text(format!("{first}…"));
            let rest = element("details").child(element("summary").text("The whole passage"));
            words.child(first).child(rest.child(element("div").foreign(language).text(passage.text)))
        }
    }
}

fn titled(language: impl std::fmt::Display, passage: &Passage<'_>) -> Element {
    let title = element("div").class("title").foreign(language).text(passage.title);
    element("div").class("words").children((!passage.title.is_empty()).then_some(title))
}

/// The first words of a passage, in a line.
pub(super) fn short(language: impl std::fmt::Display, passage: &Passage<'_>) -> Element {
    let joined = passage.joined(": ");
    let words = element("span").class("short").foreign(language);
    match beginning(&joined, SHORT) {
        (whole, true) => words.text(whole),
        (first, false) => words.text(format!("{first}…")),
    }
}

impl Catalogue {
    /// A passage of a row's language by its id.
    pub(super) fn passage(&self, row: &Row, id: &str) -> Option<Passage<'_>> {
        let corpus = &self.partition(row).corpus;
        corpus.find(id).map(|passage| corpus.passage(passage))
    }
}
