//! An instruction as the model reads it: a chat of one question and one answer, of which the answer is learnt.

use rayon::prelude::*;

use super::{Dropped, Instruction, Reason};
use crate::engine::TokenBatch;
use crate::error::Result;
use crate::llm::Message;
use crate::llm::chat::Chat;

/// An instruction in tokens.
#[derive(Debug, Clone)]
pub(super) struct Lesson {
    pub(super) instruction: Instruction,
    /// The tokens up to the answer.
    pub(super) prompt: Vec<u32>,
    /// Those of the answer, with the one that ends it.
    pub(super) answer: Vec<u32>,
}

impl Lesson {
    /// Number of tokens.
    pub(super) fn len(&self) -> usize {
        self.prompt.len() + self.answer.len()
    }
}

/// Turns instructions into tokens; those with more than `max_tokens` are dropped.
///
/// *Order*: as given.
///
/// # Errors
/// A chat template that has no place for a question and an answer.
pub(super) fn lessons(all: Vec<Instruction>, chat: &Chat, max_tokens: usize) -> Result<(Vec<Lesson>, Vec<Dropped>)> {
    let lesson = |instruction: Instruction| {
        let (prompt, answer) = exchange(&instruction, chat)?;
        Ok(Lesson { instruction, prompt, answer })
    };
    let all = all.into_par_iter().map(lesson).collect::<Result<Vec<_>>>()?;
    let (kept, long): (Vec<_>, Vec<_>) = all.into_iter().partition(|lesson| lesson.len() <= max_tokens);
    Ok((kept, long.iter().map(|lesson| lesson.instruction.dropped(Reason::TooLong)).collect()))
}

/// The tokens before the answer, and the answer's.
pub(super) fn exchange(it: &Instruction, chat: &Chat) -> Result<(Vec<u32>, Vec<u32>)> {
    let question =
        if it.input.is_empty() { it.instruction.clone() } else { format!("{}\n\n{}", it.instruction, it.input) };
    chat.exchange(&[Message::user(question)], &it.output)
}

/// Lessons laid end to end, and which of the tokens are to be predicted: those of the answers.
pub(super) fn pack<'a>(lessons: impl Iterator<Item = &'a Lesson>) -> (TokenBatch, Vec<bool>) {
    let (mut batch, mut predicted) = (TokenBatch::default(), Vec::new());
    for Lesson { prompt, answer, .. } in lessons {
        batch.push(&[prompt.as_slice(), answer].concat());
        predicted.extend(std::iter::repeat_n(false, prompt.len()));
        predicted.extend(std::iter::repeat_n(true, answer.len()));
    }
    (batch, predicted)
}
