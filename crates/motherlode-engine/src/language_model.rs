//! Language models from GGUF files and folders: the blocks of the decoder families, with their weights unpacked for this engine's
//! own products.
//!
//! The quantised weights are read once and packed as an encoder's are; only a file's word embeddings stay there, whose
//! rows are read as they are needed. Beside the products, everything is f32.

mod passes;

use std::path::Path;
use std::sync::{Arc, Mutex};

use motherlode::engine::{Choose, LanguageModel, LoadOptions, Precision};
use motherlode::gguf::{Gguf, Tensor, hugging_face};
use motherlode::{Error, Result};
use rayon::prelude::*;

use self::passes::Working;
use crate::block::Block;
use crate::config::ModelFolder;
use crate::families;
use crate::kernel::mask::Mask;
use crate::kernel::matrix::{Panels, Unit, View};
use crate::kernel::rotary::Rotary;
use crate::layout::{BlockParameters, Linears};
use crate::network::Network;
use crate::shape::Shape;

/// A decoder in memory.
#[derive(Debug)]
pub(crate) struct Decoder {
    shape: Shape,
    words: Words,
    rotary: Rotary,
    layers: Vec<DecoderLayer>,
    final_norm: Vec<f32>,
    /// From a token's vector to the scores of the next token.
    scores: Panels,
    unit: Unit,
    /// Working memory of earlier calls.
    memory: Mutex<Vec<Working>>,
}

/// The word embeddings, vocabulary × H.
#[derive(Debug)]
enum Words {
    /// In the file.
    File(Arc<Gguf>, Tensor),
    /// In memory.
    Memory(Vec<f32>),
}

#[derive(Debug, Default)]
struct DecoderLayer {
    /// Normalisations and biases; the matrices are empty.
    vectors: BlockParameters<Vec<f32>>,
    panels: Linears<Panels>,
}

/// Tensors outside the layers; the last is absent where the word embeddings serve for both.
const OUTSIDE: [&str; 3] = ["token_embd.weight", "output_norm.weight", "output.weight"];
impl LanguageModel for Decoder {
    fn longest(&self) -> usize {
        self.shape.longest
    }

    fn vocabulary(&self) -> usize {
        self.shape.vocabulary
    }

    fn continue_texts(&self, groups: &[Vec<Vec<u32>>], choose: &Choose) -> Result<()> {
        passes::run(self, groups, choose)
    }
}

impl Decoder {
    /// Reads a model.
    ///
    /// # Errors
    /// An architecture, a setting or a tensor that this engine does not compute; a tensor that is missing or of another
    /// size than the settings say.
    pub(crate) fn open(file: Arc<Gguf>, precision: Precision) -> Result<Self> {
        let reader = Reader::new(&file)?;
        let unit = Unit::of(precision);
        let shape = reader.shape.clone();
        let words = reader.tensor(OUTSIDE[0], shape.vocabulary, shape.hidden)?;
        let final_norm = reader.vector(OUTSIDE[1], shape.hidden)?;
        let head = match file.tensor(OUTSIDE[2]) {
            Some(_) => reader.tensor(OUTSIDE[2], shape.vocabulary, shape.hidden)?,
            None => words,
        };
        let layers = (0..shape.layers.len()).into_par_iter().map(|layer| reader.layer(layer, unit));
        let layers = layers.collect::<Result<Vec<_>>>()?;
        let mut values = vec![0.0; shape.vocabulary * shape.hidden];
        let rows = values.par_chunks_mut(shape.hidden).enumerate();
        rows.for_each(|(row, values)| file.read_rows(head, row..row + 1, values));
        let scores = Panels::of(View::new(&values, shape.hidden).transposed(), unit);
        let rotary = Rotary::new(shape.thetas[0], shape.width, shape.longest);
        let words = Words::File(file, words);
        Ok(Self { shape, words, rotary, layers, final_norm, scores, unit, memory: Mutex::default() })
    }

    /// Reads a model from a folder of Hugging Face's layout; adapters beside its weights are merged into them.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn open_folder(folder: &Path, precision: Precision) -> Result<Self> {
        let model = ModelFolder::language_model(folder, &LoadOptions::default())?;
        check_masks(folder, &model.shape)?;
        let network = Network::open(&model, None, precision)?;
        let Network { shape, layout, weights, mut rotaries, unit, panels, .. } = network;
        let layers = panels.into_iter().enumerate();
        let layers =
            layers.map(|(layer, panels)| DecoderLayer { vectors: layout.block(&weights, layer).vectors(), panels });
        let layers = layers.collect();
        let [final_norm, _] = layout.final_norm(&weights).map(<[f32]>::to_vec);
        let scores = Panels::of(View::new(&weights[layout.head()], shape.hidden).transposed(), unit);
        let words = Words::Memory(weights[layout.words()].to_vec());
        // The first one's θ is that of every layer of a decoder.
        let rotary = rotaries.swap_remove(0);
        Ok(Self { shape, words, rotary, layers, final_norm, scores, unit, memory: Mutex::default() })
    }

    /// Writes the vector of a word to `row`.
    fn word(&self, id: u32, row: &mut [f32]) {
        let (id, hidden) = (id as usize, self.shape.hidden);
        match &self.words {
            Words::File(file, words) => file.read_rows(*words, id..id + 1, row),
            Words::Memory(words) => row.copy_from_slice(&words[id * hidden..(id + 1) * hidden]),
        }
    }

    fn block(&self, layer: usize) -> Block<'_> {
        let DecoderLayer { vectors, panels } = &self.layers[layer];
        let (shape, weights) = (&self.shape, vectors.lend());
        Block { shape, layer, rotary: Some(&self.rotary), weights, panels, adapters: None, unit: self.unit }
    }
}

/// Refuses windows.
fn check_masks(path: &Path, shape: &Shape) -> Result<()> {
    if shape.layers.iter().all(|layer| layer.mask == Mask::CAUSAL) {
        return Ok(());
    }
    Err(Error::file(path, "expected every token to see all tokens before it, got a window"))
}

/// Reads the parts of a model and checks their sizes.
struct Reader<'a> {
    file: &'a Gguf,
    shape: Shape,
    family: String,
}

impl<'a> Reader<'a> {
    fn new(file: &'a Gguf) -> Result<Self> {
        let config = hugging_face::config(file)?;
        let shape = families::read(file.path(), &config)?;
        if let Some(name) = file.tensor_names().find(|name| hugging_face::tensor_name(name).is_none()) {
            return Err(file.wrong(format!("tensor `{name}` is not among those that this engine computes")));
        }
        check_masks(file.path(), &shape)?;
        let family = config["model_type"].as_str().unwrap_or_default().to_owned();
        Ok(Self { file, shape, family })
    }

    fn tensor(&self, name: &str, rows: usize, columns: usize) -> Result<Tensor> {
        let Some(tensor) = self.file.tensor(name) else {
            return Err(self.file.wrong(format!("expected a tensor `{name}`, got none")));
        };
        if (tensor.rows, tensor.columns) != (rows, columns) {
            let got = format!("{} × {}", tensor.rows, tensor.columns);
            return Err(self.file.wrong(format!("tensor `{name}`: expected {rows} × {columns}, got {got}")));
        }
        Ok(tensor)
    }

    fn vector(&self, name: &str, length: usize) -> Result<Vec<f32>> {
        let mut values = vec![0.0; length];
        self.file.read_rows(self.tensor(name, 1, length)?, 0..1, &mut values);
        Ok(values)
    }

    /// The rows of several tensors of a layer, one behind the other.
    fn rows(&self, layer: usize, parts: &[(&str, usize)], columns: usize) -> Result<Vec<f32>> {
        let mut values = Vec::new();
        for (part, rows) in parts {
            let name = format!("blk.{layer}.{part}.weight");
            let tensor = self.tensor(&name, *rows, columns)?;
            let start = values.len();
            values.resize(start + rows * columns, 0.0);
            self.file.read_rows(tensor, 0..*rows, &mut values[start..]);
            if hugging_face::turns_neighbours(&self.family, &name) {
                hugging_face::halves(&mut values[start..], self.shape.width, columns);
            }
        }
        Ok(values)
    }

    fn layer(&self, layer: usize, unit: Unit) -> Result<DecoderLayer> {
        let Shape { hidden, heads, groups, width, inner, .. } = self.shape;
        let projections = [("attn_q", heads * width), ("attn_k", groups * width), ("attn_v", groups * width)];
        let pack = |parts: &[(&str, usize)], columns: usize| -> Result<Panels> {
            Ok(Panels::of(View::new(&self.rows(layer, parts, columns)?, columns).transposed(), unit))
        };
        let panels = Linears {
            projection: pack(&projections, hidden)?,
            merge: pack(&[("attn_output", hidden)], heads * width)?,
            expand: pack(&[("ffn_gate", inner), ("ffn_up", inner)], hidden)?,
            contract: pack(&[("ffn_down", hidden)], inner)?,
        };
        Ok(DecoderLayer { vectors: self.vectors(layer, &projections)?, panels })
    }

    fn vectors(&self, layer: usize, projections: &[(&str, usize)]) -> Result<BlockParameters<Vec<f32>>> {
        let Shape { hidden, width, head_norms, biases, .. } = self.shape;
        let vector = |part: &str, length: usize| self.vector(&format!("blk.{layer}.{part}"), length);
        let mut vectors = BlockParameters {
            attention_norm_weight: vector("attn_norm.weight", hidden)?,
            output_norm_weight: vector("ffn_norm.weight", hidden)?,
            ..BlockParameters::default()
        };
        if biases.projection {
            for (part, rows) in projections {
                vectors.projection_bias.extend(vector(&format!("{part}.bias"), *rows)?);
            }
        }
        if head_norms {
            vectors.query_norm = vector("attn_q_norm.weight", width)?;
            vectors.key_norm = vector("attn_k_norm.weight", width)?;
        }
        Ok(vectors)
    }
}

#[cfg(test)]
mod tests;
