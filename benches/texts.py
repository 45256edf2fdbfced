"""The texts that benches read: mini-MIRACL where it lies beside the project, the demo's passages otherwise."""

import gzip
import json
from pathlib import Path

import side


def add_option(parser):
    beside = side.ROOT.parent / "shared" / "data" / "mini-miracl"
    default = beside if beside.is_dir() else side.ROOT / "data" / "demo"
    parser.add_argument("--data", type=Path, default=default, help="a data set in MIRACL's layout (default: %(default)s)")


def languages(data):
    return sorted(entry.name for entry in data.iterdir() if entry.is_dir())


def corpus(data, language):
    """Id and text, title first, of every passage."""
    path = data / language / "corpus.jsonl"
    if not path.exists():
        path = path.with_suffix(".jsonl.gz")
    opened = gzip.open(path, "rt") if path.suffix == ".gz" else path.open()
    with opened as lines:
        rows = [json.loads(line) for line in lines]
    return {row["docid"]: f"{row['title']} {row['text']}".strip() for row in rows}


def train_pairs(data, language):
    """Query text and id of a positive, for every train query."""
    rows = lambda name: [line.split("\t") for line in (data / language / name).read_text().splitlines()]
    positives = {}
    for query, _, passage, grade in rows("qrels.train.tsv"):
        if int(grade) > 0:
            positives.setdefault(query, passage)
    return [(text, positives[query]) for query, text in rows("topics.train.tsv") if query in positives]


def spread(items, count):
    """So many of the items, at even distances."""
    count = min(count, len(items))
    return [items[place * len(items) // count] for place in range(count)]
