//! GGUF, the file format of llama.cpp: a model's weights, its tokenizer and its settings in one file.
//!
//! Little endian: `GGUF`, the version (u32, 2 or 3), the number of tensors and of settings (u64 each); every setting as a
//! name, a type (u32) and a value; every tensor as a name, its dimensions (u32 and so many u64, the innermost first), its
//! type (u32) and its offset (u64) from the data, which begin at the next multiple of `general.alignment`, 32 if there is
//! no such setting. A text is its length (u64) and its bytes. Source: `docs/gguf.md` of ggml.
//!
//! # Errors
//! [`Error::File`] where a file is no GGUF, is cut off, or has a setting or a tensor of another type than asked for.

mod blocks;
pub mod hugging_face;
pub mod tokenizer;

use std::collections::BTreeMap;
use std::path::Path;

pub use blocks::Quantisation;

use crate::error::{Error, Result};
use crate::mapped::MappedFile;

/// An opened file, whose weights stay on the disk until they are asked for.
#[derive(Debug)]
pub struct Gguf {
    file: MappedFile,
    settings: BTreeMap<String, Setting>,
    tensors: BTreeMap<String, Tensor>,
}

/// A setting's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Setting {
    /// A whole number of any width.
    Whole(i128),
    /// A number of either width.
    Float(f64),
    /// A truth value.
    Flag(bool),
    /// A text.
    Text(String),
    /// Values of one type.
    List(Vec<Self>),
}

/// A matrix or a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tensor {
    /// How its values are written.
    pub quantisation: Quantisation,
    /// Values of a row.
    pub columns: usize,
    /// Number of rows; 1 for a vector.
    pub rows: usize,
    /// Where its bytes begin in the file.
    start: usize,
}

impl Gguf {
    /// Opens a file, and checks that all its tensors are there.
    ///
    /// # Errors
    /// No GGUF, another version, a file that is cut off, a tensor of a type that is not [read](Quantisation).
    pub fn open(path: &Path) -> Result<Self> {
        let file = MappedFile::open(path)?;
        let mut cursor = Cursor { path, bytes: file.bytes(), at: 0 };
        let (settings, tensors) = cursor.header()?;
        Ok(Self { file, settings, tensors })
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The setting of this name.
    pub fn setting(&self, name: &str) -> Option<&Setting> {
        self.settings.get(name)
    }

    /// The text of this name; none if there is no such setting.
    pub fn text(&self, name: &str) -> Result<Option<&str>> {
        self.typed(name, "a text", |setting| if let Setting::Text(text) = setting { Some(text.as_str()) } else { None })
    }

    /// The whole number, at least 0, of this name; none if there is no such setting.
    pub fn whole(&self, name: &str) -> Result<Option<usize>> {
        self.typed(name, "a whole number", |setting| match setting {
            Setting::Whole(number) => usize::try_from(*number).ok(),
            _ => None,
        })
    }

    /// The number of this name; none if there is no such setting.
    pub fn float(&self, name: &str) -> Result<Option<f64>> {
        self.typed(name, "a number", |setting| if let Setting::Float(number) = setting { Some(*number) } else { None })
    }

    /// The truth value of this name; none if there is no such setting.
    pub fn flag(&self, name: &str) -> Result<Option<bool>> {
        self.typed(name, "a truth value", |setting| if let Setting::Flag(flag) = setting { Some(*flag) } else { None })
    }

    /// The texts of this name.
    pub fn texts(&self, name: &str) -> Result<Vec<&str>> {
        let texts = self.typed(name, "a list of texts", |setting| {
            let Setting::List(list) = setting else { return None };
            list.iter().map(|item| if let Setting::Text(text) = item { Some(text.as_str()) } else { None }).collect()
        })?;
        texts.ok_or_else(|| self.wrong(format!("expected a setting `{name}`, got none")))
    }

    /// The numbers of this name.
    pub fn floats(&self, name: &str) -> Result<Vec<f64>> {
        let numbers = self.typed(name, "a list of numbers", |setting| {
            let Setting::List(list) = setting else { return None };
            list.iter().map(|item| if let Setting::Float(number) = item { Some(*number) } else { None }).collect()
        })?;
        numbers.ok_or_else(|| self.wrong(format!("expected a setting `{name}`, got none")))
    }

    /// The whole numbers of this name; none if there is no such setting.
    pub fn wholes(&self, name: &str) -> Result<Option<Vec<i128>>> {
        self.typed(name, "a list of whole numbers", |setting| {
            let Setting::List(list) = setting else { return None };
            list.iter().map(|item| if let Setting::Whole(number) = item { Some(*number) } else { None }).collect()
        })
    }

    fn typed<'a, T>(
        &'a self,
        name: &str,
        expected: &str,
        read: impl Fn(&'a Setting) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(setting) = self.settings.get(name) else { return Ok(None) };
        let wrong = || self.wrong(format!("setting `{name}`: expected {expected}, got another type"));
        read(setting).map(Some).ok_or_else(wrong)
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<Tensor> {
        self.tensors.get(name).copied()
    }

    /// The names of all tensors, in ascending order.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Writes the values of some rows of a tensor to `out`, row after row.
    ///
    /// *Shapes*: `out` rows × columns.
    pub fn read_rows(&self, tensor: Tensor, rows: std::ops::Range<usize>, out: &mut [f32]) {
        let row = tensor.quantisation.bytes(tensor.columns);
        let bytes = &self.file.bytes()[tensor.start + rows.start * row..tensor.start + rows.end * row];
        tensor.quantisation.read(bytes, out);
    }

    /// An error about this file.
    pub fn wrong(&self, message: impl Into<String>) -> Error {
        Error::file(self.file.path(), message)
    }
}

/// Reads the head of a file from front to back.
struct Cursor<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

/// Lists in lists end here: nothing writes them.
const DEEPEST: usize = 4;

impl<'a> Cursor<'a> {
    fn header(&mut self) -> Result<(BTreeMap<String, Setting>, BTreeMap<String, Tensor>)> {
        if self.bytes.get(..4) != Some(b"GGUF") {
            return Err(Error::file(self.path, "expected a GGUF file, got something else"));
        }
        self.at = 4;
        let version = self.u32()?;
        if !(2..=3).contains(&version) {
            return Err(Error::file(self.path, format!("expected GGUF of version 2 or 3, got {version}")));
        }
        let (tensors, settings) = (self.length()?, self.length()?);
        let mut read = BTreeMap::new();
        for _ in 0..settings {
            let name = self.text()?;
            let kind = self.u32()?;
            read.insert(name, self.setting(kind, 0)?);
        }
        let found = (0..tensors).map(|_| self.tensor()).collect::<Result<Vec<_>>>()?;
        let alignment = match read.get("general.alignment") {
            Some(Setting::Whole(alignment @ 1..=65_536)) => *alignment as usize,
            None => 32,
            Some(other) => {
                return Err(Error::file(self.path, format!("`general.alignment`: expected 1 to 65536, got {other:?}")));
            }
        };
        let data = self.at.next_multiple_of(alignment);
        let placed = found.into_iter().map(|(name, tensor)| self.place(name, tensor, data));
        Ok((read, placed.collect::<Result<_>>()?))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| {
            Error::file(self.path, format!("the file ends at byte {}, within its head; get it again", self.bytes.len()))
        })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("as many bytes as asked for"))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A number of things, each of which takes at least one byte of the file.
    fn length(&mut self) -> Result<usize> {
        let length = u64::from_le_bytes(self.array()?);
        let within = usize::try_from(length).ok().filter(|length| *length <= self.bytes.len());
        within.ok_or_else(|| {
            Error::file(self.path, format!("a length of {length} in a file of {} bytes: damaged", self.bytes.len()))
        })
    }

    fn text(&mut self) -> Result<String> {
        let length = self.length()?;
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    fn setting(&mut self, kind: u32, depth: usize) -> Result<Setting> {
        Ok(match kind {
            0 => Setting::Whole(self.array::<1>()?[0].into()),
            1 => Setting::Whole(i8::from_le_bytes(self.array()?).into()),
            2 => Setting::Whole(u16::from_le_bytes(self.array()?).into()),
            3 => Setting::Whole(i16::from_le_bytes(self.array()?).into()),
            4 => Setting::Whole(self.u32()?.into()),
            5 => Setting::Whole(i32::from_le_bytes(self.array()?).into()),
            6 => Setting::Float(f32::from_le_bytes(self.array()?).into()),
            7 => Setting::Flag(self.array::<1>()?[0] != 0),
            8 => Setting::Text(self.text()?),
            9 if depth < DEEPEST => {
                let (kind, length) = (self.u32()?, self.length()?);
                Setting::List((0..length).map(|_| self.setting(kind, depth + 1)).collect::<Result<_>>()?)
            }
            10 => Setting::Whole(u64::from_le_bytes(self.array()?).into()),
            11 => Setting::Whole(i64::from_le_bytes(self.array()?).into()),
            12 => Setting::Float(f64::from_le_bytes(self.array()?)),
            other => return Err(Error::file(self.path, format!("a setting of the unknown type {other}: damaged"))),
        })
    }

    /// A tensor whose `start` still counts from the data.
    fn tensor(&mut self) -> Result<(String, Tensor)> {
        let name = self.text()?;
        let dimensions = self.u32()?;
        let wrong = |what: String| Error::file(self.path, format!("tensor `{name}`: {what}"));
        if !(1..=2).contains(&dimensions) {
            return Err(wrong(format!("expected 1 or 2 dimensions, got {dimensions}")));
        }
        let columns = self.length()?;
        let rows = if dimensions == 2 { self.length()? } else { 1 };
        let kind = self.u32()?;
        let start = self.length()?;
        let wrong = |what: String| Error::file(self.path, format!("tensor `{name}`: {what}"));
        let quantisation = Quantisation::of(kind)
            .ok_or_else(|| wrong(format!("type {kind} of ggml is not read here; expected {}", Quantisation::NAMES)))?;
        if !columns.is_multiple_of(quantisation.block()) {
            return Err(wrong(format!("expected rows of whole blocks of {}, got {columns}", quantisation.block())));
        }
        Ok((name, Tensor { quantisation, columns, rows, start }))
    }

    fn place(&self, name: String, tensor: Tensor, data: usize) -> Result<(String, Tensor)> {
        let start = data + tensor.start;
        let bytes = tensor.quantisation.bytes(tensor.columns).checked_mul(tensor.rows);
        if bytes.and_then(|bytes| start.checked_add(bytes)).is_none_or(|end| end > self.bytes.len()) {
            let message = format!("tensor `{name}` ends behind the file, which is cut off; get it again");
            return Err(Error::file(self.path, message));
        }
        Ok((name, Tensor { start, ..tensor }))
    }
}

#[cfg(test)]
pub(crate) mod tests;
