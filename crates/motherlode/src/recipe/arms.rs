//! Arms and sweeps: one recipe text becomes one full table of settings for every arm, combination of swept values and seed.

use toml::{Table, Value};

use crate::config::{from_table, set, set_value};
use crate::error::{Error, Result};

/// One variant of the experiment, with all its settings filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// The arm's name, followed by the swept values, such as `motherlode, train.rate=2e-6`.
    pub name: String,
    /// The seed of everything random in it.
    pub seed: u64,
    /// The sections of the recipe, without `arm`, `sweep`, `seed` and `seeds`.
    pub settings: Table,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Arm {
    name: String,
    #[serde(default)]
    set: Table,
}

/// Expands a recipe: `overrides` (`key=value`) hold for every arm and win over its own settings.
///
/// Order: arms as written, then swept keys in the order of the file with the last one running fastest, then seeds.
///
/// # Errors
/// Two arms of one name, a sweep that is no list, a key that goes through a value.
pub fn expand(mut recipe: Table, overrides: &[String]) -> Result<Vec<Variant>> {
    let arms = take_arms(&mut recipe)?;
    let sweep = take_sweep(&mut recipe)?;
    let mut variants = Vec::new();
    for arm in arms {
        let mut settings = recipe.clone();
        flatten("", &arm.set).into_iter().try_for_each(|(key, value)| set_value(&mut settings, &key, value))?;
        for (suffix, mut settings) in combinations(&settings, &sweep)? {
            overrides.iter().try_for_each(|assignment| set(&mut settings, assignment))?;
            for seed in take_seeds(&mut settings)? {
                variants.push(Variant { name: format!("{}{suffix}", arm.name), seed, settings: settings.clone() });
            }
        }
    }
    Ok(variants)
}

fn take_arms(recipe: &mut Table) -> Result<Vec<Arm>> {
    let Some(value) = recipe.remove("arm") else { return Ok(vec![Arm { name: "main".to_owned(), set: Table::new() }]) };
    let Value::Array(entries) = value else { return Err(Error::config("`arm`: expected [[arm]] sections")) };
    let mut arms: Vec<Arm> = Vec::new();
    for entry in entries {
        let Value::Table(table) = entry else { return Err(Error::config("`arm`: expected [[arm]] sections")) };
        let arm: Arm = from_table("arm", table)?;
        if arms.iter().any(|other| other.name == arm.name) {
            return Err(Error::config(format!("two arms are named `{}`; give each its own name", arm.name)));
        }
        arms.push(arm);
    }
    Ok(arms)
}

/// Dotted keys of all values, so that `set.judge.votes = 4` leaves the section's other keys alone.
fn flatten(prefix: &str, table: &Table) -> Vec<(String, Value)> {
    let entries = table.iter().map(|(key, value)| (format!("{prefix}{key}"), value));
    entries
        .flat_map(|(key, value)| match value {
            Value::Table(inner) => flatten(&format!("{key}."), inner),
            value => vec![(key, value.clone())],
        })
        .collect()
}

fn take_sweep(recipe: &mut Table) -> Result<Vec<(String, Vec<Value>)>> {
    let Some(value) = recipe.remove("sweep") else { return Ok(Vec::new()) };
    let Value::Table(table) = value else { return Err(Error::config("`sweep`: expected a section of key = [values]")) };
    table
        .into_iter()
        .map(|(key, value)| match value {
            Value::Array(values) if !values.is_empty() => Ok((key, values)),
            _ => Err(Error::config(format!(
                "`sweep.{key}`: expected a list of values; quote dotted keys, as in \"train.rate\" = [1e-6, 2e-6]"
            ))),
        })
        .collect()
}

/// Every combination of swept values: the suffix of the name and the settings.
fn combinations(settings: &Table, sweep: &[(String, Vec<Value>)]) -> Result<Vec<(String, Table)>> {
    let mut all = vec![(String::new(), settings.clone())];
    for (key, values) in sweep {
        let mut next = Vec::with_capacity(all.len() * values.len());
        for (suffix, settings) in &all {
            for value in values {
                let mut settings = settings.clone();
                set_value(&mut settings, key, value.clone())?;
                next.push((format!("{suffix}, {key}={}", plain(value)), settings));
            }
        }
        all = next;
    }
    Ok(all)
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn take_seeds(settings: &mut Table) -> Result<Vec<u64>> {
    let seeds = match (settings.remove("seed"), settings.remove("seeds")) {
        (None, None) => return Ok(vec![13]),
        (Some(seed), None) => vec![seed],
        (None, Some(Value::Array(seeds))) if !seeds.is_empty() => seeds,
        _ => return Err(Error::config("expected either `seed = 13` or `seeds = [13, 14]`")),
    };
    let number = |seed: Value| seed.as_integer().and_then(|seed| u64::try_from(seed).ok());
    seeds
        .into_iter()
        .map(|seed| number(seed).ok_or_else(|| Error::config("`seeds`: expected whole numbers from 0")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str, overrides: &[&str]) -> Vec<(String, u64)> {
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        let variants = expand(text.parse().unwrap(), &overrides).unwrap();
        variants.into_iter().map(|variant| (variant.name, variant.seed)).collect()
    }

    #[test]
    fn a_recipe_without_arms_is_one_variant() {
        assert_eq!(names("[train]\nrate = 1.0", &[]), [("main".to_owned(), 13)]);
    }

    #[test]
    fn arms_sweeps_and_seeds_multiply_in_order() {
        let text = "seeds = [1, 2]\n[[arm]]\nname = 'a'\n[[arm]]\nname = 'b'\nset = { \"judge.method\" = 'none' }\n[sweep]\n\"train.rate\" = [1, 2]";
        let found = names(text, &[]);
        assert_eq!(found.len(), 8);
        assert_eq!(found[0], ("a, train.rate=1".to_owned(), 1));
        assert_eq!(found[7], ("b, train.rate=2".to_owned(), 2));
    }

    #[test]
    fn an_override_wins_over_an_arm() {
        let text = "[[arm]]\nname = 'a'\nset = { \"judge.votes\" = 4 }";
        let variants = expand(text.parse().unwrap(), &["judge.votes=1".to_owned()]).unwrap();
        assert_eq!(variants[0].settings["judge"]["votes"].as_integer(), Some(1));
    }

    #[test]
    fn an_arm_changes_single_keys_of_a_section() {
        let text = "[judge]\nmodel = 'm'\n[[arm]]\nname = 'a'\nset.judge.votes = 4";
        let judge = expand(text.parse().unwrap(), &[]).unwrap()[0].settings["judge"].clone();
        assert_eq!((judge["model"].as_str(), judge["votes"].as_integer()), (Some("m"), Some(4)));
    }

    #[test]
    fn two_arms_of_one_name_are_refused() {
        let text: Table = "[[arm]]\nname = 'a'\n[[arm]]\nname = 'a'".parse().unwrap();
        assert!(expand(text, &[]).unwrap_err().to_string().contains("two arms"));
    }
}
