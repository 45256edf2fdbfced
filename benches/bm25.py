"""BM25 beside Lucene and bm25s: making an index of a corpus, and searching it for the 100 best of all queries.

Lucene is the one of Anserini 0.25 with the same analyser. Its index is made by IndexCollection and measured without the
merge into one segment; its search, by whichever is faster of IndexSearcher in a pool of threads and Anserini's batch
search, is measured on one segment. bm25s takes the terms that our analyser makes of the texts, so that it only splits
at spaces, and is compared with our search less its analysis; it searches with its numba backend. All three write their
index to disk and read passages from there. Scores must equal Lucene's, and nDCG@10 on the dev queries that of both
peers: of Lucene within 0.002, of bm25s, which does not round the lengths of passages, within 0.005, and
on a large corpus no less than 0.005 below.

The large corpus is made of a language's real passages: they themselves, and then passages of which every other sentence,
at random, is one of another passage, with a pair of neighbouring characters in 60 swapped.
"""

import argparse
import concurrent.futures
import gzip
import itertools
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import side
import texts

DEPTH, K1, B = 100, 0.9, 0.4
FOLDER = side.WORK / "bm25"
# Anserini's analysers by language; that of zh is Lucene's CJKAnalyzer, our chain for ja.
ANALYSERS = {"ja": "zh"}
PYSERINI = "pyserini==0.25.0"
HEAP = "-Xmx6g"
LARGE_REPEATS = 2


def rows(path):
    return [line.split("\t") for line in path.read_text().split("\n")[:-1]]


def language_of(folder):
    return next(entry.name for entry in (folder / "source").iterdir())


# Making the corpora.


def real_passages(data, language):
    path = data / language / "corpus.jsonl"
    opened = path.open() if path.exists() else gzip.open(path.with_suffix(".jsonl.gz"), "rt")
    with opened as lines:
        return [json.loads(line) for line in lines]


def perturbed(passages, count):
    """The passages, then others made of them until there are so many."""
    yield from passages
    keyed = random.Random(1)
    sentences = [re.findall(r"[^.!?。！？؟]+[.!?。！？؟]*", passage["text"]) for passage in passages]
    for number in range(len(passages), count):
        base = number % len(passages)
        other = lambda: keyed.choice(sentences[int(keyed.random() * len(passages))] or [""])
        text = "".join(sentence if keyed.random() < 0.5 else other() for sentence in sentences[base])
        letters = list(text)
        for _ in range(len(letters) // 60):
            place = int(keyed.random() * (len(letters) - 1))
            letters[place : place + 2] = letters[place : place + 2][::-1]
        text = "".join(letters).strip() or passages[base]["text"]
        yield {"docid": f"made-{number}", "title": passages[base]["title"], "text": text}


def write_corpus(folder, data, language, count):
    """The corpus for all sides: MIRACL's layout for ours, Anserini's in eight files for Lucene, ids for bm25s."""
    source = folder / "source" / language
    for made in (source, folder / "lucene"):
        made.mkdir(parents=True)
    for split, kind in itertools.product(("train", "dev"), ("topics", "qrels")):
        shutil.copy(data / language / f"{kind}.{split}.tsv", source)
    parts = [(folder / "lucene" / f"part-{number}.jsonl").open("w") for number in range(8)]
    real = real_passages(data, language)
    with (source / "corpus.jsonl").open("w") as corpus, (folder / "ids").open("w") as ids:
        for number, passage in enumerate(perturbed(real, max(count, len(real)))):
            corpus.write(json.dumps(passage, ensure_ascii=False) + "\n")
            ids.write(passage["docid"] + "\n")
            contents = {"id": passage["docid"], "contents": passage["title"] + "\n" + passage["text"]}
            parts[number % len(parts)].write(json.dumps(contents, ensure_ascii=False) + "\n")
    for part in parts:
        part.close()


def prepare(folder, data, language, count):
    if not folder.exists():
        print(f"making {folder.name}", flush=True)
        unfinished = folder.with_name("unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        write_corpus(unfinished, data, language, count)
        unfinished.rename(folder)


# Lucene.


def jar():
    """Anserini's jar, from the package that carries it."""
    path = FOLDER / "anserini-0.25.0-fatjar.jar"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", FOLDER, PYSERINI], check=True)
        with zipfile.ZipFile(next(FOLDER.glob("pyserini-*.whl"))) as wheel, path.with_suffix(".part").open("wb") as output:
            shutil.copyfileobj(wheel.open(f"pyserini/resources/jars/{path.name}"), output)
        path.with_suffix(".part").rename(path)
    return path


def start_java(folder):
    import jpype

    if not shutil.which("java"):
        sys.exit("expected Java 17; install openjdk-17-jre-headless")
    # What Java prints is no answer of this side.
    sys.stdout = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(folder / "java.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    jpype.startJVM(HEAP, "-Dlog4j2.level=ERROR", classpath=[str(jar())], convertStrings=True)
    return jpype.JClass


def bytes_in(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def lucene_indexer(java, folder, threads):
    collection = java("io.anserini.index.IndexCollection")
    language = language_of(folder)
    options = ["-collection", "JsonCollection", "-generator", "DefaultLuceneDocumentGenerator", "-quiet"]
    options += ["-input", folder / "lucene", "-threads", threads, "-language", ANALYSERS.get(language, language)]

    def index(name, *more):
        shutil.rmtree(folder / name, ignore_errors=True)
        collection.main([str(option) for option in [*options, "-index", folder / name, *more]])
        return bytes_in(folder / name)

    return index


def lucene_index(folder, threads):
    index = lucene_indexer(start_java(folder), folder, threads)

    def repeat():
        start = time.perf_counter()
        size = index("lucene-index")
        return {"seconds": time.perf_counter() - start, "bytes": size}

    side.serve({}, repeat)


def lucene_search(folder, threads):
    java = start_java(folder)
    if not (folder / "lucene-merged").exists():
        lucene_indexer(java, folder, threads)("lucene-merged", "-optimize")
    language = language_of(folder)
    analyser = java("io.anserini.analysis.AnalyzerMap").getLanguageSpecificAnalyzer(ANALYSERS.get(language, language))
    directory = java("org.apache.lucene.store.FSDirectory").open(java("java.nio.file.Path").of(str(folder / "lucene-merged")))
    searcher = java("org.apache.lucene.search.IndexSearcher")(java("org.apache.lucene.index.DirectoryReader").open(directory))
    searcher.setSimilarity(java("org.apache.lucene.search.similarities.BM25Similarity")(K1, B))
    generator = java("io.anserini.search.query.BagOfWordsQueryGenerator")()
    batch = java("io.anserini.search.SimpleSearcher")(str(folder / "lucene-merged"), analyser)
    batch.set_bm25(K1, B)
    dev, train = (rows(folder / "source" / language / f"topics.{split}.tsv") for split in ("dev", "train"))
    names, queries = zip(*dev, *train)
    strings = lambda items: java("java.util.ArrayList")(java("java.util.Arrays").asList(list(items)))
    java_names, java_queries = strings(names), strings(queries)
    pool = concurrent.futures.ThreadPoolExecutor(threads)
    one = lambda text: searcher.search(generator.buildQuery("contents", analyser, text), DEPTH)

    def timed(work):
        start = time.perf_counter()
        found = work()
        return time.perf_counter() - start, found

    ways = {
        "IndexSearcher": lambda: list(pool.map(one, queries)),
        "batch search": lambda: batch.batch_search(java_queries, java_names, DEPTH, threads),
    }
    seconds = {name: min(timed(way)[0] for _ in range(3)) for name, way in ways.items()}
    fastest = min(seconds, key=seconds.get)
    hits = ways["IndexSearcher"]()[: len(dev)]
    stored = searcher.storedFields()
    docid = lambda hit: stored.document(hit.doc).get("id")
    write_run(folder / "lucene.trec", {
        name: [(docid(hit), float(hit.score)) for hit in found.scoreDocs] for (name, _), found in zip(dev, hits)
    })
    way = f"{fastest} of {', '.join(f'{name} {value:.3f} s' for name, value in seconds.items())}"
    side.serve({"queries": len(queries), "way": way}, lambda: {"seconds": timed(ways[fastest])[0]})


# bm25s.


def bm25s_index(folder, threads):
    import bm25s

    def repeat():
        start = time.perf_counter()
        with (folder / "passages.terms").open(newline="\n") as lines:
            passages = [line[:-1] for line in lines]
        read = time.perf_counter()
        tokens = bm25s.tokenize(passages, lower=False, token_pattern="[^ ]+", stopwords=[], show_progress=False)
        retriever = bm25s.BM25(k1=K1, b=B, method="lucene", backend="numba")
        retriever.index(tokens, show_progress=False)
        shutil.rmtree(folder / "bm25s-index", ignore_errors=True)
        retriever.save(str(folder / "bm25s-index"))
        end = time.perf_counter()
        return {"seconds": end - start, "after_reading": end - read, "bytes": bytes_in(folder / "bm25s-index")}

    side.serve({}, repeat)


def bm25s_search(folder, threads):
    import bm25s

    retriever = bm25s.BM25.load(str(folder / "bm25s-index"))
    retriever.backend = "numba"
    with (folder / "queries.terms").open(newline="\n") as lines:
        # It has an id for the empty term, but no postings, and reads beyond its arrays where a query has one.
        queries = [retriever.get_tokens_ids([term for term in line[:-1].split(" ") if term]) for line in lines]
    dev = rows(folder / "source" / language_of(folder) / "topics.dev.tsv")
    ids = (folder / "ids").read_text().split("\n")

    def repeat():
        start = time.perf_counter()
        found = retriever.retrieve(queries, k=DEPTH, n_threads=threads, backend_selection="numba", show_progress=False)
        seconds = time.perf_counter() - start
        if not (folder / "bm25s.trec").exists():
            pairs = ([(ids[place], score) for place, score in zip(*pair)] for pair in zip(found.documents, found.scores))
            write_run(folder / "bm25s.trec", {name: pair for (name, _), pair in zip(dev, pairs)})
        return {"seconds": seconds}

    (folder / "bm25s.trec").unlink(missing_ok=True)
    side.serve({"queries": len(queries)}, repeat)


# Comparing.


def write_run(path, rankings):
    with path.open("w") as output:
        for query, hits in rankings.items():
            ordered = sorted(hits, key=lambda hit: (hit[1], hit[0]), reverse=True)
            output.writelines(f"{query} Q0 {docid} {rank} {score:.9g} x\n" for rank, (docid, score) in enumerate(ordered, 1))


def read_run(path):
    rankings = {}
    for line in path.read_text().splitlines():
        query, _, docid, _, score, _ = line.split()
        rankings.setdefault(query, []).append((docid, float(score)))
    return rankings


def ndcg(ranking, relevant):
    gain = sum(1 / math.log2(rank + 2) for rank, (docid, _) in enumerate(ranking[:10]) if docid in relevant)
    return gain / sum(1 / math.log2(rank + 2) for rank in range(min(10, len(relevant))))


def check(folder):
    """Compares scores with Lucene's and nDCG@10 with both; runs are read anew, equal scores by id."""
    relevant = {}
    for query, _, docid, grade in rows(folder / "source" / language_of(folder) / "qrels.dev.tsv"):
        if int(grade) > 0:
            relevant.setdefault(query, set()).add(docid)
    runs = {name: read_run(folder / f"{name}.trec") for name in ("ours", "lucene", "bm25s")}
    equal = sum(
        len(ours) == len(runs["lucene"].get(query, []))
        and all(abs(a - b) <= 1e-6 * b for (_, a), (_, b) in zip(ours, runs["lucene"][query]))
        for query, ours in runs["ours"].items()
    )
    means = {
        name: sum(ndcg(run.get(query, []), docids) for query, docids in relevant.items()) / len(relevant)
        for name, run in runs.items()
    }
    values = ", ".join(f"{name} {value:.4f}" for name, value in means.items())
    print(f"{equal} of {len(runs['ours'])} dev queries have Lucene's scores; nDCG@10: {values}", flush=True)
    assert equal >= 0.99 * len(runs["ours"]), "other scores than Lucene's"
    assert abs(means["ours"] - means["lucene"]) <= 0.002, "another nDCG@10 than Lucene's"
    above = means["ours"] - means["bm25s"]
    # A large corpus is full of passages that differ by a few words: there, the lengths it does not round cost bm25s 0.02.
    is_large = folder.name != language_of(folder)
    assert -0.005 <= above and (is_large or above <= 0.005), "another nDCG@10 than that of bm25s"
    return means["ours"]


# Measuring.

PEERS = {("lucene", "index"): lucene_index, ("lucene", "search"): lucene_search}
PEERS |= {("bm25s", "index"): bm25s_index, ("bm25s", "search"): bm25s_search}


def measure(folder, options, repeats):
    """Both parts on one corpus; the lines for the peers."""
    terms = side.ours("bm25")
    ours = {
        "index": [*terms, "index", folder / "source", folder, options.memory << 20],
        "search": [*terms, "search", folder, DEPTH],
    }
    lines = []
    for part in options.parts:
        sides = [side.Side("ours", ours[part], options.threads)]
        if part == "index":
            # The terms for bm25s come from the data set of a first index.
            sides[0].repeat()
            subprocess.run([*terms, "terms", folder], check=True)
        for name in ("lucene", "bm25s"):
            command = side.theirs(__file__, name, part, "--folder", folder, "--threads", options.threads)
            sides.append(side.Side(name, command, options.threads))
            print(sides[-1].ready.get("way", ""), end="\n" * ("way" in sides[-1].ready), flush=True)
        side.interleave(sides, repeats)
        rate, most = lambda one: count / one.median(), lambda one: max(answer["most_memory"] for answer in one.answers)
        count = sides[0].ready.get("queries") or len((folder / "ids").read_text().split("\n")) - 1
        for one in sides:
            size = f", an index of {one.median('bytes') / 1e6:.0f} MB" if part == "index" else ""
            print(f"{one.name}: {most(one) / 1e6:.0f} MB of memory at most, mapped files apart{size}", flush=True)
        unit = "passages/s" if part == "index" else "queries/s"
        for peer in sides[1:]:
            memory = {"memory": most(sides[0]), "their_memory": most(peer)}
            name, of_ours = f"{peer.name}, {folder.name}", rate(sides[0])
            if (part, peer.name) == ("search", "bm25s"):
                # Its queries are analysed already.
                name, of_ours = f"{name}, without analysis", count / (sides[0].median() - sides[0].median("analysis"))
            lines.append((f"bm25-{part}", name, of_ours, rate(peer), unit, memory))
    if "search" in options.parts:
        check(folder)
    return lines


def main():
    parser = argparse.ArgumentParser(prog="benches/run bm25", description=__doc__)
    texts.add_option(parser)
    parser.add_argument("--languages", nargs="*", default=["ja", "fa"], help="corpora as they are")
    parser.add_argument("--large", nargs="*", default=["fa"], help="corpora made large")
    parser.add_argument("--passages", type=int, default=1_000_000, help="of a large corpus")
    parser.add_argument("--memory", type=int, default=1024, help="MiB for our index; Java has a heap of 6 GiB")
    parser.add_argument("--parts", nargs="*", choices=("index", "search"), default=["index", "search"], help="search needs indexes")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=7, help=f"at most {LARGE_REPEATS} on a large corpus")
    parser.add_argument("--peer", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        return PEERS[tuple(options.peer)](options.folder, options.threads)
    jar()
    lines = []
    corpora = [(language, language, 0, options.repeats) for language in options.languages]
    for language in options.large:
        name = f"{language}-{options.passages}"
        corpora.append((name, language, options.passages, min(options.repeats, LARGE_REPEATS)))
    for name, language, count, repeats in corpora:
        print(f"\n{name}", flush=True)
        prepare(FOLDER / name, options.data, language, count)
        lines += measure(FOLDER / name, options, repeats)
    for bench, peer, ours, theirs, unit, memory in lines:
        side.line(bench, peer, ours, theirs, unit, options.threads, **memory)


if __name__ == "__main__":
    main()
