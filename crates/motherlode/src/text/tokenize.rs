//! Texts to token ids: reads a model's `tokenizer.json`; padding and truncation settings in the file are ignored.
//!
//! Models that pool the last token need an end token there. Where `tokenizer_config.json` says `add_eos_token` and the
//! tokenizer itself does not put it, it is put here.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::Value;
use tokenizers::TruncationDirection;

use crate::engine::TokenBatch;
use crate::error::{Error, Result};
use crate::lines;

/// The file in a model's folder.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";

/// The tokenizer of one model.
#[derive(Debug)]
pub struct Tokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
    /// Tokens that every text is given.
    special: usize,
    /// What is put behind every text, besides what the tokenizer puts there itself.
    end: Option<u32>,
}

impl Tokenizer {
    /// Reads `tokenizer.json` of a model's folder.
    ///
    /// # Errors
    /// No such file, or one that is no tokenizer; an end token that is asked for and not known.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(TOKENIZER_FILE);
        let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes)
            .map_err(|error| Error::file(&path, format!("expected a Hugging Face tokenizer: {error}")))?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| Error::file(&path, error.to_string()))?;
        let special = inner.get_post_processor().map_or(0, |processor| {
            use tokenizers::PostProcessor;
            processor.added_tokens(false)
        });
        let mut tokenizer = Self { path, inner, special, end: None };
        if let Some(end) = tokenizer.wanted_end(&folder.join(CONFIG))?
            && tokenizer.encode_one("", special + 1)?.last() != Some(&end)
        {
            tokenizer.end = Some(end);
            tokenizer.special += 1;
        }
        Ok(tokenizer)
    }

    /// The end token, if the file at `path` says that it is to be added.
    fn wanted_end(&self, path: &Path) -> Result<Option<u32>> {
        if !path.exists() {
            return Ok(None);
        }
        let config = lines::json(path)?;
        if config["add_eos_token"] != Value::Bool(true) {
            return Ok(None);
        }
        let token = config["eos_token"].as_str().or(config["eos_token"]["content"].as_str());
        let id = token.and_then(|token| self.inner.token_to_id(token));
        id.map(Some).ok_or_else(|| {
            let found = token.map_or_else(|| "missing".to_owned(), |token| format!("`{token}`, which is no token"));
            Error::file(path, format!("expected the `eos_token` that `add_eos_token` asks for, got {found}"))
        })
    }

    /// Number of tokens, added ones included.
    pub fn vocabulary(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The tokens of every text with the model's special tokens, at most `max_tokens` of them, special ones included.
    ///
    /// Units: tokens; the end of a longer text is cut off. Order: as the texts. Works in parallel.
    ///
    /// # Errors
    /// `max_tokens` leaves no room between the special tokens; the tokenizer refuses a text.
    pub fn encode<S: AsRef<str> + Sync>(&self, texts: &[S], max_tokens: usize) -> Result<TokenBatch> {
        if max_tokens <= self.special {
            let message = format!("max_tokens = {max_tokens}: the model adds {} special tokens itself", self.special);
            return Err(Error::config(message));
        }
        let sequences: Vec<Vec<u32>> =
            texts.par_iter().map(|text| self.encode_one(text.as_ref(), max_tokens)).collect::<Result<_>>()?;
        Ok(sequences.into_iter().collect())
    }

    fn encode_one(&self, text: &str, max_tokens: usize) -> Result<Vec<u32>> {
        let refused = |error: tokenizers::Error| Error::file(&self.path, format!("cannot encode a text: {error}"));
        let mut encoding = self.inner.encode_fast(text, false).map_err(refused)?;
        encoding.truncate(max_tokens - self.special, 0, TruncationDirection::Right);
        let encoding = self.inner.post_process(encoding, None, true).map_err(refused)?;
        let mut ids = encoding.get_ids().to_vec();
        ids.extend(self.end);
        Ok(ids)
    }
}

pub mod tiny {
    //! A small tokenizer made from texts, for encoders that are made for a test and have none of their own.

    use std::collections::{BTreeMap, BTreeSet};
    use std::io::Write;
    use std::path::Path;

    use serde_json::{Value, json};

    use super::TOKENIZER_FILE;
    use crate::error::{Error, Result};

    const SPECIAL: [&str; 4] = ["<s>", "<pad>", "</s>", "<unk>"];
    const WORDS: usize = 4000;
    const WORD_SCORE: f64 = -5.0;
    const CHARACTER_SCORE: f64 = -10.0;

    /// Writes `tokenizer.json` into `folder`: a Unigram model of the texts' characters and 4,000 most frequent words.
    /// Returns the size of the vocabulary, which an encoder's `config.json` needs.
    ///
    /// Special tokens as in XLM-RoBERTa: `<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3. Ties: words in ascending byte order.
    pub fn write_tiny_tokenizer(folder: &Path, texts: &[impl AsRef<str>]) -> Result<usize> {
        let pieces = pieces(texts);
        let path = folder.join(TOKENIZER_FILE);
        crate::artefact::write_whole(&path, |output| {
            serde_json::to_writer(&mut *output, &tokenizer(&pieces))
                .map_err(|error| Error::file(&path, error.to_string()))?;
            output.flush().map_err(Error::io(&path))
        })?;
        Ok(pieces.len())
    }

    /// The pieces with their scores, special tokens first.
    fn pieces(texts: &[impl AsRef<str>]) -> Vec<(String, f64)> {
        let mut characters = BTreeSet::from(['▁']);
        let mut words: BTreeMap<String, usize> = BTreeMap::new();
        for text in texts {
            for word in text.as_ref().split_whitespace() {
                characters.extend(word.chars());
                *words.entry(format!("▁{word}")).or_default() += 1;
            }
        }
        let mut frequent: Vec<(String, usize)> = words.into_iter().collect();
        frequent.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        frequent.truncate(WORDS);
        let special = SPECIAL.map(|piece| (piece.to_owned(), 0.0));
        let characters = characters.into_iter().map(|character| (character.to_string(), CHARACTER_SCORE));
        special.into_iter().chain(characters).chain(frequent.into_iter().map(|(word, _)| (word, WORD_SCORE))).collect()
    }

    fn tokenizer(pieces: &[(String, f64)]) -> Value {
        let added: Vec<Value> = SPECIAL
            .iter()
            .enumerate()
            .map(|(id, content)| {
                json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                       "normalized": false, "special": true})
            })
            .collect();
        let start = json!({"SpecialToken": {"id": "<s>", "type_id": 0}});
        let end = json!({"SpecialToken": {"id": "</s>", "type_id": 0}});
        let sequence = |name: &str| json!({"Sequence": {"id": name, "type_id": 0}});
        let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": null,
            "pre_tokenizer": metaspace,
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [start, sequence("A"), end],
                "pair": [start, sequence("A"), end, sequence("B"), end],
                "special_tokens": {
                    "<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]},
                    "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]},
                },
            },
            "decoder": metaspace,
            "model": {"type": "Unigram", "unk_id": 3, "vocab": pieces, "byte_fallback": false},
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny(texts: &[&str]) -> Tokenizer {
        let folder = tempfile::tempdir().unwrap();
        let size = tiny::write_tiny_tokenizer(folder.path(), texts).unwrap();
        let tokenizer = Tokenizer::open(folder.path()).unwrap();
        assert_eq!(tokenizer.vocabulary(), size);
        tokenizer
    }

    #[test]
    fn known_words_are_one_token_and_others_are_spelt() {
        let tokenizer = tiny(&["maji ya kuchemka", "水は沸く"]);
        let batch = tokenizer.encode(&["maji ya", "yam", "X"], 16).unwrap();
        assert_eq!(batch.sequence(0).len(), 4, "start, two words, end");
        assert_eq!((batch.sequence(0)[0], batch.sequence(0)[3]), (0, 2));
        assert_eq!(batch.sequence(1).len(), 4, "▁ya and m between the special tokens");
        assert!(batch.sequence(2).contains(&3), "a character that no text has is unknown");
    }

    #[test]
    fn long_texts_are_cut_and_keep_their_special_tokens() {
        let tokenizer = tiny(&["a b c d e"]);
        let batch = tokenizer.encode(&["a b c d e", "a", ""], 4).unwrap();
        let full = tokenizer.encode(&["a b c d e"], 100).unwrap();
        assert_eq!(batch.sequence(0), [&full.sequence(0)[..3], &[2]].concat());
        assert_eq!(batch.sequence(1).len(), 3);
        assert_eq!(batch.sequence(2), [0, 2]);
    }

    #[test]
    fn too_few_tokens_are_refused() {
        let message = tiny(&["a"]).encode(&["a"], 2).unwrap_err().to_string();
        assert!(message.contains("adds 2 special tokens"), "{message}");
    }

    #[test]
    fn an_end_token_that_the_model_asks_for_is_put_once() {
        let folder = tempfile::tempdir().unwrap();
        tiny::write_tiny_tokenizer(folder.path(), &["a b c"]).unwrap();
        let configure = |config: Value| {
            std::fs::write(folder.path().join(CONFIG), config.to_string()).unwrap();
            Tokenizer::open(folder.path())
        };
        let last = |tokenizer: &Tokenizer, tokens| tokenizer.encode(&["a b c"], tokens).unwrap().ids().to_vec();
        let plain = last(&Tokenizer::open(folder.path()).unwrap(), 16);
        let asked = serde_json::json!({"add_eos_token": true, "eos_token": {"content": "</s>"}});
        assert_eq!(last(&configure(asked.clone()).unwrap(), 16), plain, "the template has it already");

        let path = folder.path().join(TOKENIZER_FILE);
        let mut value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        value["post_processor"] = Value::Null;
        std::fs::write(&path, value.to_string()).unwrap();
        let with = configure(asked).unwrap();
        assert_eq!(last(&with, 16), plain[1..]);
        assert_eq!(last(&with, 2), [plain[1], 2], "a cut text ends with it, too");
        assert!(with.encode(&["a"], 1).unwrap_err().to_string().contains("adds 1 special tokens"));
        let without = configure(serde_json::json!({"add_eos_token": false, "eos_token": "</s>"})).unwrap();
        assert_eq!(last(&without, 16), plain[1..plain.len() - 1]);
        let message = configure(serde_json::json!({"add_eos_token": true, "eos_token": "<end>"})).unwrap_err();
        assert!(message.to_string().contains("`<end>`, which is no token"), "{message}");
    }

    #[test]
    fn padding_and_truncation_of_the_file_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        tiny::write_tiny_tokenizer(folder.path(), &["a b c d e"]).unwrap();
        let path = folder.path().join(TOKENIZER_FILE);
        let mut value: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        value["padding"] = serde_json::json!({"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 1, "pad_type_id": 0, "pad_token": "<pad>"});
        value["truncation"] = serde_json::json!({"direction": "Right", "max_length": 3, "strategy": "LongestFirst",
            "stride": 0});
        std::fs::write(&path, value.to_string()).unwrap();
        let batch = Tokenizer::open(folder.path()).unwrap().encode(&["a b c d e", "a"], 100).unwrap();
        assert_eq!((batch.sequence(0).len(), batch.sequence(1).len()), (7, 3));
    }

    /// The ids that XLM-RoBERTa gives, whose pieces E5 uses: `AutoTokenizer.from_pretrained(FOLDER)("Hello world")`.
    #[test]
    fn the_tokenizer_of_e5_gives_its_ids() {
        let Some(path) = crate::fetch::cached("intfloat/multilingual-e5-small", TOKENIZER_FILE) else {
            eprintln!("skipped: the tokenizer of multilingual-e5-small is not in the cache");
            return;
        };
        let tokenizer = Tokenizer::open(path.parent().unwrap()).unwrap();
        assert_eq!(tokenizer.encode(&["Hello world"], 512).unwrap().sequence(0), [0, 35378, 8999, 2]);
        assert_eq!(tokenizer.encode(&["Hello world"], 3).unwrap().sequence(0), [0, 35378, 2]);
        assert_eq!(tokenizer.vocabulary(), 250_002);
    }

    #[test]
    fn a_file_that_is_no_tokenizer_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(TOKENIZER_FILE), "{}").unwrap();
        let message = Tokenizer::open(folder.path()).unwrap_err().to_string();
        assert!(message.contains("tokenizer.json: expected a Hugging Face tokenizer"), "{message}");
    }
}
