//! The page: sections one under another, with everything that they need inside the one file, and CSV files beside it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write;
use std::path::Path;

use super::chart::Chart;
use super::table::Table;
use crate::artefact::write_whole;
use crate::error::{Error, Result};
use crate::html::{Element, Html, element};

const STYLE: &str = include_str!("page.css");
/// Nothing is loaded, run or sent, whatever a passage holds.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

/// One section with the CSV files of its tables.
#[derive(Debug, Default)]
pub(super) struct Section {
    id: &'static str,
    title: &'static str,
    body: Vec<Html>,
    files: BTreeMap<String, String>,
}

impl Section {
    /// An empty section; `id` is its name in links.
    pub(super) fn new(id: &'static str, title: &'static str) -> Self {
        Self { id, title, ..Self::default() }
    }

    /// Appends markup.
    pub(super) fn add(&mut self, html: impl Into<Html>) {
        self.body.push(html.into());
    }

    /// Appends a paragraph.
    pub(super) fn say(&mut self, text: impl Display) {
        self.add(element("p").text(text));
    }

    /// Appends a heading below the section's.
    pub(super) fn heading(&mut self, text: impl Display) {
        self.add(element("h3").text(text));
    }

    /// Appends a table, and its CSV file under `name`; a table without rows is left out.
    pub(super) fn table(&mut self, name: impl Display, table: &Table) {
        if let Some(table) = self.tabled(name, table) {
            self.add(table);
        }
    }

    /// A table whose CSV file is kept under `name`; none where there are no rows.
    pub(super) fn tabled(&mut self, name: impl Display, table: &Table) -> Option<Html> {
        (!table.is_empty()).then(|| table.html(&self.file(name, table.csv())))
    }

    /// A chart and the table that holds its values; none where there is nothing to draw.
    pub(super) fn charted(&mut self, name: impl Display, chart: &Chart, table: &Table) -> Option<Html> {
        let figure = chart.html()?;
        let table = self.tabled(name, table).map(|table| folded("The values as a table", table));
        Some(element("div").child(figure).children(table).into())
    }

    /// Appends pieces side by side, as many as the window is wide.
    pub(super) fn grid(&mut self, pieces: Vec<Html>) {
        if !pieces.is_empty() {
            self.add(element("div").class("grid-of").children(pieces));
        }
    }

    /// Keeps a CSV file and returns its file name, which begins with the section's id.
    pub(super) fn file(&mut self, name: impl Display, content: String) -> String {
        let stem = file_stem(&format!("{} {name}", self.id));
        let names = std::iter::once(stem.clone()).chain((2..).map(|number| format!("{stem}-{number}")));
        let name = names.map(|name| format!("{name}.csv")).find(|name| !self.files.contains_key(name));
        let name = name.expect("numbers do not end");
        self.files.insert(name.clone(), content);
        name
    }

    /// Whether nothing was added.
    pub(super) fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    fn html(&self) -> Element {
        let heading = element("h2").attribute("id", self.id).text(self.title);
        element("section").attribute("aria-labelledby", self.id).child(heading).children(self.body.iter().cloned())
    }
}

/// Markup that is shown when its summary is chosen.
pub(super) fn folded(summary: impl Display, content: Html) -> Element {
    element("details").child(element("summary").text(summary)).child(content)
}

/// Letters, digits and hyphens: what is safe as a file name and in a link.
fn file_stem(name: &str) -> String {
    let plain = |character: char| if character.is_ascii_alphanumeric() { character.to_ascii_lowercase() } else { '-' };
    let mapped: String = name.chars().map(plain).collect();
    let words: Vec<&str> = mapped.split('-').filter(|word| !word.is_empty()).collect();
    words.join("-")
}

/// Writes `index.html` and every section's CSV files into `folder`.
pub(super) fn write(folder: &Path, title: &str, front: Section, sections: &[Section]) -> Result<()> {
    for (name, content) in sections.iter().chain([&front]).flat_map(|section| &section.files) {
        write_text(&folder.join(name), content)?;
    }
    write_text(&folder.join("index.html"), &document(title, front, sections))
}

fn document(title: &str, front: Section, sections: &[Section]) -> String {
    let policy = element("meta").attribute("http-equiv", "Content-Security-Policy").attribute("content", POLICY);
    let viewport =
        element("meta").attribute("name", "viewport").attribute("content", "width=device-width, initial-scale=1");
    let schemes = element("meta").attribute("name", "color-scheme").attribute("content", "light dark");
    let head = element("head").child(element("meta").attribute("charset", "utf-8")).child(policy);
    let head = head.child(viewport).child(schemes).child(element("title").text(title)).child(Html::style(STYLE));
    let entries = sections.iter().map(|section| {
        element("li").child(element("a").attribute("href", format!("#{}", section.id)).text(section.title))
    });
    let contents = element("nav").attribute("aria-label", "Contents").child(element("ol").children(entries));
    let header = element("header").child(element("h1").text(title)).children(front.body);
    let main = element("main").child(header).child(contents).children(sections.iter().map(Section::html));
    let page: Html = element("html").attribute("lang", "en").child(head).child(element("body").child(main)).into();
    format!("<!DOCTYPE html>\n{}\n", page.as_str())
}

fn write_text(path: &Path, text: &str) -> Result<()> {
    write_whole(path, |output| output.write_all(text.as_bytes()).map_err(Error::io(path)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::table::Cell;

    #[test]
    fn file_names_are_plain_and_differ() {
        let mut section = Section::new("x", "X");
        assert_eq!(section.file("nDCG@10 of ../../etc", String::new()), "x-ndcg-10-of-etc.csv");
        assert_eq!(section.file("nDCG 10 of etc", String::new()), "x-ndcg-10-of-etc-2.csv");
    }

    #[test]
    fn a_page_holds_its_policy_style_and_files() {
        let folder = tempfile::tempdir().unwrap();
        let mut table = Table::new("Counts", ["What", "Count"]);
        table.push(vec![Cell::text("queries"), Cell::count(3)]);
        let mut section = Section::new("counts", "Counts");
        section.table("stages", &table);
        write(folder.path(), "A <b> page", Section::default(), &[section]).unwrap();
        let page = std::fs::read_to_string(folder.path().join("index.html")).unwrap();
        assert!(page.starts_with("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta http-equiv"));
        assert!(page.contains("default-src &#39;none&#39;; style-src &#39;unsafe-inline&#39;; img-src data:"));
        assert!(page.contains("<h1>A &lt;b&gt; page</h1>") && page.contains("href=\"#counts\""));
        assert_eq!(
            std::fs::read_to_string(folder.path().join("counts-stages.csv")).unwrap(),
            "What,Count\nqueries,3\n"
        );
    }
}
