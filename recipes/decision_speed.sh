#!/usr/bin/env bash
# Decisions a second on one core: every tiling rule over many sizes at once and one by one, and transformers' own.
#
#   recipes/decision_speed.sh [--sizes 1000000] [--few 5000] [--turns 5] [--json]
#
# BLUELM_PYTHON has bluelm (default: the checkout's .venv, else python3). BLUELM_QUIET, where set, is put before the
# measurement: a command that keeps other work off this machine.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/.." && pwd)
python=${BLUELM_PYTHON:-$root/.venv/bin/python}
[[ -x $(command -v "$python") ]] || python=python3
[[ -d $root/stages ]] && export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
exec ${BLUELM_QUIET:-} "$python" "$here/decision_speed.py" "$@"
