"""Embedded language models beside llama.cpp's server: the same file, the same threads, the same chats.

`judge`: 8 questions with 8 candidate passages each, which share the rules and the question; an answer is two grades.
`write`: 16 passages, of which a summary of at most 48 tokens is written. Both sides answer through the same ledger; the
server is given as many slots as its threads serve best. It must be there: `--server` names the binary, `--model` the GGUF
file (`motherlode fetch file --set file.name=Qwen2.5-Coder-1.5B-Instruct --out model.gguf`). Printed are pairs and texts a
second; answers are compared, and may differ where two labels are as likely.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request

import side

RULES = side.ROOT / "crates/motherlode/src/judge/prompt.txt"
LANGUAGES = ["en", "es", "fi", "fr", "id", "ru", "sw", "zh"]


def lines(path):
    return path.read_text(encoding="utf-8").splitlines()


def work(kind):
    """The chats of one kind, from the corpus of the demo."""
    groups = []
    for language in LANGUAGES:
        folder = side.ROOT / "data/demo" / language
        passages = [json.loads(line)["text"] for line in lines(folder / "corpus.jsonl")]
        question = lines(folder / "topics.dev.tsv")[0].split("\t")[1]
        if kind == "judge":
            begin = f"<question>\n{question}\n</question>\n<standard_answer>\n{passages[0]}\n</standard_answer>\n"
            users = [f"{begin}<candidate_answer>\n{passage}\n</candidate_answer>" for passage in passages[1:9]]
            groups.append([[{"role": "system", "content": RULES.read_text()}, {"role": "user", "content": user}] for user in users])
        else:
            tasks = [f"Summarise in one sentence, in its own language:\n{passage}" for passage in passages[9:11]]
            groups += [[[{"role": "user", "content": task}]] for task in tasks]
    grade = {"type": "integer", "enum": [0, 1, 2]}
    names = ["accuracy", "completeness"]
    schema = {"type": "object", "properties": dict.fromkeys(names, grade), "required": names, "additionalProperties": False}
    return {"groups": groups, "schema": schema if kind == "judge" else None, "max_tokens": 32 if kind == "judge" else 48}


def start_server(options):
    """The server on a free port, once it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    slots, threads = str(options.slots), str(options.threads)
    arguments = ["-m", options.model, "--port", str(port), "-t", threads, "-tb", threads, "-np", slots]
    arguments += ["-c", str(4096 * options.slots), "--no-webui"]
    process = subprocess.Popen([options.server, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            urllib.request.urlopen(address + "/health")
            return process, address
        except OSError:
            time.sleep(1)
    sys.exit("the server did not become ready")


def measure(kind, options, address):
    folder = side.WORK / "language-model"
    folder.mkdir(parents=True, exist_ok=True)
    chats = folder / f"{kind}.json"
    chats.write_text(json.dumps(work(kind)), encoding="utf-8")
    outs = [folder / f"{kind}-{name}.json" for name in ("ours", "theirs")]
    example = side.ours("language_model")
    sides = [side.Side("ours", [*example, options.model, chats, outs[0]], options.threads)]
    sides.append(side.Side("llama.cpp", [*example, address, chats, outs[1]], options.threads))
    side.interleave(sides, options.repeats)
    count = sum(len(group) for group in json.loads(chats.read_text())["groups"])
    rates = [count / one.median() for one in sides]
    texts = [json.loads(out.read_text()) for out in outs]
    equal = sum(json.loads(a) == json.loads(b) for a, b in zip(*texts)) if kind == "judge" else None
    for one in sides:
        print(f"{one.name}: {one.answers[-1]['prompt_tokens']} prompt tokens, {one.answers[-1]['completion_tokens']} written")
    if equal is not None:
        print(f"{equal} of {count} verdicts equal")
        assert equal >= 0.8 * count, "the verdicts differ"
    unit = "pairs/s" if kind == "judge" else "texts/s"
    side.line("language-model", f"llama.cpp, {kind}", rates[0], rates[1], unit, options.threads)


def main():
    parser = argparse.ArgumentParser(prog="benches/run language-model", description=__doc__)
    parser.add_argument("--model", required=True, help="a GGUF file")
    parser.add_argument("--server", required=True, help="llama.cpp's llama-server")
    parser.add_argument("--slots", type=int, default=4, help="texts that the server continues together")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    process, address = start_server(options)
    try:
        for kind in ("judge", "write"):
            measure(kind, options, address)
    finally:
        process.terminate()


if __name__ == "__main__":
    main()
