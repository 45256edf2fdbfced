//! The same columns in Parquet: `corpus.parquet` (`docid` or `_id`, `title`, `text`), `queries.SPLIT.parquet` (`id` or
//! `_id`, `text` or `query`), `qrels.SPLIT.parquet` (`query-id`, `corpus-id`, `score`); one language, or a folder for each.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::record::Field;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::Type;

use crate::corpus::{Language, Passage};
use crate::dataset::Split;
use crate::error::{Error, Result};

use super::dataset::{Folders, SplitNames};
use super::rows::{self, Judgement, LanguageFiles, Place, SplitFiles, VisitJudgement, VisitPassage, VisitQuery};

/// Rows of a group when writing.
const GROUP: usize = 10_000;

/// Finds the files: those of the one language that the configuration names, or of every language folder.
///
/// # Errors
/// No corpus, several languages asked of a layout without language folders, one of two files of a split.
pub(super) fn locate(folders: &Folders, asked: &[Language], names: &SplitNames) -> Result<Vec<LanguageFiles>> {
    if folders.corpus.join("corpus.parquet").is_file() {
        let language = rows::only_language(asked, "parquet")?;
        return Ok(vec![locate_in(&folders.queries, &folders.corpus, language, names)?]);
    }
    let mut languages = asked.to_vec();
    if languages.is_empty() {
        languages = rows::languages_in(&folders.corpus, "")?;
        languages.retain(|language| folders.corpus.join(language.as_str()).join("corpus.parquet").is_file());
    }
    if languages.is_empty() {
        return Err(rows::missing(&folders.corpus.join("corpus.parquet"), "passages"));
    }
    let locate_one = |language: Language| {
        let (queries, corpus) = (folders.queries.join(language.as_str()), folders.corpus.join(language.as_str()));
        locate_in(&queries, &corpus, language, names)
    };
    languages.into_iter().map(locate_one).collect()
}

fn locate_in(queries: &Path, corpus: &Path, language: Language, names: &SplitNames) -> Result<LanguageFiles> {
    let corpus = corpus.join("corpus.parquet");
    if !corpus.is_file() {
        return Err(rows::missing(&corpus, "passages"));
    }
    let mut splits = BTreeMap::new();
    for split in Split::ALL {
        let file = |kind: &str| queries.join(format!("{kind}.{}.parquet", names.of(split)));
        rows::add_split(&mut splits, split, SplitFiles { queries: file("queries"), qrels: file("qrels") })?;
    }
    Ok(LanguageFiles { language, corpus: vec![corpus], splits })
}

/// Whether a file of a hub repository is one that [`locate`] may ask for.
pub(super) fn is_needed(path: &str, languages: &[Language], names: &SplitNames) -> bool {
    let (folder, name) = path.split_once('/').unwrap_or(("", path));
    let asked = folder.is_empty() || languages.is_empty() || languages.iter().any(|tag| tag.as_str() == folder);
    let is_split =
        |split: &Split| ["queries", "qrels"].iter().any(|kind| name == format!("{kind}.{}.parquet", names.of(*split)));
    asked && (name == "corpus.parquet" || Split::ALL.iter().any(is_split))
}

/// Reads a corpus file.
pub(super) fn passages(path: &Path, visit: &mut VisitPassage<'_>) -> Result<()> {
    let columns = [Column::any_of(&["docid", "_id"]), Column::optional(&["title"]), Column::any_of(&["text"])];
    read(path, columns, |place, [id, title, text]| {
        place.check_id("docid", id)?;
        place.check_text("text", id, text)?;
        visit(place, Passage { id, title, text })
    })
}

/// Reads the queries of a split.
pub(super) fn queries(path: &Path, visit: &mut VisitQuery<'_>) -> Result<()> {
    let columns = [Column::any_of(&["id", "_id"]), Column::any_of(&["text", "query"])];
    read(path, columns, |place, [id, text]| {
        place.check_id("id", id)?;
        place.check_text("text", id, text)?;
        visit(place, id, text.trim())
    })
}

/// Reads the judgements of a split.
pub(super) fn judgements(path: &Path, visit: &mut VisitJudgement<'_>) -> Result<()> {
    let columns = [Column::any_of(&["query-id"]), Column::any_of(&["corpus-id"]), Column::any_of(&["score"])];
    read(path, columns, |place, [query, passage, grade]| visit(place, Judgement { query, passage, grade }))
}

/// A column by its possible names.
struct Column {
    names: &'static [&'static str],
    required: bool,
}

impl Column {
    fn any_of(names: &'static [&'static str]) -> Self {
        Self { names, required: true }
    }

    fn optional(names: &'static [&'static str]) -> Self {
        Self { names, required: false }
    }
}

/// Calls `visit` for every row with the columns as text.
fn read<const N: usize>(
    path: &Path,
    columns: [Column; N],
    mut visit: impl FnMut(Place<'_>, [&str; N]) -> Result<()>,
) -> Result<()> {
    let damaged = |error: ParquetError| {
        Error::file(
            path,
            format!("expected a whole Parquet file: {error}; get it again, or write it with snappy or gzip"),
        )
    };
    let file = File::open(path).map_err(Error::io(path))?;
    let reader = SerializedFileReader::new(file).map_err(damaged)?;
    let schema = reader.metadata().file_metadata().schema();
    let chosen = columns.map(|column| (choose(schema, &column), column));
    if let Some((_, column)) = chosen.iter().find(|(found, column)| found.is_none() && column.required) {
        let there: Vec<&str> = schema.get_fields().iter().map(|field| field.name()).collect();
        let message = format!("expected a column `{}`, got {}", column.names.join("` or `"), there.join(", "));
        return Err(Error::file(path, message));
    }
    let fields = chosen.iter().filter_map(|(found, _)| found.clone()).collect();
    let projection = Type::group_type_builder(schema.name()).with_fields(fields).build().map_err(damaged)?;
    for (index, row) in reader.get_row_iter(Some(projection)).map_err(damaged)?.enumerate() {
        let place = Place { path, line: index as u64 + 1 };
        let row = row.map_err(|error| place.error(format!("cannot be read: {error}; get the file again")))?;
        let values: BTreeMap<String, Field> = row.into_columns().into_iter().collect();
        let mut texts = [const { String::new() }; N];
        for (text, (found, column)) in texts.iter_mut().zip(&chosen) {
            if let Some(field) = found.as_ref().and_then(|found| values.get(found.name())) {
                *text = as_text(place, column, field)?;
            }
        }
        visit(place, texts.each_ref().map(String::as_str))?;
    }
    Ok(())
}

fn choose(schema: &Type, column: &Column) -> Option<Arc<Type>> {
    let named = |name: &&str| schema.get_fields().iter().find(|field| field.name() == *name).cloned();
    column.names.iter().find_map(named)
}

/// Strings as they are, whole numbers in digits.
fn as_text(place: Place<'_>, column: &Column, field: &Field) -> Result<String> {
    match field {
        Field::Str(text) => Ok(text.clone()),
        Field::Null if !column.required => Ok(String::new()),
        Field::Bytes(bytes) => String::from_utf8(bytes.data().to_vec()).map_err(|error| {
            place.error(format!("column `{}`: {}; write it as UTF-8 strings", column.names[0], error.utf8_error()))
        }),
        Field::Byte(_)
        | Field::Short(_)
        | Field::Int(_)
        | Field::Long(_)
        | Field::UByte(_)
        | Field::UShort(_)
        | Field::UInt(_)
        | Field::ULong(_) => Ok(field.to_string()),
        Field::Float(value) if value.fract() == 0.0 => Ok(format!("{value:.0}")),
        Field::Double(value) if value.fract() == 0.0 => Ok(format!("{value:.0}")),
        other => {
            Err(place.error(format!("column `{}`: expected a string or whole number, got {other}", column.names[0])))
        }
    }
}

/// Writes a table of string columns, and after them whole-number columns, row group after row group.
pub(super) struct TableWriter<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    texts: Vec<Vec<ByteArray>>,
    numbers: Vec<Vec<i64>>,
}

impl<W: Write + Send> TableWriter<W> {
    /// Begins a table with these columns.
    pub(super) fn new(output: W, texts: &[&str], numbers: &[&str]) -> std::result::Result<Self, ParquetError> {
        let text = texts.iter().map(|name| format!("REQUIRED BYTE_ARRAY {name} (UTF8);"));
        let number = numbers.iter().map(|name| format!("REQUIRED INT64 {name};"));
        let message: String = text.chain(number).collect();
        let schema = Arc::new(parse_message_type(&format!("message schema {{ {message} }}"))?);
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        Ok(Self {
            writer: SerializedFileWriter::new(output, schema, Arc::new(properties))?,
            texts: vec![Vec::new(); texts.len()],
            numbers: vec![Vec::new(); numbers.len()],
        })
    }

    /// Appends a row.
    pub(super) fn push(&mut self, texts: &[&str], numbers: &[i64]) -> std::result::Result<(), ParquetError> {
        self.texts.iter_mut().zip(texts).for_each(|(column, text)| column.push(ByteArray::from(*text)));
        self.numbers.iter_mut().zip(numbers).for_each(|(column, number)| column.push(*number));
        if self.texts[0].len() == GROUP { self.flush() } else { Ok(()) }
    }

    /// Writes what is left, and the footer.
    pub(super) fn finish(mut self) -> std::result::Result<(), ParquetError> {
        self.flush()?;
        self.writer.close().map(drop)
    }

    fn flush(&mut self) -> std::result::Result<(), ParquetError> {
        let mut group = self.writer.next_row_group()?;
        for column in &mut self.texts {
            if let Some(mut writer) = group.next_column()? {
                writer.typed::<ByteArrayType>().write_batch(column, None, None)?;
                writer.close()?;
            }
            column.clear();
        }
        for column in &mut self.numbers {
            if let Some(mut writer) = group.next_column()? {
                writer.typed::<Int64Type>().write_batch(column, None, None)?;
                writer.close()?;
            }
            column.clear();
        }
        group.close().map(drop)
    }
}
