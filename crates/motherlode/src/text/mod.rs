//! Text as the stages see it: normalisation and twins, languages, words for BM25, tokens for encoders.

pub mod analyse;
pub mod fasttext;
pub mod language;
pub mod near;
pub mod normalise;
pub mod prompts;
pub mod tokenize;
pub mod twins;
