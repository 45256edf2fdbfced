//! Exact search: the best passages of every query by dot product, over all passages, in blocks.
//!
//! A tile of scores (queries × a block of passages) comes from a matrix product; only scores that reach a query's
//! current last place are looked at. Passages are read once for every group of queries; memory beyond the matrix is the tiles and
//! the lists, bounded by the caller. Results are the same, bit for bit, whatever the bound and the number of threads, and with or
//! without a [`Sieve`].

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::product::{BLOCK, dot_products};
use super::top::{Best, for_each_at_least};
use crate::corpus::PassageIndex;
pub use crate::encode::Matrix;
use crate::engine::Sieve;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::run::{Ranking, Scored};

mod sieve;

/// Queries of a group: fewer passes over the passages do not pay any more beyond this.
const LARGEST_GROUP: usize = 1024;
const SMALLEST_GROUP: usize = 8;
/// The same where a sieve looks at the passages, which must be copied to it for every group.
const LARGEST_SIEVED_GROUP: usize = 8192;

/// How two vectors are compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Similarity {
    /// Dot product of the vectors as they are; the cosine, if the encoder gives unit vectors.
    #[default]
    Dot,
    /// Dot product of the vectors brought to unit length.
    Cosine,
}

impl Similarity {
    /// The similarity of two vectors of equal length.
    pub fn of(self, a: &[f32], b: &[f32]) -> f32 {
        let dot = dot(a, b);
        let score = match self {
            Self::Dot => dot,
            Self::Cosine => dot * f64::from(inverse_length(a)) * f64::from(inverse_length(b)),
        };
        // A negative zero counts as zero, so that equal scores are ties.
        score as f32 + 0.0
    }
}

/// Eight sums side by side, which the processor adds to at once.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let product = |(a, b): (&f32, &f32)| f64::from(*a) * f64::from(*b);
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for (sum, pair) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += product(pair);
        }
    }
    sums.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(product).sum::<f64>()
}

/// One over the length of a vector; 1 for the vector of zeros.
fn inverse_length(vector: &[f32]) -> f32 {
    let square = dot(vector, vector);
    if square > 0.0 { (1.0 / square.sqrt()) as f32 } else { 1.0 }
}

/// One encoder's part in a sum of similarities.
#[derive(Clone, Copy)]
pub struct Member<'a> {
    /// n queries × d.
    pub queries: Matrix<'a>,
    /// m passages × d.
    pub passages: Matrix<'a>,
    /// What its similarity is multiplied with.
    pub weight: f32,
    /// How its vectors are compared.
    pub similarity: Similarity,
}

/// What a search is asked for.
#[derive(Clone, Copy)]
pub struct Search<'a> {
    /// Passages of a ranking, at most.
    pub depth: usize,
    /// The id ranks of the corpus, for THE tie rule.
    pub id_ranks: &'a [u32],
    /// Bytes for tiles and lists, about; little memory means more passes over the passages.
    pub memory: usize,
    /// What progress calls the search.
    pub task: &'a str,
    /// Counts passages, once for every group of queries.
    pub progress: &'a Progress<'a>,
    /// What looks at the passages first, if anything does.
    pub sieve: Option<&'a dyn Sieve>,
}

/// The best `depth` passages of every query by dot product, in THE order.
///
/// Shapes: `queries` n × d, `passages` m × d, `id_ranks` m; gives n rankings.
///
/// # Errors
/// Shapes that do not fit, a value that is not finite.
pub fn top_k(
    queries: Matrix<'_>,
    passages: Matrix<'_>,
    depth: usize,
    id_ranks: &[u32],
    memory: usize,
) -> Result<Vec<Ranking>> {
    let search = Search { depth, id_ranks, memory, task: "search", progress: &Progress::silent(), sieve: None };
    top_k_of_sum(&[Member { queries, passages, weight: 1.0, similarity: Similarity::Dot }], search)
}

/// The best passages of every query by the weighted sum of the members' similarities: what a search over the weighted
/// concatenation of their vectors finds, without making it.
///
/// # Errors
/// No member, shapes that do not fit, a value that is not finite.
pub fn top_k_of_sum(members: &[Member<'_>], search: Search<'_>) -> Result<Vec<Ranking>> {
    let queries = check(members, search.id_ranks.len())?;
    if search.depth == 0 || search.id_ranks.is_empty() {
        return Ok(vec![Ranking::new(); queries]);
    }
    let size = group_size(members, search);
    search.progress.begin(search.task, search.id_ranks.len() * queries.div_ceil(size), "passages");
    let mut rankings = Vec::with_capacity(queries);
    for start in (0..queries).step_by(size) {
        let group = Group::new(members, start..(start + size).min(queries));
        rankings.extend(group.search(search)?);
    }
    Ok(rankings)
}

/// Checks all shapes and the queries' values; gives the number of queries.
fn check(members: &[Member<'_>], passages: usize) -> Result<usize> {
    let first = members.first().ok_or_else(|| Error::data("a search needs at least one encoder's vectors"))?;
    for member in members {
        let (queries, stored) = (member.queries, member.passages);
        if queries.dimension() != stored.dimension() {
            let (expected, got) = (stored.dimension(), queries.dimension());
            return Err(Error::shape("query vectors", format!("dimension {expected}"), format!("dimension {got}")));
        }
        if queries.rows() != first.queries.rows() {
            return Err(Error::shape("query vectors", first.queries.rows(), queries.rows()));
        }
        if stored.rows() != passages {
            return Err(Error::shape("passage vectors", passages, stored.rows()));
        }
        queries.check_finite("query")?;
    }
    Ok(first.queries.rows())
}

/// As many queries as the memory holds tiles and lists for.
fn group_size(members: &[Member<'_>], search: Search<'_>) -> usize {
    let list = Best::capacity(search.depth) * size_of::<Scored>();
    let vectors: usize = members.iter().map(|member| member.queries.dimension() * size_of::<f32>()).sum();
    let query = rayon::current_num_threads() * (BLOCK * size_of::<f32>() + list) + vectors;
    let largest = if search.sieve.is_some() { LARGEST_SIEVED_GROUP } else { LARGEST_GROUP };
    (search.memory / query / SMALLEST_GROUP * SMALLEST_GROUP).clamp(SMALLEST_GROUP, largest)
}

/// Some queries, ready for the matrix product.
struct Group<'a> {
    count: usize,
    /// `count` rounded up; the vectors beyond it are zeros.
    padded: usize,
    parts: Vec<Part<'a>>,
}

/// One member's share: its queries, scaled, and its passages.
struct Part<'a> {
    /// `padded` × d.
    queries: Vec<f32>,
    passages: Matrix<'a>,
    similarity: Similarity,
}

impl<'a> Group<'a> {
    fn new(members: &[Member<'a>], range: Range<usize>) -> Self {
        let padded = range.len().next_multiple_of(SMALLEST_GROUP);
        let part = |member: &Member<'a>| {
            let dimension = member.queries.dimension();
            let mut queries = vec![0.0; padded * dimension];
            for (row, copy) in range.clone().zip(queries.chunks_mut(dimension)) {
                scale(member.queries.row(row), member.similarity, member.weight, copy);
            }
            Part { queries, passages: member.passages, similarity: member.similarity }
        };
        Self { count: range.len(), padded, parts: members.iter().map(part).collect() }
    }

    fn search(&self, search: Search<'_>) -> Result<Vec<Ranking>> {
        let passages = search.id_ranks.len();
        let mut bests = self.scan(search.sieve.map_or(passages, |_| passages.min(sieve::UNSIEVED)), search)?;
        if let Some(sieve) = search.sieve {
            self.sift(sieve, &mut bests, search)?;
        }
        Ok(bests.into_par_iter().map(|best| best.into_ranking(search.id_ranks)).collect())
    }

    /// The best of the first `passages`.
    ///
    /// Blocks are handed out one by one; every worker keeps lists of its own, which are merged at the end. THE order
    /// is total, so it does not matter who saw which block.
    fn scan(&self, passages: usize, search: Search<'_>) -> Result<Vec<Best>> {
        let blocks = AtomicUsize::new(0);
        let workers = (0..rayon::current_num_threads())
            .into_par_iter()
            .with_max_len(1)
            .map(|_| self.work(&blocks, passages, search))
            .collect::<Result<Vec<_>>>()?;
        let mut lists = workers.into_iter();
        let mut merged = lists.next().unwrap_or_default();
        for list in lists {
            merged = merged.into_iter().zip(list).map(|(a, b)| a.merge(b)).collect();
        }
        Ok(merged)
    }

    fn work(&self, blocks: &AtomicUsize, passages: usize, search: Search<'_>) -> Result<Vec<Best>> {
        let mut bests: Vec<Best> = (0..self.count).map(|_| Best::new(search.depth, f32::NEG_INFINITY)).collect();
        let (mut scores, mut copy) = (vec![0.0; self.padded * BLOCK], Vec::new());
        loop {
            let start = blocks.fetch_add(1, Ordering::Relaxed) * BLOCK;
            if start >= passages {
                return Ok(bests);
            }
            let range = start..(start + BLOCK).min(passages);
            self.score(&range, &mut scores, &mut copy)?;
            for (best, row) in bests.iter_mut().zip(scores.chunks(BLOCK)) {
                collect(best, &row[..range.len()], start, search.id_ranks)?;
            }
            search.progress.advance(range.len());
        }
    }

    /// Sets `scores`, `padded` × `BLOCK`, to the sums of the members' similarities with the passages of a block.
    fn score(&self, block: &Range<usize>, scores: &mut [f32], copy: &mut Vec<f32>) -> Result<()> {
        for (number, part) in self.parts.iter().enumerate() {
            let dimension = part.passages.dimension();
            let rows = part.passages.slice(block.clone());
            rows.check_finite_from("passage", block.start)?;
            let rows = if block.len() == BLOCK && part.similarity == Similarity::Dot {
                rows.values()
            } else {
                copy.clear();
                copy.resize(BLOCK * dimension, 0.0);
                for (row, copy) in (0..block.len()).zip(copy.chunks_mut(dimension)) {
                    scale(rows.row(row), part.similarity, 1.0, copy);
                }
                copy.as_slice()
            };
            dot_products(scores, &part.queries, rows, dimension, number > 0);
        }
        Ok(())
    }
}

/// Copies a vector times `weight`, brought to unit length where the similarity is the cosine.
fn scale(vector: &[f32], similarity: Similarity, weight: f32, copy: &mut [f32]) {
    let factor = match similarity {
        Similarity::Dot => weight,
        Similarity::Cosine => weight * inverse_length(vector),
    };
    for (copy, value) in copy.iter_mut().zip(vector) {
        *copy = value * factor;
    }
}

/// Takes the scores of one query and block that may be among the best.
fn collect(best: &mut Best, scores: &[f32], start: usize, id_ranks: &[u32]) -> Result<()> {
    let mut taken = Ok(());
    for_each_at_least(scores, best.floor(), |place, score| {
        if taken.is_ok() {
            taken = take(best, PassageIndex((start + place) as u32), score, id_ranks);
        }
    });
    taken
}

/// Takes a score that may be among the best.
fn take(best: &mut Best, passage: PassageIndex, score: f32, id_ranks: &[u32]) -> Result<()> {
    if score.is_nan() {
        let message = format!("the score of passage vector {} is no number; its values are too large", passage.0);
        return Err(Error::data(message));
    }
    // As above, a negative zero counts as zero.
    best.push(Scored { passage, score: score + 0.0 }, id_ranks);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Embeddings;
    use crate::random::keyed;
    use crate::run::rank_order;
    use proptest::prelude::*;
    use rand::RngExt;
    use std::sync::Mutex;

    const MEMORY: usize = 1 << 24;

    fn random(rows: usize, dimension: usize, name: &str) -> Embeddings {
        let mut random = keyed(1, "vectors", name);
        let values = (0..rows * dimension).map(|_| random.random::<f32>() - 0.5).collect();
        Embeddings::new(dimension, values).unwrap()
    }

    /// Few distinct small integers: products are exact, and ties are everywhere.
    fn coarse(rows: usize, dimension: usize, name: &str) -> Embeddings {
        let mut random = keyed(1, "coarse", name);
        let values = (0..rows * dimension).map(|_| f32::from(random.random_range(-1_i8..=1))).collect();
        Embeddings::new(dimension, values).unwrap()
    }

    fn brute_force(queries: &Embeddings, passages: &Embeddings, depth: usize, id_ranks: &[u32]) -> Vec<Ranking> {
        let ranking = |query: usize| {
            let score = |row| Similarity::Dot.of(queries.row(query), passages.row(row));
            let scored = |row| Scored { passage: PassageIndex(row as u32), score: score(row) };
            let mut all: Ranking = (0..passages.rows()).map(scored).collect();
            all.sort_by(|a, b| rank_order(a, b, id_ranks));
            all.truncate(depth);
            all
        };
        (0..queries.rows()).map(ranking).collect()
    }

    fn ranks(count: usize) -> Vec<u32> {
        (0..count as u32).map(|index| index ^ 1).map(|rank| rank.min(count as u32 - 1)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn equal_to_brute_force_with_ties(queries in 1_usize..20, passages in 1_usize..1200, depth in 1_usize..60) {
            let (q, p) = (coarse(queries, 6, "q"), coarse(passages, 6, "p"));
            let id_ranks: Vec<u32> = (0..passages as u32).rev().collect();
            let found = top_k((&q).into(), (&p).into(), depth, &id_ranks, MEMORY).unwrap();
            prop_assert_eq!(found, brute_force(&q, &p, depth, &id_ranks));
        }
    }

    #[test]
    fn equal_to_brute_force_on_real_values() {
        let (q, p) = (random(30, 384, "q"), random(3000, 384, "p"));
        let id_ranks = ranks(3000);
        let found = top_k((&q).into(), (&p).into(), 100, &id_ranks, MEMORY).unwrap();
        for (found, expected) in found.iter().zip(brute_force(&q, &p, 100, &id_ranks)) {
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found.score - expected.score).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn memory_and_threads_change_no_bit() {
        let (q, p) = (random(50, 700, "q"), random(2000, 700, "p"));
        let id_ranks = ranks(2000);
        let search = |memory, threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| top_k((&q).into(), (&p).into(), 20, &id_ranks, memory).unwrap())
        };
        let expected = search(MEMORY, 1);
        assert_eq!(search(1, 1), expected);
        assert_eq!(search(100_000, 3), expected);
        let alone = top_k(Matrix::from(&q).slice(3..4), (&p).into(), 20, &id_ranks, MEMORY).unwrap();
        assert_eq!(alone[0], expected[3]);
    }

    #[test]
    fn the_sum_of_members_equals_their_concatenation() {
        let (q, p) = ([random(9, 40, "q1"), random(9, 24, "q2")], [random(700, 40, "p1"), random(700, 24, "p2")]);
        let weights = [0.75_f32, 0.25];
        let join = |parts: &[Embeddings; 2], by: &dyn Fn(usize) -> f32| {
            let mut values = Vec::new();
            for row in 0..parts[0].rows() {
                for (number, part) in parts.iter().enumerate() {
                    let factor = inverse_length(part.row(row)) * by(number);
                    values.extend(part.row(row).iter().map(|value| value * factor));
                }
            }
            Embeddings::new(64, values).unwrap()
        };
        let id_ranks = ranks(700);
        let expected = brute_force(&join(&q, &|number| weights[number]), &join(&p, &|_| 1.0), 50, &id_ranks);
        let member = |n: usize| Member {
            queries: (&q[n]).into(),
            passages: (&p[n]).into(),
            weight: weights[n],
            similarity: Similarity::Cosine,
        };
        let silent = Progress::silent();
        let search =
            Search { depth: 50, id_ranks: &id_ranks, memory: MEMORY, task: "", progress: &silent, sieve: None };
        let found = top_k_of_sum(&[member(0), member(1)], search).unwrap();
        for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
            assert!((found.score - expected.score).abs() < 1e-5);
        }
    }

    #[test]
    fn values_that_are_not_finite_and_wrong_shapes_are_refused() {
        let (q, p) = (random(3, 8, "q"), random(600, 8, "p"));
        let id_ranks = ranks(600);
        let fails =
            |q: &Embeddings, p: &Embeddings| top_k(q.into(), p.into(), 5, &id_ranks, MEMORY).unwrap_err().to_string();
        for value in [f32::NAN, f32::NEG_INFINITY] {
            let mut broken = p.clone();
            broken.row_mut(577)[3] = value;
            assert!(fails(&q, &broken).contains("passage vector 577"), "{}", fails(&q, &broken));
        }
        let mut broken = q.clone();
        broken.row_mut(1)[0] = f32::NAN;
        assert!(fails(&broken, &p).contains("query vector 1"));
        assert!(fails(&random(3, 7, "q"), &p).contains("dimension 8"));
        assert!(fails(&q, &random(599, 8, "p")).contains("600"));
        let silent = Progress::silent();
        let search = Search { depth: 1, id_ranks: &[], memory: 1, task: "", progress: &silent, sieve: None };
        assert!(top_k_of_sum(&[], search).is_err());
    }

    /// Adds products from the last to the first, and counts what it lets through.
    #[derive(Debug, Default)]
    struct Backwards {
        queries: Mutex<Vec<(Vec<f32>, usize)>>,
        passed: AtomicUsize,
    }

    impl Sieve for Backwards {
        fn begin(&self, queries: &[(&[f32], usize)]) -> Result<()> {
            *self.queries.lock().unwrap() = queries.iter().map(|(values, d)| (values.to_vec(), *d)).collect();
            Ok(())
        }

        fn sift(&self, passages: &[&[f32]], floors: &[f32]) -> Result<Vec<[u32; 2]>> {
            let queries = self.queries.lock().unwrap();
            let rows = passages[0].len() / queries[0].1;
            let score = |query: usize, row: usize| -> f32 {
                let member = |((values, d), passages): (&(Vec<f32>, usize), &&[f32])| -> f32 {
                    let products = values[query * d..].iter().zip(&passages[row * d..]).take(*d).map(|(a, b)| a * b);
                    products.rev().sum()
                };
                queries.iter().zip(passages).map(member).sum()
            };
            let all = (0..floors.len()).flat_map(|query| (0..rows).map(move |row| (query, row)));
            let passing = all.filter(|(query, row)| score(*query, *row) >= floors[*query]);
            let pairs: Vec<_> = passing.map(|(query, row)| [query as u32, row as u32]).rev().collect();
            self.passed.fetch_add(pairs.len(), Ordering::Relaxed);
            Ok(pairs)
        }
    }

    #[test]
    fn a_sieve_changes_no_bit() {
        let (queries, rows) = (7, sieve::UNSIEVED + sieve::SIEVED + 700);
        let (q, p) =
            ([random(queries, 6, "q1"), random(queries, 9, "q2")], [random(rows, 6, "p1"), random(rows, 9, "p2")]);
        let (coarse_q, coarse_p) = (coarse(queries, 6, "q"), coarse(rows, 6, "p"));
        let (id_ranks, silent) = (ranks(rows), Progress::silent());
        let member = |n: usize, similarity| Member {
            queries: (&q[n]).into(),
            passages: (&p[n]).into(),
            weight: 0.5,
            similarity,
        };
        let ties = Member {
            queries: (&coarse_q).into(),
            passages: (&coarse_p).into(),
            weight: 1.0,
            similarity: Similarity::Dot,
        };
        let sums = [member(0, Similarity::Dot), member(1, Similarity::Cosine)];
        for (members, most) in [(&sums[..], 2 * rows), (&sums[1..], 2 * rows), (&[ties], 7 * rows)] {
            let search =
                Search { depth: 20, id_ranks: &id_ranks, memory: MEMORY, task: "", progress: &silent, sieve: None };
            let (expected, sieve) = (top_k_of_sum(members, search).unwrap(), Backwards::default());
            assert_eq!(top_k_of_sum(members, Search { sieve: Some(&sieve), ..search }).unwrap(), expected);
            let passed = sieve.passed.into_inner();
            assert!(passed > 0 && passed < most, "{passed} of {}", queries * rows);
        }
    }

    #[test]
    fn more_asked_than_exists_gives_all() {
        let (q, p) = (random(2, 8, "q"), random(3, 8, "p"));
        let found = top_k((&q).into(), (&p).into(), 10, &ranks(4)[..3], MEMORY).unwrap();
        assert!(found.iter().all(|ranking| ranking.len() == 3));
        let none = Embeddings::new(8, Vec::new()).unwrap();
        assert_eq!(top_k((&q).into(), (&none).into(), 10, &[], MEMORY).unwrap(), [Ranking::new(), Ranking::new()]);
    }
}
