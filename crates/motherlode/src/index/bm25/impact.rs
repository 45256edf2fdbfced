//! What a posting brings to a score, before idf; and the most that the postings of a window of passages bring.

use super::file::{Numbers, WINDOW};
use super::rounding::{rounded_frequency, rounded_length};

/// Impacts of postings: tf / (k1 (1 − b + b · length / average)), from the two bytes of a weight.
#[derive(Debug)]
pub(super) struct Impacts {
    /// For each rounded length: 1 / (k1 (1 − b + b · length / average)).
    norms: [f32; 256],
    /// For each rounded frequency the frequency.
    frequencies: [f32; 256],
}

impl Impacts {
    /// Source: Lucene, `BM25Similarity`, which computes this in f32.
    pub(super) fn new(numbers: &Numbers) -> Self {
        let average = (numbers.tokens as f64 / numbers.counted.max(1) as f64) as f32;
        let (k1, b) = (numbers.k1 as f32, numbers.b as f32);
        let norm = |length: u32| 1.0 / (k1 * ((1.0 - b) + b * length as f32 / average));
        Self {
            norms: std::array::from_fn(|byte| norm(rounded_length(byte as u8))),
            frequencies: std::array::from_fn(|byte| rounded_frequency(byte as u8) as f32),
        }
    }

    /// The impact of a posting.
    #[inline]
    pub(super) fn of(&self, weight: u16) -> f32 {
        self.frequencies[usize::from(weight & 255)] * self.norms[usize::from(weight >> 8)]
    }
}

/// What a posting brings to a score; `weight` is the term's idf, times how often the query has the term.
///
/// Never less for a higher impact, because each of the three operations is rounded to the nearest number.
#[inline]
pub(super) fn score(weight: f32, impact: f32) -> f32 {
    weight - weight / (1.0 + impact)
}

/// For each window of passages where its postings end, and the highest impact among them.
pub(super) fn windows_of(
    postings: impl Iterator<Item = (u32, u16)>,
    windows: usize,
    impacts: &Impacts,
) -> (Vec<u32>, Vec<f32>) {
    let (mut ends, mut highest) = (vec![0; windows], vec![0.0_f32; windows]);
    for (passage, weight) in postings {
        let window = passage as usize / WINDOW;
        if let (Some(count), Some(most)) = (ends.get_mut(window), highest.get_mut(window)) {
            *count += 1;
            *most = most.max(impacts.of(weight));
        }
    }
    let mut end = 0;
    for count in &mut ends {
        end += *count;
        *count = end;
    }
    (ends, highest)
}
