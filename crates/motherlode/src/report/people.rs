//! The judge against people: what annotators of `inspect` settled on, beside the judge's verdicts.

use std::collections::BTreeMap;

use super::judging::estimate;
use super::material::{Material, Shared, language_name, lines_of};
use super::page::Section;
use super::table::{Cell, Table, grouped};
use crate::corpus::Language;
use crate::error::Result;
use crate::judge::kappa::{self, Cohen, GRADES, fleiss};
use crate::judge::{Estimate, QueryJudgements};

/// One person's grade of a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HumanGrade {
    /// The language.
    pub language: Language,
    /// The query's id.
    pub query: String,
    /// The passage's id.
    pub passage: String,
    /// Who gave it.
    pub annotator: String,
    /// 0, 1 or 2.
    pub grade: u8,
}

/// The judge's grades (rows) against people's (columns), in pairs.
type Against = [[usize; GRADES]; GRADES];

/// Adds the tables, where people graded anything that this judge judged.
pub(super) fn add(material: &Material<'_>, shared: &Shared<'_>, section: &mut Section) -> Result<()> {
    let pairs = by_pair(&material.experiment.people);
    let mut tables: BTreeMap<Language, Against> = BTreeMap::new();
    for partition in material.partitions(shared.arm).filter(|partition| pairs.contains_key(&partition.language)) {
        let rows: Vec<QueryJudgements> = lines_of(shared.artefact, &format!("{}.jsonl", partition.language))?;
        let against = against(&pairs[&partition.language], &rows);
        if against.iter().flatten().any(|count| *count > 0) {
            tables.insert(partition.language.clone(), against);
        }
    }
    if tables.is_empty() {
        return Ok(());
    }
    section.heading("The judge against people");
    section.say(words(&pairs, &tables));
    section.table(format!("people {}", shared.label), &table(&tables));
    Ok(())
}

/// The grades of each pair, by language and (query, passage).
type ByPair<'a> = BTreeMap<Language, BTreeMap<(&'a str, &'a str), Vec<u8>>>;

fn by_pair(grades: &[HumanGrade]) -> ByPair<'_> {
    let mut pairs: ByPair<'_> = BTreeMap::new();
    for HumanGrade { language, query, passage, grade, .. } in grades {
        pairs.entry(language.clone()).or_default().entry((query.as_str(), passage.as_str())).or_default().push(*grade);
    }
    pairs
}

/// The grade that most people gave; none where two share the most.
fn settled(grades: &[u8]) -> Option<usize> {
    kappa::settled(grades.iter().copied()).map(usize::from)
}

fn against(pairs: &BTreeMap<(&str, &str), Vec<u8>>, rows: &[QueryJudgements]) -> Against {
    let mut against = Against::default();
    for row in rows {
        for judgement in &row.judgements {
            let Some(grade) = judgement.verdict.grade().map(usize::from) else { continue };
            let people = pairs.get(&(row.query.as_str(), judgement.passage.as_str()));
            if let Some(settled) = people.and_then(|grades| settled(grades)) {
                against[grade][settled] += 1;
            }
        }
    }
    against
}

/// κ of the judge and people, and of people among themselves.
fn words(pairs: &ByPair<'_>, tables: &BTreeMap<Language, Against>) -> String {
    let total = total(tables);
    let cohen = Cohen::of(&total.map(|row| row.map(|count| count as f64)));
    let judge = cohen.map_or_else(String::new, |cohen| {
        format!(
            " Cohen’s κ between the judge and people: {:.3}, of pairs drawn by verdict, so not of all candidates.",
            cohen.kappa
        )
    });
    let doubled: Vec<[u32; GRADES]> = pairs
        .values()
        .flat_map(BTreeMap::values)
        .filter(|grades| grades.len() >= 2)
        .map(|grades| counted(grades))
        .collect();
    let people = fleiss(&doubled).map_or_else(String::new, |kappa| {
        let pairs = grouped(doubled.len() as u64);
        format!(" Fleiss’ κ among people: {kappa:.3}, over the first two grades of {pairs} pairs that have as many.")
    });
    let settled: usize = total.iter().flatten().sum();
    format!(
        "People graded {} pairs that the judge judged, and settled on a grade.{judge}{people}",
        grouped(settled as u64)
    )
}

fn counted(grades: &[u8]) -> [u32; GRADES] {
    let mut counts = [0; GRADES];
    grades.iter().take(2).for_each(|grade| counts[usize::from(*grade)] += 1);
    counts
}

fn total(tables: &BTreeMap<Language, Against>) -> Against {
    let mut total = Against::default();
    for table in tables.values() {
        total.iter_mut().flatten().zip(table.iter().flatten()).for_each(|(sum, count)| *sum += count);
    }
    total
}

/// One line a language and verdict: the grades of people where the judge said so.
fn table(tables: &BTreeMap<Language, Against>) -> Table {
    const VERDICTS: [&str; GRADES] = ["Negative (0)", "Excluded (1)", "False negative (2)"];
    let caption = "What people say where the judge gave a verdict: the grade that most annotators gave; pairs at odds are left \
                   out. Agreement with a 95 % Wilson interval";
    let columns = ["Language", "Verdict", "Pairs", "People: 0", "People: 1", "People: 2", "Same grade"];
    let mut table = Table::new(caption, columns);
    let row = |name: &str, verdict: usize, counts: &[usize; GRADES]| {
        let all: usize = counts.iter().sum();
        let mut row = vec![Cell::text(name), Cell::text(VERDICTS[verdict]), Cell::count(all as u64)];
        row.extend(counts.map(|count| Cell::share(count as u64, all as u64).beside(count)));
        row.push(estimate(Estimate::wilson(counts[verdict], all)));
        row
    };
    for (language, against) in tables {
        for (verdict, counts) in against.iter().enumerate().filter(|(_, counts)| counts.iter().any(|count| *count > 0))
        {
            table.push(row(&language_name(language), verdict, counts));
        }
    }
    for (verdict, counts) in total(tables).iter().enumerate().filter(|_| tables.len() > 1) {
        table.push(row("All", verdict, counts));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Judgement;
    use crate::judge::Verdict;

    #[test]
    fn people_and_judge_are_joined_by_pair() {
        let judged = |passage: &str, verdict| Judgement {
            passage: passage.into(),
            verdict,
            accuracy: None,
            completeness: None,
            screened: None,
            ledger: Vec::new(),
        };
        let judgements = vec![
            judged("a", Verdict::FalseNegative),
            judged("b", Verdict::Negative),
            judged("c", Verdict::Unknown),
            judged("d", Verdict::Excluded),
        ];
        let rows = [QueryJudgements { query: "q".into(), judgements }];
        let pairs = BTreeMap::from([
            (("q", "a"), vec![2, 2, 0]),
            (("q", "b"), vec![1]),
            (("q", "c"), vec![0]),
            (("q", "d"), vec![0, 1]),
        ]);
        assert_eq!(against(&pairs, &rows), [[0, 1, 0], [0, 0, 0], [0, 0, 1]]);
        assert_eq!([settled(&[0, 2]), settled(&[]), settled(&[2, 2, 0])], [None, None, Some(2)]);
    }
}
