"""Who cuts the shards of a corpus: processes of this machine, or a Ray cluster. What is cut is the same.

Only a few shards for each process are handed out at a time, so memory does not grow with the corpus. A process that is
killed takes its shard with it, and another one cuts it again.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Literal

from stages.artifacts.errors import DataError, UsageError
from stages.artifacts.silence import send_no_statistics
from stages.workshop.corpus.processes import cores, process_pool
from stages.workshop.corpus.tile_shards import ShardOutcome, ShardTask, cut_shard

Engine = Literal["local", "ray"]
# A shard whose process was killed so often is told as an error: a picture of it may be what ends the decoder.
_TRIES = 3


def cut_shards(tasks: Iterable[ShardTask], engine: Engine, processes: int | None) -> Iterator[ShardOutcome]:
    """Cuts shards, and tells of each when it is done, in any order.

    Args:
        tasks: drawn as processes become free.
        engine: who cuts.
        processes: how many cut at a time; one per core when None. 1 with the local engine stays in this process.

    Raises:
        UsageError: Ray is not installed.
        DataError: a shard whose process ended each time.
    """
    if engine == "ray":
        yield from _on_ray(tasks, processes)
    elif processes == 1:
        yield from map(cut_shard, tasks)
    else:
        yield from _Pool(processes or cores()).run(tasks)


class _Pool:
    """Processes of this machine, and new ones where one was killed."""

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._executor = self._started()
        self._running: dict[Future[ShardOutcome], tuple[ShardTask, int]] = {}

    def run(self, tasks: Iterable[ShardTask]) -> Iterator[ShardOutcome]:
        """The outcomes as they come."""
        try:
            for task in tasks:
                self._submit(task, 1)
                while len(self._running) > self._processes:
                    yield from self._finished()
            while self._running:
                yield from self._finished()
        finally:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def _finished(self) -> Iterator[ShardOutcome]:
        """Waits for one or more. All of a pool end with the one process that was killed: they begin again."""
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        again: list[tuple[ShardTask, int]] = []
        for future in done:
            task, tries = self._running.pop(future)
            try:
                outcome = future.result()
            except BrokenProcessPool as error:
                if tries == _TRIES:
                    raise _ended(task) from error
                again.append((task, tries + 1))
            else:
                yield outcome
        if again:
            again += [self._running.pop(future) for future in list(self._running)]
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = self._started()
        for task, tries in again:
            self._submit(task, tries)

    def _submit(self, task: ShardTask, tries: int) -> None:
        try:
            future = self._executor.submit(cut_shard, task)
        except BrokenProcessPool as error:
            future = Future()
            future.set_exception(error)
        self._running[future] = (task, tries)

    def _started(self) -> ProcessPoolExecutor:
        return process_pool(self._processes)


def _on_ray(tasks: Iterable[ShardTask], processes: int | None) -> Iterator[ShardOutcome]:
    """Cuts on the cluster that `RAY_ADDRESS` names, or on one of this machine."""
    ray = _ray()
    ours = not ray.is_initialized()
    if ours:
        address = os.environ.get("RAY_ADDRESS")
        options: dict[str, Any] = {"log_to_driver": False, "include_dashboard": False, "num_cpus": processes}
        ray.init(**({"address": address, "log_to_driver": False} if address else options))
    try:
        most = processes or int(ray.cluster_resources().get("CPU", 1))
        cut = ray.remote(cut_shard).options(num_cpus=1, max_retries=_TRIES)
        running: dict[Any, ShardTask] = {}
        for task in tasks:
            running[cut.remote(task)] = task
            while len(running) > most:
                yield from _finished_on_ray(ray, running)
        while running:
            yield from _finished_on_ray(ray, running)
    finally:
        if ours:
            ray.shutdown()


def _finished_on_ray(ray: Any, running: dict[Any, ShardTask]) -> Iterator[ShardOutcome]:
    """Waits for one; Ray itself begins the shard of a killed process again."""
    done, _ = ray.wait(list(running), num_returns=1)
    for reference in done:
        task = running.pop(reference)
        try:
            yield ray.get(reference)
        except ray.exceptions.WorkerCrashedError as error:
            raise _ended(task) from error


def _ray() -> Any:
    if importlib.util.find_spec("ray") is None:
        raise UsageError(
            "--engine ray needs Ray, which is not installed.",
            "It hands the shards to the machines of a cluster.",
            "Install it: pip install 'bluelm[cluster]'",
        )
    send_no_statistics()
    import ray

    return ray


def _ended(task: ShardTask) -> DataError:
    first, last = task.pictures[0], task.pictures[-1]
    return DataError(
        f"The process that cut the pictures from {first.name} to {last.name} ended {_TRIES} times.",
        "One of them may end its decoder, or the memory may not hold it.",
        "Look for it with bluelm data check, or give more memory; the other shards are kept.",
    )
