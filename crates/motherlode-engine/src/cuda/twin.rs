//! A processor in the place of a graphics card, for tests: the same kernels, compiled by a C++ compiler.
#![expect(unsafe_code, reason = "calls the compiled kernels, and reads and writes the memory that it gave out")]

use std::collections::HashMap;
use std::ffi::c_void;
use std::fmt;
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

use libloading::Library;
use motherlode::{Error, Result};

use super::kernels::{SOURCE, names};
use super::memory::{Argument, Backend, Operand, Product};

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
        let Product { rows, columns, depth, left, right, rounded, out, add } = *product;
        // SAFETY: the caller's promise.
        let (left, right) = unsafe { (matrix(left, [rows, depth], rounded), matrix(right, [depth, columns], rounded)) };
        // SAFETY: the caller's promise.
        let out = unsafe { std::slice::from_raw_parts_mut(out as *mut f32, rows * columns) };
        for (index, out) in out.iter_mut().enumerate() {
            let (row, column) = (index / columns, index % columns);
            let sum: f32 = (0..depth).map(|inner| left[row * depth + inner] * right[inner * columns + column]).sum();
            *out = if add { *out + sum } else { sum };
        }
        Ok(())
    }
}

/// The values of an operand, row after row.
unsafe fn matrix(operand: Operand, [rows, columns]: [usize; 2], rounded: bool) -> Vec<f32> {
    let count = rows * columns;
    let values: Vec<f32> = if rounded {
        // SAFETY: the caller's promise.
        let bits = unsafe { std::slice::from_raw_parts(operand.address as *const u16, count) };
        bits.iter().map(|bits| half::bf16::from_bits(*bits).to_f32()).collect()
    } else {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(operand.address as *const f32, count) }.to_vec()
    };
    if !operand.transposed {
        return values;
    }
    (0..count).map(|index| values[index % columns * rows + index / columns]).collect()
}
