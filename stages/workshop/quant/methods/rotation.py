"""A rotation of the language model's residual stream, folded into the weights: no coordinate is an outlier any more.

Every row vector h of the stream becomes h·R with an orthogonal R. An RMSNorm sees the same length, so once its weight
has gone into the Linears behind it, norm(h·R) = norm(h)·R, and all that is left is products:

    embedding E          →  E·R                    connector's last Linear   →  Rᵀ·W, b·R
    q, k, v, gate, up W  →  W·diag(g)·R            o, down W                 →  Rᵀ·W, b·R
    head W               →  W·diag(g)·R            norms' g                  →  1

Values are rotated too, head by head, and turned back by the columns of o. What goes into down would have to be rotated
while the model runs; it is left alone. A head tied to the embedding becomes a tensor of its own, since the last norm's
weight goes into one of them only. The tower keeps its axes: its LayerNorms are followed by another one in the
connector, between which no rotation can be folded away.

Axes: H width of the stream, V vocabulary. Source: QuaRot, arXiv 2404.00456; SliceGPT, arXiv 2401.15024, for norms.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from stages.artifacts.errors import BluelmError, RecipeError
from stages.workshop.quant.methods.folding import scales_its_weight
from stages.workshop.quant.methods.hadamard import Rotation
from stages.workshop.quant.tensor_files import TensorInfo, TensorSource

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MODEL = "language_model.model."
EMBEDDING, HEAD, LAST_NORM = f"{MODEL}embed_tokens.weight", "language_model.lm_head.weight", f"{MODEL}norm.weight"
CONNECTOR_OUTPUT = "multi_modal_projector.linear_2."
LAYER = re.compile(re.escape(MODEL) + r"layers\.\d+\.")
# Linears of a layer by the norm in front of them, and those that write into the stream.
READERS = {
    "self_attn.q_proj": "input_layernorm",
    "self_attn.k_proj": "input_layernorm",
    "self_attn.v_proj": "input_layernorm",
    "mlp.gate_proj": "post_attention_layernorm",
    "mlp.up_proj": "post_attention_layernorm",
}
WRITERS = ("self_attn.o_proj", "mlp.down_proj")
VALUES, OUTPUT = "self_attn.v_proj", "self_attn.o_proj"
# Norms of queries and keys work inside a head, after the rotation is gone.
UNTOUCHED = ("self_attn.q_norm", "self_attn.k_norm")


class RotatedWeights:
    """The tensors of a checkpoint as the rotated model has them, each worked out when it is read."""

    def __init__(self, source: TensorSource, text_config: Mapping[str, Any], seed: int) -> None:
        """Args:
        source: the float checkpoint.
        text_config: of its language model.
        seed: of the rotations' signs.
        """
        self._source = source
        width, heads = int(text_config["hidden_size"]), int(text_config["num_attention_heads"])
        self._stream = Rotation.of(width, seed)
        self._head = Rotation.of(int(text_config.get("head_dim") or width // heads), seed + 1)
        infos = dict(source.infos)
        if HEAD not in source.infos:
            infos[HEAD] = dataclasses.replace(source.infos[EMBEDDING], name=HEAD)
        self.infos: Mapping[str, TensorInfo] = infos

    def read(self, name: str) -> torch.Tensor:
        """One tensor of the rotated model, in the type it is stored as."""
        tensor = self._source.read(EMBEDDING if name == HEAD and HEAD not in self._source.infos else name)
        turned = self._turned(name, tensor)
        return tensor if turned is None else turned.to(tensor.dtype).contiguous()

    def _turned(self, name: str, tensor: torch.Tensor) -> torch.Tensor | None:
        """The tensor in float64, or None where it stays as it is."""
        if name == EMBEDDING:
            return self._stream.turn_rows(tensor)
        if name == HEAD:
            return self._stream.turn_rows(self._weighted(tensor, LAST_NORM))
        if name == LAST_NORM:
            return torch.ones_like(tensor, dtype=torch.float64)
        if name.startswith(CONNECTOR_OUTPUT):
            return self._stream.turn_columns(tensor)
        match = LAYER.match(name)
        return self._turned_in_layer(match.group(), name[match.end() :], tensor) if match else None

    def _turned_in_layer(self, layer: str, name: str, tensor: torch.Tensor) -> torch.Tensor | None:
        module, _, leaf = name.rpartition(".")
        if module in READERS.values():
            return torch.ones_like(tensor, dtype=torch.float64)
        if module in READERS and leaf == "weight":
            tensor = self._stream.turn_rows(self._weighted(tensor, f"{layer}{READERS[module]}.weight"))
        if module == OUTPUT and leaf == "weight":
            heads = tensor.unflatten(1, (-1, len(self._head.signs)))  # [H, heads, D]
            tensor = self._head.turn_rows(heads).flatten(1)
        if module == VALUES:
            heads = tensor.unflatten(0, (-1, len(self._head.signs)))  # [kv heads, D, ..]
            tensor = self._head.turn_columns(heads.movedim(1, 0)).movedim(0, 1).flatten(0, 1)
        if module in WRITERS:
            tensor = self._stream.turn_columns(tensor)
        return tensor

    def _weighted(self, weight: torch.Tensor, norm: str) -> torch.Tensor:
        return weight.double() * self._source.read(norm).double()


def rotation_problems(source: TensorSource, model: PreTrainedModel) -> list[BluelmError]:
    """Why a model cannot be rotated: parts that a rotation of the stream would not pass through unchanged.

    Args:
        source: the headers of its checkpoint.
        model: its structure (may be without memory).
    """
    known = {*READERS, *READERS.values(), *WRITERS, *UNTOUCHED}
    others = sorted(
        {
            name[match.end() :].rpartition(".")[0]
            for name in source.infos
            if (match := LAYER.match(name)) and name[match.end() :].rpartition(".")[0] not in known
        }
    )
    problems: list[BluelmError] = []
    if others:
        problems.append(_unknown(f"layers with {', '.join(others)}"))
    for name in (EMBEDDING, LAST_NORM, f"{CONNECTOR_OUTPUT}weight"):
        if name not in source.infos:
            problems.append(_unknown(f"no {name}"))
    if not problems and not scales_its_weight(model.get_submodule(f"{MODEL}norm")):
        problems.append(_unknown("norms whose output is not in proportion to their weight"))
    return problems


def _unknown(what: str) -> BluelmError:
    return RecipeError(
        f"rotation: hadamard, but the language model has {what}.",
        "Every part must be known to pass a rotation through, or answers would change.",
        "Leave rotation out; smoothing moves outliers without it.",
    )
