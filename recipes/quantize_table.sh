#!/usr/bin/env bash
# What quantization costs: methods × blocks 32/64/128 × activations 16/8, with intervals, for any checkpoint and corpus.
#
#   recipes/quantize_table.sh CHECKPOINT CORPUS --out FOLDER [--questions 600] [--samples 64] [--methods rtn gptq awq]
#
# See quantize_table.py for what the columns are. BLUELM_PYTHON has bluelm (default: the checkout's .venv, else python3).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/.." && pwd)
python=${BLUELM_PYTHON:-$root/.venv/bin/python}
[[ -x $(command -v "$python") ]] || python=python3
[[ -d $root/stages ]] && export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE=1 OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
exec "$python" "$here/quantize_table.py" "$@"
