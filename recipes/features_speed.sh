#!/usr/bin/env bash
# A step of stage 1 (Table 7) from pictures against one from the frozen tower's features, at the so400m/14-384 shape.
#
#   recipes/features_speed.sh PICTURES [--vision-layers 27] [--text-layers 2] [--batch 2] [--dtype bfloat16] [--pairs 7]
#
# Random weights; tiles of 384 pixels, one a picture as in stage 1; the language model is MiniCPM-2B's width with fewer
# layers. Tiles stay in memory, so that no decoding is counted against pictures. Both run in turns in one process; what
# counts is the median of paired ratios. BLUELM_PYTHON has bluelm (default: the checkout's .venv, else python3).
# BLUELM_QUIET, where set, is put before both of its halves: a command that keeps other work off this machine.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/.." && pwd)
python=${BLUELM_PYTHON:-$root/.venv/bin/python}
[[ -x $(command -v "$python") ]] || python=python3
[[ -d $root/stages ]] && export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE=1 OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
${BLUELM_QUIET:-} "$python" "$here/features_speed.py" make "$work" "$@"
${BLUELM_QUIET:-} "$python" "$here/features_speed.py" time "$work" "$@"
