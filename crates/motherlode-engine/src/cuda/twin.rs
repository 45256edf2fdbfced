//! A processor in the place of a graphics card, for tests: the same kernels, compiled by a C++ compiler.
#![expect(unsafe_code, reason = "calls the compiled kernels, and reads and writes the memory that it gave out")]

use std::collections::HashMap;
use std::ffi::c_void;
use std::fmt;
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

use half::bf16;
use libloading::Library;
use motherlode::{Error, Result};

use super::kernels::{SOURCE, names};
use super::memory::{Argument, Backend, Format, Links, Operand, Product};

type Launcher = unsafe extern "C" fn(*const u32, u32, *const *const c_void);

/// A processor.
#[derive(Default)]
pub(crate) struct Twin {
    memory: Mutex<Memory>,
}

/// What is allocated.
#[derive(Default)]
struct Memory {
    pieces: HashMap<u64, Vec<u64>>,
    bytes: usize,
    /// The most bytes that there were at a time.
    peak: usize,
}

impl fmt::Debug for Twin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Twin")
    }
}

impl Twin {
    pub(crate) fn backend() -> Arc<dyn Backend> {
        Arc::new(Self::default())
    }

    /// The most bytes that were allocated at a time.
    pub(crate) fn peak(&self) -> usize {
        self.memory.lock().unwrap().peak
    }
}

fn compiler() -> String {
    std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned())
}

/// Whether there is something that compiles the kernels.
pub(super) fn has_compiler() -> bool {
    Command::new(compiler()).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// The kernels, compiled once for all tests.
fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let [text, compiled] = ["kernels.cpp", "kernels.so"].map(|name| folder.path().join(name));
        let launchers: String = names().flat_map(|name| ["LAUNCHER(", name, ")\n"]).collect();
        std::fs::write(&text, [include_str!("twin.h"), SOURCE, &launchers].concat()).unwrap();
        let compiler = compiler();
        let options = ["-std=c++17", "-O2", "-U_FORTIFY_SOURCE", "-Wno-unknown-pragmas", "-fPIC", "-shared", "-o"];
        let status = Command::new(&compiler).args(options).args([&compiled, &text]).status();
        assert!(status.is_ok_and(|status| status.success()), "{compiler}: the kernels do not compile");
        // SAFETY: the library has no code that runs when it is loaded.
        unsafe { Library::new(compiled.to_str().unwrap()) }.unwrap()
    })
}

impl Backend for Twin {
    fn name(&self) -> &'static str {
        "a processor in place of a card"
    }

    fn number(&self) -> usize {
        0
    }

    fn connect(&self, _: &[usize]) -> Result<Box<dyn Links>> {
        Ok(Box::new(TwinLinks))
    }

    fn free_memory(&self) -> Result<u64> {
        Ok(1 << 30)
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        // Bits of no number: what is read before it is written shows.
        let mut memory = vec![u64::MAX; bytes.div_ceil(8)];
        let address = memory.as_mut_ptr() as u64;
        let mut all = self.memory.lock().unwrap();
        all.bytes += size_of_val(memory.as_slice());
        all.peak = all.peak.max(all.bytes);
        all.pieces.insert(address, memory);
        Ok(address)
    }

    unsafe fn release(&self, address: u64) {
        let mut all = self.memory.lock().unwrap();
        all.bytes -= size_of_val(all.pieces.remove(&address).unwrap().as_slice());
    }

    unsafe fn upload(&self, values: &[u8], address: u64) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), address as *mut u8, values.len()) };
        Ok(())
    }

    unsafe fn download(&self, address: u64, values: &mut [u8]) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(address as *const u8, values.as_mut_ptr(), values.len()) };
        Ok(())
    }

    unsafe fn clear(&self, address: u64, bytes: usize) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { std::ptr::write_bytes(address as *mut u8, 0, bytes) };
        Ok(())
    }

    unsafe fn launch(&self, kernel: &str, grid: [u32; 2], threads: u32, arguments: &[Argument]) -> Result<()> {
        let unknown = |error: libloading::Error| Error::data(error.to_string());
        // SAFETY: every kernel has a launcher of this type.
        let launcher = unsafe { library().get::<Launcher>(format!("launch_{kernel}")) }.map_err(unknown)?;
        let addresses: Vec<*const c_void> = arguments.iter().map(Argument::place).collect();
        // SAFETY: the caller's promise.
        unsafe { launcher(grid.as_ptr(), threads, addresses.as_ptr()) };
        Ok(())
    }

    unsafe fn multiply(&self, product: &Product) -> Result<()> {
        let Product { rows, columns, depth, left, right, bias, format, out, out_format, add } = *product;
        let matrix = |operand: Operand, [rows, columns]: [usize; 2]| {
            // SAFETY: the caller's promise.
            let values = unsafe { read(operand.address, format, rows * columns) };
            if !operand.transposed {
                return values;
            }
            (0..rows * columns).map(|index| values[index % columns * rows + index / columns]).collect()
        };
        let (left, right) = (matrix(left, [rows, depth]), matrix(right, [depth, columns]));
        // SAFETY: the caller's promise.
        let bias = bias.map(|bias| unsafe { read(bias, format, columns) });
        let before = if add {
            // SAFETY: the caller's promise.
            unsafe { read(out, out_format, rows * columns) }
        } else {
            vec![0.0; rows * columns]
        };
        let value = |(index, before): (usize, f32)| {
            let (row, column) = (index / columns, index % columns);
            let sum: f32 = (0..depth).map(|inner| left[row * depth + inner] * right[inner * columns + column]).sum();
            before + (sum + bias.as_ref().map_or(0.0, |bias| bias[column]))
        };
        let values: Vec<f32> = before.into_iter().enumerate().map(value).collect();
        let rounded: Vec<bf16>;
        let bytes: &[u8] = match out_format {
            Format::Single => bytemuck::cast_slice(&values),
            Format::Bfloat16 => {
                rounded = values.iter().map(|value| bf16::from_f32(*value)).collect();
                bytemuck::cast_slice(&rounded)
            }
        };
        // SAFETY: the caller's promise.
        unsafe { self.upload(bytes, out) }
    }
}

/// Twins, whose memory is one.
#[derive(Debug)]
struct TwinLinks;

impl Links for TwinLinks {
    unsafe fn add_up(&self, addresses: &[u64], length: usize) -> Result<()> {
        // SAFETY: the caller's promise, and no two buffers overlap.
        let place = |address| unsafe { std::slice::from_raw_parts_mut(address as *mut f32, length) };
        let parts: Vec<Vec<f32>> = addresses.iter().map(|address| place(*address).to_vec()).collect();
        for address in addresses {
            let sums = place(*address).iter_mut().enumerate();
            sums.for_each(|(index, sum)| *sum = parts.iter().map(|part| part[index]).sum());
        }
        Ok(())
    }
}

/// `count` numbers at an address.
///
/// # Safety
/// They are allocated.
unsafe fn read(address: u64, format: Format, count: usize) -> Vec<f32> {
    match format {
        // SAFETY: the caller's promise.
        Format::Single => unsafe { std::slice::from_raw_parts(address as *const f32, count) }.to_vec(),
        Format::Bfloat16 => {
            // SAFETY: the caller's promise.
            let values = unsafe { std::slice::from_raw_parts(address as *const bf16, count) };
            values.iter().map(|value| value.to_f32()).collect()
        }
    }
}
