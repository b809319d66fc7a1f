"""The kinds of artifact and the command that makes each: the one table that error messages quote."""

from __future__ import annotations

from typing import Literal, get_args

Kind = Literal[
    "tiles",
    "features",
    "vit-features",
    "corpus",
    "tower",
    "language-model",
    "checkpoint",
    "adapter",
    "quantized",
    "onnx",
    "gguf",
    "npu",
    "bench",
]
KINDS: tuple[str, ...] = get_args(Kind)

MADE_BY: dict[str, str] = {
    "tiles": "bluelm tile PICTURES --out FOLDER",
    "features": "bluelm encode MODEL PICTURES --out FOLDER",
    "vit-features": "bluelm encode CHECKPOINT DATA --before-connector --out FOLDER",
    "corpus": "bluelm data render --out FOLDER",
    "tower": "bluelm pretrain-tower --recipe RECIPE --out FOLDER",
    "language-model": "bluelm split CHECKPOINT --part language --out FOLDER",
    "checkpoint": "bluelm pretrain --data CORPUS --out FOLDER, then bluelm finetune (from a public model, or from "
    "a checkpoint with its LoRA adapter apart: bluelm adopt)",
    "adapter": "bluelm finetune CHECKPOINT --data CORPUS --set lora.merge=false --out FOLDER",
    "quantized": "bluelm quantize CHECKPOINT --data CORPUS --out FOLDER",
    "onnx": "bluelm export CHECKPOINT --out FOLDER",
    "gguf": "bluelm export CHECKPOINT --format gguf --out FOLDER",
    "npu": "bluelm export QUANTIZED --target npu --data CORPUS --out FOLDER",
    "bench": "bluelm bench MODEL --out FOLDER",
}
