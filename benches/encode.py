"""Encoding passages of many languages and natural lengths beside sentence-transformers and ONNX Runtime, same weights.

What is timed is from texts to vectors, tokens included. Peers: `defaults` (sentence-transformers, batches of 32, f32),
`sorted` (the same, sorted by number of tokens before, the fastest of several batch sizes), `bf16` (sorted, in bfloat16)
and `onnx` (ONNX Runtime, sorted, f32, the fastest batch size, the faster one of the graph as exported and the graph as
its own tool fused it). Rates count the tokens that the model must read, without padding. Vectors must agree.
The model is multilingual-e5-small, or random weights in the shape of XLM-R base or large. The large one's sides are
started, measured and ended one after the other, because memory does not hold them all.
"""

import argparse
import functools
import json
import os
import time

import numpy as np

import models
import side
import texts

LENGTH = 256
OURS = ("ours f32", "ours bf16x3", "ours bf16")
PEERS = {
    "defaults": "sentence-transformers defaults",
    "sorted": "sentence-transformers sorted",
    "bf16": "sentence-transformers bf16",
    "onnx": "ONNX Runtime sorted",
}
# So many that the large shape reads at most 5,000 tokens.
PASSAGES = {"small": 384, "base": 64, "large": 16}
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
FOLDER = side.WORK / "encode"


def sentence_transformers(kind, shape, prompt):
    """The tokenizer, and the way to make vectors of texts in batches of some size."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    options = {"dtype": torch.bfloat16} if kind == "bf16" else {"dtype": torch.float32}
    model = SentenceTransformer(str(models.folder(shape)), device="cpu", model_kwargs=options)
    model.max_seq_length = LENGTH

    def encode(part, size):
        options = {"batch_size": size, "show_progress_bar": False, "convert_to_tensor": True}
        return model.encode(part, prompt=prompt, **options).float().numpy()

    return model.tokenizer, {"": encode}


def onnx_runtime(shape, prompt):
    """The tokenizer, and two ways to make vectors of the texts of one batch: the two graphs."""
    import onnxruntime
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models.folder(shape))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL

    def encode(session, part, _):
        inputs = tokenizer(
            [prompt + text for text in part], padding=True, truncation=True, max_length=LENGTH, return_tensors="np"
        )
        return session.run(["vectors"], {name: inputs[name] for name in ("input_ids", "attention_mask")})[0]

    session = functools.partial(onnxruntime.InferenceSession, sess_options=options, providers=["CPUExecutionProvider"])
    graphs = models.onnx(shape).items()
    return tokenizer, {graph: functools.partial(encode, session(path)) for graph, path in graphs}


def peer(kind, shape):
    passages = json.loads((FOLDER / "texts.json").read_text())
    prompt = json.loads((models.folder(shape) / "config_sentence_transformers.json").read_text())["prompts"]["passage"]
    tokenizer, ways = onnx_runtime(shape, prompt) if kind == "onnx" else sentence_transformers(kind, shape, prompt)
    ids = tokenizer([prompt + passage for passage in passages], truncation=True, max_length=LENGTH)["input_ids"]
    order = sorted(range(len(passages)), key=lambda index: -len(ids[index]))

    def in_order(way, size):
        vectors = [None] * len(passages)
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            for index, vector in zip(batch, ways[way]([passages[index] for index in batch], size)):
                vectors[index] = vector
        return np.stack(vectors)

    def timed(work):
        start = time.perf_counter()
        vectors = work()
        return time.perf_counter() - start, vectors

    way, size = next(iter(ways)), 32
    work = lambda: ways[way](passages, size)
    if kind != "defaults":
        for each in ways:
            in_order(each, 8)
        if len(ways) > 1:
            way = min(ways, key=lambda way: timed(lambda: in_order(way, 8))[0])
            # The other's memory is free before anything is measured.
            ways = {way: ways[way]}
        size = min(BATCH_SIZES, key=lambda size: timed(lambda: in_order(way, size))[0])
        work = lambda: in_order(way, size)

    def repeat():
        seconds, vectors = timed(work)
        vectors.tofile(FOLDER / f"{kind}.f32")
        return {"seconds": seconds}

    side.serve({"tokens": sum(map(len, ids)), "batches": f"{size} {way}".strip()}, repeat)


def check(tokens, passages):
    read = lambda name: np.fromfile(FOLDER / f"{name}.f32", dtype=np.float32).reshape(passages, -1)
    ours = read(OURS[0])
    for kind in (*OURS[1:], *PEERS):
        assert tokens[kind] == tokens[OURS[0]], f"{OURS[0]} reads {tokens[OURS[0]]} tokens, {kind} {tokens[kind]}"
        theirs = read(kind)
        cosine = ((ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)).min()
        assert cosine > (0.99 if kind.endswith("bf16") else 0.9999), f"{kind}: lowest cosine with {OURS[0]} {cosine}"
        print(f"vectors: lowest cosine between {OURS[0]} and {kind} {cosine:.6f}")


def main():
    parser = argparse.ArgumentParser(prog="benches/run encode", description=__doc__)
    models.add_option(parser, "base", "large")
    sizes = ", ".join(f"{shape} {count}" for shape, count in PASSAGES.items())
    parser.add_argument("--passages", type=int, help=f"over all languages (default: {sizes})")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=5)
    texts.add_option(parser)
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    shape = options.shape
    if options.peer:
        return peer(options.peer, shape)
    FOLDER.mkdir(parents=True, exist_ok=True)
    data, names = options.data, texts.languages(options.data)
    count = -(-(options.passages or PASSAGES[shape]) // len(names))
    passages = [text for name in names for text in texts.spread(list(texts.corpus(data, name).values()), count)]
    (FOLDER / "texts.json").write_text(json.dumps(passages))
    model = models.folder(shape)
    models.onnx(shape)
    command = lambda name: [*side.ours("encode"), model, FOLDER / "texts.json", LENGTH, FOLDER / f"{name}.f32"]
    commands = {name: [*command(name), name.removeprefix("ours ")] for name in OURS}
    commands |= {kind: side.theirs(__file__, kind, "--shape", shape) for kind in PEERS}
    starts = [functools.partial(side.Side, *each, options.threads) for each in commands.items()]
    sides = side.measure(starts, options.repeats, together=shape != "large")
    tokens = {one.name: one.ready["tokens"] for one in sides}
    batches = ", ".join(f"{one.name} {one.ready['batches']}" for one in sides[len(OURS):])
    print(f"{len(passages)} passages of {data.name}, {tokens[OURS[0]]} tokens; batch sizes: {batches}", flush=True)
    check(tokens, len(passages))
    rates = {one.name: tokens[OURS[0]] / one.median() for one in sides}
    share = {"limit_share": side.limit_share(sides[0])}
    bench = "encode" if shape == "small" else f"encode {shape}"
    for kind, name in PEERS.items():
        if kind != "bf16":
            side.line(bench, name, rates["ours f32"], rates[kind], "tokens/s", options.threads, **share)
            side.line(f"{bench} bf16x3", name, rates["ours bf16x3"], rates[kind], "tokens/s", options.threads)
        side.line(f"{bench} bf16", name, rates["ours bf16"], rates[kind], "tokens/s", options.threads)


if __name__ == "__main__":
    main()
