//! Stopping and going on: what a training is between two steps, written whole, in two generations.
//!
//! A checkpoint file holds the magic `MLTRAIN1`, the length of the JSON text of the loop's state (u64, little endian),
//! that text, whatever the engine writes of itself, and the BLAKE3 hash of all before it (32 bytes). The newest file whose
//! hash is right is taken up; the one before it stays, should the newest be damaged. The weights of the best
//! validation lie beside them in `best-STEP`, and stay as long as one of the two checkpoints names them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::artefact::{self, entries};
use crate::engine::Training;
use crate::error::{Error, Result};

const MAGIC: &[u8; 8] = b"MLTRAIN1";
const HASH: u64 = 32;
const GENERATIONS: usize = 2;
const SUFFIX: &str = "checkpoint";

/// One optimiser step: a line of `log.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Counted from 0.
    pub step: u64,
    /// Counted from 0.
    pub epoch: u32,
    /// The language of the step's queries, `mixed` where there are several.
    pub language: String,
    /// Mean loss of the queries, natural logarithm.
    pub loss: f64,
    /// Learning rate.
    pub rate: f32,
    /// Euclidean norm of the gradient before clipping.
    pub gradient_norm: f32,
    /// Share of the queries whose positive was the most similar passage.
    pub accuracy: f64,
    /// Share of the gradient on negatives by their provenance.
    pub shares: BTreeMap<String, f64>,
}

/// One validation: a line of `validation.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValidationRecord {
    /// Number of optimiser steps before it; 0 is the untouched model.
    pub step: u64,
    /// Mean over the languages.
    pub macro_average: f64,
    /// Mean over the validation queries of each language.
    pub languages: BTreeMap<String, f64>,
}

/// Everything that the loop knows; with the engine's state and the plan it determines the rest of the training.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LoopState {
    /// Optimiser steps done.
    pub step: u64,
    /// The log so far.
    pub log: Vec<StepRecord>,
    /// The validations so far; the last may be at `step`.
    pub validations: Vec<ValidationRecord>,
    /// The steps before the best validation, the earliest of equals; its weights are kept.
    pub best: Option<u64>,
}

impl LoopState {
    /// The validation that stands for the model.
    pub fn best_validation(&self) -> Option<&ValidationRecord> {
        self.validations.iter().find(|validation| Some(validation.step) == self.best)
    }

    /// Validations since the best one.
    pub fn stale(&self) -> usize {
        self.validations.iter().filter(|validation| Some(validation.step) > self.best).count()
    }

    /// Whether the model after `step` steps has been validated.
    pub fn is_validated(&self) -> bool {
        self.validations.last().is_some_and(|validation| validation.step == self.step)
    }

    /// Adds a validation; returns whether it is better than all before.
    pub fn validated(&mut self, validation: ValidationRecord) -> bool {
        let better = self.best_validation().is_none_or(|best| validation.macro_average > best.macro_average);
        if better {
            self.best = Some(validation.step);
        }
        self.validations.push(validation);
        better
    }
}

/// What a loop knows between two steps.
pub(crate) trait Progressed: Serialize + DeserializeOwned {
    /// Optimiser steps done.
    fn step(&self) -> u64;

    /// The steps before the weights that are kept by themselves, if any are.
    fn best(&self) -> Option<u64>;
}

impl Progressed for LoopState {
    fn step(&self) -> u64 {
        self.step
    }

    fn best(&self) -> Option<u64> {
        self.best
    }
}

/// The folder of checkpoints of one training, whose loop knows `S`.
pub(crate) struct Checkpoints<S> {
    folder: PathBuf,
    state: PhantomData<S>,
}

impl<S: Progressed> Checkpoints<S> {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, state: PhantomData }
    }

    /// Where the weights lie that were validated after `step` steps.
    pub(super) fn best(&self, step: u64) -> PathBuf {
        self.folder.join(format!("best-{step}"))
    }

    /// Keeps the weights as those of the best validation so far, whole or not at all.
    pub(super) fn save_best(&self, step: u64, model: &dyn Training) -> Result<()> {
        let (folder, partial) = (self.best(step), self.folder.join("best.partial"));
        for left in [&folder, &partial] {
            if left.exists() {
                fs::remove_dir_all(left).map_err(Error::io(left))?;
            }
        }
        fs::create_dir_all(&partial).map_err(Error::io(&partial))?;
        model.save(&partial)?;
        sync(&partial)?;
        fs::rename(&partial, &folder).map_err(Error::io(&folder))
    }

    /// Writes a checkpoint and removes what no checkpoint needs any more.
    pub(crate) fn write(&self, state: &S, model: &dyn Training) -> Result<()> {
        let path = self.folder.join(format!("{:012}.{SUFFIX}", state.step()));
        let header = serde_json::to_vec(state).map_err(|error| Error::file(&path, error.to_string()))?;
        artefact::write_whole(&path, |output| {
            let mut hashing = Hashing { inner: output, hasher: blake3::Hasher::new() };
            hashing.write_all(MAGIC).map_err(Error::io(&path))?;
            hashing.write_all(&(header.len() as u64).to_le_bytes()).map_err(Error::io(&path))?;
            hashing.write_all(&header).map_err(Error::io(&path))?;
            model.write_state(&mut hashing)?;
            let hash = hashing.hasher.finalize();
            output.write_all(hash.as_bytes()).map_err(Error::io(&path))
        })?;
        self.clean()
    }

    /// Restores the newest sound checkpoint into `model`, if there is one.
    pub(crate) fn restore(&self, model: &mut dyn Training) -> Result<Option<S>> {
        for path in self.newest_first()? {
            if let Some((state, mut engine)) = open::<S>(&path)? {
                model.restore(&mut engine)?;
                if engine.read(&mut [0]).map_err(Error::io(&path))? != 0 {
                    return Err(Error::file(&path, "expected nothing behind the state of the model"));
                }
                return Ok(Some(state));
            }
        }
        Ok(None)
    }

    /// Removes all but the last generations and the best weights that none of them names.
    fn clean(&self) -> Result<()> {
        let checkpoints = self.newest_first()?;
        let (kept, old) = checkpoints.split_at(checkpoints.len().min(GENERATIONS));
        for path in old {
            fs::remove_file(path).map_err(Error::io(path))?;
        }
        let mut named = Vec::new();
        for path in kept {
            named.extend(read_header::<S>(path)?.and_then(|(state, _)| state.best()).map(|step| self.best(step)));
        }
        for path in entries(&self.folder)?.into_iter().filter(|path| path.is_dir() && !named.contains(path)) {
            fs::remove_dir_all(&path).map_err(Error::io(&path))?;
        }
        Ok(())
    }

    fn newest_first(&self) -> Result<Vec<PathBuf>> {
        let mut paths = entries(&self.folder)?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == SUFFIX));
        paths.reverse();
        Ok(paths)
    }
}

/// Makes everything in a folder safe on the disk.
fn sync(folder: &Path) -> Result<()> {
    for path in entries(folder)? {
        if path.is_dir() {
            sync(&path)?;
        }
        File::open(&path).and_then(|file| file.sync_all()).map_err(Error::io(&path))?;
    }
    Ok(())
}

/// The loop's state and a reader of the engine's, or nothing where the file is damaged.
fn open<S: Progressed>(path: &Path) -> Result<Option<(S, impl Read + use<S>)>> {
    if is_sound(path)? { read_header(path) } else { Ok(None) }
}

/// As [`open`], without looking at the hash.
fn read_header<S: Progressed>(path: &Path) -> Result<Option<(S, impl Read + use<S>)>> {
    let length = fs::metadata(path).map_err(Error::io(path))?.len().saturating_sub(HASH);
    let mut input = BufReader::with_capacity(1 << 20, File::open(path).map_err(Error::io(path))?).take(length);
    let mut start = [0; 16];
    input.read_exact(&mut start).map_err(Error::io(path))?;
    let header = u64::from_le_bytes(start[8..].try_into().expect("eight bytes"));
    if start[..8] != *MAGIC || header > length {
        return Ok(None);
    }
    let mut text = vec![0; header as usize];
    input.read_exact(&mut text).map_err(Error::io(path))?;
    Ok(serde_json::from_slice(&text).ok().map(|state| (state, input)))
}

/// Whether the last 32 bytes are the hash of all others.
fn is_sound(path: &Path) -> Result<bool> {
    let file = File::open(path).map_err(Error::io(path))?;
    let Some(length) = file.metadata().map_err(Error::io(path))?.len().checked_sub(HASH) else { return Ok(false) };
    let mut hasher = blake3::Hasher::new();
    let mut content = file.take(length);
    hasher.update_reader(&mut content).map_err(Error::io(path))?;
    let mut stored = [0; HASH as usize];
    content.into_inner().read_exact(&mut stored).map_err(Error::io(path))?;
    Ok(hasher.finalize() == stored)
}

/// Hashes what it passes on.
struct Hashing<'a, W> {
    inner: &'a mut W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashing<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
