//! The arms side by side: what each sets, what its negatives are, what it reaches; and swept knobs against quality.

use std::collections::{BTreeMap, BTreeSet};

use super::Arm;
use super::chart::{Chart, Line};
use super::front::{HEADLINE, system_named};
use super::material::{Material, lines_of};
use super::page::Section;
use super::settings::Differences;
use super::table::{Cell, Table, signed};
use crate::error::{Error, Result};
use crate::evaluate::compare::{MeasureComparison, SeedMean};
use crate::evaluate::{Judgements, Measure};
use crate::mine::QueryCandidates;
use crate::mine::filter::Yield;
use crate::sample::SampleConfig;

/// Fewer values of a knob are no curve.
const LEAST_VALUES: usize = 3;

/// The section; empty for a single arm.
pub(super) fn arms(material: &Material<'_>) -> Result<Section> {
    let mut section = Section::new("arms", "The arms side by side");
    let arms = first_seeds(material);
    if arms.len() < 2 {
        return Ok(section);
    }
    let differences = Differences::between(&arms);
    section.table("results", &results(material, &arms));
    section.table("settings", &settings(&arms, &differences));
    section.table("miners", &miners(material, &arms)?);
    let figures = sweeps(material, &arms, &differences, &mut section);
    section.grid(figures);
    Ok(section)
}

/// One of every name, the first seed.
pub(super) fn first_seeds<'a>(material: &Material<'a>) -> Vec<&'a Arm> {
    let mut seen = BTreeSet::new();
    material.experiment.arms.iter().filter(|arm| seen.insert(arm.name.as_str())).collect()
}

/// The comparison by a measure against the qrels, if there is one.
pub(super) fn by_measure<'a>(material: &'a Material<'_>, measure: Measure) -> Option<&'a MeasureComparison> {
    let is_it = |by: &&MeasureComparison| by.measure == measure && by.judgements == Judgements::Qrels;
    material.comparison.measures.iter().filter(is_it).find(|by| !by.queries.is_empty())
}

fn macro_mean(by: &MeasureComparison, name: &str) -> Option<SeedMean> {
    if by.baseline.name == name {
        return Some(by.baseline.macro_mean);
    }
    system_named(by, name).map(|system| system.values.macro_mean)
}

/// A value in points of a hundred, with its spread over seeds.
pub(super) fn points(mean: Option<SeedMean>) -> Cell {
    let Some(mean) = mean else { return Cell::missing() };
    let cell = Cell::shown(format!("{:.1}", 100.0 * mean.value), mean.value);
    match mean.spread {
        Some(spread) => cell.beside(format!("± {:.1}", 100.0 * spread)),
        None => cell,
    }
}

/// Baselines, then arms: macro means, the difference from the baseline, and what an arm is trained on.
fn results(material: &Material<'_>, arms: &[&Arm]) -> Table {
    let (ndcg, recall) = (by_measure(material, HEADLINE), by_measure(material, Measure::Recall(100)));
    let difference = format!("Difference from {}", material.comparison.baseline);
    let columns = [
        "System",
        "Seeds",
        "nDCG@10",
        &difference,
        "Better in",
        "Worse in",
        "Recall@100",
        "Negatives a query",
        "Judged by a model",
    ];
    let caption = "Macro means in points of a hundred; * by signs flipped within languages. Better and worse: languages \
                   after Holm’s correction";
    let mut table = Table::new(caption, columns);
    let baselines = material.experiment.baselines.iter().map(|(name, _)| (name.as_str(), None));
    for (name, arm) in baselines.chain(arms.iter().map(|arm| (arm.name.as_str(), Some(*arm)))) {
        let mean = |by: Option<&MeasureComparison>| points(by.and_then(|by| macro_mean(by, name)));
        let system = ndcg.and_then(|by| system_named(by, name));
        let count = |count: Option<usize>| count.map_or_else(Cell::missing, |count| Cell::count(count as u64));
        let seeds = material.experiment.arms.iter().filter(|arm| arm.name == name).count().max(1);
        let mut row = vec![Cell::text(name), Cell::count(seeds as u64), mean(ndcg)];
        row.push(system.map_or_else(Cell::missing, |system| {
            let found = &system.macro_mean;
            let mark = if found.p_randomisation < material.comparison.config.alpha { "*" } else { "" };
            Cell::shown(signed(100.0 * found.difference, 1), found.difference).marks(mark)
        }));
        row.extend([count(system.map(|system| system.better)), count(system.map(|system| system.worse)), mean(recall)]);
        row.extend(trained_on(arm));
        table.push(row);
    }
    table
}

/// Negatives a query, and the share of them that a language model judged, as `sample` counted them.
fn trained_on(arm: Option<&Arm>) -> [Cell; 2] {
    let Some(examples) = arm.and_then(|arm| arm.artefacts.get("examples")) else {
        return [(); 2].map(|()| Cell::missing());
    };
    let summary = examples.summary();
    let negatives: u64 = summary.counts.iter().filter(|(name, _)| name.starts_with("negatives ")).map(|(_, n)| n).sum();
    let queries = summary.counts.get("train queries").copied().unwrap_or(0);
    let each = if queries == 0 { Cell::missing() } else { Cell::number(negatives as f64 / queries as f64, 1) };
    let judged = summary.values.get("share of negatives judged by a language model");
    [each, judged.map_or_else(Cell::missing, |share| Cell::percent(*share))]
}

fn settings(arms: &[&Arm], differences: &Differences) -> Table {
    let mut table = Table::new("What the arms set differently from one another", ["Arm", "Knobs"]);
    if !differences.names.is_empty() {
        for (place, arm) in arms.iter().enumerate() {
            table.push(vec![Cell::text(&arm.name), Cell::text(differences.line(place))]);
        }
    }
    table
}

/// What each arm's miner keeps of its candidates; no rows where all arms have the same miner and candidates.
fn miners(material: &Material<'_>, arms: &[&Arm]) -> Result<Table> {
    let columns = [
        "Arm",
        "Rule",
        "Candidates a query",
        "Kept by the rule",
        "Queries with enough",
        "Negatives a query",
        "Comparable",
    ];
    let caption = "Miners over the candidates. Enough: as many as a step takes. An arm in which over 5 % of the queries \
                   have fewer is not comparable with the others. Where a judge decides, the rule concerns only what it did \
                   not judge";
    let mut compared = Vec::new();
    for arm in arms {
        let (Some(examples), Some(candidates)) = (arm.artefacts.get("examples"), arm.artefacts.get("candidates"))
        else {
            continue;
        };
        let wrong = |error: serde_json::Error| Error::file(examples.folder(), error.to_string());
        let config: SampleConfig = serde_json::from_value(examples.manifest().config.clone()).map_err(wrong)?;
        let rule = serde_json::to_value(&config.miner).map_err(wrong)?;
        compared.push((*arm, examples, candidates, config, rule));
    }
    let kinds: BTreeSet<_> =
        compared.iter().map(|(_, _, candidates, _, rule)| (rule.to_string(), candidates.key())).collect();
    let mut table = Table::new(caption, columns);
    if kinds.len() < 2 {
        return Ok(table);
    }
    for (arm, examples, candidates, config, rule) in compared {
        let mut rows: Vec<QueryCandidates> = Vec::new();
        for partition in material.partitions(arm) {
            rows.extend(lines_of::<QueryCandidates>(candidates, &format!("{}.jsonl", partition.language))?);
        }
        let kept = Yield::of(&config.miner, &rows, config.step_negatives);
        let all = (kept.kept + kept.removed) as u64;
        let comparable = examples.summary().counts.get("comparable").map(|count| if *count > 0 { "yes" } else { "no" });
        let [negatives, _] = trained_on(Some(arm));
        table.push(vec![
            Cell::text(&arm.name),
            Cell::text(rule_words(&rule)),
            if kept.queries == 0 { Cell::missing() } else { Cell::number(all as f64 / kept.queries as f64, 1) },
            Cell::share(kept.kept as u64, all),
            Cell::share(kept.sufficient as u64, kept.queries as u64),
            negatives,
            Cell::text(comparable.unwrap_or("–")),
        ]);
    }
    Ok(table)
}

/// Such as `margin, margin 0.15, anchor max`.
fn rule_words(rule: &serde_json::Value) -> String {
    let words = rule.as_object().into_iter().flatten().map(|(key, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if key == "rule" { value } else { format!("{key} {value}") }
    });
    words.collect::<Vec<_>>().join(", ")
}

/// A figure for every knob with three or more numbers: quality against the knob, a line for every choice of the others.
fn sweeps(
    material: &Material<'_>,
    arms: &[&Arm],
    differences: &Differences,
    section: &mut Section,
) -> Vec<crate::html::Html> {
    let Some(by) = by_measure(material, HEADLINE) else { return Vec::new() };
    let mut figures = Vec::new();
    let mut drawn: Vec<Vec<f64>> = Vec::new();
    for name in &differences.names {
        let Some(numbers) = differences.numbers(name).filter(|numbers| distinct(numbers) >= LEAST_VALUES) else {
            continue;
        };
        if drawn.contains(&numbers) {
            continue;
        }
        let along: Vec<&str> = differences
            .names
            .iter()
            .filter(|other| differences.numbers(other).as_ref() == Some(&numbers))
            .map(String::as_str)
            .collect();
        let knob = along.join(" and ");
        let lines = sweep_lines(by, arms, differences, (&numbers, &along));
        let title = format!("{HEADLINE} by {knob}");
        let mut table = Table::new(format!("{title}, macro mean in points of a hundred"), ["Arm", &knob, "nDCG@10"]);
        for (arm, number) in arms.iter().zip(&numbers) {
            table.push(vec![Cell::text(&arm.name), Cell::shown(number, number), points(macro_mean(by, &arm.name))]);
        }
        let chart = Chart { title, x: knob.clone(), y: "nDCG@10, points".to_owned(), lines };
        figures.extend(section.charted(format!("sweep {knob}"), &chart, &table));
        drawn.push(numbers);
    }
    figures
}

fn distinct(numbers: &[f64]) -> usize {
    let bits: BTreeSet<u64> = numbers.iter().map(|number| number.to_bits()).collect();
    bits.len()
}

/// The lines of a sweep: arms that agree in every other knob, by the swept number.
fn sweep_lines(
    by: &MeasureComparison,
    arms: &[&Arm],
    differences: &Differences,
    (numbers, along): (&[f64], &[&str]),
) -> Vec<Line> {
    let mut groups: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for (place, arm) in arms.iter().enumerate() {
        let others = differences.arms[place].iter().filter(|(name, _)| !along.contains(&name.as_str()));
        let group: Vec<String> = others.map(|(name, value)| format!("{name} {value}")).collect();
        if let Some(mean) = macro_mean(by, &arm.name) {
            groups.entry(group.join(", ")).or_default().push((numbers[place], 100.0 * mean.value));
        }
    }
    let line = |(name, mut points): (String, Vec<(f64, f64)>)| {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Line { name, points }
    };
    groups.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture::{difference, system};

    /// Table and figure of the paper's candidate-set size N: two encoders, three sizes, given out of order.
    #[test]
    fn a_sweep_has_a_line_for_every_choice_of_the_other_knobs() {
        let size = |encoder: &str, negatives: u32| {
            let knobs = [("generate.target", negatives.to_string()), ("sample.negatives", negatives.to_string())];
            let encoder = [("model.name", encoder.to_owned())];
            encoder.into_iter().chain(knobs).map(|(name, value)| (name.to_owned(), value)).collect()
        };
        let arms = vec![size("a", 30), size("a", 10), size("a", 20), size("b", 10), size("b", 20), size("b", 30)];
        let names = ["generate.target", "model.name", "sample.negatives"].map(str::to_owned).to_vec();
        let differences = Differences { names, arms };
        let numbers = differences.numbers("sample.negatives").unwrap();
        assert_eq!(differences.numbers("generate.target").as_ref(), Some(&numbers));
        let named: Vec<Arm> =
            (0..6).map(|at| Arm { name: format!("arm {at}"), seed: 1, artefacts: BTreeMap::new() }).collect();
        let systems = (0..6).map(|at| {
            let mut system = system(&format!("arm {at}"), difference(0.0, None, 1.0));
            system.values.macro_mean.value = 0.5 + 0.01 * f64::from(at);
            system
        });
        let by = MeasureComparison {
            measure: HEADLINE,
            judgements: Judgements::Qrels,
            queries: BTreeMap::new(),
            baseline: system("untouched", difference(0.0, None, 1.0)).values,
            systems: systems.collect(),
        };
        let along = ["generate.target", "sample.negatives"];
        let lines = sweep_lines(&by, &named.iter().collect::<Vec<_>>(), &differences, (&numbers, &along));
        let shown: Vec<(&str, Vec<(f64, f64)>)> =
            lines.iter().map(|line| (line.name.as_str(), line.points.clone())).collect();
        let rounded =
            |points: &[(f64, f64)]| points.iter().map(|(x, y)| (*x as u32, y.round() as u32)).collect::<Vec<_>>();
        assert_eq!((shown[0].0, rounded(&shown[0].1)), ("model.name a", vec![(10, 51), (20, 52), (30, 50)]));
        assert_eq!((shown[1].0, rounded(&shown[1].1)), ("model.name b", vec![(10, 53), (20, 54), (30, 55)]));
    }

    #[test]
    fn rules_are_told_in_words() {
        let rule = serde_json::json!({ "rule": "margin", "margin": 0.15, "anchor": "max" });
        assert_eq!(rule_words(&rule), "margin, margin 0.15, anchor max");
        assert_eq!(distinct(&[1.0, 2.0, 1.0]), 2);
    }
}
