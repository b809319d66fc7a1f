#!/usr/bin/env bash
# Prefill of 2048 tokens in t32, t128, t512 and t2048, and decoding behind it (the paper's Fig. 8).
#
#   recipes/fig8.sh [OUT] [MODEL] [options of bluelm bench fig8]
#   recipes/fig8.sh build/fig8-3b --preset bluelm-v-3b --layers 8 --vision-layers 1 --keep build/random
#
# OUT (build/fig8) gets report.html, fig8.svg, fig8.png, results.jsonl and bench.json; what is there
# is measured anew. It ends with a sentence on whether the paper's finding holds here. Without a model: the demo's.
#
# BLUELM_PYTHON has bluelm (default: the checkout's .venv, else python3). BLUELM_QUIET, where set, is put before the
# measurement: a command that keeps other work off this machine.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/.." && pwd)
python=${BLUELM_PYTHON:-$root/.venv/bin/python}
[[ -x $(command -v "$python") ]] || python=python3
[[ -d $root/stages ]] && export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
out=build/fig8
if (($#)) && [[ $1 != -* ]]; then
    out=$1
    shift
fi
exec ${BLUELM_QUIET:-} "$python" -m bluelm_cli bench fig8 "$@" --out "$out" --force
