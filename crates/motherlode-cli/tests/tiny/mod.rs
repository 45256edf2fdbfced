//! A language model of random weights, with a tokenizer and a chat template.

use std::fs;
use std::path::Path;

use motherlode::text::tokenize::tiny::write_tiny_tokenizer;
use motherlode_engine::tiny::write_tiny_language_model;

const TEMPLATE: &str = "{% for message in messages %}<s>{{ message.role }} {{ message.content }}</s>{% endfor %}\
                        {% if add_generation_prompt %}<s>assistant {% endif %}";

/// Writes the model into `folder`, which is made, with a vocabulary of `texts`.
pub(crate) fn write_tiny_chat_model(folder: &Path, texts: &[impl AsRef<str>]) {
    fs::create_dir_all(folder).unwrap();
    let vocabulary = write_tiny_tokenizer(folder, texts).unwrap();
    let config = serde_json::json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>",
        "unk_token": "<unk>", "chat_template": TEMPLATE,
    });
    fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
    write_tiny_language_model(folder, vocabulary, (32, 2), 1024, 5).unwrap();
}
