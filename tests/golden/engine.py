"""Golden values for motherlode-engine, computed by PyTorch and transformers.

    python tests/golden/engine.py tiny crates/motherlode-engine/tests/data
        writes a tiny random BERT and XLM-RoBERTa with outputs, gradients of all parameters and three AdamW steps
    python tests/golden/engine.py model target/test-models/NAME crates/motherlode-cli/tests/golden/NAME.json
        writes vectors of a few token sequences by the model in that folder

Made with Python 3.11, torch 2.11.0 and transformers 5.23.0 on the CPU, in f32.
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

LENGTHS = [5, 1, 12, 8]
RATE, WEIGHT_DECAY = 1e-2, 0.1


def forward(model, sequences, pooling, normalise):
    """The vectors of token sequences, each computed alone, so that nothing is padded."""
    vectors = []
    for sequence in sequences:
        tokens = model(input_ids=torch.tensor([sequence])).last_hidden_state[0]
        vector = tokens[0] if pooling == "cls" else tokens.mean(0)
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
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": hidden} | modes))


def tiny(folder, family, pooling, normalise, seed):
    torch.manual_seed(seed)
    sizes = dict(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=24,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="eager",
    )
    if family == "bert":
        config = transformers.BertConfig(pad_token_id=0, type_vocab_size=2, **sizes)
        model = transformers.BertModel(config, add_pooling_layer=False)
    else:
        config = transformers.XLMRobertaConfig(pad_token_id=1, type_vocab_size=1, layer_norm_eps=1e-5, **sizes)
        model = transformers.XLMRobertaModel(config, add_pooling_layer=False)
    for name, parameter in model.named_parameters():
        centre = 1.0 if name.endswith("LayerNorm.weight") else 0.0
        parameter.data = centre + 0.3 * torch.randn_like(parameter)
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    write_modules(folder, 32, pooling, normalise)
    prefix = "roberta." if family == "xlm-roberta" else ""
    save_file({prefix + name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    generator = torch.Generator().manual_seed(seed + 1)
    sequences = [torch.randint(4, 100, (length,), generator=generator).tolist() for length in LENGTHS]
    upstream = torch.randn(len(sequences), 32, generator=generator)
    train(model, folder, sequences, upstream, pooling, normalise)


def train(model, folder, sequences, upstream, pooling, normalise):
    decaying = [p for n, p in model.named_parameters() if not n.endswith("bias") and "LayerNorm" not in n]
    others = [p for n, p in model.named_parameters() if n.endswith("bias") or "LayerNorm" in n]
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
    else:
        tiny(place / "bert", "bert", "mean", True, 1)
        tiny(place / "xlm-roberta", "xlm-roberta", "cls", False, 2)
