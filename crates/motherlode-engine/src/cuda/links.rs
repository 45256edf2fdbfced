//! NCCL, which connects the cards of one machine; loaded when several are asked for.
#![expect(unsafe_code, reason = "calls NCCL, whose interface is C")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::sync::{Arc, Mutex};

use libloading::{Library, Symbol};
use motherlode::{Error, Result};

use super::memory::Links;

/// Names of the library, the one that packages install first.
const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];
/// `ncclFloat32` and `ncclSum`. Source: nccl.h, which has kept them since version 2.0.
const FLOAT: c_int = 7;
const SUM: c_int = 0;

/// What a call of NCCL returns; 0 is success.
type Status = c_int;
/// A card's end of the connection.
type End = *mut c_void;
type Begin = unsafe extern "C" fn(*mut End, c_int, *const c_int) -> Status;
type Destroy = unsafe extern "C" fn(End) -> Status;
type Group = unsafe extern "C" fn() -> Status;
type AllReduce = unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, End, *mut c_void) -> Status;
type Explain = unsafe extern "C" fn(Status) -> *const c_char;

/// The cards of one machine, connected.
pub(super) struct Nccl {
    library: Arc<Library>,
    /// One a card; NCCL wants no two calls at a time.
    ends: Mutex<Vec<End>>,
}

// SAFETY: NCCL's handles may be used from any thread, by one at a time, which the lock sees to.
unsafe impl Send for Nccl {}
// SAFETY: as above.
unsafe impl Sync for Nccl {}

impl fmt::Debug for Nccl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Nccl")
    }
}

impl Nccl {
    /// Connects the cards with these numbers.
    ///
    /// # Errors
    /// NCCL is not installed, or cannot connect them.
    pub(super) fn connect(numbers: &[usize]) -> Result<Self> {
        let library = load()?;
        let numbers: Vec<c_int> = numbers.iter().map(|number| *number as c_int).collect();
        let mut ends = vec![std::ptr::null_mut(); numbers.len()];
        // SAFETY: the function's type is that of nccl.h; it reads so many numbers and writes so many handles.
        let status = unsafe {
            let begin: Symbol<'_, Begin> = find(&library, c"ncclCommInitAll")?;
            begin(ends.as_mut_ptr(), numbers.len() as c_int, numbers.as_ptr())
        };
        check(&library, status, "connect the cards")?;
        Ok(Self { library, ends: Mutex::new(ends) })
    }
}

/// Loads NCCL once for the whole process: it does not outlive being unloaded.
fn load() -> Result<Arc<Library>> {
    static LOADED: Mutex<Option<Arc<Library>>> = Mutex::new(None);
    let mut loaded = LOADED.lock().expect("no thread panics while it holds the lock");
    if let Some(library) = &*loaded {
        return Ok(library.clone());
    }
    // SAFETY: loading NCCL runs nothing but its initialisation, which is made for that.
    let found = NAMES.iter().find_map(|name| unsafe { Library::new(*name) }.ok());
    let library = Arc::new(found.ok_or_else(|| {
        let remedy = "install it, or name its folder in LD_LIBRARY_PATH, or take one card";
        Error::config(format!(
            "several graphics cards train together through NCCL, and {} is not found; {remedy}",
            NAMES[0]
        ))
    })?);
    *loaded = Some(library.clone());
    Ok(library)
}

/// A function of NCCL.
///
/// # Safety
/// `F` is its type.
unsafe fn find<'a, F>(library: &'a Library, name: &CStr) -> Result<Symbol<'a, F>> {
    // SAFETY: the caller's promise.
    unsafe { library.get(name.to_bytes_with_nul()) }.map_err(|error| Error::data(format!("NCCL: {error}")))
}

/// Turns a status into an error that says what NCCL calls it.
fn check(library: &Library, status: Status, what: &str) -> Result<()> {
    if status == 0 {
        return Ok(());
    }
    // SAFETY: the function's type is that of nccl.h; it returns text that is never freed.
    let reason = unsafe {
        let explain: Symbol<'_, Explain> = find(library, c"ncclGetErrorString")?;
        CStr::from_ptr(explain(status)).to_string_lossy().into_owned()
    };
    Err(Error::data(format!("NCCL: {what}: {reason}")))
}

impl Links for Nccl {
    unsafe fn add_up(&self, addresses: &[u64], length: usize) -> Result<()> {
        let ends = self.ends.lock().expect("no thread panics while it holds the lock");
        assert_eq!(addresses.len(), ends.len(), "an address for every card");
        // SAFETY: the functions' types are those of nccl.h; the caller promises the memory. The streams are the cards' own
        // first ones, on which everything else happens, too.
        let (status, ended) = unsafe {
            let begin: Symbol<'_, Group> = find(&self.library, c"ncclGroupStart")?;
            let end: Symbol<'_, Group> = find(&self.library, c"ncclGroupEnd")?;
            let reduce: Symbol<'_, AllReduce> = find(&self.library, c"ncclAllReduce")?;
            let begun = begin();
            let each = addresses.iter().zip(ends.iter()).map(|(address, end)| {
                reduce(
                    *address as *const c_void,
                    *address as *mut c_void,
                    length,
                    FLOAT,
                    SUM,
                    *end,
                    std::ptr::null_mut(),
                )
            });
            (std::iter::once(begun).chain(each).find(|status| *status != 0).unwrap_or(0), end())
        };
        check(&self.library, status, "add gradients up")?;
        check(&self.library, ended, "add gradients up")
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        // SAFETY: the function's type is that of nccl.h; each handle is given up once, and nothing uses it after this.
        // Nobody can be told of a failure.
        unsafe {
            if let Ok(destroy) = find::<Destroy>(&self.library, c"ncclCommDestroy") {
                let ends = self.ends.get_mut().expect("no thread panics while it holds the lock");
                for end in ends.drain(..) {
                    let _: Status = destroy(end);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which machine the test runs on decides whether NCCL is there; the message always says what to do.
    #[test]
    fn cards_that_are_not_there_are_not_connected() {
        let error = Nccl::connect(&[1000, 1001]).unwrap_err().to_string();
        let missing = error.contains("libnccl.so.2 is not found; install it");
        assert!(missing || error.contains("NCCL: connect the cards: "), "{error}");
        println!("{error}");
    }
}
