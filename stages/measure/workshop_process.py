"""Runs the workshop's writer in a process of its own: torch and onnx neither load here nor count as memory here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from stages.artifacts.errors import ModelError

WRITER = "stages.workshop.graph.for_bench"
_ROOT = Path(__file__).resolve().parents[2]


def write_by_workshop(what: str, settings: dict[str, Any], folder: Path, title: str) -> None:
    """Fills an existing folder.

    Args:
        what: what the writer knows: "random" or "ceilings".
        settings: of it.
        folder: where to.
        title: what it is, for the error.

    Raises:
        ModelError: it could not be written, most likely for want of memory or disk.
    """
    paths = os.pathsep.join([os.fspath(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", WRITER, what, json.dumps(settings), os.fspath(folder)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise ModelError(
            f"{title} could not be written: {reason}.",
            f"The bench runs on them; they need memory, and room in {folder.parent}.",
            "Make room (TMPDIR names another folder), or take fewer --layers.",
        )
