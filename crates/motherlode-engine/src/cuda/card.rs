//! A graphics card of NVIDIA: its driver, NVRTC and cuBLASLt, all of which are loaded when a card is asked for, so
//! that nothing of CUDA is needed to build or to start the program.
#![expect(unsafe_code, reason = "calls the driver and NVRTC, whose interfaces are C")]

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, c_void};
use std::fmt;
use std::sync::{Arc, Mutex};

use cudarc::driver::{self, CudaContext, CudaFunction, DriverError};
use cudarc::nvrtc::{self, Ptx};
use motherlode::memory::readable;
use motherlode::{Error, Result};

use super::kernels::{SOURCE, names};
use super::links::Nccl;
use super::memory::{Argument, Backend, Links, Product};
use super::products::Products;
use super::staging::{self, Staging};

/// The oldest compute capability whose cards multiply bfloat16.
const LEAST_CAPABILITY: (i32, i32) = (8, 0);

/// A card, ready to compute. It stays open until the process ends.
pub(crate) struct Card {
    context: Arc<CudaContext>,
    name: String,
    functions: HashMap<&'static str, CudaFunction>,
    products: Products,
    /// Made when there is much to copy.
    staging: Mutex<Option<Staging>>,
}

impl fmt::Debug for Card {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)
    }
}

/// An error of the driver, NVRTC or cuBLASLt while it did `what`.
pub(super) fn failed<E: fmt::Debug>(what: &str) -> impl Fn(E) -> Error {
    move |error| Error::data(format!("graphics card: {what}: {error:?}"))
}

/// Refuses a machine that lacks one of the libraries.
fn check_libraries() -> Result<()> {
    // SAFETY: loading the libraries runs nothing but their initialisation, which is made for that.
    let [driver, compiler, products] = unsafe {
        [driver::sys::is_culib_present(), nvrtc::sys::is_culib_present(), cudarc::cublaslt::sys::is_culib_present()]
    };
    let toolkit = "install NVIDIA's CUDA runtime libraries, 12 or 13, or name their folder in LD_LIBRARY_PATH";
    let missing = [
        (driver, "no CUDA driver (libcuda.so.1) is installed", "install NVIDIA's driver"),
        (compiler, "NVRTC (libnvrtc.so) is not found", toolkit),
        (products, "cuBLASLt (libcublasLt.so) is not found", toolkit),
    ];
    match missing.iter().find(|(present, ..)| !present) {
        Some((_, what, remedy)) => Err(Error::config(format!("{what}; {remedy}, or compute on the CPU"))),
        None => Ok(()),
    }
}

impl Card {
    /// Card `index`, opened once for the whole process.
    ///
    /// # Errors
    /// There is no driver or no such card, it is too old, or the kernels do not compile.
    pub(crate) fn open(index: usize) -> Result<Arc<dyn Backend>> {
        static CARDS: Mutex<BTreeMap<usize, Arc<Card>>> = Mutex::new(BTreeMap::new());
        let mut cards = CARDS.lock().expect("no thread panics while it holds the lock");
        if let Some(card) = cards.get(&index) {
            return Ok(card.clone());
        }
        let card = Arc::new(Self::start(index)?);
        cards.insert(index, card.clone());
        Ok(card)
    }

    fn start(index: usize) -> Result<Self> {
        check_libraries()?;
        let none = |error: DriverError| {
            let remedy = "see what nvidia-smi says, or compute on the CPU";
            Error::config(format!("no graphics card cuda:{index} can be used ({error:?}); {remedy}"))
        };
        let context = CudaContext::new(index).map_err(none)?;
        let capability = context.compute_capability().map_err(none)?;
        let name = format!("cuda:{index} ({})", context.name().map_err(none)?);
        if capability < LEAST_CAPABILITY {
            let (major, minor) = capability;
            let expected = "expected compute capability 8.0 or higher (Ampere)";
            return Err(Error::config(format!("{name}: {expected}, got {major}.{minor}; compute on the CPU")));
        }
        let module = context.load_module(Ptx::from_binary(compile(capability)?)).map_err(failed("load kernels"))?;
        let function = |name| Ok((name, module.load_function(name).map_err(failed("find a kernel"))?));
        let functions = names().map(function).collect::<Result<_>>()?;
        Ok(Self { context, name, functions, products: Products::new()?, staging: Mutex::default() })
    }

    /// Makes the card that of the calling thread.
    fn bind(&self) -> Result<()> {
        self.context.bind_to_thread().map_err(failed("choose the card"))
    }
}

/// The kernels in the card's machine code.
fn compile((major, minor): (i32, i32)) -> Result<Vec<u8>> {
    let source = CString::new(SOURCE).expect("the sources have no zero byte");
    let program = nvrtc::result::create_program(&source, Some(c"kernels.cu")).map_err(failed("begin to compile"))?;
    let options = [format!("--gpu-architecture=sm_{major}{minor}"), "--std=c++17".to_owned()];
    // SAFETY: the program is valid until it is destroyed below.
    let compiled = unsafe { nvrtc::result::compile_program(program, &options) };
    // SAFETY: as above.
    let log = unsafe { nvrtc::result::get_program_log(program) }.unwrap_or_default();
    // SAFETY: as above; there is machine code only if it was compiled.
    let code = compiled.and_then(|()| unsafe { machine_code(program) });
    // SAFETY: the program was created above, and nothing uses it after this.
    let destroyed = unsafe { nvrtc::result::destroy_program(program) };
    let log = String::from_utf8_lossy(bytemuck::cast_slice(&log)).into_owned();
    let refuse = |error| {
        let log = log.trim_end_matches(['\0', '\n']);
        Error::data(format!("graphics card: compile kernels for sm_{major}{minor}: {error:?} {log}"))
    };
    code.and_then(|code| destroyed.map(|()| code)).map_err(refuse)
}

type Compiled<T> = std::result::Result<T, nvrtc::result::NvrtcError>;

/// The machine code of a compiled program.
unsafe fn machine_code(program: nvrtc::sys::nvrtcProgram) -> Compiled<Vec<u8>> {
    let mut size = 0;
    // SAFETY: the caller's program is compiled.
    unsafe { nvrtc::sys::nvrtcGetCUBINSize(program, &raw mut size) }.result()?;
    let mut code = vec![0_u8; size];
    // SAFETY: the code has this size.
    unsafe { nvrtc::sys::nvrtcGetCUBIN(program, code.as_mut_ptr().cast()) }.result()?;
    Ok(code)
}

impl Backend for Card {
    fn name(&self) -> &str {
        &self.name
    }

    fn number(&self) -> usize {
        self.context.ordinal()
    }

    fn connect(&self, numbers: &[usize]) -> Result<Box<dyn Links>> {
        Ok(Box::new(Nccl::connect(numbers)?))
    }

    fn free_memory(&self) -> Result<u64> {
        self.bind()?;
        let (free, _) = driver::result::mem_get_info().map_err(failed("ask for its memory"))?;
        Ok(free as u64)
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.bind()?;
        // SAFETY: the memory is released once, by the buffer that asked for it.
        unsafe { driver::result::malloc_sync(bytes) }.map_err(|error| {
            let (bytes, name) = (readable(bytes as u64), &self.name);
            Error::data(format!(
                "{name}: no memory for {bytes} more ({error:?}); encode or train fewer tokens at a time"
            ))
        })
    }

    unsafe fn release(&self, address: u64) {
        // Nobody can be told; what fails here fails again in the next call.
        let bound = self.context.bind_to_thread();
        // SAFETY: the caller's promise; the driver waits for what still runs.
        self.context.record_err(bound.and_then(|()| unsafe { driver::result::free_sync(address) }));
    }

    unsafe fn upload(&self, values: &[u8], address: u64) -> Result<()> {
        self.bind()?;
        if values.len() > staging::PART
            && let Ok(mut staging) = self.staging.try_lock()
        {
            let staging = match &mut *staging {
                Some(staging) => staging,
                none => none.insert(Staging::new().map_err(failed("get memory that it reads"))?),
            };
            // SAFETY: the caller's promise.
            return unsafe { staging.send(values, address) }.map_err(failed("copy to it"));
        }
        // SAFETY: the caller's promise.
        unsafe { driver::result::memcpy_htod_sync(address, values) }.map_err(failed("copy to it"))
    }

    unsafe fn download(&self, address: u64, values: &mut [u8]) -> Result<()> {
        self.bind()?;
        // SAFETY: the caller's promise.
        unsafe { driver::result::memcpy_dtoh_sync(values, address) }.map_err(failed("compute and copy from it"))
    }

    unsafe fn clear(&self, address: u64, bytes: usize) -> Result<()> {
        self.bind()?;
        // SAFETY: the caller's promise.
        unsafe { driver::result::memset_d8_async(address, 0, bytes, std::ptr::null_mut()) }
            .map_err(failed("clear memory"))
    }

    unsafe fn launch(&self, kernel: &str, grid: [u32; 2], threads: u32, arguments: &[Argument]) -> Result<()> {
        self.bind()?;
        let function = self.functions[kernel].cu_function();
        let mut places: Vec<*mut c_void> = arguments.iter().map(|argument| argument.place().cast_mut()).collect();
        let (grid, block) = ((grid[0], grid[1], 1), (threads, 1, 1));
        // SAFETY: the caller's promise; the driver copies the arguments before it returns.
        unsafe { driver::result::launch_kernel(function, grid, block, 0, std::ptr::null_mut(), &mut places) }
            .map_err(|error| failed(kernel)(error))
    }

    unsafe fn multiply(&self, product: &Product) -> Result<()> {
        self.bind()?;
        // SAFETY: the caller's promise.
        unsafe { self.products.multiply(product) }.map_err(failed("multiply"))
    }
}
