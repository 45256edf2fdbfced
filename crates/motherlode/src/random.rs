//! Random numbers keyed by (seed, purpose, item), so that no result depends on threads, order or what was drawn before.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// A generator for one item of one purpose: the same three arguments give the same stream on every machine.
///
/// Source: the key is BLAKE3 over the seed and the length-prefixed strings; the stream is ChaCha8.
pub fn keyed(seed: u64, purpose: &str, item: &str) -> ChaCha8Rng {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    for part in [purpose, item] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::keyed;
    use rand::RngExt;

    #[test]
    fn streams_differ_by_each_part_of_the_key_and_repeat() {
        let draw = |seed, purpose, item| keyed(seed, purpose, item).random::<u64>();
        assert_eq!(draw(1, "batch", "q"), draw(1, "batch", "q"));
        assert_ne!(draw(1, "batch", "q"), draw(2, "batch", "q"));
        assert_ne!(draw(1, "batch", "q"), draw(1, "sample", "q"));
        assert_ne!(draw(1, "ab", "c"), draw(1, "a", "bc"));
    }
}
