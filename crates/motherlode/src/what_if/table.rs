//! The consequences as a table for a terminal.

use std::fmt;

use super::{Consequence, WhatIf};
use crate::judge::{Corrected, Estimate};

const HEAD: [&str; 9] = [
    "policy",
    "language",
    "queries",
    "kept/query",
    "enough",
    "judge says relevant",
    "estimated relevant [95 %]",
    "score",
    "below s+",
];

impl fmt::Display for WhatIf {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = vec![HEAD.map(str::to_owned)];
        lines.extend(self.rows.iter().map(cells));
        let widths: Vec<usize> = (0..HEAD.len())
            .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
            .collect();
        for line in &lines {
            for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
                match column {
                    0 => write!(formatter, "{cell:<width$}")?,
                    1 => write!(formatter, "  {cell:<width$}")?,
                    _ => write!(formatter, "  {cell:>width$}")?,
                }
            }
            writeln!(formatter)?;
        }
        Ok(())
    }
}

fn cells(row: &Consequence) -> [String; 9] {
    let number = |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
    let per_query = |count: usize| (row.queries > 0).then(|| count as f64 / row.queries as f64);
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    [
        row.policy.clone(),
        row.language.as_ref().map_or("all".to_owned(), ToString::to_string),
        row.queries.to_string(),
        number(per_query(row.kept), 1),
        per_query(row.sufficient).map_or("-".to_owned(), percent),
        match row.apparent {
            Estimate::Share { rate, .. } => percent(rate),
            Estimate::NotEstimable => "not judged".to_owned(),
        },
        match row.false_negatives {
            Corrected::Rate { rate, low, high } => {
                format!("{} [{:.1}, {:.1}]", percent(rate), 100.0 * low, 100.0 * high)
            }
            Corrected::NotEstimable => "not estimable".to_owned(),
        },
        number(row.hardness, 3),
        number(row.margin, 3),
    ]
}
