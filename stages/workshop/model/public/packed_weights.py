"""Linears of GPTQ and AWQ checkpoints, unpacked to the float weights that their integers stand for.

    gptq  qweight int32 [K·b/32, N]  along the inputs, low bits first     w = s[g] · (q − z[g]),  g = g_idx of the input
          qzeros  int32 [G, N·b/32]  along the outputs; "gptq" holds z − 1, "gptq_v2" holds z
          scales  [G, N],  g_idx int32 [K]
    awq   qweight int32 [K, N·b/32]  along the outputs, eight to a word in the order 0 2 4 6 1 3 5 7
          qzeros  int32 [G, N·b/32]  likewise, z itself;  scales [G, N]   w = s[g] · (q − z[g]),  g = input // group

Axes: K inputs, N outputs, G groups of inputs, b bits. Source: the formats as AutoGPTQ, GPTQModel and AutoAWQ publish
them (transformers' `gptq` and `awq` quantization configs). Weights that symmetric integers made can be packed again
without loss: `bluelm quantize --set scales=free` finds their scales (see quant/regrid).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from stages.artifacts.errors import ModelError

METHODS = ("gptq", "awq")
WORD_BITS = 32
# Where in a word AutoAWQ puts the eight values of eight outputs.
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
PARTS = ("qweight", "qzeros", "scales", "g_idx")
_FIX = "Use its float version, or a GPTQ or AWQ (GEMM) version of 4 or 8 bits."


@dataclass(frozen=True)
class Packing:
    """How a checkpoint's Linears are packed: the method, bits, inputs per group, and what is added to stored zeros."""

    method: Literal["gptq", "awq"]
    bits: int
    group: int
    zero_offset: int

    def unpack(self, parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The weight [N, K] behind a Linear's tensors, in float32."""
        scales = parts["scales"].float()  # [G, N]
        if self.method == "gptq":
            values = _along_rows(parts["qweight"], self.bits)  # [K, N]
            zeros = _along_columns(parts["qzeros"], self.bits)  # [G, N]
        else:
            order = torch.tensor(AWQ_ORDER)
            values, zeros = (_along_columns(parts[name], self.bits, order) for name in ("qweight", "qzeros"))
        # z − 1 of a zero point 0 has wrapped around.
        zeros = (zeros + self.zero_offset) & ((1 << self.bits) - 1)
        inputs = values.shape[0]
        group = self.group if self.group > 0 else inputs
        index = parts["g_idx"].long() if "g_idx" in parts else torch.arange(inputs) // group  # [K]
        return (scales[index] * (values - zeros[index])).T.contiguous()

    def shape(self, words: tuple[int, ...]) -> tuple[int, int]:
        """[N, K] of a Linear whose qweight has this shape."""
        rows, columns = words
        per_word = WORD_BITS // self.bits
        return (columns, rows * per_word) if self.method == "gptq" else (columns * per_word, rows)


def packing_of(folder: Path, quantization: Mapping[str, Any] | None) -> Packing | None:
    """How the Linears of a folder are packed, by config.json's quantization_config; None where they are not, or by
    another method than these.

    Raises:
        ModelError: a variant that is not read here.
    """
    if not quantization or quantization.get("quant_method") not in METHODS:
        return None
    method, bits = quantization["quant_method"], int(quantization.get("bits", 4))
    if bits not in (4, 8) or (method == "awq" and bits != 4):
        raise _unreadable(folder, method, f"of {bits} bits", "Its values do not fill words as known here.")
    if method == "awq":
        version = str(quantization.get("version", "gemm")).lower()
        if version != "gemm":
            raise _unreadable(folder, method, f"of the version {version!r}", "Its values lie in another order.")
        return Packing("awq", bits, int(quantization.get("group_size", 128)), 0)
    kind = quantization.get("checkpoint_format") or "gptq"
    if kind not in ("gptq", "gptq_v2"):
        raise _unreadable(folder, method, f"of the format {kind!r}", "Its values lie in another order.")
    return Packing("gptq", bits, int(quantization.get("group_size", 128)), 1 if kind == "gptq" else 0)


def _unreadable(folder: Path, method: str, what: str, why: str) -> ModelError:
    return ModelError(f"{folder} is quantized by {method.upper()} {what}.", why, _FIX)


def _along_rows(words: torch.Tensor, bits: int) -> torch.Tensor:
    """int32 [R, C] → values [R · 32 / bits, C], low bits first."""
    return _values(words, bits).flatten(0, 1)


def _along_columns(words: torch.Tensor, bits: int, order: torch.Tensor | None = None) -> torch.Tensor:
    """int32 [R, C] → values [R, C · 32 / bits], low bits first; `order[i]` is which value lies in place i."""
    values = _values(words, bits).transpose(1, 2)  # [R, C, per word]
    if order is not None:
        values = values[..., torch.argsort(order)]
    return values.flatten(1, 2)


def _values(words: torch.Tensor, bits: int) -> torch.Tensor:
    """int32 [R, C] → [R, per word, C]."""
    shifts = torch.arange(0, WORD_BITS, bits, dtype=torch.int32)
    return (words[:, None, :] >> shifts[None, :, None]) & ((1 << bits) - 1)
