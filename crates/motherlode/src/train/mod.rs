//! Training.
pub mod loss;
pub mod schedule;
