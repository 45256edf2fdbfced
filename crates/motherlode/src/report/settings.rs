//! What arms set differently: their stages' configurations, flattened to knobs and laid side by side.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Arm;
use super::material::ROLES;

/// A knob by its dotted name, such as `sample.negatives`.
type Knobs = BTreeMap<String, String>;

/// The knobs in which arms differ, arm by arm.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Differences {
    /// The names of the knobs, ascending.
    pub(super) names: Vec<String>,
    /// For every arm its values; a stage that an arm does without is `none` under the stage's name.
    pub(super) arms: Vec<Knobs>,
}

impl Differences {
    /// Between the arms in their order. Knobs of a stage are compared between the arms that have the stage.
    pub(super) fn between(arms: &[&Arm]) -> Self {
        let all: Vec<Knobs> = arms.iter().map(|arm| knobs(arm)).collect();
        let names: BTreeSet<&String> = all.iter().flat_map(BTreeMap::keys).collect();
        let differs = |name: &&&String| {
            let values: BTreeSet<Option<&String>> =
                all.iter().filter(|knobs| has_stage(knobs, name)).map(|knobs| knobs.get(**name)).collect();
            values.len() > 1
        };
        let names: Vec<String> = names.iter().filter(differs).map(|name| (*name).clone()).collect();
        let own = |knobs: &Knobs| -> Knobs {
            let named = names.iter().filter_map(|name| Some((name.clone(), knobs.get(name)?.clone())));
            named.collect()
        };
        Self { arms: all.iter().map(own).collect(), names }
    }

    /// What an arm sets, in one line.
    pub(super) fn line(&self, arm: usize) -> String {
        let said: Vec<String> = self.arms[arm].iter().map(|(name, value)| format!("{name} {value}")).collect();
        said.join("; ")
    }

    /// The numbers of a knob, arm by arm; none where an arm lacks it or has something else.
    pub(super) fn numbers(&self, name: &str) -> Option<Vec<f64>> {
        self.arms.iter().map(|knobs| knobs.get(name)?.parse().ok()).collect()
    }
}

/// Whether a stage's knob can be compared: the stage is there, or the name is the stage's own.
fn has_stage(knobs: &Knobs, name: &str) -> bool {
    let stage = name.split('.').next().unwrap_or(name);
    stage == name || knobs.get(stage).is_none_or(|said| said != NONE)
}

const NONE: &str = "none";
/// Stages that an arm may do without.
const OPTIONAL: [(&str, &str); 2] = [("judgements", "judge"), ("supplement", "generate")];

fn knobs(arm: &Arm) -> Knobs {
    let mut knobs = Knobs::new();
    for artefact in ROLES.iter().filter_map(|role| arm.artefacts.get(*role)) {
        let manifest = artefact.manifest();
        // Stages that lay more than one section into their configuration name the sections.
        let is_named = manifest.config.get(&manifest.stage).is_some();
        let prefix = if is_named { String::new() } else { format!("{}.", manifest.stage) };
        flatten(&prefix, &manifest.config, &mut knobs);
        let members = manifest.inputs.keys().filter_map(|role| role.strip_prefix("member ")?.split_once(' '));
        let members: Vec<&str> = members.map(|(_, name)| name).collect();
        if manifest.stage == crate::mine::STAGE && !members.is_empty() {
            knobs.insert("mine.retrievers".to_owned(), members.join(", "));
        }
    }
    for (role, stage) in OPTIONAL {
        let said = if arm.artefacts.contains_key(role) { "yes" } else { NONE };
        knobs.insert(stage.to_owned(), said.to_owned());
    }
    knobs
}

fn flatten(prefix: &str, value: &Value, knobs: &mut Knobs) {
    let Value::Object(entries) = value else { return };
    for (key, value) in entries {
        let name = format!("{prefix}{key}");
        match value {
            Value::Object(_) => flatten(&format!("{name}."), value, knobs),
            Value::Null => {}
            Value::String(text) => _ = knobs.insert(name, text.clone()),
            // Knobs of 32 bits are written with 64, and so with digits that nobody set.
            Value::Number(number) if number.is_f64() => {
                _ = knobs.insert(name, (number.as_f64().unwrap_or(f64::NAN) as f32).to_string());
            }
            other => _ = knobs.insert(name, other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artefact::Recipe;
    use crate::topic::fixture::write;

    fn arm(folder: &std::path::Path, name: &str, stages: &[(&str, &str, Value)]) -> Arm {
        let artefact = |(role, stage, config): &(&str, &str, Value)| {
            let recipe = Recipe::new(stage, 1, config).unwrap();
            ((*role).to_owned(), write(&folder.join(format!("{name}-{role}")), recipe, |_| {}))
        };
        Arm { name: name.to_owned(), seed: 1, artefacts: stages.iter().map(artefact).collect() }
    }

    #[test]
    fn only_what_differs_is_told_and_a_missing_stage_is_one_difference() {
        let folder = tempfile::tempdir().unwrap();
        let sample = |negatives: u32| serde_json::json!({ "negatives": negatives, "miner": { "rule": "top-k" } });
        let train = serde_json::json!({ "train": { "rate": f64::from(2e-6_f32) }, "encoder": { "layers": 6 } });
        let judge = serde_json::json!({ "model": "m", "depth": 40 });
        let one = [("examples", "sample", sample(10)), ("trained", "train", train.clone())];
        let two = [("examples", "sample", sample(20)), ("trained", "train", train), ("judgements", "judge", judge)];
        let (one, two) = (arm(folder.path(), "one", &one), arm(folder.path(), "two", &two));
        let found = Differences::between(&[&one, &two]);
        assert_eq!(found.names, ["judge", "sample.negatives"]);
        assert_eq!(
            [found.line(0), found.line(1)],
            ["judge none; sample.negatives 10", "judge yes; sample.negatives 20"]
        );
        assert_eq!(found.numbers("sample.negatives"), Some(vec![10.0, 20.0]));
        assert_eq!(found.numbers("judge"), None);
        assert_eq!(knobs(&one)["train.rate"], "0.000002");
        assert_eq!(Differences::between(&[&one]), Differences { names: vec![], arms: vec![Knobs::new()] });
    }
}
