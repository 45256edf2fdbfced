//! Memory of a graphics card: buffers that are freed when they are dropped, and views of them; and the few things
//! that a card can do.
#![expect(
    unsafe_code,
    reason = "a backend reads and writes what it is given; buffers give it nothing but their own memory"
)]

use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use bytemuck::Pod;
use motherlode::Result;

/// How numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Format {
    Single,
    Bfloat16,
}

/// A product of dense row-major matrices, out = left · right + bias, or out += left · right + bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Product {
    /// Of the output.
    pub(crate) rows: usize,
    /// Of the output.
    pub(crate) columns: usize,
    /// Columns of the left operand, rows of the right one.
    pub(crate) depth: usize,
    pub(crate) left: Operand,
    pub(crate) right: Operand,
    /// Address of what is added to every row of the product.
    pub(crate) bias: Option<u64>,
    /// Of the operands and the bias.
    pub(crate) format: Format,
    /// Address of the output.
    pub(crate) out: u64,
    /// Of the output; not f32 where operands are bfloat16 and there is a bias.
    pub(crate) out_format: Format,
    /// Whether the product is added to the output.
    pub(crate) add: bool,
}

/// An operand of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Operand {
    pub(crate) address: u64,
    /// Whether the matrix in memory has rows and columns exchanged.
    pub(crate) transposed: bool,
}

/// An argument of a kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Argument {
    Address(u64),
    Integer(i32),
    Count(i64),
    Number(f32),
}

impl Argument {
    /// Where the value lies, as a launch wants to know.
    pub(super) fn place(&self) -> *const c_void {
        match self {
            Self::Address(value) => std::ptr::from_ref(value).cast(),
            Self::Integer(value) => std::ptr::from_ref(value).cast(),
            Self::Count(value) => std::ptr::from_ref(value).cast(),
            Self::Number(value) => std::ptr::from_ref(value).cast(),
        }
    }
}

/// What does the work: a graphics card, or in tests a processor in its place. Everything happens in the order of the
/// calls.
pub(crate) trait Backend: Send + Sync + fmt::Debug {
    /// What it is called, such as `cuda:0 (NVIDIA H100 80GB HBM3)`.
    fn name(&self) -> &str;

    /// Which of the machine's cards it is, counted from 0.
    fn number(&self) -> usize;

    /// Connects the cards with these numbers, of which it is one.
    ///
    /// # Errors
    /// What connects them is not installed, or cannot.
    fn connect(&self, numbers: &[usize]) -> Result<Box<dyn Links>>;

    /// Bytes of memory that are free.
    fn free_memory(&self) -> Result<u64>;

    /// The address of new memory, whose values are anything.
    ///
    /// # Errors
    /// There is not so much.
    fn allocate(&self, bytes: usize) -> Result<u64>;

    /// Gives memory back.
    ///
    /// # Safety
    /// `address` comes from `allocate` and is not used any more.
    unsafe fn release(&self, address: u64);

    /// Copies to the card.
    ///
    /// # Safety
    /// So many bytes at `address` are allocated.
    unsafe fn upload(&self, values: &[u8], address: u64) -> Result<()>;

    /// Copies from the card, after everything before is done.
    ///
    /// # Safety
    /// So many bytes at `address` are allocated.
    unsafe fn download(&self, address: u64, values: &mut [u8]) -> Result<()>;

    /// Fills memory with zeros.
    ///
    /// # Safety
    /// So many bytes at `address` are allocated.
    unsafe fn clear(&self, address: u64, bytes: usize) -> Result<()>;

    /// Runs a kernel on `grid` blocks of so many threads.
    ///
    /// # Safety
    /// The arguments are of the kernel's types, and everything that it reads or writes with them is allocated.
    unsafe fn launch(&self, kernel: &str, grid: [u32; 2], threads: u32, arguments: &[Argument]) -> Result<()>;

    /// Computes a product.
    ///
    /// # Safety
    /// The three matrices are allocated.
    unsafe fn multiply(&self, product: &Product) -> Result<()>;
}

/// What connects several cards.
pub(crate) trait Links: Send + Sync + fmt::Debug {
    /// Puts the sum of the values at the addresses in the place of each: `length` numbers on each card, in the cards' order.
    /// All cards get the same sum, bit for bit.
    ///
    /// # Safety
    /// So many numbers are allocated at each address.
    unsafe fn add_up(&self, addresses: &[u64], length: usize) -> Result<()>;
}

/// Puts the sum of some buffers of the same length, one on each card, in the place of each.
pub(crate) fn add_up(links: &dyn Links, buffers: &mut [&mut Buffer<f32>]) -> Result<()> {
    let length = buffers[0].length;
    assert!(buffers.iter().all(|buffer| buffer.length == length), "buffers of different lengths");
    let addresses: Vec<u64> = buffers.iter().map(|buffer| buffer.address).collect();
    // SAFETY: the buffers' own memory.
    unsafe { links.add_up(&addresses, length) }
}

/// Values in the memory of a card.
#[derive(Debug)]
pub(crate) struct Buffer<T> {
    backend: Arc<dyn Backend>,
    address: u64,
    /// Values for which there is memory.
    room: usize,
    length: usize,
    kind: PhantomData<T>,
}

/// Values that kernels read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a, T> {
    pub(super) address: u64,
    length: usize,
    buffer: PhantomData<&'a T>,
}

/// Values that kernels write.
#[derive(Debug)]
pub(crate) struct ViewMut<'a, T> {
    address: u64,
    length: usize,
    buffer: PhantomData<&'a mut T>,
}

impl<T: Pod> Buffer<T> {
    /// No values yet.
    pub(crate) fn new(backend: &Arc<dyn Backend>) -> Self {
        Self { backend: backend.clone(), address: 0, room: 0, length: 0, kind: PhantomData }
    }

    /// `length` zeros.
    pub(crate) fn zeros(backend: &Arc<dyn Backend>, length: usize) -> Result<Self> {
        let mut buffer = Self::new(backend);
        buffer.resize(length)?;
        buffer.clear()?;
        Ok(buffer)
    }

    /// A copy of `values`.
    pub(crate) fn of(backend: &Arc<dyn Backend>, values: &[T]) -> Result<Self> {
        let mut buffer = Self::new(backend);
        buffer.write(values)?;
        Ok(buffer)
    }

    /// Gives it this length; the values are anything.
    pub(crate) fn resize(&mut self, length: usize) -> Result<()> {
        if length > self.room {
            self.release();
            self.address = self.backend.allocate(length * size_of::<T>())?;
            self.room = length;
        }
        self.length = length;
        Ok(())
    }

    /// Fills it with zeros.
    pub(crate) fn clear(&mut self) -> Result<()> {
        if self.length == 0 {
            return Ok(());
        }
        // SAFETY: the buffer's own memory.
        unsafe { self.backend.clear(self.address, self.length * size_of::<T>()) }
    }

    /// Makes it a copy of `values`.
    pub(crate) fn write(&mut self, values: &[T]) -> Result<()> {
        self.resize(values.len())?;
        if values.is_empty() {
            return Ok(());
        }
        // SAFETY: the buffer's own memory, which has the length of the values.
        unsafe { self.backend.upload(bytemuck::cast_slice(values), self.address) }
    }

    /// A copy of its values.
    pub(crate) fn read(&self) -> Result<Vec<T>> {
        self.read_first(self.length)
    }

    /// A copy of its first values.
    pub(crate) fn read_first(&self, count: usize) -> Result<Vec<T>> {
        assert!(count <= self.length, "values beyond the buffer");
        let mut values = vec![T::zeroed(); count];
        if !values.is_empty() {
            // SAFETY: the buffer's own memory, which has at least so many values.
            unsafe { self.backend.download(self.address, bytemuck::cast_slice_mut(&mut values))? };
        }
        Ok(values)
    }

    /// Number of values.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    pub(crate) fn view(&self) -> View<'_, T> {
        View { address: self.address, length: self.length, buffer: PhantomData }
    }

    pub(crate) fn view_mut(&mut self) -> ViewMut<'_, T> {
        ViewMut { address: self.address, length: self.length, buffer: PhantomData }
    }

    /// The values at `place`.
    pub(crate) fn part(&self, place: Range<usize>) -> View<'_, T> {
        View { address: self.at(&place), length: place.len(), buffer: PhantomData }
    }

    /// The values at `place`.
    pub(crate) fn part_mut(&mut self, place: Range<usize>) -> ViewMut<'_, T> {
        ViewMut { address: self.at(&place), length: place.len(), buffer: PhantomData }
    }

    /// The values at two places, the second of which does not begin before the first has ended.
    pub(crate) fn parts_mut(&mut self, [first, second]: [Range<usize>; 2]) -> [ViewMut<'_, T>; 2] {
        assert!(first.end <= second.start, "parts that do not overlap");
        [first, second].map(|place| ViewMut { address: self.at(&place), length: place.len(), buffer: PhantomData })
    }

    fn at(&self, place: &Range<usize>) -> u64 {
        assert!(place.start <= place.end && place.end <= self.length, "part beyond the buffer");
        self.address + (place.start * size_of::<T>()) as u64
    }
}

impl<T> Buffer<T> {
    fn release(&mut self) {
        if self.room > 0 {
            // SAFETY: views borrow the buffer, so none is left.
            unsafe { self.backend.release(self.address) };
        }
        (self.address, self.room, self.length) = (0, 0, 0);
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        self.release();
    }
}

impl<T> View<'_, T> {
    pub(crate) fn length(&self) -> usize {
        self.length
    }
}

impl<T> ViewMut<'_, T> {
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    pub(super) fn into_address(self) -> u64 {
        self.address
    }
}

impl<T> From<View<'_, T>> for Argument {
    fn from(view: View<'_, T>) -> Self {
        Self::Address(view.address)
    }
}

/// Null where there is none.
impl<T> From<Option<View<'_, T>>> for Argument {
    fn from(view: Option<View<'_, T>>) -> Self {
        Self::Address(view.map_or(0, |view| view.address))
    }
}

/// Null where there is none.
impl<T> From<Option<&mut ViewMut<'_, T>>> for Argument {
    fn from(view: Option<&mut ViewMut<'_, T>>) -> Self {
        Self::Address(view.map_or(0, |view| view.address))
    }
}

impl<T> From<&mut ViewMut<'_, T>> for Argument {
    fn from(view: &mut ViewMut<'_, T>) -> Self {
        Self::Address(view.address)
    }
}

impl From<f32> for Argument {
    fn from(value: f32) -> Self {
        Self::Number(value)
    }
}

impl From<i32> for Argument {
    fn from(value: i32) -> Self {
        Self::Integer(value)
    }
}

impl From<i64> for Argument {
    fn from(value: i64) -> Self {
        Self::Count(value)
    }
}
