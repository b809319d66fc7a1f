"""Several processes that train one model (torchrun, accelerate launch): one of them writes, the others follow.

torchrun --nproc-per-node 8 -m bluelm_cli pretrain --data CORPUS --from CHECKPOINT --out FOLDER

All of them read and write the same folders, so the nodes share a file system.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.artifacts.folder import ArtifactSpec, Draft, create
from stages.workshop.training.machine import Machine
from stages.workshop.training.stream import THREAD


def is_main() -> bool:
    """Whether this process is the one that writes and speaks; torchrun and accelerate number them in RANK."""
    return Machine().rank == 0


@contextmanager
def shared_draft(out: Path, spec: ArtifactSpec, machine: Machine, *, force: bool) -> Iterator[Draft]:
    """`create` for all processes: the main one owns the folder, the others get to know it and wait for its end."""
    with joined(machine):
        if machine.processes == 1:
            with create(out, spec, force=force, resumable=True) as draft:
                yield draft
        elif is_main():
            with create(out, spec, force=force, resumable=True) as draft:
                _tell(draft.path, draft.resumed)
                yield draft
            _tell(True)
        else:
            path, resumed = _tell(None, None)
            yield Draft(path, resumed)
            _tell(None)


@contextmanager
def joined(machine: Machine) -> Iterator[None]:
    """Connects several processes, and parts them in good order: one that just exits can abort another that still talks.

    Whoever fails leaves at once: the others then find the connection closed instead of waiting for ever.
    """
    if machine.processes == 1:
        yield
        return
    from accelerate import PartialState

    state = PartialState(cpu=machine.name == "cpu")
    try:
        yield
        state.wait_for_everyone()
    finally:
        _leave(state)


def _leave(state: Any) -> None:
    """Ends this process' connections before the interpreter ends.

    The trainer and torch's reducer hold one another in a cycle, and the reducer holds the process group. Left to the
    interpreter's end, its threads would be destroyed while they run, which aborts the process (SIGABRT).
    """
    if any(thread.name == THREAD for thread in threading.enumerate()):
        return  # A second Ctrl-C did not wait for the training thread, which still uses them.
    gc.collect()
    state.destroy_process_group()


def _tell(*values: Any) -> list[Any]:
    """The main process' values, in every process."""
    from accelerate.utils import broadcast_object_list

    return list(broadcast_object_list(list(values), from_process=0))
