"""The statistics against hand-worked values and numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.measure.spread import spread_of


def test_a_hand_worked_case() -> None:
    # mean 5; squared distances 9, 1, 1, 1, 0, 0, 4, 16 sum to 32; 32/7
    spread = spread_of([2, 4, 4, 4, 5, 5, 7, 9])
    assert spread == pytest.approx((5.0, (32 / 7) ** 0.5, 4.5))


def test_one_sample_has_no_deviation() -> None:
    assert spread_of([3.5]) == (3.5, 0.0, 3.5)


def test_no_samples_is_an_error() -> None:
    with pytest.raises(ValueError, match="no samples"):
        spread_of([])


@given(st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=40))
def test_it_agrees_with_numpy(samples: list[float]) -> None:
    expected = (np.mean(samples), np.std(samples, ddof=1), np.median(samples))
    assert spread_of(samples) == pytest.approx(expected, rel=1e-9, abs=1e-9)
