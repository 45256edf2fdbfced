//! The bytes that encoding and training take on a card, from the sizes alone; and what is computed twice so that a
//! step fits.
//!
//! The counterpart of `crate::footprint`: every buffer of `network` and `trainable` that grows with the model or with
//! the batch is counted here, and a test compares with what is allocated.

use std::ops::Range;

use motherlode::engine::{Footprint, LoadOptions, Precision, Recomputation};
use motherlode::memory::readable;
use motherlode::{Error, Result};

use super::kernels::{PART_ROWS, PART_VALUES, SLOPE_ROWS};
use crate::layout::Layout;
use crate::shape::Shape;

/// Bytes of a value.
const VALUE: usize = size_of::<f32>();
/// Bytes of a rounded value.
const ROUNDED: usize = size_of::<u16>();
/// Bytes of an index.
const INDEX: usize = size_of::<i32>();

/// Plans the memory of an encoder of one shape.
#[derive(Debug)]
pub(crate) struct CardPlan {
    shape: Shape,
    parameters: usize,
    /// Parameters that are rounded for the products; none in f32.
    rounded: usize,
    /// Bytes of a value between two products.
    activation: usize,
    /// Bytes of a value that is also an operand of products.
    stream: usize,
    /// Bytes that may be taken.
    limit: u64,
    /// What `limit` comes from, for messages.
    limited_by: &'static str,
}

impl CardPlan {
    /// A plan for what `options` say, on a card with so many bytes `free`.
    pub(crate) fn new(shape: &Shape, options: &LoadOptions, free: u64) -> Self {
        let layout = Layout::new(shape);
        let parameters = layout.parameters();
        let of_blocks = parameters - layout.place(0).start;
        let (rounded, activation, stream) = match options.precision {
            Precision::F32 | Precision::Bf16x3 => (0, VALUE, VALUE),
            Precision::Bf16 => (of_blocks, ROUNDED, VALUE + ROUNDED),
        };
        Self {
            parameters,
            rounded,
            activation,
            stream,
            limit: options.memory.unwrap_or(free / 10 * 9).saturating_sub(options.beside),
            limited_by: if options.memory.is_some() {
                "`memory` allows"
            } else {
                "9/10 of what is free on the card are"
            },
            shape: shape.clone(),
        }
    }

    /// What encoding takes of sequences of up to `longest` tokens, one at a time at least.
    ///
    /// # Errors
    /// It does not fit.
    pub(crate) fn encoding(&self, longest: usize) -> Result<Footprint> {
        let (longest, fixed) = (longest.min(self.shape.longest), self.weights());
        let footprint = Footprint { weights: fixed, scratch: self.passing(longest) as u64, ..Footprint::default() };
        if footprint.total() > self.limit {
            let (limit, limited) = (readable(self.limit), self.limited_by);
            let message = format!("encoding takes {footprint}, but only {limit} {limited}; take a smaller model");
            return Err(Error::config(message));
        }
        Ok(footprint)
    }

    /// What training takes whose largest step has sequences of `lengths` tokens.
    ///
    /// # Errors
    /// It does not fit.
    pub(crate) fn training(&self, lengths: &[usize]) -> Result<Footprint> {
        let lengths: Vec<usize> = lengths.iter().map(|length| (*length).min(self.shape.longest)).collect();
        let recomputation = self.recomputation(&lengths)?;
        let groups = self.groups(&lengths, recomputation);
        let tokens = groups.into_iter().map(|group| lengths[group].iter().sum()).max().unwrap_or(0);
        Ok(Footprint {
            weights: self.weights(),
            optimizer: self.optimizer(),
            activations: self.pass(tokens, recomputation.layers) as u64,
            scratch: self.scratch(tokens) as u64,
            recomputation,
        })
    }

    /// The cheapest recomputation of a step of sequences of these lengths that fits.
    pub(crate) fn recomputation(&self, lengths: &[usize]) -> Result<Recomputation> {
        let tokens = lengths.iter().sum();
        for layers in [false, true] {
            if self.fits(tokens, layers) {
                return Ok(Recomputation { layers, groups: 1 });
            }
        }
        let longest = lengths.iter().copied().max().unwrap_or(0);
        if !self.fits(longest, true) {
            return Err(self.refuse(longest));
        }
        let recomputation = Recomputation { layers: true, groups: 2 };
        Ok(Recomputation { groups: self.groups(lengths, recomputation).len(), ..recomputation })
    }

    /// The groups of sequences that go through the encoder one after the other.
    pub(crate) fn groups(&self, lengths: &[usize], recomputation: Recomputation) -> Vec<Range<usize>> {
        cut(lengths, |tokens| recomputation.groups == 1 || self.fits(tokens, recomputation.layers))
    }

    /// The groups of sequences that are encoded one after the other.
    pub(crate) fn encoded(&self, lengths: &[usize], taken: u64) -> Vec<Range<usize>> {
        cut(lengths, |tokens| taken + self.passing(tokens) as u64 <= self.limit)
    }

    fn fits(&self, tokens: usize, layers_again: bool) -> bool {
        self.step(tokens, layers_again) <= self.limit
    }

    /// What a step of so many tokens takes in all.
    fn step(&self, tokens: usize, layers_again: bool) -> u64 {
        self.weights() + self.optimizer() + (self.pass(tokens, layers_again) + self.scratch(tokens)) as u64
    }

    fn refuse(&self, tokens: usize) -> Error {
        let fitting = (1..tokens).rev().find(|tokens| self.fits(*tokens, true));
        let remedy = match fitting {
            Some(fitting) => format!("cut texts to {fitting} tokens, or keep fewer layers"),
            None => "take a smaller model".to_owned(),
        };
        let (needed, limit, limited) = (readable(self.step(tokens, true)), readable(self.limit), self.limited_by);
        Error::config(format!(
            "a training step of one sequence of {tokens} tokens takes {needed}, but only {limit} {limited}; {remedy}"
        ))
    }

    /// The weights.
    pub(crate) fn weights(&self) -> u64 {
        (VALUE * self.parameters + ROUNDED * self.rounded) as u64
    }

    /// The gradient, the moments, and the parts of the gradient's norm.
    pub(crate) fn optimizer(&self) -> u64 {
        (VALUE * 3 * self.parameters + 2 * VALUE * self.parameters.div_ceil(PART_VALUES)) as u64
    }

    /// What a token leaves in a block, beside the block's input.
    fn kept(&self) -> usize {
        let Shape { hidden, heads, inner, .. } = self.shape;
        let activations = self.shape.projected() + self.shape.context() + inner;
        self.activation * activations + VALUE * heads + self.stream * hidden
    }

    /// What a token leaves in a normalisation.
    fn norm(&self) -> usize {
        VALUE * (self.shape.hidden + 1)
    }

    /// What a pass with a way back leaves.
    fn pass(&self, tokens: usize, layers_again: bool) -> usize {
        let (hidden, layers) = (self.shape.hidden, self.shape.layers.len());
        let blocks = if layers_again { 1 } else { layers };
        tokens * (self.stream * (layers + 1) * hidden + blocks * (self.kept() + 2 * self.norm()) + self.norm())
    }

    /// Working memory of both directions.
    fn scratch(&self, tokens: usize) -> usize {
        let Shape { hidden, heads, inner, .. } = self.shape;
        let widest = inner.max(self.shape.projected()).max(hidden);
        let activations = hidden + 2 * inner + self.shape.context() + self.shape.projected();
        let of_blocks = 2 * tokens.div_ceil(SLOPE_ROWS) * hidden;
        let parts = VALUE * (of_blocks + tokens.div_ceil(PART_ROWS) * widest);
        let token = self.activation * activations + self.stream * hidden + VALUE * heads;
        tokens * token + parts + self.batch(tokens)
    }

    /// What a pass without a way back takes, working memory included.
    fn passing(&self, tokens: usize) -> usize {
        let Shape { hidden, inner, .. } = self.shape;
        let token = 2 * self.stream * hidden + self.kept() + self.activation * (hidden + inner);
        tokens * token + self.batch(tokens)
    }

    /// Tokens, positions, where they stand, and vectors, of which there are at most as many as tokens.
    fn batch(&self, tokens: usize) -> usize {
        tokens * (8 * INDEX + 2 * VALUE * self.shape.hidden)
    }
}

/// Cuts sequences into groups that are as large as fits, and of one sequence at least.
fn cut(lengths: &[usize], fits: impl Fn(usize) -> bool) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let (mut start, mut tokens) = (0, 0);
    for (index, length) in lengths.iter().enumerate() {
        if index > start && !fits(tokens + length) {
            groups.push(start..index);
            (start, tokens) = (index, 0);
        }
        tokens += length;
    }
    groups.push(start..lengths.len());
    groups
}
