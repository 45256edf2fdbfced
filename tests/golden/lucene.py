"""Golden values for `text::analyse` and `index::bm25`: Lucene 9.9 itself, as Anserini 0.25 uses it for MIRACL.

    python3 -m venv oracle && . oracle/bin/activate && pip install jpype1==1.7.1
    pip download --no-deps pyserini==0.25.0 && unzip pyserini-0.25.0-*.whl 'pyserini/resources/jars/*'
    python tests/golden/lucene.py --jar pyserini/resources/jars/anserini-0.25.0-fatjar.jar --data ../shared/data/mini-miracl

Needs Java 17 (Debian `openjdk-17-jre-headless`; smaller run times lack the Thai dictionary). Writes into `tests/golden/lucene/`:

demo.jsonl             the questions and some passages of data/demo: language, text, terms
CHAIN.sentences.tsv    stretches of mini-MIRACL's passages: docid, first and last character (end excluded), and the first
                       16 bits of SHA-256 of every term in hexadecimal, so that the texts are not copied
CHAIN.rankings.tsv     dev queries of mini-MIRACL: query id, then docid=score of the 20 best
measures.tsv           chain, number of queries, nDCG@10 and Recall@100 of Lucene's runs over the dev queries

CHAIN is a language; `ja` is Lucene's CJKAnalyzer, `japanese` its JapaneseAnalyzer, which Anserini takes. demo.jsonl also has `fa-stemmed`: the terms of `fa` through PersianStemmer, as PersianAnalyzer has it since Lucene 10.
"""

import argparse
import gzip
import hashlib
import json
import math
import pathlib
import re

import jpype

LANGUAGES = "ar bn en es fa fi fr hi id ja ko ru sw te th zh".split()
# Chains beside those of the languages, and the language of their texts.
OTHERS = {"japanese": "ja"}
CHAINS = [*LANGUAGES, *OTHERS]
FIELD = "contents"
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def analyser(chain):
    """What Anserini's IndexCollection takes under `-language`; CJKAnalyzer for `ja`."""
    if chain == "en":
        return jpype.JClass("io.anserini.analysis.DefaultEnglishAnalyzer").newDefaultInstance()
    if chain == "sw":
        return jpype.JClass("org.apache.lucene.analysis.core.WhitespaceAnalyzer")()
    if chain == "ja":
        return jpype.JClass("org.apache.lucene.analysis.cjk.CJKAnalyzer")()
    return jpype.JClass("io.anserini.analysis.AnalyzerMap").getLanguageSpecificAnalyzer(OTHERS.get(chain, chain))


def terms(analyser, text):
    """All terms, empty ones too, which the index has and Anserini's AnalyzerUtils leaves out."""
    stream = analyser.tokenStream(FIELD, text)
    term = stream.addAttribute(jpype.JClass("org.apache.lucene.analysis.tokenattributes.CharTermAttribute").class_)
    stream.reset()
    found = []
    while stream.incrementToken():
        found.append(str(term.toString()))
    stream.end()
    stream.close()
    return found


def stemmed(terms):
    """Persian stems of the terms."""
    stemmer, found = jpype.JClass("org.apache.lucene.analysis.fa.PersianStemmer")(), []
    for term in terms:
        letters = jpype.JArray(jpype.JChar)(list(term))
        length = stemmer.stem(letters, len(letters))
        found.append("".join(map(str, letters[:length])))
    return found


def rows(path):
    with path.open(encoding="utf-8") as lines:
        return [line.rstrip("\n").split("\t") for line in lines]


def read(folder):
    opened = gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8")
    passages = [json.loads(line) for line in opened]
    qrels = {}
    for query, _, passage, grade in rows(folder / "qrels.dev.tsv"):
        if int(grade) > 0:
            qrels.setdefault(query, set()).add(passage)
    return passages, dict(rows(folder / "topics.dev.tsv")), qrels


def key(text):
    return hashlib.sha256(text.encode()).digest()


def sentences(passages, count):
    """Stretches of 20 to 200 characters, spread over the corpus by their digest, at most one a passage where possible."""
    found = []
    for passage in passages:
        for number, match in enumerate(re.finditer(r"[^.!?।。！？\n]{20,200}[.!?।。！？]?", passage["text"])):
            found.append((number // 2, key(match.group()), passage["docid"], match.span()))
    found.sort()
    return [(docid, span) for _, _, docid, span in found[:count]]


class Index:
    """BM25 as Anserini has it: title, line break and text in one field, k1 0.9, b 0.4, a repeated query term boosted."""

    def __init__(self, passages, analyser):
        java = lambda name: jpype.JClass("org.apache.lucene." + name)
        self.analyser, self.passages = analyser, passages
        similarity = java("search.similarities.BM25Similarity")(0.9, 0.4)
        configuration = java("index.IndexWriterConfig")(analyser)
        configuration.setSimilarity(similarity)
        directory = java("store.ByteBuffersDirectory")()
        writer = java("index.IndexWriter")(directory, configuration)
        no = java("document.Field").Store.NO
        for passage in passages:
            document = java("document.Document")()
            document.add(java("document.TextField")(FIELD, passage["title"] + "\n" + passage["text"], no))
            writer.addDocument(document)
        writer.forceMerge(1)
        writer.close()
        self.searcher = java("search.IndexSearcher")(java("index.DirectoryReader").open(directory))
        self.searcher.setSimilarity(similarity)
        self.query_of = jpype.JClass("io.anserini.search.query.BagOfWordsQueryGenerator")()

    def search(self, text, depth):
        """Best first, ties by docid as Anserini orders them, from all that match."""
        query = self.query_of.buildQuery(FIELD, self.analyser, text)
        hits = self.searcher.search(query, len(self.passages)).scoreDocs
        found = [(self.passages[hit.doc]["docid"], float(hit.score)) for hit in hits]
        return sorted(found, key=lambda hit: (-hit[1], hit[0]))[:depth]


def ndcg(ranking, relevant):
    gain = sum(1 / math.log2(rank + 2) for rank, (docid, _) in enumerate(ranking[:10]) if docid in relevant)
    return gain / sum(1 / math.log2(rank + 2) for rank in range(min(10, len(relevant))))


def dump(chain, data, out):
    passages, queries, qrels = read(data / OTHERS.get(chain, chain))
    by_id = {passage["docid"]: passage["text"] for passage in passages}
    chain_analyser = analyser(chain)
    with (out / f"{chain}.sentences.tsv").open("w", encoding="utf-8") as file:
        for docid, (start, end) in sentences(passages, 250):
            digests = (key(term)[:2].hex() for term in terms(chain_analyser, by_id[docid][start:end]))
            print(docid, start, end, "".join(digests), sep="\t", file=file)
    index = Index(passages, chain_analyser)
    runs = {query: index.search(text, 100) for query, text in queries.items()}
    chosen = sorted(runs, key=key)[:32]
    with (out / f"{chain}.rankings.tsv").open("w", encoding="utf-8") as file:
        for query in chosen:
            print(query, *(f"{docid}={score:.9g}" for docid, score in runs[query][:20]), sep="\t", file=file)
    mean = lambda measure: sum(measure(runs[query], qrels[query]) for query in qrels) / len(qrels)
    recall = lambda run, relevant: sum(docid in relevant for docid, _ in run) / len(relevant)
    return f"{chain}\t{len(qrels)}\t{mean(ndcg):.4f}\t{mean(recall):.4f}"


def dump_demo(out):
    with (out / "demo.jsonl").open("w", encoding="utf-8") as file:
        for chain in CHAINS:
            folder, chain_analyser = REPOSITORY / "data/demo" / OTHERS.get(chain, chain), analyser(chain)
            texts = [text for split in ("train", "dev") for _, text in rows(folder / f"topics.{split}.tsv")]
            with (folder / "corpus.jsonl").open(encoding="utf-8") as lines:
                texts += [json.loads(line)["text"] for line in lines][::6]
            for text in texts:
                found = {chain: terms(chain_analyser, text)}
                if chain == "fa":
                    found["fa-stemmed"] = stemmed(found[chain])
                for name, row_terms in found.items():
                    row = {"chain": name, "text": text, "terms": row_terms}
                    print(json.dumps(row, ensure_ascii=False), file=file)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--jar", required=True)
    parser.add_argument("--data", required=True, type=pathlib.Path)
    parser.add_argument("--show", nargs=2, metavar=("CHAIN", "TEXT"), help="print the terms of a text and stop")
    parser.add_argument("--chains", nargs="*", default=CHAINS, help="only these, and demo.jsonl")
    arguments = parser.parse_args()
    jpype.startJVM("-Xmx2g", "-Dlog4j2.level=ERROR", classpath=[arguments.jar], convertStrings=True)
    if arguments.show:
        print(*terms(analyser(arguments.show[0]), arguments.show[1]), sep="\n")
        return
    out = REPOSITORY / "tests/golden/lucene"
    out.mkdir(exist_ok=True)
    dump_demo(out)
    measures = []
    for chain in arguments.chains:
        measures.append(dump(chain, arguments.data, out))
        print(measures[-1], flush=True)
    if arguments.chains == CHAINS:
        (out / "measures.tsv").write_text("\n".join(measures) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
