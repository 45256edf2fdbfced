//! What the processor could do at most, and what an encoder asks of it.

use std::path::Path;
use std::time::Instant;

use motherlode::engine::TokenBatch;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// A loop of fused multiply-adds on registers.
pub(crate) struct MultiplyAdd {
    /// Operations to do.
    pub(crate) flop: f64,
}

impl WithSimd for MultiplyAdd {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        const SUMS: usize = 12;
        let factor = simd.splat_f32s(std::hint::black_box(0.999));
        let mut sums = [simd.splat_f32s(1.0); SUMS];
        for _ in 0..self.flop as usize / (2 * SUMS * S::F32_LANES) {
            for sum in &mut sums {
                *sum = simd.mul_add_f32s(*sum, factor, factor);
            }
        }
        std::hint::black_box(sums);
    }
}

/// Floating-point operations a second of all threads together, f32, the best of five tries.
pub(crate) fn peak() -> f64 {
    const FLOP: f64 = 1e10;
    let threads = rayon::current_num_threads();
    let rate = || {
        let start = Instant::now();
        (0..threads).into_par_iter().with_max_len(1).for_each(|_| Arch::new().dispatch(MultiplyAdd { flop: FLOP }));
        FLOP * threads as f64 / start.elapsed().as_secs_f64()
    };
    (0..5).map(|_| rate()).fold(0.0, f64::max)
}

/// Floating-point operations of a forward pass: those of the blocks' matrix products alone, attention's included.
pub(crate) fn forward_flop(model: &Path, batch: &TokenBatch) -> f64 {
    let text = std::fs::read_to_string(model.join("config.json")).expect("the folder has a config.json");
    let config: serde_json::Value = text.parse().expect("config.json is JSON");
    let size = |name: &str| config[name].as_u64().expect("config.json has the sizes") as usize;
    let (hidden, inner, layers) = (size("hidden_size"), size("intermediate_size"), size("num_hidden_layers"));
    let linear = 2 * hidden * (4 * hidden + 2 * inner) * batch.tokens();
    let attention = (0..batch.len()).map(|index| 4 * hidden * batch.range(index).len().pow(2)).sum::<usize>();
    ((linear + attention) * layers) as f64
}
