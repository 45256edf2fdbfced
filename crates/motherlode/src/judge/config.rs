//! The knobs of section `[judge]`.

use serde::{Deserialize, Serialize};

pub use super::prompt::Order;
use crate::error::{Error, Result};

/// Who judges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// A language model.
    #[default]
    Llm,
    /// Nobody: every candidate stays unjudged.
    None,
}

/// What stands for the right answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reference {
    /// The query's positives.
    #[default]
    Positives,
    /// Nothing: the model judges by the question alone.
    None,
}

/// What sampling does with candidates that have no verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnjudgedRule {
    /// A negative if the percentage miner's rule would take it.
    #[default]
    Percentage,
    /// Never a negative.
    Exclude,
    /// Always a negative.
    Keep,
}

/// Which pairs come first where not all can be judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// Those whose verdict matters most: high in the fused list, as near to the positive as the untouched model can see,
    /// and, with less weight, those that the retrievers disagree about.
    #[default]
    Value,
    /// Those that the untouched model scores highest.
    ModelScore,
}

/// A cheap judge before the one that [`JudgeConfig::model`] names, which then sees only what the cheap one is unsure of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CascadeConfig {
    /// The cheap judge's name: an embedded model, or one whose server gives log-probabilities.
    pub model: String,
    /// Highest share of its decisions that the other judge would have taken otherwise.
    pub error: f64,
    /// Share of the pairs, drawn at random, that both judge: one half chooses the thresholds, the other audits them.
    pub audit: f64,
    /// Least number of such pairs, where there are so many.
    pub audit_pairs: usize,
}

impl Default for CascadeConfig {
    fn default() -> Self {
        Self { model: String::new(), error: 0.05, audit: 0.05, audit_pairs: 200 }
    }
}

/// Who judges what, and by which rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JudgeConfig {
    /// Who judges.
    pub method: Method,
    /// The model's name, as the server knows it and as the ledger's keys hold it.
    pub model: String,
    /// Which text the prompt ends with.
    pub order: Order,
    /// What stands for the right answer.
    pub reference: Reference,
    /// Longest reference, in characters.
    pub reference_characters: usize,
    /// 1: one greedy vote; 4: the authors' four sampled votes, the majority counts, a tie goes to the higher grade.
    pub votes: u32,
    /// Candidates are judged up to this rank.
    pub depth: u32,
    /// Most pairs to judge, over all languages; none: all up to `depth`.
    pub max_pairs: Option<usize>,
    /// Which pairs come first, with `max_pairs` or a budget in section `[llm]`.
    pub priority: Priority,
    /// A cheap judge that goes first; none: all pairs are judged by `model`.
    pub cascade: Option<CascadeConfig>,
    /// What `sample` does with candidates that have no verdict.
    pub unjudged: UnjudgedRule,
    /// Queries a language whose positive must be found right and a far passage wrong.
    pub canaries: usize,
    /// Least share of these probes that must come out right for a language's verdicts to count.
    pub canary_pass_rate: f64,
    /// Pairs a language that people judged, of positives and of negatives each, to measure the judge with.
    pub calibration: usize,
    /// Pairs a language that are judged again with the texts in the other order, and with the reference's positives
    /// reversed, to see how often that changes the grade.
    pub swaps: usize,
}

impl Default for JudgeConfig {
    fn default() -> Self {
        Self {
            method: Method::Llm,
            model: String::new(),
            order: Order::Prefix,
            reference: Reference::Positives,
            reference_characters: 2000,
            votes: 1,
            depth: 40,
            max_pairs: None,
            priority: Priority::Value,
            cascade: None,
            unjudged: UnjudgedRule::Percentage,
            canaries: 5,
            canary_pass_rate: 0.7,
            calibration: 20,
            swaps: 0,
        }
    }
}

impl JudgeConfig {
    /// Checks ranges, and that a model is named where one is asked.
    pub fn validate(&self) -> Result<()> {
        let wrong = |name: &str, expected: &str, got: String| {
            Err(Error::config(format!("`judge.{name}`: expected {expected}, got {got}")))
        };
        if self.method == Method::Llm && self.model.trim().is_empty() {
            return wrong("model", "the name of the model that judges (or judge.method = \"none\")", "none".into());
        }
        if !matches!(self.votes, 1 | 4) {
            return wrong("votes", "1 or 4", self.votes.to_string());
        }
        if self.depth == 0 {
            return wrong("depth", "1 or more", "0".into());
        }
        if self.reference_characters == 0 {
            return wrong("reference_characters", "1 or more (or judge.reference = \"none\")", "0".into());
        }
        if !(0.0..=1.0).contains(&self.canary_pass_rate) {
            return wrong("canary_pass_rate", "a share from 0 to 1", self.canary_pass_rate.to_string());
        }
        let Some(cascade) = &self.cascade else { return Ok(()) };
        if cascade.model.trim().is_empty() || cascade.model == self.model {
            return wrong("cascade.model", "the name of a cheaper model than judge.model", cascade.model.clone());
        }
        for (name, share) in [("cascade.error", cascade.error), ("cascade.audit", cascade.audit)] {
            if !(0.0..1.0).contains(&share) {
                return wrong(name, "a share from 0 to below 1", share.to_string());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut JudgeConfig)) -> String {
        let mut config = JudgeConfig { model: "m".into(), ..JudgeConfig::default() };
        config.validate().unwrap();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn values_out_of_range_name_the_key() {
        assert!(refused(|config| config.model.clear()).contains("`judge.model`"));
        assert!(refused(|config| config.votes = 2).contains("`judge.votes`: expected 1 or 4, got 2"));
        assert!(refused(|config| config.depth = 0).contains("`judge.depth`"));
        assert!(refused(|config| config.reference_characters = 0).contains("`judge.reference_characters`"));
        assert!(refused(|config| config.canary_pass_rate = 1.1).contains("`judge.canary_pass_rate`"));
        let cascade = |change: CascadeConfig| refused(|config| config.cascade = Some(change));
        assert!(
            cascade(CascadeConfig { model: "m".into(), ..CascadeConfig::default() }).contains("`judge.cascade.model`")
        );
        let cheap = CascadeConfig { model: "cheap".into(), error: 1.0, ..CascadeConfig::default() };
        assert!(cascade(cheap).contains("`judge.cascade.error`"));
        JudgeConfig { method: Method::None, ..JudgeConfig::default() }.validate().unwrap();
    }

    #[test]
    fn a_section_reads_as_written() {
        let text = "model = 'm'\norder = 'paper'\nreference = 'none'\nunjudged = 'keep'\nmax_pairs = 9";
        let config: JudgeConfig =
            crate::config::from_table("judge", crate::config::parse_table("x", text).unwrap()).unwrap();
        assert_eq!(
            (config.order, config.reference, config.unjudged),
            (Order::Paper, Reference::None, UnjudgedRule::Keep)
        );
        assert_eq!(config.max_pairs, Some(9));
    }
}
