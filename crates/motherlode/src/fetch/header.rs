//! The head of a safetensors file that is written piece by piece.

use serde_json::{Map, Value, json};

/// The JSON header of a safetensors file of f32 tensors, given by name and shape in the order in which they follow; padded
/// to 8 bytes.
pub(super) fn header_of<'a>(tensors: impl Iterator<Item = (&'a str, &'a [usize])>) -> String {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut start = 0;
    for (name, shape) in tensors {
        let end = start + 4 * shape.iter().product::<usize>();
        header.insert(name.to_owned(), json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]}));
        start = end;
    }
    let mut text = Value::Object(header).to_string();
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
    text
}
