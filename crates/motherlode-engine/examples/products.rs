//! GFLOP a CPU second of matrix products of the sizes of small encoders, on one thread, beside the processor's peak in f32.
//!
//! `cargo run --release -p motherlode-engine --example products`. In f32 and in bfloat16. The peak is a loop of fused multiply-adds on
//! registers. Time is the process's own CPU time, so that other load on the machine disturbs little; Linux only.
#![expect(clippy::print_stdout, reason = "an example that reports")]

#[expect(dead_code, reason = "only the loop is needed here")]
mod limit;

use motherlode_engine::kernel::matrix::{Packing, Panels, Start, Unit, View, ViewMut, multiply};
use pulp::Arch;

/// Operations of one measurement.
const FLOP: f64 = 1e11;

/// CPU seconds of this process, in steps of 1/100.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux has /proc/self/stat");
    let after_name = stat.rsplit(')').next().expect("the name stands in brackets");
    after_name.split(' ').skip(12).take(2).map(|ticks| ticks.parse::<f64>().expect("ticks are a number") / 100.0).sum()
}

/// The best of three measurements of `work`, which does [`FLOP`] operations, in GFLOP/s.
fn rate(mut work: impl FnMut()) -> f64 {
    let mut once = || {
        let start = cpu_seconds();
        work();
        FLOP / (cpu_seconds() - start) / 1e9
    };
    (0..3).map(|_| once()).fold(0.0, f64::max)
}

fn product_rate(unit: Unit, rows: usize, inner: usize, columns: usize) -> f64 {
    let values = |count: usize| (0..count).map(|index| (index % 17) as f32 * 0.1).collect::<Vec<_>>();
    let (left, right, mut out) = (values(rows * inner), values(inner * columns), vec![0.0; rows * columns]);
    let (panels, mut packing) = (Panels::of(View::new(&right, inner).transposed(), unit), Packing::default());
    let repeats = (FLOP / (2 * rows * inner * columns) as f64) as usize;
    rate(|| {
        for _ in 0..repeats {
            let out = ViewMut::new(&mut out, columns);
            multiply(out, Start::Zero, View::new(&left, inner), &panels, &mut packing);
        }
    })
}

fn main() {
    let peak = rate(|| Arch::new().dispatch(limit::MultiplyAdd { flop: FLOP }));
    println!("peak: {peak:.1} GFLOP/s");
    for (rows, inner, columns) in [
        (256, 384, 1152),
        (256, 384, 384),
        (256, 384, 1536),
        (256, 1536, 384),
        (256, 768, 3072),
        (256, 1536, 8960),
        (256, 8960, 1536),
        (96, 256, 1536),
        (100, 32, 100),
        (100, 100, 32),
    ] {
        let single = product_rate(Unit::single(), rows, inner, columns);
        let sums = product_rate(Unit::bfloat16_sums(), rows, inner, columns);
        let half = product_rate(Unit::bfloat16(), rows, inner, columns);
        let share = 100.0 * single / peak;
        println!(
            "{rows} × {inner} × {columns}: {single:.1} GFLOP/s, {share:.0} % of the peak; {sums:.1} in bf16x3, {half:.1} in bf16"
        );
    }
}
