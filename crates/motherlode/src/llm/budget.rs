//! What was spent, and the limits that nothing may pass.

use std::sync::{Mutex, MutexGuard};

use super::config::LlmConfig;
use super::request::{Answer, Request};

/// The name under which an artefact keeps the [`Usage`] that it took.
pub const USAGE: &str = "usage";

/// What answers cost since the ledger was opened. It depends on what the ledger held before, so it belongs beside a
/// stage's result, never in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    /// Requests that a server answered.
    pub calls: u64,
    /// Requests that were sent again after a busy or broken server.
    pub retries: u64,
    /// Requests that the ledger answered.
    pub ledger_hits: u64,
    /// Requests left without an answer because the budget was reached.
    pub unanswered: u64,
    /// Tokens of the requests that a server answered.
    pub prompt_tokens: u64,
    /// How many of them the server had in its cache, as far as it says.
    #[serde(default)]
    pub cached_tokens: u64,
    /// Tokens of its answers.
    pub completion_tokens: u64,
    /// Price of both, in the currency of the configuration.
    pub cost: f64,
}

impl Usage {
    /// What was spent since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            calls: self.calls - before.calls,
            retries: self.retries - before.retries,
            ledger_hits: self.ledger_hits - before.ledger_hits,
            unanswered: self.unanswered - before.unanswered,
            prompt_tokens: self.prompt_tokens - before.prompt_tokens,
            cached_tokens: self.cached_tokens - before.cached_tokens,
            completion_tokens: self.completion_tokens - before.completion_tokens,
            cost: self.cost - before.cost,
        }
    }
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.retries += other.retries;
        self.ledger_hits += other.ledger_hits;
        self.unanswered += other.unanswered;
        self.prompt_tokens += other.prompt_tokens;
        self.cached_tokens += other.cached_tokens;
        self.completion_tokens += other.completion_tokens;
        self.cost += other.cost;
    }
}

/// Counts what is spent and what is promised to requests in flight, over all threads.
pub(super) struct Meter {
    config: LlmConfig,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    usage: Usage,
    promised: Promise,
    is_spent: bool,
}

/// What requests in flight may take at most.
#[derive(Debug, Clone, Copy, Default)]
struct Promise {
    calls: u64,
    tokens: u64,
    cost: f64,
}

/// Budget set aside for one request; give it back with [`Meter::settle`].
#[must_use]
pub(super) struct Reservation {
    model: String,
    tokens: u64,
    cost: f64,
}

impl Meter {
    pub(super) fn new(config: &LlmConfig) -> Self {
        Self { config: config.clone(), state: Mutex::default() }
    }

    pub(super) fn usage(&self) -> Usage {
        self.state().usage
    }

    /// Sets aside what the request may cost at most, or says no: then and for ever after, so that a stage ends at one
    /// place instead of picking the cheap requests out of the rest.
    pub(super) fn reserve(&self, request: &Request) -> Option<Reservation> {
        let mut state = self.state();
        let (prompt, completion) = (request.prompt_tokens(), u64::from(request.parameters.max_tokens));
        let reservation = Reservation {
            model: request.model.clone(),
            tokens: prompt + completion,
            cost: self.config.cost(&request.model, prompt, completion),
        };
        if state.is_spent || self.would_pass(&state, &reservation) {
            state.is_spent = true;
            state.usage.unanswered += 1;
            return None;
        }
        state.promised.calls += 1;
        state.promised.tokens += reservation.tokens;
        state.promised.cost += reservation.cost;
        Some(reservation)
    }

    /// Replaces a promise by what was really used: nothing where no answer came.
    pub(super) fn settle(&self, reservation: &Reservation, answer: Option<&Answer>) {
        let mut state = self.state();
        state.promised.calls -= 1;
        state.promised.tokens -= reservation.tokens;
        state.promised.cost -= reservation.cost;
        if state.promised.calls == 0 {
            // Whatever rounding left of the sum.
            state.promised.cost = 0.0;
        }
        let Some(answer) = answer else { return };
        state.usage.calls += 1;
        state.usage.prompt_tokens += answer.prompt_tokens;
        state.usage.completion_tokens += answer.completion_tokens;
        state.usage.cost += self.config.cost(&reservation.model, answer.prompt_tokens, answer.completion_tokens);
    }

    /// Takes off what prompt tokens of a settled request cost less because the server had them in its cache.
    pub(super) fn discount(&self, reservation: &Reservation, cached_tokens: u64) {
        let facts = self.config.facts(&reservation.model);
        let mut state = self.state();
        state.usage.cached_tokens += cached_tokens;
        state.usage.cost -= facts.cost(cached_tokens, 0, 0) - facts.cost(cached_tokens, cached_tokens, 0);
    }

    pub(super) fn retried(&self) {
        self.state().usage.retries += 1;
    }

    pub(super) fn hit(&self, count: usize) {
        self.state().usage.ledger_hits += count as u64;
    }

    fn would_pass(&self, state: &State, next: &Reservation) -> bool {
        let calls = state.usage.calls + state.promised.calls + 1;
        let tokens = state.usage.prompt_tokens + state.usage.completion_tokens + state.promised.tokens + next.tokens;
        let cost = state.usage.cost + state.promised.cost + next.cost;
        self.config.max_calls.is_some_and(|limit| calls > limit)
            || self.config.max_tokens.is_some_and(|limit| tokens > limit)
            || self.config.max_cost.is_some_and(|limit| cost > limit)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it counts")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::{Message, ModelFacts, Parameters};

    fn request(characters: usize) -> Request {
        Request {
            model: "m".into(),
            prompt: "p".into(),
            parameters: Parameters::greedy(10),
            attempt: 0,
            messages: vec![Message::user("x".repeat(characters))],
            about: String::new(),
        }
    }

    fn answer(prompt_tokens: u64, completion_tokens: u64) -> Answer {
        Answer { text: String::new(), prompt_tokens, completion_tokens }
    }

    #[test]
    fn promises_count_until_they_are_settled() {
        let meter = Meter::new(&LlmConfig { max_tokens: Some(100), ..LlmConfig::default() });
        let first = meter.reserve(&request(320)).expect("80 + 10 fit");
        meter.settle(&first, Some(&answer(70, 2)));
        let second = meter.reserve(&request(72)).expect("72 used, 18 + 10 fit exactly");
        assert!(meter.reserve(&request(4)).is_none(), "the promise is still open");
        meter.settle(&second, None);
        assert!(meter.reserve(&request(4)).is_none(), "once reached, it stays reached");
        let usage = meter.usage();
        assert_eq!((usage.calls, usage.prompt_tokens, usage.completion_tokens, usage.unanswered), (1, 70, 2, 2));
    }

    #[test]
    fn calls_and_cost_are_limits_too() {
        let calls = Meter::new(&LlmConfig { max_calls: Some(1), ..LlmConfig::default() });
        assert!(calls.reserve(&request(1)).is_some() && calls.reserve(&request(1)).is_none());
        let facts = ModelFacts {
            prompt_price: 1e6,
            cached_prompt_price: Some(0.0),
            completion_price: 1e6,
            ..ModelFacts::default()
        };
        let priced = |max_cost| LlmConfig {
            max_cost: Some(max_cost),
            models: [("m".to_owned(), facts)].into(),
            ..LlmConfig::default()
        };
        assert!(Meter::new(&priced(10.5)).reserve(&request(4)).is_none(), "one token and ten, at 1 each");
        let meter = Meter::new(&priced(11.5));
        let reservation = meter.reserve(&request(4)).expect("eleven fit");
        meter.settle(&reservation, Some(&answer(4, 3)));
        assert!((meter.usage().cost - 7.0).abs() < 1e-9);
        meter.discount(&reservation, 2);
        assert!((meter.usage().cost - 5.0).abs() < 1e-9, "half of the prompt was in the cache");
    }
}
