"""Real prompts through the float model: scales of the KV cache, and what each quantized layer does to its output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from stages.artifacts.errors import DataError
from stages.device.contract import int8_kv
from stages.device.contract.kv_scales import KvScales
from stages.workshop.quant.kv_cache import ObservedCache, check_layers

# Output errors of a layer are means over at most this many inputs per sample, evenly spaced.
INPUTS_PER_SAMPLE = 256

Sample = Mapping[str, torch.Tensor]


@dataclass
class Calibration:
    """What the prompts showed so far.

    Attributes:
        samples, tokens: prompts seen, and their length together (image tokens included).
    """

    samples: int = 0
    tokens: int = 0
    _keys: list[float] = field(default_factory=list)
    _values: list[float] = field(default_factory=list)
    _error_sums: dict[str, float] = field(default_factory=dict)
    _error_counts: dict[str, int] = field(default_factory=dict)

    def kv_scales(self) -> KvScales:
        """One scale per layer, such that nothing seen is clipped."""
        keys, values = (tuple(map(int8_kv.scale_for, largest)) for largest in (self._keys, self._values))
        return KvScales.of(keys, values)

    def output_error(self, module: str) -> float | None:
        """Mean ‖Wx − Ŵx‖ / ‖Wx‖ of a module, or None if no input reached it."""
        count = self._error_counts.get(module, 0)
        return self._error_sums[module] / count if count else None

    def _saw_cache(self, cache: ObservedCache) -> None:
        keys, values = cache.largest()
        self._keys = [max(pair) for pair in zip(self._keys or keys, keys, strict=True)]
        self._values = [max(pair) for pair in zip(self._values or values, values, strict=True)]

    def _saw_outputs(self, module: str, ratios: torch.Tensor) -> None:
        self._error_sums[module] = self._error_sums.get(module, 0.0) + float(ratios.double().sum())
        self._error_counts[module] = self._error_counts.get(module, 0) + ratios.numel()


def calibrate(
    model: PreTrainedModel,
    samples: Iterable[Sample],
    dequantized: Callable[[str], np.ndarray],
    modules: Iterable[str],
    error_samples: int,
) -> Iterator[Calibration]:
    """Runs prompts through the float model, yielding what is known after each.

    Args:
        model: the float model, in evaluation mode.
        samples: model inputs of one prompt each, batch 1.
        dequantized: the quantized weight [N, K] of a module, as float32.
        modules: the quantized modules.
        error_samples: on how many of the samples output errors are measured (they cost a dequantization each).

    Raises:
        DataError: there is no sample.
    """
    layers = check_layers(model.config)
    seen = Calibration()
    names = tuple(modules)
    for sample in samples:
        cache = ObservedCache(layers)
        with torch.inference_mode(), ExitStack() as stack:
            if seen.samples < error_samples:
                stack.enter_context(_watching(model, names, dequantized, seen))
            model(**sample, past_key_values=cache, use_cache=True, logits_to_keep=1)
        seen.samples += 1
        seen.tokens += cache.get_seq_length()
        seen._saw_cache(cache)
        yield seen
    if not seen.samples:
        raise DataError(
            "There is no prompt to calibrate with.",
            "Scales of the KV cache come from what real prompts put into it.",
            "Give a corpus with training rows: --data CORPUS, or keep the cache float: --kv float32",
        )


@contextmanager
def _watching(
    model: PreTrainedModel, names: tuple[str, ...], dequantized: Callable[[str], np.ndarray], seen: Calibration
) -> Iterator[None]:
    with ExitStack() as stack:
        for name in names:

            def look(module: nn.Linear, inputs: tuple[Any, ...], _: Any, name: str = name) -> None:
                seen._saw_outputs(name, _ratios(module.weight.float(), torch.from_numpy(dequantized(name)), inputs[0]))

            handle = model.get_submodule(name).register_forward_hook(look)
            stack.callback(handle.remove)
        yield


def _ratios(weight: torch.Tensor, quantized: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """‖Wx − Ŵx‖ / ‖Wx‖ of evenly spaced inputs x [.., K]; inputs with Wx = 0 are left out."""
    rows = inputs.reshape(-1, inputs.shape[-1])  # [inputs, K]
    rows = rows[torch.linspace(0, len(rows) - 1, min(len(rows), INPUTS_PER_SAMPLE)).long()].float()
    right = nn.functional.linear(rows, weight).norm(dim=-1)
    # The difference of the weights first: it is exact, that of the outputs would cancel.
    wrong = nn.functional.linear(rows, weight - quantized.to(weight.device)).norm(dim=-1)
    return (wrong / right)[right > 0]
