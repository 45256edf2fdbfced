//! Decoders against the encoders of the same weights, whose vectors agree with transformers'.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use half::{bf16, f16};
use motherlode::engine::{LoadOptions, Next, TokenBatch};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::block::{Kept, Scratch};
use crate::config::{ModelFolder, read_json};
use crate::kernel::testing::assert_close;
use crate::network::{Network, SpanMemory};
use crate::span::{Masks, Span};

const FAMILIES: [&str; 3] = ["llama", "qwen2", "qwen3"];

/// Names of tensors in Hugging Face's models and in GGUF.
const NAMES: [(&str, &str); 14] = [
    ("input_layernorm.weight", "attn_norm.weight"),
    ("self_attn.q_proj.weight", "attn_q.weight"),
    ("self_attn.k_proj.weight", "attn_k.weight"),
    ("self_attn.v_proj.weight", "attn_v.weight"),
    ("self_attn.q_proj.bias", "attn_q.bias"),
    ("self_attn.k_proj.bias", "attn_k.bias"),
    ("self_attn.v_proj.bias", "attn_v.bias"),
    ("self_attn.q_norm.weight", "attn_q_norm.weight"),
    ("self_attn.k_norm.weight", "attn_k_norm.weight"),
    ("self_attn.o_proj.weight", "attn_output.weight"),
    ("post_attention_layernorm.weight", "ffn_norm.weight"),
    ("mlp.gate_proj.weight", "ffn_gate.weight"),
    ("mlp.up_proj.weight", "ffn_up.weight"),
    ("mlp.down_proj.weight", "ffn_down.weight"),
];

/// The family's small encoder in a folder of its own, made a plain decoder of longer texts: without windows, and without
/// the biases of Llama's kin that GGUF does not know.
fn plain(family: &str) -> TempDir {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(family);
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
    for file in ["modules.json", "1_Pooling/config.json"] {
        std::fs::copy(source.join(file), folder.path().join(file)).unwrap();
    }
    let mut config: Value = read_json(&source.join("config.json")).unwrap();
    config["max_position_embeddings"] = 200.into();
    let without = match family {
        "llama" => {
            (config["attention_bias"], config["mlp_bias"], config["is_causal"]) =
                (false.into(), false.into(), true.into());
            "bias"
        }
        "qwen3" => {
            config["use_sliding_window"] = false.into();
            config["layer_types"] = Value::Null;
            "none"
        }
        _ => "none",
    };
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let bytes = std::fs::read(source.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
    let kept = tensors.into_iter().filter(|(name, _)| !name.ends_with(without));
    safetensors::serialize_to_file(kept, None, &folder.path().join("model.safetensors")).unwrap();
    folder
}

/// A GGUF file in the making.
#[derive(Default)]
struct Writer {
    settings: Vec<u8>,
    count: u64,
    tensors: BTreeMap<String, (Vec<u64>, Vec<f32>)>,
}

impl Writer {
    fn setting(&mut self, name: &str, kind: u32, value: &[u8]) {
        self.settings.extend((name.len() as u64).to_le_bytes());
        self.settings.extend(name.as_bytes());
        self.settings.extend(kind.to_le_bytes());
        self.settings.extend(value);
        self.count += 1;
    }

    fn whole(&mut self, name: &str, value: &Value) {
        self.setting(name, 4, &(value.as_u64().unwrap() as u32).to_le_bytes());
    }

    fn float(&mut self, name: &str, value: &Value) {
        self.setting(name, 6, &(value.as_f64().unwrap() as f32).to_le_bytes());
    }

    fn write(&self, path: &Path) {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3_u32.to_le_bytes());
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend(self.count.to_le_bytes());
        bytes.extend(&self.settings);
        let mut data = Vec::new();
        for (name, (sizes, values)) in &self.tensors {
            bytes.extend((name.len() as u64).to_le_bytes());
            bytes.extend(name.as_bytes());
            bytes.extend((sizes.len() as u32).to_le_bytes());
            sizes.iter().rev().for_each(|size| bytes.extend(size.to_le_bytes()));
            bytes.extend(0_u32.to_le_bytes());
            bytes.extend((data.len() as u64).to_le_bytes());
            values.iter().for_each(|value| data.extend(value.to_le_bytes()));
            data.resize(data.len().next_multiple_of(32), 0);
        }
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(data);
        std::fs::write(path, bytes).unwrap();
    }
}

/// The family's small model as a GGUF file, as llama.cpp's converter writes it.
fn write_gguf(family: &str, path: &Path) {
    let folder = plain(family);
    let config: Value = read_json(&folder.path().join("config.json")).unwrap();
    let mut writer = Writer::default();
    let architecture = [&(family.len() as u64).to_le_bytes()[..], family.as_bytes()].concat();
    writer.setting("general.architecture", 8, &architecture);
    let name = |part: &str| format!("{family}.{part}");
    for (part, key) in [
        ("context_length", "max_position_embeddings"),
        ("embedding_length", "hidden_size"),
        ("block_count", "num_hidden_layers"),
        ("feed_forward_length", "intermediate_size"),
        ("attention.head_count", "num_attention_heads"),
        ("attention.head_count_kv", "num_key_value_heads"),
    ] {
        writer.whole(&name(part), &config[key]);
    }
    if let Some(width) = config.get("head_dim").filter(|width| !width.is_null()) {
        writer.whole(&name("attention.key_length"), width);
    }
    let theta = config.get("rope_theta").unwrap_or(&config["rope_parameters"]["rope_theta"]);
    writer.float(&name("rope.freq_base"), theta);
    writer.float(&name("attention.layer_norm_rms_epsilon"), &config["rms_norm_eps"]);
    let bytes = std::fs::read(folder.path().join("model.safetensors")).unwrap();
    for (name, tensor) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
        let mut values: Vec<f32> = match tensor.dtype() {
            Dtype::F16 => tensor.data().as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect(),
            Dtype::BF16 => {
                tensor.data().as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect()
            }
            _ => tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        };
        let stored = stored_name(name.trim_start_matches("model."));
        if family == "llama" && (stored.ends_with("attn_q.weight") || stored.ends_with("attn_k.weight")) {
            let heads = if stored.ends_with("q.weight") { "num_attention_heads" } else { "num_key_value_heads" };
            values = permuted(&values, config[heads].as_u64().unwrap() as usize, tensor.shape()[1]);
        }
        writer.tensors.insert(stored, (tensor.shape().iter().map(|size| *size as u64).collect(), values));
    }
    writer.write(path);
}

fn stored_name(name: &str) -> String {
    match name {
        "embed_tokens.weight" => return "token_embd.weight".into(),
        "norm.weight" => return "output_norm.weight".into(),
        _ => {}
    }
    let (layer, part) = name.strip_prefix("layers.").unwrap().split_once('.').unwrap();
    let (_, stored) = NAMES.iter().find(|(name, _)| *name == part).unwrap();
    format!("blk.{layer}.{stored}")
}

/// Source: `permute` of llama.cpp's `convert_hf_to_gguf.py`: reshape(heads, 2, width / 2, columns), swap axes 1 and 2.
fn permuted(values: &[f32], heads: usize, columns: usize) -> Vec<f32> {
    let width = values.len() / columns / heads;
    let row = |index: usize| &values[index * columns..(index + 1) * columns];
    let source = |row: usize| row / width * width + row % 2 * (width / 2) + row % width / 2;
    (0..heads * width).flat_map(|index| row(source(index)).to_vec()).collect()
}

fn decoder(family: &str) -> Decoder {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("model.gguf");
    write_gguf(family, &path);
    Decoder::open(Arc::new(Gguf::open(&path).unwrap()), Precision::F32).unwrap()
}

/// The scores of what follows each token of a text, by the encoder of the same weights.
fn expected(family: &str, text: &[u32]) -> Vec<Vec<f32>> {
    let folder = plain(family);
    let model = ModelFolder::open(folder.path(), &LoadOptions::default()).unwrap();
    let network = Network::open(&model, None, Precision::F32).unwrap();
    let batch: TokenBatch = [text].into_iter().collect();
    let span = Span::cut(&batch, Masks::OFF).remove(0);
    let hidden = network.shape.hidden;
    let mut memory = SpanMemory::keeping(network.shape.layers.len(), false);
    network.forward(&span, &mut memory, &mut Kept::default(), &mut Scratch::default());
    let words = network.layout.embeddings(&network.weights).word;
    let score = |vector: &[f32]| {
        words.chunks_exact(hidden).map(|word| word.iter().zip(vector).map(|(a, b)| a * b).sum()).collect()
    };
    memory.hidden.chunks_exact(hidden).map(score).collect()
}

/// Every score that `choose` sees, by group, prompt and turn, when the texts go on with `more`, so many at a time.
fn scores(decoder: &Decoder, groups: &[Vec<Vec<u32>>], more: &[&[u32]]) -> BTreeMap<(usize, usize, usize), Vec<f32>> {
    let seen = Mutex::new(BTreeMap::<(usize, usize, usize), Vec<f32>>::new());
    let choose = |group: usize, prompt: usize, scores: &[f32]| {
        let mut seen = seen.lock().unwrap();
        let turn = seen.range((group, prompt, 0)..(group, prompt, usize::MAX)).count();
        seen.insert((group, prompt, turn), scores.to_vec());
        more.get(turn).map_or(Next::End, |tokens| Next::Tokens(tokens.to_vec()))
    };
    decoder.continue_texts(groups, &choose).unwrap();
    seen.into_inner().unwrap()
}

fn text(length: u32, start: u32) -> Vec<u32> {
    (0..length).map(|place| (place * 7 + start) % 40).collect()
}

#[test]
fn scores_are_those_of_the_whole_text() {
    for family in FAMILIES {
        println!("{family}");
        let decoder = decoder(family);
        let prompt = text(9, 3);
        let whole = [prompt.clone(), vec![5, 6, 30, 2]].concat();
        let expected = expected(family, &whole);
        let seen = scores(&decoder, &[vec![prompt]], &[&[5], &[6, 30], &[2]]);
        for (turn, place) in [(0, 8), (1, 9), (2, 11), (3, 12)] {
            assert_close(&seen[&(0, 0, turn)], &expected[place], 1e-4);
        }
    }
}

#[test]
fn a_folder_scores_as_the_file_of_its_weights_does() {
    for family in FAMILIES {
        let folder = plain(family);
        let path = folder.path().join("config.json");
        let mut config: Value = read_json(&path).unwrap();
        config["tie_word_embeddings"] = true.into();
        std::fs::write(&path, config.to_string()).unwrap();
        let read = Decoder::open_folder(folder.path(), Precision::F32).unwrap();
        let ask = |decoder: &Decoder| scores(decoder, &[vec![text(9, 3)]], &[&[5], &[6, 30]]);
        assert_eq!(ask(&read), ask(&decoder(family)), "{family}");
    }
}

#[test]
fn scores_do_not_depend_on_what_else_is_asked() {
    let decoder = decoder("qwen2");
    // All prompts share 17 tokens, those of a group 17 more.
    let group = |group: u32| {
        let prompt = |end: u32| [text(17, 1), text(17, group), text(3 + end, 20 + end)].concat();
        (0..3 + 20 * (group % 2)).map(|end| prompt(end % 5)).collect::<Vec<_>>()
    };
    let groups: Vec<Vec<Vec<u32>>> = (2..6).map(group).collect();
    let together = scores(&decoder, &groups, &[&[7, 8], &[9]]);
    assert_eq!(together.len(), 3 * groups.iter().map(Vec::len).sum::<usize>());
    for ((group, prompt, turn), seen) in together {
        let alone = scores(&decoder, &[vec![groups[group][prompt].clone()]], &[&[7, 8], &[9]]);
        assert_eq!(alone[&(0, 0, turn)], seen, "group {group}, prompt {prompt}, turn {turn}");
    }
}

#[test]
fn long_prompts_are_read_in_parts() {
    let decoder = decoder("qwen3");
    let most = decoder.longest();
    assert_eq!(most, 200);
    let error = decoder.continue_texts(&[vec![vec![1; most + 1]]], &|_, _, _| Next::End).unwrap_err().to_string();
    assert!(error.contains(&format!("1 to {most} tokens")), "{error}");
    let grows = |_: usize, _: usize, _: &[f32]| Next::Tokens(vec![1]);
    let error = decoder.continue_texts(&[vec![vec![1; most]]], &grows).unwrap_err().to_string();
    assert!(error.contains("at most"), "{error}");
}

#[test]
fn foreign_files_are_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("model.gguf");
    write_gguf("qwen2", &path);
    let whole = std::fs::read(&path).unwrap();
    let refused = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let opened = Gguf::open(&path).and_then(|file| Decoder::open(Arc::new(file), Precision::F32));
        opened.unwrap_err().to_string()
    };
    let place = whole.windows(5).position(|bytes| bytes == b"qwen2").unwrap();
    let mut other = whole.clone();
    other[place..place + 5].copy_from_slice(b"falco");
    assert!(refused(&other).contains("architecture llama, qwen2 or qwen3, got falco"), "{}", refused(&other));
    assert!(refused(&whole[..whole.len() - 64]).contains("cut off"));
    assert!(refused(&whole[..100]).contains("within its head"));
    assert!(refused(b"PK\x03\x04").contains("expected a GGUF file"));
    let place = whole.windows(16).position(|bytes| bytes == b"ffn_gate.weight\x02").unwrap();
    let mut other = whole;
    other[place + 4..place + 8].copy_from_slice(b"exps");
    assert!(refused(&other).contains("not among those"), "{}", refused(&other));
}
