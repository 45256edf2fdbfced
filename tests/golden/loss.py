"""Golden values for crates/motherlode/src/train/loss.rs: the loss written with PyTorch, its gradient by autograd.

    python tests/golden/loss.py > tests/golden/loss.json        (torch 2.11.0, float64)

The inputs are sines of running numbers, so that the Rust test can make the same ones.
"""

import json

import torch
import torch.nn.functional as F

ROWS, COLUMNS, DIMENSION = 3, 7, 8
POSITIVES = [0, 2, 5]
NEGATIVES = [[1, 6], [3, 4], [6, 3]]
MASKED = [[2], [], [0, 1]]
TEACHER = [[0.9, 0.3, None], [0.8, 0.7, 0.1], []]

BASE = dict(similarity="cosine", temperature=0.3, reading="none", matryoshka=[], distillation=None, query_negatives=False)
CASES = {
    "cosine": {},
    "sharp cosine": dict(temperature=0.02),
    "dot": dict(similarity="dot", temperature=1.0),
    "negative": dict(reading="negative"),
    "query": dict(reading="query"),
    "paper-mean": dict(reading="paper-mean"),
    "matryoshka": dict(matryoshka=[[2, 0.5], [5, 1.0]]),
    "distillation": dict(distillation=[0.7, 0.4]),
    "query negatives": dict(query_negatives=True, reading="negative"),
    "all": dict(matryoshka=[[4, 0.25]], distillation=[0.5, 0.2], query_negatives=True, reading="paper-mean"),
    "all by query": dict(similarity="dot", matryoshka=[[3, 2.0]], distillation=[0.5, 0.2], query_negatives=True, reading="query"),
}


def sines(rows, columns, phase):
    numbers = torch.arange(rows * columns, dtype=torch.float64).reshape(rows, columns)
    return torch.sin(numbers * 1.7 + phase).to(torch.float32).to(torch.float64)


def prefix_loss(queries, passages, column_weights, row_weights, case):
    if case["similarity"] == "cosine":
        queries, passages = F.normalize(queries, dim=1), F.normalize(passages, dim=1)
    logits = queries @ passages.T / case["temperature"]
    between = queries @ queries.T / case["temperature"]
    losses = []
    for row in range(ROWS):
        excluded = set(MASKED[row]) | {POSITIVES[row]}
        columns = [column for column in range(COLUMNS) if column not in excluded]
        negatives, weights = logits[row, columns], column_weights[columns]
        factor = {"query": row_weights[row], "paper-mean": weights.mean()}.get(case["reading"], torch.tensor(1.0))
        if case["query_negatives"]:
            others = [o for o in range(ROWS) if o != row and POSITIVES[o] != POSITIVES[row] and POSITIVES[o] not in MASKED[row]]
            negatives = torch.cat([negatives, between[row, others]])
            weights = torch.cat([weights, row_weights[others]])
        if case["reading"] == "negative":
            negatives = negatives + weights.log()
        all_logits = torch.cat([logits[row, [POSITIVES[row]]], negatives])
        loss = F.cross_entropy(all_logits[None], torch.tensor([0]))
        if case["distillation"]:
            weight, temperature = case["distillation"]
            own = zip([POSITIVES[row], *NEGATIVES[row]], TEACHER[row])
            group = [(column, score) for column, score in own if score is not None and column not in MASKED[row]]
            if len(group) > 1:
                student = F.log_softmax(logits[row, [column for column, _ in group]], 0)
                teacher = F.softmax(torch.tensor([score for _, score in group], dtype=torch.float64) / temperature, 0)
                loss = loss + weight * F.kl_div(student, teacher, reduction="sum")
        losses.append(factor * loss)
    return torch.stack(losses).mean()


def solve(case):
    queries, passages = sines(ROWS, DIMENSION, 0.4).requires_grad_(), sines(COLUMNS, DIMENSION, 2.9).requires_grad_()
    column_weights = 1.0 + 0.5 * sines(1, COLUMNS, 1.3)[0]
    row_weights = 1.0 + 0.5 * sines(1, ROWS, 5.1)[0]
    levels = [[DIMENSION, 1.0], *case["matryoshka"]]
    loss = sum(
        weight * prefix_loss(queries[:, :dimension], passages[:, :dimension], column_weights, row_weights, case)
        for dimension, weight in levels
    ) / sum(weight for _, weight in levels)
    loss.backward()
    return dict(case, loss=loss.item(), queries=queries.grad.flatten().tolist(), passages=passages.grad.flatten().tolist())


print(json.dumps({name: solve({**BASE, **case}) for name, case in CASES.items()}))
