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
    assert_within(left, right, 1e-5);
}

/// Checks that two lists of numbers differ by at most this share of the greatest.
fn assert_within(left: &[f32], right: &[f32], share: f32) {
    assert_eq!(left.len(), right.len());
    let scale = right.iter().fold(1e-1_f32, |scale, value| scale.max(value.abs()));
    for (index, (left, right)) in left.iter().zip(right).enumerate() {
        assert!((left - right).abs() <= share * scale, "element {index}: {left} and {right}, of at most {scale}");
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

    fn sequences<A: Element>(&self, lengths: &[usize]) -> Sequences {
        let mut sequences = Sequences::new(&self.backend, A::TILE);
        sequences.set(lengths).unwrap();
        sequences
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
    assert!(names.contains(&"attention_forward") && names.contains(&"adamw") && names.len() == 27, "{names:?}");
}

#[test]
fn products_are_those_of_the_definition_in_all_layouts() {
    let (rows, columns, depth) = (5, 7, 3);
    let (left, right, bias) = (noise(1, rows * depth), noise(2, depth * columns), noise(3, columns));
    let of_columns: [f32; 7] = bias.clone().try_into().unwrap();
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
            let mut out = kernels.room(0);
            let (start, bias) = (if add { 1.0 } else { 0.0 }, kernels.of(&bias));
            for (bias, values) in [(None, &[0.0; 7]), (Some(bias.view()), &of_columns)] {
                let operands = Operands { left: left.view(), right: right.view(), bias };
                out.write(&vec![1.0; rows * columns]).unwrap();
                kernels.multiply(sizes, operands, add, out.view_mut()).unwrap();
                let sum = |(index, value): (usize, &f32)| value + start + values[index % columns];
                let sums: Vec<f32> = expected.iter().enumerate().map(sum).collect();
                assert_near(&out.read().unwrap(), &sums);
            }
        }
    });
}

/// Numbers and what they are rounded to.
fn rounded(values: &[f32]) -> (Vec<f32>, Vec<bf16>) {
    let bits: Vec<bf16> = values.iter().map(|value| bf16::from_f32(*value)).collect();
    (bits.iter().map(|value| value.to_f32()).collect(), bits)
}

fn singles(values: &[bf16]) -> Vec<f32> {
    values.iter().map(|value| value.to_f32()).collect()
}

#[test]
fn rounded_products_are_products_of_what_was_rounded() {
    let (rows, columns, depth) = (8, 16, 24);
    let [left, right, bias] =
        [noise(1, rows * depth), noise(2, depth * columns), noise(3, columns)].map(|values| rounded(&values));
    let sizes = Sizes { rows, columns, depth, transposed: [false, false] };
    everywhere(|kernels| {
        let buffers = [&left, &right, &bias].map(|(_, bits)| Buffer::of(&kernels.backend, bits).unwrap());
        let [of_left, of_right, of_bias] = buffers.each_ref().map(Buffer::view);
        let exact = [&left, &right, &bias].map(|(values, _)| kernels.of(values));
        let [left, right, bias] = exact.each_ref().map(Buffer::view);
        let (mut plain, mut out) = (kernels.room(rows * columns), kernels.room(rows * columns));
        let unbiased = Operands { left, right, bias: None };
        kernels.multiply(sizes, unbiased, false, plain.view_mut()).unwrap();
        let operands = Operands { left: of_left, right: of_right, bias: None };
        kernels.multiply(sizes, operands, false, out.view_mut()).unwrap();
        assert_near(&out.read().unwrap(), &plain.read().unwrap());
        kernels.multiply(sizes, Operands { bias: Some(bias), ..unbiased }, false, plain.view_mut()).unwrap();
        let mut short = Buffer::<bf16>::new(&kernels.backend);
        short.resize(rows * columns).unwrap();
        let biased = Operands { bias: Some(of_bias), ..operands };
        kernels.multiply(sizes, biased, false, short.view_mut()).unwrap();
        assert_within(&singles(&short.read().unwrap()), &plain.read().unwrap(), 4e-3);
    });
}

#[test]
fn rounding_agrees_with_the_crate_on_every_kind_of_number() {
    let mut values = noise(1, 1000);
    values.extend([0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 1e-45, 1.003_906_3, 1.011_718_8]);
    let expected = rounded(&values).1;
    everywhere(|kernels| {
        let mut out = Buffer::<bf16>::new(&kernels.backend);
        out.resize(values.len() + 1).unwrap();
        let with_nan = [&values[..], &[f32::NAN]].concat();
        kernels.round(kernels.of(&with_nan).view(), out.view_mut()).unwrap();
        let out = out.read().unwrap();
        assert_eq!(out[..values.len()], expected);
        assert!(out[values.len()].is_nan());
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
        let of = |rows: &[i32]| {
            let mut places = Scattering::new(&kernels.backend);
            places.set(rows).unwrap();
            places
        };
        kernels.scatter(gradient.view(), &of(&ids), hidden, words.view_mut()).unwrap();
        kernels.scatter(gradient.view(), &of(&positions), hidden, places.view_mut()).unwrap();
        assert_near(&words.read().unwrap(), &of_word);
        assert_near(&places.read().unwrap(), &of_position);
    });
}

/// Numbers that are rounded to nothing.
fn unrounded(values: &mut Buffer<f32>) -> Written<'_, f32> {
    Written { values: values.view_mut(), rounded: None }
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
                let (mut out, mut saved) = (kernels.room(size), Normalised::new(&kernels.backend, true));
                let norm = Norm { weight: gamma.view(), bias: beta.view(), epsilon: 1e-5 };
                let others = others.then(|| Added { rows: residual.view(), bias: added.view() });
                kernels.normalise(input.view(), others, norm, &mut saved, unrounded(&mut out)).unwrap();
                assert_near(&out.read().unwrap(), &expected[0]);
                let (mut gradient, mut parts) = (kernels.of(&upstream), Parts::new(&kernels.backend));
                let [mut of_weight, mut of_bias] = [0, 1].map(|_| Buffer::zeros(&kernels.backend, width).unwrap());
                let sums = [of_weight.view_mut(), of_bias.view_mut()];
                kernels.normalise_backward(unrounded(&mut gradient), &saved, gamma.view(), sums, &mut parts).unwrap();
                let found = [gradient, of_weight, of_bias].map(|buffer| buffer.read().unwrap());
                found.iter().zip(&expected[1..]).for_each(|(found, expected)| assert_near(found, expected));
            }
        });
    }
}

#[test]
fn activations_and_column_sums_agree() {
    let (rows, width) = (13, 45);
    let (x, upstream) = (noise(1, rows * width), noise(3, rows * width));
    let x: Vec<f32> = x.iter().map(|x| 6.0 * x).collect();
    let (mut activated, mut slopes, mut again) = (x.clone(), upstream.clone(), x.clone());
    gelu::forward(&x, &mut activated);
    gelu::backward(&x, &mut slopes, &mut again);
    let mut sums = noise(4, width);
    let before = sums.clone();
    crate::kernel::lanes::add_columns(&mut sums, &upstream, width, 0);
    everywhere(|kernels| {
        let (values, mut out) = (kernels.of(&x), kernels.room(x.len()));
        kernels.gelu(values.view(), out.view_mut()).unwrap();
        assert_near(&out.read().unwrap(), &activated);
        let (mut gradient, mut out) = (kernels.of(&upstream), kernels.room(x.len()));
        kernels.gelu_backward(values.view(), gradient.view_mut(), out.view_mut()).unwrap();
        assert_near(&gradient.read().unwrap(), &slopes);
        assert_near(&out.read().unwrap(), &activated);
        let (mut target, mut parts) = (kernels.of(&before), Parts::new(&kernels.backend));
        kernels.add_columns(kernels.of(&upstream).view(), &mut parts, target.view_mut()).unwrap();
        assert_near(&target.read().unwrap(), &sums);
    });
}

/// Attention of the processor over sequences of these lengths.
struct PlainAttention {
    heads: usize,
    width: usize,
    projected: Vec<f32>,
    upstream: Vec<f32>,
    context: Vec<f32>,
    gradient: Vec<f32>,
}

impl PlainAttention {
    fn new(lengths: &[usize], heads: usize, width: usize) -> Self {
        let tokens = lengths.iter().sum::<usize>();
        let plain = attention::Attention {
            heads,
            groups: heads,
            width,
            mask: Mask::NONE,
            layer: 0,
            sequences: &ranges(lengths),
            first_token: 0,
            dropout: Dropout::OFF,
            unit: Unit::single(),
        };
        let projected: Vec<f32> = noise(1, tokens * 3 * heads * width).iter().map(|x| 3.0 * x).collect();
        // What bfloat16 holds, so that both kinds of activations start from the same numbers.
        let (projected, upstream) = (rounded(&projected).0, rounded(&noise(2, tokens * heads * width)).0);
        let (mut context, mut gradient) = (vec![0.0; upstream.len()], vec![0.0; projected.len()]);
        plain.forward(&projected, &mut context, &mut attention::Scratch::default());
        plain.backward(&projected, &context, &upstream, &mut gradient, &mut attention::Scratch::default());
        Self { heads, width, projected, upstream, context, gradient }
    }

    /// Contexts and gradients by kernels for activations of a kind.
    fn on<A: Element>(&self, kernels: &Kernels, lengths: &[usize], of: impl Fn(&[f32]) -> Buffer<A>) -> [Vec<A>; 2] {
        let sequences = kernels.sequences::<A>(lengths);
        let attention = Attention { heads: self.heads, width: self.width, sequences: &sequences };
        let (values, upstream) = (of(&self.projected), of(&self.upstream));
        let (mut out, mut of_values) = (of(&vec![f32::NAN; upstream.length()]), of(&vec![f32::NAN; values.length()]));
        let [mut logarithms, mut means] = [sequences.tokens * self.heads, 0].map(|length| kernels.room(length));
        kernels.attend(attention, values.view(), out.view_mut(), logarithms.view_mut()).unwrap();
        let attended = Attended { projected: values.view(), context: out.view(), logarithms: logarithms.view() };
        let into = of_values.view_mut();
        kernels.attend_backward(attention, attended, upstream.view(), &mut means, into).unwrap();
        [out, of_values].map(|buffer| buffer.read().unwrap())
    }
}

#[test]
fn attention_agrees_forward_and_backward() {
    // Lengths around a tile, heads narrower and as wide as the widest.
    for (lengths, heads, width) in [(&[1, 5, 32, 33][..], 2, 3), (&[70, 31], 3, 16), (&[40, 65], 1, MOST_WIDTH)] {
        let plain = PlainAttention::new(lengths, heads, width);
        everywhere(|kernels| {
            let [context, gradient] = plain.on(kernels, lengths, |values| kernels.of(values));
            assert_near(&context, &plain.context);
            assert_near(&gradient, &plain.gradient);
        });
    }
}

/// Probabilities and slopes have three digits, and what is written has them, too.
#[test]
fn attention_on_tensor_cores_agrees_forward_and_backward() {
    for (lengths, heads, width) in
        [(&[1, 5, 64, 65][..], 2, 8), (&[7, 130], 1, 24), (&[31, 63], 2, 32), (&[40, 129], 1, MOST_WIDTH)]
    {
        let plain = PlainAttention::new(lengths, heads, width);
        everywhere(|kernels| {
            let of = |values: &[f32]| Buffer::of(&kernels.backend, &rounded(values).1).unwrap();
            let [context, gradient] = plain.on(kernels, lengths, of).map(|values| singles(&values));
            assert_within(&context, &plain.context, 1e-2);
            assert_within(&gradient, &plain.gradient, 1e-2);
        });
    }
}

/// What kernels for bfloat16 read and write but for attention and products, beside the kernels for f32.
#[test]
fn kernels_for_bfloat16_round_what_those_for_f32_write() {
    let (rows, width) = (300, 37);
    let [(x, of_x), (y, of_y)] = [noise(1, rows * width), noise(2, rows * width)].map(|values| rounded(&values));
    let (weight, bias) = (noise(3, width), noise(4, width));
    everywhere(|kernels| {
        let short = |values: &[bf16]| Buffer::of(&kernels.backend, values).unwrap();
        let (mut out, mut short_out) = (kernels.room(x.len()), short(&of_x));
        kernels.gelu(kernels.of(&x).view(), out.view_mut()).unwrap();
        kernels.gelu(short(&of_x).view(), short_out.view_mut()).unwrap();
        assert_within(&singles(&short_out.read().unwrap()), &out.read().unwrap(), 4e-3);
        let (mut slopes, mut short_slopes) = (kernels.of(&y), short(&of_y));
        kernels.gelu_backward(kernels.of(&x).view(), slopes.view_mut(), out.view_mut()).unwrap();
        kernels.gelu_backward(short(&of_x).view(), short_slopes.view_mut(), short_out.view_mut()).unwrap();
        assert_within(&singles(&short_slopes.read().unwrap()), &slopes.read().unwrap(), 4e-3);
        assert_within(&singles(&short_out.read().unwrap()), &out.read().unwrap(), 4e-3);
        let (mut sums, mut parts) = (kernels.of(&bias), Parts::new(&kernels.backend));
        kernels.add_columns(kernels.of(&x).view(), &mut parts, sums.view_mut()).unwrap();
        let mut short_sums = kernels.of(&bias);
        kernels.add_columns(short(&of_x).view(), &mut parts, short_sums.view_mut()).unwrap();
        assert_near(&short_sums.read().unwrap(), &sums.read().unwrap());
        let (gamma, beta, residual) = (kernels.of(&weight), kernels.of(&bias), kernels.of(&y));
        let norm = Norm { weight: gamma.view(), bias: beta.view(), epsilon: 1e-5 };
        let (added, of_added) = (kernels.of(&x), short(&of_x));
        let plain = Some(Added { rows: added.view(), bias: beta.view() });
        let mut saved = [0, 1].map(|_| Normalised::new(&kernels.backend, true));
        kernels.normalise(residual.view(), plain, norm, &mut saved[0], unrounded(&mut out)).unwrap();
        let (mut second, fewer) = (kernels.room(x.len()), Some(Added { rows: of_added.view(), bias: beta.view() }));
        let into = Written { values: second.view_mut(), rounded: Some(short_out.view_mut()) };
        kernels.normalise(residual.view(), fewer, norm, &mut saved[1], into).unwrap();
        assert_near(&second.read().unwrap(), &out.read().unwrap());
        assert_eq!(short_out.read().unwrap(), rounded(&second.read().unwrap()).1);
        let mut gradient = kernels.of(&y);
        let [mut of_weight, mut of_bias] = [0, 1].map(|_| Buffer::zeros(&kernels.backend, width).unwrap());
        let sums = [of_weight.view_mut(), of_bias.view_mut()];
        let way = Written { values: gradient.view_mut(), rounded: Some(short_out.view_mut()) };
        kernels.normalise_backward(way, &saved[1], gamma.view(), sums, &mut parts).unwrap();
        assert_eq!(short_out.read().unwrap(), rounded(&gradient.read().unwrap()).1);
    });
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
            let (sequences, tokens) = (kernels.sequences::<f32>(&lengths), kernels.of(&tokens));
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
