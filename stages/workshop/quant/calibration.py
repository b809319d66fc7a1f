"""Real prompts through the float model: scales of the KV cache, what each quantized layer does to its output, and what
rounding does to its inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from stages.artifacts.errors import DataError
from stages.device.contract import int8_kv
from stages.device.contract.kv_scales import KvScales
from stages.workshop.quant.input_rounding import relative_errors
from stages.workshop.quant.kv_cache import ObservedCache, check_layers

# Errors of a layer are means over at most this many inputs per sample, evenly spaced.
INPUTS_PER_SAMPLE = 256

Sample = Mapping[str, torch.Tensor]
Precision = Literal["int8", "int16"]


@dataclass
class _Mean:
    total: float = 0.0
    count: int = 0

    def add(self, values: torch.Tensor) -> None:
        self.total += float(values.double().sum())
        self.count += values.numel()


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
    _output_errors: dict[str, _Mean] = field(default_factory=dict)
    _input_errors: dict[tuple[str, str], _Mean] = field(default_factory=dict)

    def kv_scales(self) -> KvScales:
        """One scale per layer, such that nothing seen is clipped."""
        keys, values = (tuple(map(int8_kv.scale_for, largest)) for largest in (self._keys, self._values))
        return KvScales.of(keys, values)

    def output_error(self, module: str) -> float | None:
        """Mean ‖Wx − Ŵx‖ / ‖Wx‖ of a module, or None if no input reached it."""
        return _mean(self._output_errors.get(module))

    def input_error(self, module: str, precision: Precision) -> float | None:
        """Mean ‖x − rounded x‖ / ‖x‖ of a module's inputs, rounded per token, or None if none reached it."""
        return _mean(self._input_errors.get((module, precision)))

    def _saw_cache(self, cache: ObservedCache) -> None:
        keys, values = cache.largest()
        self._keys = [max(pair) for pair in zip(self._keys or keys, keys, strict=True)]
        self._values = [max(pair) for pair in zip(self._values or values, values, strict=True)]

    def _saw_inputs(self, module: str, inputs: torch.Tensor) -> None:
        for precision in get_args(Precision):
            self._input_errors.setdefault((module, precision), _Mean()).add(relative_errors(inputs, precision))

    def _saw_outputs(self, module: str, ratios: torch.Tensor) -> None:
        self._output_errors.setdefault(module, _Mean()).add(ratios)


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
        error_samples: on how many of the samples errors are measured (they cost a dequantization each).

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
                some = _evenly_spaced(inputs[0])
                seen._saw_inputs(name, some)
                seen._saw_outputs(name, _ratios(module.weight.float(), torch.from_numpy(dequantized(name)), some))

            handle = model.get_submodule(name).register_forward_hook(look)
            stack.callback(handle.remove)
        yield


def _evenly_spaced(inputs: torch.Tensor) -> torch.Tensor:
    """Some of the inputs [.., K], as float32 rows [inputs, K]."""
    rows = inputs.reshape(-1, inputs.shape[-1])
    return rows[torch.linspace(0, len(rows) - 1, min(len(rows), INPUTS_PER_SAMPLE)).long()].float()


def _mean(errors: _Mean | None) -> float | None:
    return errors.total / errors.count if errors is not None and errors.count else None


def _ratios(weight: torch.Tensor, quantized: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """‖Wx − Ŵx‖ / ‖Wx‖ of inputs x [inputs, K]; inputs with Wx = 0 are left out."""
    right = nn.functional.linear(rows, weight).norm(dim=-1)
    # The difference of the weights first: it is exact, that of the outputs would cancel.
    wrong = nn.functional.linear(rows, weight - quantized.to(weight.device)).norm(dim=-1)
    return (wrong / right)[right > 0]
