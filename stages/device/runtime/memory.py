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
# Smaller mappings, such as libraries, are left alone.
_LARGE_KB = 64
_MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ (\d+) *(.*)$")


def peak_rss_mb() -> float:
    """Largest resident set so far, in MB (10^6 bytes).

    On Linux VmHWM: `getrusage` also counts what the parent held before this program was started.
    """
    if _STATUS.is_file():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def trim_heap() -> None:
    """Hands freed memory back to the system, where the C library (glibc) can."""
    trim = getattr(_libc(), "malloc_trim", None)
    if trim is not None:
        trim(0)


def drop_file_pages(suffix: str = ".data") -> None:
    """Lets go of the resident pages of mapped weight files: they are read again when they are touched.

    Nothing can be lost: mappings that hold a page of this process's own are left alone.
    """
    advise = getattr(_libc(), "madvise", None)
    if advise is None or not _MAPS.is_file() or not hasattr(mmap, "MADV_DONTNEED"):
        return
    for start, end in _clean_mappings(suffix):
        advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)


def _clean_mappings(suffix: str) -> Iterator[tuple[int, int]]:
    """Address ranges of files of this ending that are resident and as they are in the file."""
    span: tuple[int, int] | None = None
    resident = 0
    for line in _MAPS.read_text(encoding="utf-8", errors="replace").splitlines():
        if match := _MAPPING.match(line):
            named = match[5].endswith(suffix) and match[4] != "0"
            span = (int(match[1], 16), int(match[2], 16)) if named else None
        elif span is not None and line.startswith("Rss:"):
            resident = int(line.split()[1])
        elif span is not None and line.startswith("Anonymous:") and int(line.split()[1]) == 0 and resident > _LARGE_KB:
            yield span


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
