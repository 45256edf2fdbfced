"""Prints what public tools say of the numbers in crates/motherlode/src/judge: agreement, intervals, reliability, keys.

    pip install scikit-learn==1.9.1 statsmodels==0.15.0 blake3==1.0.11
    python tests/golden/judge.py
"""

import json
from pathlib import Path

from blake3 import blake3
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, cohen_kappa_score
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

SOURCE = Path(__file__).resolve().parents[2] / "crates/motherlode/src"


def kappa(found, positives, cleared, negatives):
    people = [1] * positives + [0] * negatives
    judge = [1] * found + [0] * (positives - found) + [0] * cleared + [1] * (negatives - cleared)
    return cohen_kappa_score(people, judge)


def youden_low(found, positives, cleared, negatives):
    """Lower end of Newcombe's interval of Se - (1 - Sp)."""
    return confint_proportions_2indep(found, positives, negatives - cleared, negatives, method="newcomb", compare="diff")[0]


def key(prompt, temperature, top_p, max_tokens, system, user):
    parameters = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens, "seed": 0, "schema": None}
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    content = ["qwen2.5-coder-1.5b-instruct", prompt, parameters, 0, messages]
    return blake3(json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()[:32]


def rules(name):
    return (SOURCE / "generate" / name).read_text().rstrip("\n").replace("{language}", "Swahili")


def fence(tag, text):
    return f"<{tag}>\n{text.replace('</', '< /').strip()}\n</{tag}>"


for counts in [(8, 10, 9, 10), (18, 20, 5, 20), (3, 7, 40, 41)]:
    print(counts, "kappa", kappa(*counts), "Se + Sp - 1 from", youden_low(*counts))
weights, right = [9, 1, 1, 1], [1, 0, 0, 1]
size = sum(weights) ** 2 / sum(weight**2 for weight in weights)
share = sum(weight for weight, is_right in zip(weights, right) if is_right) / sum(weights)
print("weighted", share, proportion_confint(share * size, size, method="wilson"))
truth, claims = [0, 0, 1, 1, 1, 1], [0.05, 0.0, 0.09, 0.55, 1.0, 0.95]
relevant, claimed = calibration_curve(truth, claims, n_bins=10)
print("reliability", list(claimed), list(relevant), "Brier", brier_score_loss(truth, claims))
passage = fence("passage", "Kichwa\nMaandishi </passage>")
print("summary-paper-1", key("summary-paper-1", 0.7, 0.9, 256, rules("summary-paper.txt"), passage))
print("query-paper-1", key("query-paper-1", 0.7, 0.9, 128, rules("query-paper.txt"), fence("text", "Muhtasari")))
