//! The kernels of a graphics card as functions: sizes are checked, then the kernel is launched. Each computes what
//! its namesake in `crate::kernel` does, and the tests compare them.
#![expect(unsafe_code, reason = "launches kernels, whose arguments' sizes are checked here")]

use std::fmt;
use std::sync::Arc;

use bytemuck::Pod;
use half::bf16;
use motherlode::Result;

use super::indices::{Scattering, Sequences};
use super::memory::{Argument, Backend, Buffer, Format, Operand, Product, View, ViewMut};
use crate::kernel::adamw::Step;
use crate::kernel::pooling::{Head, Pooling};

/// The text of all kernels, which is compiled as one.
pub(crate) const SOURCE: &str = concat!(
    "#line 1 \"common.cuh\"\n",
    include_str!("common.cuh"),
    "#line 1 \"attention.cu\"\n",
    include_str!("attention.cu"),
    "#line 1 \"attention_bfloat16.cu\"\n",
    include_str!("attention_bfloat16.cu"),
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
    "#line 1 \"sieve.cu\"\n",
    include_str!("sieve.cu"),
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
/// The widest row that is normalised: `ROW_VALUES` of normalise.cu for each thread of a block.
pub(crate) const MOST_NORMALISED: usize = 8 * THREADS as usize;
/// Rows of a block of a normalisation's backward pass: `SLOPE_ROWS` of normalise.cu.
pub(crate) const SLOPE_ROWS: usize = 32;
/// Rows of a part of a column sum: `PART_ROWS` of reduction.cu.
pub(crate) const PART_ROWS: usize = 256;
/// Values of a part of a sum of squares: `PART_VALUES` of reduction.cu.
pub(crate) const PART_VALUES: usize = 4096;

/// The numbers between matrix products: f32, or bfloat16, which take half the time to move and which tensor cores
/// multiply.
pub(crate) trait Element: Pod + fmt::Debug + Send + Sync {
    /// How they are stored.
    const FORMAT: Format;
    /// What the names of the kernels for them end in.
    const SUFFIX: &'static str;
    /// Queries or keys of a block of attention: `TILE` of attention.cu, `BLOCK_ROWS` of its bfloat16 twin.
    const TILE: usize;
    /// Number by which the width of a head must be divisible.
    const WIDTH_STEP: usize;
    /// Whether they are something else than f32.
    const ROUNDED: bool = !matches!(Self::FORMAT, Format::Single);

    /// What products read in the place of f32 values: what these are rounded to, or themselves.
    fn operand<'a>(values: &'a Buffer<f32>, rounded: &'a Buffer<Self>) -> &'a Buffer<Self>;
}

impl Element for f32 {
    const FORMAT: Format = Format::Single;
    const SUFFIX: &'static str = "";
    const TILE: usize = 32;
    const WIDTH_STEP: usize = 1;

    fn operand<'a>(values: &'a Buffer<f32>, _: &'a Buffer<Self>) -> &'a Buffer<Self> {
        values
    }
}

impl Element for bf16 {
    const FORMAT: Format = Format::Bfloat16;
    const SUFFIX: &'static str = "_bfloat16";
    const TILE: usize = 64;
    const WIDTH_STEP: usize = 8;

    fn operand<'a>(_: &'a Buffer<f32>, rounded: &'a Buffer<Self>) -> &'a Buffer<Self> {
        rounded
    }
}

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

/// What the backward pass of a normalisation needs of its forward pass, if there is one.
#[derive(Debug)]
pub(crate) struct Normalised {
    wanted: bool,
    values: Buffer<f32>,
    factors: Buffer<f32>,
}

impl Normalised {
    /// Room for it where it is wanted.
    pub(crate) fn new(backend: &Arc<dyn Backend>, wanted: bool) -> Self {
        Self { wanted, values: Buffer::new(backend), factors: Buffer::new(backend) }
    }
}

/// Working memory of sums over rows: those of the rows of a block of a normalisation, and parts of sums of columns.
#[derive(Debug)]
pub(crate) struct Parts {
    of_blocks: Buffer<f32>,
    of_columns: Buffer<f32>,
}

impl Parts {
    pub(crate) fn new(backend: &Arc<dyn Backend>) -> Self {
        Self { of_blocks: Buffer::new(backend), of_columns: Buffer::new(backend) }
    }
}

/// What is added to the rows of a matrix before it is normalised, and the matrix to which they are added.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Added<'a, A> {
    pub(crate) rows: View<'a, A>,
    pub(crate) bias: View<'a, f32>,
}

/// f32 numbers to be written, and what they are rounded to, unless this is left out.
#[derive(Debug)]
pub(crate) struct Written<'a, A> {
    pub(crate) values: ViewMut<'a, f32>,
    pub(crate) rounded: Option<ViewMut<'a, A>>,
}

impl<A> Written<'_, A> {
    fn has_length(&self, length: usize) -> bool {
        self.values.length() == length && self.rounded.as_ref().is_none_or(|rounded| rounded.length() == length)
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
pub(crate) struct Attended<'a, A> {
    /// Queries, keys and values of all heads: tokens × 3 · heads · width.
    pub(crate) projected: View<'a, A>,
    /// Tokens × heads · width.
    pub(crate) context: View<'a, A>,
    /// Tokens × heads.
    pub(crate) logarithms: View<'a, f32>,
}

/// The operands of a matrix product, and what is added to each of its rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operands<'a, A> {
    pub(crate) left: View<'a, A>,
    pub(crate) right: View<'a, A>,
    pub(crate) bias: Option<View<'a, A>>,
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

/// Threads of a block that normalises a row of so many values, four of which a thread has at a time.
fn norm_threads(width: usize) -> u32 {
    assert!(width <= MOST_NORMALISED, "rows of at most {MOST_NORMALISED} values");
    row_threads(width.div_ceil(4))
}

/// Blocks for so many values, each of which has a thread.
fn blocks(count: usize) -> [u32; 2] {
    [count.div_ceil(THREADS as usize) as u32, 1]
}

/// Blocks for so many values, of which a thread has four.
fn blocks_of_four(count: usize) -> [u32; 2] {
    blocks(count.div_ceil(4))
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

    /// Launches the kernel of this name for activations of a kind.
    fn launch_for<A: Element>(&self, kernel: &str, grid: [u32; 2], threads: u32, arguments: &[Argument]) -> Result<()> {
        self.launch(&[kernel, A::SUFFIX].concat(), grid, threads, arguments)
    }

    /// out = left · right + bias, or out += left · right + bias.
    pub(crate) fn multiply<A: Element, O: Element>(
        &self,
        sizes: Sizes,
        Operands { left, right, bias }: Operands<A>,
        add: bool,
        out: ViewMut<O>,
    ) -> Result<()> {
        let Sizes { rows, columns, depth, transposed } = sizes;
        let lengths = [left.length(), right.length(), out.length()];
        assert_eq!(lengths, [rows * depth, depth * columns, rows * columns], "sizes of a product");
        assert!(bias.is_none_or(|bias| bias.length() == columns), "rows as long as the bias");
        if rows * columns * depth == 0 {
            return Ok(());
        }
        let operand = |address, index: usize| Operand { address, transposed: transposed[index] };
        let (left, right) = (operand(left.address, 0), operand(right.address, 1));
        let (bias, format) = (bias.map(|bias| bias.address), A::FORMAT);
        let (out, out_format) = (out.into_address(), O::FORMAT);
        let product = Product { rows, columns, depth, left, right, bias, format, out, out_format, add };
        // SAFETY: the views have the lengths of dense matrices of these sizes.
        unsafe { self.backend.multiply(&product) }
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

    /// out = norm(residual + rows + bias), row by row, where there is something to add.
    pub(crate) fn normalise<A: Element>(
        &self,
        residual: View<f32>,
        added: Option<Added<A>>,
        norm: Norm,
        saved: &mut Normalised,
        mut out: Written<A>,
    ) -> Result<()> {
        let width = norm.weight.length();
        let rows = residual.length() / width;
        assert!(norm.bias.length() == width && out.has_length(rows * width), "sizes of a normalisation");
        let fits = |added: Added<A>| added.bias.length() == width && added.rows.length() == rows * width;
        assert!(added.is_none_or(fits), "sizes of what is normalised");
        let kept = if saved.wanted { rows } else { 0 };
        saved.values.resize(kept * width)?;
        saved.factors.resize(kept)?;
        let [mut values, mut factors] =
            [&mut saved.values, &mut saved.factors].map(|buffer| saved.wanted.then(|| buffer.view_mut()));
        let arguments = [
            added.map(|added| added.rows).into(),
            added.map(|added| added.bias).into(),
            residual.into(),
            norm.weight.into(),
            norm.bias.into(),
            norm.epsilon.into(),
            (width as i32).into(),
            values.as_mut().into(),
            factors.as_mut().into(),
            (&mut out.values).into(),
            out.rounded.as_mut().into(),
        ];
        self.launch_for::<A>("normalise_forward", [rows as u32, 1], norm_threads(width), &arguments)
    }

    /// Turns ∂loss/∂out of a normalisation, which `way` holds, into ∂loss/∂input; adds the gradients of its weight and
    /// bias.
    pub(crate) fn normalise_backward<A: Element>(
        &self,
        mut way: Written<A>,
        saved: &Normalised,
        weight: View<f32>,
        sums: [ViewMut<f32>; 2],
        parts: &mut Parts,
    ) -> Result<()> {
        let (width, rows) = (weight.length(), saved.factors.length());
        let fits = way.has_length(rows * width) && saved.values.length() == rows * width;
        assert!(fits, "sizes of a normalisation");
        let count = rows.div_ceil(SLOPE_ROWS);
        let Parts { of_blocks, of_columns } = parts;
        of_blocks.resize(2 * count * width)?;
        let mut written = of_blocks.view_mut();
        let arguments = [
            (&mut way.values).into(),
            saved.values.view().into(),
            saved.factors.view().into(),
            weight.into(),
            (rows as i32).into(),
            (width as i32).into(),
            way.rounded.as_mut().into(),
            (&mut written).into(),
        ];
        self.launch_for::<A>("normalise_backward", [count as u32, 1], norm_threads(width), &arguments)?;
        for (place, target) in [0..count * width, count * width..2 * count * width].into_iter().zip(sums) {
            self.add_column_parts(of_blocks.part(place), of_columns, target)?;
        }
        Ok(())
    }

    /// Adds the sums of the columns of `rows` to `target`, which has a value for each column.
    pub(crate) fn add_columns<A: Element>(&self, rows: View<A>, parts: &mut Parts, target: ViewMut<f32>) -> Result<()> {
        self.add_column_parts(rows, &mut parts.of_columns, target)
    }

    fn add_column_parts<A: Element>(
        &self,
        values: View<A>,
        parts: &mut Buffer<f32>,
        mut target: ViewMut<f32>,
    ) -> Result<()> {
        let columns = target.length();
        let rows = values.length() / columns;
        assert_eq!(values.length(), rows * columns, "sizes of a sum of columns");
        let count = rows.div_ceil(PART_ROWS);
        parts.resize(count * columns)?;
        let mut written = parts.view_mut();
        let (of_rows, of_columns) = ((rows as i32).into(), (columns as i32).into());
        let arguments = [values.into(), of_rows, of_columns, (&mut written).into()];
        let grid = [columns.div_ceil(4 * 32) as u32, count as u32];
        self.launch_for::<A>("column_parts", grid, THREADS, &arguments)?;
        let arguments = [parts.view().into(), (count as i32).into(), of_columns, (&mut target).into()];
        self.launch("add_parts", blocks(columns), THREADS, &arguments)
    }

    /// Writes GELU of `expanded` to `activated`.
    pub(crate) fn gelu<A: Element>(&self, expanded: View<A>, mut activated: ViewMut<A>) -> Result<()> {
        let count = expanded.length();
        assert_eq!(activated.length(), count, "sizes of an activation");
        let arguments = [expanded.into(), (count as i64).into(), (&mut activated).into()];
        self.launch_for::<A>("gelu_forward", blocks_of_four(count), THREADS, &arguments)
    }

    /// Turns ∂loss/∂activated into ∂loss/∂expanded in place, and writes GELU of `expanded` to `activated`.
    pub(crate) fn gelu_backward<A: Element>(
        &self,
        expanded: View<A>,
        mut gradient: ViewMut<A>,
        mut activated: ViewMut<A>,
    ) -> Result<()> {
        let count = expanded.length();
        assert_eq!((gradient.length(), activated.length()), (count, count), "sizes of an activation");
        let arguments = [expanded.into(), (count as i64).into(), (&mut gradient).into(), (&mut activated).into()];
        self.launch_for::<A>("gelu_backward", blocks_of_four(count), THREADS, &arguments)
    }

    /// Rounds `values`.
    pub(crate) fn round<A: Element>(&self, values: View<f32>, mut out: ViewMut<A>) -> Result<()> {
        let count = values.length();
        assert_eq!(out.length(), count, "sizes of what is rounded");
        assert!(A::ROUNDED, "there is nothing to be rounded to");
        let arguments = [values.into(), (count as i64).into(), (&mut out).into()];
        self.launch_for::<A>("round_to", blocks_of_four(count), THREADS, &arguments)
    }

    /// Writes the contexts of all tokens, and the logarithms that the backward pass needs.
    pub(crate) fn attend<A: Element>(
        &self,
        attention: Attention,
        projected: View<A>,
        mut context: ViewMut<A>,
        mut logarithms: ViewMut<f32>,
    ) -> Result<()> {
        attention.check(projected, context.length(), logarithms.length());
        let Attention { heads, width, sequences } = attention;
        let [starts, tiles] = [&sequences.starts, &sequences.tiles].map(|buffer| buffer.view().into());
        let (width, context) = ((width as i32).into(), (&mut context).into());
        let arguments = [projected.into(), starts, tiles, width, context, (&mut logarithms).into()];
        self.launch_for::<A>("attention_forward", attention.grid(heads), ATTENTION_THREADS, &arguments)
    }

    /// Writes ∂loss/∂projected; `gradient` is ∂loss/∂context, `means` working memory.
    pub(crate) fn attend_backward<A: Element>(
        &self,
        attention: Attention,
        attended: Attended<A>,
        gradient: View<A>,
        means: &mut Buffer<f32>,
        mut out: ViewMut<A>,
    ) -> Result<()> {
        let Attended { projected, context, logarithms } = attended;
        attention.check(projected, context.length(), logarithms.length());
        assert_eq!((gradient.length(), out.length()), (context.length(), projected.length()), "sizes of attention");
        let Attention { heads, width, sequences } = attention;
        let (count, width) = (logarithms.length(), (width as i32).into());
        means.resize(count)?;
        let mut written = means.view_mut();
        let arguments = [gradient.into(), context.into(), width, (count as i64).into(), (&mut written).into()];
        self.launch_for::<A>("attention_means", blocks(8 * count), THREADS, &arguments)?;
        let [starts, tiles] = [&sequences.starts, &sequences.tiles].map(|buffer| buffer.view().into());
        let (logarithms, means) = (logarithms.into(), means.view().into());
        let (projected, gradient) = (projected.into(), gradient.into());
        let arguments = [projected, starts, tiles, width, gradient, logarithms, means, (&mut out).into()];
        for kernel in ["attention_queries_backward", "attention_keys_backward"] {
            self.launch_for::<A>(kernel, attention.grid(heads), ATTENTION_THREADS, &arguments)?;
        }
        Ok(())
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

    /// Finds the places of `scores`, a row of `floors.length()` rows after the other, that are not below their row's floor:
    /// row and column of as many as there is room for in `found`, in any order. Gives the number of all of them.
    pub(crate) fn sift(
        &self,
        scores: View<f32>,
        floors: View<f32>,
        count: &mut Buffer<i32>,
        mut found: ViewMut<i32>,
    ) -> Result<usize> {
        let (values, room) = (scores.length(), found.length() / 2);
        let columns = values / floors.length();
        assert_eq!(values, columns * floors.length(), "sizes of scores");
        count.write(&[0])?;
        let mut counted = count.view_mut();
        let arguments = [
            scores.into(),
            floors.into(),
            (columns as i32).into(),
            (values as i64).into(),
            (room as i32).into(),
            (&mut counted).into(),
            (&mut found).into(),
        ];
        self.launch("sift", blocks_of_four(values), THREADS, &arguments)?;
        Ok(count.read()?[0] as usize)
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
        self.launch("adamw", blocks_of_four(count), THREADS, &arguments)
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
    fn check<A: Element>(&self, projected: View<A>, context: usize, logarithms: usize) {
        let Self { heads, width, sequences } = *self;
        assert!(width <= MOST_WIDTH && width.is_multiple_of(A::WIDTH_STEP), "heads of at most {MOST_WIDTH} values");
        assert_eq!(sequences.tile, A::TILE, "blocks of attention");
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
