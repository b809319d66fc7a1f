#!/usr/bin/env bash
# Faults at random moments of every stage: kills, interrupts, full disks, lost inputs, no memory, two runs at once.
#
#   recipes/faults.sh [COUNT] [RESULTS]        default: 1000 faults, faults.jsonl; run again, it goes on where it stopped
#
# Needs a checkout with `make install`; the right to mount (root) for full disks and read-only folders, which are left out
# without. One JSON line a fault; at the end the table by stage and fault that recipes/RESULTS.md shows.
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
count=${1:-1000}
results=$(realpath -m "${2:-faults.jsonl}")
python=$project/.venv/bin/python

cd "$project"
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
"$python" -m tests.faults.storm --faults "$count" --results "$results" && code=0 || code=$?
"$python" -m tests.faults.storm --results "$results" --table
exit "$code"
