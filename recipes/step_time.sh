#!/usr/bin/env bash
# A training step of ours against plain Hugging Face code for the same modules, and packing against padding.
#
#   recipes/step_time.sh [--only step|packing] [--pairs 7] [--threads 2] [--json]
#
# Both run in turns in one process on random weights; what counts are the medians of paired ratios, not the times.
# BLUELM_PYTHON has bluelm (default: the checkout's .venv, else python3). BLUELM_QUIET, where set, is put before the
# measurement: a command that keeps other work off this machine.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/.." && pwd)
python=${BLUELM_PYTHON:-$root/.venv/bin/python}
[[ -x $(command -v "$python") ]] || python=python3
[[ -d $root/stages ]] && export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE=1 OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
exec ${BLUELM_QUIET:-} "$python" "$here/step_time.py" "$@"
