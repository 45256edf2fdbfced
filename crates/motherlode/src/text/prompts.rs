//! The prefixes that a model wants before queries and passages, as sentence-transformers keeps them.

use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};

/// The file in a model's folder.
pub const PROMPTS_FILE: &str = "config_sentence_transformers.json";

/// What is put before every query and every passage; both are empty for a model that wants nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prompts {
    /// Before a query, such as `query: `.
    pub query: String,
    /// Before a passage, such as `passage: `.
    pub passage: String,
}

#[derive(Deserialize)]
struct PromptsFile {
    #[serde(default)]
    prompts: Option<PromptTable>,
}

#[derive(Deserialize)]
struct PromptTable {
    query: Option<String>,
    passage: Option<String>,
    document: Option<String>,
}

impl Prompts {
    /// Reads `prompts` of `config_sentence_transformers.json` in a model's folder: `query`, and `passage` or
    /// `document`. No file or no such entry means no prefix.
    ///
    /// # Errors
    /// The file is there but no JSON of that form.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(PROMPTS_FILE);
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        let file: PromptsFile = serde_json::from_str(&text).map_err(|error| {
            Error::file(&path, format!("expected {{\"prompts\": {{\"query\": …, \"passage\": …}}}}: {error}"))
        })?;
        Ok(file.prompts.map_or_else(Self::default, Self::from))
    }
}

impl From<PromptTable> for Prompts {
    fn from(table: PromptTable) -> Self {
        Self { query: table.query.unwrap_or_default(), passage: table.passage.or(table.document).unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts_of(content: &str) -> Result<Prompts> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(PROMPTS_FILE), content).unwrap();
        Prompts::open(folder.path())
    }

    #[test]
    fn passages_may_be_called_documents() {
        let expected = Prompts { query: "query: ".into(), passage: "passage: ".into() };
        assert_eq!(prompts_of(r#"{"prompts": {"query": "query: ", "passage": "passage: "}}"#).unwrap(), expected);
        assert_eq!(prompts_of(r#"{"prompts": {"query": "query: ", "document": "passage: "}}"#).unwrap(), expected);
    }

    #[test]
    fn a_model_without_prompts_has_empty_ones() {
        assert_eq!(prompts_of(r#"{"__version__": {}, "prompts": {}}"#).unwrap(), Prompts::default());
        assert_eq!(prompts_of(r#"{"prompts": null}"#).unwrap(), Prompts::default());
        assert_eq!(Prompts::open(tempfile::tempdir().unwrap().path()).unwrap(), Prompts::default());
    }

    #[test]
    fn a_damaged_file_is_named() {
        let message = prompts_of("{").unwrap_err().to_string();
        assert!(message.contains(PROMPTS_FILE) && message.contains("prompts"), "{message}");
    }
}
