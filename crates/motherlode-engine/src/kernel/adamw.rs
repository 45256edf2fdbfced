//! One `AdamW` step over a stretch of parameters.

/// What is the same for all parameters of a step.
///
/// Source: Loshchilov and Hutter, "Decoupled weight decay regularization" (2019); the order of operations is that of
/// PyTorch's `AdamW`.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// β₁.
    pub beta1: f32,
    /// β₂.
    pub beta2: f32,
    /// ε.
    pub epsilon: f32,
    /// Learning rate / (1 − β₁ᵗ).
    pub rate: f32,
    /// √(1 − β₂ᵗ).
    pub correction: f32,
    /// What weights that decay are multiplied by first, 1 − learning rate × weight decay.
    pub decay: f32,
    /// What gradients are multiplied by first, for clipping.
    pub clip: f32,
}

/// The state of a stretch of parameters.
#[derive(Debug)]
pub struct Stretch<'a> {
    /// The parameters.
    pub weights: &'a mut [f32],
    /// First moments.
    pub first: &'a mut [f32],
    /// Second moments.
    pub second: &'a mut [f32],
}

vectorised! {
    /// Moves `stretch` by the accumulated `gradient`, which is cleared; `decays` switches weight decay on.
    pub fn apply<'a>(step: &'a Step, stretch: Stretch<'a>, gradient: &'a mut [f32], decays: bool) {
        let decay = if decays { step.decay } else { 1.0 };
        let moments = stretch.first.iter_mut().zip(stretch.second);
        for ((weight, (first, second)), gradient) in stretch.weights.iter_mut().zip(moments).zip(gradient) {
            *weight = step.moved(*weight * decay, first, second, *gradient * step.clip);
            *gradient = 0.0;
        }
    }
}

vectorised! {
    /// As [`apply`] with a gradient of zeros, for weights that decay.
    pub fn apply_zero<'a>(step: &'a Step, stretch: Stretch<'a>) {
        let moments = stretch.first.iter_mut().zip(stretch.second);
        for (weight, (first, second)) in stretch.weights.iter_mut().zip(moments) {
            *weight = step.moved(*weight * step.decay, first, second, 0.0);
        }
    }
}

/// As [`apply_zero`] where both moments are zero.
pub fn apply_decay(step: &Step, weights: &mut [f32]) {
    weights.iter_mut().for_each(|weight| *weight *= step.decay);
}

impl Step {
    #[inline(always)]
    fn moved(&self, weight: f32, first: &mut f32, second: &mut f32, gradient: f32) -> f32 {
        *first += (1.0 - self.beta1) * (gradient - *first);
        *second = *second * self.beta2 + (1.0 - self.beta2) * gradient * gradient;
        weight - self.rate * (*first / (second.sqrt() / self.correction + self.epsilon))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::{assert_close, noise};

    fn step(number: i32) -> Step {
        let (beta1, beta2, rate) = (0.9_f32, 0.999_f32, 0.01);
        Step {
            beta1,
            beta2,
            epsilon: 1e-8,
            rate: rate / (1.0 - beta1.powi(number)),
            correction: (1.0 - beta2.powi(number)).sqrt(),
            decay: 1.0 - rate * 0.1,
            clip: 0.5,
        }
    }

    #[test]
    fn three_steps_agree_with_the_definition_in_double_precision() {
        let start = noise(1, 40);
        let (mut weights, mut first, mut second) = (start.clone(), vec![0.0; 40], vec![0.0; 40]);
        for number in 1..=3 {
            let stretch = Stretch { weights: &mut weights, first: &mut first, second: &mut second };
            let mut gradient = noise(10 + number as u64, 40);
            apply(&step(number), stretch, &mut gradient, true);
            assert!(gradient.iter().all(|value| *value == 0.0));
        }
        for (index, weight) in weights.iter().enumerate() {
            let (mut plain, mut m, mut v) = (f64::from(start[index]), 0.0_f64, 0.0_f64);
            for number in 1..=3 {
                let gradient = f64::from(noise(10 + number as u64, 40)[index]) * 0.5;
                m = 0.9 * m + 0.1 * gradient;
                v = 0.999 * v + 0.001 * gradient * gradient;
                let (m, v) = (m / (1.0 - 0.9_f64.powi(number)), v / (1.0 - 0.999_f64.powi(number)));
                plain = plain * (1.0 - 0.01 * 0.1) - 0.01 * m / (v.sqrt() + 1e-8);
            }
            assert!((f64::from(*weight) - plain).abs() < 1e-6);
        }
    }

    #[test]
    fn the_short_ways_for_zero_gradients_are_exact() {
        let (weights, moments) = (noise(1, 40), noise(2, 40).iter().map(|m| m * m).collect::<Vec<_>>());
        let run = |start: &[f32], way: &dyn Fn(Stretch)| {
            let (mut weights, mut first, mut second) = (weights.clone(), start.to_vec(), start.to_vec());
            way(Stretch { weights: &mut weights, first: &mut first, second: &mut second });
            [weights, first, second].concat()
        };
        let dense = |stretch: Stretch| apply(&step(3), stretch, &mut [0.0; 40], true);
        assert_close(&run(&moments, &dense), &run(&moments, &|stretch| apply_zero(&step(3), stretch)), 0.0);
        let decayed = run(&[0.0; 40], &|stretch| apply_decay(&step(3), stretch.weights));
        assert_close(&run(&[0.0; 40], &dense), &decayed, 0.0);
    }
}
