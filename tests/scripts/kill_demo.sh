#!/usr/bin/env bash
# Does the demo survive `kill -9`? Runs it straight in one work folder, kills it three times at random moments in another, and
# compares every artefact byte for byte. Timings, ledger and pages are outside the comparison.
#
#   tests/scripts/kill_demo.sh [RECIPE]
set -euo pipefail
cd "$(dirname "$0")/../.."
recipe=${1:-recipes/demo.toml}
cargo build --release
motherlode=$PWD/target/release/motherlode
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

started=$(date +%s)
"$motherlode" run "$recipe" --work "$folder/straight" --quiet
seconds=$(($(date +%s) - started))
echo "straight run: $seconds s"

# The downloads are not what is tested. Three times a quarter of the straight run's time does not end it.
mkdir "$folder/killed"
cp -r "$folder/straight/cache" "$folder/killed/cache"
for kill in 1 2 3; do
    moment=$((RANDOM % (seconds / 4 + 1) + 1))
    "$motherlode" run "$recipe" --work "$folder/killed" --quiet &
    sleep "$moment"
    kill -9 $! || { echo "kill $kill: the run had ended within $moment s"; exit 1; }
    echo "kill $kill: after $moment s"
    wait $! 2>/dev/null || true
done
"$motherlode" run "$recipe" --work "$folder/killed" --quiet >/dev/null
diff -r --exclude=timing.json --exclude='*.lock' "$folder/straight/artefacts" "$folder/killed/artefacts"
echo "all artefacts are equal"
