#!/usr/bin/env bash
# Is what `bluelm bench estimate` says true on this machine? Fits on four configurations, predicts fourteen others.
#
#   recipes/estimate_check.sh WORK [--runs 3]
#
# WORK keeps the random weights (about 2 GB), records.jsonl and device.yaml; a second run measures only what is missing.
# Ends with 1 where peak memory is more than 8 % off or a time more than 25 %. Needs a quiet machine for the times.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=${1:?usage: estimate_check.sh WORK}
shift
export PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}"
python "$here/estimate_check.py" measure "$work" "$@"
python "$here/estimate_check.py" check "$work"
