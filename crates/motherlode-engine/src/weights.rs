//! Weights in safetensors files, one or several: read as f32, f16 or bf16, written as f32.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use motherlode::artefact::write_whole;
use motherlode::mapped::MappedFile;
use motherlode::{Error, Result};
use rayon::prelude::*;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::config::read_json;
use crate::layout::{Layout, Tensor};

/// The file that holds all weights of a model's folder.
pub(crate) const WEIGHTS: &str = "model.safetensors";
/// The file that says which of several files holds which tensor.
const INDEX: &str = "model.safetensors.index.json";

/// What models with a head put before the names of the encoder's tensors.
pub(crate) const PREFIXES: [&str; 4] = ["", "bert.", "roberta.", "model."];

/// What [`INDEX`] holds.
#[derive(Deserialize)]
struct Index {
    /// The file of each tensor.
    weight_map: BTreeMap<String, String>,
}

/// One file of weights.
pub(crate) struct Shard<'a> {
    path: &'a Path,
    tensors: SafeTensors<'a>,
}

/// Reads the tensors of `layout` from a model's folder; others, such as those of a pooler, are left alone.
///
/// # Errors
/// A file that is missing, truncated or no safetensors file; a tensor that is missing, of another shape, of another type
/// than f32, f16 and bf16, or with a value that is not finite.
pub(crate) fn read(folder: &Path, layout: &Layout) -> Result<Vec<f32>> {
    read_files(&files(folder)?, |shards, tensor| find(folder, shards, tensor), layout)
}

/// Reads the tensors of `layout` from `files`, as `find` finds them.
pub(crate) fn read_files<F>(files: &[PathBuf], find: F, layout: &Layout) -> Result<Vec<f32>>
where
    F: for<'a> Fn(&'a [Shard<'a>], &Tensor) -> Result<(&'a Path, TensorView<'a>)> + Sync,
{
    let maps: Vec<MappedFile> = files.iter().map(|path| MappedFile::open(path)).collect::<Result<_>>()?;
    let shards: Vec<Shard> = files.iter().zip(&maps).map(|(path, map)| Shard::of(path, map)).collect::<Result<_>>()?;
    let mut values = vec![0.0; layout.parameters()];
    let mut rest = values.as_mut_slice();
    let mut targets = Vec::with_capacity(layout.tensors.len());
    for tensor in &layout.tensors {
        let (target, others) = std::mem::take(&mut rest).split_at_mut(tensor.place.len());
        targets.push((tensor, target));
        rest = others;
    }
    targets.into_par_iter().try_for_each(|(tensor, target)| {
        let (path, found) = find(&shards, tensor)?;
        fill(path, tensor, &found, target)
    })?;
    Ok(values)
}

/// The files of weights in a model's folder: one, or those of an index.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let (single, index) = (folder.join(WEIGHTS), folder.join(INDEX));
    if single.exists() {
        return Ok(vec![single]);
    }
    if !index.exists() {
        let message =
            format!("no {WEIGHTS} and no {INDEX}; pickles are not read: convert them with safetensors' own tools");
        return Err(Error::file(folder, message));
    }
    let map: Index = read_json(&index)?;
    let names: BTreeSet<String> = map.weight_map.into_values().collect();
    if let Some(name) = names.iter().find(|name| name.contains(['/', '\\'])) {
        return Err(Error::file(&index, format!("expected files of the same folder, got `{name}`")));
    }
    names.iter().map(|name| folder.join(name)).map(|path| present(&index, path)).collect()
}

fn present(index: &Path, path: PathBuf) -> Result<PathBuf> {
    if path.exists() {
        return Ok(path);
    }
    Err(Error::file(path, format!("no such file, but {} names it; fetch the model again", index.display())))
}

impl<'a> Shard<'a> {
    fn of(path: &'a Path, map: &'a MappedFile) -> Result<Self> {
        let tensors = SafeTensors::deserialize(map.bytes()).map_err(|error| {
            Error::file(path, format!("not a whole safetensors file ({error}); fetch or convert the model again"))
        })?;
        Ok(Self { path, tensors })
    }

    fn get(&self, name: &str) -> Option<(&'a Path, TensorView<'a>)> {
        self.tensors.tensor(name).ok().map(|tensor| (self.path, tensor))
    }
}

/// The first of `names` that any shard has.
pub(crate) fn first<'a>(
    shards: &[Shard<'a>],
    names: impl Iterator<Item = String>,
) -> Option<(&'a Path, TensorView<'a>)> {
    let mut found = names.flat_map(|name| shards.iter().filter_map(move |shard| shard.get(&name)));
    found.next()
}

fn find<'a>(folder: &Path, shards: &[Shard<'a>], wanted: &Tensor) -> Result<(&'a Path, TensorView<'a>)> {
    // Checkpoints converted from TensorFlow name the parameters of a normalisation in its own way.
    let older = wanted.name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
    let names = [&wanted.name, &older].into_iter().flat_map(|name| PREFIXES.map(|prefix| format!("{prefix}{name}")));
    first(shards, names).ok_or_else(|| {
        let message = format!("no tensor `{}`, with or without a prefix; is it a model of another kind?", wanted.name);
        Error::file(shards.first().map_or(folder, |shard| shard.path), message)
    })
}

fn fill(path: &Path, wanted: &Tensor, found: &TensorView, target: &mut [f32]) -> Result<()> {
    let name = format!("{}: `{}`", path.display(), wanted.name);
    if found.shape() != wanted.shape {
        return Err(Error::shape(name, format!("{:?}", wanted.shape), format!("{:?}", found.shape())));
    }
    match found.dtype() {
        Dtype::F32 => convert(found.data(), target, f32::from_le_bytes),
        Dtype::F16 => convert(found.data(), target, |bytes| f16::from_le_bytes(bytes).to_f32()),
        Dtype::BF16 => convert(found.data(), target, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        other => return Err(Error::shape(name, "f32, f16 or bf16", format!("{other:?}"))),
    }
    match target.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(Error::shape(name, "finite weights", format!("{} at element {index}", target[index]))),
        None => Ok(()),
    }
}

fn convert<const N: usize>(bytes: &[u8], target: &mut [f32], value: impl Fn([u8; N]) -> f32) {
    for (target, bytes) in target.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *target = value(*bytes);
    }
}

/// Writes `values` as a safetensors file, whole or not at all.
///
/// # Errors
/// A value that is not finite.
pub(crate) fn write(path: &Path, layout: &Layout, values: &[f32]) -> Result<()> {
    write_parts(path, layout, std::iter::once(Cow::Borrowed(values)))
}

/// As [`write`], of values in several parts.
pub(crate) fn write_parts<'a>(
    path: &Path,
    layout: &Layout,
    mut parts: impl Iterator<Item = Cow<'a, [f32]>>,
) -> Result<()> {
    write_whole(path, |output| {
        let header = header(layout);
        write_bytes(path, output, &(header.len() as u64).to_le_bytes())?;
        write_bytes(path, output, header.as_bytes())?;
        parts.try_for_each(|part| write_values(output, &part)).map_err(Error::io(path))
    })
}

fn write_bytes(path: &Path, output: &mut BufWriter<std::fs::File>, bytes: &[u8]) -> Result<()> {
    output.write_all(bytes).map_err(Error::io(path))
}

/// Writes `values` in little-endian order, and refuses them from the first that is not finite on.
pub(crate) fn write_values(output: &mut dyn Write, values: &[f32]) -> std::io::Result<()> {
    values.chunks(1 << 16).try_for_each(|values| {
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            let message = format!("expected finite numbers, got {value}; lower the learning rate");
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, message));
        }
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        output.write_all(&bytes)
    })
}

/// Reads as many values as `values` holds.
pub(crate) fn read_values(input: &mut dyn std::io::Read, values: &mut [f32]) -> std::io::Result<()> {
    let mut bytes = vec![0; 4 << 16];
    values.chunks_mut(1 << 16).try_for_each(|values| {
        let bytes = &mut bytes[..4 * values.len()];
        input.read_exact(bytes)?;
        convert(bytes, values, f32::from_le_bytes);
        Ok(())
    })
}

/// The JSON that opens a safetensors file, padded such that the values are aligned.
fn header(layout: &Layout) -> String {
    let mut entries = Map::new();
    entries.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    for tensor in &layout.tensors {
        let offsets = [4 * tensor.place.start, 4 * tensor.place.end];
        let entry = json!({"dtype": "F32", "shape": tensor.shape, "data_offsets": offsets});
        entries.insert(tensor.name.clone(), entry);
    }
    let text = Value::Object(entries).to_string();
    let length = text.len().next_multiple_of(8);
    format!("{text:length$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelFolder;
    use crate::tiny::write_tiny_encoder;
    use motherlode::engine::LoadOptions;
    use std::collections::HashMap;
    use std::fs;
    use std::path::PathBuf;

    struct Tiny {
        folder: tempfile::TempDir,
        path: PathBuf,
        layout: Layout,
    }

    fn tiny() -> Tiny {
        let folder = tempfile::tempdir().unwrap();
        write_tiny_encoder(folder.path(), 20, 8, 2, 1).unwrap();
        let model = ModelFolder::open(folder.path(), &LoadOptions::default()).unwrap();
        Tiny { path: folder.path().join(WEIGHTS), layout: Layout::new(&model.shape), folder }
    }

    /// Writes the file again after `change` to its tensors: type, shape and bytes by name.
    fn rewrite(tiny: &Tiny, change: impl FnOnce(&mut HashMap<String, (Dtype, Vec<usize>, Vec<u8>)>)) {
        let bytes = fs::read(&tiny.path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let entry =
            |(name, view): (String, TensorView)| (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()));
        let mut entries: HashMap<_, _> = tensors.tensors().into_iter().map(entry).collect();
        change(&mut entries);
        let views = entries
            .iter()
            .map(|(name, (dtype, shape, data))| (name.clone(), TensorView::new(*dtype, shape.clone(), data).unwrap()));
        fs::write(&tiny.path, safetensors::serialize(views, None).unwrap()).unwrap();
    }

    fn read(tiny: &Tiny) -> Result<Vec<f32>> {
        super::read(tiny.folder.path(), &tiny.layout)
    }

    fn error(tiny: &Tiny) -> String {
        read(tiny).unwrap_err().to_string()
    }

    const BIAS: &str = "encoder.layer.1.output.dense.bias";

    #[test]
    fn what_is_written_is_read_back() {
        let tiny = tiny();
        let values = read(&tiny).unwrap();
        let before = fs::read(&tiny.path).unwrap();
        write(&tiny.path, &tiny.layout, &values).unwrap();
        assert_eq!(read(&tiny).unwrap(), values);
        assert_eq!(fs::read(&tiny.path).unwrap(), before);
    }

    #[test]
    fn prefixes_and_older_names_are_understood() {
        let tiny = tiny();
        let values = read(&tiny).unwrap();
        rewrite(&tiny, |tensors| {
            let old = std::mem::take(tensors);
            let rename = |name: String| format!("bert.{}", name.replace("LayerNorm.weight", "LayerNorm.gamma"));
            tensors.extend(old.into_iter().map(|(name, tensor)| (rename(name), tensor)));
        });
        assert_eq!(read(&tiny).unwrap(), values);
    }

    #[test]
    fn half_precision_is_converted() {
        for dtype in [Dtype::F16, Dtype::BF16] {
            let tiny = tiny();
            rewrite(&tiny, |tensors| {
                let bytes: Vec<u8> = match dtype {
                    Dtype::F16 => [f16::from_f32(-1.5); 8].iter().flat_map(|value| value.to_le_bytes()).collect(),
                    _ => [bf16::from_f32(-1.5); 8].iter().flat_map(|value| value.to_le_bytes()).collect(),
                };
                tensors.insert(BIAS.to_owned(), (dtype, vec![8], bytes));
            });
            let values = read(&tiny).unwrap();
            assert_eq!(values[tiny.layout.tensor(BIAS).unwrap().place.clone()], [-1.5; 8]);
        }
    }

    #[test]
    fn wrong_tensors_are_refused_by_path_and_name() {
        let cases: [(&str, Option<(Dtype, Vec<usize>, Vec<u8>)>); 4] = [
            ("no tensor", None),
            ("expected [8], got [2, 4]", Some((Dtype::F32, vec![2, 4], vec![0; 32]))),
            ("expected f32, f16 or bf16, got I64", Some((Dtype::I64, vec![8], vec![0; 64]))),
            ("NaN at element 0", Some((Dtype::F32, vec![8], f32::NAN.to_le_bytes().repeat(8)))),
        ];
        for (expected, tensor) in cases {
            let tiny = tiny();
            rewrite(&tiny, |tensors| {
                tensors.remove(BIAS);
                tensors.extend(tensor.map(|tensor| (BIAS.to_owned(), tensor)));
            });
            let error = error(&tiny);
            let named = error.contains("model.safetensors") && error.contains(BIAS);
            assert!(named && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_truncated_or_missing_file_is_refused_with_a_remedy() {
        let tiny = tiny();
        let bytes = fs::read(&tiny.path).unwrap();
        for length in [0, 5, 100, bytes.len() - 1] {
            fs::write(&tiny.path, &bytes[..length]).unwrap();
            assert!(error(&tiny).contains("not a whole safetensors file"));
        }
        fs::remove_file(&tiny.path).unwrap();
        assert!(error(&tiny).contains("no model.safetensors and no model.safetensors.index.json"));
    }

    /// Puts the last tensor into a file of its own.
    fn shard(tiny: &Tiny) {
        let bytes = fs::read(&tiny.path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let last = &tiny.layout.tensors.last().unwrap().name;
        let (second, first): (Vec<_>, Vec<_>) = tensors.tensors().into_iter().partition(|(name, _)| name == last);
        let names = [("a.safetensors", &first), ("b.safetensors", &second)];
        let map: Map<String, Value> = names
            .iter()
            .flat_map(|(file, part)| part.iter().map(|(name, _)| (name.clone(), Value::from(*file))))
            .collect();
        for (file, part) in names {
            let views = part.iter().map(|(name, view)| (name, view));
            fs::write(tiny.folder.path().join(file), safetensors::serialize(views, None).unwrap()).unwrap();
        }
        fs::remove_file(&tiny.path).unwrap();
        fs::write(tiny.folder.path().join(INDEX), json!({"weight_map": map}).to_string()).unwrap();
    }

    #[test]
    fn weights_in_several_files_are_read_as_one() {
        let tiny = tiny();
        let values = read(&tiny).unwrap();
        shard(&tiny);
        assert_eq!(read(&tiny).unwrap(), values);
    }

    #[test]
    fn files_that_are_missing_or_elsewhere_are_refused() {
        let tiny = tiny();
        shard(&tiny);
        fs::remove_file(tiny.folder.path().join("b.safetensors")).unwrap();
        assert!(error(&tiny).contains("b.safetensors: no such file, but"), "{}", error(&tiny));
        let index = json!({"weight_map": {"a": "a.safetensors", "b": "../b.safetensors"}});
        fs::write(tiny.folder.path().join(INDEX), index.to_string()).unwrap();
        assert!(error(&tiny).contains("got `../b.safetensors`"));
        fs::write(tiny.folder.path().join(INDEX), json!({"weight_map": {"a": "a.safetensors"}}).to_string()).unwrap();
        assert!(error(&tiny).contains("no tensor"));
    }
}
