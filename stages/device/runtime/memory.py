"""Memory of this process: what the operating system says it took, and giving back what is not needed."""

from __future__ import annotations

import ctypes
import mmap
import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

_STATUS, _MAPS = Path("/proc/self/status"), Path("/proc/self/smaps")
# Smaller mappings are not worth a call.
_LARGE_KB = 64
_MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) \S{4} \S+ \S+ \d+ *(.*)$")


def peak_rss_mb() -> float:
    """Largest resident set so far, in MB (10^6 bytes).

    On Linux VmHWM: `getrusage` also counts what the parent held before this program was started.
    """
    if (kept := _status_mb("VmHWM:")) is not None:
        return kept
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def rss_mb() -> float:
    """Resident set now, in MB (10^6 bytes); the largest so far where the system tells no more."""
    now = _status_mb("VmRSS:")
    return peak_rss_mb() if now is None else now


def _status_mb(name: str) -> float | None:
    if _STATUS.is_file():
        for line in _STATUS.read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024 / 1e6
    return None


def trim_heap() -> None:
    """Hands freed memory back to the system, where the C library (glibc) can."""
    trim = getattr(_libc(), "malloc_trim", None)
    if trim is not None:
        trim(0)


def drop_file_pages(file: Path) -> None:
    """Lets go of the resident pages of a mapped file; they are read again when they are touched.

    Mappings that hold pages of this process's own are left alone. No other thread may be mapping or unmapping this
    very file: what it puts in the place of a mapping that was there a moment ago would be lost.
    """
    advise = getattr(_libc(), "madvise", None)
    if advise is None or not _MAPS.is_file() or not hasattr(mmap, "MADV_DONTNEED"):
        return
    for start, end in _clean_mappings(str(file.resolve())):
        advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)


def _clean_mappings(name: str) -> Iterator[tuple[int, int]]:
    """Address ranges of a file that are resident and as they are in the file."""
    span: tuple[int, int] | None = None
    resident = 0
    for line in _MAPS.read_text(encoding="utf-8", errors="replace").splitlines():
        if match := _MAPPING.match(line):
            span = (int(match[1], 16), int(match[2], 16)) if match[3] == name else None
        elif span is not None and line.startswith("Rss:"):
            resident = int(line.split()[1])
        elif span is not None and line.startswith("Anonymous:") and int(line.split()[1]) == 0 and resident > _LARGE_KB:
            yield span


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
