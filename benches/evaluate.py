"""Measures of a TREC run beside pytrec_eval and ranx: nDCG@10, Recall@100 and MAP of 10,000 queries to depth 1,000.

Timed from the files to one value a query and measure, and again without the reading. Ours must equal pytrec_eval's
values; of ranx, which orders ties otherwise, the largest difference of a mean is told. pytrec_eval works on one thread,
ours and ranx on as many as they are given; ranx compiles in its first round, which does not count.
"""

import argparse
import os
import random
import statistics
import time

import side

# Our name of a measure, pytrec_eval's and ranx's.
MEASURES = {"nDCG@10": "ndcg_cut_10", "Recall@100": "recall_100", "MAP": "map"}
RANX = {"nDCG@10": "ndcg@10", "Recall@100": "recall@100", "MAP": "map"}
FOLDER = side.WORK / "evaluate"


def write(options):
    """A run whose scores tie now and then, and qrels with a few relevant passages a query, some of them not found."""
    keyed = random.Random(1)
    with (FOLDER / "run.trec").open("w") as run, (FOLDER / "qrels.tsv").open("w") as qrels:
        for query in range(options.queries):
            passages = keyed.sample(range(1_000_000), options.depth)
            score = 1.0
            for rank, passage in enumerate(passages, 1):
                score -= keyed.choice((0.0, 0.0004, 0.0009))
                run.write(f"q{query} Q0 d{passage} {rank} {score:.6f} bench\n")
            judged = set(keyed.sample(passages[:50], 5) + keyed.sample(range(1_000_000, 2_000_000), 2))
            for passage in judged:
                qrels.write(f"q{query} 0 d{passage} {keyed.randint(0, 2)}\n")
            qrels.write(f"q{query} 0 d{passages[-1]} 1\n")


def write_values(name, rows):
    """Values as rows of query, our measure, value."""
    with (FOLDER / name).open("w") as output:
        output.writelines(f"{query}\t{measure}\t{value}\n" for query, measure, value in rows)


def pytrec_eval_peer():
    import pytrec_eval

    def repeat():
        start = time.perf_counter()
        with (FOLDER / "qrels.tsv").open() as lines:
            qrels = pytrec_eval.parse_qrel(lines)
        with (FOLDER / "run.trec").open() as lines:
            run = pytrec_eval.parse_run(lines)
        read = time.perf_counter()
        rows = pytrec_eval.RelevanceEvaluator(qrels, set(MEASURES.values())).evaluate(run)
        end = time.perf_counter()
        values = ((query, ours, row[theirs]) for query, row in rows.items() for ours, theirs in MEASURES.items())
        write_values("pytrec_eval.tsv", values)
        return {"seconds": end - start, "after_reading": end - read}

    side.serve({}, repeat)


def ranx_peer():
    import numba
    import ranx

    numba.set_num_threads(int(os.environ["RAYON_NUM_THREADS"]))

    def repeat():
        start = time.perf_counter()
        qrels = ranx.Qrels.from_file(str(FOLDER / "qrels.tsv"), kind="trec")
        run = ranx.Run.from_file(str(FOLDER / "run.trec"), kind="trec")
        read = time.perf_counter()
        ranx.evaluate(qrels, run, list(RANX.values()))
        end = time.perf_counter()
        values = ((query, ours, run.scores[theirs][query]) for ours, theirs in RANX.items() for query in run.scores[theirs])
        write_values("ranx.tsv", values)
        return {"seconds": end - start, "after_reading": end - read}

    side.serve({}, repeat)


PEERS = {"pytrec_eval": pytrec_eval_peer, "ranx": ranx_peer}


def check():
    def values(name):
        rows = [line.split("\t") for line in (FOLDER / name).read_text().splitlines()]
        return {(query, measure): float(value) for query, measure, value in rows}

    ours, theirs = values("ours.tsv"), values("pytrec_eval.tsv")
    assert ours.keys() == theirs.keys(), "other queries or measures"
    distance = max(abs(ours[key] - theirs[key]) for key in ours)
    assert distance < 1e-12, f"values differ by up to {distance}"
    print(f"values: {len(ours)}, largest difference from pytrec_eval {distance:.1e}")
    theirs = values("ranx.tsv")
    mean = lambda rows, measure: statistics.mean(value for (_, name), value in rows.items() if name == measure)
    distance = max(abs(mean(ours, measure) - mean(theirs, measure)) for measure in MEASURES)
    print(f"largest difference of a mean from ranx {distance:.1e}")


def main():
    parser = argparse.ArgumentParser(prog="benches/run evaluate", description=__doc__)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--depth", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        return PEERS[options.peer]()
    FOLDER.mkdir(parents=True, exist_ok=True)
    write(options)
    command = [*side.ours("evaluate"), FOLDER / "run.trec", FOLDER / "qrels.tsv", FOLDER / "ours.tsv", *MEASURES]
    sides = [side.Side("ours", command, options.threads)]
    sides += [side.Side(name, side.theirs(__file__, name), options.threads) for name in PEERS]
    side.interleave(sides, options.repeats)
    check()
    for place, name in enumerate(PEERS, 1):
        for label, key in [(name, "seconds"), (f"{name}, reading excluded", "after_reading")]:
            rates = [options.queries / one.median(key) for one in (sides[0], sides[place])]
            side.line("evaluate", label, *rates, "queries/s", options.threads)


if __name__ == "__main__":
    main()
