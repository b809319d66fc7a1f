#!/usr/bin/env bash
# A server under load: 64 clients for a minute, some of which vanish or send broken things; see serve_load.py.
#
#   recipes/serve_load.sh [MODEL] [--clients 64] [--seconds 60 | --minutes 60] [--warm-up 200]
#
# BLUELM_PYTHON has bluelm (default: the checkout's .venv, else python3). BLUELM_QUIET, where set, is put before the
# measurement: a command that keeps other work off this machine.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/.." && pwd)
python=${BLUELM_PYTHON:-$root/.venv/bin/python}
[[ -x $(command -v "$python") ]] || python=python3
[[ -d $root/stages ]] && export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec ${BLUELM_QUIET:-} "$python" "$here/serve_load.py" "$@"
