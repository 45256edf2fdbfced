//! Where each tensor stands in the one stretch of memory that holds all parameters of an encoder.
//!
//! Weights, gradients and moments share the layout, so that the optimiser sees four long slices. Query, key and value
//! weights of a layer stand side by side, and so do those of a gate and of what it lets pass: together they are one
//! matrix. A part that an encoder lacks has no values.

use std::ops::Range;

use crate::shape::{Activation, Output, Placement, Shape};

/// The weight of a language model's head that is not tied to the word embeddings.
pub(crate) const HEAD: &str = "lm_head.weight";

/// One tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tensor {
    /// As Hugging Face's models name it, without the model's prefix.
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    /// Place among the parameters.
    pub(crate) place: Range<usize>,
    /// Whether weight decay applies: not to biases and normalisations.
    pub(crate) decays: bool,
}

/// All tensors, in the order in which they stand.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) tensors: Vec<Tensor>,
    /// Values of the parts of the embeddings, which stand first.
    embeddings: [usize; 5],
    blocks: Vec<BlockPlace>,
    /// Where the parts of the final normalisation begin, and their values.
    final_norm: (usize, [usize; 2]),
    /// The vectors of words that logits are computed with.
    head: Range<usize>,
}

/// Where a layer begins, and the values of its parts.
#[derive(Debug, Clone)]
struct BlockPlace {
    start: usize,
    sizes: [usize; 14],
}

/// The embeddings' part of weights or gradients.
#[derive(Debug)]
pub(crate) struct EmbeddingParameters<T> {
    pub(crate) word: T,
    pub(crate) position: T,
    pub(crate) kind: T,
    pub(crate) norm_weight: T,
    pub(crate) norm_bias: T,
}

/// One layer's part of weights or gradients; matrices are outputs × inputs.
#[derive(Debug, Default)]
pub(crate) struct BlockParameters<T> {
    pub(crate) projection_weight: T,
    pub(crate) projection_bias: T,
    pub(crate) merge_weight: T,
    pub(crate) merge_bias: T,
    pub(crate) attention_norm_weight: T,
    pub(crate) attention_norm_bias: T,
    pub(crate) expand_weight: T,
    pub(crate) expand_bias: T,
    pub(crate) contract_weight: T,
    pub(crate) contract_bias: T,
    pub(crate) output_norm_weight: T,
    pub(crate) output_norm_bias: T,
    pub(crate) query_norm: T,
    pub(crate) key_norm: T,
}

impl<T> EmbeddingParameters<T> {
    fn of([word, position, kind, norm_weight, norm_bias]: [T; 5]) -> Self {
        Self { word, position, kind, norm_weight, norm_bias }
    }
}

impl<T> BlockParameters<T> {
    fn of(parts: [T; 14]) -> Self {
        let [
            projection_weight,
            projection_bias,
            merge_weight,
            merge_bias,
            attention_norm_weight,
            attention_norm_bias,
            rest @ ..,
        ] = parts;
        let [expand_weight, expand_bias, contract_weight, contract_bias, rest @ ..] = rest;
        let [output_norm_weight, output_norm_bias, query_norm, key_norm] = rest;
        Self {
            projection_weight,
            projection_bias,
            merge_weight,
            merge_bias,
            attention_norm_weight,
            attention_norm_bias,
            expand_weight,
            expand_bias,
            contract_weight,
            contract_bias,
            output_norm_weight,
            output_norm_bias,
            query_norm,
            key_norm,
        }
    }
}

impl BlockParameters<Vec<f32>> {
    /// The same parameters, lent.
    pub(crate) fn lend(&self) -> BlockParameters<&[f32]> {
        BlockParameters {
            projection_weight: &self.projection_weight,
            projection_bias: &self.projection_bias,
            merge_weight: &self.merge_weight,
            merge_bias: &self.merge_bias,
            attention_norm_weight: &self.attention_norm_weight,
            attention_norm_bias: &self.attention_norm_bias,
            expand_weight: &self.expand_weight,
            expand_bias: &self.expand_bias,
            contract_weight: &self.contract_weight,
            contract_bias: &self.contract_bias,
            output_norm_weight: &self.output_norm_weight,
            output_norm_bias: &self.output_norm_bias,
            query_norm: &self.query_norm,
            key_norm: &self.key_norm,
        }
    }
}

impl Layout {
    /// The layout of an encoder of this shape.
    pub(crate) fn new(shape: &Shape) -> Self {
        let mut builder = Builder { shape, tensors: Vec::new() };
        let embeddings = builder.embeddings();
        let blocks = (0..shape.layers.len())
            .map(|layer| BlockPlace { start: builder.end(), sizes: builder.block(layer) })
            .collect();
        let present = shape.placement == Placement::Before;
        let final_norm = (builder.end(), builder.norm(shape.names.final_norm, present));
        let head = match shape.output {
            Output::Vectors => 0..0,
            Output::Tied => 0..embeddings[0],
            Output::Untied => {
                builder.end()..builder.end() + builder.push(HEAD.to_owned(), &[shape.vocabulary, shape.hidden])
            }
        };
        Self { tensors: builder.tensors, embeddings, blocks, final_norm, head }
    }

    /// The layout of `tensors` alone, which stand one behind the other; it has neither embeddings nor blocks.
    pub(crate) fn of(tensors: Vec<Tensor>) -> Self {
        Self { tensors, embeddings: [0; 5], blocks: Vec::new(), final_norm: (0, [0; 2]), head: 0..0 }
    }

    /// Number of parameters.
    pub(crate) fn parameters(&self) -> usize {
        self.tensors.last().map_or(0, |tensor| tensor.place.end)
    }

    /// The vectors of words that logits are computed with, vocabulary × H; none in an encoder.
    pub(crate) fn head(&self) -> Range<usize> {
        self.head.clone()
    }

    /// The word embeddings, which stand first.
    pub(crate) fn words(&self) -> Range<usize> {
        0..self.embeddings[0]
    }

    /// The tensor of this name.
    #[cfg(test)]
    pub(crate) fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    pub(crate) fn embeddings<'a>(&self, parameters: &'a [f32]) -> EmbeddingParameters<&'a [f32]> {
        EmbeddingParameters::of(cut(parameters, self.embeddings))
    }

    pub(crate) fn embeddings_mut<'a>(&self, parameters: &'a mut [f32]) -> EmbeddingParameters<&'a mut [f32]> {
        EmbeddingParameters::of(cut_mut(parameters, self.embeddings))
    }

    pub(crate) fn block<'a>(&self, parameters: &'a [f32], layer: usize) -> BlockParameters<&'a [f32]> {
        let BlockPlace { start, sizes } = &self.blocks[layer];
        BlockParameters::of(cut(&parameters[*start..], *sizes))
    }

    pub(crate) fn block_mut<'a>(&self, parameters: &'a mut [f32], layer: usize) -> BlockParameters<&'a mut [f32]> {
        self.block_of(&mut parameters[self.place(layer)], layer)
    }

    /// The parts of `values`, the parameters of a layer.
    pub(crate) fn block_of<'a>(&self, values: &'a mut [f32], layer: usize) -> BlockParameters<&'a mut [f32]> {
        BlockParameters::of(cut_mut(values, self.blocks[layer].sizes))
    }

    /// Where the embeddings' parameters stand.
    pub(crate) fn embedding_places(&self) -> EmbeddingParameters<Range<usize>> {
        EmbeddingParameters::of(places(0, self.embeddings))
    }

    /// Where each of the parameters of a layer stands.
    pub(crate) fn block_places(&self, layer: usize) -> BlockParameters<Range<usize>> {
        let BlockPlace { start, sizes } = &self.blocks[layer];
        BlockParameters::of(places(*start, *sizes))
    }

    /// Where the parameters of a layer stand.
    pub(crate) fn place(&self, layer: usize) -> Range<usize> {
        let BlockPlace { start, sizes } = &self.blocks[layer];
        *start..start + sizes.iter().sum::<usize>()
    }

    /// Weight and bias of the normalisation after the last block.
    pub(crate) fn final_norm<'a>(&self, parameters: &'a [f32]) -> [&'a [f32]; 2] {
        cut(&parameters[self.final_norm.0..], self.final_norm.1)
    }

    /// Weight and bias of the normalisation after the last block.
    pub(crate) fn final_norm_mut<'a>(&self, parameters: &'a mut [f32]) -> [&'a mut [f32]; 2] {
        cut_mut(&mut parameters[self.final_norm.0..], self.final_norm.1)
    }
}

/// Puts tensor after tensor. Every function returns the number of values that it placed.
struct Builder<'a> {
    shape: &'a Shape,
    tensors: Vec<Tensor>,
}

impl Builder<'_> {
    /// Where the next tensor will stand.
    fn end(&self) -> usize {
        self.tensors.last().map_or(0, |tensor| tensor.place.end)
    }

    fn push(&mut self, name: String, shape: &[usize]) -> usize {
        let start = self.end();
        let place = start..start + shape.iter().product::<usize>();
        self.tensors.push(Tensor { name, shape: shape.to_vec(), place, decays: shape.len() == 2 });
        self.end() - start
    }

    fn table(&mut self, name: &str, rows: usize) -> usize {
        if rows == 0 { 0 } else { self.push(format!("{name}.weight"), &[rows, self.shape.hidden]) }
    }

    fn norm(&mut self, name: &str, present: bool) -> [usize; 2] {
        if !present {
            return [0; 2];
        }
        let hidden = [self.shape.hidden];
        let weight = self.push(format!("{name}.weight"), &hidden);
        [weight, if self.shape.norm.bias { self.push(format!("{name}.bias"), &hidden) } else { 0 }]
    }

    /// The matrices of `modules`, which have so many rows each, then their biases.
    fn linear(&mut self, modules: &[(String, usize)], inputs: usize, bias: bool) -> [usize; 2] {
        let weight = modules.iter().map(|(name, rows)| self.push(format!("{name}.weight"), &[*rows, inputs])).sum();
        let modules = if bias { modules } else { &[] };
        [weight, modules.iter().map(|(name, rows)| self.push(format!("{name}.bias"), &[*rows])).sum()]
    }

    fn embeddings(&mut self) -> [usize; 5] {
        let Shape { names, vocabulary, tables, norm, .. } = self.shape;
        let word = self.table(names.words, *vocabulary);
        let position = self.table(names.positions, tables.positions);
        let kind = self.table(names.kinds, tables.kinds);
        let [weight, bias] = self.norm(names.embedding_norm, norm.embeddings);
        [word, position, kind, weight, bias]
    }

    fn block(&mut self, layer: usize) -> [usize; 14] {
        let shape = self.shape;
        let Shape { names, hidden, width, biases, .. } = shape;
        let name = |part: &str| format!("{}.{layer}.{part}", names.layers);
        let parts = shape.parts(layer);
        let [pw, pb] = self.linear(&parts.projection, *hidden, biases.projection);
        let [mw, mb] = self.linear(&parts.merge, shape.context(), biases.merge);
        let [aw, ab] = self.norm(&name(names.attention_norm), shape.layers[layer].attention_norm);
        let [ew, eb] = self.linear(&parts.expand, *hidden, biases.feed_forward);
        let [cw, cb] = self.linear(&parts.contract, shape.inner, biases.feed_forward);
        let [ow, ob] = self.norm(&name(names.output_norm), true);
        let mut head_norm = |part: &str| {
            if shape.head_norms { self.push(format!("{}.weight", name(part)), &[*width]) } else { 0 }
        };
        let [qn, kn] = [names.query_norm, names.key_norm].map(&mut head_norm);
        [pw, pb, mw, mb, aw, ab, ew, eb, cw, cb, ow, ob, qn, kn]
    }
}

/// One thing for each of the four linear maps of a block.
#[derive(Debug, Default)]
pub(crate) struct Linears<T> {
    /// To queries, keys and values.
    pub(crate) projection: T,
    /// From the heads' contexts back to H.
    pub(crate) merge: T,
    /// From H to the inner values.
    pub(crate) expand: T,
    /// From F back to H.
    pub(crate) contract: T,
}

/// Which of a block's linear maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Map {
    Projection,
    Merge,
    Expand,
    Contract,
}

impl<T> Linears<T> {
    pub(crate) fn of(&self, map: Map) -> &T {
        match map {
            Map::Projection => &self.projection,
            Map::Merge => &self.merge,
            Map::Expand => &self.expand,
            Map::Contract => &self.contract,
        }
    }

    pub(crate) fn of_mut(&mut self, map: Map) -> &mut T {
        match map {
            Map::Projection => &mut self.projection,
            Map::Merge => &mut self.merge,
            Map::Expand => &mut self.expand,
            Map::Contract => &mut self.contract,
        }
    }
}

impl<'a> BlockParameters<&'a [f32]> {
    /// A copy of the normalisations and biases; the matrices are empty.
    pub(crate) fn vectors(&self) -> BlockParameters<Vec<f32>> {
        BlockParameters {
            projection_bias: self.projection_bias.to_vec(),
            merge_bias: self.merge_bias.to_vec(),
            attention_norm_weight: self.attention_norm_weight.to_vec(),
            attention_norm_bias: self.attention_norm_bias.to_vec(),
            expand_bias: self.expand_bias.to_vec(),
            contract_bias: self.contract_bias.to_vec(),
            output_norm_weight: self.output_norm_weight.to_vec(),
            output_norm_bias: self.output_norm_bias.to_vec(),
            query_norm: self.query_norm.to_vec(),
            key_norm: self.key_norm.to_vec(),
            ..BlockParameters::default()
        }
    }

    /// The bias of a linear map, empty if it has none.
    pub(crate) fn bias(&self, map: Map) -> &'a [f32] {
        match map {
            Map::Projection => self.projection_bias,
            Map::Merge => self.merge_bias,
            Map::Expand => self.expand_bias,
            Map::Contract => self.contract_bias,
        }
    }
}

impl Shape {
    /// The modules of which the linear maps of a layer are made, by name, with their rows.
    pub(crate) fn parts(&self, layer: usize) -> Linears<Vec<(String, usize)>> {
        let Self { names, hidden, heads, groups, width, inner, .. } = self;
        let named = |parts: &[&str], rows: &[usize]| {
            let name = |part: &&str| format!("{}.{layer}.{part}", names.layers);
            parts.iter().map(name).zip(rows.iter().copied()).collect()
        };
        let projections = [heads * width, groups * width, groups * width];
        let all = [projections.iter().sum()];
        let gate_and_rest = match self.activation {
            Activation::Gated(_) if names.expand.len() == 2 => [*inner; 2],
            _ => [self.expanded(); 2],
        };
        Linears {
            projection: named(names.projection, if names.projection.len() == 1 { &all } else { &projections }),
            merge: named(&[names.merge], &[*hidden]),
            expand: named(names.expand, &gate_and_rest),
            contract: named(&[names.contract], &[*hidden]),
        }
    }
}

fn places<const N: usize>(mut start: usize, sizes: [usize; N]) -> [Range<usize>; N] {
    sizes.map(|size| {
        start += size;
        start - size..start
    })
}

fn cut<const N: usize>(mut values: &[f32], sizes: [usize; N]) -> [&[f32]; N] {
    sizes.map(|size| {
        let (part, rest) = values.split_at(size);
        values = rest;
        part
    })
}

fn cut_mut<const N: usize>(mut values: &mut [f32], sizes: [usize; N]) -> [&mut [f32]; N] {
    sizes.map(|size| {
        let (part, rest) = std::mem::take(&mut values).split_at_mut(size);
        values = rest;
        part
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        let config = serde_json::json!({
            "model_type": "bert", "vocab_size": 7, "hidden_size": 4, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 6, "hidden_act": "gelu", "max_position_embeddings": 5, "type_vocab_size": 2,
            "layer_norm_eps": 1e-12,
        });
        Layout::new(&crate::families::read("config.json".as_ref(), &config).unwrap())
    }

    #[test]
    fn the_parts_of_a_layer_are_the_tensors_of_their_names() {
        let layout = layout();
        let parameters: Vec<f32> = (0..layout.parameters()).map(|index| index as f32).collect();
        let first = |name: &str| layout.tensor(name).unwrap().place.start as f32;
        let last = |name: &str| layout.tensor(name).unwrap().place.end as f32 - 1.0;
        let block = layout.block(&parameters, 1);
        assert_eq!(block.projection_weight.first(), Some(&first("encoder.layer.1.attention.self.query.weight")));
        assert_eq!(block.projection_weight.last(), Some(&last("encoder.layer.1.attention.self.value.weight")));
        assert_eq!(block.projection_bias.last(), Some(&last("encoder.layer.1.attention.self.value.bias")));
        assert_eq!(block.merge_weight.first(), Some(&first("encoder.layer.1.attention.output.dense.weight")));
        assert_eq!(block.expand_bias.first(), Some(&first("encoder.layer.1.intermediate.dense.bias")));
        assert_eq!(block.contract_weight.last(), Some(&last("encoder.layer.1.output.dense.weight")));
        assert_eq!(block.output_norm_bias.last(), Some(&(layout.parameters() as f32 - 1.0)));
        assert_eq!(layout.embeddings(&parameters).norm_bias.last(), Some(&last("embeddings.LayerNorm.bias")));
        assert_eq!(&parameters[layout.block_places(1).expand_bias], block.expand_bias);
        let embeddings = layout.embeddings(&parameters);
        assert_eq!(&parameters[layout.embedding_places().position], embeddings.position);
    }

    #[test]
    fn only_matrices_decay() {
        for tensor in &layout().tensors {
            assert_eq!(tensor.decays, !tensor.name.contains("LayerNorm") && !tensor.name.ends_with("bias"));
        }
    }
}
