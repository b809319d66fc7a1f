#!/usr/bin/env bash
# Our engine against llama.cpp, OpenVINO and transformers: one table of paired ratios on this machine.
#
#   recipes/peers/compare.sh WORK [--only prefill|decode|vit] [--pairs 7] [--layers 8] [--vit-layers 6] [--threads 2]
#   recipes/peers/compare.sh WORK --help             all options
#   recipes/peers/compare.sh WORK --prepare …        only make environments and models, measure nothing
#
# WORK gets an environment for each peer (llama.cpp is built for this CPU: it takes minutes), models of random weights and,
# in results/, records.jsonl, result.json and result.md. What is there already is used again.
#
# Environments of your own, instead of making them:
#   BLUELM_PYTHON               has bluelm (its runtime runs here); default: the checkout's .venv, else python3
#   BLUELM_PEER_LLAMA_PYTHON    has llama-cpp-python and gguf
#   BLUELM_PEER_OPENVINO_PYTHON has openvino and nncf
#   BLUELM_PEER_TORCH_PYTHON    has bluelm with torch, transformers, onnx and onnxscript
# BLUELM_PEER_QUIET, where set, is put before the measurement: a command that keeps other work off this machine.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

work=${1:-${BLUELM_PEERS:-}}
if [[ -z $work || $work == -* ]]; then
    sed -n '2,17p' "$0" | cut -c3- >&2
    exit 2
fi
shift || true

ours=${BLUELM_PYTHON:-$root/.venv/bin/python}
[[ -x $(command -v "$ours") ]] || ours=python3
# In a checkout the workers find bluelm beside them; installed, it is where python looks anyway.
[[ -d $root/stages ]] && export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export OV_TELEMETRY_DISABLE=1 HF_HUB_OFFLINE=1 DO_NOT_TRACK=1

only="" layers=8 vit_layers=6 policies=mix,paper prepare=0
words=()
while (($#)); do
    case $1 in
        -h | --help) exec "$ours" "$here/compare.py" --help ;;
        --prepare) prepare=1 && shift && continue ;;
        --only) only=${2:-} ;;
        --layers) layers=${2:-} ;;
        --vit-layers) vit_layers=${2:-} ;;
        --policies) policies=${2:-} ;;
    esac
    words+=("$1")
    shift
done

# Bad words are found before anything is built.
"$ours" "$here/compare.py" "$work" "${words[@]}" --check

environment() { # NAME PACKAGE...
    local name=$1 folder=$work/environments/$1
    shift
    if [[ ! -e $folder/.made ]]; then
        echo "== an environment for $name: $*" >&2
        python3 -m venv "$folder"
        "$folder/bin/pip" install --quiet --disable-pip-version-check "$@" >&2
        touch "$folder/.made"
    fi
    echo "$folder/bin/python"
}

# Ours are written anew when the code that writes them has changed.
code=$("$ours" -c "from stages.measure.random_models import code_digest; print(code_digest())")
is_made() { # FOLDER
    [[ -e $1/.made && $(cat "$1/.made") == "$code" ]]
}

mkdir -p "$work/models"
work=$(cd "$work" && pwd)
models=$work/models
peers=()

if [[ $only != vit ]]; then
    llama=${BLUELM_PEER_LLAMA_PYTHON:-$(CMAKE_ARGS="-DGGML_NATIVE=ON" environment llama \
        --no-binary llama-cpp-python llama-cpp-python==0.3.36 gguf==0.19.0 numpy)}
    peers+=(--llama-python "$llama")
    for policy in ${policies//,/ }; do
        folder=$models/$policy-$layers
        if ! is_made "$folder"; then
            echo "== ours: $layers layers of random weights, policy $policy" >&2
            rm -rf "$folder"
            "$ours" "$here/write_ours.py" decoder "$folder" "$layers" "$policy"
            echo "$code" >"$folder/.made"
        fi
    done
    if [[ ! -e $models/llama-$layers.gguf ]]; then
        echo "== llama.cpp: $layers layers of random weights, Q4_0" >&2
        "$ours" "$here/write_ours.py" shape "$models/shape-$layers.json" "$layers"
        "$llama" "$here/write_gguf.py" "$models/llama-$layers.gguf" "$(cat "$models/shape-$layers.json")"
    fi
fi

if [[ -z $only || $only == vit ]]; then
    openvino=${BLUELM_PEER_OPENVINO_PYTHON:-$(environment openvino openvino==2026.4.1 nncf==3.4.0)}
    if [[ -z ${BLUELM_PEER_TORCH_PYTHON:-} && ! -d $root/stages ]]; then
        echo "BLUELM_PEER_TORCH_PYTHON is not set, and there is no checkout to make that environment from." >&2
        exit 2
    fi
    torch=${BLUELM_PEER_TORCH_PYTHON:-$(environment transformers \
        --constraint "$root/constraints.txt" "$root" onnxscript)}
    peers+=(--openvino-python "$openvino" --torch-python "$torch")
    folder=$models/vit-$vit_layers
    if ! is_made "$folder"; then
        echo "== one tower of $vit_layers layers in torch, ONNX and our forms" >&2
        rm -rf "$folder"
        "$torch" "$here/write_ours.py" vit "$folder" "$vit_layers"
        echo "$code" >"$folder/.made"
    fi
    if [[ ! -e $folder/ptq.xml ]]; then
        echo "== OpenVINO: NNCF's quantization of it" >&2
        "$openvino" "$here/openvino_vit.py" "$folder" >&2
    fi
fi

((prepare)) && exit 0
exec ${BLUELM_PEER_QUIET:-} "$ours" "$here/compare.py" "$work" "${words[@]}" "${peers[@]}"
