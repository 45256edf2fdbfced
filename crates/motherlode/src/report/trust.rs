//! How far the judge can be believed beyond its calibration table: by score band, when the order changes, as a probability,
//! and beside a cheap judge.

use std::collections::BTreeMap;

use super::chart::{Chart, Line};
use super::judging::{corrected, estimate};
use super::material::{Shared, json_of, language_name};
use super::page::{Section, folded};
use super::table::{Cell, Table};
use crate::corpus::Language;
use crate::error::Result;
use crate::html::Html;
use crate::judge::{Audit, Bin, Calibration, Cascade, Corrected, Estimate, Swap, Swaps};

/// Adds what an artefact of `judge` holds of it.
pub(super) fn add(
    shared: &Shared<'_>,
    calibration: &BTreeMap<Language, Calibration>,
    cascade: Option<&Cascade>,
    section: &mut Section,
) -> Result<()> {
    if let Some(table) = section.tabled(format!("bands {}", shared.label), &bands(calibration)) {
        section.add(folded(format!("Calibration by score band ({})", shared.label), table));
    }
    let swaps: BTreeMap<Language, Swaps> = json_of(shared.artefact, "swaps.json")?.unwrap_or_default();
    section.table(format!("swaps {}", shared.label), &swapped(&swaps));
    let mut figures = Vec::new();
    let bins = calibration.iter().map(|(language, found)| (language_name(language), found.reliability.as_slice()));
    let title = "What the judge’s votes are worth as a probability";
    figures.extend(reliability(title, shared, &bins.collect::<Vec<_>>(), section));
    if let Some(cascade) = cascade {
        section.table(format!("cascade {}", shared.label), &audits(cascade));
        let title = "What the cheap judge’s probabilities are worth beside the large judge";
        figures.extend(reliability(title, shared, &[(cascade.model.clone(), cascade.reliability.as_slice())], section));
    }
    section.grid(figures);
    Ok(())
}

/// Calibration within bands of the untouched model's score.
fn bands(calibration: &BTreeMap<Language, Calibration>) -> Table {
    let caption = "Calibration by band of the untouched model’s score, thirds of the judged candidates; “eliminated” is \
                   grade 1 or 2. A language’s line of all bands is its share with each band corrected by its own pairs, \
                   where that can be estimated";
    let columns = [
        "Language",
        "Scores",
        "Sensitivity, eliminated",
        "Specificity, eliminated",
        "Candidates eliminated",
        "Relevant candidates, corrected",
    ];
    let mut table = Table::new(caption, columns);
    for (language, found) in calibration {
        for band in &found.bands {
            let rates = &band.eliminated;
            table.push(vec![
                Cell::text(language_name(language)),
                Cell::shown(format!("{:.3} to {:.3}", band.low, band.high), format!("{} {}", band.low, band.high)),
                estimate(rates.sensitivity),
                estimate(rates.specificity),
                estimate(rates.apparent),
                corrected(rates.corrected),
            ]);
        }
        if found.corrected_by_band[0] != Corrected::NotEstimable {
            let cells = [(); 3].map(|()| Cell::missing());
            let row = [Cell::text(language_name(language)), Cell::shown("all bands", "")].into_iter().chain(cells);
            table.push(row.chain([corrected(found.corrected_by_band[0])]).collect());
        }
    }
    table
}

/// What a change of order did to the grades.
fn swapped(swaps: &BTreeMap<Language, Swaps>) -> Table {
    let caption = "Swap checks: the same pairs judged again with candidate and standard answer in the other order, and with \
                   the positives of the standard answer reversed";
    let columns = [
        "Language",
        "Same grade, order swapped",
        "Lower",
        "Higher",
        "Same grade, reference reversed",
        "Lower",
        "Higher",
    ];
    let mut table = Table::new(caption, columns);
    for (language, found) in swaps {
        let cells =
            |swap: &Swap| [estimate(swap.same), Cell::count(swap.lower as u64), Cell::count(swap.higher as u64)];
        let sides = cells(&found.order).into_iter().chain(cells(&found.reference));
        table.push(std::iter::once(Cell::text(language_name(language))).chain(sides).collect());
    }
    table
}

/// How the cheap judge's decisions held, by language.
fn audits(cascade: &Cascade) -> Table {
    let caption =
        "The cheap judge’s decisions on a random slice that the large judge graded, too, and that chose no threshold";
    let mut table = Table::new(caption, ["Language", "Pairs of both", "Decided by the cheap one", "Decided otherwise"]);
    let row = |name: String, audit: &Audit| {
        let counts = [audit.pairs, audit.decided].map(|count| Cell::count(count as u64));
        [Cell::text(name)].into_iter().chain(counts).chain([estimate(audit.error)]).collect()
    };
    cascade.languages.iter().for_each(|(language, audit)| table.push(row(language_name(language), audit)));
    table.total(row("All".to_owned(), &cascade.audit));
    table
}

/// A reliability curve: the share of relevant pairs by what was claimed, all given curves in one.
fn reliability(title: &str, shared: &Shared<'_>, curves: &[(String, &[Bin])], section: &mut Section) -> Option<Html> {
    let mut table =
        Table::new(format!("{title} ({}), in tenths of the claim", shared.label), ["Whose", "Mean claim", "Relevant"]);
    for (name, bins) in curves {
        for bin in *bins {
            table.push(vec![Cell::text(name), Cell::number(bin.claimed, 3), estimate(bin.relevant)]);
        }
    }
    let points = pooled(curves.iter().flat_map(|(_, bins)| *bins));
    if points.is_empty() {
        return None;
    }
    let lines = vec![
        Line { name: "All pairs".to_owned(), points },
        Line { name: "A perfect claim".to_owned(), points: vec![(0.0, 0.0), (1.0, 1.0)] },
    ];
    let (x, y) = ("Claimed probability".to_owned(), "Share that is relevant".to_owned());
    let chart = Chart { title: title.to_owned(), x, y, lines };
    section.charted(format!("reliability {title} {}", shared.label), &chart, &table)
}

/// Bins of the same tenth put together: mean claim and share of relevant pairs.
fn pooled<'a>(bins: impl Iterator<Item = &'a Bin>) -> Vec<(f64, f64)> {
    let mut tenths = [(0.0, 0usize, 0usize); 10];
    for bin in bins {
        if let Estimate::Share { count, of, .. } = bin.relevant {
            let (claims, relevant, pairs) = &mut tenths[((bin.claimed * 10.0) as usize).min(9)];
            *claims += bin.claimed * of as f64;
            *relevant += count;
            *pairs += of;
        }
    }
    let filled = tenths.into_iter().filter(|(_, _, pairs)| *pairs > 0);
    filled.map(|(claims, relevant, pairs)| (claims / pairs as f64, relevant as f64 / pairs as f64)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_pooled_by_tenths() {
        let bin = |claimed, count, of| Bin { claimed, relevant: Estimate::wilson(count, of) };
        let bins = [bin(0.5, 1, 4), bin(0.5, 3, 4), bin(1.0, 2, 2), bin(0.0, 0, 3)];
        assert_eq!(pooled(bins.iter()), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)]);
        assert!(pooled(std::iter::empty()).is_empty());
    }
}
