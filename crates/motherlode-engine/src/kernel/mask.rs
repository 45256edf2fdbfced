//! Which keys a query sees: those at most so many tokens before it, and at most so many after it.

use std::ops::Range;

/// Reach of a query, in tokens of its sequence; the query sees itself in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mask {
    /// Tokens before it.
    pub before: usize,
    /// Tokens after it.
    pub after: usize,
}

impl Mask {
    /// Every query sees the whole sequence.
    pub const NONE: Self = Self { before: usize::MAX, after: usize::MAX };
    /// Every query sees itself and what is before it.
    pub const CAUSAL: Self = Self { before: usize::MAX, after: 0 };
    /// Queries that are computed together where not all keys are seen.
    pub const TILE: usize = 128;

    /// The keys that query `query` of a sequence of `length` tokens sees.
    pub fn keys(&self, query: usize, length: usize) -> Range<usize> {
        query.saturating_sub(self.before)..query.saturating_add(self.after).saturating_add(1).min(length)
    }

    /// Stretches of the queries of a sequence, each with the keys that any query of it sees.
    ///
    /// Without a mask there is one; else long sequences are cut, so that keys that nobody sees cost nothing.
    pub fn tiles(self, length: usize) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let size = if self == Self::NONE { length.max(1) } else { Self::TILE };
        (0..length).step_by(size).map(move |first| {
            let queries = first..length.min(first + size);
            let keys = self.keys(first, length).start..self.keys(queries.end - 1, length).end;
            (queries, keys)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tiles_hold_every_query_once_and_just_the_keys_that_are_seen() {
        let masks = [
            Mask::NONE,
            Mask::CAUSAL,
            Mask { before: 3, after: 0 },
            Mask { before: 64, after: 64 },
            Mask { before: 0, after: 9 },
        ];
        for (mask, length) in masks.into_iter().flat_map(|mask| [0, 1, 128, 129, 400].map(|length| (mask, length))) {
            let tiles: Vec<_> = mask.tiles(length).collect();
            assert_eq!(
                tiles.iter().flat_map(|(queries, _)| queries.clone()).collect::<Vec<_>>(),
                (0..length).collect::<Vec<_>>()
            );
            for (queries, keys) in tiles {
                let seen = |key: &usize| {
                    queries.clone().any(|query| {
                        *key + mask.before.min(length) >= query && *key <= query.saturating_add(mask.after)
                    })
                };
                assert_eq!((0..length).filter(seen).collect::<Vec<_>>(), keys.collect::<Vec<_>>());
            }
        }
    }
}
