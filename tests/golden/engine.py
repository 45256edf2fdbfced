"""Golden values for motherlode-engine, computed by PyTorch and transformers.

    python tests/golden/engine.py tiny crates/motherlode-engine/tests/data [FAMILY ...]
        writes tiny random models with outputs, gradients of all parameters and three AdamW steps
    python tests/golden/engine.py adapters crates/motherlode-engine/tests/data
        writes LoRA adapters for some of them by peft, with outputs and gradients of the adapters
    MOTHERLODE_ADAPTED=FOLDER cargo test -p motherlode-engine merged_adapters
    python tests/golden/engine.py check crates/motherlode-engine/tests/data FOLDER
        checks that peft computes with the adapters of motherlode-engine what transformers does with the merged models
    python tests/golden/engine.py language crates/motherlode-engine/tests/data
        writes tiny random language models with the loss of some of their tokens, gradients, and three AdamW steps
    MOTHERLODE_ADAPTED=FOLDER cargo test -p motherlode-engine language_models_are_saved
    python tests/golden/engine.py check-language crates/motherlode-engine/tests/data FOLDER
        checks that transformers and peft give the loss of the models and adapters that motherlode-engine saved
    python tests/golden/engine.py model target/test-models/NAME crates/motherlode-cli/tests/golden/NAME.json
        writes vectors of a few token sequences by the model in that folder

Made with Python 3.11, torch 2.11.0 and transformers 5.23.0 (bert, xlm-roberta) or torch 2.15.0 and transformers 5.24.0
(the others), and peft 0.21.2, on the CPU, in f32; where a model is stored in half precision, with its rounded weights.
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

LENGTHS = [5, 1, 12, 8]
ENCODER = dict(
    vocab_size=100,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=24,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
SMALL = dict(
    vocab_size=40,
    hidden_size=24,
    num_attention_heads=4,
    intermediate_size=20,
    max_position_embeddings=24,
    bos_token_id=None,
    eos_token_id=None,
    pad_token_id=None,
)


def rotary(theta):
    return {"rope_type": "default", "rope_theta": theta}


# Family: class of the configuration, its values, pooling, whether vectors are scaled, how weights are stored, seed.
MODELS = {
    "bert": ("BertConfig", ENCODER | dict(pad_token_id=0, type_vocab_size=2), "mean", True, "f32", 1),
    "xlm-roberta": (
        "XLMRobertaConfig",
        ENCODER | dict(pad_token_id=1, type_vocab_size=1, layer_norm_eps=1e-5),
        "cls",
        False,
        "f32",
        2,
    ),
    "modern-bert": (
        "ModernBertConfig",
        SMALL
        | dict(
            num_hidden_layers=4,
            local_attention=6,
            cls_token_id=None,
            sep_token_id=None,
            rope_parameters={"full_attention": rotary(160000.0), "sliding_attention": rotary(100.0)},
        ),
        "mean",
        True,
        "f32",
        3,
    ),
    "qwen2": (
        "Qwen2Config",
        SMALL | dict(num_hidden_layers=2, num_key_value_heads=2, rope_parameters=rotary(1000.0)),
        "last",
        True,
        "f32",
        4,
    ),
    "qwen3": (
        "Qwen3Config",
        SMALL
        | dict(
            num_hidden_layers=2,
            num_key_value_heads=2,
            head_dim=8,
            use_sliding_window=True,
            sliding_window=4,
            max_window_layers=1,
            rope_parameters=rotary(1000.0),
        ),
        "last",
        True,
        "f32",
        5,
    ),
    "llama": (
        "LlamaConfig",
        SMALL
        | dict(
            num_hidden_layers=2,
            num_key_value_heads=1,
            attention_bias=True,
            mlp_bias=True,
            is_causal=False,
            rope_parameters=rotary(1000.0),
        ),
        "mean",
        False,
        "f16",
        6,
    ),
    "mistral": (
        "MistralConfig",
        SMALL
        | dict(num_hidden_layers=2, num_key_value_heads=4, sliding_window=5, rope_parameters=rotary(10000.0)),
        "last",
        True,
        "bf16 in shards",
        7,
    ),
}
RATE, WEIGHT_DECAY = 1e-2, 0.1


def forward(model, sequences, pooling, normalise):
    """The vectors of token sequences, each computed alone, so that nothing is padded."""
    vectors = []
    for sequence in sequences:
        tokens = model(input_ids=torch.tensor([sequence])).last_hidden_state[0]
        vector = {"cls": tokens[0], "last": tokens[-1], "mean": tokens.mean(0)}[pooling]
        vectors.append(torch.nn.functional.normalize(vector, dim=0) if normalise else vector)
    return torch.stack(vectors)


def write_modules(folder, hidden, pooling, normalise):
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")] + [("2_Normalize", "Normalize")] * normalise
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    modes = {"pooling_mode_cls_token": pooling == "cls", "pooling_mode_mean_tokens": pooling == "mean"}
    if pooling == "last":
        modes["pooling_mode_lasttoken"] = True
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": hidden} | modes))


def tiny(folder, family):
    kind, values, pooling, normalise, storage, seed = MODELS[family]
    torch.manual_seed(seed)
    config = getattr(transformers, kind)(**values, attn_implementation="eager")
    arguments = {"add_pooling_layer": False} if kind in ("BertConfig", "XLMRobertaConfig") else {}
    model = transformers.AutoModel.from_config(config, **arguments)
    for name, parameter in model.named_parameters():
        centre = 1.0 if name.endswith("weight") and parameter.dim() == 1 else 0.0
        parameter.data = centre + 0.3 * torch.randn_like(parameter)
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    write_modules(folder, config.hidden_size, pooling, normalise)
    store(model, folder, family, storage)
    generator = torch.Generator().manual_seed(seed + 1)
    sequences = [torch.randint(4, config.vocab_size, (length,), generator=generator).tolist() for length in LENGTHS]
    upstream = torch.randn(len(sequences), config.hidden_size, generator=generator)
    train(model, folder, sequences, upstream, pooling, normalise)


def store(model, folder, family, storage):
    """Writes the weights, and rounds the model's to what was written."""
    kind = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[storage.split()[0]]
    for parameter in model.parameters():
        parameter.data = parameter.data.to(kind).to(torch.float32)
    prefix = {"xlm-roberta": "roberta.", "llama": "model.", "mistral": "model."}.get(family, "")
    tensors = {prefix + name: value.to(kind).contiguous() for name, value in model.state_dict().items()}
    if "shards" not in storage:
        save_file(tensors, folder / "model.safetensors")
        return
    names, shards = sorted(tensors), {}
    for number, part in enumerate([names[: len(names) // 2], names[len(names) // 2 :]], 1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        shards |= dict.fromkeys(part, file)
    size = sum(value.numel() * value.element_size() for value in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": shards}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))


def train(model, folder, sequences, upstream, pooling, normalise):
    decaying = [parameter for parameter in model.parameters() if parameter.dim() == 2]
    others = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    groups = [{"params": decaying, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.999), eps=1e-8)
    golden, norms = {}, []
    for step in range(3):
        outputs = forward(model, sequences, pooling, normalise)
        (outputs * upstream).sum().backward()
        gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
        if step == 0:
            golden["outputs"] = outputs.detach()
            golden |= {f"gradient.{name}": value for name, value in gradients.items()}
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)))
        optimizer.step()
        optimizer.zero_grad()
    golden |= {f"trained.{name}": value.detach().clone() for name, value in model.named_parameters()}
    golden["trained_outputs"] = forward(model, sequences, pooling, normalise).detach()
    golden["upstream"] = upstream
    golden["norms"] = torch.tensor(norms)
    save_file(golden, folder / "golden.safetensors")
    about = {"sequences": sequences, "rate": RATE, "weight_decay": WEIGHT_DECAY, "max_gradient_norm": 1.0}
    (folder / "golden.json").write_text(json.dumps(about))


# Family: modules with an adapter.
ADAPTED = {
    "bert": ["query", "value", "output.dense"],
    "modern-bert": ["Wqkv", "Wo", "Wi"],
    "qwen3": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}


def adapters(folder, family):
    import peft

    torch.manual_seed(11)
    arguments = {"add_pooling_layer": False} if family == "bert" else {}
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager", **arguments).eval()
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=ADAPTED[family], lora_dropout=0.25)
    model = peft.get_peft_model(model, config)
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    for parameter in trained.values():
        parameter.data = 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink()
    about, golden = json.loads((folder / "golden.json").read_text()), load_file(folder / "golden.safetensors")
    _, _, pooling, normalise, _, _ = MODELS[family]
    outputs = forward(model.eval(), about["sequences"], pooling, normalise)
    (outputs * golden["upstream"]).sum().backward()
    made = {"outputs": outputs.detach()}
    for name, value in trained.items():
        made["gradient." + name.removeprefix("base_model.model.").replace(".default", "")] = value.grad.clone()
    save_file(made, folder / "adapter" / "golden.safetensors")


def check(base, trained):
    import peft

    arguments = dict(attn_implementation="eager", torch_dtype=torch.float32)
    adapted = transformers.AutoModel.from_pretrained(base, **arguments).eval()
    adapted = peft.PeftModel.from_pretrained(adapted, trained / "adapter").eval()
    merged = transformers.AutoModel.from_pretrained(trained, **arguments).eval()
    sequences = json.loads((base / "golden.json").read_text())["sequences"]
    with torch.no_grad():
        one, other = (forward(model, sequences, "mean", False) for model in (adapted, merged))
        plain = forward(adapted.unload(), sequences, "mean", False)
    difference, moved = float((one - other).abs().max()), float((one - plain).abs().max())
    print(f"{base.name}: greatest difference {difference:.1e}, adapters move vectors by {moved:.1e}")
    assert difference < 1e-4 < 0.01 < moved


# Language model: class of the configuration, its values, seed.
LANGUAGE_MODELS = {
    "qwen3-language": (
        "Qwen3Config",
        SMALL
        | dict(
            num_hidden_layers=2,
            num_key_value_heads=2,
            head_dim=8,
            rope_parameters=rotary(1000.0),
            tie_word_embeddings=True,
        ),
        8,
    ),
    "llama-language": (
        "LlamaConfig",
        SMALL
        | dict(
            num_hidden_layers=2,
            num_key_value_heads=2,
            rope_parameters=rotary(1000.0),
            tie_word_embeddings=False,
        ),
        9,
    ),
}


def language_loss(model, sequences, predicted):
    """Mean cross-entropy of the tokens that are predicted, each sequence computed alone."""
    losses = []
    for sequence, marks in zip(sequences, predicted):
        logits = model(input_ids=torch.tensor([sequence])).logits[0, :-1]
        each = torch.nn.functional.cross_entropy(logits, torch.tensor(sequence[1:], dtype=torch.long), reduction="none")
        losses.append(each[torch.tensor(marks[1:], dtype=torch.bool)])
    return torch.cat(losses).mean()


def language(folder, family):
    kind, values, seed = LANGUAGE_MODELS[family]
    torch.manual_seed(seed)
    config = getattr(transformers, kind)(**values, attn_implementation="eager")
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        parameter.data = (1.0 if parameter.dim() == 1 else 0.0) + 0.3 * torch.randn_like(parameter)
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    tensors = {name: value.contiguous() for name, value in model.named_parameters()}
    save_file(tensors, folder / "model.safetensors")
    generator = torch.Generator().manual_seed(seed + 1)
    sequences = [torch.randint(0, config.vocab_size, (length,), generator=generator).tolist() for length in LENGTHS]
    predicted = [[place > 0 and place >= len(sequence) // 2 for place in range(len(sequence))] for sequence in sequences]
    decaying = [parameter for parameter in model.parameters() if parameter.dim() == 2]
    others = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    groups = [{"params": decaying, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.999), eps=1e-8)
    golden, losses = {}, []
    for step in range(3):
        loss = language_loss(model, sequences, predicted)
        losses.append(loss.item())
        loss.backward()
        if step == 0:
            golden = {f"gradient.{name.removeprefix('model.')}": p.grad.clone() for name, p in model.named_parameters()}
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    losses.append(language_loss(model, sequences, predicted).item())
    golden["losses"] = torch.tensor(losses)
    save_file(golden, folder / "golden.safetensors")
    about = {"sequences": sequences, "predicted": predicted, "rate": RATE, "weight_decay": WEIGHT_DECAY}
    (folder / "golden.json").write_text(json.dumps(about | {"max_gradient_norm": 1.0}))


def check_language(base, trained):
    import peft

    about = json.loads((base / "golden.json").read_text())
    ours = json.loads((trained / "loss.json").read_text())
    arguments = dict(attn_implementation="eager", torch_dtype=torch.float32)
    load = transformers.AutoModelForCausalLM.from_pretrained
    plain = load(base, **arguments).eval()
    models = {
        "base": plain,
        "merged": load(trained, **arguments).eval(),
        "adapters": peft.PeftModel.from_pretrained(load(base, **arguments), trained / "adapter").eval(),
    }
    with torch.no_grad():
        losses = {name: language_loss(model, about["sequences"], about["predicted"]).item() for name, model in models.items()}
    print(base.name, losses, "ours", ours)
    assert abs(losses["merged"] - ours) < 1e-4 and abs(losses["adapters"] - ours) < 1e-4
    assert abs(losses["base"] - ours) > 0.01


def real(folder, file):
    modules = [module["type"].rsplit(".")[-1] for module in json.loads((folder / "modules.json").read_text())]
    modes = json.loads((folder / "1_Pooling" / "config.json").read_text())
    pooling = "cls" if modes.get("pooling_mode_cls_token") else "mean"
    config = transformers.AutoConfig.from_pretrained(folder, attn_implementation="eager")
    model = transformers.AutoModel.from_config(config, add_pooling_layer=False)
    missing, _ = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    assert not [name for name in missing if "position_ids" not in name], missing
    model.eval()
    generator = torch.Generator().manual_seed(7)
    lengths = [2, 7, 33, 64, 200, config.max_position_embeddings - 2]
    sequences = [torch.randint(5, config.vocab_size, (length,), generator=generator).tolist() for length in lengths]
    with torch.no_grad():
        vectors = forward(model, sequences, pooling, "Normalize" in modules)
    rounded = [[round(value, 7) for value in vector] for vector in vectors.tolist()]
    file.write_text(json.dumps({"sequences": sequences, "vectors": rounded}))


if __name__ == "__main__":
    kind, place = sys.argv[1], Path(sys.argv[2])
    if kind == "model":
        real(place, Path(sys.argv[3]))
    elif kind == "check":
        for family in MODELS:
            check(place / family, Path(sys.argv[3]) / family)
    elif kind == "language":
        for family in LANGUAGE_MODELS:
            language(place / family, family)
    elif kind == "check-language":
        for family in LANGUAGE_MODELS:
            check_language(place / family, Path(sys.argv[3]) / family)
    elif kind == "adapters":
        for family in ADAPTED:
            adapters(place / family, family)
    else:
        for family in sys.argv[3:] or MODELS:
            tiny(place / family, family)
