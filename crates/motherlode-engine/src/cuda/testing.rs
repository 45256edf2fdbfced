//! What runs kernels in tests.

use std::sync::Arc;

use super::card::Card;
use super::memory::Backend;
use super::twin::Twin;

/// The twin, and a graphics card where there is one.
pub(crate) fn backends() -> Vec<Arc<dyn Backend>> {
    let card = Card::open(0).map_err(|error| println!("not tested on a graphics card: {error}"));
    [Twin::backend()].into_iter().chain(card).collect()
}
