//! Tables: the same rows as HTML for people and as CSV for programs.

use std::fmt::Display;

use crate::html::{Element, Html, element};
pub(super) use crate::html::{grouped, percent};

/// One field: what is shown, and the plain value that goes to the CSV file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cell {
    shown: String,
    value: String,
    is_number: bool,
    beside: String,
    marks: String,
    language: Option<String>,
    is_strong: bool,
}

impl Cell {
    fn new(shown: String, value: String, is_number: bool) -> Self {
        let (beside, marks) = (String::new(), String::new());
        Self { shown, value, is_number, beside, marks, language: None, is_strong: false }
    }

    /// Words.
    pub(super) fn text(text: impl Display) -> Self {
        Self::new(text.to_string(), text.to_string(), false)
    }

    /// A whole number.
    pub(super) fn count(count: u64) -> Self {
        Self::new(grouped(count), count.to_string(), true)
    }

    /// A measured value with so many decimals.
    pub(super) fn number(value: f64, decimals: usize) -> Self {
        Self::new(minus(&format!("{value:.decimals$}")), value.to_string(), true)
    }

    /// A share, as per cent; the plain value stays a share.
    pub(super) fn percent(share: f64) -> Self {
        Self::new(percent(share), share.to_string(), true)
    }

    /// A share of nothing is missing.
    pub(super) fn share(part: u64, whole: u64) -> Self {
        if whole == 0 { Self::missing() } else { Self::percent(part as f64 / whole as f64) }
    }

    /// A number that is not there.
    pub(super) fn missing() -> Self {
        Self::new("–".to_owned(), String::new(), true)
    }

    /// A shown form and the plain value behind it.
    pub(super) fn shown(shown: impl Display, value: impl Display) -> Self {
        Self::new(shown.to_string(), value.to_string(), true)
    }

    /// Adds small print behind the value, such as its spread; it does not go to the CSV file.
    #[must_use]
    pub(super) fn beside(self, beside: impl Display) -> Self {
        Self { beside: beside.to_string(), ..self }
    }

    /// Adds marks of significance; they do not go to the CSV file.
    #[must_use]
    pub(super) fn marks(self, marks: impl Display) -> Self {
        Self { marks: marks.to_string(), ..self }
    }

    /// Says that the words are of a language of the data.
    #[must_use]
    pub(super) fn foreign(self, language: impl Display) -> Self {
        Self { language: Some(language.to_string()), ..self }
    }

    /// Stresses the value, if it deserves it.
    #[must_use]
    pub(super) fn strong(self, is_strong: bool) -> Self {
        Self { is_strong, ..self }
    }

    /// The cell; in a column where some values have marks all leave room for them, so that digits stand under digits.
    fn html(&self, tag: &'static str, is_marked: bool) -> Element {
        let cell = match (self.is_number, is_marked) {
            (true, true) => element(tag).class("number marked"),
            (true, false) => element(tag).class("number"),
            (false, _) => element(tag),
        };
        let cell = match &self.language {
            Some(language) => cell.child(element("bdi").attribute("lang", language).text(&self.shown)),
            None if self.is_strong => cell.child(element("strong").text(&self.shown)),
            None => cell.text(&self.shown),
        };
        let cell = if is_marked { cell.child(element("sup").text(&self.marks)) } else { cell };
        if self.beside.is_empty() { cell } else { cell.text(" ").child(element("small").text(&self.beside)) }
    }

    /// The value for the CSV file. A spreadsheet must not take words of the data for a formula.
    fn csv(&self) -> String {
        let is_formula = !self.is_number && self.value.starts_with(['=', '+', '-', '@', '\t', '\r']);
        quoted(&if is_formula { format!("'{}", self.value) } else { self.value.clone() })
    }
}

/// Rows under a caption. The first column names the row.
#[derive(Debug, Clone)]
pub(super) struct Table {
    caption: String,
    columns: Vec<String>,
    rows: Vec<Vec<Cell>>,
    total: Option<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    pub(super) fn new<T: Display>(caption: impl Display, columns: impl IntoIterator<Item = T>) -> Self {
        let columns = columns.into_iter().map(|column| column.to_string()).collect();
        Self { caption: caption.to_string(), columns, rows: Vec::new(), total: None }
    }

    /// Adds a row.
    pub(super) fn push(&mut self, row: Vec<Cell>) {
        debug_assert_eq!(row.len(), self.columns.len(), "{}", self.caption);
        self.rows.push(row);
    }

    /// Adds the last row, which sums up the others.
    pub(super) fn total(&mut self, row: Vec<Cell>) {
        debug_assert_eq!(row.len(), self.columns.len(), "{}", self.caption);
        self.total = Some(row);
    }

    /// Whether there is no row.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table in a box that scrolls sideways on narrow screens, reachable by keyboard; `file` is its CSV file.
    pub(super) fn html(&self, file: &str) -> Html {
        let is_number = |column: usize| column > 0 && self.rows.iter().any(|row| row[column].is_number);
        let rows = || self.rows.iter().chain(&self.total);
        let has_marks = |column: usize| rows().any(|row| !row[column].marks.is_empty());
        let marked: Vec<bool> = (0..self.columns.len()).map(has_marks).collect();
        let header = self.columns.iter().enumerate().map(|(column, title)| {
            let cell = element("th").attribute("scope", "col").text(title);
            if is_number(column) { cell.class("number") } else { cell }
        });
        let csv = element("a").class("csv").attribute("href", file).attribute("download", "").text("CSV");
        let caption = element("caption").text(&self.caption).text(" ").child(csv);
        let table = element("table").child(caption).child(element("thead").child(element("tr").children(header)));
        let table = table.child(element("tbody").children(self.rows.iter().map(|row| html_row(row, &marked))));
        let table = match &self.total {
            Some(total) => table.child(element("tfoot").child(html_row(total, &marked))),
            None => table,
        };
        let region = element("div").class("scroll").attribute("role", "region").attribute("tabindex", "0");
        region.attribute("aria-label", &self.caption).child(table).into()
    }

    /// The table as RFC 4180 has it, with a header.
    pub(super) fn csv(&self) -> String {
        let header = self.columns.iter().map(|title| quoted(title)).collect();
        let rows = self.rows.iter().chain(&self.total).map(|row| row.iter().map(Cell::csv).collect());
        let lines: Vec<String> =
            std::iter::once(header).chain(rows).map(|fields: Vec<String>| fields.join(",")).collect();
        lines.join("\n") + "\n"
    }
}

fn html_row(cells: &[Cell], marked: &[bool]) -> Element {
    let mut cells = cells.iter().zip(marked);
    let name = cells.next().map(|(name, is_marked)| name.html("th", *is_marked).attribute("scope", "row"));
    element("tr").children(name).children(cells.map(|(cell, is_marked)| cell.html("td", *is_marked)))
}

fn quoted(field: &str) -> String {
    if field.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

/// A number with its sign: +, or the minus of typography.
pub(super) fn signed(value: f64, decimals: usize) -> String {
    minus(&format!("{value:+.decimals$}"))
}

/// Puts the minus of typography for the hyphen.
pub(super) fn minus(number: &str) -> String {
    number.replace('-', "−")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new("Verdicts", ["Language", "Negative", "Share"]);
        table.push(vec![
            Cell::text("=SUM(A1), \"x\""),
            Cell::count(12_345),
            Cell::share(1, 4).marks("†").beside("± 0.1"),
        ]);
        table.total(vec![Cell::text("All"), Cell::missing(), Cell::share(0, 0)]);
        table
    }

    #[test]
    fn a_table_names_its_rows_and_columns() {
        insta::assert_snapshot!(table().html("verdicts.csv").as_str().replace("<t", "\n<t"), @r#"
        <div class="scroll" role="region" tabindex="0" aria-label="Verdicts">
        <table><caption>Verdicts <a class="csv" href="verdicts.csv" download="">CSV</a></caption>
        <thead>
        <tr>
        <th scope="col">Language</th>
        <th scope="col" class="number">Negative</th>
        <th scope="col" class="number">Share</th></tr></thead>
        <tbody>
        <tr>
        <th scope="row">=SUM(A1), &quot;x&quot;</th>
        <td class="number">12,345</td>
        <td class="number marked">25.0 %<sup>†</sup> <small>± 0.1</small></td></tr></tbody>
        <tfoot>
        <tr>
        <th scope="row">All</th>
        <td class="number">–</td>
        <td class="number marked">–<sup></sup></td></tr></tfoot></table></div>
        "#);
    }

    #[test]
    fn csv_quotes_and_defuses_formulas() {
        let expected = "Language,Negative,Share\n\"'=SUM(A1), \"\"x\"\"\",12345,0.25\nAll,,\n";
        assert_eq!(table().csv(), expected);
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(["7", "1,000", "12,345,678"], [7, 1000, 12_345_678].map(grouped).each_ref().map(String::as_str));
        assert_eq!([signed(1.25, 1), signed(-0.04, 2), signed(0.0, 1)], ["+1.2", "−0.04", "+0.0"]);
    }
}
