"""Exact search beside FAISS's flat index: the 100 passages of the highest inner product, for random unit vectors.

Both sides hold all passages in memory; what is timed is a search for all queries. FAISS's copy of the matrix and our
mapping of it are made before. Peers: FAISS with the widest kernels that its OpenBLAS has for this processor, and, with
`--as-installed`, with those that it chooses itself. With `--device cuda`, the peers are PyTorch's products and top-k on
the card: with the passages in the machine's memory, as ours are, and with all of them on the card beforehand. The result
lists must be equal, except where scores differ by less than rounding.
"""

import argparse
import os
import time

import numpy as np

import side

DEPTH = 100
# PyTorch on a card: with the passages in the machine's memory, or all on the card.
CARD, RESIDENT = "pytorch", "pytorch, passages on the card"
CARD_BLOCK = 1 << 17


def files(options):
    name = f"{options.passages}x{options.dimension}"
    folder = side.WORK / "search"
    return folder / f"passages-{name}.f32", folder / f"queries-{options.queries}-{name}.f32", folder


def unit_vectors(path, rows, dimension, seed):
    """Writes random unit vectors, unless they are there."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    random, part = np.random.default_rng(seed), path.with_suffix(".part")
    with part.open("wb") as output:
        for start in range(0, rows, 65536):
            vectors = random.standard_normal((min(65536, rows - start), dimension), dtype=np.float32)
            output.write((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).tobytes())
    part.rename(path)


def peer(options):
    passages, queries, folder = files(options)
    passages = np.fromfile(passages, dtype=np.float32).reshape(-1, options.dimension)
    queries = np.fromfile(queries, dtype=np.float32).reshape(-1, options.dimension)
    search = {"faiss": faiss_search, CARD: card_search, RESIDENT: card_search}[options.peer](passages, queries, options)
    del passages

    def repeat():
        start = time.perf_counter()
        scores, ids = search()
        seconds = time.perf_counter() - start
        ids.astype(np.uint32).tofile(folder / f"{options.peer}.ids")
        scores.tofile(folder / f"{options.peer}.scores")
        return {"seconds": seconds}

    side.serve({}, repeat)


def faiss_search(passages, queries, _):
    import faiss

    faiss.omp_set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    index = faiss.IndexFlatIP(passages.shape[1])
    index.add(passages)
    return lambda: index.search(queries, DEPTH)


def card_search(passages, queries, options):
    """Products of f32 in blocks on the card, whose best are kept; PyTorch multiplies f32 as it is unless told otherwise."""
    import torch

    passages, queries = torch.from_numpy(passages), torch.from_numpy(queries)
    if options.peer == RESIDENT:
        passages = passages.to(options.device)

    def search():
        ours, best = queries.to(options.device), None
        for start in range(0, len(passages), CARD_BLOCK):
            found = (ours @ passages[start : start + CARD_BLOCK].to(options.device).T).topk(DEPTH)
            found = [found.values, found.indices + start]
            if best is not None:
                values, places = torch.cat([best[0], found[0]], dim=1).topk(DEPTH)
                found = [values, torch.cat([best[1], found[1]], dim=1).gather(1, places)]
            best = found
        return [part.cpu().numpy() for part in best]

    return search


def check(folder, kind):
    """Compares the lists with a peer's; a place may hold another passage only if its score is equal up to rounding."""
    read = lambda name, kind: np.fromfile(folder / name, dtype=kind).reshape(-1, DEPTH)
    ids, scores = read("ours.ids", np.uint32), read("ours.scores", np.float32)
    their_ids, their_scores = read(f"{kind}.ids", np.uint32), read(f"{kind}.scores", np.float32)
    distance = np.abs(scores - their_scores).max()
    assert distance < 1e-6, f"scores at equal places differ by up to {distance}"
    equal = (ids == their_ids).all(axis=1)
    for query in np.flatnonzero(~equal):
        # A passage that only they list must tie with our last one.
        ours, last = dict(zip(ids[query], scores[query])), scores[query, -1]
        for passage, score in zip(their_ids[query], their_scores[query]):
            assert abs(ours.get(passage, last) - score) < 1e-6, f"query {query}: passage {passage}"
    counted = f"{equal.sum()} of {len(equal)} equal in every place"
    print(f"result lists beside {kind}: {counted}, the others up to rounding of scores")


def main():
    parser = argparse.ArgumentParser(prog="benches/run search", description=__doc__)
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--as-installed", action="store_true", help="also with the kernels that FAISS chooses itself")
    parser.add_argument("--device", default="cpu", help="cuda: beside PyTorch on the card")
    parser.add_argument("--peer", choices=("faiss", CARD, RESIDENT), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        return peer(options)
    passages, queries, folder = files(options)
    unit_vectors(passages, options.passages, options.dimension, seed=1)
    unit_vectors(queries, options.queries, options.dimension, seed=2)
    sizes = ["--passages", options.passages, "--dimension", options.dimension, "--queries", options.queries]
    command = [*side.ours("search"), passages, queries, options.dimension, DEPTH, folder, options.device]
    theirs = lambda kind: side.theirs(__file__, kind, *sizes, "--device", options.device)
    sides = [side.Side("ours", command, options.threads)]
    if options.device == "cpu":
        kinds = ["faiss"]
        sides.append(side.Side("faiss", theirs("faiss"), options.threads, side.widest_blas()))
        if options.as_installed:
            sides.append(side.Side("faiss as installed", theirs("faiss"), options.threads))
    else:
        kinds = [CARD, RESIDENT]
        sides += [side.Side(kind, theirs(kind), options.threads) for kind in kinds]
    side.interleave(sides, options.repeats)
    for kind in kinds:
        check(folder, kind)
    rates = {one.name: options.queries / one.median() for one in sides}
    operations = 2 * options.queries * options.passages * options.dimension
    print("GFLOP/s: " + ", ".join(f"{one.name} {operations / one.median() / 1e9:.1f}" for one in sides))
    ours = rates.pop("ours")
    for name, theirs in rates.items():
        side.line("search", name, ours, theirs, "queries/s", options.threads)


if __name__ == "__main__":
    main()
