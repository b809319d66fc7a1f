"""Measures what a finished quantized folder costs: the float model, then its parts one by one, then the whole."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from stages.artifacts.events import Progress
from stages.workshop.model.checkpoint import load_checkpoint
from stages.workshop.quant.fidelity import Fidelity, FidelityConfig, SensitivityRow, fidelity_of, sensitivity_row
from stages.workshop.quant.kv_cache import check_layers
from stages.workshop.quant.kv_positions import errors_by_position
from stages.workshop.quant.quantized_folder import QuantizedFolder
from stages.workshop.quant.sensitivity import PartlyQuantized
from stages.workshop.quant.simulation import load_quantized
from stages.workshop.quant.teacher_forcing import Asked, ForcedReader, device_mode


class Judge(Protocol):
    """Compares readings; see stages/evaluate/judge.py."""

    @property
    def questions(self) -> Sequence[Asked]: ...

    def reference(self, reader: Any) -> Iterator[int]: ...

    def agreement(self, reader: Any) -> Generator[int, None, dict[str, Any]]: ...


@dataclass(frozen=True)
class Costing:
    """What is measured.

    Attributes:
        checkpoint: the float model.
        folder: the quantized one.
        how: what is measured, and on how much.
        device: where torch computes.
        dtype: of the float model.
    """

    checkpoint: Path
    folder: Path
    how: FidelityConfig
    device: str = "cpu"
    dtype: torch.dtype = torch.float32

    def measure(self, judge: Judge) -> Generator[Progress, None, Fidelity]:
        """Reads the judge's questions with each model; one model is in memory at a time.

        Raises:
            BluelmError: a model or a picture cannot be read.
        """
        rows, positions = yield from self._float(judge)
        model, processor = load_quantized(self.folder, exact=True)
        mode = device_mode(QuantizedFolder(self.folder), check_layers(model.config))
        reader = ForcedReader(model.to(self.device), processor, mode, batch=self.how.batch)
        agreement = yield from _told(judge, reader, "quantized model")
        return fidelity_of(agreement).model_copy(update={"sensitivity": rows, "kv_positions": positions})

    def _float(self, judge: Judge) -> Generator[Progress, None, tuple[tuple[SensitivityRow, ...], tuple[Any, ...]]]:
        """The float model, and its parts quantized one at a time."""
        model, processor = load_checkpoint(self.checkpoint, self.dtype, self.device)
        model.eval()
        for done in judge.reference(ForcedReader(model, processor, batch=self.how.batch)):
            yield Progress("float model", done, len(judge.questions), "questions")
        source = QuantizedFolder(self.folder)
        scales = source.kv_scales(check_layers(model.config))
        positions = (
            () if scales is None else errors_by_position(model, processor, scales, judge.questions, self.how.context)
        )
        rows = []
        partly = PartlyQuantized(model, source)
        names = () if self.how.sensitivity == "none" else partly.parts()
        if self.how.sensitivity == "layers":
            names += partly.layers()
        for name in names:
            with partly.only(name) as mode:
                reader = ForcedReader(model, processor, mode, batch=self.how.batch, answers_only=True)
                rows.append(sensitivity_row(name, (yield from _told(judge, reader, f"only {name}"))))
        return tuple(rows), positions


def _told(judge: Judge, reader: ForcedReader, what: str) -> Generator[Progress, None, dict[str, Any]]:
    comparing = judge.agreement(reader)
    while True:
        try:
            done = next(comparing)
        except StopIteration as end:
            found: dict[str, Any] = end.value
            return found
        yield Progress(what, done, len(judge.questions), "questions")
