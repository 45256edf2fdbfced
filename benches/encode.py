"""Encoding passages of many languages and natural lengths beside sentence-transformers, same weights, same texts.

What is timed is from texts to vectors, tokens included. Peers: `defaults` (batches of 32, f32), `sorted` (f32, sorted by
number of tokens before, the fastest of several batch sizes) and `bf16` (the same in bfloat16). Rates count the tokens
that the model must read, without padding. Vectors must agree.
"""

import argparse
import json
import os
import time

import numpy as np

import side
import texts

LENGTH = 256
PEERS = ("defaults", "sorted", "bf16")
FOLDER = side.WORK / "encode"


def peer(kind):
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    options = {"dtype": torch.bfloat16} if kind == "bf16" else {"dtype": torch.float32}
    model = SentenceTransformer(str(side.WORK / "model"), device="cpu", model_kwargs=options)
    model.max_seq_length = LENGTH
    prompt = model.prompts["passage"]
    passages = json.loads((FOLDER / "texts.json").read_text())

    def defaults():
        return model.encode(passages, prompt=prompt, show_progress_bar=False)

    ids = model.tokenizer([prompt + passage for passage in passages], truncation=True, max_length=LENGTH)["input_ids"]
    order = sorted(range(len(passages)), key=lambda index: -len(ids[index]))

    def in_order(size):
        vectors = [None] * len(passages)
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            part = [passages[index] for index in batch]
            encoded = model.encode(part, prompt=prompt, batch_size=size, show_progress_bar=False, convert_to_tensor=True)
            for index, vector in zip(batch, encoded.float().numpy()):
                vectors[index] = vector
        return np.stack(vectors)

    def timed(work):
        start = time.perf_counter()
        vectors = work()
        return time.perf_counter() - start, vectors

    work, size = defaults, 32
    if kind != "defaults":
        in_order(32)
        size = min((4, 8, 16, 32, 64), key=lambda size: timed(lambda: in_order(size))[0])
        work = lambda: in_order(size)

    def repeat():
        seconds, vectors = timed(work)
        np.asarray(vectors, dtype=np.float32).tofile(FOLDER / f"{kind}.f32")
        return {"seconds": seconds}

    side.serve({"tokens": sum(map(len, ids)), "batch_size": size}, repeat)


def check(tokens):
    ours = np.fromfile(FOLDER / "ours.f32", dtype=np.float32)
    for kind in ("ours bf16", *PEERS):
        assert tokens[kind] == tokens["ours"], f"ours reads {tokens['ours']} tokens, {kind} {tokens[kind]}"
        theirs = np.fromfile(FOLDER / f"{kind}.f32", dtype=np.float32)
        dimension = 384
        a, b = ours.reshape(-1, dimension), theirs.reshape(-1, dimension)
        cosine = ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min()
        assert cosine > (0.99 if kind.endswith("bf16") else 0.9999), f"{kind}: lowest cosine with ours {cosine}"
        print(f"vectors: lowest cosine between ours and {kind} {cosine:.6f}")


def main():
    parser = argparse.ArgumentParser(prog="benches/run encode", description=__doc__)
    parser.add_argument("--passages", type=int, default=384, help="over all languages")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=5)
    texts.add_option(parser)
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        return peer(options.peer)
    FOLDER.mkdir(parents=True, exist_ok=True)
    data, names = options.data, texts.languages(options.data)
    count = -(-options.passages // len(names))
    passages = [text for name in names for text in texts.spread(list(texts.corpus(data, name).values()), count)]
    (FOLDER / "texts.json").write_text(json.dumps(passages))
    sides = []
    for name, precision in (("ours", "f32"), ("ours bf16", "bf16")):
        command = [*side.ours("encode"), side.WORK / "model", FOLDER / "texts.json", LENGTH, FOLDER / f"{name}.f32"]
        sides.append(side.Side(name, [*command, precision], options.threads))
    sides += [side.Side(kind, side.theirs(__file__, kind), options.threads) for kind in PEERS]
    tokens = {one.name: one.ready["tokens"] for one in sides}
    batches = ", ".join(f"{one.name} {one.ready['batch_size']}" for one in sides[2:])
    print(f"{len(passages)} passages of {data.name}, {tokens['ours']} tokens; batch sizes: {batches}", flush=True)
    side.interleave(sides, options.repeats)
    check(tokens)
    rates = {one.name: tokens["ours"] / one.median() for one in sides}
    share = {"limit_share": side.limit_share(sides[0])}
    for kind in PEERS:
        if kind != "bf16":
            side.line("encode", f"sentence-transformers {kind}", rates["ours"], rates[kind], "tokens/s", options.threads, **share)
        side.line("encode bf16", f"sentence-transformers {kind}", rates["ours bf16"], rates[kind], "tokens/s", options.threads)


if __name__ == "__main__":
    main()
