//! A comparison as text, Markdown, LaTeX, CSV and JSON.
//!
//! Values stand in percent. In every table the last columns' marks are: `†` the uncorrected t-test is significant, `*`
//! the randomisation test is significant after Holm's correction over the languages.

use std::fmt::Write;

use super::compare::{Comparison, Difference, MeasureComparison, SeedMean, SystemComparison, SystemValues};
use super::{Judgements, pool};

/// Title of the table of what nobody judged.
const UNJUDGED: &str = "Unjudged passages among the first 10, mean over queries";

/// A table of cells; the first row is the head.
type Grid = Vec<Vec<String>>;

impl Comparison {
    /// Tables aligned by spaces, for a terminal.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for by in &self.measures {
            let _ = write!(text, "{}\n\n{}\n", by.title(), aligned(&self.values_grid(by, plain)));
            for system in &by.systems {
                let _ = write!(text, "{}\n\n{}\n", self.versus(system), aligned(&self.tests_grid(system)));
            }
        }
        let _ = write!(text, "{UNJUDGED}\n\n{}\n", aligned(&self.unjudged_grid()));
        self.notes().iter().for_each(|note| text.push_str(&format!("{note}\n")));
        text
    }

    /// The values by the first measure, and of every system the difference of the macro mean: the end of a run.
    pub fn to_summary(&self) -> String {
        let mut text = String::new();
        let first = self.measures.first().map(|by| by.measure);
        for by in self.measures.iter().filter(|by| Some(by.measure) == first) {
            let _ = write!(text, "{}\n\n{}\n", by.title(), aligned(&self.values_grid(by, plain)));
            for system in &by.systems {
                let difference = &system.macro_mean;
                let (shift, p) = (signed(difference.difference), probability(difference.p_randomisation));
                let _ = writeln!(text, "{}; macro {shift} {}, p {p}", self.versus(system), interval(difference));
            }
            text.push('\n');
        }
        text + &pool::label(&self.pools).map_or_else(String::new, |label| label + "\n")
            + &self.legend_of_values()
            + "\n"
    }

    /// The same tables in Markdown.
    pub fn to_markdown(&self) -> String {
        let mut text = String::new();
        for by in &self.measures {
            let _ = write!(text, "## {}\n\n{}\n", by.title(), markdown(&self.values_grid(by, plain)));
            for system in &by.systems {
                let title = escape_markdown(&self.versus(system));
                let _ = write!(text, "### {title}\n\n{}\n", markdown(&self.tests_grid(system)));
            }
        }
        let _ = write!(text, "## {UNJUDGED}\n\n{}\n", markdown(&self.unjudged_grid()));
        text + &self.notes().join("\n\n").replace('*', "\\*") + "\n"
    }

    /// One `tabular` per measure with the values of all systems, for `booktabs`.
    pub fn to_latex(&self) -> String {
        let mut text = String::new();
        for by in &self.measures {
            let grid = self.values_grid(by, latex_marked);
            let columns = grid[0].len() - 1;
            let _ = write!(text, "% {}\n\\begin{{tabular}}{{l{}}}\n\\toprule\n", by.title(), "r".repeat(columns));
            for (row, cells) in grid.iter().enumerate() {
                let rule = if row == 0 || row == 1 { "\n\\midrule" } else { "" };
                let _ = writeln!(text, "{} & {} \\\\{rule}", escape_latex(&cells[0]), cells[1..].join(" & "));
            }
            text.push_str("\\bottomrule\n\\end{tabular}\n\n");
        }
        self.notes().iter().for_each(|note| text.push_str(&format!("% {note}\n")));
        text
    }

    /// Everything, as in `comparison.json`.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a comparison has only strings as keys") + "\n"
    }

    /// One line per measure, system and language (or `macro`, `micro`), all digits; the values of the baseline stand
    /// beside those of each system.
    pub fn to_csv(&self) -> String {
        let mut text = String::from(
            "measure,judgements,system,seeds,language,queries,value,spread,baseline,baseline_spread,difference,\
             low,high,p_t,p_randomisation,p_holm,detectable,unjudged_at_10\n",
        );
        for by in &self.measures {
            for system in &by.systems {
                let unjudged = self.unjudged.iter().find(|unjudged| unjudged.name == system.values.name);
                for (language, difference) in &system.languages {
                    let values = (Some(system.values.languages[language]), Some(by.baseline.languages[language]));
                    let unjudged = unjudged.and_then(|unjudged| unjudged.languages.get(language));
                    text.push_str(&csv_line(by, system, language.as_str(), values, difference, unjudged));
                }
                let values = (Some(system.values.macro_mean), Some(by.baseline.macro_mean));
                let unjudged = unjudged.map(|unjudged| &unjudged.macro_mean);
                text.push_str(&csv_line(by, system, "macro", values, &system.macro_mean, unjudged));
                text.push_str(&csv_line(by, system, "micro", (None, None), &system.micro, None));
            }
        }
        text
    }

    /// Systems down, languages across, the macro mean last.
    fn values_grid(&self, by: &MeasureComparison, show: fn(SeedMean, &str) -> String) -> Grid {
        let mut head = vec!["system".to_owned()];
        head.extend(by.queries.keys().map(ToString::to_string));
        head.push("macro".to_owned());
        let row = |values: &SystemValues, tests: Option<&SystemComparison>| {
            let mut cells = vec![values.name.clone()];
            for (language, value) in &values.languages {
                let marks = tests.map_or(String::new(), |tests| self.marks(&tests.languages[language]));
                cells.push(show(*value, &marks));
            }
            let marks = tests.map_or("", |tests| self.macro_mark(tests));
            cells.push(show(values.macro_mean, marks));
            cells
        };
        let mut grid = vec![head, row(&by.baseline, None)];
        grid.extend(by.systems.iter().map(|system| row(&system.values, Some(system))));
        grid
    }

    /// Systems down, languages across, the macro mean last: unjudged passages among the first 10.
    fn unjudged_grid(&self) -> Grid {
        let mut head = vec!["system".to_owned()];
        head.extend(self.pools.keys().map(ToString::to_string));
        head.push("macro".to_owned());
        let mut grid = vec![head];
        for unjudged in &self.unjudged {
            let numbers = unjudged.languages.values().chain([&unjudged.macro_mean]);
            let cells = std::iter::once(unjudged.name.clone()).chain(numbers.map(|number| format!("{number:.1}")));
            grid.push(cells.collect());
        }
        grid
    }

    /// What must be known to read the tables.
    fn notes(&self) -> Vec<String> {
        pool::label(&self.pools).into_iter().chain([self.legend()]).collect()
    }

    /// Languages down, then macro and micro; difference, interval and tests across.
    fn tests_grid(&self, system: &SystemComparison) -> Grid {
        let head =
            ["", "queries", "value", "difference", "interval", "p (t)", "p (rand.)", "p (Holm)", "detectable", ""];
        let mut grid = vec![head.map(str::to_owned).to_vec()];
        for (language, difference) in &system.languages {
            grid.push(self.tests_row(language.as_str(), Some(system.values.languages[language]), difference));
        }
        let mut macro_row = self.tests_row("macro", Some(system.values.macro_mean), &system.macro_mean);
        if let Some(marks) = macro_row.last_mut() {
            self.macro_mark(system).clone_into(marks);
        }
        grid.push(macro_row);
        grid.push(self.tests_row("micro", None, &system.micro));
        grid
    }

    fn tests_row(&self, name: &str, value: Option<SeedMean>, difference: &Difference) -> Vec<String> {
        vec![
            name.to_owned(),
            difference.queries.to_string(),
            value.map_or_else(String::new, |value| plain(value, "")),
            signed(difference.difference),
            interval(difference),
            difference.p_t.map_or_else(nothing, probability),
            probability(difference.p_randomisation),
            difference.p_holm.map_or_else(nothing, probability),
            difference.detectable.map_or_else(nothing, |shift| format!("{:.2}", 100.0 * shift)),
            self.marks(difference),
        ]
    }

    fn marks(&self, difference: &Difference) -> String {
        let dagger = if difference.daggered(self.config.alpha) { "†" } else { "" };
        let star = if difference.holds(self.config.alpha) { "*" } else { "" };
        format!("{dagger}{star}")
    }

    fn macro_mark(&self, system: &SystemComparison) -> &'static str {
        if system.macro_mean.p_randomisation < self.config.alpha { "*" } else { "" }
    }

    fn versus(&self, system: &SystemComparison) -> String {
        let seeds = match system.values.seeds {
            1 => String::new(),
            seeds => format!(" (mean of {seeds} seeds ± standard deviation)"),
        };
        let (name, languages) = (&system.values.name, system.languages.len());
        let (better, worse) = (system.better, system.worse);
        format!(
            "{name}{seeds} against {}: better in {better}, worse in {worse} of {languages} languages after Holm's correction",
            self.baseline
        )
    }

    fn legend_of_values(&self) -> String {
        let (alpha, confidence) = (self.config.alpha, 100.0 * self.config.confidence);
        format!(
            "Values and differences in percent; intervals of {confidence} % by bootstrap within languages. \
             † p < {alpha} in a paired two-sided t-test, uncorrected. \
             * p < {alpha} in a paired randomisation test, after Holm's correction over the languages; of the macro \
             mean, signs flipped within languages."
        )
    }

    fn legend(&self) -> String {
        let (values, alpha, power) = (self.legend_of_values(), self.config.alpha, 100.0 * self.config.power);
        format!(
            "{values} \"Better\" and \"worse\" count *; micro pools the queries of all languages. Detectable: the \
             smallest true difference that a t-test at {alpha} finds {power} % of the time with these queries."
        )
    }
}

impl MeasureComparison {
    fn title(&self) -> String {
        match self.judgements {
            Judgements::Qrels => self.measure.to_string(),
            Judgements::Truth => format!("{} against the hidden truth", self.measure),
        }
    }
}

fn nothing() -> String {
    "–".to_owned()
}

/// A value with its marks, and the deviation of its seeds where there are several.
fn plain(mean: SeedMean, marks: &str) -> String {
    let spread = mean.spread.map_or_else(String::new, |spread| format!(" ± {:.1}", 100.0 * spread));
    format!("{:.1}{marks}{spread}", 100.0 * mean.value)
}

fn latex_marked(mean: SeedMean, marks: &str) -> String {
    let above = marks.replace('†', "\\dagger").replace('*', "\\ast");
    let above = if above.is_empty() { above } else { format!("^{{{above}}}") };
    let below = mean.spread.map_or_else(String::new, |spread| format!("_{{\\pm {:.1}}}", 100.0 * spread));
    let value = format!("{:.1}", 100.0 * mean.value);
    if above.is_empty() && below.is_empty() { value } else { format!("{value}${below}{above}$") }
}

fn signed(difference: f64) -> String {
    let text = format!("{:+.2}", 100.0 * difference);
    if text == "-0.00" { "+0.00".to_owned() } else { text }
}

fn interval(difference: &Difference) -> String {
    difference.interval.map_or_else(nothing, |(low, high)| format!("[{}, {}]", signed(low), signed(high)))
}

fn probability(p: f64) -> String {
    if p < 0.0001 { "<.0001".to_owned() } else { format!("{p:.4}") }
}

pub(super) fn aligned(grid: &Grid) -> String {
    let width = |column: usize| grid.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..grid[0].len()).map(width).collect();
    let mut text = String::new();
    for row in grid {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn markdown(grid: &Grid) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let escaped = |row: &Vec<String>| row.iter().map(|cell| escape_markdown(cell)).collect::<Vec<_>>();
    let rule = (0..grid[0].len()).map(|column| if column == 0 { "---" } else { "---:" }.to_owned());
    let mut text = line(&escaped(&grid[0])) + &line(&rule.collect::<Vec<_>>());
    for row in &grid[1..] {
        text.push_str(&line(&escaped(row)));
    }
    text
}

fn escape_markdown(cell: &str) -> String {
    let mut text = String::new();
    for character in cell.chars() {
        if matches!(character, '|' | '*' | '_' | '<' | '`' | '\\' | '[' | ']') {
            text.push('\\');
        }
        text.push(if character == '\n' { ' ' } else { character });
    }
    text
}

fn escape_latex(cell: &str) -> String {
    let mut text = String::new();
    for character in cell.chars() {
        match character {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => text.extend(['\\', character]),
            '\\' => text.push_str("\\textbackslash{}"),
            '~' => text.push_str("\\textasciitilde{}"),
            '^' => text.push_str("\\textasciicircum{}"),
            other => text.push(other),
        }
    }
    text
}

fn csv_line(
    by: &MeasureComparison,
    system: &SystemComparison,
    language: &str,
    values: (Option<SeedMean>, Option<SeedMean>),
    difference: &Difference,
    unjudged: Option<&f64>,
) -> String {
    let number = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
    let mean = |mean: Option<SeedMean>| [number(mean.map(|m| m.value)), number(mean.and_then(|m| m.spread))];
    let judgements = if by.judgements == Judgements::Truth { "truth" } else { "qrels" };
    let mut cells = vec![by.measure.to_string(), judgements.to_owned(), quoted(&system.values.name)];
    cells.extend([system.values.seeds.to_string(), language.to_owned(), difference.queries.to_string()]);
    cells.extend(mean(values.0));
    cells.extend(mean(values.1));
    cells.extend(
        [
            Some(difference.difference),
            difference.interval.map(|(low, _)| low),
            difference.interval.map(|(_, high)| high),
            difference.p_t,
            Some(difference.p_randomisation),
            difference.p_holm,
            difference.detectable,
            unjudged.copied(),
        ]
        .map(number),
    );
    cells.join(",") + "\n"
}

fn quoted(cell: &str) -> String {
    if cell.contains(['"', ',', '\n']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.to_owned() }
}
