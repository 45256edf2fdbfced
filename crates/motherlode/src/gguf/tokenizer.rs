//! The tokenizer of a GGUF file in the words of Hugging Face's files: `tokenizer.json` and `tokenizer_config.json`.

use serde_json::{Map, Value, json};

use super::Gguf;
use crate::error::{Error, Result};

/// Types of tokens.
const NORMAL: i128 = 1;
const CONTROL: i128 = 3;
const DEFINED_BY_USER: i128 = 4;

/// What splits a text before byte pairs are merged.
///
/// Source: `tokenizer.json` of Qwen2.5 and Llama 3, as llama.cpp names them in `tokenizer.ggml.pre`.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The tokenizer as `tokenizer.json` has it.
///
/// # Errors
/// A kind of tokenizer, or a way to split texts, that is not known here.
pub fn tokenizer(file: &Gguf) -> Result<Value> {
    match file.text("tokenizer.ggml.model")?.unwrap_or("missing") {
        "gpt2" => byte_pairs(file),
        "llama" => sentence_pieces(file),
        other => Err(unknown(file, "model", "gpt2 (byte pairs) or llama (SentencePiece)", other)),
    }
}

fn unknown(file: &Gguf, name: &str, expected: &str, got: &str) -> Error {
    file.wrong(format!("`tokenizer.ggml.{name}`: expected {expected}, got {got}"))
}

/// Merges of byte pairs, in the order of a list.
fn byte_pairs(file: &Gguf) -> Result<Value> {
    let split = |pattern: &str| {
        let split = json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        json!([split, {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}])
    };
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let pre = file.text("tokenizer.ggml.pre")?.unwrap_or("default");
    let (before, normalizer, ignore_merges) = match pre {
        "qwen2" => (split(QWEN2), json!({"type": "NFC"}), false),
        "llama-bpe" => (split(LLAMA3), Value::Null, true),
        "smollm" => (json!([{"type": "Digits", "individual_digits": true}, bytes]), Value::Null, false),
        "default" | "gpt-2" => (json!([bytes]), Value::Null, false),
        other => return Err(unknown(file, "pre", "qwen2, llama-bpe, smollm, gpt-2 or default", other)),
    };
    let tokens = file.texts("tokenizer.ggml.tokens")?;
    let vocabulary = vocabulary(&tokens);
    let merges = file.texts("tokenizer.ggml.merges")?;
    let added = added_tokens(file, &tokens, &vocabulary)?;
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": before}, "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": ignore_merges,
            "vocab": vocabulary, "merges": merges},
    }))
}

/// What SentencePiece writes for a blank.
const BLANK: &str = "▁";

/// SentencePiece's byte pairs: neighbours merge to the piece of the highest score, and what is no piece becomes bytes.
///
/// Source: Kudo and Richardson, "SentencePiece" (2018); the same tokenizer as transformers makes of Llama 2's.
fn sentence_pieces(file: &Gguf) -> Result<Value> {
    let tokens = file.texts("tokenizer.ggml.tokens")?;
    let vocabulary = vocabulary(&tokens);
    let added = added_tokens(file, &tokens, &vocabulary)?;
    let none = tokens.get(file.whole("tokenizer.ggml.unknown_token_id")?.unwrap_or(0)).copied();
    let blanks = json!({"type": "Replace", "pattern": {"String": " "}, "content": BLANK});
    let back = json!({"type": "Replace", "pattern": {"String": BLANK}, "content": " "});
    let mut normalizers = vec![blanks];
    let mut decoders = vec![back, json!({"type": "ByteFallback"}), json!({"type": "Fuse"})];
    if file.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true) {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": BLANK}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": normalizers}, "pre_tokenizer": null,
        "post_processor": null, "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {"type": "BPE", "dropout": null, "unk_token": none, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocabulary, "merges": merges_by_score(file, &tokens, &vocabulary)?},
    }))
}

/// Every way to put an ordinary piece together of two others, the pieces of high scores first.
fn merges_by_score(file: &Gguf, tokens: &[&str], vocabulary: &Map<String, Value>) -> Result<Vec<[String; 2]>> {
    let (scores, kinds) = (file.floats("tokenizer.ggml.scores")?, kinds(file, tokens)?);
    if [scores.len(), kinds.len()] != [tokens.len(); 2] {
        let (tokens, scores, kinds) = (tokens.len(), scores.len(), kinds.len());
        return Err(
            file.wrong(format!("expected a score and a type for each of {tokens} tokens, got {scores} and {kinds}"))
        );
    }
    let mut pieces: Vec<usize> = (0..tokens.len()).filter(|id| kinds[*id] == NORMAL).collect();
    pieces.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let splits = |id: usize| {
        let piece = tokens[id];
        let places = piece.char_indices().skip(1).map(|(place, _)| piece.split_at(place));
        places.filter(|(left, right)| vocabulary.contains_key(*left) && vocabulary.contains_key(*right))
    };
    Ok(pieces.into_iter().flat_map(splits).map(|(left, right)| [left.to_owned(), right.to_owned()]).collect())
}

/// The numbers of the tokens, the added ones too: one that the vocabulary lacks would get another number.
fn vocabulary(tokens: &[&str]) -> Map<String, Value> {
    tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), id.into())).collect()
}

/// The types of tokens.
fn kinds(file: &Gguf, tokens: &[&str]) -> Result<Vec<i128>> {
    Ok(file.wholes("tokenizer.ggml.token_type")?.unwrap_or_else(|| vec![NORMAL; tokens.len()]))
}

/// Tokens that are found in a text before it is split; those of control are special.
fn added_tokens(file: &Gguf, tokens: &[&str], vocabulary: &Map<String, Value>) -> Result<Vec<Value>> {
    let kinds = kinds(file, tokens)?;
    let all = tokens.iter().zip(&kinds).enumerate();
    let added = all.filter(|(_, (_, kind))| [CONTROL, DEFINED_BY_USER].contains(*kind));
    let token = |(id, (text, kind)): (usize, (&&str, &i128))| {
        if vocabulary[*text] != id {
            return Err(file.wrong(format!("the token `{text}` stands in its vocabulary twice")));
        }
        Ok(json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": *kind == CONTROL}))
    };
    added.map(token).collect()
}

/// The chat template and the tokens at the start and the end of a text, as `tokenizer_config.json` has them; what the file
/// does not say is null.
pub fn tokenizer_config(file: &Gguf) -> Result<Value> {
    let tokens = file.texts("tokenizer.ggml.tokens")?;
    let bound = |name: &str| -> Result<Option<&str>> {
        let id = file.whole(&format!("tokenizer.ggml.{name}_token_id"))?;
        Ok(id.and_then(|id| tokens.get(id).copied()))
    };
    Ok(json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bound("bos")?,
        "eos_token": bound("eos")?,
        "pad_token": bound("padding")?,
        "clean_up_tokenization_spaces": false,
        "chat_template": file.text("tokenizer.chat_template")?,
    }))
}
