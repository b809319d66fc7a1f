#!/usr/bin/env bash
# How well spoken questions are heard: 24 questions are said by espeak-ng and written down by pocketsphinx, once with
# the shipped grammar and once in free dictation. Needs the extra: pip install 'bluelm[speech]'
#
#   recipes/speech.sh [--voices en-us+f3,en-us,en-gb] [--rate 1.0] [--drawn N --seed S] [--grammar FILE] [--json]
#
# --drawn takes N sentences of the grammar by lot instead of the 24. BLUELM_PYTHON has bluelm (default: the checkout's
# .venv, else python3).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/.." && pwd)
python=${BLUELM_PYTHON:-$root/.venv/bin/python}
[[ -x $(command -v "$python") ]] || python=python3
[[ -d $root/stages ]] && export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" "$here/speech.py" "$@"
