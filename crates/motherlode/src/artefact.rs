//! Artefacts: a folder of data files and a `manifest.json`, which exists whole or not at all.
//!
//! A stage asks for a [`Draft`] under the final folder's name. If an artefact with the same key is there already, it
//! gets that instead. Otherwise it writes files into `NAME.partial`, each synced and renamed when finished, and
//! [`Draft::commit`] writes the manifest and renames the folder. A stage that was killed finds the finished files of
//! its partial folder again ([`Draft::is_finished`]) and goes on with the next. This file is the only writer of
//! artefacts; the ledger is the one other thing that a stage writes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::memory;

const MANIFEST: &str = "manifest.json";
/// What an artefact took to make; outside the manifest, because it is another each time.
pub const TIMING: &str = "timing.json";
const JOURNAL: &str = "journal.json";

/// What a stage counted: in, out, and dropped per reason; plus values and remarks for the reader of the report.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Whole numbers, by name, such as `queries` or `dropped: positive by text`.
    pub counts: BTreeMap<String, u64>,
    /// Measured values, by name.
    pub values: BTreeMap<String, f64>,
    /// Sentences that a reader must not miss, such as rounded weights.
    pub notes: Vec<String>,
}

impl Summary {
    /// Adds to a count.
    pub fn count(&mut self, name: impl Into<String>, by: usize) {
        *self.counts.entry(name.into()).or_default() += by as u64;
    }

    /// Sets a value.
    pub fn value(&mut self, name: impl Into<String>, value: f64) {
        self.values.insert(name.into(), value);
    }

    /// Adds a remark, once.
    pub fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}

/// One data file of an artefact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Path inside the artefact, with `/`.
    pub path: String,
    /// Size.
    pub bytes: u64,
    /// Lines, vectors or records, whatever the file holds.
    pub rows: u64,
    /// BLAKE3 of the content, in hexadecimal.
    pub blake3: String,
}

/// What stands in `manifest.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The verb that made the artefact, such as `mine`.
    pub stage: String,
    /// Version of the stage's file format and meaning.
    pub format: u32,
    /// Digest of stage, format, configuration, seed and input keys.
    pub key: String,
    /// The full configuration of the stage.
    pub config: Value,
    /// The seed.
    pub seed: u64,
    /// Keys of the inputs, by role.
    pub inputs: BTreeMap<String, String>,
    /// The data files, sorted by path.
    pub files: Vec<FileRecord>,
    /// What the stage counted.
    pub summary: Summary,
}

/// What determines an artefact: the same recipe gives the same key, and the same key means "up to date".
#[derive(Debug, Clone)]
pub struct Recipe {
    stage: String,
    format: u32,
    config: Value,
    seed: u64,
    inputs: BTreeMap<String, String>,
}

impl Recipe {
    /// Stage, format version and configuration; inputs are added with [`input`](Self::input).
    pub fn new(stage: &str, format: u32, config: &impl Serialize) -> Result<Self> {
        let config = serde_json::to_value(config).map_err(|error| Error::config(format!("{stage}: {error}")))?;
        Ok(Self { stage: stage.to_owned(), format, config, seed: 0, inputs: BTreeMap::new() })
    }

    /// Sets the seed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Adds an input artefact under a role.
    #[must_use]
    pub fn input(self, role: &str, artefact: &Artefact) -> Self {
        self.input_key(role, artefact.key())
    }

    /// Adds an input that is no artefact by its digest.
    #[must_use]
    pub fn input_key(mut self, role: &str, key: &str) -> Self {
        self.inputs.insert(role.to_owned(), key.to_owned());
        self
    }

    /// In what another artefact of the stage differs, one phrase each: knobs, seed, and the inputs that both name. A
    /// configuration that several sections make up is compared by the stage's own.
    pub fn differences(&self, other: &Manifest) -> Vec<String> {
        let mut found = Vec::new();
        let own = self.config.get(0).unwrap_or(&self.config);
        differing_knobs(&self.stage, other.config.get(&self.stage).unwrap_or(&other.config), own, &mut found);
        if self.seed != other.seed {
            found.push(format!("seed {}, now {}", other.seed, self.seed));
        }
        let differs = |(role, key): &(&String, &String)| other.inputs.get(*role).is_some_and(|other| other != *key);
        found.extend(self.inputs.iter().filter(differs).map(|(role, _)| format!("another {role}")));
        found
    }

    /// The digest: 32 hexadecimal digits of BLAKE3 over the canonical JSON of everything above.
    pub fn key(&self) -> String {
        let content = serde_json::json!([self.stage, self.format, self.config, self.seed, self.inputs]);
        let digest = blake3::hash(content.to_string().as_bytes()).to_hex();
        digest.as_str()[..32].to_owned()
    }
}

/// Knobs whose values differ, such as `judge.depth 6, now 20`.
fn differing_knobs(name: &str, before: &Value, now: &Value, found: &mut Vec<String>) {
    let (Value::Object(before), Value::Object(now)) = (before, now) else {
        if before != now {
            let said = |value: &Value| if value.is_null() { "unset".to_owned() } else { value.to_string() };
            found.push(format!("{name} {}, now {}", said(before), said(now)));
        }
        return;
    };
    let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let of = |values: &serde_json::Map<String, Value>, key: &str| values.get(key).cloned().unwrap_or_default();
    names.into_iter().for_each(|key| differing_knobs(&format!("{name}.{key}"), &of(before, key), &of(now, key), found));
}

/// A finished artefact, whose files have been checked against its manifest.
#[derive(Debug, Clone)]
pub struct Artefact {
    folder: PathBuf,
    manifest: Manifest,
}

impl Artefact {
    /// Opens a finished artefact and checks every file's size and hash.
    ///
    /// # Errors
    /// No manifest, or a file that is missing, of another size, or of another hash than the manifest says.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST);
        let text = fs::read_to_string(&path).map_err(Error::io(&path))?;
        let manifest: Manifest = serde_json::from_str(&text).map_err(|error| {
            Error::file(&path, format!("not a manifest ({error}); remove {} and run again", folder.display()))
        })?;
        let artefact = Self { folder: folder.to_path_buf(), manifest };
        artefact.manifest.files.iter().try_for_each(|file| artefact.verify(file))?;
        Ok(artefact)
    }

    fn verify(&self, file: &FileRecord) -> Result<()> {
        let path = self.path(&file.path);
        let bytes = fs::metadata(&path).map_err(Error::io(&path))?.len();
        if bytes == file.bytes && hash_file(&path)? == file.blake3 {
            return Ok(());
        }
        let remedy = format!("it was changed after it was written; remove {} and run again", self.folder.display());
        Err(Error::file(
            &path,
            format!("content differs from the manifest ({} bytes expected, {bytes} found): {remedy}", file.bytes),
        ))
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The full path of a data file.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// The digest of everything that determined the artefact.
    pub fn key(&self) -> &str {
        &self.manifest.key
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What the stage counted.
    pub fn summary(&self) -> &Summary {
        &self.manifest.summary
    }

    /// Whether the artefact has this file.
    pub fn has(&self, file: &str) -> bool {
        self.manifest.files.iter().any(|record| record.path == file)
    }

    /// Refuses an artefact of another stage, as when paths on the command line were swapped.
    pub fn expect_stage(self, stage: &str) -> Result<Self> {
        if self.manifest.stage == stage {
            return Ok(self);
        }
        let found = &self.manifest.stage;
        Err(Error::file(&self.folder, format!("expected an artefact of `{stage}`, this one is of `{found}`")))
    }

    /// Reads a JSON Lines file of the artefact.
    pub fn read_lines<T: serde::de::DeserializeOwned>(&self, file: &str) -> Result<Vec<T>> {
        let path = self.path(file);
        let text = fs::read_to_string(&path).map_err(Error::io(&path))?;
        let parse = |(index, line)| {
            serde_json::from_str(line).map_err(|error| Error::line(&path, index as u64 + 1, error.to_string()))
        };
        text.lines().enumerate().map(parse).collect()
    }
}

/// What [`draft`] found under the asked name.
pub enum Outcome {
    /// An artefact with the same key: nothing to do.
    UpToDate(Artefact),
    /// Nothing, or an artefact of another key: write it.
    Write(Draft),
}

/// An artefact that is being written.
pub struct Draft {
    folder: PathBuf,
    partial: PathBuf,
    recipe: Recipe,
    files: BTreeMap<String, FileRecord>,
    started: Instant,
    /// What goes to `timing.json` beside the time.
    taken: serde_json::Map<String, serde_json::Value>,
    _lock: File,
}

#[derive(Serialize, Deserialize)]
struct Journal {
    key: String,
    files: BTreeMap<String, FileRecord>,
}

/// Starts, or takes up again, the artefact `folder` made by `recipe`.
///
/// # Errors
/// Another process is writing the same artefact, the existing one fails its check, or the file system refuses.
pub fn draft(folder: &Path, recipe: Recipe) -> Result<Outcome> {
    if folder.join(MANIFEST).exists() {
        let artefact = Artefact::open(folder)?;
        if artefact.key() == recipe.key() {
            return Ok(Outcome::UpToDate(artefact));
        }
    } else if folder.exists() {
        return Err(Error::file(folder, "exists and is no artefact; name another folder or remove it"));
    }
    let partial = sibling(folder, "partial");
    fs::create_dir_all(&partial).map_err(Error::io(&partial))?;
    let lock = lock(folder)?;
    let key = recipe.key();
    let files = match read_journal(&partial) {
        Some(journal) if journal.key == key => journal.files,
        _ => {
            clear(&partial)?;
            BTreeMap::new()
        }
    };
    let (folder, taken) = (folder.to_path_buf(), serde_json::Map::new());
    let draft = Draft { folder, partial, recipe, files, started: Instant::now(), taken, _lock: lock };
    draft.write_journal()?;
    memory::forget_peak();
    Ok(Outcome::Write(draft))
}

impl Draft {
    /// Whether this file was finished, now or before the stage was interrupted.
    pub fn is_finished(&self, file: &str) -> bool {
        self.files.contains_key(file)
    }

    /// Where a finished file of the draft lies while it is being written.
    pub fn path(&self, file: &str) -> PathBuf {
        self.partial.join(file)
    }

    /// The key of the artefact to be.
    pub fn key(&self) -> String {
        self.recipe.key()
    }

    /// A folder for whatever the stage needs to go on after an interruption; it is removed by [`commit`](Self::commit).
    pub fn scratch(&self) -> Result<PathBuf> {
        let scratch = self.partial.join(".scratch");
        fs::create_dir_all(&scratch).map_err(Error::io(&scratch))?;
        Ok(scratch)
    }

    /// Writes one file whole: under a temporary name, synced, renamed, then noted in the journal.
    ///
    /// `write` returns the number of rows. A file that is finished already is left as it is.
    pub fn write(&mut self, file: &str, write: impl FnOnce(&mut BufWriter<File>) -> Result<u64>) -> Result<()> {
        if self.is_finished(file) {
            return Ok(());
        }
        let path = self.path(file);
        let rows = write_whole(&path, write)?;
        let bytes = fs::metadata(&path).map_err(Error::io(&path))?.len();
        let record = FileRecord { path: file.to_owned(), bytes, rows, blake3: hash_file(&path)? };
        self.files.insert(file.to_owned(), record);
        self.write_journal()
    }

    /// Writes one record a line as JSON.
    pub fn write_lines<T: Serialize>(&mut self, file: &str, rows: impl IntoIterator<Item = T>) -> Result<()> {
        let path = self.path(file);
        self.write(file, |output| {
            let mut count = 0;
            for row in rows {
                serde_json::to_writer(&mut *output, &row).map_err(|error| Error::file(&path, error.to_string()))?;
                output.write_all(b"\n").map_err(Error::io(&path))?;
                count += 1;
            }
            Ok(count)
        })
    }

    /// Writes a text as a file.
    pub fn write_text(&mut self, file: &str, text: &str) -> Result<()> {
        let path = self.path(file);
        self.write(file, |output| output.write_all(text.as_bytes()).map(|()| 1).map_err(Error::io(&path)))
    }

    /// Writes a copy of the file at `from`.
    pub fn copy(&mut self, file: &str, from: &Path) -> Result<()> {
        let mut input = File::open(from).map_err(Error::io(from))?;
        self.write(file, |output| std::io::copy(&mut input, output).map(|_| 1).map_err(Error::io(from)))
    }

    /// Takes over a file that other code wrote at [`path`](Self::path), such as an engine saving its weights.
    pub fn adopt(&mut self, file: &str, rows: u64) -> Result<()> {
        let path = self.path(file);
        File::open(&path).and_then(|file| file.sync_all()).map_err(Error::io(&path))?;
        let bytes = fs::metadata(&path).map_err(Error::io(&path))?.len();
        let record = FileRecord { path: file.to_owned(), bytes, rows, blake3: hash_file(&path)? };
        self.files.insert(file.to_owned(), record);
        self.write_journal()
    }

    /// Keeps what else the artefact took, such as answers of language models, for [`TIMING`].
    pub fn took(&mut self, name: &str, what: impl Serialize) -> Result<()> {
        let value = serde_json::to_value(what).map_err(|error| Error::data(format!("{name}: {error}")))?;
        self.taken.insert(name.to_owned(), value);
        Ok(())
    }

    /// Finishes the artefact: manifest, sync, rename. How long it took, and the most bytes of memory that the process had
    /// meanwhile, go to [`TIMING`].
    pub fn commit(mut self, summary: Summary) -> Result<Artefact> {
        self.took("seconds", self.started.elapsed().as_secs_f64())?;
        self.took("peak_memory", memory::peak())?;
        let key = self.key();
        let Recipe { stage, format, config, seed, inputs } = self.recipe;
        let manifest =
            Manifest { stage, format, key, config, seed, inputs, files: self.files.into_values().collect(), summary };
        remove_if_there(&self.partial.join(".scratch"))?;
        write_json(&self.partial.join(TIMING), &self.taken)?;
        write_json(&self.partial.join(MANIFEST), &manifest)?;
        fs::remove_file(self.partial.join(JOURNAL)).map_err(Error::io(&self.partial))?;
        sync_folder(&self.partial)?;
        let old = sibling(&self.folder, "old");
        remove_if_there(&old)?;
        if self.folder.exists() {
            fs::rename(&self.folder, &old).map_err(Error::io(&self.folder))?;
        }
        fs::rename(&self.partial, &self.folder).map_err(Error::io(&self.folder))?;
        remove_if_there(&old)?;
        sync_folder(self.folder.parent().unwrap_or(Path::new(".")))?;
        remove_if_there(&sibling(&self.folder, "lock"))?;
        Ok(Artefact { folder: self.folder, manifest })
    }

    fn write_journal(&self) -> Result<()> {
        let journal = Journal { key: self.recipe.key(), files: self.files.clone() };
        write_json(&self.partial.join(JOURNAL), &journal)
    }
}

/// Writes a file whole or not at all: temporary name in the same folder, sync, rename.
pub fn write_whole<R>(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> Result<R>) -> Result<R> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(Error::io(parent))?;
    let temporary = sibling(path, "tmp");
    let mut output = BufWriter::with_capacity(1 << 20, File::create(&temporary).map_err(Error::io(&temporary))?);
    let result = write(&mut output)?;
    let file = output.into_inner().map_err(|error| Error::io(&temporary)(error.into_error()))?;
    file.sync_all().map_err(Error::io(&temporary))?;
    fs::rename(&temporary, path).map_err(Error::io(path))?;
    Ok(result)
}

/// What lies in a folder, by name.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = |entry: std::io::Result<fs::DirEntry>| entry.map(|entry| entry.path()).map_err(Error::io(folder));
    let mut paths = fs::read_dir(folder).map_err(Error::io(folder))?.map(read).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// BLAKE3 of a file's content, in hexadecimal.
pub fn hash_file(path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let file = File::open(path).map_err(Error::io(path))?;
    hasher.update_reader(file).map_err(Error::io(path))?;
    Ok(hasher.finalize().to_hex().to_string())
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    write_whole(path, |output| {
        serde_json::to_writer_pretty(&mut *output, value).map_err(|error| Error::file(path, error.to_string()))?;
        output.write_all(b"\n").map_err(Error::io(path))
    })
}

fn read_journal(partial: &Path) -> Option<Journal> {
    serde_json::from_slice(&fs::read(partial.join(JOURNAL)).ok()?).ok()
}

fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    path.with_file_name(name)
}

/// One writer at a time; the system drops the lock with the process, however it ends.
fn lock(folder: &Path) -> Result<File> {
    let path = sibling(folder, "lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(Error::io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            Err(Error::file(folder, "another process is writing this artefact; wait for it to end"))
        }
        Err(fs::TryLockError::Error(error)) => Err(Error::io(&path)(error)),
    }
}

fn clear(folder: &Path) -> Result<()> {
    remove_if_there(folder)?;
    fs::create_dir_all(folder).map_err(Error::io(folder))
}

fn remove_if_there(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path)(error)),
        _ => Ok(()),
    }
}

fn sync_folder(folder: &Path) -> Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder).and_then(|file| file.sync_all()).map_err(Error::io(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(knob: u32) -> Recipe {
        Recipe::new("mine", 1, &serde_json::json!({ "knob": knob })).unwrap().seed(7)
    }

    fn begin(folder: &Path, knob: u32) -> Draft {
        match draft(folder, recipe(knob)).unwrap() {
            Outcome::Write(draft) => draft,
            Outcome::UpToDate(_) => panic!("nothing was written yet"),
        }
    }

    #[test]
    fn the_same_recipe_is_up_to_date_and_another_replaces_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut first = begin(&path, 1);
        first.write_lines("x.jsonl", [1, 2, 3]).unwrap();
        let artefact = first.commit(Summary::default()).unwrap();
        assert_eq!(artefact.read_lines::<u32>("x.jsonl").unwrap(), [1, 2, 3]);
        assert!(matches!(draft(&path, recipe(1)).unwrap(), Outcome::UpToDate(_)));
        begin(&path, 2).commit(Summary::default()).unwrap();
        assert!(Artefact::open(&path).unwrap().manifest().files.is_empty());
    }

    #[test]
    fn an_interrupted_draft_keeps_its_finished_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        begin(&path, 1).write_lines("x.jsonl", ["kept"]).unwrap();
        assert!(!path.exists());
        assert!(begin(&path, 1).is_finished("x.jsonl"));
        assert!(!begin(&path, 2).is_finished("x.jsonl"), "another configuration starts anew");
    }

    #[test]
    fn a_changed_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut draft = begin(&path, 1);
        draft.write_lines("x.jsonl", [1]).unwrap();
        let artefact = draft.commit(Summary::default()).unwrap();
        fs::write(artefact.path("x.jsonl"), "2\n").unwrap();
        assert!(Artefact::open(&path).unwrap_err().to_string().contains("changed after it was written"));
    }

    #[test]
    fn differences_name_knobs_seed_and_inputs() {
        let config = |depth: u32| serde_json::json!({ "depth": depth, "rule": { "name": "margin" }, "old": null });
        let recipe = |depth| Recipe::new("mine", 1, &config(depth)).unwrap().seed(7).input_key("fused", "a");
        let folder = tempfile::tempdir().unwrap();
        let Outcome::Write(draft) = draft(&folder.path().join("a"), recipe(6)).unwrap() else { panic!("made twice") };
        let manifest = draft.commit(Summary::default()).unwrap().manifest().clone();
        assert!(recipe(6).differences(&manifest).is_empty());
        let other = recipe(20).seed(8).input_key("fused", "b").input_key("runs", "c");
        assert_eq!(other.differences(&manifest), ["mine.depth 6, now 20", "seed 7, now 8", "another fused"]);
    }

    #[test]
    fn two_writers_do_not_meet() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let _first = begin(&path, 1);
        assert!(draft(&path, recipe(1)).is_err());
    }
}
