//! Spike.
#![allow(unsafe_code)]
use motherlode_engine::kernel::matrix::*;
fn main() {
    for (m, k, n) in [(256, 384, 1536), (256, 1536, 384), (256, 384, 1152), (256,384,384), (128, 384, 1536), (1536, 256, 384), (2048,3072,768),(128,32,128),(128,128,32)] {
        let a: Vec<f32> = (0..m * k).map(|i| (i % 17) as f32 * 0.1).collect();
        let b: Vec<f32> = (0..k * n).map(|i| (i % 13) as f32 * 0.1).collect();
        let mut c = vec![0f32; m * n];
        let mut d = vec![0f32; m * n];
        let panels = Panels::of(View::new(&b, k).transposed());
        let mut packing = vec![];
        let flops = 2.0 * (m * k * n) as f64;
        let reps = (3e9 / flops) as usize + 1;
        let (mut best, mut bestg, mut bestp) = (1e9f64, 1e9f64, 1e9f64);
        for _ in 0..5 {
            let t = std::time::Instant::now();
            for _ in 0..reps { multiply(ViewMut::new(&mut c, n), Start::Zero, View::new(&a, k), &panels, &mut packing); }
            best = best.min(t.elapsed().as_secs_f64() / reps as f64);
            let t = std::time::Instant::now();
            for _ in 0..reps { let p = Panels::of(View::new(&b, k).transposed()); std::hint::black_box(&p); }
            bestp = bestp.min(t.elapsed().as_secs_f64() / reps as f64);
            let t = std::time::Instant::now();
            for _ in 0..reps { unsafe { gemm::gemm(m, n, k, d.as_mut_ptr(), 1, n as isize, false, a.as_ptr(), 1, k as isize, b.as_ptr(), k as isize, 1, 0.0, 1.0, false, false, false, gemm::Parallelism::None) } }
            bestg = bestg.min(t.elapsed().as_secs_f64() / reps as f64);
        }
        let e = c.iter().zip(&d).map(|(x, y)| (x - y).abs() / y.abs().max(1.0)).fold(0.0, f32::max);
        println!("{m}x{k}x{n}: own {:.1} gemm {:.1} GFLOP/s, pack share {:.2}, diff {e:.1e}", flops / best / 1e9, flops / bestg / 1e9, bestp / best);
    }
}
