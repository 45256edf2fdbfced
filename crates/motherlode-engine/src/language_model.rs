//! Language models from GGUF files: the blocks of the decoder families, with their weights unpacked for this engine's
//! own products.
//!
//! The quantised weights are read once and packed as an encoder's are; only the word embeddings stay in the file, whose
//! rows are read as they are needed. Beside the products, everything is f32.

mod passes;

use std::sync::{Arc, Mutex};

use motherlode::Result;
use motherlode::engine::{Choose, LanguageModel, Precision};
use motherlode::gguf::{Gguf, Tensor};
use rayon::prelude::*;
use serde_json::{Value, json};

use self::passes::Working;
use crate::block::Block;
use crate::families;
use crate::kernel::mask::Mask;
use crate::kernel::matrix::{Panels, Unit, View};
use crate::kernel::rotary::Rotary;
use crate::layout::{BlockParameters, Linears};
use crate::shape::Shape;

/// A decoder in memory.
#[derive(Debug)]
pub(crate) struct Decoder {
    file: Arc<Gguf>,
    shape: Shape,
    /// Vocabulary × H, in the file.
    words: Tensor,
    rotary: Rotary,
    layers: Vec<DecoderLayer>,
    final_norm: Vec<f32>,
    /// From a token's vector to the scores of the next token.
    scores: Panels,
    unit: Unit,
    /// Working memory of earlier calls.
    memory: Mutex<Vec<Working>>,
}

#[derive(Debug, Default)]
struct DecoderLayer {
    /// Normalisations and biases; the matrices are empty.
    vectors: BlockParameters<Vec<f32>>,
    panels: Linears<Panels>,
}

/// Tensors outside the layers; the last is absent where the word embeddings serve for both.
const OUTSIDE: [&str; 3] = ["token_embd.weight", "output_norm.weight", "output.weight"];
/// Tensors of a layer.
const INSIDE: [&str; 14] = [
    "attn_norm.weight",
    "attn_q.weight",
    "attn_k.weight",
    "attn_v.weight",
    "attn_q.bias",
    "attn_k.bias",
    "attn_v.bias",
    "attn_q_norm.weight",
    "attn_k_norm.weight",
    "attn_output.weight",
    "ffn_norm.weight",
    "ffn_gate.weight",
    "ffn_up.weight",
    "ffn_down.weight",
];

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
        let unit = match precision {
            Precision::F32 => Unit::single(),
            Precision::Bf16 => Unit::bfloat16(),
        };
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
        Ok(Self { file, shape, words, rotary, layers, final_norm, scores, unit, memory: Mutex::default() })
    }

    fn block(&self, layer: usize) -> Block<'_> {
        let DecoderLayer { vectors, panels } = &self.layers[layer];
        let (shape, weights) = (&self.shape, vectors.lend());
        Block { shape, layer, rotary: Some(&self.rotary), weights, panels, adapters: None, unit: self.unit }
    }
}

/// Reads the parts of a model and checks their sizes.
struct Reader<'a> {
    file: &'a Gguf,
    shape: Shape,
    /// Whether the rows of queries and keys stand in the order of rotary positions that turn neighbours.
    pairs: bool,
}

impl<'a> Reader<'a> {
    fn new(file: &'a Gguf) -> Result<Self> {
        let known = |name: &str| {
            let inside = || {
                let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
                Some(layer.parse::<usize>().is_ok() && INSIDE.contains(&part))
            };
            OUTSIDE.contains(&name) || inside() == Some(true)
        };
        let config = config(file)?;
        let shape = families::read(file.path(), &config)?;
        if let Some(name) = file.tensor_names().find(|name| !known(name)) {
            return Err(file.wrong(format!("tensor `{name}` is not among those that this engine computes")));
        }
        if shape.layers.iter().any(|layer| layer.mask != Mask::CAUSAL) {
            return Err(file.wrong("expected every token to see all tokens before it, got a window"));
        }
        Ok(Self { file, pairs: config["model_type"] == "llama", shape })
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
            let tensor = self.tensor(&format!("blk.{layer}.{part}.weight"), *rows, columns)?;
            let start = values.len();
            values.resize(start + rows * columns, 0.0);
            self.file.read_rows(tensor, 0..*rows, &mut values[start..]);
            if self.pairs && (*part == "attn_q" || *part == "attn_k") {
                self.halves(&mut values[start..], columns);
            }
        }
        Ok(values)
    }

    /// Puts the rows of each head in the order in which value i turns with value i + width / 2.
    fn halves(&self, rows: &mut [f32], columns: usize) {
        let width = self.shape.width;
        for head in rows.chunks_exact_mut(width * columns) {
            let old = head.to_vec();
            for (row, values) in old.chunks_exact(columns).enumerate() {
                let place = row % 2 * (width / 2) + row / 2;
                head[place * columns..(place + 1) * columns].copy_from_slice(values);
            }
        }
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

/// The model's settings as `config.json` has them.
fn config(file: &Gguf) -> Result<Value> {
    let family = file.text("general.architecture")?.unwrap_or("missing");
    if !["llama", "qwen2", "qwen3"].contains(&family) {
        let message = format!("expected the architecture llama, qwen2 or qwen3, got {family}");
        return Err(file.wrong(message));
    }
    let name = |part: &str| format!("{family}.{part}");
    let whole = |part: &str| {
        let number = file.whole(&name(part))?;
        number.ok_or_else(|| file.wrong(format!("expected a setting `{}`, got none", name(part))))
    };
    if file.text(&name("rope.scaling.type"))?.is_some_and(|kind| kind != "none") {
        return Err(file.wrong("scaled rotary positions are not computed by this engine"));
    }
    let (hidden, heads) = (whole("embedding_length")?, whole("attention.head_count")?);
    let width = file.whole(&name("attention.key_length"))?.unwrap_or(hidden / heads.max(1));
    let turned = file.whole(&name("rope.dimension_count"))?.unwrap_or(width);
    if turned != width {
        return Err(file.wrong(format!("expected all {width} values of a head to turn by position, got {turned}")));
    }
    let words = file.tensor(OUTSIDE[0]).ok_or_else(|| file.wrong("expected a tensor `token_embd.weight`, got none"))?;
    let mut config = json!({
        "model_type": family,
        "vocab_size": words.rows,
        "hidden_size": hidden,
        "num_hidden_layers": whole("block_count")?,
        "num_attention_heads": heads,
        "num_key_value_heads": file.whole(&name("attention.head_count_kv"))?.unwrap_or(heads),
        "intermediate_size": whole("feed_forward_length")?,
        "max_position_embeddings": whole("context_length")?,
        "rms_norm_eps": file.float(&name("attention.layer_norm_rms_epsilon"))?,
        "hidden_act": "silu",
        "rope_theta": file.float(&name("rope.freq_base"))?.unwrap_or(10_000.0),
    });
    if family != "qwen2" {
        config["head_dim"] = width.into();
    }
    Ok(config)
}

#[cfg(test)]
mod tests;
