"""States that a training run can go on from: `state-STEP` folders, complete or ignored.

transformers' `get_last_checkpoint` takes a half-written folder. Here a state counts only when its marker, which is
written last and lists every file with its size, is there and true. States never enter an artifact.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from stages.artifacts.atomic_file import is_partial, sync_file, write_atomically
from stages.artifacts.errors import BluelmError
from stages.workshop.training.history import History, history_from

MARKER = "complete.json"
# What transformers calls its folders; `TrainerState` and our marker give the step.
PREFIX = "checkpoint-"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What torch.save says, as a RuntimeError, when a write comes short.
_TORCH_WRITE_FAILED = ("file write failed", "PytorchStreamWriter failed", "unexpected pos")


@dataclass(frozen=True)
class TrainingState:
    """A complete state: where it lies, how many steps it has behind it, and how they went."""

    path: Path
    step: int
    history: History


class StateError(BluelmError):
    """A state that could not be written; the one before it is whole."""


@contextmanager
def writing(folder: Path, step: int) -> Iterator[None]:
    """Turns a full disk into an error that says what is left; what was written of the state goes.

    Raises:
        StateError: the disk is full.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if not _is_full(error):
            raise
        shutil.rmtree(folder, ignore_errors=True)
        last = newest_state(folder.parent)
        kept = f"go on after step {last.step}, whose state is whole" if last else "begin anew, since it was the first"
        raise StateError(
            f"{folder.name}, the state after step {step}, cannot be written: the disk is full.",
            f"Training would {kept}; what came after it would be lost.",
            "Free some space and run the same command again, or keep fewer states (--set execution.keep_states=1).",
        ) from error


def _is_full(error: Exception) -> bool:
    """Whether the disk was too full: torch and safetensors wrap the system's error in words of their own."""
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return True
    text = str(error)
    return any(f"(os error {number})" in text for number in _NO_ROOM) or any(
        words in text for words in _TORCH_WRITE_FAILED
    )


def mark_complete(folder: Path, step: int, history: History) -> None:
    """Declares a state complete: syncs its files to disk, then writes the marker in one step."""
    sizes = {}
    for entry in sorted(folder.iterdir()):
        if entry.is_file() and entry.name != MARKER and not is_partial(entry):
            sync_file(entry)
            sizes[entry.name] = entry.stat().st_size
    content = {"step": step, "files": sizes, "history": history.as_dict()}
    sync_file(folder)
    write_atomically(folder / MARKER, json.dumps(content))


def complete_states(root: Path) -> list[TrainingState]:
    """The complete states, newest first."""
    found = [state for folder in root.glob(f"{PREFIX}*") if (state := _read(folder)) is not None]
    return sorted(found, key=lambda state: state.step, reverse=True)


def newest_state(root: Path) -> TrainingState | None:
    """The complete state with the most steps, or None."""
    return next(iter(complete_states(root)), None)


def drop_states(root: Path, keep: int) -> None:
    """Removes all but the newest complete states, half-written ones included."""
    kept = [state.path for state in complete_states(root)[:keep]]
    for folder in root.glob(f"{PREFIX}*"):
        if folder not in kept:
            shutil.rmtree(folder)


def _read(folder: Path) -> TrainingState | None:
    """A state whose marker is true; None where it is missing, broken, or names files that are not there whole."""
    try:
        content: dict[str, Any] = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        whole = all((folder / name).stat().st_size == size for name, size in content["files"].items())
        state = TrainingState(folder, int(content["step"]), history_from(content["history"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return state if whole else None
