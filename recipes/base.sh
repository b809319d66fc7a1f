#!/usr/bin/env bash
# The parts that the demo model starts from, trained from nothing: a vision tower that reads, a language model that
# answers from text. The paper starts from a trained SigLIP and a trained language model (Sec. 4); these are ours.
#
#   recipes/base.sh FOLDER
#
# On 2 CPU cores some 70 minutes of training were measured (RESULTS.md). Every step writes a folder and says "up to date"
# when it is there already; an interrupted training goes on where it stopped, so it may run in pieces.
set -euo pipefail

recipes=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=step.sh
source "$recipes/step.sh"
out=${1:?base.sh FOLDER}

[[ -d $out/fonts ]] || "$recipes/base/fonts.sh" "$out/fonts"
step "the tower learns which characters stand where" \
    pretrain-tower --recipe "$recipes/base/tower.yaml" --fonts "$out/fonts" --out "$out/tower"
step "pages told in words" \
    data render --recipe "$recipes/base/text.yaml" --out "$out/text"
step "the language model learns to answer from them" \
    pretrain --recipe "$recipes/base/language.yaml" --data "$out/text" --out "$out/text-model"
step "taken out of its model" \
    split "$out/text-model" --part language --out "$out/language"
