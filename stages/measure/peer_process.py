"""Another engine in a process of its own, in an environment of its own: loads once, runs when asked, stops in between.

`recipes/peers/worker.py` is its other end: one line of JSON in, one line out.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from stages.artifacts.errors import ModelError

STOPPED_S = 1.0
_LAST_WORDS = 8


@dataclass
class PeerProcess:
    """A process that runs what it is asked for and is stopped in between.

    Attributes:
        command: starts it.
        log: where its stderr goes.
        versions: of the packages that run there, once it is entered.
    """

    command: Sequence[str]
    log: Path
    versions: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> PeerProcess:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1
            )
        self.versions = self._answer()["versions"]
        self._signal(signal.SIGSTOP)
        return self

    def __exit__(self, *_: object) -> None:
        self._signal(signal.SIGCONT)
        self._stream(self.process.stdin).close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def ask(self, test: str, case: str) -> dict[str, Any]:
        """One answer; the process is stopped again when it has come.

        Raises:
            ModelError: it ended.
        """
        self._signal(signal.SIGCONT)
        stream = self._stream(self.process.stdin)
        with contextlib.suppress(BrokenPipeError):  # told with its last words
            stream.write(json.dumps({"test": test, "case": case}) + "\n")
            stream.flush()
        answer = self._answer()
        self._signal(signal.SIGSTOP)
        return answer

    def peak_rss_mb(self) -> float | None:
        """Its largest memory so far, in 10^6 bytes; None where the system does not tell."""
        status = Path(f"/proc/{self.process.pid}/status")
        for line in status.read_text().splitlines() if status.is_file() else ():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
        return None

    def _answer(self) -> dict[str, Any]:
        stream = self._stream(self.process.stdout)
        # Whoever stops processes to have quiet may stop this one, while it should be working: let it go on.
        while not select.select([stream], [], [], STOPPED_S)[0] and self.process.poll() is None:
            self._signal(signal.SIGCONT)
        line = stream.readline()
        if not line:
            self.process.wait()
            tail = "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_WORDS:])
            raise ModelError(
                f"{' '.join(self.command)} ended with {self.process.returncode}:\n{tail}",
                "Another engine is measured beside ours through it.",
                "Check that its environment has what it needs (recipes/peers/compare.sh makes one), or leave it out.",
            )
        found: dict[str, Any] = json.loads(line)
        return found

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    @staticmethod
    def _stream(stream: IO[str] | None) -> IO[str]:
        assert stream is not None
        return stream
