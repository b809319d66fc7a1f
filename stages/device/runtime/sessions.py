"""onnxruntime sessions: opened with a clock, checked against the contract, their errors told in three beats."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from stages.artifacts.errors import ModelError
from stages.device.contract.names import DEVICE_CONFIG_FILE
from stages.device.runtime.interruption import check_interruption
from stages.device.runtime.memory import drop_file_pages, trim_heap
from stages.device.runtime.ort_errors import ORT_ERRORS
from stages.device.runtime.session_cache import SessionCache, data_file

REMAKE = "Export the model again: bluelm export CHECKPOINT --out FOLDER --force"
BINDING = "it does not take what is bound to it"
_FATAL_ONLY = 4
_FLASH_VARIABLE = "ORT_GQA_DISABLE_FLASH_ATTENTION"
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
        cache: where prepacked weights are kept; None for nowhere.
        flash: let GroupQueryAttention work in tiles. Without, it is faster where few positions are new and takes
            4 bytes for each head, new position and position in the cache.
        rests: its threads go to sleep after each run, for the sake of other work between the runs.
        arena: keep activations' memory from run to run: large ones would else be cleared pages each time. A run can
            give it back, see `run_bound`.

    Raises:
        ModelError: the file is missing or onnxruntime refuses it.
    """

    def __init__(
        self,
        path: Path,
        threads: int | None = None,
        cache: SessionCache | None = None,
        *,
        flash: bool = True,
        rests: bool = False,
        arena: bool = False,
    ) -> None:
        started = time.perf_counter()
        if not path.is_file():
            raise missing_graph(path)
        self.path = path

        def opened(file: Path, change: Callable[[ort.SessionOptions], None] | None = None) -> ort.InferenceSession:
            options = _options(threads, path.stem)
            options.enable_cpu_mem_arena = arena
            if rests:
                options.add_session_config_entry("session.force_spinning_stop", "1")
            if change is not None:
                change(options)
            return ort.InferenceSession(os.fspath(file), sess_options=options, providers=["CPUExecutionProvider"])

        with _explained(path, "onnxruntime cannot open it"), nullcontext() if flash else _without_flash():
            cached = cache.open(path, opened) if cache is not None else None
            self.session, self.weights = cached or (opened(path), data_file(path))
        trim_heap()
        self.load_s = time.perf_counter() - started

    @property
    def inputs(self) -> dict[str, Any]:
        """Inputs by name, with `.type` and `.shape`."""
        return {port.name: port for port in self.session.get_inputs()}

    @property
    def outputs(self) -> dict[str, Any]:
        """Outputs by name, with `.type` and `.shape`."""
        return {port.name: port for port in self.session.get_outputs()}

    def check(self, inputs: Mapping[str, Port], outputs: Mapping[str, Port], source: str = DEVICE_CONFIG_FILE) -> None:
        """Holds the graph against what `source`, a file of the folder, says.

        Raises:
            ModelError: an input or output is missing, unknown, or of another type or shape.
        """
        for side, wanted, actual in (("input", inputs, self.inputs), ("output", outputs, self.outputs)):
            for name, port in wanted.items():
                problem = port.misfit(actual[name]) if name in actual else "is missing"
                if problem is not None:
                    self._refuse(f"the {side} {name} {problem}", source)
        unknown = sorted(set(self.inputs) - set(inputs))
        if unknown:
            self._refuse(f"the input {unknown[0]} is unknown to the runtime", source)

    def run(self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[Any]]:
        """Runs the graph once.

        Raises:
            ModelError: onnxruntime stops with an error.
            Interrupted: see `interruption`.
        """
        check_interruption()
        with self.explained():
            return list(self.session.run(list(outputs), dict(feeds)))

    def run_bound(self, binding: Any, *, last: bool = False) -> None:
        """Runs the graph once on bound buffers.

        Args:
            binding: the buffers.
            last: give the arena's memory back afterwards.

        Raises:
            ModelError: onnxruntime stops with an error.
            Interrupted: see `interruption`.
        """
        check_interruption()
        options = ort.RunOptions() if last else None
        if options is not None:
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        with self.explained():
            self.session.run_with_iobinding(binding, options)

    def explained(self, what: str = "it stopped while running") -> AbstractContextManager[None]:
        """Errors of onnxruntime in this block, which only binds buffers or runs the graph, become ModelError."""
        # Where buffers are bound by their address, most of its errors have no type of their own.
        return _explained(self.path, what, (*ORT_ERRORS, RuntimeError))

    def drop_pages(self) -> None:
        """Lets go of the pages of its weights that loading has read; what running needs comes back by itself.

        No other thread may be opening or freeing the same graph.
        """
        drop_file_pages(self.weights)

    def _refuse(self, problem: str, source: str) -> None:
        raise ModelError(
            f"{self.path}: {problem}.", f"{source} and the graph describe different models.", REMAKE
        ) from None


def missing_graph(path: Path) -> ModelError:
    """The error of a graph file that is not there."""
    return ModelError(f"{path} does not exist.", "The model cannot run without this graph.", REMAKE)


def buffer_of(array: NDArray[Any]) -> tuple[str, int, np.dtype[Any], tuple[int, ...], int]:
    """A contiguous array as onnxruntime's bindings take memory of ours; whoever binds it keeps it alive."""
    return "cpu", 0, array.dtype, array.shape, array.ctypes.data


def check_finite(values: NDArray[np.float32], source: Path) -> None:
    """Stops at numbers that are none.

    Raises:
        ModelError: NaN or infinity among the values.
    """
    # Infinities are at an end of the order, and NaN spreads to both ends: no array of answers is made.
    if values.size and not (np.isfinite(values.min()) and np.isfinite(values.max())):
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
def _without_flash() -> Iterator[None]:
    """The attention of sessions opened in this block takes whole rows of scores at once.

    onnxruntime has no option for it, only this variable, which the operator reads when its session is opened.
    """
    before = os.environ.get(_FLASH_VARIABLE)
    os.environ[_FLASH_VARIABLE] = "1"
    try:
        yield
    finally:
        # Never removed: only a new value for a known name is safe beside threads that read the environment.
        os.environ[_FLASH_VARIABLE] = before or "0"


@contextmanager
def _explained(path: Path, what: str, errors: tuple[type[Exception], ...] = ORT_ERRORS) -> Iterator[None]:
    try:
        yield
    except errors as error:
        lines = str(error).strip().splitlines() or ["no reason given"]
        raise ModelError(
            f"{path}: {what}: {lines[0][:300]}", "The graph or its external data is damaged or does not fit.", REMAKE
        ) from error
