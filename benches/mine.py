"""Mining hard negatives from ready embeddings beside sentence-transformers' `mine_hard_negatives`.

10,000 queries, 40 candidates each, positives removed, scores kept, the result written to disk: end to end; what comes after
the last score alone; and the memory beyond the vectors, which both sides map from one file. The peer searches with FAISS
with its fastest kernels, and is spared its encoder. The candidates must be equal.
"""

import argparse
import json
import os
import shutil
import subprocess
import time

import numpy as np

import side

DEPTH, DIMENSION = 40, 384
WORDS, TOPICS, TOPIC_WORDS = 4000, 2000, 40


def write_source(folder, passages, queries):
    """Passages of 20 words of a topic and 20 others; a query has 8 words of its one positive."""
    random = np.random.default_rng(1)
    topics = random.integers(0, WORDS, (TOPICS, TOPIC_WORDS))
    (folder / "en").mkdir(parents=True)
    sentence = lambda words: " ".join(f"w{word:04}" for word in words)
    wanted = set(random.choice(passages, queries, replace=False).tolist())
    with (
        (folder / "en" / "corpus.jsonl").open("w") as corpus,
        (folder / "en" / "topics.train.tsv").open("w") as topics_file,
        (folder / "en" / "qrels.train.tsv").open("w") as qrels,
    ):
        for number in range(passages):
            topic = topics[random.integers(TOPICS)]
            words = [*topic[random.integers(0, TOPIC_WORDS, 20)], *random.integers(0, WORDS, 20)]
            corpus.write(json.dumps({"docid": f"p{number}", "title": "", "text": sentence(words)}) + "\n")
            if number in wanted:
                topics_file.write(f"q{number}\t{sentence(random.choice(words, 8, replace=False))}\n")
                qrels.write(f"q{number}\tQ0\tp{number}\t1\n")


def prepare(folder, options):
    """Makes data set and embeddings once; the program that encodes them is our side's."""
    if not (folder / "source").exists():
        print("making passages", flush=True)
        shutil.rmtree(folder / "unfinished", ignore_errors=True)
        write_source(folder / "unfinished", options.passages, options.queries)
        (folder / "unfinished").rename(folder / "source")
    print("reading and encoding them, unless that is done", flush=True)
    subprocess.run([*side.ours("mine"), "prepare", folder], check=True)


class ReadyVectors:
    """Stands in for the encoder, so that nothing is encoded."""

    def __init__(self, folder):
        import torch

        self.device = torch.device("cpu")
        vectors = lambda name: np.memmap(folder / "embeddings" / "en" / name, np.float32, "r").reshape(-1, DIMENSION)
        self.passages, self.queries = vectors("passages.f32"), vectors("queries.train.f32")

    def get_embedding_dimension(self):
        return DIMENSION

    def encode_document(self, texts, **_):
        assert len(texts) == len(self.passages)
        return self.passages

    def encode_query(self, texts, **_):
        assert len(texts) == len(self.queries)
        return self.queries

    @staticmethod
    def similarity_pairwise(queries, passages):
        import torch

        return (torch.as_tensor(queries) * torch.as_tensor(passages)).sum(1)


def last_return_of(owner, name):
    """Remembers when a function returned last."""
    function, last = getattr(owner, name), []

    def wrapped(*arguments, **named):
        result = function(*arguments, **named)
        last[:] = [time.perf_counter()]
        return result

    setattr(owner, name, wrapped)
    return last


def peer(folder):
    import datasets
    import faiss
    import torch
    from sentence_transformers.util import mine_hard_negatives

    datasets.disable_progress_bars()
    threads = int(os.environ["OMP_NUM_THREADS"])
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    source = folder / "source" / "en"
    corpus = [json.loads(line)["text"] for line in (source / "corpus.jsonl").open()]
    queries = [line.split("\t") for line in (source / "topics.train.tsv").read_text().splitlines()]
    pairs = {"query": [text for _, text in queries], "positive": [corpus[int(query[1:])] for query, _ in queries]}
    dataset, model = datasets.Dataset.from_dict(pairs), ReadyVectors(folder)
    scored = last_return_of(faiss.IndexFlatIP, "search")

    def repeat():
        shutil.rmtree(folder / "theirs", ignore_errors=True)
        start = time.perf_counter()
        mined = mine_hard_negatives(
            dataset,
            model,
            corpus=corpus,
            num_negatives=DEPTH,
            output_format="n-tuple",
            output_scores=True,
            use_faiss=True,
            verbose=False,
        )
        mined.save_to_disk(folder / "theirs")
        end = time.perf_counter()
        return {"seconds": end - start, "after_scores": end - scored[0]}

    side.serve({}, repeat)


def check(folder):
    """Equal lists, except where scores differ by less than rounding."""
    import datasets

    source = folder / "source" / "en"
    ids = {row["text"]: row["docid"] for row in map(json.loads, (source / "corpus.jsonl").open())}
    ours = [json.loads(line) for line in (folder / "mined" / "en.jsonl").open()]
    theirs = datasets.load_from_disk(str(folder / "theirs"))
    assert len(ours) == len(theirs), f"{len(ours)} queries, the peer has {len(theirs)}"
    equal = 0
    for mine, row in zip(ours, theirs):
        candidates = mine["candidates"]
        assert len(candidates) == DEPTH
        equal += [one["passage"] for one in candidates] == [ids[row[f"negative_{n}"]] for n in range(1, DEPTH + 1)]
        distance = np.abs(np.array([one["score"] for one in candidates]) - row["scores"][1:]).max()
        assert distance < 1e-5, f"{mine['query']}: scores differ by up to {distance}"
    assert equal > 0.99 * len(ours), f"only {equal} of {len(ours)} lists are equal"
    print(f"candidates: {equal} of {len(ours)} lists equal in every place, the scores of all up to rounding")


def main():
    parser = argparse.ArgumentParser(prog="benches/run mine", description=__doc__)
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = side.WORK / f"mine-{options.passages}-{options.queries}"
    if options.peer:
        return peer(folder)
    prepare(folder, options)
    sizes = ["--passages", options.passages, "--queries", options.queries]
    sides = [
        side.Side("ours", [*side.ours("mine"), "serve", folder, DEPTH], options.threads),
        side.Side("mine_hard_negatives", side.theirs(__file__, *sizes), options.threads, side.widest_blas()),
    ]
    side.interleave(sides, options.repeats)
    check(folder)
    name = "sentence-transformers mine_hard_negatives"
    for what, key in [("", "seconds"), (", after the scores", "after_scores")]:
        rates = [options.queries / one.median(key) for one in sides]
        side.line("mine", name + what, *rates, "queries/s", options.threads)
    memory = [one.median("memory") / 1e6 for one in sides]
    side.line("mine", name + ", memory", *memory, "MB beyond the mapped vectors", options.threads, lower_is_better=True)


if __name__ == "__main__":
    main()
