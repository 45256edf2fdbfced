//! What a GGUF file says of a decoder, in the words of Hugging Face's files: `config.json`, the names of tensors and the
//! order of their rows.

use serde_json::{Value, json};

use super::Gguf;
use crate::error::Result;

/// Tensors outside the layers. The last is absent where the word embeddings serve for both.
const OUTSIDE: [(&str, &str); 3] = [
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
];
/// Tensors of a layer.
const INSIDE: [(&str, &str); 14] = [
    ("attn_norm.weight", "input_layernorm.weight"),
    ("attn_q.weight", "self_attn.q_proj.weight"),
    ("attn_k.weight", "self_attn.k_proj.weight"),
    ("attn_v.weight", "self_attn.v_proj.weight"),
    ("attn_q.bias", "self_attn.q_proj.bias"),
    ("attn_k.bias", "self_attn.k_proj.bias"),
    ("attn_v.bias", "self_attn.v_proj.bias"),
    ("attn_q_norm.weight", "self_attn.q_norm.weight"),
    ("attn_k_norm.weight", "self_attn.k_norm.weight"),
    ("attn_output.weight", "self_attn.o_proj.weight"),
    ("ffn_norm.weight", "post_attention_layernorm.weight"),
    ("ffn_gate.weight", "mlp.gate_proj.weight"),
    ("ffn_up.weight", "mlp.up_proj.weight"),
    ("ffn_down.weight", "mlp.down_proj.weight"),
];

/// The name in Hugging Face's files of a decoder's tensor; none for a tensor that they do not have.
pub fn tensor_name(name: &str) -> Option<String> {
    if let Some((_, theirs)) = OUTSIDE.iter().find(|(ours, _)| *ours == name) {
        return Some((*theirs).to_owned());
    }
    let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
    let layer: usize = layer.parse().ok()?;
    let (_, theirs) = INSIDE.iter().find(|(ours, _)| *ours == part)?;
    Some(format!("model.layers.{layer}.{theirs}"))
}

/// Whether the rows of this tensor of a model of `family` stand in the order of rotary positions that turn neighbours.
pub fn turns_neighbours(family: &str, name: &str) -> bool {
    family == "llama" && (name.ends_with(".attn_q.weight") || name.ends_with(".attn_k.weight"))
}

/// Puts the rows of each head in the order in which value i turns with value i + width / 2.
///
/// *Shapes*: `rows` whole heads of `width` rows of `columns` values.
pub fn halves(rows: &mut [f32], width: usize, columns: usize) {
    for head in rows.chunks_exact_mut(width * columns) {
        let old = head.to_vec();
        for (row, values) in old.chunks_exact(columns).enumerate() {
            let place = row % 2 * (width / 2) + row / 2;
            head[place * columns..(place + 1) * columns].copy_from_slice(values);
        }
    }
}

/// The settings as `config.json` has them.
///
/// # Errors
/// An architecture other than Llama, Qwen2 and Qwen3; scaled or partial rotary positions; a setting that is missing.
pub fn config(file: &Gguf) -> Result<Value> {
    let family = file.text("general.architecture")?.unwrap_or("missing");
    if !["llama", "qwen2", "qwen3"].contains(&family) {
        let message = format!("expected the architecture llama, qwen2 or qwen3, got {family}");
        return Err(file.wrong(message));
    }
    let name = |part: &str| format!("{family}.{part}");
    let whole = |part: &str| {
        let number = file.whole(&name(part))?;
        number.ok_or_else(|| file.wrong(format!("expected a setting `{}`, got none", name(part))))
    };
    if file.text(&name("rope.scaling.type"))?.is_some_and(|kind| kind != "none") {
        return Err(file.wrong("scaled rotary positions are not computed by this engine"));
    }
    let (hidden, heads) = (whole("embedding_length")?, whole("attention.head_count")?);
    let width = file.whole(&name("attention.key_length"))?.unwrap_or(hidden / heads.max(1));
    let turned = file.whole(&name("rope.dimension_count"))?.unwrap_or(width);
    if turned != width {
        return Err(file.wrong(format!("expected all {width} values of a head to turn by position, got {turned}")));
    }
    let words =
        file.tensor(OUTSIDE[0].0).ok_or_else(|| file.wrong("expected a tensor `token_embd.weight`, got none"))?;
    let mut config = json!({
        "model_type": family,
        "vocab_size": words.rows,
        "hidden_size": hidden,
        "num_hidden_layers": whole("block_count")?,
        "num_attention_heads": heads,
        "num_key_value_heads": file.whole(&name("attention.head_count_kv"))?.unwrap_or(heads),
        "intermediate_size": whole("feed_forward_length")?,
        "max_position_embeddings": whole("context_length")?,
        "rms_norm_eps": file.float(&name("attention.layer_norm_rms_epsilon"))?,
        "hidden_act": "silu",
        "rope_theta": file.float(&name("rope.freq_base"))?.unwrap_or(10_000.0),
        "tie_word_embeddings": file.tensor(OUTSIDE[2].0).is_none(),
    });
    if family != "qwen2" {
        config["head_dim"] = width.into();
    }
    Ok(config)
}
