//! Topics: the subject class of every passage that takes part in training.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::artefact::Artefact;
use crate::corpus::Language;
use crate::error::Result;

/// A subject class, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Topic(pub u32);

/// The topics of a data set: what the artefact of `topic` holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Topics {
    /// A readable name for every topic, by number.
    pub labels: Vec<String>,
    /// For every language the topic of each passage, by position in the corpus.
    pub passages: BTreeMap<Language, Vec<Topic>>,
}

impl Topics {
    /// Reads `topics.json` of the artefact.
    pub fn open(artefact: &Artefact) -> Result<Self> {
        let path = artefact.path("topics.json");
        let text = std::fs::read_to_string(&path).map_err(crate::Error::io(&path))?;
        serde_json::from_str(&text).map_err(|error| crate::Error::file(&path, error.to_string()))
    }
}
