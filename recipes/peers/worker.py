"""The worker's side of a comparison: load once, then run what stdin asks for, one line of JSON in, one line out.

Only the standard library: every peer's own environment imports this file.

    compare → worker    {"test": "prefill", "case": "ubatch 128"}
    worker → compare    {"seconds": 4.56}

The first line out says that everything is loaded and which versions run: {"versions": {…}}. Between lines a worker
waits on stdin; `compare` also stops its process then, so that no thread pool spins beside the one being measured.
Libraries write to stdout as they please: it is turned to stderr, and answers go out on a copy of the original.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

Handler = Callable[[str], dict[str, Any]]


def answers() -> Any:
    """Call this before anything is imported that may print: the stream for answers, stdout turned to stderr."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    return stream


def serve(stream: Any, packages: tuple[str, ...], tests: dict[str, Handler]) -> None:
    """Answers requests until stdin ends."""
    versions = {"python": platform.python_version()}
    versions |= {package: importlib.metadata.version(package) for package in packages}
    stream.write(json.dumps({"versions": versions}) + "\n")
    for line in sys.stdin:
        request = json.loads(line)
        stream.write(json.dumps(tests[request["test"]](request["case"])) + "\n")


def timed(action: Callable[[], object]) -> dict[str, float]:
    """The seconds an action takes, as an answer."""
    start = time.perf_counter()
    action()
    return {"seconds": time.perf_counter() - start}
