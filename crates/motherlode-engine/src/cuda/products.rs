//! Matrix products by cuBLASLt.
#![expect(unsafe_code, reason = "calls cuBLASLt, whose interface is C")]

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Mutex;

use cudarc::cublaslt::sys::cublasLtMatmulDescAttributes_t as Property;
use cudarc::cublaslt::{result as blas, sys};
use cudarc::driver;
use motherlode::Result;

use super::card::failed;
use super::memory::{Format, Operand, Product};

/// Bytes that cuBLASLt may work in, as NVIDIA recommends for its newer cards.
const WORKSPACE: usize = 32 << 20;

type Outcome<T> = std::result::Result<T, blas::CublasError>;

/// Multiplies with cuBLASLt.
pub(super) struct Products {
    handle: sys::cublasLtHandle_t,
    workspace: u64,
    /// What cuBLASLt chose for each kind of product.
    algorithms: Mutex<HashMap<Kind, sys::cublasLtMatmulAlgo_t>>,
}

// SAFETY: a handle of cuBLASLt may be used by several threads, and the workspace only by what the card does in turn.
unsafe impl Send for Products {}
// SAFETY: as above.
unsafe impl Sync for Products {}

/// What the choice of an algorithm depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    sizes: [usize; 3],
    transposed: [bool; 2],
    /// Of the operands, and of the output.
    formats: [Format; 2],
    biased: bool,
    /// Bytes that divide the addresses of left and right operand and output.
    alignments: [u32; 3],
}

impl From<&Product> for Kind {
    fn from(product: &Product) -> Self {
        let Product { rows, columns, depth, left, right, bias, format, out, out_format, .. } = *product;
        // cuBLASLt knows no more than 256.
        let alignment = |address: u64| 1 << address.trailing_zeros().min(8);
        Self {
            sizes: [rows, columns, depth],
            transposed: [left.transposed, right.transposed],
            formats: [format, out_format],
            biased: bias.is_some(),
            alignments: [left.address, right.address, out].map(alignment),
        }
    }
}

/// The descriptions of a product that cuBLASLt wants.
struct Description {
    product: sys::cublasLtMatmulDesc_t,
    /// Of its first operand, its second operand and its output.
    layouts: [sys::cublasLtMatrixLayout_t; 3],
}

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: created in `new`, and used by nothing that outlives this.
        let results = unsafe {
            [
                blas::destroy_matmul_desc(self.product),
                blas::destroy_matrix_layout(self.layouts[0]),
                blas::destroy_matrix_layout(self.layouts[1]),
                blas::destroy_matrix_layout(self.layouts[2]),
            ]
        };
        debug_assert!(results.iter().all(std::result::Result::is_ok), "descriptions are destroyed once");
    }
}

impl Description {
    /// cuBLASLt's matrices are column-major: to it, our rows are columns. So it computes the transposed output,
    /// rightᵀ · leftᵀ, and its first operand is our right one.
    fn new(kind: &Kind, bias: Option<u64>) -> Outcome<Self> {
        let [rows, columns, depth] = kind.sizes.map(|size| size as u64);
        let [values, out] = kind.formats.map(|format| match format {
            Format::Single => sys::cudaDataType::CUDA_R_32F,
            Format::Bfloat16 => sys::cudaDataType::CUDA_R_16BF,
        });
        let layout = |kind, height: u64, width: u64| blas::create_matrix_layout(kind, height, width, height as i64);
        let of = |transposed: bool, height, width| {
            if transposed { layout(values, width, height) } else { layout(values, height, width) }
        };
        let [of_left, of_right] = kind.transposed;
        let layouts = [of(of_right, columns, depth)?, of(of_left, depth, rows)?, layout(out, columns, rows)?];
        let (compute, scale) = (sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, sys::cudaDataType::CUDA_R_32F);
        let description = Self { product: blas::create_matmul_desc(compute, scale)?, layouts };
        // `CUBLAS_OP_T` is 1, `CUBLAS_OP_N` 0.
        description.set(Property::CUBLASLT_MATMUL_DESC_TRANSA, &i32::from(of_right))?;
        description.set(Property::CUBLASLT_MATMUL_DESC_TRANSB, &i32::from(of_left))?;
        if let Some(bias) = bias {
            let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS as u32;
            description.set(Property::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
            description.set(Property::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias)?;
        }
        Ok(description)
    }

    fn set<T>(&self, property: Property, value: &T) -> Outcome<()> {
        let value = std::ptr::from_ref(value).cast();
        // SAFETY: the description lives, and copies a value of this size.
        unsafe { blas::set_matmul_desc_attribute(self.product, property, value, size_of::<T>()) }
    }
}

/// What an algorithm must do with, destroyed when dropped.
struct Preference(sys::cublasLtMatmulPreference_t);

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: created in `new`, and used by nothing that outlives this.
        let destroyed = unsafe { blas::destroy_matmul_pref(self.0) };
        debug_assert!(destroyed.is_ok(), "a preference is destroyed once");
    }
}

impl Preference {
    fn new(kind: &Kind) -> Outcome<Self> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let preference = Self(blas::create_matmul_pref()?);
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE)?;
        let [left, right, out] = &kind.alignments;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, right)?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, left)?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, out)?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, out)?;
        Ok(preference)
    }

    fn set<T>(&self, attribute: sys::cublasLtMatmulPreferenceAttributes_t, value: &T) -> Outcome<()> {
        let value = std::ptr::from_ref(value);
        // SAFETY: the preference lives, and copies a value of this size.
        unsafe { blas::set_matmul_pref_attribute(self.0, attribute, value.cast(), size_of::<T>()) }
    }
}

impl Products {
    /// Made for the card that is chosen.
    pub(super) fn new() -> Result<Self> {
        let handle = blas::create_handle().map_err(failed("start cuBLASLt"))?;
        // SAFETY: released when the process ends.
        let workspace = unsafe { driver::result::malloc_sync(WORKSPACE) }.map_err(failed("give cuBLASLt memory"))?;
        Ok(Self { handle, workspace, algorithms: Mutex::default() })
    }

    /// # Safety
    /// The three matrices are allocated.
    pub(super) unsafe fn multiply(&self, product: &Product) -> Outcome<()> {
        let kind = Kind::from(product);
        let description = Description::new(&kind, product.bias)?;
        let algorithm = self.algorithm(&kind, &description)?;
        let (factor, before) = (1.0_f32, if product.add { 1.0_f32 } else { 0.0 });
        let [factor, before] = [&factor, &before].map(|number| std::ptr::from_ref(number).cast());
        let [first, second, of_out] = description.layouts;
        let address = |operand: Operand| operand.address as *const c_void;
        // SAFETY: the caller's promise; the layouts describe these matrices, and the work is done in the order of the
        // calls.
        unsafe {
            blas::matmul(
                self.handle,
                description.product,
                factor,
                before,
                address(product.right),
                first,
                address(product.left),
                second,
                product.out as *const c_void,
                of_out,
                product.out as *mut c_void,
                of_out,
                &raw const algorithm,
                self.workspace as *mut c_void,
                WORKSPACE,
                std::ptr::null_mut(),
            )
        }
    }

    /// What cuBLASLt chooses for products of this kind.
    fn algorithm(&self, kind: &Kind, description: &Description) -> Outcome<sys::cublasLtMatmulAlgo_t> {
        let mut algorithms = self.algorithms.lock().expect("no thread panics while it holds the lock");
        if let Some(algorithm) = algorithms.get(kind) {
            return Ok(*algorithm);
        }
        let preference = Preference::new(kind)?;
        let Description { product, layouts: [first, second, out] } = *description;
        // SAFETY: handle, descriptions and preference live.
        let chosen =
            unsafe { blas::get_matmul_algo_heuristic(self.handle, product, first, second, out, out, preference.0) }?;
        algorithms.insert(*kind, chosen.algo);
        Ok(chosen.algo)
    }
}
