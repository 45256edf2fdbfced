//! The language-model head: logits of words, the cross-entropy of the right ones, and the way back.
//!
//! A few rows of token vectors are taken at a time, so that logits of all tokens never exist together. The vocabulary is
//! cut into slices, one for a thread at a time; sums over slices are taken in their order, so that no result depends on
//! the number of threads.

use std::ops::Range;

use rayon::prelude::*;

use crate::kernel::buffer::resize;
use crate::kernel::cross_entropy::{join, probabilities, summarise};
use crate::kernel::lanes::add;
use crate::kernel::matrix::{Packing, Panels, Start, Unit, View, ViewMut, multiply};

/// Token vectors whose logits exist at a time.
pub(crate) const ROWS: usize = 128;
/// Slices of the vocabulary: up to 16 threads have work.
pub(crate) const SLICES: usize = 16;
/// Words whose vectors are packed at a time.
pub(crate) const TILE: usize = 256;
/// Slices are made of so many words at least.
const GRAIN: usize = 32;

/// Working memory of a head.
#[derive(Debug)]
pub(crate) struct LanguageHead {
    hidden: usize,
    unit: Unit,
    slices: Vec<Slice>,
    /// ln Σ eˣ of each row.
    normalisers: Vec<f32>,
    /// The token vectors, packed for the gradient of the words' vectors.
    panels: Panels,
}

/// A part of the vocabulary.
#[derive(Debug, Default)]
struct Slice {
    words: Range<usize>,
    /// Rows × words: logits, then their slopes.
    logits: Vec<f32>,
    greatest: Vec<f32>,
    sums: Vec<f32>,
    /// The slice's part of ∂loss/∂token vectors, rows × H.
    vectors: Vec<f32>,
    panels: Panels,
    packing: Packing,
}

/// Some token vectors, and the word that follows each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// Rows × H, at most [`ROWS`] of them.
    pub(crate) vectors: &'a [f32],
    pub(crate) targets: &'a [u32],
}

impl LanguageHead {
    /// A head over `vocabulary` words.
    pub(crate) fn new(vocabulary: usize, hidden: usize, unit: Unit) -> Self {
        let width = vocabulary.div_ceil(SLICES).next_multiple_of(GRAIN);
        let slice = |first| Slice { words: first..vocabulary.min(first + width), ..Slice::default() };
        let slices = (0..vocabulary).step_by(width).map(slice).collect();
        Self { hidden, unit, slices, normalisers: Vec::new(), panels: Panels::default() }
    }

    /// Σ −ln p of the right words. Shape of `weight`: vocabulary × H.
    pub(crate) fn forward(&mut self, weight: &[f32], rows: Rows) -> f64 {
        let (hidden, unit) = (self.hidden, self.unit);
        self.slices.par_iter_mut().with_max_len(1).for_each(|slice| slice.forward(weight, rows, hidden, unit));
        let slices = &self.slices;
        self.normalisers.clear();
        self.normalisers.extend(
            (0..rows.targets.len()).map(|row| join(slices.iter().map(|slice| (slice.greatest[row], slice.sums[row])))),
        );
        let right = |row: usize, target: u32| {
            let slice = slices.iter().find(|slice| slice.words.contains(&(target as usize)));
            let slice = slice.expect("targets are words of the vocabulary");
            slice.logits[row * slice.words.len() + target as usize - slice.words.start]
        };
        let terms = rows.targets.iter().zip(&self.normalisers).enumerate();
        terms.map(|(row, (target, normaliser))| f64::from(*normaliser) - f64::from(right(row, *target))).sum()
    }

    /// After `forward` of the same rows: writes ∂loss/∂token vectors to `out`, and adds ∂loss/∂weight to `of_weight` if
    /// there is one; the loss is `scale` × what `forward` gave.
    pub(crate) fn backward(
        &mut self,
        weight: &[f32],
        rows: Rows,
        scale: f32,
        of_weight: Option<&mut [f32]>,
        out: &mut [f32],
    ) {
        let Self { hidden, unit, slices, normalisers, panels } = self;
        let (hidden, unit, normalisers) = (*hidden, *unit, &*normalisers);
        let mut rest = of_weight;
        if rest.is_some() {
            panels.pack(View::new(rows.vectors, hidden), unit);
        }
        let parts: Vec<Option<&mut [f32]>> = slices
            .iter()
            .map(|slice| {
                let (part, others) = rest.take()?.split_at_mut(slice.words.len() * hidden);
                rest = Some(others);
                Some(part)
            })
            .collect();
        let panels = &*panels;
        slices.par_iter_mut().zip(parts).with_max_len(1).for_each(|(slice, of_weight)| {
            slice.slopes(rows.targets, normalisers, scale);
            slice.of_vectors(weight, hidden, unit);
            if let Some(of_weight) = of_weight {
                slice.of_weight(panels, of_weight, hidden);
            }
        });
        out.fill(0.0);
        slices.iter().for_each(|slice| add(out, &slice.vectors));
    }
}

impl Slice {
    /// The stretches of words that are packed at a time.
    fn tiles(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let words = self.words.clone();
        words.clone().step_by(TILE).map(move |first| first..words.end.min(first + TILE))
    }

    fn forward(&mut self, weight: &[f32], rows: Rows, hidden: usize, unit: Unit) {
        let (count, width) = (rows.targets.len(), self.words.len());
        resize(&mut self.logits, count * width, 0.0);
        for words in self.tiles() {
            let place = words.start - self.words.start;
            self.panels.pack(View::new(&weight[words.start * hidden..words.end * hidden], hidden).transposed(), unit);
            let out = ViewMut::new(&mut self.logits[place..], width);
            multiply(out, Start::Zero, View::new(rows.vectors, hidden), &self.panels, &mut self.packing);
        }
        resize(&mut self.greatest, count, 0.0);
        resize(&mut self.sums, count, 0.0);
        summarise(&self.logits, width, &mut self.greatest, &mut self.sums);
    }

    /// Turns logits into ∂loss/∂logits.
    fn slopes(&mut self, targets: &[u32], normalisers: &[f32], scale: f32) {
        let width = self.words.len();
        probabilities(&mut self.logits, width, normalisers, scale);
        for (row, target) in self.logits.chunks_exact_mut(width).zip(targets) {
            if self.words.contains(&(*target as usize)) {
                row[*target as usize - self.words.start] -= scale;
            }
        }
    }

    /// `vectors` = slopes · the slice's part of the weight.
    fn of_vectors(&mut self, weight: &[f32], hidden: usize, unit: Unit) {
        let width = self.words.len();
        let count = self.logits.len() / width;
        resize(&mut self.vectors, count * hidden, 0.0);
        for words in self.tiles() {
            let place = words.start - self.words.start;
            self.panels.pack(View::new(&weight[words.start * hidden..words.end * hidden], hidden), unit);
            let start = if place == 0 { Start::Zero } else { Start::Current };
            let left = View::strided(&self.logits[place..], count, words.len(), width);
            multiply(ViewMut::new(&mut self.vectors, hidden), start, left, &self.panels, &mut self.packing);
        }
    }

    /// ∂loss/∂weight += slopesᵀ · token vectors, which `panels` holds.
    fn of_weight(&mut self, panels: &Panels, of_weight: &mut [f32], hidden: usize) {
        let left = View::new(&self.logits, self.words.len()).transposed();
        multiply(ViewMut::new(of_weight, hidden), Start::Current, left, panels, &mut self.packing);
    }
}
