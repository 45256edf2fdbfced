//! What the tests of the kernels share.

use rand::RngExt;

/// `count` numbers between -1 and 1, the same for the same seed.
pub(crate) fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut random = motherlode::random::keyed(seed, "noise", "");
    (0..count).map(|_| random.random_range(-1.0..1.0)).collect()
}

/// Checks `gradient` against the central difference of `loss` at every element of `at`.
pub(crate) fn assert_slope(at: &[f32], gradient: &[f32], loss: impl Fn(&[f32]) -> f64) {
    const STEP: f32 = 1e-2;
    assert_eq!(at.len(), gradient.len());
    let scale = gradient.iter().fold(0.1_f32, |scale, value| scale.max(value.abs()));
    for (index, gradient) in gradient.iter().enumerate() {
        let moved = |by: f32| {
            let mut values = at.to_vec();
            values[index] += by;
            loss(&values)
        };
        let slope = (moved(STEP) - moved(-STEP)) as f32 / (2.0 * STEP);
        assert!((slope - gradient).abs() < 3e-3 * scale, "element {index}: gradient {gradient}, slope {slope}");
    }
}

/// Checks that two lists of numbers differ by at most `tolerance`.
pub(crate) fn assert_close(left: &[f32], right: &[f32], tolerance: f32) {
    assert_eq!(left.len(), right.len());
    for (index, (left, right)) in left.iter().zip(right).enumerate() {
        assert!((left - right).abs() <= tolerance, "element {index}: {left} and {right}");
    }
}
