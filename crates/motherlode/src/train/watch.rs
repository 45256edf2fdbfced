//! For whoever watches a training: TensorBoard's event file and `metrics.jsonl`, written as the loop goes on.
//!
//! They lie outside the artefact, because they hold times; what counts of them stands in its `log.jsonl` and
//! `validation.jsonl`. A training that is taken up again writes both anew, with all that was before.
//!
//! *Source of the format*: TensorBoard's `event.proto` and `summary.proto`, in records as TensorFlow's `record_writer.cc`
//! frames them: length, its checksum, data, its checksum, each checksum CRC-32C and masked.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::json;

use super::checkpoint::{LoopState, StepRecord, ValidationRecord};
use crate::error::{Error, Result};

/// TensorBoard takes files of this name; one that is shorter than before is read anew.
const EVENTS: &str = "events.out.tfevents.0.motherlode";
const METRICS: &str = "metrics.jsonl";
const VERSION: &str = "brain.Event:2";

/// The two files of one training.
pub(super) struct Watch {
    folder: PathBuf,
    events: BufWriter<File>,
    metrics: BufWriter<File>,
}

impl Watch {
    /// Begins both files in `folder`, which is made if it is not there, with all that the loop has done.
    pub(super) fn open(folder: &Path, state: &LoopState) -> Result<Self> {
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let create = |name: &str| {
            let path = folder.join(name);
            File::create(&path).map(BufWriter::new).map_err(Error::io(&path))
        };
        let mut watch = Self { events: create(EVENTS)?, metrics: create(METRICS)?, folder: folder.to_path_buf() };
        let version = framed(&event(seconds(), 0, &delimited(3, VERSION.as_bytes())));
        watch.events.write_all(&version).map_err(Error::io(folder))?;
        let mut validations = state.validations.iter().peekable();
        for record in &state.log {
            while let Some(validation) = validations.next_if(|validation| validation.step <= record.step) {
                watch.validated(validation)?;
            }
            watch.stepped(record)?;
        }
        validations.try_for_each(|validation| watch.validated(validation))?;
        Ok(watch)
    }

    /// Adds a step; it reaches the files at the next validation, or when there is enough to write.
    pub(super) fn stepped(&mut self, record: &StepRecord) -> Result<()> {
        let mut values = vec![
            ("train/loss".to_owned(), record.loss),
            ("train/learning rate".to_owned(), f64::from(record.rate)),
            ("train/gradient norm".to_owned(), f64::from(record.gradient_norm)),
            ("train/batch accuracy".to_owned(), record.accuracy),
        ];
        values.extend(record.shares.iter().map(|(name, share)| (format!("gradient share/{name}"), *share)));
        self.add(record.step, &values, "step", record)
    }

    /// Adds a validation and flushes the files.
    pub(super) fn validated(&mut self, record: &ValidationRecord) -> Result<()> {
        let mut values = vec![("validation/nDCG@10".to_owned(), record.macro_average)];
        values.extend(record.languages.iter().map(|(name, value)| (format!("validation nDCG@10/{name}"), *value)));
        self.add(record.step, &values, "validation", record)?;
        let flushed = self.events.flush().and_then(|()| self.metrics.flush());
        flushed.map_err(Error::io(&self.folder))
    }

    fn add(&mut self, step: u64, values: &[(String, f64)], kind: &str, record: &impl Serialize) -> Result<()> {
        let scalars: Vec<u8> = values.iter().flat_map(|(tag, value)| scalar(tag, *value as f32)).collect();
        let event = framed(&event(seconds(), step, &delimited(5, &scalars)));
        self.events.write_all(&event).map_err(Error::io(&self.folder))?;
        let line = json!({ "kind": kind, "record": record });
        writeln!(self.metrics, "{line}").map_err(Error::io(&self.folder))
    }
}

/// Seconds since 1970.
fn seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// An `Event`: `wall_time` (1), `step` (2, left out where it is 0), and what it is about.
fn event(seconds: f64, step: u64, about: &[u8]) -> Vec<u8> {
    let mut bytes = key(1, 1);
    bytes.extend(seconds.to_le_bytes());
    if step > 0 {
        bytes.extend(key(2, 0));
        bytes.extend(varint(step));
    }
    bytes.extend(about);
    bytes
}

/// A `Summary.Value`: `tag` (1) and `simple_value` (2), as field 1 of a `Summary`.
fn scalar(tag: &str, value: f32) -> Vec<u8> {
    let mut bytes = delimited(1, tag.as_bytes());
    bytes.extend(key(2, 5));
    bytes.extend(value.to_le_bytes());
    delimited(1, &bytes)
}

/// A field of bytes with their length.
fn delimited(field: u64, content: &[u8]) -> Vec<u8> {
    let mut bytes = key(field, 2);
    bytes.extend(varint(content.len() as u64));
    bytes.extend(content);
    bytes
}

/// A field's number and wire type.
fn key(field: u64, wire: u64) -> Vec<u8> {
    varint((field << 3) | wire)
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn framed(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &checksum(&length).to_le_bytes(), data, &checksum(data).to_le_bytes()].concat()
}

/// CRC-32C, turned and moved so that a checksum of checksums is none of them.
fn checksum(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const ONE: &str = "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c";
    const TWO: &str = "2c00000000000000f4aecc4509000000000000024010ac022a1e0a110a0a747261696e2f6c6f7373150000003f0a090a\
                       02cf8915000000c04cf89bb9";

    /// Golden: tensorboard 2.21.0, `tests/golden/tensorboard_events.py`.
    #[test]
    fn events_are_those_of_tensorboard() {
        let byte = |hex: &str, at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let bytes = |hex: &str| (0..hex.len()).step_by(2).map(|at| byte(hex, at)).collect::<Vec<u8>>();
        let scalars = [scalar("train/loss", 0.5), scalar("ω", -2.0)].concat();
        assert_eq!(framed(&event(1.5, 0, &delimited(3, VERSION.as_bytes()))), bytes(ONE));
        assert_eq!(framed(&event(2.25, 300, &delimited(5, &scalars))), bytes(TWO));
    }

    #[test]
    fn a_training_taken_up_again_tells_all_that_was_before() {
        let folder = tempfile::tempdir().unwrap();
        let step = |step| StepRecord {
            step,
            epoch: 0,
            language: "sw".into(),
            loss: 1.0,
            rate: 1e-5,
            gradient_norm: 1.0,
            accuracy: 0.5,
            shares: BTreeMap::from([("judged".to_owned(), 1.0)]),
        };
        let validation = |step| ValidationRecord { step, macro_average: 0.5, languages: BTreeMap::new() };
        let state = LoopState {
            step: 2,
            log: vec![step(0), step(1)],
            validations: vec![validation(0), validation(2)],
            best: Some(0),
        };
        let mut watch = Watch::open(folder.path(), &state).unwrap();
        watch.stepped(&step(2)).unwrap();
        drop(watch);
        let lines = fs::read_to_string(folder.path().join(METRICS)).unwrap();
        let of = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            (line["kind"].as_str().unwrap().to_owned(), line["record"]["step"].as_u64().unwrap())
        };
        let expected = [("validation", 0), ("step", 0), ("step", 1), ("validation", 2), ("step", 2)];
        let expected = expected.map(|(kind, step)| (kind.to_owned(), step));
        assert_eq!(lines.lines().map(of).collect::<Vec<_>>(), expected);
        assert!(fs::metadata(folder.path().join(EVENTS)).unwrap().len() > 300);
    }
}
