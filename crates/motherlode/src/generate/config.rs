//! The knobs of section `[generate]`.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::text::language::LanguageCheck;

/// How new queries are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Not at all.
    None,
    /// From the positive.
    Direct,
    /// From a summary of the positive with regard to the query.
    #[default]
    BackForward,
}

/// Which queries get a supplement, and how it is found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GenerateConfig {
    /// How new queries are written.
    pub method: Method,
    /// The name of the model that writes, as the server knows it and as the ledger's keys hold it.
    pub model: String,
    /// Queries with fewer negatives than this get a new query (the paper's N).
    pub target: usize,
    /// Most candidates of a new query that are judged, known ones not counted.
    pub depth: usize,
    /// How the language of a new query is checked.
    pub language_check: LanguageCheck,
}

impl Default for GenerateConfig {
    fn default() -> Self {
        Self {
            method: Method::BackForward,
            model: String::new(),
            target: 30,
            depth: 40,
            language_check: LanguageCheck::Script,
        }
    }
}

impl GenerateConfig {
    /// Checks ranges, and that a model is named where one is asked.
    pub fn validate(&self) -> Result<()> {
        let wrong = |name: &str, expected: &str| Err(Error::config(format!("`generate.{name}`: expected {expected}")));
        if self.method != Method::None && self.model.trim().is_empty() {
            return wrong("model", "the name of the model that writes (or generate.method = \"none\"), got none");
        }
        if self.target == 0 {
            return wrong("target", "1 or more, got 0");
        }
        if self.depth == 0 {
            return wrong("depth", "1 or more, got 0");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_name_the_key() {
        let refused = |change: fn(&mut GenerateConfig)| {
            let mut config = GenerateConfig { model: "m".into(), ..GenerateConfig::default() };
            config.validate().unwrap();
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        assert!(refused(|config| config.model.clear()).contains("`generate.model`"));
        assert!(refused(|config| config.target = 0).contains("`generate.target`"));
        assert!(refused(|config| config.depth = 0).contains("`generate.depth`"));
        GenerateConfig { method: Method::None, ..GenerateConfig::default() }.validate().unwrap();
    }

    #[test]
    fn a_section_reads_as_written() {
        let text = "method = 'direct'\nmodel = 'm'\nlanguage_check = 'fasttext'";
        let config: GenerateConfig =
            crate::config::from_table("generate", crate::config::parse_table("x", text).unwrap()).unwrap();
        assert_eq!((config.method, config.language_check), (Method::Direct, LanguageCheck::Fasttext));
    }
}
