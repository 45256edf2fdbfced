"""Do the tuned models of a work folder give the same vectors in sentence-transformers as in Motherlode?

    python -m venv venv && venv/bin/pip install sentence-transformers==6.2.0
    venv/bin/python tests/scripts/same_vectors.py work

Loads every model that `train` left in WORK/artefacts, encodes the passages and queries of the data set that Motherlode encoded
with it, and compares. Exits with 1 if a cosine is below 0.9999 or if there is nothing to compare.
"""

import json
import struct
import sys
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

LIMIT = 0.9999


def artefacts(work: Path, stage: str) -> list[tuple[Path, dict]]:
    """The finished artefacts of a stage, with their manifests."""
    found = sorted(work.glob(f"artefacts/{stage}/*/manifest.json"))
    return [(path.parent, json.loads(path.read_text())) for path in found]


def passages(file: Path) -> list[str]:
    """Title, blank, text of every passage of `passages.bin`; crates/motherlode/src/corpus.rs tells the format."""
    data = file.read_bytes()
    rows, start = struct.unpack("<QQ", data[-24:-8])
    offsets = struct.unpack(f"<{3 * rows + 1}Q", data[start : start + 8 * (3 * rows + 1)])
    fields = [data[a:b].decode() for a, b in zip(offsets, offsets[1:])]
    return [" ".join(part for part in fields[row + 1 : row + 3] if part) for row in range(0, 3 * rows, 3)]


def texts(dataset: Path, language: str, kind: str) -> list[str]:
    """Texts in the order of the rows of `LANG/KIND.f32`."""
    if kind == "passages":
        return passages(dataset / language / "passages.bin")
    lines = (dataset / language / f"{kind}.tsv").read_text().splitlines()
    return [line.split("\t", 1)[1] for line in lines]


def lowest_cosine(model: SentenceTransformer, dataset: Path, vectors: Path, name: str) -> float:
    """The lowest cosine between the two programs' vectors of one file."""
    language, kind = name.removesuffix(".f32").split("/")
    prompt = "passage" if kind == "passages" else "query"
    theirs = model.encode(texts(dataset, language, kind), prompt_name=prompt, convert_to_numpy=True)
    ours = np.fromfile(vectors / name, dtype="<f4").reshape(theirs.shape)
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(((ours * theirs).sum(axis=1) / norms).min())


def main(work: Path) -> int:
    datasets = {manifest["key"]: folder for folder, manifest in artefacts(work, "dataset")}
    encoded = artefacts(work, "encode")
    lowest, files = 1.0, 0
    for folder, manifest in artefacts(work, "train"):
        model = SentenceTransformer(str(folder))
        for vectors, encoding in encoded:
            if encoding["inputs"]["model"] != manifest["key"]:
                continue
            for file in encoding["files"]:
                lowest = min(lowest, lowest_cosine(model, datasets[encoding["inputs"]["dataset"]], vectors, file["path"]))
                files += 1
    print(f"{files} files of vectors, lowest cosine {lowest:.6f}, expected at least {LIMIT}")
    return 0 if files and lowest >= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
