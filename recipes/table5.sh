#!/usr/bin/env bash
# Load, picture, prefill, decode and memory of one chat (the paper's Table 5), llama.cpp beside.
#
#   recipes/table5.sh [OUT] [MODEL] [options of bluelm bench table5]
#   recipes/table5.sh build/table5-3b --preset bluelm-v-3b --runs 3 --keep build/random
#
# OUT (build/table5) gets report.html, table5.svg, table5.png, results.jsonl and bench.json; what is there
# is measured anew. It ends with a sentence on whether the paper's finding holds here. Without a model: the demo's.
#
# llama.cpp runs in turns with ours where BLUELM_PEER_LLAMA_PYTHON names a python that has llama-cpp-python and gguf
# (recipes/peers/compare.sh WORK --prepare makes one: WORK/environments/llama/bin/python).
#
# BLUELM_PYTHON has bluelm (default: the checkout's .venv, else python3). BLUELM_QUIET, where set, is put before the
# measurement: a command that keeps other work off this machine.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/.." && pwd)
python=${BLUELM_PYTHON:-$root/.venv/bin/python}
[[ -x $(command -v "$python") ]] || python=python3
[[ -d $root/stages ]] && export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
out=build/table5
if (($#)) && [[ $1 != -* ]]; then
    out=$1
    shift
fi
exec ${BLUELM_QUIET:-} "$python" -m bluelm_cli bench table5 "$@" --out "$out" --force
