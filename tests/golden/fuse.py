"""Makes crates/motherlode/tests/data/fuse.json: random lists of three retrievers and their fusions by ranx.

Scores are numbers that f32 holds, and differ within a list, since ranx leaves the order of ties open. The weights of
`inverse-spread`, which ranx has not, are computed here with NumPy: one over the mean standard deviation of a
retriever's lists of two and more scores; ranx then takes them as the weights of its weighted sum.

    pip install ranx==0.3.21
    python tests/golden/fuse.py
"""

import json
import random
from pathlib import Path

import numpy as np
from ranx import Run, fuse

OUTPUT = Path(__file__).resolve().parents[2] / "crates/motherlode/tests/data/fuse.json"
QUERIES, PASSAGES = 8, 30
SCALES = {"bm25": (12.0, 4.0), "dense": (0.8, 0.03), "sparse": (0.0, 1.0)}


def make_lists(rng):
    lists = {}
    for name, (centre, spread) in SCALES.items():
        lists[name] = {}
        for query in range(QUERIES):
            passages = rng.sample(range(PASSAGES), rng.choice([1, 2, 5, 12]))
            scores = [float(np.float32(rng.gauss(centre, spread))) for _ in passages]
            assert len(set(scores)) == len(scores)
            lists[name][f"q{query}"] = {f"d{passage}": score for passage, score in zip(passages, scores)}
    return lists


def inverse_spread(queries):
    spreads = [np.std(list(scores.values())) for scores in queries.values() if len(scores) > 1]
    return 1.0 / float(np.mean(spreads))


def fused(lists, norm, method, params=None):
    runs = [Run(queries, name=name) for name, queries in lists.items()]
    result = fuse(runs, norm=norm, method=method, params=params)
    return {query: {passage: float(score) for passage, score in row.items()} for query, row in result.run.items()}


def main():
    rng = random.Random(7)
    lists = make_lists(rng)
    by_hand = {"bm25": 0.5, "dense": 2.0, "sparse": 1.25}
    spreads = {name: inverse_spread(queries) for name, queries in lists.items()}
    weights = lambda factors: {"weights": tuple(factors[name] for name in lists)}
    both = {name: spreads[name] * by_hand[name] for name in lists}
    norms = {"min-max": "min-max", "z-norm": "zmuv", "none": None}
    cases = [
        ({"method": "rrf"}, fused(lists, None, "rrf", {"k": 60})),
        ({"method": "rrf", "rrf_k": 3.0}, fused(lists, None, "rrf", {"k": 3})),
    ]
    for ours, theirs in norms.items():
        config = {"method": "combsum", "normalisation": ours}
        cases.append((config, fused(lists, theirs, "sum")))
        cases.append((config | {"weights": by_hand}, fused(lists, theirs, "wsum", weights(by_hand))))
        spread = config | {"weighting": "inverse-spread"}
        cases.append((spread, fused(lists, theirs, "wsum", weights(spreads))))
        cases.append((spread | {"weights": by_hand}, fused(lists, theirs, "wsum", weights(both))))
    cases = [{"config": config, "expected": expected} for config, expected in cases]
    text = json.dumps({"lists": lists, "inverse_spread": spreads, "cases": cases}, separators=(",", ":"))
    OUTPUT.write_text(text.replace('"q', '\n"q') + "\n")


if __name__ == "__main__":
    main()
