//! The learning rate of every step: linear warm-up, then decay to 0 in a straight line or along a cosine.

use serde::{Deserialize, Serialize};

/// How long the rate rises.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a share of all steps such as 0.1, or { steps = 100 }")]
pub enum Warmup {
    /// A share of all steps, from 0 to 1.
    Share(f64),
    /// A number of steps.
    Steps {
        /// The number.
        steps: u64,
    },
}

impl Warmup {
    /// The number of warm-up steps of `total` steps; a share is rounded up.
    pub fn steps(self, total: u64) -> u64 {
        match self {
            Self::Share(share) => ((share * total as f64).ceil() as u64).min(total),
            Self::Steps { steps } => steps.min(total),
        }
    }
}

/// The rates of a training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    peak: f32,
    warmup: u64,
    total: u64,
    decay: Decay,
}

/// How the rate falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decay {
    /// In a straight line.
    Linear,
    /// As (1 + cos πx) / 2 does from x = 0 to 1.
    Cosine,
}

impl Schedule {
    /// Rises to `peak` during the warm-up and falls to 0 after `total` steps.
    pub fn new(peak: f32, warmup: Warmup, total: u64) -> Self {
        Self { peak, warmup: warmup.steps(total), total, decay: Decay::Linear }
    }

    /// The same, falling in another way.
    #[must_use]
    pub fn falling(self, decay: Decay) -> Self {
        Self { decay, ..self }
    }

    /// The rate of `step`, counted from 0.
    ///
    /// The last warm-up step and the first one after it have the peak rate, and the rate would be 0 at step `total`,
    /// so that no step is lost to a rate of 0.
    pub fn rate(&self, step: u64) -> f32 {
        let share = if step < self.warmup {
            (step + 1) as f64 / self.warmup as f64
        } else {
            let left = self.total.saturating_sub(step) as f64 / (self.total - self.warmup).max(1) as f64;
            match self.decay {
                Decay::Linear => left,
                Decay::Cosine => f64::midpoint(1.0, (std::f64::consts::PI * (1.0 - left)).cos()),
            }
        };
        (f64::from(self.peak) * share) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_rate_rises_and_falls_in_straight_lines() {
        let schedule = Schedule::new(1.0, Warmup::Share(0.2), 10);
        let rates: Vec<f32> = (0..11).map(|step| schedule.rate(step)).collect();
        assert_eq!(rates, [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0]);
    }

    /// Golden: transformers 4.57, `get_cosine_schedule_with_warmup(optimizer, 0, 4)` from a rate of 1, steps 0 to 4.
    #[test]
    fn a_cosine_falls_as_in_transformers() {
        let schedule = Schedule::new(1.0, Warmup::Share(0.0), 4).falling(Decay::Cosine);
        for (step, expected) in [1.0, 0.853_553_4, 0.5, 0.146_446_6, 0.0].into_iter().enumerate() {
            assert!((schedule.rate(step as u64) - expected).abs() < 1e-6, "{step}");
        }
    }

    #[test]
    fn no_warmup_begins_at_the_peak_and_a_long_one_never_falls() {
        assert!((Schedule::new(2.0, Warmup::Share(0.0), 4).rate(0) - 2.0).abs() < f32::EPSILON);
        let rising = Schedule::new(2.0, Warmup::Steps { steps: 100 }, 4);
        assert!((rising.rate(3) - 2.0).abs() < f32::EPSILON);
    }

    #[test]
    fn a_warmup_is_a_share_or_steps() {
        #[derive(Deserialize)]
        struct Holder {
            warmup: Warmup,
        }
        let parse = |text: &str| toml::from_str::<Holder>(text).map(|holder| holder.warmup);
        assert_eq!(parse("warmup = 0.1").unwrap(), Warmup::Share(0.1));
        assert_eq!(parse("warmup = 0").unwrap(), Warmup::Share(0.0));
        assert_eq!(parse("warmup = { steps = 7 }").unwrap(), Warmup::Steps { steps: 7 });
        assert!(parse("warmup = 'long'").unwrap_err().to_string().contains("expected a share of all steps"));
    }

    proptest! {
        #[test]
        fn every_rate_lies_between_nothing_and_the_peak(total in 1_u64..500, share in 0.0..=1.0, step in 0_u64..500) {
            for decay in [Decay::Linear, Decay::Cosine] {
                let rate = Schedule::new(3e-5, Warmup::Share(share), total).falling(decay).rate(step % total);
                prop_assert!(rate > 0.0 && rate <= 3e-5);
            }
        }
    }
}
