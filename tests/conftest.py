"""Fixtures of the whole suite: the real data, and the command line run in this process."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# Tests run beside others on few cores; torch's and onnxruntime's pools would only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The real pictures and data; skips where they are missing, fails there when BLUELM_REQUIRE_DATA is set."""
    folder = Path(os.environ.get("BLUELM_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        message = f"no data at {folder}; set BLUELM_DATA to a folder that has it"
        if os.environ.get("BLUELM_REQUIRE_DATA"):
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The checkout."""
    return ROOT


@dataclass(frozen=True)
class Completed:
    """What a command left: exit code and both streams."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """stdout as one JSON object."""
        return json.loads(self.out)


@pytest.fixture
def bluelm(capfd: pytest.CaptureFixture[str]) -> Callable[..., Completed]:
    """Runs a bluelm command line in this process: `bluelm("tile", path, "--json")`."""
    from bluelm_cli.app import main

    def run(*words: object) -> Completed:
        capfd.readouterr()
        code = 0
        try:
            main([str(word) for word in words])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        out, err = capfd.readouterr()
        return Completed(code, out, err)

    return run
