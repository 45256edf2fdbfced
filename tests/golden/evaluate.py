"""Makes crates/motherlode/tests/data/evaluate: random qrels and runs with trec_eval's values for them.

Each case is three files: `N.qrels` and `N.trec` in TREC's formats and `N.json` with the values per query and two
averages: `found` over the queries that have a ranking (trec_eval's default) and `complete` over all judged queries,
those without a ranking counting 0 (its flag -c). The cases hold ties (also scores that differ only beyond f32),
judged queries without a ranking, rankings of queries that nobody judged, queries without a relevant passage,
unjudged passages, grades 0 to 3 and negative ones.

    pip install pytrec-eval-terrier==0.5.11
    python tests/golden/evaluate.py

MRR@k is trec_eval's recip_rank, or 0 where the first relevant passage is beyond k. judged@k has no trec_eval measure:
it is computed here as ir_measures 0.4.3 does, with trec_eval's order.
"""

import json
import random
import struct
from pathlib import Path

import pytrec_eval

OUTPUT = Path(__file__).resolve().parents[2] / "crates/motherlode/tests/data/evaluate"
CUTS = [1, 3, 5, 10, 17, 100, 1000]
FAMILIES = {"nDCG": "ndcg_cut", "Recall": "recall", "P": "P"}
NAMES = {f"{ours}@{k}": f"{theirs}_{k}" for ours, theirs in FAMILIES.items() for k in CUTS} | {"MAP": "map"}
ASKED = {f"{theirs}.{','.join(map(str, CUTS))}" for theirs in FAMILIES.values()} | {"map", "recip_rank"}


def as_f32(value):
    return struct.unpack("f", struct.pack("f", value))[0]


def score(rng):
    """Few distinct values, so that most rankings have ties; some tie only as f32."""
    value = rng.choice([rng.randint(-3, 12) / 4, rng.uniform(-1, 3)])
    return value + rng.choice([0.0, 0.0, 1e-9])


def make_case(rng, queries, passages, depth):
    names = [rng.choice(["d", "D", "é", ""]) + str(number) for number in range(passages)]
    qrels, run = {}, {}
    for number in range(queries):
        query = f"q{number}"
        kind = rng.random()
        if kind > 0.08:
            grades = [0, 0] if kind < 0.15 else [-2, -1, 0, 0, 1, 1, 2, 3]
            judged = rng.sample(names, rng.randint(1, min(25, passages)))
            qrels[query] = {passage: rng.choice(grades) for passage in judged}
        if rng.random() > 0.15:
            run[query] = {passage: score(rng) for passage in rng.sample(names, rng.randint(1, min(depth, passages)))}
    return qrels, run


def judged_at(qrel, ranking, k):
    """The share of judged passages among the first k in trec_eval's order."""
    order = sorted(ranking, key=lambda passage: (as_f32(ranking[passage]), passage.encode()), reverse=True)[:k]
    return sum(passage in qrel for passage in order) / len(order)


def expected(qrels, run):
    per_query = {}
    for query, values in pytrec_eval.RelevanceEvaluator(qrels, ASKED).evaluate(run).items():
        row = {ours: values[theirs] for ours, theirs in NAMES.items()}
        for k in CUTS:
            # 1 / rank is at least 1 / k up to rounding, and the next lower value is 1 / (k + 1).
            row[f"MRR@{k}"] = values["recip_rank"] if values["recip_rank"] > 1 / (k + 0.5) else 0.0
            row[f"judged@{k}"] = judged_at(qrels[query], run[query], k)
        per_query[query] = row
    measures = list(NAMES) + [f"{name}@{k}" for name in ("MRR", "judged") for k in CUTS]
    totals = {measure: sum(row[measure] for row in per_query.values()) for measure in measures}
    return {
        "per_query": dict(sorted(per_query.items())),
        "found": {measure: total / len(per_query) for measure, total in totals.items()},
        "complete": {measure: total / len(qrels) for measure, total in totals.items()},
    }


def write_case(folder, name, qrels, run):
    lines = [f"{query} 0 {passage} {grade}\n" for query, row in qrels.items() for passage, grade in row.items()]
    (folder / f"{name}.qrels").write_text("".join(lines))
    lines = [f"{query} Q0 {passage} 0 {value!r} x\n" for query, row in run.items() for passage, value in row.items()]
    (folder / f"{name}.trec").write_text("".join(lines))


def main():
    OUTPUT.mkdir(parents=True, exist_ok=True)
    rng = random.Random(20260)
    sizes = [(30, 12, 12), (30, 40, 30), (25, 200, 150), (10, 3, 3), (5, 1500, 1100), (20, 60, 60)]
    for case, (queries, passages, depth) in enumerate(sizes):
        qrels, run = make_case(rng, queries, passages, depth)
        text = json.dumps(expected(qrels, run), separators=(",", ":")).replace('"q', '\n"q')
        (OUTPUT / f"{case}.json").write_text(text + "\n")
        write_case(OUTPUT, case, qrels, run)


if __name__ == "__main__":
    main()
