"""A step of contrastive training beside sentence-transformers: same weights, same token ids, same loss.

A step is forward, InfoNCE over the query's positive, its hard negatives and all other passages of the step, backward,
clipping and AdamW; tokens are ready on both sides. Steps of several languages take turns; a measurement is one round.
Peers: `defaults` (MultipleNegativesRankingLoss in f32, fused AdamW, one padded batch a column, as its trainer does) and
`bf16` (the same under its trainer's `bf16` switch). Dropout is off on both sides. The first losses must agree.
The model is multilingual-e5-small, or random weights in the shape of XLM-R base, whose sides are started, measured and
ended one after the other, because memory does not hold them all.
"""

import argparse
import functools
import json
import os
import time

import models
import side
import texts

TEMPERATURE = 0.02
RATE = 2e-5
OURS = ("ours f32", "ours bf16x3", "ours bf16")
PEERS = ("defaults", "bf16")
FOLDER = side.WORK / "train-step"
LANGUAGES = ("ar", "fi", "ko", "sw")
QUERY_LENGTH, PASSAGE_LENGTH = 64, 128
QUERIES = {"small": 8, "base": 4}


def batches(options):
    """Token ids of one step a language: queries, and a column of positives and one of each negative."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models.folder(options.shape))
    ids = lambda prefix, part, length: tokenizer(
        [prefix + text for text in part], truncation=True, max_length=length
    )["input_ids"]
    data, steps = options.data, []
    for language in LANGUAGES:
        corpus = texts.corpus(data, language)
        pairs = list({passage: query for query, passage in texts.train_pairs(data, language)}.items())
        chosen = texts.spread(pairs, options.queries)
        taken = {passage for passage, _ in chosen}
        others = texts.spread([passage for passage in corpus if passage not in taken], len(chosen) * options.negatives)
        columns = [[passage for passage, _ in chosen]]
        columns += [others[place :: options.negatives] for place in range(options.negatives)]
        passages = [ids("passage: ", [corpus[passage] for passage in column], PASSAGE_LENGTH) for column in columns]
        steps.append({"queries": ids("query: ", [query for _, query in chosen], QUERY_LENGTH), "columns": passages})
    return steps


def peer(kind, shape):
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = SentenceTransformer(
        str(models.folder(shape)), device="cpu", model_kwargs={"dtype": torch.float32}, config_kwargs=dropout
    )
    model.train()
    loss = MultipleNegativesRankingLoss(model, scale=1 / TEMPERATURE)
    plain = ("bias", "LayerNorm.weight")
    groups = [
        {"params": [p for n, p in model.named_parameters() if n.endswith(plain)], "weight_decay": 0.0},
        {"params": [p for n, p in model.named_parameters() if not n.endswith(plain)], "weight_decay": 0.01},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE, fused=True)
    steps = [
        [model.tokenizer.pad({"input_ids": column}, return_tensors="pt") for column in [step["queries"], *step["columns"]]]
        for step in json.loads((FOLDER / "batches.json").read_text())
    ]

    def repeat():
        losses, start = [], time.perf_counter()
        for step in steps:
            features = [dict(column) for column in step]
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == "bf16"):
                value = loss(features, labels=None)
            value.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(value.detach()))
        seconds = time.perf_counter() - start
        report.setdefault("losses", losses)
        return {"seconds": seconds, "losses": report["losses"]}

    report = {}
    side.serve({}, repeat)


def check(sides, shape):
    """The loss of the very first step, before any update; the later ones are shown."""
    losses = {one.name: one.answers[0]["losses"] for one in sides}
    for name, values in losses.items():
        print(f"losses of the first steps, {name}: " + " ".join(f"{value:.5f}" for value in values))
        # sentence-transformers' scores are bfloat16, too, which tells on random weights.
        theirs = 0.05 if shape == "small" else 0.1
        allowed, exact = {"ours bf16": 0.05, "bf16": theirs}.get(name, 1e-3), losses[OURS[0]][0]
        assert abs(values[0] - exact) <= allowed * max(1.0, exact), f"{name} has another loss"


def main():
    parser = argparse.ArgumentParser(prog="benches/run train-step", description=__doc__)
    models.add_option(parser, "base")
    counts = ", ".join(f"{shape} {count}" for shape, count in QUERIES.items())
    parser.add_argument("--queries", type=int, help=f"of a step (default: {counts})")
    parser.add_argument("--negatives", type=int, default=3, help="of a query")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=5)
    texts.add_option(parser)
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    shape = options.shape
    options.queries = options.queries or QUERIES[shape]
    if options.peer:
        return peer(options.peer, shape)
    FOLDER.mkdir(parents=True, exist_ok=True)
    steps = batches(options)
    (FOLDER / "batches.json").write_text(json.dumps(steps))
    command = [*side.ours("train_step"), models.folder(shape), FOLDER / "batches.json", TEMPERATURE, RATE]
    commands = {name: [*command, name.removeprefix("ours ")] for name in OURS}
    commands |= {kind: side.theirs(__file__, kind, "--shape", shape) for kind in PEERS}
    starts = [functools.partial(side.Side, *each, options.threads) for each in commands.items()]
    sides = side.measure(starts, options.repeats, together=shape == "small")
    tokens = sides[0].ready["tokens"]
    print(f"{len(steps)} steps of {options.queries} queries, {tokens} tokens", flush=True)
    check(sides, shape)
    rates = {one.name: tokens / one.median() for one in sides}
    share = {"limit_share": side.limit_share(sides[0])}
    bench = "train-step" if shape == "small" else f"train-step {shape}"
    for kind in PEERS:
        peer_name = f"sentence-transformers {kind}"
        side.line(bench, peer_name, rates["ours f32"], rates[kind], "tokens/s", options.threads, **share)
        for name in OURS[1:]:
            bench_name = f"{bench} {name.removeprefix('ours ')}"
            side.line(bench_name, peer_name, rates[name], rates[kind], "tokens/s", options.threads)


if __name__ == "__main__":
    main()
