"""States that a training run can go on from: `state-STEP` folders, complete or ignored.

transformers' `get_last_checkpoint` takes a half-written folder. Here a state counts only when its marker, which is
written last and lists every file with its size, is there and true. States never enter an artifact.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stages.workshop.training.curve import LossCurve

MARKER = "complete.json"
# What transformers calls its folders; `TrainerState` and our marker give the step.
PREFIX = "checkpoint-"


@dataclass(frozen=True)
class TrainingState:
    """A complete state: where it lies, how many steps it has behind it, and the loss so far."""

    path: Path
    step: int
    curve: LossCurve


def mark_complete(folder: Path, step: int, curve: LossCurve) -> None:
    """Declares a state complete: syncs its files to disk, then writes the marker in one step."""
    sizes = {}
    for entry in sorted(folder.iterdir()):
        if entry.is_file() and entry.name != MARKER:
            _sync(entry)
            sizes[entry.name] = entry.stat().st_size
    content = {"step": step, "files": sizes, "curve": asdict(curve)}
    draft = folder / f".{MARKER}"
    draft.write_text(json.dumps(content), encoding="utf-8")
    _sync(draft)
    draft.replace(folder / MARKER)


def newest_state(root: Path) -> TrainingState | None:
    """The complete state with the most steps, or None."""
    found = [state for folder in root.glob(f"{PREFIX}*") if (state := _read(folder)) is not None]
    return max(found, key=lambda state: state.step, default=None)


def drop_others(root: Path, keep: Path | None) -> None:
    """Removes every state but one, half-written ones included."""
    for folder in root.glob(f"{PREFIX}*"):
        if folder != keep:
            shutil.rmtree(folder)


def _read(folder: Path) -> TrainingState | None:
    """A state whose marker is true; None where it is missing, broken, or names files that are not there whole."""
    try:
        content: dict[str, Any] = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        whole = all((folder / name).stat().st_size == size for name, size in content["files"].items())
        state = TrainingState(folder, int(content["step"]), LossCurve(**content["curve"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return state if whole else None


def _sync(path: Path) -> None:
    """Makes a file survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
