"""`report.json`: what quantization did, layer by layer, and the true bits per weight of every part.

True bits count all that is on disk: packed values, scales, the shape tensors, and what stayed float (norms, biases,
embedding), divided by the number of the checkpoint's values.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.workshop.quant.modules import part_of
from stages.workshop.quant.plan import TensorPlan

REPORT_FILE = "report.json"


@dataclass(frozen=True)
class LayerReport:
    """One quantized module.

    Attributes:
        scheme: as text.
        at_export: stored as float here, quantized by the export.
        weight_error: ‖W − Ŵ‖ / ‖W‖ over the whole matrix.
        output_error: mean over calibration inputs x of ‖Wx − Ŵx‖ / ‖Wx‖; None if no input reached the layer.
    """

    name: str
    shape: tuple[int, int]
    scheme: str
    at_export: bool
    weight_error: float
    output_error: float | None
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class PartReport:
    """A part of the model, or the whole: number of weights, bytes, true bits per weight."""

    part: str
    weights: int
    bytes_before: int
    bytes_after: int

    @property
    def bits_per_weight(self) -> float:
        """8 · bytes on disk / number of values."""
        return 8 * self.bytes_after / self.weights

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {**vars(self), "bits_per_weight": round(self.bits_per_weight, 4)}


@dataclass(frozen=True)
class Report:
    """The whole of report.json."""

    layers: tuple[LayerReport, ...]
    parts: tuple[PartReport, ...]
    total: PartReport
    calibration: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """As written to the file."""
        return {
            "layers": [{**vars(layer), "part": part_of(layer.name)} for layer in self.layers],
            "parts": [part.as_dict() for part in self.parts],
            "total": self.total.as_dict(),
            "calibration": dict(self.calibration),
        }

    def worst(self, count: int) -> list[LayerReport]:
        """The layers with the largest output error (weight error where there is none), worst first."""
        return sorted(self.layers, key=_error, reverse=True)[:count]

    def write(self, folder: Path) -> None:
        """Writes report.json into a folder."""
        (folder / REPORT_FILE).write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")


def read_report(folder: Path) -> Report:
    """Reads report.json of a finished folder."""
    data = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
    layers = tuple(LayerReport(**{key: layer[key] for key in LayerReport.__annotations__}) for layer in data["layers"])
    parts = [PartReport(**{key: part[key] for key in PartReport.__annotations__}) for part in data["parts"]]
    total = PartReport(**{key: data["total"][key] for key in PartReport.__annotations__})
    return Report(layers, tuple(parts), total, data["calibration"])


def sum_parts(tensors: Sequence[TensorPlan]) -> tuple[PartReport, ...]:
    """Totals per part, in the order in which parts first appear."""
    names = dict.fromkeys(part_of(tensor.name) for tensor in tensors)
    return tuple(_sum(name, (t for t in tensors if part_of(t.name) == name)) for name in names)


def sum_all(tensors: Sequence[TensorPlan]) -> PartReport:
    """Totals of the whole model."""
    return _sum("whole", tensors)


def _sum(name: str, tensors: Iterable[TensorPlan]) -> PartReport:
    held = tuple(tensors)
    return PartReport(
        name, sum(t.weights for t in held), sum(t.bytes_before for t in held), sum(t.bytes_after for t in held)
    )


def _error(layer: LayerReport) -> float:
    return layer.weight_error if layer.output_error is None else layer.output_error
