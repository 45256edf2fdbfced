//! The kernels of a graphics card as functions: sizes are checked, then the kernel is launched. Each computes what
//! its namesake in `crate::kernel` does, and the tests compare them.
#![expect(unsafe_code, reason = "launches kernels, whose arguments' sizes are checked here")]

use std::sync::Arc;

use motherlode::Result;

use super::indices::{Scattering, Sequences};
use super::memory::{Argument, Backend, Buffer, Operand, Product, View, ViewMut};
use crate::kernel::adamw::Step;
use crate::kernel::pooling::{Head, Pooling};

/// The text of all kernels, which is compiled as one.
pub(crate) const SOURCE: &str = concat!(
    "#line 1 \"common.cuh\"\n",
    include_str!("common.cuh"),
    "#line 1 \"attention.cu\"\n",
    include_str!("attention.cu"),
    "#line 1 \"elementwise.cu\"\n",
    include_str!("elementwise.cu"),
    "#line 1 \"embedding.cu\"\n",
    include_str!("embedding.cu"),
    "#line 1 \"normalise.cu\"\n",
    include_str!("normalise.cu"),
    "#line 1 \"optimizer.cu\"\n",
    include_str!("optimizer.cu"),
    "#line 1 \"pooling.cu\"\n",
    include_str!("pooling.cu"),
    "#line 1 \"reduction.cu\"\n",
    include_str!("reduction.cu"),
);

/// The names of all kernels of [`SOURCE`].
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    SOURCE.split("__global__ void ").skip(1).filter_map(|rest| rest.split('(').next())
}

/// Threads of a block: `THREADS` of common.cuh.
const THREADS: u32 = 256;
/// `ATTENTION_THREADS` of attention.cu.
const ATTENTION_THREADS: u32 = 128;
/// The widest head: `MOST_WIDTH` of attention.cu.
pub(crate) const MOST_WIDTH: usize = 64;
/// Rows of a part of a column sum: `PART_ROWS` of reduction.cu.
pub(crate) const PART_ROWS: usize = 256;
/// Values of a part of a sum of squares: `PART_VALUES` of reduction.cu.
pub(crate) const PART_VALUES: usize = 4096;

/// Launches kernels.
#[derive(Debug, Clone)]
pub(crate) struct Kernels {
    pub(crate) backend: Arc<dyn Backend>,
}

/// The tables of which a token's embedding is the sum; every token is of the same type, whose row is `kind`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tables<'a> {
    pub(crate) word: View<'a, f32>,
    pub(crate) position: View<'a, f32>,
    pub(crate) kind: View<'a, f32>,
}

/// Weight, bias and ε of a layer normalisation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Norm<'a> {
    pub(crate) weight: View<'a, f32>,
    pub(crate) bias: View<'a, f32>,
    pub(crate) epsilon: f32,
}

/// What the backward pass of a normalisation needs.
#[derive(Debug)]
pub(crate) struct Normalised {
    values: Buffer<f32>,
    factors: Buffer<f32>,
}

impl Normalised {
    pub(crate) fn new(backend: &Arc<dyn Backend>) -> Self {
        Self { values: Buffer::new(backend), factors: Buffer::new(backend) }
    }
}

/// What attention is computed over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attention<'a> {
    pub(crate) heads: usize,
    /// Values of a head, at most [`MOST_WIDTH`].
    pub(crate) width: usize,
    pub(crate) sequences: &'a Sequences,
}

/// What attention's backward pass needs of its forward pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attended<'a> {
    /// Queries, keys and values of all heads: tokens × 3 · heads · width.
    pub(crate) projected: View<'a, f32>,
    /// Tokens × heads · width.
    pub(crate) context: View<'a, f32>,
    /// Tokens × heads.
    pub(crate) logarithms: View<'a, f32>,
}

/// The operands of a matrix product, both f32 or both rounded.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Operands<'a> {
    Single([View<'a, f32>; 2]),
    Bfloat16([View<'a, u16>; 2]),
}

/// Which of the operands of a matrix product have rows and columns exchanged in memory, and its sizes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) depth: usize,
    pub(crate) transposed: [bool; 2],
}

/// Threads of a block that has one row of so many values.
fn row_threads(width: usize) -> u32 {
    (width as u32).next_multiple_of(32).clamp(32, THREADS)
}

/// Blocks for so many values.
fn blocks(count: usize) -> [u32; 2] {
    [count.div_ceil(THREADS as usize) as u32, 1]
}

impl Kernels {
    /// Launches a kernel whose arguments were checked.
    fn launch(&self, kernel: &str, grid: [u32; 2], threads: u32, arguments: &[Argument]) -> Result<()> {
        if grid.contains(&0) {
            return Ok(());
        }
        // SAFETY: the callers are the functions of this file, which give each kernel the arguments that its source
        // names, and have checked that the views are as long as it reads and writes.
        unsafe { self.backend.launch(kernel, grid, threads, arguments) }
    }

    /// out = left · right, or out += left · right.
    pub(crate) fn multiply(&self, sizes: Sizes, operands: Operands, add: bool, out: ViewMut<f32>) -> Result<()> {
        let Sizes { rows, columns, depth, transposed } = sizes;
        let (addresses, lengths, rounded) = match operands {
            Operands::Single(views) => (views.map(|view| view.address), views.map(|view| view.length()), false),
            Operands::Bfloat16(views) => (views.map(|view| view.address), views.map(|view| view.length()), true),
        };
        assert_eq!((lengths, out.length()), ([rows * depth, depth * columns], rows * columns), "sizes of a product");
        if rows * columns * depth == 0 {
            return Ok(());
        }
        let operand = |index: usize| Operand { address: addresses[index], transposed: transposed[index] };
        let (left, right, out) = (operand(0), operand(1), out.into_address());
        // SAFETY: the views have the lengths of dense matrices of these sizes.
        unsafe { self.backend.multiply(&Product { rows, columns, depth, left, right, rounded, out, add }) }
    }

    /// Writes word + position + type for every token.
    pub(crate) fn gather(
        &self,
        tables: Tables,
        ids: &Buffer<i32>,
        positions: &Buffer<i32>,
        mut out: ViewMut<f32>,
    ) -> Result<()> {
        let (tokens, width) = (ids.length(), tables.kind.length());
        assert_eq!((positions.length(), out.length()), (tokens, tokens * width), "sizes of embeddings");
        let Tables { word, position, kind } = tables;
        let (ids, positions, threads) = (ids.view().into(), positions.view().into(), row_threads(width));
        let width = (width as i32).into();
        let arguments = [word.into(), position.into(), kind.into(), ids, positions, width, (&mut out).into()];
        self.launch("embedding_gather", [tokens as u32, 1], threads, &arguments)
    }

    /// Adds ∂loss/∂embedding of every token (tokens × `width`) to its row of `table`.
    pub(crate) fn scatter(
        &self,
        gradient: View<f32>,
        places: &Scattering,
        width: usize,
        mut table: ViewMut<f32>,
    ) -> Result<()> {
        assert_eq!(gradient.length(), places.order.length() * width, "sizes of embeddings");
        let [rows, starts, order] = [&places.rows, &places.starts, &places.order].map(|buffer| buffer.view().into());
        let arguments = [gradient.into(), rows, starts, order, (width as i32).into(), (&mut table).into()];
        self.launch("embedding_scatter", [places.count as u32, 1], row_threads(width), &arguments)
    }

    /// out = norm(input + bias + residual), row by row; without bias and residual where there are none.
    pub(crate) fn normalise(
        &self,
        input: View<f32>,
        added: Option<[View<f32>; 2]>,
        norm: Norm,
        saved: &mut Normalised,
        mut out: ViewMut<f32>,
    ) -> Result<()> {
        let width = norm.weight.length();
        let rows = input.length() / width;
        assert!(norm.bias.length() == width && out.length() == rows * width, "sizes of a normalisation");
        let fits = |[bias, residual]: [View<f32>; 2]| bias.length() == width && residual.length() == rows * width;
        assert!(added.is_none_or(fits), "sizes of what is normalised");
        saved.values.resize(rows * width)?;
        saved.factors.resize(rows)?;
        let [bias, residual] = [0, 1].map(|index| added.map(|added| added[index]).into());
        let (mut values, mut factors) = (saved.values.view_mut(), saved.factors.view_mut());
        let arguments = [
            input.into(),
            bias,
            residual,
            norm.weight.into(),
            norm.bias.into(),
            norm.epsilon.into(),
            (width as i32).into(),
            (&mut values).into(),
            (&mut factors).into(),
            (&mut out).into(),
        ];
        self.launch("normalise_forward", [rows as u32, 1], row_threads(width), &arguments)
    }

    /// Turns ∂loss/∂out of a normalisation into ∂loss/∂input in place, and adds the gradients of its weight and bias.
    pub(crate) fn normalise_backward(
        &self,
        gradient: &mut Buffer<f32>,
        saved: &Normalised,
        weight: View<f32>,
        sums: [ViewMut<f32>; 2],
        parts: &mut Buffer<f32>,
    ) -> Result<()> {
        let (width, rows) = (weight.length(), saved.factors.length());
        assert_eq!(
            (gradient.length(), saved.values.length()),
            (rows * width, rows * width),
            "sizes of a normalisation"
        );
        let [of_weight, of_bias] = sums;
        self.add_columns(gradient.view(), Some(saved.values.view()), parts, of_weight)?;
        self.add_columns(gradient.view(), None, parts, of_bias)?;
        let (values, factors) = (saved.values.view().into(), saved.factors.view().into());
        let arguments = [(&mut gradient.view_mut()).into(), values, factors, weight.into(), (width as i32).into()];
        self.launch("normalise_backward", [rows as u32, 1], row_threads(width), &arguments)
    }

    /// Adds the sums of the columns of `left`, or of left ∘ right, to `target`, which has a value for each column.
    pub(crate) fn add_columns(
        &self,
        left: View<f32>,
        right: Option<View<f32>>,
        parts: &mut Buffer<f32>,
        mut target: ViewMut<f32>,
    ) -> Result<()> {
        let columns = target.length();
        let rows = left.length() / columns;
        assert!(left.length() == rows * columns && right.is_none_or(|right| right.length() == left.length()));
        let count = rows.div_ceil(PART_ROWS);
        parts.resize(count * columns)?;
        let mut written = parts.view_mut();
        let (of_rows, of_columns) = ((rows as i32).into(), (columns as i32).into());
        let arguments = [left.into(), right.into(), of_rows, of_columns, (&mut written).into()];
        self.launch("column_parts", [columns.div_ceil(32) as u32, count as u32], THREADS, &arguments)?;
        let arguments = [parts.view().into(), (count as i32).into(), of_columns, (&mut target).into()];
        self.launch("add_parts", blocks(columns), THREADS, &arguments)
    }

    /// Adds `bias` to every row of `values`.
    pub(crate) fn add_bias(&self, mut values: ViewMut<f32>, bias: View<f32>) -> Result<()> {
        let (count, columns) = (values.length(), bias.length() as i32);
        assert!(count.is_multiple_of(bias.length()), "rows as long as the bias");
        let arguments = [(&mut values).into(), bias.into(), columns.into(), (count as i64).into()];
        self.launch("add_bias", blocks(count), THREADS, &arguments)
    }

    /// Adds `bias` to every row of `expanded`, and writes GELU of it to `activated`.
    pub(crate) fn gelu(&self, mut expanded: ViewMut<f32>, bias: View<f32>, mut activated: ViewMut<f32>) -> Result<()> {
        let (count, columns) = (expanded.length(), bias.length() as i32);
        assert!(count.is_multiple_of(bias.length()) && activated.length() == count, "sizes of an activation");
        let (expanded, activated) = ((&mut expanded).into(), (&mut activated).into());
        let arguments = [expanded, bias.into(), columns.into(), (count as i64).into(), activated];
        self.launch("gelu_forward", blocks(count), THREADS, &arguments)
    }

    /// Turns ∂loss/∂activated into ∂loss/∂expanded in place, and writes GELU of `expanded` to `activated`.
    pub(crate) fn gelu_backward(
        &self,
        expanded: View<f32>,
        mut gradient: ViewMut<f32>,
        mut activated: ViewMut<f32>,
    ) -> Result<()> {
        let count = expanded.length();
        assert_eq!((gradient.length(), activated.length()), (count, count), "sizes of an activation");
        let arguments = [expanded.into(), (count as i64).into(), (&mut gradient).into(), (&mut activated).into()];
        self.launch("gelu_backward", blocks(count), THREADS, &arguments)
    }

    /// Rounds `values` to bfloat16.
    pub(crate) fn round(&self, values: View<f32>, mut out: ViewMut<u16>) -> Result<()> {
        let count = values.length();
        assert_eq!(out.length(), count, "sizes of what is rounded");
        let arguments = [values.into(), (count as i64).into(), (&mut out).into()];
        self.launch("round_to_bfloat16", blocks(count), THREADS, &arguments)
    }

    /// Writes the contexts of all tokens, and the logarithms that the backward pass needs.
    pub(crate) fn attend(
        &self,
        attention: Attention,
        projected: View<f32>,
        mut context: ViewMut<f32>,
        mut logarithms: ViewMut<f32>,
    ) -> Result<()> {
        attention.check(projected, context.length(), logarithms.length());
        let Attention { heads, width, sequences } = attention;
        let [starts, tiles] = [&sequences.starts, &sequences.tiles].map(|buffer| buffer.view().into());
        let (width, context) = ((width as i32).into(), (&mut context).into());
        let arguments = [projected.into(), starts, tiles, width, context, (&mut logarithms).into()];
        self.launch("attention_forward", attention.grid(heads), ATTENTION_THREADS, &arguments)
    }

    /// Writes ∂loss/∂projected; `gradient` is ∂loss/∂context, `means` working memory.
    pub(crate) fn attend_backward(
        &self,
        attention: Attention,
        attended: Attended,
        gradient: View<f32>,
        means: &mut Buffer<f32>,
        mut out: ViewMut<f32>,
    ) -> Result<()> {
        let Attended { projected, context, logarithms } = attended;
        attention.check(projected, context.length(), logarithms.length());
        assert_eq!((gradient.length(), out.length()), (context.length(), projected.length()), "sizes of attention");
        let Attention { heads, width, sequences } = attention;
        let (count, width) = (logarithms.length(), (width as i32).into());
        means.resize(count)?;
        let mut written = means.view_mut();
        let arguments = [gradient.into(), context.into(), width, (count as i64).into(), (&mut written).into()];
        self.launch("attention_means", blocks(count), THREADS, &arguments)?;
        let [starts, tiles] = [&sequences.starts, &sequences.tiles].map(|buffer| buffer.view().into());
        let (logarithms, means) = (logarithms.into(), means.view().into());
        let (projected, gradient) = (projected.into(), gradient.into());
        let arguments = [projected, starts, tiles, width, gradient, logarithms, means, (&mut out).into()];
        self.launch("attention_queries_backward", attention.grid(heads), ATTENTION_THREADS, &arguments)?;
        self.launch("attention_keys_backward", attention.grid(heads), ATTENTION_THREADS, &arguments)
    }

    /// Writes the vector of every sequence.
    pub(crate) fn pool(
        &self,
        head: Head,
        tokens: View<f32>,
        sequences: &Sequences,
        mut out: ViewMut<f32>,
    ) -> Result<()> {
        let (rows, width) = (sequences.count, head.hidden);
        assert_eq!((tokens.length(), out.length()), (sequences.tokens * width, rows * width), "sizes of pooling");
        let [pooling, normalise, width] = head_arguments(head);
        let starts = sequences.starts.view().into();
        let arguments = [tokens.into(), starts, pooling, normalise, width, (&mut out).into()];
        self.launch("pooling_forward", [rows as u32, 1], row_threads(head.hidden), &arguments)
    }

    /// Turns ∂loss/∂vectors, which is overwritten, into ∂loss/∂tokens.
    pub(crate) fn pool_backward(
        &self,
        head: Head,
        tokens: View<f32>,
        sequences: &Sequences,
        mut gradient: ViewMut<f32>,
        mut out: ViewMut<f32>,
    ) -> Result<()> {
        let (rows, width) = (sequences.count, head.hidden);
        assert_eq!((tokens.length(), gradient.length()), (sequences.tokens * width, rows * width), "sizes of pooling");
        assert_eq!(out.length(), tokens.length(), "sizes of pooling");
        let [pooling, normalise, width] = head_arguments(head);
        let (starts, gradient) = (sequences.starts.view().into(), (&mut gradient).into());
        let arguments = [tokens.into(), starts, pooling, normalise, width, gradient, (&mut out).into()];
        self.launch("pooling_backward", [rows as u32, 1], row_threads(head.hidden), &arguments)
    }

    /// Euclidean norm of `values`; not finite if any of them is not.
    pub(crate) fn norm(&self, values: View<f32>) -> Result<f32> {
        let count = values.length().div_ceil(PART_VALUES);
        let mut parts = Buffer::<f64>::new(&self.backend);
        parts.resize(count)?;
        let mut written = parts.view_mut();
        let arguments = [values.into(), (values.length() as i64).into(), (&mut written).into()];
        self.launch("square_parts", [count as u32, 1], THREADS, &arguments)?;
        Ok(parts.read()?.iter().sum::<f64>().sqrt() as f32)
    }

    /// Moves `weights` and their moments by the accumulated `gradient`, which is cleared; `decays` switches weight
    /// decay on.
    pub(crate) fn adamw(
        &self,
        step: &Step,
        decays: bool,
        weights: ViewMut<f32>,
        moments: [ViewMut<f32>; 2],
        gradient: ViewMut<f32>,
    ) -> Result<()> {
        let count = weights.length();
        let [first, second] = moments;
        assert_eq!([first.length(), second.length(), gradient.length()], [count; 3], "sizes of moments");
        let [weights, first, second, gradient] =
            [weights, first, second, gradient].map(|mut view| Argument::from(&mut view));
        let Step { beta1, beta2, epsilon, rate, correction, decay, clip } = *step;
        let decay = if decays { decay } else { 1.0 };
        let numbers = [beta1, beta2, epsilon, rate, correction, decay, clip].map(Argument::from);
        let arguments = [&[weights, first, second, gradient, (count as i64).into()][..], &numbers].concat();
        self.launch("adamw", blocks(count), THREADS, &arguments)
    }
}

/// How pooling is told to its kernels.
fn head_arguments(head: Head) -> [Argument; 3] {
    let pooling = match head.pooling {
        Pooling::Cls => 0,
        Pooling::Last => 1,
        Pooling::Mean => 2,
    };
    [pooling, i32::from(head.normalise), head.hidden as i32].map(Argument::from)
}

impl Attention<'_> {
    fn check(&self, projected: View<f32>, context: usize, logarithms: usize) {
        let Self { heads, width, sequences } = *self;
        assert!(width <= MOST_WIDTH, "heads of at most {MOST_WIDTH} values");
        let sizes = [3 * width, width, 1].map(|values| sequences.tokens * heads * values);
        assert_eq!([projected.length(), context, logarithms], sizes, "sizes of attention");
    }

    /// A block for each tile and head.
    fn grid(&self, heads: usize) -> [u32; 2] {
        [(self.sequences.tiles.length() / 2) as u32, heads as u32]
    }
}

#[cfg(test)]
mod tests;
