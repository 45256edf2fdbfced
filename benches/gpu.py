"""Encoding and a training step of BGE-M3's shape on a graphics card, beside PyTorch and sentence-transformers.

The weights are random, in the shape of BAAI/bge-m3 (24 layers of 1024 values, 250,002 words); texts are random words whose
numbers are drawn from the lengths of the data set's texts. Word embeddings are large and pooling is the mean, so that
texts differ. Everything is in bfloat16 with f32 sums; dropout is off.
A step is forward, InfoNCE over 7 negatives a query and all passages of the step, backward, clipping and AdamW. Peers:
`pytorch` (transformers with SDPA; encoding in sorted batches, a step as one padded batch) and `sentence-transformers`
(encoding in sorted batches; MultipleNegativesRankingLoss under its trainer's `bf16` switch). Vectors and the first loss
must agree. `limit_share` is the rate of matrix products' operations over that of a product of 8192 × 8192 in PyTorch.

With --device cpu and a small shape, everything runs without a card, which shows that it works and not how fast it is.
"""

import argparse
import json
import random
import time

import numpy as np

import models
import side
import texts

TEMPERATURE = 0.02
RATE = 2e-5
FOLDER = side.WORK / "gpu"
PEERS = ("pytorch", "sentence-transformers")
QUERY_LENGTH, PASSAGE_LENGTH = 64, 256
BATCH_SIZES = (16, 32, 64, 128, 256)


def words(characters, most):
    """A text of random words, as long as one of so many characters, at four a token; two tokens are special."""
    count = min(max(1, characters // 4), most - 2)
    return " ".join(f"w{random.randrange(4, OPTIONS.vocabulary)}" for _ in range(count))


def make_texts():
    """Passages to encode, and a step's queries and columns of passages, all from the lengths of the data set's texts."""
    random.seed(1)
    names, data = texts.languages(OPTIONS.data), OPTIONS.data
    lengths = [len(text) for name in names for text in texts.corpus(data, name).values()]
    queries = [len(query) for name in names for query, _ in texts.train_pairs(data, name)]
    passages = [words(length, PASSAGE_LENGTH) for length in random.choices(lengths, k=OPTIONS.passages)]
    step = {
        "queries": [words(random.choice(queries), QUERY_LENGTH) for _ in range(OPTIONS.queries)],
        "columns": [
            [words(random.choice(lengths), PASSAGE_LENGTH) for _ in range(OPTIONS.queries)]
            for _ in range(1 + OPTIONS.negatives)
        ],
    }
    return passages, step


def make_model():
    """A sentence-transformers folder with random weights and a tokenizer that knows the words of `words`."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from tokenizers import Tokenizer, pre_tokenizers, processors
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    vocabulary |= {f"w{index}": index for index in range(4, OPTIONS.vocabulary)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "cls_token": "<s>"}
    plain = FOLDER / "plain"
    models.random_weights(plain, OPTIONS.layers, OPTIONS.hidden, OPTIONS.vocabulary)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **special).save_pretrained(plain)
    transformer = Transformer(str(plain), max_seq_length=PASSAGE_LENGTH)
    pooling = Pooling(OPTIONS.hidden, pooling_mode="mean")
    SentenceTransformer(modules=[transformer, pooling, Normalize()], device="cpu").save(str(FOLDER / "model"))


def tokenize(step):
    """The step as token ids."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(FOLDER / "model")
    ids = lambda part: tokenizer(part)["input_ids"]
    return {"queries": ids(step["queries"]), "columns": [ids(column) for column in step["columns"]]}


class Theirs:
    """A peer's model, and what it does."""

    def __init__(self):
        import torch
        from sentence_transformers import SentenceTransformer

        self.torch, self.device = torch, OPTIONS.device
        options = {"attn_implementation": "sdpa", "dtype": torch.float32}
        self.model = SentenceTransformer(str(FOLDER / "model"), device=self.device, model_kwargs=options)
        self.inner = self.model[0].auto_model if hasattr(self.model[0], "auto_model") else self.model[0].model

    def seconds(self, work):
        """The result of `work` and the time until the card has finished it."""
        start = time.perf_counter()
        result = work()
        if self.device != "cpu":
            self.torch.cuda.synchronize()
        return time.perf_counter() - start, result

    def peak(self):
        """Floating-point operations a second of a large product in bfloat16, the best of five."""
        size = 8192 if self.device != "cpu" else 1024
        left, right = (self.torch.randn(size, size, device=self.device, dtype=self.torch.bfloat16) for _ in range(2))
        return max(2 * size**3 / self.seconds(lambda: left @ right)[0] for _ in range(5))

    def autocast(self):
        return self.torch.autocast(self.device.split(":")[0], dtype=self.torch.bfloat16)

    def padded(self, sequences):
        batch = self.model.tokenizer.pad({"input_ids": sequences}, return_tensors="pt")
        return {name: batch[name].to(self.device) for name in ("input_ids", "attention_mask")}

    def vectors(self, sequences):
        """One padded batch through transformers: the mean of the tokens' vectors, of unit length."""
        batch = self.padded(sequences)
        hidden, mask = self.inner(**batch).last_hidden_state.float(), batch["attention_mask"].unsqueeze(2)
        return self.torch.nn.functional.normalize((hidden * mask).sum(1), dim=1)


def encoding(theirs, kind):
    """Encodes all passages, as fast as the best batch size allows, and writes their vectors."""
    passages = json.loads((FOLDER / "texts.json").read_text())
    theirs.model.to(theirs.torch.bfloat16).eval()
    ids = theirs.model.tokenizer(passages)["input_ids"]
    order = sorted(range(len(ids)), key=lambda index: -len(ids[index]))

    def run(size):
        vectors = np.zeros((len(ids), OPTIONS.hidden), np.float32)
        with theirs.torch.inference_mode():
            if kind == "sentence-transformers":
                part = [passages[index] for index in order]
                encoded = theirs.model.encode(part, batch_size=size, show_progress_bar=False, convert_to_tensor=True)
                vectors[order] = encoded.float().cpu().numpy()
                return vectors
            for start in range(0, len(order), size):
                batch = order[start : start + size]
                vectors[batch] = theirs.vectors([ids[index] for index in batch]).cpu().numpy()
        return vectors

    run(BATCH_SIZES[0])
    size = min(BATCH_SIZES, key=lambda size: theirs.seconds(lambda: run(size))[0])

    def repeat():
        seconds, vectors = theirs.seconds(lambda: run(size))
        vectors.tofile(FOLDER / f"{kind}.f32")
        return {"seconds": seconds}

    return {"batch_size": size}, repeat


def training(theirs, kind):
    """A step, on the same batch again and again."""
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    torch, model = theirs.torch, theirs.model.train()
    columns = json.loads((FOLDER / "batches.json").read_text())[0]
    columns = [columns["queries"], *columns["columns"]]
    together = [sequence for column in columns for sequence in column]
    padded = [theirs.padded(column) for column in columns]
    ranking = MultipleNegativesRankingLoss(model, scale=1 / TEMPERATURE)
    plain = ("bias", "LayerNorm.weight")
    decaying = [p for n, p in model.named_parameters() if not n.endswith(plain)]
    others = [p for n, p in model.named_parameters() if n.endswith(plain)]
    groups = [{"params": others, "weight_decay": 0.0}, {"params": decaying, "weight_decay": 0.01}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, fused=True)

    def loss():
        if kind == "sentence-transformers":
            return ranking([dict(column) for column in padded], labels=None)
        vectors = theirs.vectors(together)
        count = len(columns[0])
        scores = vectors[:count] @ vectors[count:].T / TEMPERATURE
        return torch.nn.functional.cross_entropy(scores.float(), torch.arange(count, device=theirs.device))

    def step():
        with theirs.autocast():
            value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return value.detach()

    losses = []

    def repeat():
        seconds, value = theirs.seconds(step)
        losses.append(float(value))
        return {"seconds": seconds, "losses": losses[:1]}

    return {}, repeat


def peer(kind, work):
    theirs = Theirs()
    ready, repeat = (encoding if work == "encode" else training)(theirs, kind)
    side.serve(ready | {"peak": theirs.peak()}, repeat)


def measure(work, ours):
    """Runs our side and the peers in turns, checks that they agree, and prints a line for each peer."""
    shape = ["--device", OPTIONS.device, "--hidden", OPTIONS.hidden]
    commands = {"ours": ours} | {kind: side.theirs(__file__, kind, "--work", work, *shape) for kind in PEERS}
    starts = [lambda name=name: side.Side(name, commands[name], OPTIONS.threads) for name in commands]
    # Three trainings at a time do not fit into the memory of one card.
    sides = side.measure(starts, OPTIONS.repeats, together=work == "encode")
    for one in sides[1:]:
        agree(work, one.name, sides)
    tokens, peak = sides[0].ready["tokens"], sides[1].ready["peak"]
    share = {"limit_share": sides[0].ready["flop"] / sides[0].median() / peak}
    print(f"{work}: {tokens} tokens; {OPTIONS.device} multiplies bfloat16 at {peak / 1e12:.1f} Tflop/s")
    for one in sides[1:]:
        rates = [tokens / each.median() for each in (sides[0], one)]
        side.line(f"gpu {work}", one.name, *rates, "tokens/s", OPTIONS.threads, **share)


def agree(work, kind, sides):
    if work == "train":
        losses = {one.name: one.answers[0]["losses"][0] for one in sides}
        # sentence-transformers' scores are bfloat16, too.
        assert abs(losses[kind] - losses["ours"]) <= 0.1 * losses["ours"], f"losses of the first step: {losses}"
        print(f"losses of the first step: ours {losses['ours']:.4f}, {kind} {losses[kind]:.4f}")
        return
    ours, theirs = (np.fromfile(FOLDER / f"{name}.f32", np.float32).reshape(-1, OPTIONS.hidden) for name in ("ours", kind))
    cosine = ((ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)).min()
    assert cosine > 0.99, f"{kind}: lowest cosine with ours {cosine}"
    print(f"vectors: lowest cosine between ours and {kind} {cosine:.5f}")


def arguments():
    parser = argparse.ArgumentParser(prog="benches/run gpu", description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--passages", type=int, default=4096, help="to encode")
    parser.add_argument("--batch-tokens", type=int, default=8192, help="of a batch that ours encodes")
    parser.add_argument("--queries", type=int, default=24, help="of a step")
    parser.add_argument("--negatives", type=int, default=7, help="of a query")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--hidden", type=int, default=1024, help="a multiple of 64")
    parser.add_argument("--vocabulary", type=int, default=250_002)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=10)
    texts.add_option(parser)
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--work", choices=("encode", "train"), help="only this (default: both)")
    return parser.parse_args()


def main():
    if OPTIONS.peer:
        return peer(OPTIONS.peer, OPTIONS.work)
    FOLDER.mkdir(parents=True, exist_ok=True)
    passages, step = make_texts()
    make_model()
    (FOLDER / "texts.json").write_text(json.dumps(passages))
    (FOLDER / "batches.json").write_text(json.dumps([tokenize(step)]))
    model = FOLDER / "model"
    last = ["bf16", OPTIONS.device]
    texts_and_out = [FOLDER / "texts.json", PASSAGE_LENGTH, FOLDER / "ours.f32"]
    ours = {
        "encode": [*side.ours("encode"), model, *texts_and_out, *last, OPTIONS.batch_tokens],
        "train": [*side.ours("train_step"), model, FOLDER / "batches.json", TEMPERATURE, RATE, *last],
    }
    for work in [OPTIONS.work] if OPTIONS.work else ours:
        measure(work, ours[work])


OPTIONS = arguments()

if __name__ == "__main__":
    main()
