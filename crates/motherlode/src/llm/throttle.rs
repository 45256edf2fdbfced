//! How fast to ask: requests in flight, which adapts to the server, and requests and tokens a minute, which do not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::config::LlmConfig;

/// What is left of the limit when a server is found busy.
const CUT: f64 = 0.7;
/// What of a minute's allowance may be used at once.
const BURST_SECONDS: f64 = 3.0;
/// How often a thread that waits looks whether it should stop.
const GLANCE: Duration = Duration::from_millis(50);

/// What one sending says of how the server bears the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// It answered.
    Well,
    /// It said that it is busy, or answered too late.
    Busy,
    /// It failed, which says nothing of the load.
    Broken,
}

/// Requests in flight at one server: additive increase, multiplicative decrease.
///
/// It begins with all that is allowed, falls to seven tenths when the server is busy (429, 503, 529, a time-out, or an
/// answer that took more than half of the time-out), at most once in the time of an answer, and grows by one for every
/// round of good answers.
pub(super) struct Throttle {
    most: f64,
    slow: Duration,
    state: Mutex<State>,
    freed: Condvar,
}

struct State {
    limit: f64,
    in_flight: usize,
    /// Answers that were on their way when the limit fell say nothing new before this moment.
    deaf_until: Option<Instant>,
}

impl Throttle {
    /// `most` requests at once; `timeout` is the longest time of one.
    pub(super) fn new(most: usize, timeout: Duration) -> Self {
        let most = most.max(1) as f64;
        let state = State { limit: most, in_flight: 0, deaf_until: None };
        Self { most, slow: timeout / 2, state: Mutex::new(state), freed: Condvar::new() }
    }

    /// Waits for a place; false if `stop` was set meanwhile. Whoever gets true must call [`leave`](Self::leave).
    pub(super) fn enter(&self, stop: &AtomicBool) -> bool {
        let mut state = self.state();
        while state.in_flight >= state.limit as usize {
            if stop.load(Ordering::Relaxed) {
                return false;
            }
            state = self.freed.wait_timeout(state, GLANCE).expect(NO_PANIC).0;
        }
        state.in_flight += 1;
        true
    }

    /// Gives the place back and learns from what the sending came to.
    pub(super) fn leave(&self, sign: Sign, took: Duration, now: Instant) {
        let mut state = self.state();
        state.in_flight -= 1;
        match sign {
            Sign::Well if took <= self.slow => state.limit = (state.limit + 1.0 / state.limit).min(self.most),
            Sign::Well | Sign::Busy if state.deaf_until.is_none_or(|until| now >= until) => {
                state.limit = (state.limit * CUT).max(1.0);
                state.deaf_until = Some(now + took.max(GLANCE));
            }
            Sign::Well | Sign::Busy | Sign::Broken => {}
        }
        drop(state);
        self.freed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(NO_PANIC)
    }
}

const NO_PANIC: &str = "nothing panics while it holds the lock";

/// Requests and tokens a minute, over all servers.
pub(super) struct Pace {
    buckets: Mutex<[Option<Bucket>; 2]>,
}

impl Pace {
    pub(super) fn new(config: &LlmConfig, now: Instant) -> Self {
        let limits = [config.requests_per_minute, config.tokens_per_minute];
        Self { buckets: Mutex::new(limits.map(|limit| limit.map(|limit| Bucket::new(limit, now)))) }
    }

    /// Takes one request of so many tokens out of the allowance; how long to wait before it may be sent.
    pub(super) fn take(&self, tokens: u64, now: Instant) -> Duration {
        let mut buckets = self.buckets.lock().expect(NO_PANIC);
        let waits = buckets.iter_mut().zip([1.0, tokens as f64]).filter_map(|(bucket, amount)| {
            let bucket = bucket.as_mut()?;
            Some(bucket.take(amount, now))
        });
        waits.max().unwrap_or_default()
    }

    /// Corrects the tokens taken beforehand by those really used.
    pub(super) fn correct(&self, taken: u64, used: u64) {
        if let Some(bucket) = &mut self.buckets.lock().expect(NO_PANIC)[1] {
            bucket.level += taken as f64 - used as f64;
        }
    }
}

/// An allowance that fills up steadily and may be overdrawn: whoever overdraws it waits until it is level again.
struct Bucket {
    per_second: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    fn new(per_minute: u64, now: Instant) -> Self {
        let per_second = per_minute as f64 / 60.0;
        Self { per_second, level: per_second * BURST_SECONDS, at: now }
    }

    fn take(&mut self, amount: f64, now: Instant) -> Duration {
        let filled = self.level + self.per_second * now.saturating_duration_since(self.at).as_secs_f64();
        // One request may always go at once, however small the allowance is.
        self.level = filled.min((self.per_second * BURST_SECONDS).max(1.0)) - amount;
        self.at = now;
        Duration::from_secs_f64((-self.level / self.per_second).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static NEVER: AtomicBool = AtomicBool::new(false);

    fn limit(throttle: &Throttle) -> f64 {
        throttle.state().limit
    }

    fn one(throttle: &Throttle, sign: Sign, took: Duration, now: Instant) {
        assert!(throttle.enter(&NEVER));
        throttle.leave(sign, took, now);
    }

    #[test]
    fn a_busy_server_gets_fewer_and_a_good_one_more_again() {
        let (throttle, start) = (Throttle::new(10, Duration::from_secs(10)), Instant::now());
        let second = Duration::from_secs(1);
        one(&throttle, Sign::Busy, second, start);
        assert!((limit(&throttle) - 7.0).abs() < 1e-9);
        one(&throttle, Sign::Busy, second, start + second / 2);
        assert!((limit(&throttle) - 7.0).abs() < 1e-9, "the same wave counts once");
        one(&throttle, Sign::Broken, second, start + 2 * second);
        assert!((limit(&throttle) - 7.0).abs() < 1e-9);
        for _ in 0..100 {
            one(&throttle, Sign::Well, second, start + 2 * second);
        }
        assert!((limit(&throttle) - 10.0).abs() < 1e-9, "never above what is allowed");
        for round in 0..20 {
            one(&throttle, Sign::Busy, second, start + (10 + 2 * round) * second);
        }
        assert!((limit(&throttle) - 1.0).abs() < 1e-9, "one request is always allowed");
    }

    #[test]
    fn answers_that_come_near_the_time_out_lower_the_limit() {
        let (throttle, start) = (Throttle::new(10, Duration::from_secs(10)), Instant::now());
        one(&throttle, Sign::Well, Duration::from_secs(6), start);
        assert!((limit(&throttle) - 7.0).abs() < 1e-9);
    }

    #[test]
    fn who_waits_for_a_place_stops_when_told() {
        let throttle = Throttle::new(1, Duration::from_secs(1));
        assert!(throttle.enter(&NEVER) && !throttle.enter(&AtomicBool::new(true)));
    }

    #[test]
    fn an_allowance_is_kept_over_time() {
        let start = Instant::now();
        let config = LlmConfig { requests_per_minute: Some(120), ..LlmConfig::default() };
        let pace = Pace::new(&config, start);
        let waits: Vec<f64> = (0..10).map(|_| pace.take(0, start).as_secs_f64()).collect();
        assert!(waits[..6].iter().all(|wait| *wait < 1e-9), "three seconds' worth goes at once: {waits:?}");
        assert!((waits[6] - 0.5).abs() < 1e-9 && (waits[9] - 2.0).abs() < 1e-9, "{waits:?}");
        assert!(pace.take(0, start + Duration::from_mins(1)).is_zero());
    }

    #[test]
    fn tokens_are_corrected_by_what_was_used() {
        let start = Instant::now();
        let config = LlmConfig { tokens_per_minute: Some(6000), ..LlmConfig::default() };
        let pace = Pace::new(&config, start);
        assert!(pace.take(300, start).is_zero());
        assert!((pace.take(100, start).as_secs_f64() - 1.0).abs() < 1e-9);
        pace.correct(300, 150);
        assert!((pace.take(50, start).as_secs_f64()).abs() < 1e-9);
    }
}
