//! The bytes that encoding and training take, from the sizes alone; and what is computed twice so that a step fits.
//!
//! Every buffer of the engine that grows with the model or with the batch has its line here, and grows to its length and
//! not beyond (`kernel::buffer`); `tests/memory.rs` counts what is really allocated.

use std::ops::Range;

use motherlode::engine::{Footprint, LoadOptions, Recomputation};
use motherlode::memory::{self, readable};
use motherlode::{Error, Result};

use crate::adapter::Adapters;
use crate::gradient::GRADIENT_ROWS;
use crate::kernel::attention;
use crate::kernel::matrix::{Packing, Panels, Unit};
use crate::language_head::{ROWS, SLICES, TILE};
use crate::layout::Layout;
use crate::shape::{Activation, Output, Placement, Shape};
use crate::span::{self, Span};

/// Bytes of a value.
const VALUE: usize = size_of::<f32>();

/// Plans the memory of an encoder of one shape.
#[derive(Debug)]
pub(crate) struct Planner {
    shape: Shape,
    unit: Unit,
    /// Number of all weights.
    parameters: usize,
    /// Adapters in training.
    adapters: Option<AdapterSizes>,
    /// Bytes that may be taken.
    limit: u64,
    /// What `limit` comes from, for messages.
    limited_by: &'static str,
}

#[derive(Debug, Clone, Copy)]
struct AdapterSizes {
    rank: usize,
    parameters: usize,
    /// Parameters of a layer's adapters.
    of_layer: usize,
}

/// The sizes of a span that memory depends on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Piece {
    tokens: usize,
    /// Tokens of the longest sequence.
    longest: usize,
}

impl From<&Span<'_>> for Piece {
    fn from(span: &Span) -> Self {
        let longest = span.sequences.iter().map(Range::len).max().unwrap_or(0);
        Self { tokens: span.ids.len(), longest }
    }
}

impl Planner {
    /// A planner for what `options` say of precision, adapters and memory.
    pub(crate) fn new(shape: &Shape, options: &LoadOptions) -> Result<Self> {
        let sizes = |adapters: Adapters| AdapterSizes {
            rank: adapters.config.rank,
            parameters: adapters.layout.parameters(),
            of_layer: (0..shape.layers.len()).map(|layer| adapters.place(layer).len()).max().unwrap_or(0),
        };
        let adapters = options.lora.as_ref().map(|lora| Adapters::zero(lora, shape)).transpose()?;
        let free = memory::available().map_or(u64::MAX, |available| available / 10 * 9);
        Ok(Self {
            parameters: Layout::new(shape).parameters(),
            adapters: adapters.map(sizes),
            unit: Unit::of(options.precision),
            limit: options.memory.unwrap_or(free).saturating_sub(options.beside),
            limited_by: if options.memory.is_some() { "`memory` allows" } else { "9/10 of what is free are" },
            shape: shape.clone(),
        })
    }

    /// What encoding sequences of up to `longest` tokens takes.
    ///
    /// # Errors
    /// It does not fit.
    pub(crate) fn encoding(&self, longest: usize) -> Result<Footprint> {
        let longest = longest.min(self.shape.longest);
        let piece = Piece { tokens: longest.max(Span::MOST_TOKENS), longest };
        let worker = self.scratch(piece, None) + self.passing(piece.tokens);
        let footprint = Footprint {
            weights: (VALUE * self.parameters + self.rotary() + self.forward_panels()) as u64,
            scratch: (threads() * worker) as u64,
            ..Footprint::default()
        };
        if footprint.total() > self.limit {
            let (limit, limited) = (readable(self.limit), self.limited_by);
            let remedy = "free some, keep fewer layers (`encoder.layers`) or take a smaller model";
            return Err(Error::config(format!("encoding takes {footprint}, but only {limit} {limited}; {remedy}")));
        }
        Ok(footprint)
    }

    /// What training takes whose largest step has sequences of `lengths` tokens.
    ///
    /// # Errors
    /// It does not fit.
    pub(crate) fn training(&self, lengths: &[usize]) -> Result<Footprint> {
        let lengths: Vec<usize> = lengths.iter().map(|length| (*length).min(self.shape.longest)).collect();
        let pieces: Vec<Piece> = span::cut(&lengths)
            .map(|sequences| {
                let lengths = &lengths[sequences];
                Piece { tokens: lengths.iter().sum(), longest: lengths.iter().copied().max().unwrap_or(0) }
            })
            .collect();
        let recomputation = self.choose(&pieces)?;
        Ok(self.training_footprint(&pieces, recomputation))
    }

    /// What must be computed twice in a step of these spans.
    pub(crate) fn recomputation(&self, spans: &[Span]) -> Result<Recomputation> {
        self.choose(&spans.iter().map(Piece::from).collect::<Vec<_>>())
    }

    /// The groups of spans that go through the encoder one after the other.
    pub(crate) fn groups(&self, spans: &[Span], recomputation: Recomputation) -> Vec<Range<usize>> {
        self.cut(&spans.iter().map(Piece::from).collect::<Vec<_>>(), recomputation)
    }

    /// Whether there is memory for spans of so many tokens each.
    pub(crate) fn holds(&self, tokens: &[usize], layers_again: bool) -> bool {
        let pieces: Vec<Piece> = tokens.iter().map(|tokens| Piece { tokens: *tokens, longest: *tokens }).collect();
        let kept: usize = tokens.iter().map(|tokens| self.span(*tokens, layers_again)).sum();
        kept as u64 <= self.room(&pieces, layers_again)
    }

    /// The cheapest recomputation that fits.
    fn choose(&self, pieces: &[Piece]) -> Result<Recomputation> {
        let sum = |layers| pieces.iter().map(|piece| self.span(piece.tokens, layers) as u64).sum::<u64>();
        let largest = |layers| self.span(largest(pieces).tokens, layers) as u64;
        for layers in [false, true] {
            if sum(layers) <= self.room(pieces, layers) {
                return Ok(Recomputation { layers, groups: 1 });
            }
        }
        // A group should have work for every thread.
        for (layers, spans) in [(false, threads() as u64), (true, 1)] {
            if spans * largest(layers) <= self.room(pieces, layers) {
                let recomputation = Recomputation { layers, groups: 2 };
                return Ok(Recomputation { groups: self.cut(pieces, recomputation).len(), ..recomputation });
            }
        }
        Err(self.refuse(pieces))
    }

    fn cut(&self, pieces: &[Piece], recomputation: Recomputation) -> Vec<Range<usize>> {
        if recomputation.groups == 1 {
            return std::iter::once(0..pieces.len()).collect();
        }
        let (room, mut groups, mut sum) = (self.room(pieces, recomputation.layers), Vec::new(), 0);
        let mut start = 0;
        for (index, piece) in pieces.iter().enumerate() {
            let bytes = self.span(piece.tokens, recomputation.layers) as u64;
            if index > start && sum + bytes > room {
                groups.push(start..index);
                (start, sum) = (index, 0);
            }
            sum += bytes;
        }
        groups.push(start..pieces.len());
        groups
    }

    /// Bytes that are left for what is kept of spans.
    fn room(&self, pieces: &[Piece], layers_again: bool) -> u64 {
        self.limit.saturating_sub(self.fixed() + self.workers(pieces, layers_again))
    }

    /// Bytes that do not depend on the batch.
    fn fixed(&self) -> u64 {
        self.weights() + self.optimizer()
    }

    fn weights(&self) -> u64 {
        let adapters = self.adapters.map_or(0, |adapters| adapters.parameters);
        let panels = self.forward_panels() + self.backward_panels();
        (VALUE * (self.parameters + adapters) + self.rotary() + panels) as u64
    }

    /// Gradient and two moments; two marks for each word.
    fn optimizer(&self) -> u64 {
        match self.adapters {
            Some(AdapterSizes { parameters, .. }) => (3 * VALUE * parameters) as u64,
            None => (3 * VALUE * self.parameters + 2 * self.shape.vocabulary + self.of_tied_words()) as u64,
        }
    }

    /// The second gradient of word embeddings that are a head's weight too.
    fn of_tied_words(&self) -> usize {
        if self.shape.output == Output::Tied { VALUE * self.shape.vocabulary * self.shape.hidden } else { 0 }
    }

    fn workers(&self, pieces: &[Piece], layers_again: bool) -> u64 {
        let piece = largest(pieces);
        let worker = self.scratch(piece, Some(layers_again)) + self.passing(piece.tokens);
        let packing = Packing::bytes(GRADIENT_ROWS, self.unit);
        (threads() * (worker + packing) + self.head()) as u64
    }

    /// What a language model's head works in.
    fn head(&self) -> usize {
        let Shape { hidden, vocabulary, output, .. } = self.shape;
        if output == Output::Vectors {
            return 0;
        }
        let packed = self.panels(hidden, TILE).max(self.panels(TILE, hidden));
        let slice = VALUE * ROWS * hidden + packed + Packing::bytes(vocabulary, self.unit);
        VALUE * ROWS * (vocabulary + 2 * hidden) + self.panels(ROWS, hidden) + SLICES * slice
    }

    fn training_footprint(&self, pieces: &[Piece], recomputation: Recomputation) -> Footprint {
        let groups = self.cut(pieces, recomputation);
        let kept = |group: Range<usize>| -> usize {
            pieces[group].iter().map(|piece| self.span(piece.tokens, recomputation.layers)).sum()
        };
        Footprint {
            weights: self.weights(),
            optimizer: self.optimizer(),
            activations: groups.into_iter().map(kept).max().unwrap_or(0) as u64,
            scratch: self.workers(pieces, recomputation.layers),
            recomputation,
        }
    }

    fn refuse(&self, pieces: &[Piece]) -> Error {
        // Short sequences share a span.
        let packed = largest(pieces).tokens.min(Span::MOST_TOKENS);
        let fits = |length: &usize| {
            let piece = Piece { tokens: packed.max(*length), longest: *length };
            self.span(piece.tokens, true) as u64 <= self.room(&[piece], true)
        };
        let lengths: Vec<usize> = (1..=largest(pieces).longest).collect();
        let remedy = match lengths.partition_point(fits) {
            0 => {
                "train adapters (`train.lora`), keep fewer layers (`encoder.layers`) or take a smaller model".to_owned()
            }
            length => format!("sequences of up to {length} tokens would fit (`encoder.passage_length`)"),
        };
        let smallest = Recomputation { layers: true, groups: 1 };
        let needed = self.training_footprint(&[largest(pieces)], smallest);
        let limit = readable(self.limit);
        Error::config(format!("training needs at least {needed}, but {} {limit}; {remedy}", self.limited_by))
    }

    fn rotary(&self) -> usize {
        let Shape { thetas, longest, width, .. } = &self.shape;
        VALUE * thetas.len() * longest * width
    }

    fn forward_panels(&self) -> usize {
        let Shape { hidden, inner, .. } = self.shape;
        let (projected, context, expanded) = (self.shape.projected(), self.shape.context(), self.shape.expanded());
        let layer = [(hidden, projected), (context, hidden), (hidden, expanded), (inner, hidden)];
        self.shape.layers.len() * layer.map(|(depth, columns)| self.panels(depth, columns)).iter().sum::<usize>()
    }

    fn backward_panels(&self) -> usize {
        let Shape { hidden, inner, .. } = self.shape;
        let (projected, context, expanded) = (self.shape.projected(), self.shape.context(), self.shape.expanded());
        let layer = [(projected, hidden), (hidden, context), (expanded, hidden), (hidden, inner)];
        self.shape.layers.len() * layer.map(|(depth, columns)| self.panels(depth, columns)).iter().sum::<usize>()
    }

    fn panels(&self, depth: usize, columns: usize) -> usize {
        Panels::bytes(depth, columns, self.unit)
    }

    /// What a normalisation of rows of `width` values keeps.
    fn norm(rows: usize, width: usize) -> usize {
        VALUE * rows * (width + 1)
    }

    /// What is kept of a span of so many tokens in training.
    fn span(&self, tokens: usize, layers_again: bool) -> usize {
        let Shape { hidden, inner, .. } = self.shape;
        let layers = self.shape.layers.len();
        let kept = if layers_again { 0 } else { (0..layers).map(|layer| self.kept(layer, tokens, true)).sum() };
        let inputs = VALUE * tokens * hidden * layers;
        let outputs = VALUE * tokens * (2 * hidden + self.shape.expanded() + self.shape.projected());
        let sources = match self.adapters {
            Some(adapters) => VALUE * adapters.of_layer,
            None => {
                [hidden, self.shape.context(), hidden, inner].map(|columns| self.panels(tokens, columns)).iter().sum()
            }
        };
        // The gradient on its way, and the gradients of six normalisations.
        let way = VALUE * (tokens * hidden + 12 * hidden);
        kept + inputs + outputs + sources + way + self.ends(tokens)
    }

    /// The token vectors, and what the normalisations before and after the blocks keep.
    fn ends(&self, tokens: usize) -> usize {
        let Shape { hidden, norm, placement, .. } = self.shape;
        let norms = usize::from(norm.embeddings) + usize::from(placement == Placement::Before);
        VALUE * tokens * hidden + norms * Self::norm(tokens, hidden)
    }

    /// What a block keeps of so many tokens, beside its input.
    fn kept(&self, layer: usize, tokens: usize, for_backward: bool) -> usize {
        let Shape { hidden, heads, groups, width, placement, head_norms, activation, .. } = self.shape;
        let before = placement == Placement::Before;
        let attention_norm = !before || self.shape.layers[layer].attention_norm;
        let fused = self.adapters.is_none() && activation == Activation::Gelu && !for_backward;
        let mut width_of_token = self.shape.projected() + self.shape.context() + hidden;
        width_of_token += if before { hidden + if attention_norm { hidden } else { 0 } } else { 0 };
        width_of_token += if fused { 0 } else { self.shape.expanded() };
        let norms = (1 + usize::from(attention_norm)) * Self::norm(tokens, hidden);
        let of_heads = if head_norms { Self::norm(tokens * (heads + groups), width) } else { 0 };
        VALUE * tokens * width_of_token + norms + of_heads
    }

    /// What a thread takes for a pass of so many tokens without a way back, beside its scratch memory.
    fn passing(&self, tokens: usize) -> usize {
        VALUE * tokens * self.shape.hidden + self.ends(tokens)
    }

    /// What a thread works in; `layers_again` is none without a way back.
    fn scratch(&self, piece: Piece, layers_again: Option<bool>) -> usize {
        let Shape { hidden, inner, heads, width, placement, head_norms, activation, .. } = self.shape;
        let Piece { tokens, .. } = piece;
        let (training, again) = (layers_again.is_some(), layers_again == Some(true));
        let mut of_token = hidden + inner;
        of_token += if again && placement == Placement::After { hidden } else { 0 };
        of_token += if training { self.shape.context() } else { 0 };
        let gated = self.adapters.is_some() || activation != Activation::Gelu;
        of_token += if training && gated { inner } else { 0 };
        of_token += if head_norms { 2 * heads * width } else { 0 };
        let kept = (0..self.shape.layers.len()).map(|layer| self.kept(layer, tokens, again)).max().unwrap_or(0);
        let products = Packing::bytes(tokens, self.unit) + self.adapter_scratch(tokens);
        VALUE * tokens * of_token + kept + products + self.attention(piece, training)
    }

    fn adapter_scratch(&self, tokens: usize) -> usize {
        let Some(AdapterSizes { rank, .. }) = self.adapters else { return 0 };
        let inputs = self.shape.hidden.max(self.shape.context()).max(self.shape.inner);
        let outputs = self.shape.projected().max(self.shape.expanded());
        let packed = [(rank, outputs), (inputs, rank), (tokens, rank), (tokens, inputs), (rank, inputs)];
        let packed = packed.map(|(depth, columns)| self.panels(depth, columns)).into_iter().max().unwrap_or(0);
        VALUE * tokens * (inputs + 2 * rank) + packed + Packing::bytes(tokens, self.unit)
    }

    fn attention(&self, piece: Piece, training: bool) -> usize {
        let masks = self.shape.layers.iter().map(|layer| layer.mask);
        masks
            .map(|mask| attention::Scratch::bytes(mask, piece.longest, self.shape.width, self.unit, training))
            .max()
            .unwrap_or(0)
    }
}

fn largest(pieces: &[Piece]) -> Piece {
    let most = |size: fn(&Piece) -> usize| pieces.iter().map(size).max().unwrap_or(0);
    Piece { tokens: most(|piece| piece.tokens), longest: most(|piece| piece.longest) }
}

fn threads() -> usize {
    rayon::current_num_threads()
}
