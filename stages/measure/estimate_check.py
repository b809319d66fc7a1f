"""Measured configurations, and how far predictions are from them.

A record is a line of JSON: the configuration (`case`), `seconds` and `pace` of each stage (one number a run), `peak_mb`
and `rss_mb` by stage; `estimate_probe` measures it. Seconds are evened out when they are read: each run's by the pace
of its moment, to the median pace of all records of the file.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stages.artifacts.errors import DataError
from stages.measure.estimate_counts import counts_of
from stages.measure.estimate_device import Device
from stages.measure.estimate_memory import memory_over_time, peak_of
from stages.measure.estimate_plan import Case
from stages.measure.estimate_shape import ModelShape, preset_shape
from stages.measure.estimate_time import seconds_of

# What issue 10 asks of predictions on this machine.
PEAK_LIMIT, TIME_LIMIT = 0.08, 0.25


class MeasuredCase(BaseModel):
    """One configuration as it was measured."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    case: Case
    seconds: dict[str, tuple[float, ...]]
    pace: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    peak_mb: dict[str, float]
    rss_mb: dict[str, float]

    @property
    def shape(self) -> ModelShape:
        """The shape it had."""
        assert self.case.preset is not None
        return preset_shape(self.case.preset).cut_to(self.case.layers, self.case.vision_layers)

    @property
    def peak(self) -> float:
        """The largest resident set of any stage, MB."""
        return max(self.peak_mb[stage] for stage in ("load", "encode", "prefill", "decode"))

    def typical(self, stage: str) -> float | None:
        """Median seconds of a stage; None where it was not timed."""
        samples = self.seconds.get(stage, ())
        return statistics.median(samples) if samples and min(samples) > 0 else None


@dataclass(frozen=True)
class Compared:
    """One predicted quantity beside the measured one."""

    label: str
    quantity: str
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """Predicted over measured, less 1."""
        return self.predicted / self.measured - 1


def read_measured(path: Path) -> list[MeasuredCase]:
    """Reads records, in the order of the file.

    Raises:
        DataError: it is missing, or a line is no record; the message has its number.
    """
    fix = "Measure again: recipes/estimate_check.sh WORK"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.", "Constants are fitted on its records.", fix) from error
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = MeasuredCase.model_validate(json.loads(line))
            if record.case.preset is None:
                raise ValueError("the case names no preset")
        except (ValidationError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(
                f"{path}, line {number}: {reason}.", "It is no record of a measured configuration.", fix
            ) from error
        found.append(record)
    return _evened(found)


def _evened(records: Sequence[MeasuredCase]) -> list[MeasuredCase]:
    """The records with seconds as they would be at the median pace; those without a pace as they are."""
    usual = {}
    for stage in sorted({stage for record in records for stage in record.pace}):
        usual[stage] = statistics.median(pace for record in records for pace in record.pace.get(stage, ()))
    evened = []
    for record in records:
        seconds = dict(record.seconds)
        for stage, paces in record.pace.items():
            runs = zip(seconds.get(stage, ()), paces, strict=True)
            seconds[stage] = tuple(taken * usual[stage] / pace for taken, pace in runs)
        evened.append(record.model_copy(update={"seconds": seconds}))
    return evened


def compare(device: Device, records: Sequence[MeasuredCase]) -> list[Compared]:
    """Peak memory and seconds of each stage, predicted and measured; what cannot be predicted is left out."""
    rows = []
    for record in records:
        case, counts = record.case, counts_of(record.shape, record.case, device.int16_passes)
        if device.memory is not None:
            moments = memory_over_time(record.shape, case, counts, device.memory, device.expands)
            rows.append(Compared(case.label, "peak MB", peak_of(moments).total, record.peak))
        for seconds in seconds_of(device, counts, case):
            measured = record.typical(seconds.stage)
            if seconds.total is not None and not seconds.missing and measured is not None:
                rows.append(Compared(case.label, f"{seconds.stage} s", seconds.total, measured))
    return rows
