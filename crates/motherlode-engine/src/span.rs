//! Cutting a batch into pieces of whole sequences, each for one thread.

use std::ops::Range;

use motherlode::engine::TokenBatch;
use rayon::prelude::*;

use crate::kernel::dropout::Dropout;

/// Consecutive sequences of a batch that one thread takes through the encoder.
#[derive(Debug)]
pub(crate) struct Span<'a> {
    pub(crate) ids: &'a [u32],
    /// Where each sequence stands in `ids`.
    pub(crate) sequences: Vec<Range<usize>>,
    /// Position of the first token of each sequence: 0, unless it continues an earlier pass.
    pub(crate) starts: Vec<usize>,
    /// The place of the first token in the batch.
    pub(crate) first_token: usize,
    pub(crate) dropout: Dropout,
    /// Masks on the inputs of adapters.
    pub(crate) adapter_dropout: Dropout,
}

/// The dropout masks of a pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Masks {
    pub(crate) activations: Dropout,
    /// On the inputs of adapters.
    pub(crate) adapters: Dropout,
}

impl Masks {
    /// Drops nothing.
    pub(crate) const OFF: Self = Self { activations: Dropout::OFF, adapters: Dropout::OFF };
}

impl<'a> Span<'a> {
    /// The most tokens of a span that holds more than one sequence: its activations stay in the caches.
    pub(crate) const MOST_TOKENS: usize = 256;
    /// Spans are not made smaller than this for the sake of parallelism.
    const LEAST_TOKENS: usize = 64;
    /// As many spans as possible of a small batch, such that up to 16 threads have work.
    const WANTED: usize = 16;

    /// Cuts `batch` into spans; where, depends on nothing but the lengths of its sequences.
    pub(crate) fn cut(batch: &'a TokenBatch, masks: Masks) -> Vec<Self> {
        let lengths = batch.lengths();
        cut(&lengths).map(|sequences| Self::of(batch, sequences, masks)).collect()
    }

    fn of(batch: &'a TokenBatch, sequences: Range<usize>, masks: Masks) -> Self {
        let first_token = batch.range(sequences.start).start;
        let ids = &batch.ids()[first_token..batch.range(sequences.end - 1).end];
        let relative = |range: Range<usize>| range.start - first_token..range.end - first_token;
        Self {
            ids,
            starts: vec![0; sequences.len()],
            sequences: sequences.map(|index| relative(batch.range(index))).collect(),
            first_token,
            dropout: masks.activations,
            adapter_dropout: masks.adapters,
        }
    }
}

/// The sequences of each span of a batch whose sequences have these lengths.
pub(crate) fn cut(lengths: &[usize]) -> impl Iterator<Item = Range<usize>> {
    let tokens: usize = lengths.iter().sum();
    let limit = (tokens / Span::WANTED).clamp(Span::LEAST_TOKENS, Span::MOST_TOKENS);
    let mut first = 0;
    std::iter::from_fn(move || {
        let (start, rest) = (first, &lengths[first..]);
        let mut sum = 0;
        let fits = |length: &&usize| {
            sum += **length;
            sum <= limit
        };
        first += rest.iter().take_while(fits).count().max(usize::from(!rest.is_empty()));
        (first > start).then_some(start..first)
    })
}

/// Does `work` on all `items` in parallel. Threads take one at a time, from the largest down, so that none is left with a
/// large one when the others have finished.
pub(crate) fn longest_first<T: Send>(
    items: impl Iterator<Item = T>,
    size: impl Fn(&T) -> usize,
    work: impl Fn(T) + Sync + Send,
) {
    let mut items: Vec<T> = items.collect();
    items.sort_by_key(|item| std::cmp::Reverse(size(item)));
    items.into_iter().par_bridge().for_each(work);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_hold_every_sequence_once_and_in_order() {
        let lengths = [3, 200, 100, 1, 600, 20, 20];
        let batch: TokenBatch = lengths.iter().map(|length| vec![*length as u32; *length]).collect();
        let spans = Span::cut(&batch, Masks::OFF);
        let mut found = Vec::new();
        for span in &spans {
            assert_eq!(span.ids, &batch.ids()[span.first_token..span.first_token + span.ids.len()]);
            assert!(span.sequences.len() == 1 || span.ids.len() <= Span::MOST_TOKENS);
            found.extend(span.sequences.iter().map(|sequence| span.ids[sequence.clone()].len()));
        }
        assert_eq!(found, lengths);
        assert!(Span::cut(&TokenBatch::default(), Masks::OFF).is_empty());
    }
}
