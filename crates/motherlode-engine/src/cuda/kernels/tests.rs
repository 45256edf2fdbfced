//! Every kernel against its namesake on the processor: on the twin, and on a graphics card where there is one.

use std::ops::Range;

use super::*;
use crate::cuda::testing::backends;
use crate::kernel::attention;
use crate::kernel::dropout::Dropout;
use crate::kernel::mask::Mask;
use crate::kernel::matrix::Unit;
use crate::kernel::normalise::{self, Affine, AffineGradient};
use crate::kernel::testing::noise;
use crate::kernel::{adamw, embedding, gelu};

/// Runs a test on everything that runs kernels.
fn everywhere(test: impl Fn(&Kernels)) {
    backends().into_iter().for_each(|backend| test(&Kernels { backend }));
}

/// Checks that two lists of numbers differ by at most 1e-5 of the greatest.
fn assert_near(left: &[f32], right: &[f32]) {
    assert_eq!(left.len(), right.len());
    let scale = right.iter().fold(1e-3_f32, |scale, value| scale.max(value.abs()));
    for (index, (left, right)) in left.iter().zip(right).enumerate() {
        assert!((left - right).abs() <= 1e-5 * scale, "element {index}: {left} and {right}, of at most {scale}");
    }
}

impl Kernels {
    fn of(&self, values: &[f32]) -> Buffer<f32> {
        Buffer::of(&self.backend, values).unwrap()
    }

    fn room(&self, length: usize) -> Buffer<f32> {
        let mut buffer = Buffer::new(&self.backend);
        buffer.resize(length).unwrap();
        buffer
    }

    fn sequences(&self, lengths: &[usize]) -> Sequences {
        Sequences::new(&self.backend, lengths).unwrap()
    }
}

/// The places of sequences of these lengths.
fn ranges(lengths: &[usize]) -> Vec<Range<usize>> {
    let mut end = 0;
    let next = |length: &usize| {
        end += length;
        end - length..end
    };
    lengths.iter().map(next).collect()
}

#[test]
fn every_kernel_has_a_name() {
    let names: Vec<&str> = names().collect();
    assert!(names.contains(&"attention_forward") && names.contains(&"adamw") && names.len() == 18, "{names:?}");
}

#[test]
fn products_are_those_of_the_definition_in_all_layouts() {
    let (rows, columns, depth) = (5, 7, 3);
    let (left, right) = (noise(1, rows * depth), noise(2, depth * columns));
    let transposed = |values: &[f32], columns: usize| -> Vec<f32> {
        let rows = values.len() / columns;
        (0..values.len()).map(|index| values[index % rows * columns + index / rows]).collect()
    };
    let expected: Vec<f32> = (0..rows * columns)
        .map(|index| (0..depth).map(|k| left[index / columns * depth + k] * right[k * columns + index % columns]).sum())
        .collect();
    everywhere(|kernels| {
        for (of_left, of_right, add) in
            [(false, false, false), (true, false, true), (false, true, true), (true, true, false)]
        {
            let values = [
                if of_left { transposed(&left, depth) } else { left.clone() },
                if of_right { transposed(&right, columns) } else { right.clone() },
            ];
            let [left, right] = values.each_ref().map(|values| kernels.of(values));
            let sizes = Sizes { rows, columns, depth, transposed: [of_left, of_right] };
            let mut out = kernels.of(&vec![1.0; rows * columns]);
            kernels.multiply(sizes, Operands::Single([left.view(), right.view()]), add, out.view_mut()).unwrap();
            let start = if add { 1.0 } else { 0.0 };
            let sums: Vec<f32> = expected.iter().map(|value| value + start).collect();
            assert_near(&out.read().unwrap(), &sums);
        }
    });
}

#[test]
fn rounded_products_are_products_of_what_was_rounded() {
    let (rows, columns, depth) = (8, 16, 24);
    let values = [noise(1, rows * depth), noise(2, depth * columns)];
    let nearest =
        values.each_ref().map(|values| values.iter().map(|x| half::bf16::from_f32(*x).to_f32()).collect::<Vec<_>>());
    everywhere(|kernels| {
        let rounded = values.each_ref().map(|values| {
            let mut out = Buffer::new(&kernels.backend);
            out.resize(values.len()).unwrap();
            kernels.round(kernels.of(values).view(), out.view_mut()).unwrap();
            out
        });
        let singles = nearest.each_ref().map(|values| kernels.of(values));
        let sizes = Sizes { rows, columns, depth, transposed: [false, false] };
        let run = |operands| {
            let mut out = kernels.room(rows * columns);
            kernels.multiply(sizes, operands, false, out.view_mut()).unwrap();
            out.read().unwrap()
        };
        let [left, right] = rounded.each_ref().map(Buffer::view);
        let [of_left, of_right] = singles.each_ref().map(Buffer::view);
        assert_near(&run(Operands::Bfloat16([left, right])), &run(Operands::Single([of_left, of_right])));
    });
}

#[test]
fn rounding_agrees_with_the_crate_on_every_kind_of_number() {
    let mut values = noise(1, 1000);
    values.extend([0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 1e-45, 1.003_906_3, 1.011_718_8]);
    let expected: Vec<u16> = values.iter().map(|value| half::bf16::from_f32(*value).to_bits()).collect();
    everywhere(|kernels| {
        let mut out = Buffer::new(&kernels.backend);
        out.resize(values.len() + 1).unwrap();
        let with_nan = [&values[..], &[f32::NAN]].concat();
        kernels.round(kernels.of(&with_nan).view(), out.view_mut()).unwrap();
        let out = out.read().unwrap();
        assert_eq!(out[..values.len()], expected);
        assert!(half::bf16::from_bits(out[values.len()]).is_nan());
    });
}

#[test]
fn embeddings_are_gathered_and_scattered_as_on_the_processor() {
    let (ids, lengths, hidden) = ([4, 0, 4, 2, 4, 1, 0_i32], [3, 4], 37);
    let (word, position, kind) = (noise(1, 5 * hidden), noise(2, 8 * hidden), noise(3, hidden));
    let positions: Vec<i32> = lengths.iter().flat_map(|length| 2..2 + *length as i32).collect();
    let (tokens, gradient) = (ids.map(|id| id as u32), noise(4, ids.len() * hidden));
    let tables = embedding::Tables { word: &word[..], position: &position, kind: &kind, hidden, first_position: 2 };
    let mut expected = vec![0.0; ids.len() * hidden];
    tables.gather(&tokens, &ranges(&lengths), &mut expected);
    let (mut of_word, mut of_position, mut of_kind) = (word.clone(), position.clone(), kind.clone());
    let mut tables = embedding::Tables {
        word: &mut of_word[..],
        position: &mut of_position,
        kind: &mut of_kind,
        hidden,
        first_position: 2,
    };
    tables.scatter(&tokens, &ranges(&lengths), &gradient);
    everywhere(|kernels| {
        let [mut words, mut places, kinds] = [&word, &position, &kind].map(|values| kernels.of(values));
        let buffer = |values: &[i32]| Buffer::of(&kernels.backend, values).unwrap();
        let mut out = kernels.room(ids.len() * hidden);
        let tables = Tables { word: words.view(), position: places.view(), kind: kinds.view() };
        kernels.gather(tables, &buffer(&ids), &buffer(&positions), out.view_mut()).unwrap();
        assert_near(&out.read().unwrap(), &expected);
        let gradient = kernels.of(&gradient);
        let of = |rows: &[i32]| Scattering::new(&kernels.backend, rows).unwrap();
        kernels.scatter(gradient.view(), &of(&ids), hidden, words.view_mut()).unwrap();
        kernels.scatter(gradient.view(), &of(&positions), hidden, places.view_mut()).unwrap();
        assert_near(&words.read().unwrap(), &of_word);
        assert_near(&places.read().unwrap(), &of_position);
    });
}

/// The normalisation of the processor, forward and backward: outputs, and the gradients of input, weight and bias.
fn normalised(x: &[f32], weight: &[f32], bias: &[f32], upstream: &[f32]) -> [Vec<f32>; 4] {
    let (mut saved, mut out) = (normalise::Normalised::default(), vec![0.0; x.len()]);
    let affine = Affine { kind: normalise::Kind::Layer, weight, bias, epsilon: 1e-5 };
    normalise::forward(x, affine, &mut saved, &mut out);
    let (mut gradient, mut of_weight, mut of_bias) =
        (upstream.to_vec(), vec![0.0; weight.len()], vec![0.0; bias.len()]);
    let sums = AffineGradient { weight: &mut of_weight, bias: &mut of_bias };
    normalise::backward(&mut gradient, weight, &saved, sums);
    [out, gradient, of_weight, of_bias]
}

#[test]
fn normalisation_agrees_forward_and_backward() {
    for (rows, width) in [(1, 1), (3, 19), (300, 33), (2, 700)] {
        let size = rows * width;
        let (input, residual, added) = (noise(1, size), noise(2, size), noise(3, width));
        let (weight, bias, upstream) = (noise(4, width), noise(5, width), noise(6, size));
        let x: Vec<f32> = (0..size).map(|index| input[index] + added[index % width] + residual[index]).collect();
        let with_others = normalised(&x, &weight, &bias, &upstream);
        let alone = normalised(&input, &weight, &bias, &upstream);
        everywhere(|kernels| {
            for (others, expected) in [(true, &with_others), (false, &alone)] {
                let [input, residual, added, gamma, beta] =
                    [&input, &residual, &added, &weight, &bias].map(|values| kernels.of(values));
                let (mut out, mut saved) = (kernels.room(size), Normalised::new(&kernels.backend));
                let norm = Norm { weight: gamma.view(), bias: beta.view(), epsilon: 1e-5 };
                let others = others.then(|| [added.view(), residual.view()]);
                kernels.normalise(input.view(), others, norm, &mut saved, out.view_mut()).unwrap();
                assert_near(&out.read().unwrap(), &expected[0]);
                let (mut gradient, mut parts) = (kernels.of(&upstream), kernels.room(0));
                let [mut of_weight, mut of_bias] = [0, 1].map(|_| Buffer::zeros(&kernels.backend, width).unwrap());
                let sums = [of_weight.view_mut(), of_bias.view_mut()];
                kernels.normalise_backward(&mut gradient, &saved, gamma.view(), sums, &mut parts).unwrap();
                let found = [gradient, of_weight, of_bias].map(|buffer| buffer.read().unwrap());
                found.iter().zip(&expected[1..]).for_each(|(found, expected)| assert_near(found, expected));
            }
        });
    }
}

#[test]
fn activations_and_biases_agree() {
    let (rows, width) = (13, 45);
    let (x, bias, upstream) = (noise(1, rows * width), noise(2, width), noise(3, rows * width));
    let x: Vec<f32> = x.iter().map(|x| 6.0 * x).collect();
    let expanded: Vec<f32> = x.iter().enumerate().map(|(index, x)| x + bias[index % width]).collect();
    let (mut activated, mut slopes, mut again) = (x.clone(), upstream.clone(), x.clone());
    gelu::forward(&expanded, &mut activated);
    gelu::backward(&expanded, &mut slopes, &mut again);
    let mut sums = noise(4, width);
    let before = sums.clone();
    crate::kernel::lanes::add_columns(&mut sums, &upstream, width, 0);
    everywhere(|kernels| {
        let (mut values, bias) = (kernels.of(&x), kernels.of(&bias));
        kernels.add_bias(values.view_mut(), bias.view()).unwrap();
        assert_near(&values.read().unwrap(), &expanded);
        let (mut values, mut out) = (kernels.of(&x), kernels.room(x.len()));
        kernels.gelu(values.view_mut(), bias.view(), out.view_mut()).unwrap();
        assert_near(&values.read().unwrap(), &expanded);
        assert_near(&out.read().unwrap(), &activated);
        let (mut gradient, mut out) = (kernels.of(&upstream), kernels.room(x.len()));
        kernels.gelu_backward(values.view(), gradient.view_mut(), out.view_mut()).unwrap();
        assert_near(&gradient.read().unwrap(), &slopes);
        assert_near(&out.read().unwrap(), &activated);
        let (mut target, mut parts) = (kernels.of(&before), kernels.room(0));
        kernels.add_columns(kernels.of(&upstream).view(), None, &mut parts, target.view_mut()).unwrap();
        assert_near(&target.read().unwrap(), &sums);
    });
}

#[test]
fn attention_agrees_forward_and_backward() {
    // Lengths around a tile, heads narrower and as wide as the widest.
    for (lengths, heads, width) in [(&[1, 5, 32, 33][..], 2, 3), (&[70, 31], 3, 16), (&[40, 65], 1, MOST_WIDTH)] {
        let (tokens, unit) = (lengths.iter().sum::<usize>(), Unit::single());
        let plain = attention::Attention {
            heads,
            groups: heads,
            width,
            mask: Mask::NONE,
            layer: 0,
            sequences: &ranges(lengths),
            first_token: 0,
            dropout: Dropout::OFF,
            unit,
        };
        let projected: Vec<f32> = noise(1, tokens * 3 * heads * width).iter().map(|x| 3.0 * x).collect();
        let upstream = noise(2, tokens * heads * width);
        let (mut context, mut gradient) = (vec![0.0; upstream.len()], vec![0.0; projected.len()]);
        plain.forward(&projected, &mut context, &mut attention::Scratch::default());
        plain.backward(&projected, &context, &upstream, &mut gradient, &mut attention::Scratch::default());
        everywhere(|kernels| {
            let sequences = kernels.sequences(lengths);
            let attention = Attention { heads, width, sequences: &sequences };
            let (values, upstream) = (kernels.of(&projected), kernels.of(&upstream));
            let [mut out, mut logarithms] = [upstream.length(), tokens * heads].map(|length| kernels.room(length));
            kernels.attend(attention, values.view(), out.view_mut(), logarithms.view_mut()).unwrap();
            assert_near(&out.read().unwrap(), &context);
            let [mut means, mut of_values] = [0, projected.len()].map(|length| kernels.room(length));
            let attended = Attended { projected: values.view(), context: out.view(), logarithms: logarithms.view() };
            let into = of_values.view_mut();
            kernels.attend_backward(attention, attended, upstream.view(), &mut means, into).unwrap();
            assert_near(&of_values.read().unwrap(), &gradient);
        });
    }
}

#[test]
fn pooling_agrees_forward_and_backward() {
    let lengths = [1, 6, 3];
    for (pooling, normalise, hidden) in
        [(Pooling::Cls, true, 5), (Pooling::Last, false, 40), (Pooling::Mean, true, 300), (Pooling::Mean, false, 7)]
    {
        let head = Head { pooling, normalise, hidden };
        let (tokens, upstream) = (noise(1, 10 * hidden), noise(2, 3 * hidden));
        let (mut vectors, mut gradient) = (vec![0.0; 3 * hidden], vec![0.0; 10 * hidden]);
        head.forward(&tokens, &ranges(&lengths), &mut vectors);
        head.backward(&tokens, &ranges(&lengths), &upstream, &mut gradient);
        everywhere(|kernels| {
            let (sequences, tokens) = (kernels.sequences(&lengths), kernels.of(&tokens));
            let mut out = kernels.room(vectors.len());
            kernels.pool(head, tokens.view(), &sequences, out.view_mut()).unwrap();
            assert_near(&out.read().unwrap(), &vectors);
            let (mut of_vectors, mut of_tokens) = (kernels.of(&upstream), kernels.room(gradient.len()));
            let into = of_tokens.view_mut();
            kernels.pool_backward(head, tokens.view(), &sequences, of_vectors.view_mut(), into).unwrap();
            assert_near(&of_tokens.read().unwrap(), &gradient);
        });
    }
}

#[test]
fn norms_see_every_value_and_what_is_not_finite() {
    for count in [1, 4095, 4097, 10_000] {
        let values = noise(1, count);
        let expected = values.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>().sqrt();
        everywhere(|kernels| {
            let norm = kernels.norm(kernels.of(&values).view()).unwrap();
            assert!((f64::from(norm) / expected - 1.0).abs() < 1e-6);
            let broken = [&values[1..], &[f32::NAN]].concat();
            assert!(!kernels.norm(kernels.of(&broken).view()).unwrap().is_finite());
        });
    }
}

#[test]
fn steps_of_the_optimiser_agree() {
    let step = Step { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, rate: 0.1, correction: 0.03, decay: 0.99, clip: 0.5 };
    let (weights, first, gradient) = (noise(1, 300), noise(2, 300), noise(3, 300));
    let second: Vec<f32> = first.iter().map(|value| value * value).collect();
    for decays in [true, false] {
        let mut expected = [weights.clone(), first.clone(), second.clone()];
        let [of_weights, of_first, of_second] = &mut expected;
        let stretch = adamw::Stretch { weights: of_weights, first: of_first, second: of_second };
        adamw::apply(&step, stretch, &mut gradient.clone(), decays);
        everywhere(|kernels| {
            let mut found = [&weights, &first, &second, &gradient].map(|values| kernels.of(values));
            let [weights, first, second, gradient] = found.each_mut().map(Buffer::view_mut);
            kernels.adamw(&step, decays, weights, [first, second], gradient).unwrap();
            let found = found.map(|buffer| buffer.read().unwrap());
            found.iter().zip(&expected).for_each(|(found, expected)| assert_near(found, expected));
            assert!(found[3].iter().all(|value| *value == 0.0));
        });
    }
}
