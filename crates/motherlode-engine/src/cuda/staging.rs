//! Copies to a card through memory that it reads by itself: while one part is on its way, all threads copy the next one there.
#![expect(unsafe_code, reason = "calls the driver, whose interface is C, and writes the memory that it gave out")]

use cudarc::driver::result::{event, malloc_host, memcpy_htod_async};
use cudarc::driver::{DriverError, sys};
use rayon::prelude::*;

/// Bytes of a part. Less is copied faster by the driver alone.
pub(super) const PART: usize = 8 << 20;
/// Bytes that a thread copies at a time.
const PIECE: usize = 1 << 18;

/// Two parts in the machine's memory, for one card. They stay until the process ends, as the card does.
pub(super) struct Staging {
    parts: [Part; 2],
}

struct Part {
    values: &'static mut [u8],
    /// Comes when the card has read the part.
    read: sys::CUevent,
}

// SAFETY: an event may be used by any thread.
unsafe impl Send for Part {}

impl Part {
    fn new() -> Result<Self, DriverError> {
        let read = event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)?;
        // SAFETY: the driver gives so many bytes, or an error.
        let address = unsafe { malloc_host(PART, 0) }?.cast::<u8>();
        // SAFETY: new memory of this size, which is never released and which nothing else knows; all its bytes are set here.
        let values = unsafe {
            address.write_bytes(0, PART);
            std::slice::from_raw_parts_mut(address, PART)
        };
        Ok(Self { values, read })
    }

    /// # Safety
    /// So many bytes at `address` are allocated.
    unsafe fn send(&mut self, values: &[u8], address: u64) -> Result<(), DriverError> {
        // SAFETY: the event lives as long as this; one that was never recorded has come.
        unsafe { event::synchronize(self.read) }?;
        let copy = &mut self.values[..values.len()];
        let pieces = copy.par_chunks_mut(PIECE).zip(values.par_chunks(PIECE));
        pieces.for_each(|(copy, values)| copy.copy_from_slice(values));
        // SAFETY: the caller's promise; the part is not written again before the event has come.
        unsafe {
            memcpy_htod_async(address, copy, std::ptr::null_mut())?;
            event::record(self.read, std::ptr::null_mut())
        }
    }
}

impl Staging {
    /// Made for the card that is chosen.
    pub(super) fn new() -> Result<Self, DriverError> {
        Ok(Self { parts: [Part::new()?, Part::new()?] })
    }

    /// Copies to the chosen card, in the order of its work; gives back before the last parts have arrived.
    ///
    /// # Safety
    /// So many bytes at `address` are allocated.
    pub(super) unsafe fn send(&mut self, values: &[u8], address: u64) -> Result<(), DriverError> {
        let places = (address..).step_by(PART);
        for ((number, values), address) in values.chunks(PART).enumerate().zip(places) {
            // SAFETY: the caller's promise.
            unsafe { self.parts[number % 2].send(values, address) }?;
        }
        Ok(())
    }
}
