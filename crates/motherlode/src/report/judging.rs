//! Judging: what the judge said per language, and how far it can be believed.

use std::collections::BTreeMap;

use super::material::{Material, Shared, json_of, language_name, lines_of};
use super::page::Section;
use super::table::{Cell, Table, grouped, percent};
use super::{people, trust};
use crate::corpus::Language;
use crate::error::Result;
use crate::judge::{Calibration, Canaries, Cascade, Corrected, Estimate, QueryJudgements, Verdict};
use crate::sample::Example;

/// The section.
pub(super) fn judging(material: &Material<'_>) -> Result<Section> {
    let mut section = Section::new("judging", "Judging");
    let judgements = material.shared("judgements");
    if judgements.is_empty() {
        section.say("No language model judged candidates in this experiment.");
    }
    for shared in &judgements {
        if judgements.len() > 1 {
            section.heading(format!("Judgements of {}", shared.label));
        }
        let config = &shared.artefact.manifest().config;
        section.say(format!("The judge: {}.", config["model"].as_str().unwrap_or("not named")));
        section.table(format!("verdicts {}", shared.label), &verdicts(material, shared)?);
        section.table(format!("canaries {}", shared.label), &canaries(shared)?);
        let calibrated: BTreeMap<Language, Calibration> =
            json_of(shared.artefact, "calibration.json")?.unwrap_or_default();
        let screened: Option<Cascade> = json_of(shared.artefact, "cascade.json")?;
        calibration(shared, &calibrated, &mut section);
        if let Some(cascade) = &screened {
            section.say(cascaded(cascade));
        }
        trust::add(shared, &calibrated, screened.as_ref(), &mut section)?;
        people::add(material, shared, &mut section)?;
        if let Some(truth) = &material.truth {
            let (table, fate) = truth.judged(material, shared)?;
            section.heading("Against the hidden truth");
            section.say(format!(
                "Of {} hidden false negatives of the mined queries {} came among the candidates{}; the judge found {}{}. \
                 Of {} true negatives that it judged it eliminated {}{}.",
                grouped(fate.hidden),
                grouped(fate.listed),
                share(fate.listed, fate.hidden),
                grouped(fate.found),
                share(fate.found, fate.listed),
                grouped(fate.negatives),
                grouped(fate.eliminated),
                share(fate.eliminated, fate.negatives),
            ));
            section.table(format!("truth {}", shared.label), &table);
        }
    }
    section.heading("Who stands behind the training negatives");
    section.table("share judged", &judged_share(material)?);
    if let Some(truth) = &material.truth {
        section.table("trained against", &truth.trained_against(material)?);
    }
    Ok(section)
}

fn share(part: u64, whole: u64) -> String {
    if whole == 0 { String::new() } else { format!(" ({})", percent(part as f64 / whole as f64)) }
}

fn verdicts(material: &Material<'_>, shared: &Shared<'_>) -> Result<Table> {
    let columns = [
        "Language",
        "Candidates",
        "Negative",
        "Excluded",
        "False negative",
        "Unknown",
        "Abstained",
        "Unjudged",
        "By people",
        "Eliminated of those judged",
    ];
    let caption = "Verdicts: negative is grade 0, excluded grade 1 (neither negative nor positive), false negative grade 2. \
                   By people: judged not relevant in the data set, not asked again";
    let mut table = Table::new(caption, columns);
    let mut total = BTreeMap::new();
    for partition in material.partitions(shared.arm) {
        let rows: Vec<QueryJudgements> = lines_of(shared.artefact, &format!("{}.jsonl", partition.language))?;
        let mut counts: BTreeMap<Verdict, u64> = BTreeMap::new();
        for judgement in rows.iter().flat_map(|row| &row.judgements) {
            *counts.entry(judgement.verdict).or_default() += 1;
            *total.entry(judgement.verdict).or_default() += 1;
        }
        if !rows.is_empty() {
            table.push(verdict_row(&language_name(&partition.language), &counts));
        }
    }
    table.total(verdict_row("All", &total));
    Ok(table)
}

fn verdict_row(name: &str, counts: &BTreeMap<Verdict, u64>) -> Vec<Cell> {
    const SHOWN: [Verdict; 7] = [
        Verdict::Negative,
        Verdict::Excluded,
        Verdict::FalseNegative,
        Verdict::Unknown,
        Verdict::Abstained,
        Verdict::Unjudged,
        Verdict::Human,
    ];
    let count = |verdict: Verdict| counts.get(&verdict).copied().unwrap_or(0);
    let mut row = vec![Cell::text(name), Cell::count(counts.values().sum())];
    row.extend(SHOWN.map(|verdict| Cell::count(count(verdict))));
    let eliminated = count(Verdict::Excluded) + count(Verdict::FalseNegative);
    row.push(Cell::share(eliminated, eliminated + count(Verdict::Negative)));
    row
}

fn canaries(shared: &Shared<'_>) -> Result<Table> {
    let canaries: BTreeMap<Language, Canaries> = json_of(shared.artefact, "canaries.json")?.unwrap_or_default();
    let caption = "Canaries: probes whose answer is known, the positive itself (grade 2) and a random far passage (grade 0). \
                   A language that fails too many abstains: none of its verdicts counts";
    let columns =
        ["Language", "Probes", "Passed", "Share", "Positives passed", "Far passages passed", "Verdicts count"];
    let mut table = Table::new(caption, columns);
    for (language, found) in &canaries {
        let side = |expected: u8| {
            let probes = || found.probes.iter().filter(|probe| probe.expected == expected);
            let passed = probes().filter(|probe| probe.grade == Some(expected)).count();
            Cell::shown(format!("{passed} of {}", probes().count()), passed)
        };
        table.push(vec![
            Cell::text(language_name(language)),
            Cell::count(found.of as u64),
            Cell::count(found.passed as u64),
            Cell::share(found.passed as u64, found.of as u64),
            side(2),
            side(0),
            Cell::text(if found.abstained { "no: abstained" } else { "yes" }).strong(found.abstained),
        ]);
    }
    Ok(table)
}

fn calibration(shared: &Shared<'_>, calibration: &BTreeMap<Language, Calibration>, section: &mut Section) {
    let caption = "Calibration on pairs that people judged, with 95 % Wilson intervals. Sensitivity: share of the positives \
                   for which the judge says so; specificity: share of the human negatives for which it does not. \
                   “Eliminated” is grade 1 or 2, “false negative” grade 2. Relevant candidates: the share that the judge \
                   eliminates, and the share that is relevant, corrected for the judge’s errors (Rogan and Gladen; the \
                   interval by resampling queries). κ is of “eliminated” over these pairs; the Brier score is of the mean \
                   grade of the votes, halved, as a probability: 0 is best";
    let columns = [
        "Language",
        "Sensitivity, eliminated",
        "Specificity, eliminated",
        "Sensitivity, false negative",
        "Specificity, false negative",
        "Cohen’s κ",
        "Brier score",
        "Candidates eliminated",
        "Relevant candidates, corrected",
        "Unreadable",
    ];
    let mut table = Table::new(caption, columns);
    let mut sum = Calibration::default();
    for (language, found) in calibration {
        table.push(calibration_row(&language_name(language), found));
        add(&mut sum, found);
    }
    pool(&mut sum);
    table.total(calibration_row("All pairs in one pool, each once", &sum));
    section.table(format!("calibration {}", shared.label), &table);
}

fn add(sum: &mut Calibration, other: &Calibration) {
    for (sum, other) in [(&mut sum.positives, other.positives), (&mut sum.negatives, other.negatives)] {
        sum.grades.iter_mut().zip(other.grades).for_each(|(sum, count)| *sum += count);
        sum.unknown += other.unknown;
    }
}

/// The rates of all pairs together.
fn pool(sum: &mut Calibration) {
    let (positives, negatives) = (sum.positives.grades, sum.negatives.grades);
    for (rates, least) in [(&mut sum.eliminated, 1), (&mut sum.false_negative, 2)] {
        rates.sensitivity = Estimate::wilson(positives[least..].iter().sum(), positives.iter().sum());
        rates.specificity = Estimate::wilson(negatives[..least].iter().sum(), negatives.iter().sum());
    }
}

fn calibration_row(name: &str, found: &Calibration) -> Vec<Cell> {
    let rates = [found.eliminated, found.false_negative];
    let mut row = vec![Cell::text(name)];
    row.extend(rates.iter().flat_map(|rates| [estimate(rates.sensitivity), estimate(rates.specificity)]));
    let number = |value: Option<f64>| value.map_or_else(Cell::missing, |value| Cell::number(value, 2));
    row.extend([number(found.eliminated.kappa), number(found.brier)]);
    row.push(estimate(found.eliminated.apparent));
    row.push(corrected(found.eliminated.corrected));
    row.push(Cell::count((found.positives.unknown + found.negatives.unknown) as u64));
    row
}

/// How the cheap judge's thresholds held, in a sentence.
fn cascaded(cascade: &Cascade) -> String {
    format!(
        "A cheap judge, {}, saw {} candidates first and decided {} of them{}. On a random slice that chose nothing, the \
         large judge took {} of its decisions otherwise.",
        cascade.model,
        grouped(cascade.screened as u64),
        grouped(cascade.decided as u64),
        share(cascade.decided as u64, cascade.screened as u64),
        match cascade.audit.error {
            Estimate::NotEstimable => "an unknown share".to_owned(),
            Estimate::Share { count, of, low, high, .. } =>
                format!("{count} of {of} (95 % interval {} to {})", percent(low), percent(high)),
        }
    )
}

/// A corrected share with its interval.
pub(super) fn corrected(corrected: Corrected) -> Cell {
    match corrected {
        Corrected::NotEstimable => Cell::shown("not estimable", ""),
        Corrected::Rate { rate, low, high } => {
            Cell::percent(rate).beside(format!("[{:.0}, {:.0}]", 100.0 * low, 100.0 * high))
        }
    }
}

/// A share with its interval and the counts behind it.
pub(super) fn estimate(estimate: Estimate) -> Cell {
    match estimate {
        Estimate::NotEstimable => Cell::shown("not estimable", ""),
        Estimate::Share { count, of, rate, low, high } => {
            Cell::percent(rate).beside(format!("[{:.0}, {:.0}], {count} of {of}", 100.0 * low, 100.0 * high))
        }
    }
}

fn judged_share(material: &Material<'_>) -> Result<Table> {
    let caption = "Share of the training negatives that a language model judged; the others were let through by a rule, \
                   judged by people, or drawn at random";
    let mut table = Table::new(caption, ["Arm", "Training queries", "Negatives", "Judged by a model", "Share"]);
    for shared in material.shared("examples") {
        let (mut queries, mut negatives, mut judged) = (0, 0, 0);
        for partition in material.partitions(shared.arm) {
            let examples: Vec<Example> = lines_of(shared.artefact, &format!("{}.train.jsonl", partition.language))?;
            queries += examples.len() as u64;
            for negative in examples.iter().flat_map(|example| &example.negatives) {
                negatives += 1;
                judged += u64::from(negative.provenance.is_by_language_model());
            }
        }
        let counts = [queries, negatives, judged].map(Cell::count);
        table.push(
            [Cell::text(&shared.label)].into_iter().chain(counts).chain([Cell::share(judged, negatives)]).collect(),
        );
    }
    Ok(table)
}
