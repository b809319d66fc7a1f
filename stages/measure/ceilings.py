"""What this machine reaches at most: memory bandwidth, and products of 8-bit integers and of float32.

The bandwidth is that of reading with all threads (`bandwidth`). Products are onnxruntime's own kernels on bare graphs,
at a shape as those of a 3B model in prefill. Of several repetitions the best counts as the ceiling of that moment.

All of it runs in a process of its own that waits for its turn, so that its arrays count as nobody else's memory.
Axes: M rows, K input and N output columns.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from stages.artifacts.errors import ModelError
from stages.measure.bandwidth import ARRAY_BYTES, GIGA, reader
from stages.measure.workshop_process import write_by_workshop

ROWS, COLUMNS, OUTPUTS = 512, 2304, 5760
REPETITIONS = 5


@dataclass(frozen=True)
class Ceilings:
    """What the machine reached in one moment: GB/s read, GOP/s of INT8 and GFLOP/s of float32 products."""

    read_gb_s: float
    int8_gop_s: float
    float32_gop_s: float


@dataclass(frozen=True)
class Ceiling:
    """One of them over a bench: the best and the median of all moments."""

    best: float
    median: float


def summarise_ceilings(moments: Sequence[Ceilings]) -> dict[str, Ceiling]:
    """Best and median by name.

    Raises:
        ValueError: nothing was measured.
    """
    columns = {name: [getattr(moment, name) for moment in moments] for name in Ceilings.__dataclass_fields__}
    return {name: Ceiling(max(values), statistics.median(values)) for name, values in columns.items()}


@contextmanager
def ceiling_process(
    threads: int, folder: Path | None = None, array_bytes: int = ARRAY_BYTES
) -> Iterator[Callable[[], Ceilings]]:
    """A process that measures the ceilings each time the yielded function is called, and idles in between.

    Args:
        threads: CPU threads.
        folder: where the graphs are; written to a temporary one if None.
        array_bytes: of the array that is read; far more than any cache holds.

    Raises:
        ModelError: the graphs could not be written, or the process ended.
    """
    with tempfile.TemporaryDirectory(prefix="bluelm-ceilings-") as temporary:
        place = folder or Path(temporary)
        if folder is None:
            write_by_workshop("ceilings", {"columns": COLUMNS, "outputs": OUTPUTS}, place, "The ceilings' graphs")
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, os.fspath(place), threads, array_bytes), daemon=True)
        process.start()
        theirs.close()

        def measure() -> Ceilings:
            try:
                ours.send(None)
                found: Ceilings = ours.recv()
            except (EOFError, OSError) as error:
                raise ModelError(
                    "The process that measures this machine's ceilings ended.",
                    "Speeds cannot be compared with what the machine reaches.",
                    f"It needs {array_bytes >> 20} MiB of memory; or leave it out: --no-ceilings.",
                ) from error
            return found

        try:
            yield measure
        finally:
            ours.close()
            process.join(timeout=10)
            if process.is_alive():
                process.kill()


def _serve(connection: Connection, folder: str, threads: int, array_bytes: int) -> None:
    """What the process does: everything is allocated once, then measured whenever a message comes."""
    # Ctrl-C is for the bench; the end of the connection ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    products = {form: BareProduct(Path(folder) / f"{form}.onnx", threads) for form in ("int8", "float32")}
    with reader(threads, array_bytes) as read:
        while True:
            try:
                connection.recv()
            except EOFError:
                return
            reads = [read() for _ in range(REPETITIONS)]
            rates = {form: max(product.rate() for _ in range(REPETITIONS)) for form, product in products.items()}
            connection.send(Ceilings(max(reads), rates["int8"], rates["float32"]))


class BareProduct:
    """One of the workshop's bare graphs, its input and output bound, ready to be timed.

    Args:
        path: the graph.
        threads: CPU threads.
        rows: M.
    """

    def __init__(self, path: Path, threads: int, rows: int = ROWS) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = ort.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
        (source,), (target,) = self._session.get_inputs(), self._session.get_outputs()
        columns, outputs = source.shape[1], target.shape[1]
        self.operations = 2 * rows * columns * outputs
        rng = np.random.default_rng(0)
        small: dict[str, NDArray[Any]] = {
            "tensor(float)": rng.standard_normal((rows, columns), dtype=np.float32),
            "tensor(uint8)": rng.integers(0, 256, (rows, columns), dtype=np.uint8),
        }
        kind = {"tensor(float)": np.float32, "tensor(int32)": np.int32}[target.type]
        self._arrays = small[source.type], np.zeros((rows, outputs), kind)
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input(source.name, ort.OrtValue.ortvalue_from_numpy(self._arrays[0]))
        self._binding.bind_ortvalue_output(target.name, ort.OrtValue.ortvalue_from_numpy(self._arrays[1]))

    def rate(self) -> float:
        """GOP/s of one run, multiplications and additions counted."""
        start = time.perf_counter()
        self._session.run_with_iobinding(self._binding)
        return self.operations / (time.perf_counter() - start) / GIGA

    @property
    def product(self) -> NDArray[Any]:
        """What the last run computed, [M, N]."""
        return self._arrays[1]

    @property
    def rows(self) -> NDArray[Any]:
        """What it is fed, [M, K]."""
        return self._arrays[0]
