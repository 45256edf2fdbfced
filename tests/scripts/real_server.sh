#!/usr/bin/env bash
# Does the judge work with a real server? Starts llama.cpp's server with SmolLM2-135M-Instruct of the package mirror, has it
# judge pairs of the demo, has the same model judge them in the process, and compares the verdicts. The server rounds what
# enters its products to 8 bits, so that a few may differ.
#
#   tests/scripts/real_server.sh LLAMA_SERVER
set -euo pipefail
cd "$(dirname "$0")/../.."
server=${1:?"usage: tests/scripts/real_server.sh LLAMA_SERVER"}
cargo build --release
motherlode=${CARGO_TARGET_DIR:-target}/release/motherlode
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT

file=$folder/model.gguf
"$motherlode" fetch file --set file.name=SmolLM2-135M-Instruct --out "$file" --cache "$folder/cache" --quiet
port=8137
"$server" -m "$file" --alias smollm2 --port $port -c 8192 -np 4 >"$folder/server.log" 2>&1 &
until curl --silent --fail "http://127.0.0.1:$port/health" >/dev/null; do sleep 1; done

# The model is too small for its canaries; that is not what is tested. One epoch is enough.
judge() {
    "$motherlode" run recipes/demo.toml --work "$folder/$1" --quiet --set "$2" --set judge.model=smollm2 --set judge.max_pairs=48 \
        --set judge.canary_pass_rate=0.0 --set generate.method=none --set batch.epochs=1 \
        --set 'dataset.languages=["en", "fi"]' >/dev/null
}
judge server "llm.endpoints=[\"http://127.0.0.1:$port/v1\"]"
judge process "llm.embedded=[{ name = \"smollm2\", file = \"$file\" }]"

python3 - "$folder" <<'PYTHON'
import json
import sys
from pathlib import Path


def grades(name):
    """Accuracy and completeness of every pair that was asked about."""
    files = [path for path in Path(sys.argv[1], name).glob("artefacts/judge/*/??.jsonl")]
    rows = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    pairs = [(row["query"], one) for row in rows for one in row["judgements"] if "ledger" in one]
    return {(query, one["passage"]): (one.get("accuracy"), one.get("completeness")) for query, one in pairs}


server, process = grades("server"), grades("process")
equal = sum(server[pair] == process.get(pair) for pair in server)
print(f"{len(server)} pairs judged by the server, {equal} as in the process")
if not server or None in {grade for pair in server.values() for grade in pair} or equal < 0.8 * len(server):
    sys.exit("the server was not understood, or judges otherwise")
PYTHON
