//! Packed encoders with explicit backward passes.
