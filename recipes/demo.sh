#!/usr/bin/env bash
# The main job: from nothing to an INT4 model that answers, on 2 cores, in minutes.
#
#   recipes/demo.sh [PICTURE ...]       pictures of your own to ask the finished model about
#
# Every step is a bluelm command that writes a folder below $BLUELM_DEMO (default: ./demo). Run it again and each step
# says "up to date"; change a recipe and the step says what differs.
set -euo pipefail

recipes=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=step.sh
source "$recipes/step.sh"
demo=${BLUELM_DEMO:-demo}
pictures=("$@")

step "render a corpus: pictures, questions, answers; a held-out split" \
    data render --recipe "$recipes/tiny/data.yaml" --out "$demo/corpus"
step "tile it: relaxed aspect-ratio matching" \
    tile "$demo/corpus" --preset tiny --out "$demo/tiles"
step "stage 1: pretrain" \
    pretrain --recipe "$recipes/tiny/pretrain.yaml" --data "$demo/corpus" --tiles "$demo/tiles" --out "$demo/stage1"
step "stage 2: finetune everything" \
    finetune "$demo/stage1" --recipe "$recipes/tiny/finetune.yaml" --data "$demo/corpus" --tiles "$demo/tiles" --out "$demo/stage2"
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
    for question in "What colour is the shape?" "What shape is it?"; do
        step "ask the exported model about $picture" \
            chat "$demo/onnx" --image "$picture" --prompt "$question"
    done
done

step "measure it on this machine" \
    bench "$demo/onnx" --chunk 32 --chunk 128 --chunk 512 --out "$demo/bench"
step "the closing table" \
    bench table "$demo/eval-stage2" "$demo/eval-int4" "$demo/eval-onnx" "$demo/bench"
