"""Disturbance: own work is none, another process' work is some."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from stages.measure.disturbance import Disturbance, share_of, watched

BUSY = "import time; end = time.time() + 20\nwhile time.time() < end: pass"


def test_another_process_disturbs_what_it_does_not_belong_to() -> None:
    other = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        with watched() as seen, watched(other.pid) as of_the_other:
            while other.poll() is None and time.sleep(0.5) is None and _cpu(other.pid) < 0.3:
                pass
    finally:
        other.kill()
        other.wait()
    # It is the other's work for us and its own for itself; whatever else ran, both saw.
    assert seen.share > of_the_other.share >= 0
    assert seen.share <= 1


def _cpu(process: int) -> float:
    import psutil

    times = psutil.Process(process).cpu_times()
    return float(times.user + times.system)


@pytest.mark.parametrize(
    ("others", "available", "share"), [(1.0, 4.0, 0.25), (-0.01, 1.0, 0.0), (3.0, 2.0, 1.0), (1.0, 0.0, 0.0)]
)
def test_shares_stay_between_nothing_and_all(others: float, available: float, share: float) -> None:
    assert share_of(others, available) == share


def test_an_error_passes_through() -> None:
    with pytest.raises(KeyError), watched() as seen:
        raise KeyError
    assert isinstance(seen, Disturbance)
