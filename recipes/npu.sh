#!/usr/bin/env bash
# An INT4 model becomes binaries for phones' NPUs, checked on Qualcomm's simulator with held-out questions.
#
#   recipes/npu.sh QUANTIZED CORPUS OUT [QNN_PYTHON]
#
# QUANTIZED comes from bluelm quantize, CORPUS has a split "train" to calibrate with and "heldout" to ask. QNN_PYTHON is
# an interpreter with onnxruntime, onnxruntime-qnn and numpy; without one this environment must have bluelm[npu].
# Chips: $BLUELM_SOCS (default: snapdragon-8-gen-3 snapdragon-8-elite). Questions: $BLUELM_QUESTIONS (default: 20).
# Positions of the cache: $BLUELM_CONTEXT (default: 512; the simulator's time goes with it).
set -euo pipefail

[ $# -ge 3 ] || { sed -n '2,9p' "${BASH_SOURCE[0]}" >&2; exit 2; }
quantized=$1 corpus=$2 out=$3
flags=()
for chip in ${BLUELM_SOCS:-snapdragon-8-gen-3 snapdragon-8-elite}; do
    flags+=(--soc "$chip")
done
[ $# -lt 4 ] || flags+=(--qnn-python "$4")
bluelm export "$quantized" --target npu --data "$corpus" --out "$out" --verify \
    --max-context "${BLUELM_CONTEXT:-512}" --set "questions=${BLUELM_QUESTIONS:-20}" "${flags[@]}"
