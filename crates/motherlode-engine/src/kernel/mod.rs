//! Kernels on slices, each on the calling thread: one file for each family, forward and backward together.
//!
//! Who calls them decides what runs in parallel. All of them run under `pulp`'s dispatch, which compiles their bodies
//! for the instruction set found at run time; none holds `unsafe`.

pub mod adamw;
pub mod attention;
pub mod dropout;
pub mod embedding;
pub mod gelu;
pub mod lanes;
pub mod matrix;
pub mod normalise;
pub mod pooling;
#[cfg(test)]
pub(crate) mod testing;
