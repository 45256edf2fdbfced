//! What was spent, and the limits that nothing may pass.

use std::sync::{Mutex, MutexGuard};

use super::config::LlmConfig;
use super::request::{Answer, Request, estimate_tokens};

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
    /// Tokens of its answers.
    pub completion_tokens: u64,
    /// Price of both, in the currency of the configuration.
    pub cost: f64,
}

/// Counts what is spent and what is promised to requests in flight, over all threads.
pub(super) struct Meter {
    config: LlmConfig,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    usage: Usage,
    promised: Tokens,
    calls_in_flight: u64,
    is_spent: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tokens {
    prompt: u64,
    completion: u64,
}

/// Budget set aside for one request; give it back with [`Meter::settle`].
#[must_use]
pub(super) struct Reservation(Tokens);

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
        let prompt = request.messages.iter().map(|message| estimate_tokens(&message.content)).sum();
        let tokens = Tokens { prompt, completion: u64::from(request.parameters.max_tokens) };
        if state.is_spent || self.would_pass(&state, tokens) {
            state.is_spent = true;
            state.usage.unanswered += 1;
            return None;
        }
        state.calls_in_flight += 1;
        state.promised.prompt += tokens.prompt;
        state.promised.completion += tokens.completion;
        Some(Reservation(tokens))
    }

    /// Replaces a promise by what was really used: nothing where no answer came.
    pub(super) fn settle(&self, reservation: &Reservation, answer: Option<&Answer>) {
        let mut state = self.state();
        state.calls_in_flight -= 1;
        state.promised.prompt -= reservation.0.prompt;
        state.promised.completion -= reservation.0.completion;
        let Some(answer) = answer else { return };
        state.usage.calls += 1;
        state.usage.prompt_tokens += answer.prompt_tokens;
        state.usage.completion_tokens += answer.completion_tokens;
        state.usage.cost += self.config.cost(answer.prompt_tokens, answer.completion_tokens);
    }

    pub(super) fn retried(&self) {
        self.state().usage.retries += 1;
    }

    pub(super) fn hit(&self, count: usize) {
        self.state().usage.ledger_hits += count as u64;
    }

    fn would_pass(&self, state: &State, next: Tokens) -> bool {
        let calls = state.usage.calls + state.calls_in_flight + 1;
        let prompt = state.usage.prompt_tokens + state.promised.prompt + next.prompt;
        let completion = state.usage.completion_tokens + state.promised.completion + next.completion;
        self.config.max_calls.is_some_and(|limit| calls > limit)
            || self.config.max_tokens.is_some_and(|limit| prompt + completion > limit)
            || self.config.max_cost.is_some_and(|limit| self.config.cost(prompt, completion) > limit)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it counts")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::{Message, Parameters};

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
        let config = LlmConfig { max_cost: Some(0.5), completion_price: 1e6, ..LlmConfig::default() };
        assert!(Meter::new(&config).reserve(&request(1)).is_none(), "ten tokens at 1 each");
    }
}
