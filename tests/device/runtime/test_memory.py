"""Giving memory back: file pages go and come again, what was written stays."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

import numpy as np
import pytest

from stages.device.runtime.memory import drop_file_pages, peak_rss_mb, trim_heap

SIZE = 8 << 20


def resident_kb(path: Path) -> int:
    """Resident kilobytes of all mappings of a file."""
    total, named = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"^[0-9a-f]+-[0-9a-f]+ ", line):
            named = line.endswith(str(path))
        elif named and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    if not Path("/proc/self/smaps").is_file():
        pytest.skip("needs Linux")
    path = tmp_path / "graph.data"
    path.write_bytes(np.arange(SIZE, dtype=np.uint32).astype(np.uint8).tobytes())
    return path


def test_pages_of_weights_go_and_are_read_again(weights: Path) -> None:
    with weights.open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    before = np.frombuffer(mapped, np.uint8).sum(dtype=np.int64)
    assert resident_kb(weights) >= SIZE >> 10
    drop_file_pages(weights)
    assert resident_kb(weights) < 100
    assert np.frombuffer(mapped, np.uint8).sum(dtype=np.int64) == before


def test_what_was_written_over_a_mapping_stays(weights: Path) -> None:
    with weights.open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    mapped[100] = 77
    drop_file_pages(weights)
    assert mapped[100] == 77
    assert weights.read_bytes()[100] != 77


def test_other_files_are_left_alone(weights: Path) -> None:
    other = weights.with_name("library.so")
    weights.rename(other)
    with other.open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    np.frombuffer(mapped, np.uint8).sum()
    drop_file_pages(weights)
    assert resident_kb(other) >= SIZE >> 10


def test_the_peak_is_in_megabytes() -> None:
    trim_heap()
    assert 20 < peak_rss_mb() < 20_000
