//! The planned batches, a step at a time, and in which steps each query stands.

use rayon::prelude::*;

use super::catalogue::Catalogue;
use super::facts::{StepFacts, UsedStep};
use super::mapped_lines::MappedLines;
use crate::artefact::Artefact;
use crate::batch::{self, Step};
use crate::error::{Error, Result};

/// The steps of a training.
#[derive(Debug)]
pub(super) struct Steps {
    lines: MappedLines,
    /// For each row where its uses begin, and their end: rows + 1 values.
    starts: Vec<u32>,
    /// The steps of the first row, in order, then those of the second, and so on.
    uses: Vec<u32>,
}

impl Steps {
    /// Maps the batches and finds the uses of every row of the catalogue.
    pub(super) fn open(batches: &Artefact, catalogue: &Catalogue) -> Result<Self> {
        let lines = MappedLines::open(batches, batch::FILE)?;
        let rows_of = |step: usize| -> Result<Vec<u32>> {
            let facts: StepFacts = lines.read(step)?;
            let find = |language: &str, query: &str| {
                catalogue.find(language, query).map(|row| row as u32).ok_or_else(|| {
                    let message = format!("query `{query}` of `{language}` was not mined; plan the batches again");
                    Error::line(lines.path(), step as u64 + 1, message)
                })
            };
            facts.rows.iter().map(|row| find(&row.language, &row.query)).collect()
        };
        let rows: Vec<Vec<u32>> = (0..lines.len()).into_par_iter().map(rows_of).collect::<Result<_>>()?;
        let mut pairs: Vec<(u32, u32)> =
            (0..).zip(&rows).flat_map(|(step, rows)| rows.iter().map(move |row| (*row, step))).collect();
        pairs.par_sort_unstable();
        let before = |row: usize| pairs.partition_point(|(other, _)| (*other as usize) < row) as u32;
        let starts = (0..=catalogue.rows.len()).into_par_iter().map(before).collect();
        Ok(Self { lines, starts, uses: pairs.into_iter().map(|(_, step)| step).collect() })
    }

    /// Number of steps.
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Step `number`, from 0.
    pub(super) fn step(&self, number: usize) -> Result<Step> {
        self.lines.read(number)
    }

    /// What the rows of step `number` bring, borrowed from the file: for reading many steps at once.
    pub(super) fn brought(&self, number: usize) -> Result<UsedStep<'_>> {
        self.lines.read(number)
    }

    /// The steps in which a row stands, in order.
    pub(super) fn of(&self, row: usize) -> &[u32] {
        &self.uses[self.starts[row] as usize..self.starts[row + 1] as usize]
    }
}
