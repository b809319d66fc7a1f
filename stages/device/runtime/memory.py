"""Memory of this process: what the operating system says it took, and giving back what is not needed."""

from __future__ import annotations

import ctypes
import mmap
import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

_STATUS, _MAPS, _SMAPS = (Path("/proc/self", name) for name in ("status", "maps", "smaps"))
# Smaller mappings are not worth a call.
_LARGE_KB = 64
# Python has no name for it.
_MADV_POPULATE_READ = 22
_MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) \S{4} \S+ \S+ \d+ *(.*)$")


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


def drop_file_pages(file: Path) -> None:
    """Lets go of the resident pages of a mapped file; they are read again when they are touched.

    Mappings that hold pages of this process's own are left alone. No other thread may be mapping or unmapping this
    very file: what it puts in the place of a mapping that was there a moment ago would be lost.
    """
    advise = getattr(_libc(), "madvise", None)
    if advise is None or not _SMAPS.is_file() or not hasattr(mmap, "MADV_DONTNEED"):
        return
    for start, end in _clean_mappings(str(file.resolve())):
        advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)


def map_file_pages(file: Path) -> None:
    """Maps all pages of a mapped file, so that none is fetched where it is first touched; Linux 5.14 and later.

    No other thread may be mapping or unmapping this very file.
    """
    advise = getattr(_libc(), "madvise", None)
    if advise is None or not _MAPS.is_file():
        return
    for start, end, _ in _mappings(_MAPS, str(file.resolve())):
        advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_POPULATE_READ)


def _clean_mappings(name: str) -> Iterator[tuple[int, int]]:
    """Address ranges of a file that are resident and as they are in the file."""
    for start, end, facts in _mappings(_SMAPS, name):
        if facts["Anonymous"] == 0 and facts["Rss"] > _LARGE_KB:
            yield start, end


def _mappings(source: Path, name: str) -> Iterator[tuple[int, int, dict[str, int]]]:
    """Address ranges of a file, with what smaps says of each in kilobytes (maps, which is quicker: nothing)."""
    span: tuple[int, int] | None = None
    facts: dict[str, int] = {}
    for line in source.read_text(encoding="utf-8", errors="replace").splitlines():
        if match := _MAPPING.match(line):
            if span is not None:
                yield *span, facts
            span, facts = ((int(match[1], 16), int(match[2], 16)) if match[3] == name else None), {}
        elif span is not None and line.endswith(" kB"):
            key, value, _ = line.split()
            facts[key.rstrip(":")] = int(value)
    if span is not None:
        yield *span, facts


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
