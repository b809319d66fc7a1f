#!/usr/bin/env bash
# The vision tower with 1, 2, 4 and 6 tiles per batch, on a picture of a phone's screen (the paper's Fig. 7).
#
#   recipes/fig7.sh [OUT] [MODEL] [options of bluelm bench fig7]
#   recipes/fig7.sh build/fig7-3b --preset bluelm-v-3b --layers 1 --vision-layers 27 --keep build/random
#
# OUT (build/fig7) gets report.html, fig7.svg, fig7.png, results.jsonl and bench.json; what is there
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
out=build/fig7
if (($#)) && [[ $1 != -* ]]; then
    out=$1
    shift
fi
exec ${BLUELM_QUIET:-} "$python" -m bluelm_cli bench fig7 "$@" --out "$out" --force
