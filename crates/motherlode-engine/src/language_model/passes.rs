//! Continuing texts: prompts become waves, each of which one thread takes through the decoder.
//!
//! A wave computes what its prompts have in common once, then the rest of each, then all of its texts together token by
//! token, so that the weights are read from memory once for all of them.

use std::sync::Arc;

use motherlode::engine::{Choose, Next};
use motherlode::{Error, Result};
use rayon::prelude::*;

use super::Decoder;
use crate::block::{Kept, Scratch, norm_forward};
use crate::kernel::continued::{self, Continued, Memory};
use crate::kernel::matrix::{Packing, Start, View, ViewMut, multiply};
use crate::kernel::normalise::Normalised;
use crate::span::{Masks, Span};

/// Texts that are continued together, if there are enough for all threads.
const WAVE: usize = 16;
/// Tokens taken through the layers at a time: enough for the products to be faster than the memory.
const PASS: usize = 512;
/// A beginning that prompts share is worth keeping from this many tokens on.
const SHARED: usize = 16;

/// The keys and values, layer by layer, of the tokens that follow on `before`.
#[derive(Debug)]
struct Context {
    before: Option<Arc<Self>>,
    /// Tokens, those before included.
    length: usize,
    layers: Vec<Memory>,
}

/// A text on its way.
#[derive(Debug)]
struct Text {
    /// Which group, and which prompt of it.
    name: (usize, usize),
    context: Context,
    /// Tokens that were not taken through the layers yet.
    pending: Vec<u32>,
}

/// Working memory of one thread.
#[derive(Debug, Default)]
pub(super) struct Working {
    kept: Kept,
    scratch: Scratch,
    continued: continued::Scratch,
    hidden: Vec<f32>,
    last: Vec<f32>,
    normed: Vec<f32>,
    norm: Normalised,
    scores: Vec<f32>,
    packing: Packing,
}

/// Groups, or parts of them, that one thread takes.
struct Wave<'a> {
    /// Which group, its first prompt that is here, and those that are.
    groups: Vec<(usize, usize, &'a [Vec<u32>])>,
}

impl Context {
    fn new(before: Option<Arc<Self>>, layers: usize) -> Self {
        let length = before.as_ref().map_or(0, |before| before.length);
        Self { before, length, layers: vec![Memory::default(); layers] }
    }

    /// The memories of one layer, from the first token on.
    fn memories(&self, layer: usize) -> Vec<&Memory> {
        let mut memories = self.before.as_ref().map_or_else(Vec::new, |before| before.memories(layer));
        memories.push(&self.layers[layer]);
        memories
    }
}

/// See [`LanguageModel::continue_texts`](motherlode::engine::LanguageModel::continue_texts).
pub(super) fn run(decoder: &Decoder, groups: &[Vec<Vec<u32>>], choose: &Choose) -> Result<()> {
    let prompts: Vec<&Vec<u32>> = groups.iter().flatten().collect();
    prompts.iter().try_for_each(|prompt| check(decoder, prompt))?;
    if prompts.is_empty() {
        return Ok(());
    }
    let shared = shared(prompts.iter().map(|prompt| prompt.as_slice()), 0);
    let root = (shared > 0).then(|| {
        let mut working = take(decoder);
        let context = decoder.read(None, &prompts[0][..shared], &mut working);
        give(decoder, working);
        Arc::new(context)
    });
    waves(groups, prompts.len()).into_par_iter().try_for_each(|wave| {
        let mut working = take(decoder);
        let outcome = decoder.wave(&wave, root.as_ref(), choose, &mut working);
        give(decoder, working);
        outcome
    })
}

fn take(decoder: &Decoder) -> Working {
    decoder.memory.lock().expect("no thread panics while it holds the lock").pop().unwrap_or_default()
}

fn give(decoder: &Decoder, working: Working) {
    decoder.memory.lock().expect("no thread panics while it holds the lock").push(working);
}

fn check(decoder: &Decoder, tokens: &[u32]) -> Result<()> {
    let (longest, vocabulary) = (decoder.shape.longest, decoder.shape.vocabulary);
    if tokens.is_empty() || tokens.len() > longest {
        return Err(Error::shape("a prompt", format!("1 to {longest} tokens"), tokens.len()));
    }
    match tokens.iter().find(|token| **token as usize >= vocabulary) {
        Some(token) => Err(Error::shape("a prompt", format!("tokens below {vocabulary}"), token)),
        None => Ok(()),
    }
}

/// How many tokens all prompts share that are worth keeping, given that `known` of them are kept already.
///
/// Two tokens are left to each prompt: a pass of one would take the way of generated tokens.
fn shared<'a>(prompts: impl Iterator<Item = &'a [u32]> + Clone, known: usize) -> usize {
    let Some(first) = prompts.clone().next() else { return 0 };
    if prompts.clone().count() == 1 {
        return known;
    }
    let common = |other: &[u32]| first.iter().zip(other).take_while(|(left, right)| left == right).count();
    let shared = prompts.map(|prompt| common(prompt).min(prompt.len().saturating_sub(2))).min().unwrap_or(0);
    if shared >= known + SHARED { shared } else { known }
}

/// Groups, the larger ones in parts, in as many waves as keep all threads busy.
fn waves(groups: &[Vec<Vec<u32>>], prompts: usize) -> Vec<Wave<'_>> {
    let most = prompts.div_ceil(rayon::current_num_threads()).clamp(1, WAVE);
    let mut waves: Vec<Wave> = Vec::new();
    let mut count = most;
    for (group, prompts) in groups.iter().enumerate() {
        // A group is cut only if it alone is twice as much as a wave.
        let size = if prompts.len() >= 2 * most { most } else { prompts.len().max(1) };
        for (part, prompts) in prompts.chunks(size).enumerate() {
            if count + prompts.len() > most {
                waves.push(Wave { groups: Vec::new() });
                count = 0;
            }
            count += prompts.len();
            waves.last_mut().expect("the first group begins a wave").groups.push((group, part * size, prompts));
        }
    }
    waves
}

impl Decoder {
    /// The context of `tokens` behind `before`.
    fn read(&self, before: Option<&Arc<Context>>, tokens: &[u32], working: &mut Working) -> Context {
        let context = Context::new(before.cloned(), self.layers.len());
        let mut text = Text { name: (0, 0), context, pending: tokens.to_vec() };
        self.shorten(&mut text, working);
        self.pass(std::slice::from_mut(&mut text), working);
        text.context
    }

    /// Takes the beginning of what is pending through the layers until the rest fits into a pass; no single token is left.
    fn shorten(&self, text: &mut Text, working: &mut Working) {
        while text.pending.len() > PASS {
            let rest = text.pending.split_off(PASS.min(text.pending.len() - 2));
            self.pass(std::slice::from_mut(text), working);
            text.pending = rest;
        }
    }

    fn wave(&self, wave: &Wave, root: Option<&Arc<Context>>, choose: &Choose, working: &mut Working) -> Result<()> {
        let mut texts = Vec::new();
        for (group, first, prompts) in &wave.groups {
            let known = root.map_or(0, |root| root.length);
            let length = shared(prompts.iter().map(Vec::as_slice), known);
            let begin = if length > known {
                Some(Arc::new(self.read(root, &prompts[0][known..length], working)))
            } else {
                root.cloned()
            };
            texts.extend(prompts.iter().enumerate().map(|(index, prompt)| Text {
                name: (*group, first + index),
                context: Context::new(begin.clone(), self.layers.len()),
                pending: prompt[length..].to_vec(),
            }));
        }
        while !texts.is_empty() {
            self.read_all(&mut texts, working, |text, scores| {
                if let Next::Tokens(tokens) = choose(text.name.0, text.name.1, scores) {
                    text.pending = tokens;
                }
            });
            texts.retain(|text| !text.pending.is_empty());
            for text in &texts {
                let length = text.context.length + text.pending.len();
                if length > self.shape.longest {
                    return Err(Error::shape("a text", format!("at most {} tokens", self.shape.longest), length));
                }
            }
        }
        Ok(())
    }

    /// Takes the pending tokens of all texts through the layers, a pass at a time, and hands `done` the scores of what
    /// comes after each text.
    fn read_all(&self, texts: &mut [Text], working: &mut Working, mut done: impl FnMut(&mut Text, &[f32])) {
        let mut rest = texts;
        while !rest.is_empty() {
            let mut tokens = 0;
            let fitting = rest.iter().take_while(|text| {
                tokens += text.pending.len();
                tokens <= PASS
            });
            let count = fitting.count();
            if count == 0 {
                self.shorten(&mut rest[0], working);
                continue;
            }
            let (now, later) = rest.split_at_mut(count);
            self.pass(now, working);
            self.score(now.len(), working);
            for (text, scores) in now.iter_mut().zip(working.scores.chunks_exact(self.shape.vocabulary)) {
                text.pending.clear();
                done(text, scores);
            }
            rest = later;
        }
    }

    /// Takes the pending tokens of `texts` through the layers; `working.last` gets the vector of each text's last one.
    fn pass(&self, texts: &mut [Text], working: &mut Working) {
        let hidden = self.shape.hidden;
        let ids: Vec<u32> = texts.iter().flat_map(|text| text.pending.iter().copied()).collect();
        let mut sequences = Vec::new();
        for text in texts.iter() {
            let start = sequences.last().map_or(0, |before: &std::ops::Range<usize>| before.end);
            sequences.push(start..start + text.pending.len());
        }
        let starts = texts.iter().map(|text| text.context.length).collect();
        let Masks { activations: dropout, adapters: adapter_dropout } = Masks::OFF;
        let span = Span { ids: &ids, sequences, starts, first_token: 0, dropout, adapter_dropout };
        working.hidden.resize(ids.len() * hidden, 0.0);
        for (id, row) in ids.iter().zip(working.hidden.chunks_exact_mut(hidden)) {
            self.word(*id, row);
        }
        for layer in 0..self.layers.len() {
            self.layer(layer, &span, texts, working);
        }
        working.last.clear();
        for sequence in &span.sequences {
            working.last.extend_from_slice(&working.hidden[(sequence.end - 1) * hidden..sequence.end * hidden]);
        }
        texts.iter_mut().for_each(|text| text.context.length += text.pending.len());
    }

    fn layer(&self, layer: usize, span: &Span, texts: &mut [Text], working: &mut Working) {
        let Working { kept, scratch, continued, hidden, .. } = working;
        let attention =
            Continued { heads: self.shape.heads, groups: self.shape.groups, width: self.shape.width, unit: self.unit };
        let block = self.block(layer);
        block.attend(span, hidden, kept, scratch, |projected, context, _| {
            for (text, tokens) in texts.iter_mut().zip(&span.sequences) {
                attention.remember(projected, tokens.clone(), &mut text.context.layers[layer]);
                attention.forward(projected, tokens.clone(), &text.context.memories(layer), context, continued);
            }
        });
        block.feed_forward(span, kept, scratch, hidden);
    }

    /// Writes the scores of the next token of `texts` texts, whose vectors `working.last` has, to `working.scores`.
    fn score(&self, texts: usize, working: &mut Working) {
        let Working { last, normed, norm, scores, packing, .. } = working;
        norm_forward(last, self.shape.norm.affine(&self.final_norm, &[]), norm, normed);
        scores.resize(texts * self.shape.vocabulary, 0.0);
        let out = ViewMut::new(scores, self.shape.vocabulary);
        multiply(out, Start::Zero, View::new(normed, self.shape.hidden), &self.scores, packing);
    }
}
