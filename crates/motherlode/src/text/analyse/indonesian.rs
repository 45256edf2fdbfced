//! Indonesian: the stemmer of Tala.
//!
//! Source: Fadillah Z. Tala, A Study of Stemming Effects on Information Retrieval in Bahasa Indonesia, as in Lucene's
//! `IndonesianStemmer` with derivational stemming.

use super::suffix::{ends_with, starts_with, strip};

/// A prefix that was taken off and forbids some suffixes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Prefix {
    Ber,
    Di,
    Ke,
    Meng,
    Pe,
    Peng,
    Per,
    Ter,
}

/// A prefix of the first order: how it is written, which letter behind it must be a vowel, what it is, how many letters
/// are taken off, and which letter then stands first in the place of the one that is there.
struct First(&'static str, Option<usize>, Prefix, usize, Option<char>);

/// The first that fits is taken off.
const FIRST: [First; 14] = [
    First("meng", None, Prefix::Meng, 4, None),
    First("meny", Some(4), Prefix::Meng, 3, Some('s')),
    First("men", None, Prefix::Meng, 3, None),
    First("mem", None, Prefix::Meng, 3, None),
    First("me", None, Prefix::Meng, 2, None),
    First("peng", None, Prefix::Peng, 4, None),
    First("peny", Some(4), Prefix::Peng, 3, Some('s')),
    First("peny", None, Prefix::Peng, 4, None),
    First("pen", Some(3), Prefix::Peng, 2, Some('t')),
    First("pen", None, Prefix::Peng, 3, None),
    First("pem", None, Prefix::Peng, 3, None),
    First("di", None, Prefix::Di, 2, None),
    First("ter", None, Prefix::Ter, 3, None),
    First("ke", None, Prefix::Ke, 2, None),
];

struct Word<'a> {
    term: &'a mut Vec<char>,
    syllables: usize,
    removed: Vec<Prefix>,
}

/// The stem: particle, possessive, prefixes and suffix off, as long as more than two syllables are left.
pub(super) fn stem(term: &mut Vec<char>) {
    let syllables = term.iter().filter(|letter| is_vowel(**letter)).count();
    let mut word = Word { term, syllables, removed: Vec::new() };
    word.strip_one_of(&["kah", "lah", "pun"]);
    word.strip_one_of(&["ku", "mu", "nya"]);
    if word.first_prefix() {
        if word.suffix() {
            word.second_prefix();
        }
    } else {
        word.second_prefix();
        word.suffix();
    }
}

fn is_vowel(letter: char) -> bool {
    matches!(letter, 'a' | 'e' | 'i' | 'o' | 'u')
}

impl Word<'_> {
    fn is_long(&self) -> bool {
        self.syllables > 2
    }

    fn strip_one_of(&mut self, suffixes: &[&str]) {
        let found = suffixes.iter().find(|suffix| ends_with(self.term, suffix));
        if let Some(suffix) = found.filter(|_| self.is_long()) {
            self.syllables -= 1;
            strip(self.term, suffix.len());
        }
    }

    /// Takes `length` letters off the front; `initial` then takes the place of the first that is left.
    fn take(&mut self, prefix: Prefix, length: usize, initial: Option<char>) -> bool {
        self.term.drain(..length);
        if let (Some(letter), Some(first)) = (initial, self.term.first_mut()) {
            *first = letter;
        }
        self.syllables -= 1;
        self.removed.push(prefix);
        true
    }

    fn first_prefix(&mut self) -> bool {
        let fits = |First(prefix, vowel, ..): &&First| {
            let is_vowel_at = |place: usize| self.term.get(place).copied().is_some_and(is_vowel);
            starts_with(self.term, prefix) && vowel.is_none_or(is_vowel_at)
        };
        match FIRST.iter().find(fits) {
            Some(First(_, _, prefix, length, initial)) if self.is_long() => self.take(*prefix, *length, *initial),
            _ => false,
        }
    }

    fn second_prefix(&mut self) {
        if !self.is_long() {
            return;
        }
        match self.term[..] {
            ['b', 'e', 'r', ..] | ['b', 'e', 'l', 'a', 'j', 'a', 'r'] => self.take(Prefix::Ber, 3, None),
            ['b', 'e', letter, 'e', 'r', ..] if !is_vowel(letter) => self.take(Prefix::Ber, 2, None),
            ['p', 'e', 'r', ..] | ['p', 'e', 'l', 'a', 'j', 'a', 'r'] => self.take(Prefix::Per, 3, None),
            ['p', 'e', ..] => self.take(Prefix::Pe, 2, None),
            _ => false,
        };
    }

    fn suffix(&mut self) -> bool {
        let without = |prefixes: &[Prefix]| !prefixes.iter().any(|prefix| self.removed.contains(prefix));
        let ends = |suffix| ends_with(self.term, suffix);
        let length = if ends("kan") && without(&[Prefix::Ke, Prefix::Peng, Prefix::Pe]) {
            3
        } else if ends("an") && without(&[Prefix::Di, Prefix::Meng, Prefix::Ter]) {
            2
        } else {
            usize::from(ends("i") && !ends("si") && without(&[Prefix::Ber, Prefix::Ke, Prefix::Peng]))
        };
        if length == 0 || !self.is_long() {
            return false;
        }
        strip(self.term, length);
        self.syllables -= 1;
        true
    }
}
