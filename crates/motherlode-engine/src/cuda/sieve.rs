//! The exact search's first look at passages, on a card: scores of all pairs in f32, and which of them reach their floors.

use std::sync::{Arc, Mutex};

use motherlode::Result;
use motherlode::engine::Sieve;

use super::kernels::{Kernels, Operands, Sizes};
use super::memory::{Backend, Buffer};

/// Pairs for which there is room at first.
const ROOM: usize = 1 << 20;

/// Looks at passages on a card.
#[derive(Debug)]
pub(crate) struct CardSieve {
    kernels: Kernels,
    work: Mutex<Work>,
}

/// Memory of one search after the other.
#[derive(Debug)]
struct Work {
    /// The queries of each member, and their dimension.
    queries: Vec<(Buffer<f32>, usize)>,
    passages: Buffer<f32>,
    /// Queries × passages.
    scores: Buffer<f32>,
    floors: Buffer<f32>,
    count: Buffer<i32>,
    found: Buffer<i32>,
}

impl CardSieve {
    pub(crate) fn new(backend: &Arc<dyn Backend>) -> Self {
        let buffer = || Buffer::new(backend);
        let work = Work {
            queries: Vec::new(),
            passages: buffer(),
            scores: buffer(),
            floors: buffer(),
            count: Buffer::new(backend),
            found: Buffer::new(backend),
        };
        Self { kernels: Kernels { backend: backend.clone() }, work: Mutex::new(work) }
    }

    fn work(&self) -> std::sync::MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Sieve for CardSieve {
    fn begin(&self, queries: &[(&[f32], usize)]) -> Result<()> {
        let copy = |(values, dimension): &(&[f32], usize)| Ok((Buffer::of(&self.kernels.backend, values)?, *dimension));
        let mut work = self.work();
        // The old memory goes before the new one comes.
        work.queries.clear();
        work.queries = queries.iter().map(copy).collect::<Result<_>>()?;
        Ok(())
    }

    fn sift(&self, passages: &[&[f32]], floors: &[f32]) -> Result<Vec<[u32; 2]>> {
        let Work { queries, passages: on_card, scores, floors: limits, count, found } = &mut *self.work();
        let rows = floors.len();
        for (number, ((queries, depth), passages)) in queries.iter().zip(passages).enumerate() {
            let columns = passages.len() / *depth;
            on_card.write(passages)?;
            scores.resize(rows * columns)?;
            let sizes = Sizes { rows, columns, depth: *depth, transposed: [false, true] };
            let operands = Operands { left: queries.view(), right: on_card.view(), bias: None };
            self.kernels.multiply(sizes, operands, number > 0, scores.view_mut())?;
        }
        limits.write(floors)?;
        found.resize(found.length().max(2 * ROOM))?;
        let mut total = self.kernels.sift(scores.view(), limits.view(), count, found.view_mut())?;
        if 2 * total > found.length() {
            found.resize(2 * total)?;
            total = self.kernels.sift(scores.view(), limits.view(), count, found.view_mut())?;
        }
        let pairs = found.read_first(2 * total)?;
        Ok(pairs.chunks_exact(2).map(|pair| [pair[0] as u32, pair[1] as u32]).collect())
    }
}

#[cfg(test)]
mod tests {
    use motherlode::engine::Embeddings;
    use motherlode::index::exact::{Member, Search, Similarity, top_k_of_sum};
    use motherlode::progress::Progress;

    use super::*;
    use crate::cuda::testing::backends;
    use crate::kernel::testing::noise;

    #[test]
    fn what_reaches_its_floor_is_found_however_much_that_is() {
        let (queries, passages) = (noise(1, 3 * 5), noise(2, 400 * 5));
        let score = |query: usize, row: usize| -> f32 {
            (0..5).map(|place| queries[5 * query + place] * passages[5 * row + place]).sum()
        };
        for backend in backends() {
            let sieve = CardSieve::new(&backend);
            sieve.begin(&[(&queries, 5)]).unwrap();
            for floors in [[f32::NEG_INFINITY; 3], [0.1, 0.2, f32::INFINITY]] {
                let mut found = sieve.sift(&[&passages], &floors).unwrap();
                found.sort_unstable();
                let all = (0..3).flat_map(|query| (0..400).map(move |row| (query, row)));
                let expected: Vec<[u32; 2]> = all
                    .filter(|(query, row)| score(*query, *row) >= floors[*query])
                    .map(|(query, row)| [query as u32, row as u32])
                    .collect();
                assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn searches_find_the_same_with_a_card_bit_for_bit() {
        let (count, dimension, rows) = (6, 10, 5000);
        let vectors = |seed, rows| Embeddings::new(dimension, noise(seed, rows * dimension)).unwrap();
        let (queries, passages, id_ranks) = (vectors(1, count), vectors(2, rows), (0..rows as u32).collect::<Vec<_>>());
        let silent = Progress::silent();
        for backend in backends() {
            let sieve = CardSieve::new(&backend);
            for similarity in [Similarity::Dot, Similarity::Cosine] {
                let (queries, passages) = ((&queries).into(), (&passages).into());
                let members = [0.25, 0.75].map(|weight| Member { queries, passages, weight, similarity });
                let search = Search {
                    depth: 30,
                    id_ranks: &id_ranks,
                    memory: 1 << 24,
                    task: "search",
                    progress: &silent,
                    sieve: None,
                };
                let expected = top_k_of_sum(&members, search).unwrap();
                assert_eq!(top_k_of_sum(&members, Search { sieve: Some(&sieve), ..search }).unwrap(), expected);
            }
        }
    }
}
