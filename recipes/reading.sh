#!/usr/bin/env bash
# The shipped demo model, from its base parts to its card: stages 1 and 2 on rendered pictures, INT4/INT8, export, exams.
#
#   recipes/reading.sh FOLDER [SROIE]      SROIE: a folder of real receipts (img/, key/) to be asked about, never learned
#
# Run recipes/base.sh FOLDER/base before; this takes its tower, language model and fonts. Every step writes a folder and
# says "up to date" when it is there; an interrupted training or exam goes on where it stopped.
set -euo pipefail

recipes=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=step.sh
source "$recipes/step.sh"
out=${1:?reading.sh FOLDER [SROIE]}
receipts=${2:-}
base=$out/base
python=${PYTHON:-python}

render() { # NAME, the recipe and what differs from it
    local name=$1
    shift
    step "draw $name" data render --fonts "$base/fonts" "$@" --out "$out/$name"
}

for name in single tile reading more; do
    render $name --recipe "$recipes/base/$name.yaml"
done
# Held-out fonts, layouts and texts, drawn from other seeds.
render exam-words --recipe "$recipes/base/reading.yaml" --seed 11 --set train=0 --set heldout=1000 --set 'tasks=[word, number]'
render exam --recipe "$recipes/base/reading.yaml" --seed 12 --set train=0 --set heldout=250
"$python" "$recipes/base/shrunk.py" "$out/exam" "$out/shrunk" 112

step "stage 1: the connector" \
    pretrain --recipe "$recipes/base/pretrain.yaml" --vision "$base/tower" --llm "$base/language" \
    --data "$out/reading" --out "$out/stage1"
step "stage 2 on single texts: everything learns" \
    finetune "$out/stage1" --recipe "$recipes/base/finetune-single.yaml" --data "$out/single" --out "$out/stage2-single"
step "stage 2 on tiles full of text" \
    finetune "$out/stage2-single" --recipe "$recipes/base/finetune-tile.yaml" --data "$out/tile" --out "$out/stage2-tile"
step "stage 2 on all pages" \
    finetune "$out/stage2-tile" --recipe "$recipes/base/finetune.yaml" --data "$out/reading" --out "$out/stage2-pages"
step "stage 2 on more of them" \
    finetune "$out/stage2-pages" --recipe "$recipes/base/finetune-more.yaml" --data "$out/more" --out "$out/stage2"
step "quantize" \
    quantize "$out/stage2" --recipe "$recipes/quantize-gptq.yaml" --data "$out/reading" --out "$out/int4"
step "export" \
    export "$out/int4" --out "$out/onnx"

ask() { # FORM, FOLDER of the model, NAME of the exam, further flags
    local form=$1 model=$2 name=$3
    shift 3
    step "the $form model's exam: $name" bench accuracy "$model" --out "$out/accuracy/$form/$name" "$@"
}

[[ -z $receipts ]] || "$python" "$recipes/base/receipts_rows.py" "$receipts" "$out/receipts.json"
for form in float int4 onnx; do
    model=$out/$form
    [[ $form == float ]] && model=$out/stage2
    ask $form "$model" words --data "$out/exam-words"
    ask $form "$model" exam --data "$out/exam" --set limit=3500
    [[ -z $receipts ]] || ask $form "$model" receipts --data "$out/receipts.json" --metric anls
done
# The same pictures, cut into tiles and shrunk into one.
ask onnx "$out/onnx" whole --data "$out/shrunk/whole.json" --set limit=1000
ask onnx "$out/onnx" shrunk --data "$out/shrunk/shrunk.json" --set limit=1000
"$python" "$recipes/base/card.py" "$out" "$out/card"
