"""Does a model that `instruct` tuned give the same scores in peft and transformers as in Motherlode?

    python -m venv venv && venv/bin/pip install torch==2.15.0 transformers==5.24.0 peft==0.21.2
    cargo build --release -p motherlode-engine --example scores
    venv/bin/python tests/scripts/same_scores.py MODEL ARTEFACT target/release/examples/scores

MODEL is the folder that was tuned, ARTEFACT what `instruct` made of it with `instruct.merge = true`. The scores of the next
token after the questions of the artefact's instructions are compared: of the base model with the adapter laid over by peft,
of the merged model in transformers, and of the merged model in Motherlode. Exits with 1 if a cosine is below 0.9999, or if
the adapter changes nothing.
"""

import json
import subprocess
import sys
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

LIMIT = 0.9999
TEXTS = 16


def questions(artefact: Path) -> list[str]:
    """Questions of all languages in turns."""
    lines = (artefact / "instructions.jsonl").read_text().splitlines()
    read = [json.loads(line) for line in lines]
    step = max(1, len(read) // TEXTS)
    return ["\n\n".join(part for part in (it["instruction"], it["input"]) if part) for it in read[::step]]


def scores(model: torch.nn.Module, texts: list[list[int]]) -> torch.Tensor:
    """Texts × vocabulary."""
    model.eval()
    with torch.no_grad():
        return torch.stack([model(torch.tensor([ids])).logits[0, -1].float() for ids in texts])


def lowest_cosine(left: torch.Tensor, right: torch.Tensor) -> float:
    return torch.nn.functional.cosine_similarity(left, right).min().item()


def main(model: Path, artefact: Path, program: str) -> int:
    tokenizer = AutoTokenizer.from_pretrained(artefact / "merged")
    chats = [[{"role": "user", "content": question}] for question in questions(artefact)]
    texts = [tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False) for chat in chats]
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    untouched = scores(base, texts)
    adapted = scores(PeftModel.from_pretrained(base, artefact / "adapter"), texts)
    merged = scores(AutoModelForCausalLM.from_pretrained(artefact / "merged", dtype=torch.float32), texts)
    given = "\n".join(json.dumps(ids) for ids in texts)
    said = subprocess.run([program, str(artefact / "merged")], input=given, capture_output=True, text=True, check=True)
    ours = torch.tensor([json.loads(line) for line in said.stdout.splitlines()])
    lowest = {"peft": lowest_cosine(ours, adapted), "transformers": lowest_cosine(ours, merged)}
    change = (adapted - untouched).abs().max().item()
    print(f"{len(texts)} texts, lowest cosine {lowest}, expected at least {LIMIT}; the adapter moves scores by up to {change:.3f}")
    return 0 if min(lowest.values()) >= LIMIT and change > 1e-3 else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
