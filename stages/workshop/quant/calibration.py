"""What real prompts showed: scales of the KV cache, what each quantized layer does to its output, and what rounding
does to its inputs. Filled block by block (`layer_pass`).

Axes: R inputs, N output rows, K input columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import nn

from stages.device.contract.kv_scales import KvScales
from stages.workshop.quant.input_rounding import relative_errors
from stages.workshop.quant.kv_calibration import KvObserver
from stages.workshop.quant.packed import Quantized, dequantize, row_chunks
from stages.workshop.quant.policy import Method

# Errors of a layer are means over at most this many inputs per sample, evenly spaced.
INPUTS_PER_SAMPLE = 256

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
        kv: keys and values of every layer.
        samples, tokens: prompts, and their length together.
        image_tokens, answer_tokens: how many of these tokens are pictures, and how many are the assistant's.
        weight_errors: ‖W − Ŵ‖ / ‖W‖ of every module that was rounded with these prompts.
        methods: how each of them was rounded.
    """

    kv: KvObserver
    samples: int = 0
    tokens: int = 0
    image_tokens: int = 0
    answer_tokens: int = 0
    weight_errors: dict[str, float] = field(default_factory=dict)
    methods: dict[str, Method] = field(default_factory=dict)
    _output_errors: dict[str, _Mean] = field(default_factory=dict)
    _input_errors: dict[str, dict[str, _Mean]] = field(default_factory=dict)

    def kv_scales(self) -> KvScales:
        """Scales of all layers of the cache."""
        return self.kv.scales()

    def output_error(self, module: str) -> float | None:
        """Mean ‖Wx − Ŵx‖ / ‖Wx‖ of a module, or None if no input reached it."""
        return _mean(self._output_errors.get(module))

    def input_error(self, module: str, precision: Precision) -> float | None:
        """Mean ‖x − rounded x‖ / ‖x‖ of a module's inputs, rounded per token, or None if none reached it."""
        return _mean(self._input_errors.get(module, {}).get(precision))

    def saw_prompt(self, ids: Sequence[int], is_answer: Sequence[bool], image_token: int) -> None:
        """Counts a prompt's tokens."""
        self.samples += 1
        self.tokens += len(ids)
        self.image_tokens += sum(token == image_token for token in ids)
        self.answer_tokens += sum(is_answer)

    def saw_inputs(self, module: str, inputs: torch.Tensor) -> None:
        """Takes note of inputs [R, K] of a module."""
        for precision in get_args(Precision):
            errors = self._input_errors.setdefault(module, {}).setdefault(precision, _Mean())
            errors.add(relative_errors(inputs, precision))

    def saw_outputs(self, module: str, ratios: torch.Tensor) -> None:
        """Takes note of ‖Wx − Ŵx‖ / ‖Wx‖ [R] of a module."""
        self._output_errors.setdefault(module, _Mean()).add(ratios)

    def modules_state(self) -> dict[str, Any]:
        """What is known of modules, as JSON holds it."""
        return {
            "weight_errors": self.weight_errors,
            "methods": self.methods,
            "output_errors": {name: [mean.total, mean.count] for name, mean in self._output_errors.items()},
            "input_errors": {
                name: {kind: [mean.total, mean.count] for kind, mean in kinds.items()}
                for name, kinds in self._input_errors.items()
            },
        }

    def add_modules(self, state: Mapping[str, Any]) -> None:
        """Takes over what `modules_state` gave, of other modules."""
        self.weight_errors |= state["weight_errors"]
        self.methods |= state["methods"]
        self._output_errors |= {name: _Mean(*mean) for name, mean in state["output_errors"].items()}
        self._input_errors |= {
            name: {kind: _Mean(*mean) for kind, mean in kinds.items()} for name, kinds in state["input_errors"].items()
        }


def evenly_spaced(inputs: torch.Tensor, count: int = INPUTS_PER_SAMPLE) -> torch.Tensor:
    """Some of the inputs [.., K], as float32 rows [R, K]; a copy."""
    rows = inputs.reshape(-1, inputs.shape[-1])
    return rows[torch.linspace(0, len(rows) - 1, min(len(rows), count)).long()].float()


def output_ratios(weight: torch.Tensor, quantized: Quantized, inputs: torch.Tensor) -> torch.Tensor:
    """‖Wx − Ŵx‖ / ‖Wx‖ of inputs x [R, K]; inputs with Wx = 0 are left out."""
    right, wrong = (torch.zeros(len(inputs), dtype=torch.float64, device=inputs.device) for _ in range(2))
    # A head has so many rows that neither its difference nor its outputs should be there at once.
    for rows in row_chunks(*weight.shape):
        exact = weight[rows].float()
        part = quantized._replace(values=quantized.values[rows], scales=quantized.scales[rows])
        right += nn.functional.linear(inputs, exact).double().square().sum(dim=-1)
        # The difference of the weights first: it is exact, that of the outputs would cancel.
        off = exact - torch.from_numpy(dequantize(part)).to(exact.device)
        wrong += nn.functional.linear(inputs, off).double().square().sum(dim=-1)
    return (wrong / right).sqrt()[right > 0]


def _mean(errors: _Mean | None) -> float | None:
    return errors.total / errors.count if errors is not None and errors.count else None
