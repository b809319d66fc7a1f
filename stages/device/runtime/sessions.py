"""onnxruntime sessions: opened with a clock, checked against the contract, their errors told in three beats."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from stages.artifacts.errors import ModelError

REMAKE = "Export the model again: bluelm export CHECKPOINT --out FOLDER --force"
# onnxruntime's exceptions share no base class but Exception.
_ORT_ERRORS = tuple(
    getattr(ort_state, name)
    for name in (
        "Fail",
        "InvalidArgument",
        "NoSuchFile",
        "NoModel",
        "EngineError",
        "RuntimeException",
        "InvalidProtobuf",
        "NotImplemented",
        "InvalidGraph",
        "EPFail",
    )
    if hasattr(ort_state, name)
)
_FATAL_ONLY = 4
# Where sessions that are being opened write their profiles, see `profiled_into`.
_PROFILES: ContextVar[Path | None] = ContextVar("profiles", default=None)


@contextmanager
def profiled_into(folder: Path) -> Iterator[None]:
    """Graphs opened in this block, in this thread, write what every operator took to `folder/<graph>_<time>.json`.

    A file is complete once its graph is let go of.
    """
    before = _PROFILES.set(folder)
    try:
        yield
    finally:
        _PROFILES.reset(before)


@dataclass(frozen=True)
class Port:
    """What an input or output must be: onnxruntime's type name and the dimensions that are known (None: any)."""

    dtype: str
    shape: tuple[int | None, ...]

    def misfit(self, other: Any) -> str | None:
        """How a session's input or output differs from this, in words; symbolic dimensions fit everything."""
        if other.type != self.dtype:
            return f"is {other.type}, not {self.dtype}"
        actual = tuple(other.shape)
        if len(actual) != len(self.shape):
            return f"has {len(actual)} dimensions, not {len(self.shape)}"
        for axis, (want, have) in enumerate(zip(self.shape, actual, strict=True)):
            if want is not None and isinstance(have, int) and have != want:
                return f"has {have} at axis {axis}, where {want} is expected"
        return None


class Graph:
    """One ONNX graph in its session.

    Args:
        path: the .onnx file; its external data lies beside it.
        threads: threads within an operator; None takes every core this process may use.

    Raises:
        ModelError: the file is missing or onnxruntime refuses it.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        started = time.perf_counter()
        if not path.is_file():
            raise missing_graph(path)
        self.path = path
        with _explained(path, "onnxruntime cannot open it"):
            self.session = ort.InferenceSession(
                os.fspath(path), sess_options=_options(threads, path.stem), providers=["CPUExecutionProvider"]
            )
        self.load_s = time.perf_counter() - started

    @property
    def inputs(self) -> dict[str, Any]:
        """Inputs by name, with `.type` and `.shape`."""
        return {port.name: port for port in self.session.get_inputs()}

    @property
    def outputs(self) -> dict[str, Any]:
        """Outputs by name, with `.type` and `.shape`."""
        return {port.name: port for port in self.session.get_outputs()}

    def check(self, inputs: Mapping[str, Port], outputs: Mapping[str, Port]) -> None:
        """Holds the graph against what `device.json` says.

        Raises:
            ModelError: an input or output is missing, unknown, or of another type or shape.
        """
        for side, wanted, actual in (("input", inputs, self.inputs), ("output", outputs, self.outputs)):
            for name, port in wanted.items():
                problem = port.misfit(actual[name]) if name in actual else "is missing"
                if problem is not None:
                    self._refuse(f"the {side} {name} {problem}")
        unknown = sorted(set(self.inputs) - set(inputs))
        if unknown:
            self._refuse(f"the input {unknown[0]} is unknown to the runtime")

    def run(self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[Any]]:
        """Runs the graph once.

        Raises:
            ModelError: onnxruntime stops with an error.
        """
        with _explained(self.path, "it stopped while running"):
            return list(self.session.run(list(outputs), dict(feeds)))

    def run_bound(self, binding: Any) -> None:
        """Runs the graph once on bound buffers.

        Raises:
            ModelError: onnxruntime stops with an error.
        """
        with _explained(self.path, "it stopped while running"):
            self.session.run_with_iobinding(binding)

    def _refuse(self, problem: str) -> None:
        raise ModelError(
            f"{self.path}: {problem}.", "device.json and the graph describe different models.", REMAKE
        ) from None


def missing_graph(path: Path) -> ModelError:
    """The error of a graph file that is not there."""
    return ModelError(f"{path} does not exist.", "The model cannot run without this graph.", REMAKE)


def check_finite(values: NDArray[np.float32], source: Path) -> None:
    """Stops at numbers that are none.

    Raises:
        ModelError: NaN or infinity among the values.
    """
    if not np.isfinite(values).all():
        raise ModelError(
            f"{source} computes numbers that are NaN or infinite.",
            "Whatever follows from them would be noise.",
            "Check the checkpoint it was exported from, then " + REMAKE[0].lower() + REMAKE[1:],
        )


def available_threads() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _options(threads: int | None, name: str) -> ort.SessionOptions:
    options = ort.SessionOptions()
    profiles = _PROFILES.get()
    if profiles is not None:
        options.enable_profiling = True
        options.profile_file_prefix = os.fspath(profiles / name)
    options.intra_op_num_threads = threads or available_threads()
    options.inter_op_num_threads = 1
    # Errors arrive as exceptions and are told once, in our words.
    options.log_severity_level = _FATAL_ONLY
    return options


@contextmanager
def _explained(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except _ORT_ERRORS as error:
        lines = str(error).strip().splitlines() or ["no reason given"]
        raise ModelError(
            f"{path}: {what}: {lines[0][:300]}", "The graph or its external data is damaged or does not fit.", REMAKE
        ) from error
