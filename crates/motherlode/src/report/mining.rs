//! Mining: what was removed, how far retrievers agree, where the scores of positives, kept and eliminated candidates lie,
//! and what is found at which rank.

use std::collections::{BTreeMap, BTreeSet};

use super::chart::{Chart, Line};
use super::material::{Material, Shared, lines_of};
use super::page::Section;
use super::table::{Cell, Table};
use crate::corpus::Language;
use crate::error::Result;
use crate::judge::{QueryJudgements, Verdict};
use crate::mine::QueryCandidates;
use crate::sample::Example;

/// Bins of the scores, of equal width.
const BINS: usize = 20;
/// Bands of ranks, at most.
const BANDS: usize = 10;

/// The section; empty without candidates.
pub(super) fn mining(material: &Material<'_>) -> Result<Section> {
    let mut section = Section::new("mining", "Mining");
    for shared in material.shared("candidates") {
        section.table(format!("removed {}", shared.label), &removed(&shared));
        section.table(format!("retrievers {}", shared.label), &retrievers(&shared));
    }
    for shared in judged_lists(material) {
        let lists = Lists::read(material, &shared)?;
        let mut figures = Vec::new();
        figures.extend(lists.scores(&shared.label, &mut section));
        figures.extend(lists.ranks(&shared.label, &mut section));
        section.grid(figures);
    }
    Ok(section)
}

/// The arms by what was judged of their candidates, or by the candidates where nobody judged.
fn judged_lists<'a>(material: &Material<'a>) -> Vec<Shared<'a>> {
    let judged = material.shared("judgements");
    if judged.is_empty() { material.shared("candidates") } else { judged }
}

/// What mining left out, as its summary counts it.
fn removed(shared: &Shared<'_>) -> Table {
    const SHOWN: [(&str, &str); 7] = [
        ("queries", "Queries that were mined"),
        ("candidates", "Candidates"),
        ("dropped: positive by id", "Removed: a positive of the query"),
        ("dropped: positive by text", "Removed: the text of a positive under another id"),
        ("dropped: query without a positive", "Left out: queries without a positive"),
        ("queries with fewer candidates than asked", "Queries whose list was too short"),
        ("candidates asked but not there", "Candidates that these lack"),
    ];
    let caption = format!("What mining removed, and what is left ({})", shared.label);
    let mut table = Table::new(caption, ["What", "Count"]);
    for (name, words) in SHOWN {
        if let Some(count) = shared.artefact.summary().counts.get(name) {
            table.push(vec![Cell::text(words), Cell::count(*count)]);
        }
    }
    table
}

/// How each retriever agrees with the fused list, mean over the languages.
fn retrievers(shared: &Shared<'_>) -> Table {
    const MEASURES: [(&str, &str); 3] =
        [("spearman", "Spearman’s ρ"), ("kendall", "Kendall’s τ"), ("unique contribution", "Only it brought")];
    let caption = format!(
        "Retrievers beside the fused list, mean over the languages ({}). Only it brought: share of the candidates in its \
         own first K and in no other’s",
        shared.label
    );
    let mut table = Table::new(caption, std::iter::once("Retriever").chain(MEASURES.map(|(_, words)| words)));
    let manifest = shared.artefact.manifest();
    let members = manifest.inputs.keys().filter_map(|role| role.strip_prefix("member ")?.split_once(' '));
    for (_, member) in members {
        let mean = |measure: &str| {
            let is_own = |name: &str| name.strip_prefix(measure).is_some_and(|rest| of_member(rest, member));
            let values: Vec<f64> =
                manifest.summary.values.iter().filter(|(name, _)| is_own(name)).map(|(_, value)| *value).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        let cells = MEASURES.map(|(measure, _)| match mean(measure) {
            Some(share) if measure.starts_with("unique") => Cell::percent(share),
            Some(value) => Cell::number(value, 2),
            None => Cell::missing(),
        });
        table.push(std::iter::once(Cell::text(member)).chain(cells).collect());
    }
    table
}

/// Whether ` LANG MEMBER` is of this member.
fn of_member(rest: &str, member: &str) -> bool {
    rest.strip_prefix(' ').and_then(|rest| rest.split_once(' ')).is_some_and(|(_, name)| name == member)
}

/// What became of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Eliminated { is_false_negative: bool },
    Kept,
    Other,
}

/// A candidate on the way to training.
struct Listed {
    rank: u32,
    score: f32,
    is_judged: bool,
    fate: Fate,
}

#[derive(Default)]
struct Lists {
    positives: Vec<f32>,
    candidates: Vec<Listed>,
}

impl Lists {
    /// Joins candidates, verdicts and the negatives of training by query and passage.
    fn read(material: &Material<'_>, shared: &Shared<'_>) -> Result<Self> {
        let mut lists = Self::default();
        let artefacts = &shared.arm.artefacts;
        let Some(candidates) = artefacts.get("candidates") else { return Ok(lists) };
        for partition in material.partitions(shared.arm) {
            let file = format!("{}.jsonl", partition.language);
            let rows: Vec<QueryCandidates> = lines_of(candidates, &file)?;
            let verdicts: BTreeMap<String, QueryJudgements> = match artefacts.get("judgements") {
                Some(judgements) => by_query(lines_of(judgements, &file)?),
                None => BTreeMap::new(),
            };
            let negatives = negatives(shared, &partition.language)?;
            for row in &rows {
                lists.add(row, verdicts.get(&row.query), negatives.get(&row.query));
            }
        }
        Ok(lists)
    }

    fn add(&mut self, row: &QueryCandidates, judged: Option<&QueryJudgements>, negatives: Option<&BTreeSet<String>>) {
        self.positives.extend(row.positives.iter().map(|(_, score)| *score));
        for (place, candidate) in row.candidates.iter().enumerate() {
            let judgement = judged.and_then(|judged| judged.judgements.get(place));
            let verdict = judgement.filter(|judgement| judgement.passage == candidate.passage).map(|own| own.verdict);
            let is_kept = negatives.is_some_and(|negatives| negatives.contains(&candidate.passage));
            let fate = match verdict {
                Some(verdict) if verdict.is_eliminated() => {
                    Fate::Eliminated { is_false_negative: verdict == Verdict::FalseNegative }
                }
                _ if is_kept => Fate::Kept,
                _ => Fate::Other,
            };
            let is_judged = verdict.is_some_and(|verdict| verdict.grade().is_some());
            self.candidates.push(Listed { rank: candidate.rank, score: candidate.model_score, is_judged, fate });
        }
    }

    /// Where the scores of the untouched model lie.
    fn scores(&self, label: &str, section: &mut Section) -> Option<crate::html::Html> {
        let of = |is: fn(Fate) -> bool| -> Vec<f32> {
            self.candidates.iter().filter(|listed| is(listed.fate)).map(|listed| listed.score).collect()
        };
        let groups = [
            ("Positives", self.positives.clone()),
            ("Kept as negatives", of(|fate| fate == Fate::Kept)),
            ("Eliminated by the judge", of(|fate| matches!(fate, Fate::Eliminated { .. }))),
            ("Other candidates", of(|fate| fate == Fate::Other)),
        ];
        let groups: Vec<(&str, Vec<f32>)> = groups.into_iter().filter(|(_, scores)| !scores.is_empty()).collect();
        let bins = Bins::over(groups.iter().flat_map(|(_, scores)| scores))?;
        let title = format!("Scores under the untouched model ({label})");
        let caption = format!("{title}, pairs in each bin");
        let mut table = Table::new(caption, ["From", "To"].into_iter().chain(groups.iter().map(|(name, _)| *name)));
        let counts: Vec<Vec<u64>> = groups.iter().map(|(_, scores)| bins.count(scores)).collect();
        for bin in 0..BINS {
            let ends = [bin, bin + 1].map(|edge| Cell::shown(format!("{:.3}", bins.edge(edge)), bins.edge(edge)));
            table.push(ends.into_iter().chain(counts.iter().map(|counts| Cell::count(counts[bin]))).collect());
        }
        let line = |((name, scores), counts): (&(&str, Vec<f32>), &Vec<u64>)| {
            let share = |count: u64| 100.0 * count as f64 / scores.len() as f64;
            let middle = |bin: usize| f64::midpoint(bins.edge(bin), bins.edge(bin + 1));
            let points = counts.iter().enumerate().map(|(bin, count)| (middle(bin), share(*count))).collect();
            Line { name: (*name).to_owned(), points }
        };
        let lines = groups.iter().zip(&counts).map(line).collect();
        let chart = Chart { title, x: "Score".to_owned(), y: "Share of each group, %".to_owned(), lines };
        section.charted(format!("scores {label}"), &chart, &table)
    }

    /// What is found at which rank.
    fn ranks(&self, label: &str, section: &mut Section) -> Option<crate::html::Html> {
        let deepest = self.candidates.iter().map(|listed| listed.rank).max()?;
        let width = deepest.div_ceil(BANDS as u32).max(1);
        let caption = format!("Candidates by rank in the fused list ({label}). Shares are of those judged");
        let columns =
            ["Ranks", "Candidates", "Judged", "Eliminated", "Share", "False negatives", "Share", "Kept as negatives"];
        let mut table = Table::new(caption, columns);
        let (mut eliminated_line, mut found_line) = (Vec::new(), Vec::new());
        for first in (1..=deepest).step_by(width as usize) {
            let last = (first + width - 1).min(deepest);
            let band: Vec<&Listed> =
                self.candidates.iter().filter(|listed| (first..=last).contains(&listed.rank)).collect();
            let count = |is: fn(&Listed) -> bool| band.iter().filter(|listed| is(listed)).count() as u64;
            let judged = count(|listed| listed.is_judged);
            let eliminated = count(|listed| matches!(listed.fate, Fate::Eliminated { .. }));
            let found = count(|listed| listed.fate == Fate::Eliminated { is_false_negative: true });
            table.push(vec![
                Cell::text(if first == last { first.to_string() } else { format!("{first}–{last}") }),
                Cell::count(band.len() as u64),
                Cell::count(judged),
                Cell::count(eliminated),
                Cell::share(eliminated, judged),
                Cell::count(found),
                Cell::share(found, judged),
                Cell::count(count(|listed| listed.fate == Fate::Kept)),
            ]);
            let middle = f64::midpoint(f64::from(first), f64::from(last));
            let share = |part: u64| (middle, 100.0 * part as f64 / judged as f64);
            eliminated_line.push(share(eliminated));
            found_line.push(share(found));
        }
        let lines = [("Eliminated", eliminated_line), ("False negatives", found_line)];
        let lines = lines.map(|(name, points)| Line { name: name.to_owned(), points }).into();
        let title = format!("Eliminated candidates by rank ({label})");
        let chart = Chart { title, x: "Rank".to_owned(), y: "Share of those judged, %".to_owned(), lines };
        // Without a judge there is nothing to draw, but the table still counts.
        section
            .charted(format!("ranks {label}"), &chart, &table)
            .or_else(|| section.tabled(format!("ranks {label}"), &table))
    }
}

fn by_query(rows: Vec<QueryJudgements>) -> BTreeMap<String, QueryJudgements> {
    rows.into_iter().map(|row| (row.query.clone(), row)).collect()
}

/// The negatives that an arm trains with, by query.
fn negatives(shared: &Shared<'_>, language: &Language) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut negatives = BTreeMap::new();
    let Some(examples) = shared.arm.artefacts.get("examples") else { return Ok(negatives) };
    for example in lines_of::<Example>(examples, &format!("{language}.train.jsonl"))? {
        let passages = example.negatives.into_iter().map(|negative| negative.passage).collect();
        negatives.insert(example.query, passages);
    }
    Ok(negatives)
}

/// Bins of equal width between the lowest and the highest score.
struct Bins {
    low: f64,
    width: f64,
}

impl Bins {
    fn over<'a>(scores: impl Iterator<Item = &'a f32>) -> Option<Self> {
        let finite = scores.filter(|score| score.is_finite()).map(|score| f64::from(*score));
        let ends = finite.fold(None, |ends: Option<(f64, f64)>, score| {
            let (low, high) = ends.unwrap_or((score, score));
            Some((low.min(score), high.max(score)))
        });
        ends.map(|(low, high)| Self { low, width: ((high - low) / BINS as f64).max(1e-6) })
    }

    fn edge(&self, bin: usize) -> f64 {
        self.low + self.width * bin as f64
    }

    fn count(&self, scores: &[f32]) -> Vec<u64> {
        let mut counts = vec![0; BINS];
        for score in scores.iter().filter(|score| score.is_finite()) {
            let bin = (f64::from(*score) - self.low) / self.width;
            counts[(bin.max(0.0) as usize).min(BINS - 1)] += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_fall_into_bins() {
        let scores = [0.0, 0.26, 0.5, 1.0, f32::NAN];
        let bins = Bins::over(scores.iter()).unwrap();
        let counts = bins.count(&scores);
        assert_eq!((counts[0], counts[5], counts[10], counts[19]), (1, 1, 1, 1));
        assert_eq!(counts.iter().sum::<u64>(), 4);
        assert!(Bins::over([f32::NAN].iter()).is_none());
    }

    #[test]
    fn a_value_is_of_the_member_that_it_names() {
        assert!(of_member(" sw e5 small", "e5 small"));
        assert!(!of_member(" sw e5 small", "small"));
    }
}
