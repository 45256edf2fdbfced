"""Compares `motherlode evaluate --run-file … --qrels-file …` with trec_eval's code on new random cases.

Each case is made as those of evaluate.py: ties, also of scores that differ only beyond f32, judged queries without a
ranking, rankings of queries that nobody judged, queries without a relevant passage, unjudged passages, grades -2 to 3.
Queries of which every grade is negative are left out: pytrec_eval 0.5.11 writes beyond its memory for them and dies.
Every value of every query and both averages (with and without -c) are compared. Prints how many values were compared,
how many are the same number to the last bit, and the largest difference; fails where one is above 1e-9.

    pip install pytrec-eval-terrier==0.5.11
    cargo build --release
    python tests/golden/evaluate_live.py target/release/motherlode [CASES] [SEED]
"""

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from evaluate import CUTS, expected, make_case, write_case

LIMIT = 1e-9
MEASURES = [f"{name}@{k}" for name in ("nDCG", "Recall", "P", "MRR", "judged") for k in CUTS] + ["MAP"]


def measured(binary, folder, complete):
    """Values by query and measure, and the averages."""
    out = folder / f"measures-{complete}"
    command = [binary, "--quiet", "evaluate", "--run-file", folder / "x.trec", "--qrels-file", folder / "x.qrels"]
    command += ["--out", out, "--set", f"evaluate.measures={json.dumps(MEASURES)}"]
    command += ["--set", f"evaluate.complete={str(complete).lower()}", "--per-query"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    rows = {}
    for line in lines:
        if line.count("\t") == 3:
            _, query, measure, value = line.split("\t")
            rows.setdefault(query, {})[measure] = float(value)
    return rows, json.loads((out / "measures.json").read_text())["mean"]


def main():
    binary = sys.argv[1]
    cases, seed = [int(value) for value in (sys.argv[2:] + ["50", "1"][len(sys.argv) - 2 :])[:2]]
    rng = random.Random(seed)
    compared, same, worst = 0, 0, 0.0
    for case in range(cases):
        passages = rng.choice([2, 10, 50, 300, 2000])
        qrels, run = make_case(rng, rng.randint(3, 60), passages, rng.randint(1, passages))
        qrels = {query: row for query, row in qrels.items() if max(row.values()) >= 0}
        if not set(qrels) & set(run):
            continue
        want = expected(qrels, run)
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            write_case(folder, "x", qrels, run)
            for complete, mean in ((False, "found"), (True, "complete")):
                rows, means = measured(binary, folder, complete)
                missing = set(qrels) - set(run)
                assert set(rows) == (set(qrels) if complete else set(want["per_query"])), case
                pairs = [(rows[query][name], value) for query, row in want["per_query"].items() for name, value in row.items()]
                pairs += [(value, 0.0) for query in missing & set(rows) for value in rows[query].values()]
                pairs += [(means[name], value) for name, value in want[mean].items()]
                compared += len(pairs)
                same += sum(ours == theirs for ours, theirs in pairs)
                worst = max(worst, max(abs(ours - theirs) for ours, theirs in pairs))
    print(f"{cases} cases, {compared} values, {same} equal to the last bit, largest difference {worst:.3g}")
    sys.exit(worst > LIMIT)


if __name__ == "__main__":
    main()
