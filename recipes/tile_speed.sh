#!/usr/bin/env bash
# Tiles per second on real photos, one core: ours from the file to uint8 tiles, against transformers'
# LlavaNextImageProcessorPil from the same file at the same output size.
#
#   recipes/tile_speed.sh PICTURES… [--max-grids 1,2,4] [--tile 384] [--rounds 5] [--json]
#
# PICTURES are files and folders of JPEG and PNG. Both run in turns in one process; what counts are the ratios, by class:
# JPEG at least 4 times the canvas (by side, by pixels), JPEG near it, PNG. The difference to a plain Pillow bicubic
# reference is measured in the same run. BLUELM_PYTHON has bluelm (default: the checkout's .venv, else python3).
# BLUELM_QUIET, where set, is put before the measurement: a command that keeps other work off this machine.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/.." && pwd)
python=${BLUELM_PYTHON:-$root/.venv/bin/python}
[[ -x $(command -v "$python") ]] || python=python3
[[ -d $root/stages ]] && export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
exec ${BLUELM_QUIET:-} "$python" "$here/tile_speed.py" "$@"
