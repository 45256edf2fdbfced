"""Golden values for crates/motherlode/src/gguf/tokenizer.rs: the pieces of a tokenizer as files for Llama 2 have
them, and the tokens that the tool they come from makes of texts.

    python tests/golden/sentence_pieces.py > tests/golden/sentence_pieces.json        (sentencepiece 0.2.1)

The tokenizer is trained as Llama's was: merges by score, digits apart, what is not known as bytes, texts as they are.
"""

import io
import json
from pathlib import Path

import sentencepiece

DEMO = Path(__file__).parents[2] / "data" / "demo"
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
EXTRA = ["", " ", "  two  spaces ", "1234 apples, 56.", "naïve café", "😀 ok", "line\nbreak\ttab", "aaaaaaa", "ﬁ ™"]


def texts(language):
    """The passages of a language."""
    lines = (DEMO / language / "corpus.jsonl").read_text().splitlines()
    return [json.loads(line)["text"] for line in lines]


def kind(processor, id):
    if processor.is_unknown(id):
        return UNKNOWN
    if processor.is_control(id):
        return CONTROL
    return BYTE if processor.is_byte(id) else NORMAL


def main():
    languages = sorted(entry.name for entry in DEMO.iterdir() if entry.is_dir())
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text for language in languages for text in texts(language)]),
        model_writer=model,
        model_type="bpe",
        vocab_size=1600,
        character_coverage=0.98,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    ids = range(processor.get_piece_size())
    cases = EXTRA + [text[:120] for language in languages for text in texts(language)[:2]]
    golden = {
        "tokens": [processor.id_to_piece(id) for id in ids],
        "scores": [processor.get_score(id) for id in ids],
        "types": [kind(processor, id) for id in ids],
        "cases": [{"text": text, "ids": processor.encode(text)} for text in cases],
    }
    print(json.dumps(golden, ensure_ascii=False))


if __name__ == "__main__":
    main()
