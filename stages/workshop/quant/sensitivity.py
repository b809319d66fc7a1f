"""The float model with one part of it quantized at a time: which part costs what.

A part's tensors are all taken from the quantized folder, norms and biases too, since methods that scale weights fold
the scales into neighbours of the same layer. Where a rotation goes through the whole language model, its parts cannot
be told apart and count as one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from stages.workshop.model.modeling import BlueLMVForConditionalGeneration
from stages.workshop.quant.kv_cache import check_layers
from stages.workshop.quant.modules import part_of
from stages.workshop.quant.packed import SUFFIXES, dequantize
from stages.workshop.quant.quantized_folder import QuantizedFolder
from stages.workshop.quant.teacher_forcing import ReadingMode, device_mode

CACHE, ACTIVATIONS = "KV cache", "activations alone"
TURNED = "language model, embedding, head and connector"
_TURNED_PARTS = ("connector", "embedding", "head", "language model")
_LAYER = re.compile(r"(vision_tower\.encoder|language_model\.model)\.layers\.\d+(?=\.)")


class PartlyQuantized:
    """A float model whose parts take turns at being quantized.

    Args:
        model: the float model; each turn leaves it as it was.
        source: the quantized folder made from it.
    """

    def __init__(self, model: BlueLMVForConditionalGeneration, source: QuantizedFolder) -> None:
        self._model, self._source = model, source
        self._layers = check_layers(model.config)
        self._turned = any(name.startswith("rotation") for name in source.own.transforms)

    def parts(self) -> tuple[str, ...]:
        """Parts that hold quantized weights; the cache where it is INT8; activations where they are rounded."""
        modules = (*self._source.packed_modules(), *self._source.own.at_export)
        found = dict.fromkeys(self._part(name) for name in sorted(modules, key=part_of))
        cache = [CACHE] if self._source.own.kv == "int8" else []
        return (*found, *cache, *([ACTIVATIONS] if self._mode("").step else []))

    def layers(self) -> tuple[str, ...]:
        """Layers of tower and language model that hold quantized weights; none where a rotation joins them."""
        found = dict.fromkeys(match[0] for name in self._source.packed_modules() if (match := _LAYER.match(name)))
        return tuple(sorted(found, key=_layer_order)) if not self._turned else ()

    @contextmanager
    def only(self, part: str) -> Iterator[ReadingMode]:
        """The model with this part or layer quantized, and how it then computes, for as long as the block lasts.

        Raises:
            ModelError: the quantized folder is damaged.
        """
        if part in (CACHE, ACTIVATIONS):
            yield self._mode(part)
            return
        kept: list[tuple[nn.Module, str, nn.Parameter]] = []
        try:
            for name, tensor in self._tensors(part):
                module_name, _, leaf = name.rpartition(".")
                module = self._model.get_submodule(module_name)
                old = getattr(module, leaf)
                kept.append((module, leaf, old))
                # A new parameter: a tied head keeps the other one.
                setattr(module, leaf, nn.Parameter(tensor.to(old.device, old.dtype), requires_grad=False))
            yield self._mode(part)
        finally:
            for module, leaf, old in kept:
                setattr(module, leaf, old)

    def _mode(self, part: str) -> ReadingMode:
        whole = device_mode(self._source, self._layers)
        if part == CACHE:
            return ReadingMode(whole.new_cache, compact=whole.compact)
        rounded = ReadingMode(prompt=whole.prompt, step=whole.step)
        if part in (ACTIVATIONS, ""):
            return rounded
        prompt, step = (one.only(lambda name: self._belongs(name, part)) for one in (whole.prompt, whole.step))
        return ReadingMode(prompt=prompt, step=step)

    def _tensors(self, part: str) -> Iterator[tuple[str, torch.Tensor]]:
        """The part's parameters by name, as the device has them."""
        source = self._source
        packed = set(source.packed_modules())
        for module in sorted(packed | set(source.own.at_export)):
            if self._belongs(module, part):
                quantized = source.quantized(module)
                assert quantized is not None
                yield f"{module}.weight", torch.from_numpy(dequantize(quantized))
        there = {name for name, _ in self._model.named_parameters(remove_duplicate=False)}
        for name in source.tensors.infos:
            module, _, leaf = name.rpartition(".")
            if leaf in SUFFIXES or module in source.own.at_export or name not in there:
                continue
            if self._belongs(module, part):
                yield name, source.tensor(name)

    def _part(self, name: str) -> str:
        part = part_of(name)
        return TURNED if self._turned and part in _TURNED_PARTS else part

    def _belongs(self, name: str, part: str) -> bool:
        return self._part(name) == part or name.startswith(f"{part}.")


def _layer_order(name: str) -> tuple[str, int]:
    stem, _, number = name.rpartition(".")
    return stem, int(number)
