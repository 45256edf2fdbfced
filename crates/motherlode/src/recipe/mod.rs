//! A recipe: stages with their configurations, arms and sweeps; what `run`, `plan` and `status` walk.

pub mod arms;
