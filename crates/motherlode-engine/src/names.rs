//! What Hugging Face's models call the parts of an encoder, without the model's prefix.

/// Names of modules; a part that a family never has is empty.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) words: &'static str,
    pub(crate) positions: &'static str,
    pub(crate) kinds: &'static str,
    pub(crate) embedding_norm: &'static str,
    /// What comes before the number of a layer; the following names come after it.
    pub(crate) layers: &'static str,
    /// To queries, keys and values: one map, or three.
    pub(crate) projection: &'static [&'static str],
    pub(crate) query_norm: &'static str,
    pub(crate) key_norm: &'static str,
    pub(crate) merge: &'static str,
    pub(crate) attention_norm: &'static str,
    /// To the inner values: one map, or one to the gate and one to what it lets pass.
    pub(crate) expand: &'static [&'static str],
    pub(crate) contract: &'static str,
    pub(crate) output_norm: &'static str,
    pub(crate) final_norm: &'static str,
}

/// BERT and XLM-RoBERTa.
pub(crate) const BERT: Names = Names {
    words: "embeddings.word_embeddings",
    positions: "embeddings.position_embeddings",
    kinds: "embeddings.token_type_embeddings",
    embedding_norm: "embeddings.LayerNorm",
    layers: "encoder.layer",
    projection: &["attention.self.query", "attention.self.key", "attention.self.value"],
    query_norm: "",
    key_norm: "",
    merge: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    expand: &["intermediate.dense"],
    contract: "output.dense",
    output_norm: "output.LayerNorm",
    final_norm: "",
};

/// ModernBERT.
pub(crate) const MODERN_BERT: Names = Names {
    words: "embeddings.tok_embeddings",
    positions: "",
    kinds: "",
    embedding_norm: "embeddings.norm",
    layers: "layers",
    projection: &["attn.Wqkv"],
    query_norm: "",
    key_norm: "",
    merge: "attn.Wo",
    attention_norm: "attn_norm",
    expand: &["mlp.Wi"],
    contract: "mlp.Wo",
    output_norm: "mlp_norm",
    final_norm: "final_norm",
};

/// Llama, Mistral, Qwen2 and Qwen3.
pub(crate) const DECODER: Names = Names {
    words: "embed_tokens",
    positions: "",
    kinds: "",
    embedding_norm: "",
    layers: "layers",
    projection: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    query_norm: "self_attn.q_norm",
    key_norm: "self_attn.k_norm",
    merge: "self_attn.o_proj",
    attention_norm: "input_layernorm",
    expand: &["mlp.gate_proj", "mlp.up_proj"],
    contract: "mlp.down_proj",
    output_norm: "post_attention_layernorm",
    final_norm: "norm",
};
