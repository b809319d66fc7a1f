#!/usr/bin/env bash
# The main job: from a vision tower and a language model to an INT4 model that reads, on 2 cores, in minutes.
#
#   recipes/demo.sh [PICTURE ...]       pictures of your own to ask the finished model about
#
# As the paper does (Sec. 4), it starts from a tower and a language model that are trained already: base/tower and
# base/language, which recipes/reading.sh made from nothing, in hours. Every step is a bluelm command that writes a folder
# below $BLUELM_DEMO (default: ./demo). Run it again and each step says "up to date"; change a recipe and the step says
# what differs.
set -euo pipefail

recipes=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=step.sh
source "$recipes/step.sh"
base=$recipes/base
demo=${BLUELM_DEMO:-demo}
pictures=("$@")

step "render a corpus: pictures, questions, answers; a held-out split" \
    data render --recipe "$base/demo-data.yaml" --out "$demo/corpus"
step "tile it: relaxed aspect-ratio matching" \
    tile "$demo/corpus" --preset demo --out "$demo/tiles"
step "stage 1: a fresh connector learns" \
    pretrain --recipe "$base/demo-pretrain.yaml" --vision "$base/tower" --llm "$base/language" \
    --data "$demo/corpus" --tiles "$demo/tiles" --out "$demo/stage1"
step "stage 2: everything learns" \
    finetune "$demo/stage1" --recipe "$base/demo-finetune.yaml" --data "$demo/corpus" --tiles "$demo/tiles" --out "$demo/stage2"
step "quantize: INT8 vision and projector, INT4 language model, INT8 KV cache" \
    quantize "$demo/stage2" --recipe "$recipes/quantize.yaml" --data "$demo/corpus" --out "$demo/int4"
step "export to ONNX, each graph verified against torch" \
    export "$demo/int4" --out "$demo/onnx"

for model in stage2 int4 onnx; do
    step "ask the $model model every held-out question" \
        bench eval "$demo/$model" --data "$demo/corpus" --out "$demo/eval-$model"
done

# Pictures of your own, or else the first two that no training picture resembles.
((${#pictures[@]})) || pictures=("$demo"/corpus/images/heldout-00000{0,1}.*)
for picture in "${pictures[@]}"; do
    step "ask the exported model about $picture" \
        chat "$demo/onnx" --image "$picture" --prompt "Read the text."
done

step "measure it on this machine" \
    bench "$demo/onnx" --chunk 32 --chunk 128 --chunk 512 --out "$demo/bench"
step "the closing table" \
    bench table "$demo/eval-stage2" "$demo/eval-int4" "$demo/eval-onnx" "$demo/bench"
