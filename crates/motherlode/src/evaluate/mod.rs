//! Evaluation: measures equal to `trec_eval`'s, and tests of whether a difference is one.

pub mod measures;

pub use measures::{Graded, Measure};
