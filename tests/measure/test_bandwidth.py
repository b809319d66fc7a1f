"""Reading memory: a rate that is above nothing, by any number of threads; never how fast."""

from __future__ import annotations

import pytest

from stages.measure.bandwidth import reader


@pytest.mark.parametrize("threads", [1, 3])
def test_a_reading_is_a_rate(threads: int) -> None:
    with reader(threads, array_bytes=1 << 20) as read:
        assert read() > 0 and read() > 0
