//! Weights in safetensors files: read as f32, f16 or bf16, written as f32.

use std::io::{BufWriter, Write};
use std::path::Path;

use half::{bf16, f16};
use motherlode::artefact::write_whole;
use motherlode::mapped::MappedFile;
use motherlode::{Error, Result};
use rayon::prelude::*;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};

use crate::layout::{Layout, Tensor};

/// What models with a head put before the names of the encoder's tensors.
const PREFIXES: [&str; 3] = ["", "bert.", "roberta."];

/// Reads the tensors of `layout`; others in the file, such as a pooler, are left alone.
///
/// # Errors
/// A file that is truncated or no safetensors file; a tensor that is missing, of another shape, of another type than
/// f32, f16 and bf16, or with a value that is not finite.
pub(crate) fn read(path: &Path, layout: &Layout) -> Result<Vec<f32>> {
    let file = open(path)?;
    let tensors = SafeTensors::deserialize(file.bytes()).map_err(|error| {
        Error::file(path, format!("not a whole safetensors file ({error}); fetch or convert the model again"))
    })?;
    let mut values = vec![0.0; layout.parameters()];
    let mut rest = values.as_mut_slice();
    let mut targets = Vec::with_capacity(layout.tensors.len());
    for tensor in &layout.tensors {
        let (target, others) = std::mem::take(&mut rest).split_at_mut(tensor.place.len());
        targets.push((tensor, target));
        rest = others;
    }
    targets
        .into_par_iter()
        .try_for_each(|(tensor, target)| fill(path, tensor, &find(path, &tensors, tensor)?, target))?;
    Ok(values)
}

fn open(path: &Path) -> Result<MappedFile> {
    if !path.exists() {
        let message = "no such file; the weights must be one safetensors file, neither sharded nor a pickle: convert \
                       them with safetensors' own tools";
        return Err(Error::file(path, message));
    }
    MappedFile::open(path)
}

fn find<'a>(path: &Path, tensors: &SafeTensors<'a>, wanted: &Tensor) -> Result<TensorView<'a>> {
    // Checkpoints converted from TensorFlow name the parameters of a normalisation in its own way.
    let older = wanted.name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
    let names = [&wanted.name, &older].into_iter().flat_map(|name| PREFIXES.map(|prefix| format!("{prefix}{name}")));
    names.map(|name| tensors.tensor(&name)).find_map(std::result::Result::ok).ok_or_else(|| {
        let message = format!("no tensor `{}`, with or without a prefix; is it a model of another kind?", wanted.name);
        Error::file(path, message)
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
pub(crate) fn write(path: &Path, layout: &Layout, values: &[f32]) -> Result<()> {
    write_whole(path, |output| {
        let header = header(layout);
        write_bytes(path, output, &(header.len() as u64).to_le_bytes())?;
        write_bytes(path, output, header.as_bytes())?;
        write_values(output, values).map_err(Error::io(path))
    })
}

fn write_bytes(path: &Path, output: &mut BufWriter<std::fs::File>, bytes: &[u8]) -> Result<()> {
    output.write_all(bytes).map_err(Error::io(path))
}

/// Writes `values` in little-endian order.
pub(crate) fn write_values(output: &mut dyn Write, values: &[f32]) -> std::io::Result<()> {
    values.chunks(1 << 16).try_for_each(|values| {
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
        _folder: tempfile::TempDir,
        path: PathBuf,
        layout: Layout,
    }

    fn tiny() -> Tiny {
        let folder = tempfile::tempdir().unwrap();
        write_tiny_encoder(folder.path(), 20, 8, 2, 1).unwrap();
        let model = ModelFolder::open(folder.path(), &LoadOptions::default()).unwrap();
        Tiny { path: model.weights, layout: Layout::new(&model.shape), _folder: folder }
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

    fn error(tiny: &Tiny) -> String {
        read(&tiny.path, &tiny.layout).unwrap_err().to_string()
    }

    const BIAS: &str = "encoder.layer.1.output.dense.bias";

    #[test]
    fn what_is_written_is_read_back() {
        let tiny = tiny();
        let values = read(&tiny.path, &tiny.layout).unwrap();
        let again = tiny.path.with_file_name("again.safetensors");
        write(&again, &tiny.layout, &values).unwrap();
        assert_eq!(read(&again, &tiny.layout).unwrap(), values);
        assert_eq!(fs::read(&again).unwrap(), fs::read(&tiny.path).unwrap());
    }

    #[test]
    fn prefixes_and_older_names_are_understood() {
        let tiny = tiny();
        let values = read(&tiny.path, &tiny.layout).unwrap();
        rewrite(&tiny, |tensors| {
            let old = std::mem::take(tensors);
            let rename = |name: String| format!("bert.{}", name.replace("LayerNorm.weight", "LayerNorm.gamma"));
            tensors.extend(old.into_iter().map(|(name, tensor)| (rename(name), tensor)));
        });
        assert_eq!(read(&tiny.path, &tiny.layout).unwrap(), values);
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
            let values = read(&tiny.path, &tiny.layout).unwrap();
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
        assert!(error(&tiny).contains("no such file"));
    }
}
