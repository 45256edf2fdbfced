//! Files mapped into memory. Holds `unsafe`, as only `index/product.rs` does beside it.
#![expect(unsafe_code, reason = "mapping a file is unsafe by nature; nothing else here is")]

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A read-only file in memory, paged in by the system as it is read.
///
/// Artefacts are written once and renamed into place, so the bytes under a mapping do not change.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    map: memmap2::Mmap,
}

impl MappedFile {
    /// Maps `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        // SAFETY: the file belongs to a finished artefact or is a finished scratch file of a stage, which nothing of this
        // program writes again. Someone who truncates it from outside while it is mapped ends the process by a signal, as
        // with any mapped file.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(Error::io(path))?;
        Ok(Self { path: path.to_path_buf(), map })
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The bytes from `start` on as `count` values of a plain type; an error if they are not there or not aligned.
    pub fn values<T: bytemuck::Pod>(&self, start: usize, count: usize) -> Result<&[T]> {
        let end = count.checked_mul(size_of::<T>()).and_then(|bytes| start.checked_add(bytes));
        let bytes = end.and_then(|end| self.map.get(start..end)).ok_or_else(|| {
            let wanted = count.saturating_mul(size_of::<T>());
            Error::file(
                &self.path,
                format!(
                    "expected {wanted} bytes from offset {start}, the file has {}; it is truncated",
                    self.map.len()
                ),
            )
        })?;
        bytemuck::try_cast_slice(bytes)
            .map_err(|error| Error::file(&self.path, format!("bytes from offset {start}: {error}")))
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
