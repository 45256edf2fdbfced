//! Several cards side by side: each takes a share of every batch's sequences.
//!
//! The vectors of all sequences come together in the library, whose loss sees the whole batch, whichever card a sequence
//! was on. Before a step the cards' gradients are added up on each of them, so that all move their weights alike. An
//! encoder that computes on one card is that card's own.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::{io, thread};

use motherlode::engine::{Embeddings, Encoder, Footprint, LoadOptions, TokenBatch, Trainable, Training};
use motherlode::{Error, Result};

use super::kernels::Element;
use super::memory::{Backend, Links};
use super::plan::CardPlan;
use super::trainable::{CardEncoder, CardTrainable};
use crate::config::ModelFolder;
use crate::shape::Shape;

/// An encoder on each of several cards, in training or not.
#[derive(Debug)]
struct Several<T> {
    cards: Vec<T>,
}

/// Reads an encoder onto the cards.
///
/// # Errors
/// As those of [`CardEncoder::open`].
pub(crate) fn encoder<A: Element>(
    cards: &[Arc<dyn Backend>],
    folder: &ModelFolder,
    options: &LoadOptions,
) -> Result<Box<dyn Encoder>> {
    let mut opened = on_each(cards, |card| CardEncoder::<A>::open(card, folder, options))?;
    Ok(if opened.len() == 1 { Box::new(opened.remove(0)) } else { Box::new(Several { cards: opened }) })
}

/// Reads an encoder for training onto the cards, and connects them.
///
/// # Errors
/// As those of [`CardTrainable::open`]; several cards that cannot be connected.
pub(crate) fn trainable<A: Element>(
    cards: &[Arc<dyn Backend>],
    folder: &ModelFolder,
    options: &LoadOptions,
) -> Result<Box<dyn Trainable>> {
    if let [card] = cards {
        return Ok(Box::new(CardTrainable::<A>::open(card, folder, options)?));
    }
    let numbers: Vec<usize> = cards.iter().map(|card| card.number()).collect();
    let links = cards[0].connect(&numbers)?;
    let cards = on_each(cards, |card| CardTrainable::<A>::open(card, folder, options))?;
    Ok(Box::new(SeveralTrainable { several: Several { cards }, links }))
}

/// What encoding takes on the card that has the least room.
///
/// # Errors
/// It does not fit.
pub(crate) fn encoding_footprint(
    cards: &[Arc<dyn Backend>],
    shape: &Shape,
    options: &LoadOptions,
    longest: usize,
) -> Result<Footprint> {
    greatest(cards, |card, _| CardPlan::new(shape, options, card.free_memory()?).encoding(longest))
}

/// What training takes on the card whose share takes most, of a step of sequences of `lengths` tokens.
///
/// # Errors
/// It does not fit.
pub(crate) fn training_footprint(
    cards: &[Arc<dyn Backend>],
    shape: &Shape,
    options: &LoadOptions,
    lengths: &[usize],
) -> Result<Footprint> {
    let shares = shares(lengths, cards.len());
    greatest(cards, |card, index| {
        CardPlan::new(shape, options, card.free_memory()?).training(&lengths[shares[index].clone()])
    })
}

fn greatest(
    cards: &[Arc<dyn Backend>],
    of: impl Fn(&Arc<dyn Backend>, usize) -> Result<Footprint>,
) -> Result<Footprint> {
    let footprints = cards.iter().enumerate().map(|(index, card)| of(card, index)).collect::<Result<Vec<_>>>()?;
    Ok(footprints.into_iter().max_by_key(Footprint::total).expect("one card at least"))
}

/// Cuts sequences of these lengths, in their order, into as many shares of nearly as many tokens.
fn shares(lengths: &[usize], count: usize) -> Vec<Range<usize>> {
    let total: usize = lengths.iter().sum();
    let (mut shares, mut end, mut tokens) = (Vec::with_capacity(count), 0, 0);
    for share in 1..=count {
        let start = end;
        // A sequence belongs to the share in which its middle token lies.
        while end < lengths.len() && (share == count || (2 * tokens + lengths[end]) * count < 2 * total * share) {
            tokens += lengths[end];
            end += 1;
        }
        shares.push(start..end);
    }
    shares
}

/// Does `work` with each item on a thread of its own; results come in the order of the items.
fn on_each<I: Send, R: Send>(
    items: impl IntoIterator<Item = I>,
    work: impl Fn(I) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = items.into_iter().map(|item| scope.spawn(move || work(item))).collect();
        threads.into_iter().map(|thread| thread.join().expect("work does not panic")).collect()
    })
}

/// The vectors of `batch`, of which each card makes those of its share.
fn vectors<I: Send>(
    cards: impl IntoIterator<Item = I>,
    batch: &TokenBatch,
    shares: Vec<Range<usize>>,
    dimension: usize,
    make: impl Fn(I, &TokenBatch) -> Result<Embeddings> + Sync,
) -> Result<Embeddings> {
    let parts = on_each(cards.into_iter().zip(shares), |(card, share)| make(card, &batch.slice(share)))?;
    Embeddings::new(dimension, parts.iter().flat_map(Embeddings::values).copied().collect())
}

impl<T: Encoder> Encoder for Several<T> {
    fn dimension(&self) -> usize {
        self.cards[0].dimension()
    }

    fn encode(&self, batch: &TokenBatch) -> Result<Embeddings> {
        let shares = shares(&batch.lengths(), self.cards.len());
        vectors(&self.cards, batch, shares, self.dimension(), T::encode)
    }
}

/// An encoder in training on several cards.
#[derive(Debug)]
struct SeveralTrainable<A> {
    several: Several<CardTrainable<A>>,
    links: Box<dyn Links>,
}

impl<A: Element> SeveralTrainable<A> {
    fn cards(&mut self) -> &mut Vec<CardTrainable<A>> {
        &mut self.several.cards
    }
}

impl<A: Element> Encoder for SeveralTrainable<A> {
    fn dimension(&self) -> usize {
        self.several.dimension()
    }

    fn encode(&self, batch: &TokenBatch) -> Result<Embeddings> {
        self.several.encode(batch)
    }
}

impl<A: Element> Trainable for SeveralTrainable<A> {
    fn forward(&mut self, batch: &TokenBatch, step: u64) -> Result<Embeddings> {
        let (shares, dimension) = (shares(&batch.lengths(), self.cards().len()), self.dimension());
        vectors(self.cards(), batch, shares, dimension, |card, part| card.forward(part, step))
    }

    fn backward(&mut self, batch: &TokenBatch, gradient: &Embeddings, step: u64) -> Result<()> {
        let shares = shares(&batch.lengths(), self.cards().len());
        on_each(self.cards().iter_mut().zip(shares), |(card, share)| {
            card.backward(&batch.slice(share.clone()), &gradient.slice(share), step)
        })?;
        Ok(())
    }
}

impl<A: Element> Training for SeveralTrainable<A> {
    fn gradient_norm(&mut self) -> Result<f32> {
        CardTrainable::share_gradients(&mut self.several.cards, &*self.links)?;
        let norms = on_each(self.cards(), Training::gradient_norm)?;
        if norms.iter().any(|norm| norm.to_bits() != norms[0].to_bits()) {
            let message = format!("graphics cards: expected the same gradient on all cards, got norms {norms:?}");
            return Err(Error::data(message));
        }
        Ok(norms[0])
    }

    fn apply(&mut self, rate: f32, norm: f32) -> Result<()> {
        on_each(self.cards(), |card| card.apply(rate, norm)).map(|_| ())
    }

    fn write_state(&self, output: &mut dyn io::Write) -> Result<()> {
        self.several.cards[0].write_state(output)
    }

    fn restore(&mut self, input: &mut dyn io::Read) -> Result<()> {
        let (first, others) = self.cards().split_first_mut().expect("one card at least");
        first.restore(input)?;
        others.iter_mut().try_for_each(|other| other.copy_state(first))
    }

    fn save(&self, folder: &Path) -> Result<()> {
        self.several.cards[0].save(folder)
    }
}

#[cfg(test)]
mod tests;
