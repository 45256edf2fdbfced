//! Reading the judge's reply.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::verdict::Grades;

/// A reply as the schema has it. Nothing else may stand beside the two grades.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reply {
    accuracy: u8,
    completeness: u8,
}

/// The grades in the first JSON object of a reply: the whole reply where the server follows the schema.
///
/// None where there is no such object, or it is not exactly two grades from 0 to 2: nothing is guessed.
pub(super) fn parse(text: &str) -> Option<Grades> {
    let Reply { accuracy, completeness } = serde_json::from_str(first_object(text)?).ok()?;
    (accuracy <= 2 && completeness <= 2).then_some(Grades { accuracy, completeness })
}

/// The first part of the text that is a JSON object.
fn first_object(text: &str) -> Option<&str> {
    text.match_indices('{').find_map(|(start, _)| {
        let mut values = serde_json::Deserializer::from_str(&text[start..]).into_iter::<IgnoredAny>();
        values.next()?.ok()?;
        Some(&text[start..start + values.byte_offset()])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn grades(text: &str) -> Option<(u8, u8)> {
        parse(text).map(|grades| (grades.accuracy, grades.completeness))
    }

    #[test]
    fn strict_replies() {
        assert_eq!(grades(r#"{"accuracy":2,"completeness":1}"#), Some((2, 1)));
        assert_eq!(grades(" {\"completeness\": 0, \"accuracy\": 1}\n"), Some((1, 0)));
    }

    #[test]
    fn the_first_object_counts_in_a_talkative_reply() {
        let fenced = "```json\n{\"accuracy\": 0, \"completeness\": 0}\n```\nBecause {x}.";
        assert_eq!(grades(fenced), Some((0, 0)));
        let two = r#"By {the rules}: {"accuracy":1,"completeness":2}, not {"accuracy":0,"completeness":0}"#;
        assert_eq!(grades(two), Some((1, 2)));
        assert_eq!(grades(r#"{"why":"x"} {"accuracy":1,"completeness":2}"#), None, "the first object is another");
    }

    #[test]
    fn whatever_is_not_two_grades_is_unreadable() {
        let bad = [
            "",
            "2",
            "[2, 1]",
            r#"{"accuracy":3,"completeness":0}"#,
            r#"{"accuracy":-1,"completeness":0}"#,
            r#"{"accuracy":1.5,"completeness":0}"#,
            r#"{"accuracy":"2","completeness":"2"}"#,
            r#"{"accuracy":2}"#,
            r#"{"accuracy":2,"accuracy":0,"completeness":1}"#,
            r#"{"accuracy":2,"completeness":"#,
            "Information Accuracy: 2",
        ];
        for text in bad {
            assert_eq!(grades(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_reply_makes_it_panic(text in "[{}\"a-z0-9:, é\n]{0,80}") {
            if let Some(grades) = parse(&text) {
                prop_assert!(grades.accuracy <= 2 && grades.completeness <= 2);
            }
        }
    }
}
