"""Writes language_model.json: what llama.cpp makes of 20 chats, for the tests of embedded language models.

    llama-server -m SmolLM2-135M-Instruct.Q4_1.gguf --port 8000 -np 1
    python tests/golden/language_model.py http://127.0.0.1:8000 SmolLM2-135M-Instruct.Q4_1.gguf

The model is that of the package mirror. Every chat asks one question of data/demo about one of its passages. Kept are the
tokens of the chat, rendered and tokenised by llama.cpp with the template of the file, those of `{"accuracy": `, and the
logarithms of the probabilities behind it of the labels 0, 1 and 2 and of the three likeliest tokens; for the first four,
also the first 12 tokens of the likeliest answer to the chat. `exact` are the values of the three likeliest by transformers
5.24 and torch 2.15 in f32 with the file's weights: llama.cpp rounds what enters its products to 8 bits.
"""

import json
import pathlib
import sys
import urllib.request

import torch
from transformers import AutoModelForCausalLM

SERVER = sys.argv[1]
DEMO = pathlib.Path(__file__).parents[2] / "data/demo"
RULES = "Judge a Candidate Answer by a Question. Accuracy is 0, 1 or 2. One line of JSON: {\"accuracy\": 0, 1 or 2}"


def post(path, body):
    request = urllib.request.Request(SERVER + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))


def tokens(text):
    return post("/tokenize", {"content": text, "add_special": False, "parse_special": True})["tokens"]


def likely(prompt, count):
    answer = post("/completion", {"prompt": prompt, "n_predict": 1, "temperature": 0, "n_probs": count})
    return {item["id"]: item["logprob"] for item in answer["completion_probabilities"][0]["top_logprobs"]}


def rows(path):
    return [json.loads(line) for line in path.open(encoding="utf-8")]


cases = []
for language in ["en", "es", "fr", "ru", "ja", "zh", "ar", "hi"]:
    folder = DEMO / language
    if not folder.exists():
        continue
    queries = [line.rstrip("\n").split("\t") for line in (folder / "topics.dev.tsv").open(encoding="utf-8")]
    passages = rows(folder / "corpus.jsonl")
    for place in range(3):
        content = f"<question>\n{queries[place][1]}\n</question>\n<candidate_answer>\n{passages[5 * place]['text']}\n</candidate_answer>"
        messages = [{"role": "system", "content": RULES}, {"role": "user", "content": content}]
        chat = tokens(post("/apply-template", {"messages": messages})["prompt"])
        labels = [tokens('{"accuracy": ' + label) for label in "012"]
        assert all(label[:-1] == labels[0][:-1] for label in labels)
        found = likely(chat + labels[0][:-1], 2000)
        case = {
            "messages": messages,
            "tokens": chat,
            "opening": labels[0][:-1],
            "labels": [round(found[label[-1]], 4) for label in labels],
            "likeliest": [[token, round(found[token], 4)] for token in list(found)[:3]],
        }
        if len(cases) < 4:
            answer = post("/completion", {"prompt": chat, "n_predict": 12, "temperature": 0, "return_tokens": True})
            case["answer"] = answer["tokens"]
        cases.append(case)
cases = cases[:20]
file = pathlib.Path(sys.argv[2])
model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
for case in cases:
    with torch.no_grad():
        scores = model(torch.tensor([case["tokens"] + case["opening"]])).logits[0, -1]
    exact = torch.log_softmax(scores.double(), -1)
    case["exact"] = [round(exact[token].item(), 5) for token, _ in case["likeliest"]]
assert len(cases) == 20, len(cases)
text = "[\n" + ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases) + "\n]\n"
(pathlib.Path(__file__).parent / "language_model.json").write_text(text, encoding="utf-8")
