//! Where each tensor stands in the one stretch of memory that holds all parameters of an encoder.
//!
//! Weights, gradients and moments share the layout, so that the optimiser sees four long slices. Query, key and value
//! weights of a layer stand side by side: together they are one matrix of 3 H rows.

use std::ops::Range;

use crate::config::Shape;

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
    hidden: usize,
    inner: usize,
    /// Tensors before the first layer: the embeddings.
    embeddings: [usize; 5],
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
#[derive(Debug)]
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
}

impl<T> EmbeddingParameters<T> {
    fn of([word, position, kind, norm_weight, norm_bias]: [T; 5]) -> Self {
        Self { word, position, kind, norm_weight, norm_bias }
    }
}

impl<T> BlockParameters<T> {
    fn of(parts: [T; 12]) -> Self {
        let [
            projection_weight,
            projection_bias,
            merge_weight,
            merge_bias,
            attention_norm_weight,
            attention_norm_bias,
            rest @ ..,
        ] = parts;
        let [expand_weight, expand_bias, contract_weight, contract_bias, output_norm_weight, output_norm_bias] = rest;
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
        }
    }
}

impl Layout {
    /// The layout of an encoder of this shape.
    pub(crate) fn new(shape: &Shape) -> Self {
        let hidden = shape.hidden;
        let mut tensors = Vec::new();
        push(&mut tensors, "embeddings.word_embeddings.weight", &[shape.vocabulary, hidden]);
        push(&mut tensors, "embeddings.position_embeddings.weight", &[shape.positions, hidden]);
        push(&mut tensors, "embeddings.token_type_embeddings.weight", &[shape.kinds, hidden]);
        push(&mut tensors, "embeddings.LayerNorm.weight", &[hidden]);
        push(&mut tensors, "embeddings.LayerNorm.bias", &[hidden]);
        for layer in 0..shape.layers {
            push_layer(&mut tensors, &format!("encoder.layer.{layer}"), hidden, shape.inner);
        }
        let embeddings = [shape.vocabulary * hidden, shape.positions * hidden, shape.kinds * hidden, hidden, hidden];
        Self { tensors, hidden, inner: shape.inner, embeddings }
    }

    /// Number of parameters.
    pub(crate) fn parameters(&self) -> usize {
        self.tensors.last().map_or(0, |tensor| tensor.place.end)
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
        BlockParameters::of(cut(&parameters[self.layer_start(layer)..], self.block_sizes()))
    }

    pub(crate) fn block_mut<'a>(&self, parameters: &'a mut [f32], layer: usize) -> BlockParameters<&'a mut [f32]> {
        BlockParameters::of(cut_mut(&mut parameters[self.layer_start(layer)..], self.block_sizes()))
    }

    fn layer_start(&self, layer: usize) -> usize {
        self.embeddings.iter().sum::<usize>() + layer * self.block_sizes().iter().sum::<usize>()
    }

    fn block_sizes(&self) -> [usize; 12] {
        let (hidden, inner) = (self.hidden, self.inner);
        let [square, wide] = [hidden * hidden, hidden * inner];
        [3 * square, 3 * hidden, square, hidden, hidden, hidden, wide, inner, wide, hidden, hidden, hidden]
    }
}

fn push(tensors: &mut Vec<Tensor>, name: &str, shape: &[usize]) {
    let start = tensors.last().map_or(0, |tensor: &Tensor| tensor.place.end);
    let place = start..start + shape.iter().product::<usize>();
    tensors.push(Tensor { name: name.to_owned(), shape: shape.to_vec(), place, decays: shape.len() == 2 });
}

fn push_layer(tensors: &mut Vec<Tensor>, layer: &str, hidden: usize, inner: usize) {
    for part in ["query", "key", "value"] {
        push(tensors, &format!("{layer}.attention.self.{part}.weight"), &[hidden, hidden]);
    }
    for part in ["query", "key", "value"] {
        push(tensors, &format!("{layer}.attention.self.{part}.bias"), &[hidden]);
    }
    for (part, outputs, inputs) in [
        ("attention.output.dense", hidden, Some(hidden)),
        ("attention.output.LayerNorm", hidden, None),
        ("intermediate.dense", inner, Some(hidden)),
        ("output.dense", hidden, Some(inner)),
        ("output.LayerNorm", hidden, None),
    ] {
        let shape: Vec<usize> = std::iter::once(outputs).chain(inputs).collect();
        push(tensors, &format!("{layer}.{part}.weight"), &shape);
        push(tensors, &format!("{layer}.{part}.bias"), &[outputs]);
    }
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
        Layout::new(&Shape {
            vocabulary: 7,
            hidden: 4,
            layers: 2,
            heads: 2,
            inner: 6,
            positions: 5,
            first_position: 0,
            kinds: 2,
            epsilon: 1e-12,
        })
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
    }

    #[test]
    fn only_matrices_decay() {
        for tensor in &layout().tensors {
            assert_eq!(tensor.decays, !tensor.name.contains("LayerNorm") && !tensor.name.ends_with("bias"));
        }
    }
}
