//! Quality per language: every system beside BM25 and the untouched model, and the tests of the differences.

use super::chart::{Interval, intervals};
use super::front::{HEADLINE, system_named};
use super::material::{Material, language_name};
use super::page::{Section, folded};
use super::table::{Cell, Table, minus, signed};
use crate::corpus::Language;
use crate::dataset::Split;
use crate::evaluate::compare::{Difference, MeasureComparison, SeedMean, SystemComparison};
use crate::evaluate::{Judgements, Measure, pool};
use crate::html::element;

/// The measures that get tables; all others are in the CSV file.
const SHOWN: [Measure; 2] = [HEADLINE, Measure::Recall(100)];

/// The section.
pub(super) fn quality(material: &Material<'_>) -> Section {
    let mut section = Section::new("quality", "Quality per language");
    section.say(legend(material));
    if let Some(label) = pool::label(&material.comparison.pools) {
        section.say(label);
    }
    for judgements in [Judgements::Qrels, Judgements::Truth] {
        let shown = |by: &&MeasureComparison| by.judgements == judgements && SHOWN.contains(&by.measure);
        for by in material.comparison.measures.iter().filter(shown).filter(|by| !by.queries.is_empty()) {
            section.heading(title(by));
            section.table(title(by), &values(material, by));
            if by.measure == HEADLINE {
                tests(material, by, &mut section);
            }
        }
        absent(material, judgements, &mut section);
    }
    section.heading("Unjudged passages among the first 10");
    section.table("unjudged", &unjudged(material));
    let file = section.file("all measures", material.comparison.to_csv());
    let link = element("a").attribute("href", file).attribute("download", "").text("one CSV file");
    section.add(element("p").text("All measures, systems and languages with all digits are in ").child(link).text("."));
    section
}

fn legend(material: &Material<'_>) -> String {
    let config = &material.comparison.config;
    let (alpha, confidence) = (config.alpha, 100.0 * config.confidence);
    format!(
        "Scored on the {} queries; values and differences are in points of a hundred. Seeds of an arm are averaged, ± is \
         their standard deviation. Marks compare with “{}”: † p < {alpha} in a paired two-sided t-test, uncorrected; \
         * p < {alpha} in a paired randomisation test after Holm’s correction over the languages (of the macro mean: \
         signs flipped within languages). Intervals cover {confidence} %, by bootstrap within languages; a filled dot is one whose interval leaves 0 out.",
        material.comparison.split.map_or("judged", Split::name),
        material.comparison.baseline,
    )
}

/// Systems down, languages across, the macro mean last.
fn unjudged(material: &Material<'_>) -> Table {
    let comparison = &material.comparison;
    let languages = comparison.pools.keys().map(language_name);
    let caption = "Passages among the first 10 that nobody judged, mean over the queries with a ranking; they count as not \
                   relevant, which may be unfair to systems that find other passages than those behind the labels";
    let columns = std::iter::once("System".to_owned()).chain(languages).chain(["Macro mean".to_owned()]);
    let mut table = Table::new(caption, columns);
    for system in &comparison.unjudged {
        let numbers = system.languages.values().chain([&system.macro_mean]);
        table.push(std::iter::once(Cell::text(&system.name)).chain(numbers.map(|n| Cell::number(*n, 1))).collect());
    }
    table
}

/// Says which shown measure was not computed.
fn absent(material: &Material<'_>, judgements: Judgements, section: &mut Section) {
    let comparison = &material.comparison;
    let has = |measure| {
        comparison
            .measures
            .iter()
            .any(|by| by.judgements == judgements && by.measure == measure && !by.queries.is_empty())
    };
    if judgements == Judgements::Qrels && !has(Measure::Recall(100)) {
        section.say("Recall@100 was not computed: it says nothing where 100 is over a quarter of the corpus.");
    }
}

fn title(by: &MeasureComparison) -> String {
    match by.judgements {
        Judgements::Qrels => by.measure.to_string(),
        Judgements::Truth => format!("{} against the hidden truth", by.measure),
    }
}

/// Languages down, systems across, the macro mean last; the best of a row is stressed.
fn values(material: &Material<'_>, by: &MeasureComparison) -> Table {
    let systems = in_order(material, by);
    let names = systems.iter().map(|column| column.name().to_owned());
    let caption = format!("{}, baselines first; the highest value of a row is bold", title(by));
    let mut table = Table::new(caption, ["Language".to_owned(), "Queries".to_owned()].into_iter().chain(names));
    for (language, queries) in &by.queries {
        let mut row = vec![Cell::text(language_name(language)), Cell::count(*queries as u64)];
        row.extend(value_cells(material, &systems, Some(language)));
        table.push(row);
    }
    let queries: usize = by.queries.values().sum();
    let mut row = vec![Cell::text("Macro mean"), Cell::count(queries as u64)];
    row.extend(value_cells(material, &systems, None));
    table.total(row);
    table
}

fn value_cells(material: &Material<'_>, systems: &[Column<'_>], language: Option<&Language>) -> Vec<Cell> {
    let shown = |column: &Column<'_>| column.value(language).map(|mean| (1000.0 * mean.value).round() as i64);
    let best = systems.iter().filter_map(shown).max();
    let cell = |column: &Column<'_>| {
        let Some(mean) = column.value(language) else { return Cell::missing() };
        let cell = Cell::shown(format!("{:.1}", 100.0 * mean.value), mean.value).strong(shown(column) == best);
        let cell = cell.marks(column.marks(language, material.comparison.config.alpha));
        match mean.spread {
            Some(spread) => cell.beside(format!("± {:.1}", 100.0 * spread)),
            None => cell,
        }
    };
    systems.iter().map(cell).collect()
}

/// A column of the table: the baseline, or a system beside it.
enum Column<'a> {
    Baseline(&'a MeasureComparison),
    System(&'a SystemComparison),
}

impl Column<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Baseline(by) => &by.baseline.name,
            Self::System(system) => &system.values.name,
        }
    }

    /// The value of a language, or the macro mean.
    fn value(&self, language: Option<&Language>) -> Option<SeedMean> {
        let values = match self {
            Self::Baseline(by) => &by.baseline,
            Self::System(system) => &system.values,
        };
        match language {
            Some(language) => values.languages.get(language).copied(),
            None => Some(values.macro_mean),
        }
    }

    fn marks(&self, language: Option<&Language>, alpha: f64) -> String {
        let Self::System(system) = self else { return String::new() };
        match language.map(|language| system.languages.get(language)) {
            Some(Some(difference)) => marks(difference, alpha),
            None if system.macro_mean.p_randomisation < alpha => "*".to_owned(),
            _ => String::new(),
        }
    }
}

fn marks(difference: &Difference, alpha: f64) -> String {
    let dagger = if difference.daggered(alpha) { "†" } else { "" };
    let star = if difference.holds(alpha) { "*" } else { "" };
    format!("{dagger}{star}")
}

/// Lexical and untouched baselines first, then the arms in the order of the comparison.
fn in_order<'a>(material: &Material<'_>, by: &'a MeasureComparison) -> Vec<Column<'a>> {
    let baselines = &material.experiment.baselines;
    let is_baseline = |system: &SystemComparison| baselines.iter().any(|(name, _)| *name == system.values.name);
    let (before, after): (Vec<_>, Vec<_>) = by.systems.iter().partition(|system| is_baseline(system));
    let before = before.into_iter().map(Column::System).chain([Column::Baseline(by)]);
    before.chain(after.into_iter().map(Column::System)).collect()
}

/// For every arm a figure of differences and the table behind it, side by side.
fn tests(material: &Material<'_>, by: &MeasureComparison, section: &mut Section) {
    let mut names: Vec<&str> = material.experiment.arms.iter().map(|arm| arm.name.as_str()).collect();
    names.dedup();
    let mut pieces = Vec::new();
    for system in names.into_iter().filter_map(|name| system_named(by, name)) {
        let title = format!("{} against {}: {}", system.values.name, material.comparison.baseline, title(by));
        let figure = intervals(&title, &format!("Difference in {}, points", by.measure), &rows(system));
        let table = section.tabled(&title, &differences(material, &title, system));
        let table = table.map(|table| folded("Differences, intervals and tests as a table", table));
        pieces.push(element("div").children(figure).children(table).into());
    }
    section.grid(pieces);
}

fn rows(system: &SystemComparison) -> Vec<Interval> {
    let row = |name: String, difference: &Difference, is_total| {
        let mean = 100.0 * difference.difference;
        let (low, high) = difference.interval.unwrap_or((difference.difference, difference.difference));
        Interval { name, mean, bounds: (100.0 * low, 100.0 * high), is_total }
    };
    let languages = system.languages.iter();
    let mut rows: Vec<Interval> =
        languages.map(|(language, found)| row(language_name(language), found, false)).collect();
    rows.push(row("Macro mean".to_owned(), &system.macro_mean, true));
    rows
}

fn differences(material: &Material<'_>, title: &str, system: &SystemComparison) -> Table {
    let columns = ["Language", "Difference", "Interval", "p (t-test)", "p (randomisation)", "p (Holm)", "Detectable"];
    let caption = format!("{title}. Detectable: the smallest true difference that these queries would likely show");
    let mut table = Table::new(caption, columns);
    let alpha = material.comparison.config.alpha;
    for (language, difference) in &system.languages {
        table.push(difference_row(&language_name(language), difference, &marks(difference, alpha)));
    }
    let star = if system.macro_mean.p_randomisation < alpha { "*" } else { "" };
    table.push(difference_row("All queries in one pool (micro)", &system.micro, ""));
    table.total(difference_row("Macro mean", &system.macro_mean, star));
    table
}

fn difference_row(name: &str, difference: &Difference, marks: &str) -> Vec<Cell> {
    let p = |p: Option<f64>| p.map_or_else(Cell::missing, |p| Cell::shown(probability(p), p));
    let interval = difference.interval.map_or_else(Cell::missing, |(low, high)| {
        Cell::shown(minus(&format!("[{:.1}, {:.1}]", 100.0 * low, 100.0 * high)), format!("{low} {high}"))
    });
    vec![
        Cell::text(name),
        Cell::shown(signed(100.0 * difference.difference, 1), difference.difference).marks(marks),
        interval,
        p(difference.p_t),
        p(Some(difference.p_randomisation)),
        p(difference.p_holm),
        difference.detectable.map_or_else(Cell::missing, |shift| Cell::shown(format!("{:.1}", 100.0 * shift), shift)),
    ]
}

fn probability(p: f64) -> String {
    if p < 0.001 { "< 0.001".to_owned() } else { format!("{p:.3}") }
}
