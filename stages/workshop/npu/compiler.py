"""Qualcomm's HTP compiler and its simulator, in another process: QDQ graphs become context binaries and are run.

onnxruntime-qnn is half a gigabyte of closed libraries that print, and end the process when they meet a fault; so they
live in `worker.py`, under any interpreter that has them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.errors import BluelmError, ModelError, UsageError
from stages.device.contract.npu_config import GraphName
from stages.workshop.npu.chips import Chip

WORKER = Path(__file__).with_name("worker.py")
PACKAGE = "onnxruntime_qnn"
# Graphs that are compiled into one binary: prefill and decode share their weights there.
GROUPS: tuple[tuple[GraphName, ...], ...] = (("patch_embed",), ("vision",), ("prefill", "decode"), ("head",))
INSTALL = (
    "Install it: pip install 'bluelm[npu]'; or into an environment of its own, python -m venv QNN && "
    "QNN/bin/pip install onnxruntime onnxruntime-qnn numpy, and name that: --qnn-python QNN/bin/python"
)


def missing_compiler(python: Path | None) -> BluelmError | None:
    """Why no context binary can be made here, or None. Costs no import."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return UsageError(
            f"--soc: Qualcomm's compiler does not run on {sys.platform} {platform.machine()}.",
            "Its wheel carries the offline compiler for 64-bit x86 Linux alone.",
            "Export without --soc here, and compile the folder on such a machine.",
        )
    if python is not None:
        found = python.is_file() and os.access(python, os.X_OK) and _has_package(python)
    else:
        found = importlib.util.find_spec(PACKAGE) is not None
    if found:
        return None
    where = "in this environment" if python is None else f"for {python}"
    return UsageError(
        f"--soc: there is no onnxruntime-qnn {where}.",
        "It carries Qualcomm's NPU compiler; without it only the QDQ graphs can be written.",
        f"{INSTALL}. Or export without --soc.",
    )


def _has_package(python: Path) -> bool:
    command = "import importlib.util as u, sys; sys.exit(u.find_spec(sys.argv[1]) is None)"
    return subprocess.run([python, "-c", command, PACKAGE], capture_output=True, check=False).returncode == 0


class HtpProcess:
    """The worker; use as a context manager.

    Args:
        python: an interpreter with onnxruntime-qnn; this one where None.

    Raises:
        ModelError: it does not start.
    """

    def __init__(self, python: Path | None = None) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="bluelm-htp-")
        self._log = (Path(self._scratch.name) / "log").open("w+b")
        # Its caches and traces go where they are swept up.
        self._process = subprocess.Popen(
            [python or sys.executable, WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=self._scratch.name,
            text=True,
        )
        self.versions: dict[str, str] = {}

    def __enter__(self) -> HtpProcess:
        try:
            self.versions = self._read()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._log.close()
        self._scratch.cleanup()

    def compile(self, chip: Chip, graphs: Mapping[str, Path], out: Path) -> dict[str, float]:
        """Compiles graphs into one context binary in `out`; seconds per graph. Nothing may fall back to the CPU.

        Raises:
            ModelError: the compiler refuses.
        """
        paths = {name: str(path.resolve()) for name, path in graphs.items()}
        request = {"do": "compile", "soc": chip.soc_model, "graphs": paths, "out": str(out.resolve())}
        seconds: dict[str, float] = self._ask(request, "compiling " + " and ".join(graphs))["seconds"]
        return seconds

    def run(self, graph: GraphName, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs a graph that this process compiled on the simulator.

        Raises:
            ModelError: it fails.
        """
        given, found = (Path(self._scratch.name) / f"{part}.npz" for part in ("feeds", "found"))
        with given.open("wb") as stream:
            np.savez(stream, **dict(feeds))  # type: ignore[arg-type]
        self._ask({"do": "run", "graph": graph, "feeds": str(given), "found": str(found)}, f"running {graph}")
        with np.load(found) as arrays:
            return dict(arrays)

    def _ask(self, request: dict[str, Any], what: str) -> dict[str, Any]:
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the missing answer tells it
        answer = self._read(what)
        if "error" in answer:
            raise _failed(what, answer["error"])
        return answer

    def _read(self, what: str = "starting") -> dict[str, Any]:
        stream: IO[str] | None = self._process.stdout
        assert stream is not None
        line = stream.readline()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        code = self._process.wait()
        self._log.seek(0)
        said = self._log.read().decode(errors="replace").strip().splitlines()[-3:]
        raise _failed(what, " ".join([f"the process ended with {code}", *said]))


def _failed(what: str, why: str) -> ModelError:
    return ModelError(
        f"Qualcomm's compiler failed, {what}: {why[:500]}",
        "Without it there is no binary for this chip.",
        "Export without --soc to keep the QDQ graphs, and report the message with the model's shape.",
    )
