#!/usr/bin/env bash
# The paper's Table 2: one model, three tiling rules, the same data and steps; which rule is better, and how surely.
#
#   recipes/table2.sh [WORK]                                  the tiny preset, on 2 cores in minutes
#   DATA=CORPUS PRETRAIN=pretrain.yaml FINETUNE=finetune.yaml EVAL="textvqa=val.json docvqa=val_v1.0.json" \
#       IMAGES=FOLDER PRETRAIN_FLAGS="--preset bluelm-v-3b" recipes/table2.sh WORK
#
# Stage 1 has no dynamic resolution (Table 7), so it is trained once; stage 2 three times. A model is evaluated with the
# rule it was trained with. Each command says "up to date" where it was done before.
#
#   DATA              a corpus for both stages; rendered with DATA_RECIPE if not given
#   PRETRAIN_STEPS, FINETUNE_STEPS   steps of the stages, instead of the recipes'
#   EVAL              what to score, SUITE=FILE …; the corpus' held-out questions if not given
#   IMAGES            where the suites' pictures lie
#   LIMIT             at most so many questions of each
#   THREADS           CPU threads
set -euo pipefail

recipes=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=${1:-table2}
pretrain=${PRETRAIN:-$recipes/tiny/pretrain.yaml}
finetune=${FINETUNE:-$recipes/tiny/finetune.yaml}
data=${DATA:-$work/corpus}
threads=(${THREADS:+--threads "$THREADS"})
tiny=(); [[ -n ${PRETRAIN:-} ]] || tiny=(--set "steps=${PRETRAIN_STEPS:-600}" --set warmup_steps=30)
short=(); [[ -n ${FINETUNE:-} ]] || short=(--set "steps=${FINETUNE_STEPS:-200}" --set warmup_steps=20)
[[ -z ${PRETRAIN:-} || -z ${PRETRAIN_STEPS:-} ]] || tiny=(--set "steps=$PRETRAIN_STEPS")
[[ -z ${FINETUNE:-} || -z ${FINETUNE_STEPS:-} ]] || short=(--set "steps=$FINETUNE_STEPS")
rules=(relaxed llava-next internvl-1.5)

step() {
    printf '\n== bluelm %s\n' "$*" >&2
    bluelm "$@"
}

# The rules know their candidates in their own ways: a box, or so many tiles (Sec. 5.1 compares 3x3 with 9).
tiling() {
    case $1 in
        internvl-1.5) printf '%s\n' --set tiling.rule=internvl-1.5 --set tiling.max_tiles=9 ;;
        *) printf '%s\n' --set "tiling.rule=$1" --set tiling.max_cols=3 --set tiling.max_rows=3 ;;
    esac
}

[[ -n ${DATA:-} ]] || step data render --recipe "${DATA_RECIPE:-$recipes/tiny/table2-data.yaml}" --out "$data"
# shellcheck disable=SC2086  # flags are words
step pretrain --recipe "$pretrain" "${tiny[@]}" ${PRETRAIN_FLAGS:-} "${threads[@]}" --data "$data" --out "$work/stage1"
for rule in "${rules[@]}"; do
    mapfile -t how < <(tiling "$rule")
    step finetune "$work/stage1" --recipe "$finetune" "${short[@]}" "${how[@]}" "${threads[@]}" --data "$data" \
        --out "$work/$rule"
done

evaluations=(${EVAL:-})
((${#evaluations[@]})) || evaluations=("llava=$data")
for evaluation in "${evaluations[@]}"; do
    suite=${evaluation%%=*} file=${evaluation#*=}
    for rule in "${rules[@]}"; do
        step bench accuracy "$work/$rule" --suite "$suite" --data "$file" ${IMAGES:+--images "$IMAGES"} \
            ${LIMIT:+--limit "$LIMIT"} "${threads[@]}" --out "$work/$suite-$rule" >/dev/null
    done
done
python "$recipes/table2.py" "$work" "${evaluations[@]%%=*}"
