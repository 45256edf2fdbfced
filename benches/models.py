"""The models that benches run: multilingual-e5-small, and random weights in the shapes of XLM-R."""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import side

# Layers, and values of a token's vector.
SHAPES = {"base": (12, 768), "large": (24, 1024)}
VOCABULARY = 250_002


def add_option(parser, *shapes):
    parser.add_argument(
        "--shape",
        choices=("small", *shapes),
        default="small",
        help=f"small is multilingual-e5-small; {' and '.join(shapes)}: random weights in this shape of XLM-R",
    )


def folder(shape):
    """The sentence-transformers folder of a shape. Random weights are made when they are first asked for."""
    if shape == "small":
        return side.WORK / "model"
    made = side.WORK / f"model-{shape}"
    if not made.exists():
        apart("weights", shape)
    return made


def onnx(shape):
    """The same model, pooling included, for ONNX Runtime: a file as exported, and one as its own tool fused it."""
    made = side.WORK / "encode" / f"onnx-{shape}"
    if not made.exists() or made.stat().st_mtime < (folder(shape) / "model.safetensors").stat().st_mtime:
        shutil.rmtree(made, ignore_errors=True)
        apart("onnx", shape)
    return {graph: made / f"{graph}.onnx" for graph in ("exported", "fused")}


def apart(what, shape):
    """Makes weights or ONNX files in a process of its own, whose memory is free again before anything is measured."""
    command, environment = [sys.executable, __file__, what, shape], side.environment(os.cpu_count(), None)
    subprocess.run(command, env=environment, stdout=sys.stderr, check=True)


@contextlib.contextmanager
def whole(path):
    """A folder to write into, which gets its name once everything is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as around:
        inner = Path(around) / path.name
        inner.mkdir()
        yield inner
        inner.rename(path)


def random_weights(path, layers, hidden, vocabulary):
    """Random weights in a shape of XLM-R, the same each time; large word embeddings, so that texts differ."""
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaModel

    torch.manual_seed(1)
    config = XLMRobertaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        intermediate_size=4 * hidden,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = XLMRobertaModel(config, add_pooling_layer=False)
    torch.nn.init.normal_(model.embeddings.word_embeddings.weight)
    model.save_pretrained(path)


def make_weights(shape):
    """A folder like multilingual-e5-small's, with its tokenizer, prompts and pooling, and random weights."""
    layers, hidden = SHAPES[shape]
    with whole(side.WORK / f"model-{shape}") as path:
        others = shutil.ignore_patterns("model.safetensors", "config.json", "manifest.json", "timing.json")
        shutil.copytree(folder("small"), path, ignore=others, dirs_exist_ok=True)
        pooling = json.loads((folder("small") / "1_Pooling" / "config.json").read_text())
        (path / "1_Pooling" / "config.json").write_text(json.dumps(pooling | {"word_embedding_dimension": hidden}))
        random_weights(path, layers, hidden, VOCABULARY)


def make_onnx(shape):
    """Exports a model, and once more with attention, normalisation and GELU fused by ONNX Runtime's tool for BERT."""
    import onnx
    import torch
    from onnxruntime.transformers.optimizer import optimize_model
    from sentence_transformers import SentenceTransformer

    class Vectors(torch.nn.Module):
        def __init__(self):
            super().__init__()
            options = {"dtype": torch.float32, "attn_implementation": "eager"}
            self.model = SentenceTransformer(str(folder(shape)), device="cpu", model_kwargs=options).eval()

        def forward(self, input_ids, attention_mask):
            return self.model({"input_ids": input_ids, "attention_mask": attention_mask})["sentence_embedding"]

    def save(model, path):
        onnx.save_model(model, path, save_as_external_data=True, location=f"{path.stem}.weights")

    config = json.loads((folder(shape) / "config.json").read_text())
    names = ["input_ids", "attention_mask"]
    ids, mask = torch.full((3, 24), 5), torch.ones((3, 24), dtype=torch.int64)
    ids[1, 16:], mask[1, 16:] = config["pad_token_id"], 0
    with whole(side.WORK / "encode" / f"onnx-{shape}") as path:
        with tempfile.TemporaryDirectory(dir=path) as around:
            # The tool recognises attention that is written out, as the exporter by tracing does up to operator set 17.
            torch.onnx.export(
                Vectors(),
                (ids, mask),
                f"{around}/traced.onnx",
                dynamo=False,
                opset_version=17,
                input_names=names,
                output_names=["vectors"],
                dynamic_axes={name: {0: "batch", 1: "length"} for name in names} | {"vectors": {0: "batch"}},
            )
            save(onnx.load(f"{around}/traced.onnx"), path / "exported.onnx")
        graph = onnx.load(path / "exported.onnx", load_external_data=False)
        sizes = {"num_heads": config["num_attention_heads"], "hidden_size": config["hidden_size"]}
        # The tool looks for weights in the working directory; those that it leaves as they are stay in one file for both.
        with contextlib.chdir(path):
            fused = optimize_model(graph, model_type="bert", opt_level=0, **sizes)
        counts = fused.get_fused_operator_statistics()
        assert counts["Attention"] == config["num_hidden_layers"], f"attention is not fused in every layer: {counts}"
        save(fused.model, path / "fused.onnx")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("weights", "onnx"))
    parser.add_argument("shape", choices=("small", *SHAPES))
    options = parser.parse_args()
    (make_weights if options.what == "weights" else make_onnx)(options.shape)
