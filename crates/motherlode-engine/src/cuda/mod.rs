//! Encoders of BERT's family on a graphics card of NVIDIA.
//!
//! From the outside in: [`trainable`] (what the library sees), [`network`] (forward and backward over a batch),
//! [`kernels`] (each kernel as a function that checks sizes), [`memory`] (buffers, and what a card can do), [`card`]
//! (driver and NVRTC), `products` (cuBLASLt) and `staging` (copies to it). [`several`] puts cards side by side, which
//! `links` (NCCL) connects. [`plan`] knows the bytes. [`sieve`] takes part in the exact search.
//!
//! The kernels are CUDA C++ in the `.cu` files, compiled when a card is opened. Tests compile the same text for the
//! processor (`twin`, `twin.h`) and compare every kernel, and whole training steps, with the engine of the processor;
//! where there is a card, the same tests run on it, too.

pub(crate) mod card;
mod indices;
pub(crate) mod kernels;
mod links;
pub(crate) mod memory;
pub(crate) mod network;
pub(crate) mod plan;
mod products;
pub(crate) mod several;
pub(crate) mod sieve;
mod staging;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod trainable;
#[cfg(test)]
mod twin;
