//! Reading configuration: TOML to the one struct of a stage, unknown keys refused with the nearest valid name.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::error::{Error, Result};

/// Turns a TOML table into the configuration struct of a stage.
///
/// `section` names the table in messages. The struct must be `#[serde(deny_unknown_fields)]`.
///
/// # Errors
/// An unknown key (with the nearest valid one), a value of the wrong type, with the path to the key.
pub fn from_table<T: DeserializeOwned>(section: &str, table: Table) -> Result<T> {
    serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
        let path = match error.path().to_string() {
            path if path == "." => format!("[{section}]"),
            path => format!("`{section}.{path}`"),
        };
        let message = error.into_inner().to_string();
        Error::config(format!("{path}: {}", with_suggestion(message.trim_end())))
    })
}

/// Parses a whole TOML text; `name` stands for the file in messages.
pub fn parse_table(name: &str, text: &str) -> Result<Table> {
    text.parse::<Table>().map_err(|error| Error::config(format!("{name}: {error}")))
}

/// Sets one dotted key, as `--set judge.votes=4` does; the value is TOML, a bare word is a string.
pub fn set(table: &mut Table, assignment: &str) -> Result<()> {
    let (key, value) = assignment
        .split_once('=')
        .ok_or_else(|| Error::config(format!("`{assignment}`: expected key=value, as in judge.votes=4")))?;
    set_value(table, key.trim(), parse_value(value.trim()))
}

/// Sets one dotted key to a value, making the tables on the way.
pub fn set_value(table: &mut Table, key: &str, value: Value) -> Result<()> {
    let (parents, last) = match key.rsplit_once('.') {
        Some((parents, last)) => (parents.split('.').collect(), last),
        None => (Vec::new(), key),
    };
    let mut current = table;
    for parent in parents {
        current = current
            .entry(parent)
            .or_insert_with(|| Value::Table(Table::new()))
            .as_table_mut()
            .ok_or_else(|| Error::config(format!("`{key}`: `{parent}` is a value, not a section")))?;
    }
    current.insert(last.to_owned(), value);
    Ok(())
}

fn parse_value(text: &str) -> Value {
    format!("value = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

/// Appends the nearest of the names that serde lists behind "expected".
fn with_suggestion(message: &str) -> String {
    let mut names = message.split('`').skip(1).step_by(2);
    let (true, Some(unknown)) = (message.starts_with("unknown"), names.next()) else { return message.to_owned() };
    match nearest(unknown, names) {
        Some(name) => format!("{message}; did you mean `{name}`?"),
        None => message.to_owned(),
    }
}

/// The name closest to `unknown`, if one is close enough to be a slip of the keyboard.
pub fn nearest<'a>(unknown: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|name| (strsim::jaro_winkler(unknown, name), name))
        .filter(|(similarity, _)| *similarity > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Judge {
        votes: u32,
        model: String,
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_name() {
        let table = parse_table("x", "votse = 4\nmodel = 'm'").unwrap();
        let message = from_table::<Judge>("judge", table).unwrap_err().to_string();
        assert!(message.contains("votse") && message.contains("did you mean `votes`?"), "{message}");
    }

    #[test]
    fn a_wrong_type_names_the_key() {
        let table = parse_table("x", "votes = 'four'\nmodel = 'm'").unwrap();
        let message = from_table::<Judge>("judge", table).unwrap_err().to_string();
        assert!(message.contains("`judge.votes`"), "{message}");
    }

    #[test]
    fn overrides_parse_as_toml_and_fall_back_to_strings() {
        let mut table = Table::new();
        set(&mut table, "judge.votes=4").unwrap();
        set(&mut table, "judge.model=qwen").unwrap();
        let judge: Judge = from_table("judge", table["judge"].as_table().unwrap().clone()).unwrap();
        assert_eq!(judge, Judge { votes: 4, model: "qwen".into() });
    }
}
