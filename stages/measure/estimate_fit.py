"""Constants of a device from measured configurations: sums of known amounts, so least squares, none below zero.

Memory: every stage's resident bytes are a sum of overheads times amounts. Time: every stage's seconds are amounts
divided by speeds. Rows are divided by what was measured, so that each configuration counts by its relative error.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.errors import UsageError
from stages.measure.estimate_check import MeasuredCase
from stages.measure.estimate_counts import counts_of
from stages.measure.estimate_device import Device, Overheads, Speeds
from stages.measure.estimate_memory import MB, chunk_tokens, encode_parts, prefill_buffers
from stages.measure.estimate_time import TIMED, work_of

Row = dict[str, float]
# Fewer configurations than this cannot tell the constants apart.
FEWEST = 4
# Below this share of the smallest measurement a time is noise of the clock, not a constant.
_NEGLIGIBLE = 1e-9


def fit_device(name: str, records: Sequence[MeasuredCase], memory_gb: float | None = None) -> Device:
    """Fits a device that runs our CPU runtime.

    Args:
        name: of the device.
        records: measured configurations; they must differ in layers, policy, prompt, chunk and batches.
        memory_gb: its memory.

    Raises:
        UsageError: too few configurations.
    """
    if len(records) < FEWEST:
        raise UsageError(
            f"{len(records)} measured configurations are too few.",
            f"{FEWEST} that differ tell the constants of memory and time apart.",
            "Measure more: recipes/estimate_check.sh WORK",
        )
    overheads = fit_overheads(records)
    speeds, negligible = fit_speeds(records)
    return Device(
        name=name,
        memory_gb=memory_gb,
        expands=True,
        int16_passes=2,
        speeds=speeds,
        negligible=negligible,
        memory=overheads,
        fitted=("memory", *TIMED),
        sources={"all": f"fitted on {len(records)} measured configurations (bluelm bench estimate --fit)"},
        unknown=("what a session cache of prepacked weights saves: loads are those without one",),
    )


def fit_overheads(records: Sequence[MeasuredCase]) -> Overheads:
    """Least squares over every stage of every configuration."""
    rows: list[Row] = []
    values: list[float] = []
    for record in records:
        for row, value in _memory_rows(record):
            rows.append(row)
            values.append(value)
    return Overheads.model_validate(nonnegative(rows, values))


def fit_speeds(records: Sequence[MeasuredCase]) -> tuple[Speeds, tuple[str, ...]]:
    """Least squares stage by stage; decoding first, since a prompt ends with a step of it.

    Returns:
        the speeds, and the names of those whose work turned out to take no time of its own.
    """
    slowness: dict[str, float] = {}
    for stage in reversed(TIMED):
        rows, values = [], []
        for record in records:
            measured = record.typical(stage)
            amounts = work_of(counts_of(record.shape, record.case), record.case, expands=True)[stage]
            if measured is None or not any(amounts.values()):
                continue
            known = sum(amounts[name] * slowness[name] for name in amounts if name in slowness)
            rows.append({name: amount / measured for name, amount in amounts.items() if name not in slowness})
            values.append(1 - known / measured)
        if rows:
            slowness |= nonnegative(rows, values, scaled=False)
    speeds = {name: 1 / value for name, value in slowness.items() if value > 0}
    return Speeds.model_validate(speeds), tuple(name for name, value in slowness.items() if value <= 0)


def nonnegative(rows: Sequence[Row], values: Sequence[float], *, scaled: bool = True) -> Row:
    """Least squares with no coefficient below 0 (active sets: Lawson and Hanson 1974, from the unconstrained side).

    Args:
        rows: amounts by name; a missing one is 0.
        values: what they sum up to.
        scaled: divide each row by its value, so that errors are relative.

    Returns:
        A coefficient by name; 0 where it would be below.
    """
    names = sorted({name for row in rows for name in row})
    matrix = np.array([[row.get(name, 0.0) for name in names] for row in rows], np.float64)  # [rows, names]
    target = np.array(values, np.float64)
    if scaled:
        matrix, target = matrix / target[:, None], np.ones_like(target)
    # Columns differ by fifteen powers of ten.
    sizes = np.maximum(np.abs(matrix).max(axis=0), np.finfo(np.float64).tiny)
    found = _solve(matrix / sizes, target)
    return {name: float(value) for name, value in zip(names, found / sizes, strict=True)}


def _solve(matrix: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    count = matrix.shape[1]
    free: list[int] = []
    solution = np.zeros(count)
    for _ in range(3 * count):
        gradient = matrix.T @ (target - matrix @ solution)
        waiting = [index for index in range(count) if index not in free and gradient[index] > _NEGLIGIBLE]
        if not waiting:
            break
        free.append(max(waiting, key=lambda index: gradient[index]))
        while free:
            trial = np.zeros(count)
            trial[free] = np.linalg.lstsq(matrix[:, free], target, rcond=None)[0]
            if all(trial[index] > 0 for index in free):
                solution = trial
                break
            steps = [
                solution[index] / (solution[index] - trial[index])
                for index in free
                if trial[index] <= 0 and solution[index] > trial[index]
            ]
            solution = solution + min(steps, default=0.0) * (trial - solution)
            kept = [index for index in free if solution[index] > _NEGLIGIBLE]
            # The one that came last may be the one that goes: then nothing more can be gained.
            if len(kept) == len(free):
                kept = free[:-1]
            solution[[index for index in free if index not in kept]] = 0
            free = kept
    return solution


def _memory_rows(record: MeasuredCase) -> list[tuple[Row, float]]:
    """Resident MB of each stage, less what is known by construction, as amounts of the overheads."""
    case, shape = record.case, record.shape
    counts = counts_of(shape, case)
    language, tower = counts.language_bytes / MB, counts.vision_bytes / MB
    extra = 0.0 if shape.tied else counts.embedding_bytes / MB
    first, again = encode_parts(shape, case)
    features = case.tiles * shape.tiling.tokens_per_tile * counts.position_bytes / MB
    cache = counts.kv_bytes * case.prompt_tokens / MB
    buffers = sum(prefill_buffers(shape, case, counts, True).values())
    loaded = {"process_mb": 1.0, "packed": language + tower}
    encoded = {**loaded, "tile_mb": first, "repeat_mb": again}
    rest = {"process_mb": 1.0, "packed": language, "kept_mb": 1.0} if case.free_vision else encoded
    read = {**rest, "prefill_mb": 1.0, "chunk_mb": chunk_tokens(shape, case)}
    rows = [
        ({**loaded, "load_spike": counts.head_bytes / MB}, record.peak_mb["load"] - extra),
        (loaded, record.rss_mb["load"] - extra),
        (encoded, record.peak_mb["encode"] - extra),
        (read, record.peak_mb["prefill"] - extra - features - cache - buffers),
    ]
    if case.free_vision:
        rows.append((rest, record.rss_mb["free"] - extra - features))
    return [(row, value) for row, value in rows if value > 0]
