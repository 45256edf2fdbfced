//! Dropout without state: the mask of an element is a hash of where it stands.

/// Where in the encoder an activation is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    /// After the normalisation of the embeddings.
    Embeddings,
    /// On the attention probabilities of one layer and head.
    Probabilities {
        /// Counted from 0.
        layer: usize,
        /// Counted from 0.
        head: usize,
    },
    /// On the output of the attention of one layer.
    Attention {
        /// Counted from 0.
        layer: usize,
    },
    /// On the output of the feed-forward part of one layer.
    FeedForward {
        /// Counted from 0.
        layer: usize,
    },
    /// On the input of a low-rank adapter of one layer.
    Adapter {
        /// Counted from 0.
        layer: usize,
        /// Counted from 0 within the layer.
        index: usize,
    },
}

impl Site {
    fn number(self) -> u64 {
        match self {
            Self::Embeddings => 0,
            Self::Attention { layer } => 1 + 4 * layer as u64,
            Self::FeedForward { layer } => 2 + 4 * layer as u64,
            Self::Probabilities { layer, head } => 3 + 4 * layer as u64 + ((head as u64) << 32),
            Self::Adapter { layer, index } => 4 + 4 * layer as u64 + ((index as u64) << 32),
        }
    }
}

/// The masks of one forward pass, or none.
#[derive(Debug, Clone, Copy)]
pub struct Dropout {
    /// An element whose 32 random bits are below this is dropped.
    threshold: u32,
    /// What the others are multiplied by, 1 / (1 − rate).
    scale: f32,
    key: u64,
}

impl Dropout {
    /// Drops nothing.
    pub const OFF: Self = Self { threshold: 0, scale: 1.0, key: 0 };

    /// Masks that drop an element with probability `rate`, keyed by seed and optimiser step.
    pub fn new(rate: f32, seed: u64, step: u64) -> Self {
        let threshold = (f64::from(rate) * f64::from(u32::MAX)) as u32;
        let key = scramble(scramble(seed) ^ step);
        Self { threshold, scale: (1.0 - rate).recip(), key }
    }

    /// Zeroes the dropped elements of `values` and scales the others; the first row is row `first` of its site.
    ///
    /// Forward and backward are the same operation.
    pub fn apply(&self, site: Site, first: usize, width: usize, values: &mut [f32]) {
        if self.threshold == 0 {
            return;
        }
        let key = scramble(self.key ^ scramble(site.number()));
        for (index, row) in values.chunks_mut(width).enumerate() {
            mask(row, scramble(key ^ (first + index) as u64), *self);
        }
    }
}

vectorised! {
    fn mask<'a>(row: &'a mut [f32], key: u64, dropout: Dropout) {
        let keys = [key as u32, (key >> 32) as u32];
        for (place, value) in row.iter_mut().enumerate() {
            let kept = bits(keys, place as u32) >= dropout.threshold;
            *value *= if kept { dropout.scale } else { 0.0 };
        }
    }
}

/// 32 random bits for a place under a key. Source: the finaliser `lowbias32` of C. Wellons' hash prospector, twice.
#[inline(always)]
fn bits(keys: [u32; 2], place: u32) -> u32 {
    let mut bits = place ^ keys[0];
    for key in keys {
        bits ^= bits >> 16;
        bits = bits.wrapping_mul(0x7feb_352d);
        bits ^= bits >> 15;
        bits = bits.wrapping_mul(0x846c_a68b);
        bits ^= (bits >> 16) ^ key;
    }
    bits
}

/// Source: the output function of `SplitMix64` (Steele, Lea and Flood 2014).
fn scramble(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(dropout: Dropout, site: Site, first: usize, rows: usize) -> Vec<f32> {
        let mut values = vec![1.0; rows * 100];
        dropout.apply(site, first, 100, &mut values);
        values
    }

    #[test]
    fn the_share_of_dropped_elements_is_the_rate_and_the_mean_stays() {
        for rate in [0.1, 0.5] {
            let values = masked(Dropout::new(rate, 7, 3), Site::Embeddings, 0, 2000);
            let dropped = values.iter().filter(|value| **value < 0.5).count() as f32 / 200_000.0;
            assert!((dropped - rate).abs() < 0.005, "{dropped} dropped at {rate}");
            assert!((values.iter().sum::<f32>() / 200_000.0 - 1.0).abs() < 0.01);
        }
    }

    #[test]
    fn masks_depend_on_every_part_of_their_place_and_not_on_how_rows_are_grouped() {
        let dropout = Dropout::new(0.5, 1, 2);
        let layer = |layer| Site::Attention { layer };
        let all = masked(dropout, layer(1), 0, 8);
        assert_eq!(all[400..], masked(dropout, layer(1), 4, 4));
        assert_ne!(all, masked(dropout, layer(2), 0, 8));
        assert_ne!(all, masked(dropout, Site::FeedForward { layer: 1 }, 0, 8));
        assert_ne!(
            masked(dropout, Site::Probabilities { layer: 0, head: 0 }, 0, 8),
            masked(dropout, Site::Probabilities { layer: 0, head: 1 }, 0, 8)
        );
        for other in [Dropout::new(0.5, 9, 2), Dropout::new(0.5, 1, 9)] {
            assert_ne!(all, masked(other, layer(1), 0, 8));
        }
    }

    #[test]
    fn off_changes_nothing() {
        assert!(masked(Dropout::OFF, Site::Embeddings, 0, 5).iter().all(|value| *value == 1.0));
        assert!(masked(Dropout::new(0.0, 1, 1), Site::Embeddings, 0, 5).iter().all(|value| *value == 1.0));
    }
}
