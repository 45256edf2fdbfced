//! A recipe: stages with their configurations, arms and sweeps; what `run`, `plan` and `status` walk.
//!
//! Reads a TOML file ([`settings::load`]), walks the stages of every variant in order ([`walk::run`]) and leaves
//! artefacts, a comparison and pages in a work folder. Stages of equal configuration and inputs run once, whichever
//! arms they belong to.

pub mod arms;
pub mod ensemble;
pub mod pages;
pub mod place;
pub mod plan;
pub mod settings;
pub mod status;
pub mod walk;
