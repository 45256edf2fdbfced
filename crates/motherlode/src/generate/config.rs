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

/// What the model is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prompts {
    /// A summary with regard to the query, then a query, both greedily.
    #[default]
    QueryCentric,
    /// What the authors' code asks: a summary that does not know the query, then a query, both sampled.
    Paper,
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
    /// What the model is asked.
    pub prompts: Prompts,
    /// Queries a language that are tried first, drawn at random; a language with no more is never stopped.
    pub probe: usize,
    /// A language stops after its probe if the 95 % Wilson interval of the share of queries that it gave a new negative
    /// lies below this share.
    pub stop_below: f64,
}

impl Default for GenerateConfig {
    fn default() -> Self {
        Self {
            method: Method::BackForward,
            model: String::new(),
            target: 30,
            depth: 40,
            language_check: LanguageCheck::Script,
            prompts: Prompts::QueryCentric,
            probe: 50,
            stop_below: 0.1,
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
        if self.probe == 0 {
            return wrong("probe", "1 or more, got 0");
        }
        if !(0.0..=1.0).contains(&self.stop_below) {
            return wrong("stop_below", &format!("a share from 0 (never stop) to 1, got {}", self.stop_below));
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
        assert!(refused(|config| config.stop_below = 1.5).contains("`generate.stop_below`"));
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
