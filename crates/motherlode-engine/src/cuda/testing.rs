//! What runs kernels in tests.

use std::sync::Arc;

use super::card::Card;
use super::memory::Backend;
use super::twin::{self, Twin};

/// The twin, where there is a C++ compiler, and a graphics card where there is one.
pub(crate) fn backends() -> Vec<Arc<dyn Backend>> {
    let card = Card::open(0).map_err(|error| println!("not tested on a graphics card: {error}"));
    twin().into_iter().chain(card).collect()
}

/// The twin; none, and a word about it, where there is no C++ compiler.
pub(crate) fn twin() -> Option<Arc<dyn Backend>> {
    if twin::has_compiler() {
        return Some(Twin::backend());
    }
    println!("not tested on the processor in place of a card: there is no C++ compiler");
    None
}
