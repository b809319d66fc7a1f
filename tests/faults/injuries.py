"""What can happen to a running command: one function a kind, each acting on its process from outside or from within.

`before` runs in the child as its last act before the command, `during` in the parent at the chosen moment.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal[
    "kill", "kill at a write", "interrupt", "interrupt at a write", "terminate", "full disk", "file too large",
    "read-only folder", "input vanishes", "no memory", "two at once",
]  # fmt: skip
KINDS: tuple[Kind, ...] = Kind.__args__  # type: ignore[attr-defined]
MOUNTED: tuple[Kind, ...] = ("full disk", "read-only folder")
# Events of Python that change what is on the disk.
_WRITES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate", "shutil.rmtree")
_LEAST_ROOM = 64 << 10


@dataclass(frozen=True)
class Injury:
    """One fault.

    Attributes:
        kind: which.
        moment: when, as a share of the undisturbed run (of its seconds, of its writes, of its bytes).
        old: whether an older artifact is in the way.
    """

    kind: Kind
    moment: float
    old: bool


@dataclass(frozen=True)
class Undisturbed:
    """A stage's run without faults: what it takes, and the digest of what it makes."""

    seconds: float
    writes: int
    bytes: int
    digest: str


def count_writes(count: list[int], act: int | None = None, number: int = signal.SIGKILL) -> None:
    """Counts this process' writes from now on; at one of them it sends itself a signal. Cannot be taken back."""

    def hook(event: str, args: tuple[object, ...]) -> None:
        opened = event == "open" and isinstance(args[2], int) and bool(args[2] & (os.O_WRONLY | os.O_RDWR))
        if opened or event in _WRITES:
            count[0] += 1
            if count[0] == act:
                os.kill(os.getpid(), number)

    sys.addaudithook(hook)


def before(injury: Injury, clean: Undisturbed) -> None:
    """In the child, just before the command begins."""
    at = 1 + int(injury.moment * clean.writes)
    if injury.kind == "kill at a write":
        count_writes([0], at)
    elif injury.kind == "interrupt at a write":
        count_writes([0], at, signal.SIGINT)
    elif injury.kind == "no memory":
        held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
        limit = held + int(injury.moment**2 * (512 << 20))
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    elif injury.kind == "file too large":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limit = int(injury.moment * clean.bytes / 4)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


@contextmanager
def during(injury: Injury, clean: Undisturbed, child: int, place: Path, victim: Path | None) -> Iterator[None]:
    """In the parent: waits for the moment and acts; afterwards what was taken is given back.

    Args:
        injury: the fault.
        clean: the undisturbed run.
        child: the command's process, leader of its session.
        place: the folder of its output.
        victim: an input.
    """
    signals = {"kill": signal.SIGKILL, "interrupt": signal.SIGINT, "terminate": signal.SIGTERM}
    away = victim.with_name(f"{victim.name}.away") if victim is not None else None
    try:
        if injury.kind in (*signals, "input vanishes"):
            time.sleep(injury.moment * clean.seconds)
        if injury.kind in signals:
            os.kill(child, signals[injury.kind])
        elif injury.kind == "input vanishes" and victim is not None and away is not None:
            victim.rename(away)
        elif injury.kind == "read-only folder":
            _close_for_writing(child, place)
        yield
    finally:
        if away is not None and victim is not None and away.exists():
            away.rename(victim)
        if injury.kind == "read-only folder":
            subprocess.run(["mount", "-o", "remount,rw", place], check=True)


def _close_for_writing(child: int, place: Path) -> None:
    """Makes the file system read-only as soon as no file is open for writing there."""
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if subprocess.run(["mount", "-o", "remount,ro", place], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.01)


@contextmanager
def output_folder(injury: Injury, clean: Undisturbed, place: Path) -> Iterator[None]:
    """The folder that the output goes to: a small file system of its own where the fault needs one."""
    place.mkdir(parents=True)
    if injury.kind not in MOUNTED:
        yield
        return
    room = _LEAST_ROOM + int((injury.moment if injury.kind == "full disk" else 20) * clean.bytes)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def give_room(injury: Injury, clean: Undisturbed, place: Path) -> None:
    """Somebody freed some space."""
    if injury.kind == "full disk":
        room = 20 * clean.bytes + _LEAST_ROOM
        subprocess.run(["mount", "-o", f"remount,size={room}", place], check=True)


def can_mount(folder: Path) -> bool:
    """Whether this process may mount file systems."""
    probe = folder / "probe"
    probe.mkdir(parents=True, exist_ok=True)
    tried = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", probe], capture_output=True, check=False)
    if tried.returncode == 0:
        subprocess.run(["umount", probe], check=True)
    probe.rmdir()
    return tried.returncode == 0
