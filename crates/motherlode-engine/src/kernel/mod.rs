//! Kernels on slices, each on the calling thread: one file for each family, forward and backward together.
//!
//! Who calls them decides what runs in parallel. Those where it matters are compiled for several instruction sets, of
//! which the best is chosen at run time; `tiles` alone holds `unsafe`.

/// Defines a function whose body is compiled for each instruction set that `pulp` knows, and chosen at run time.
///
/// A closure given to `pulp` would do, were it certain to be inlined; a method of a struct is.
macro_rules! vectorised {
    ($(#[$meta:meta])* $visibility:vis fn $name:ident<$lifetime:lifetime>($($argument:ident: $kind:ty),* $(,)?) $body:block) => {
        $(#[$meta])*
        $visibility fn $name<$lifetime>($($argument: $kind),*) {
            struct Arguments<$lifetime> {
                $($argument: $kind),*
            }

            impl pulp::WithSimd for Arguments<'_> {
                type Output = ();

                #[inline(always)]
                fn with_simd<S: pulp::Simd>(self, _: S) {
                    let Self { $($argument),* } = self;
                    $body
                }
            }

            pulp::Arch::new().dispatch(Arguments { $($argument),* });
        }
    };
}

pub mod adamw;
pub mod attention;
mod bfloat16;
pub(crate) mod buffer;
pub mod continued;
pub mod cross_entropy;
pub mod dropout;
pub mod embedding;
pub mod gated;
pub mod gelu;
pub mod lanes;
pub mod mask;
pub mod matrix;
pub mod normalise;
mod operand;
pub mod pooling;
pub mod rotary;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(target_arch = "x86_64")]
mod tiles;
