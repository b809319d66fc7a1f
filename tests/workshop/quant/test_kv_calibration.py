"""Scales of the KV cache from what was seen: absmax and percentile, of tensors, heads and channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from stages.device.contract import int8_kv
from stages.workshop.quant.kv_calibration import KvCalibration, KvObserver

HEADS, SIZE = 2, 4


def states(seed: int, tokens: int = 24, outlier: float = 1.0) -> torch.Tensor:
    """[1, K, T, D] with channels of different sizes, exact in float16, and one value that stands out."""
    made = torch.randn(1, HEADS, tokens, SIZE, generator=torch.Generator().manual_seed(seed)) * torch.arange(
        1, SIZE + 1
    )
    made[0, 1, 5, 2] *= outlier
    return made.half().float()


def observed(how: KvCalibration, *seen: torch.Tensor) -> KvObserver:
    observer = KvObserver(1, how)
    for one in seen:
        observer.saw(0, one, one / 2)
    return observer


def groups(values: torch.Tensor, granularity: str) -> list[np.ndarray]:
    """What shares a scale, in the file's order, by loops."""
    rows = values[0].numpy()
    match granularity:
        case "tensor":
            return [rows.ravel()]
        case "head":
            return [rows[head].ravel() for head in range(HEADS)]
        case _:
            return [rows[head, :, channel] for head in range(HEADS) for channel in range(SIZE)]


def expanded(scales: list[float], granularity: str) -> float | tuple[float, ...]:
    if granularity == "tensor":
        return scales[0]
    return tuple(scales) if granularity == "channel" else tuple(scale for scale in scales for _ in range(SIZE))


@pytest.mark.parametrize("granularity", ["tensor", "head", "channel"])
def test_absmax_is_the_largest_of_all_prompts(granularity: str) -> None:
    how = KvCalibration(granularity=granularity)
    first, second = states(0), states(1)
    found = observed(how, first, second).scales()
    both = torch.cat([first, second], dim=2)
    expected = [int8_kv.scale_for(float(np.abs(group).max())) for group in groups(both, granularity)]
    assert found.keys[0] == pytest.approx(expanded(expected, granularity), rel=1e-6)
    halves = [int8_kv.scale_for(float(np.abs(group).max()) / 2) for group in groups(both, granularity)]
    assert found.values[0] == pytest.approx(expanded(halves, granularity), rel=1e-6)


@pytest.mark.parametrize("granularity", ["tensor", "head", "channel"])
def test_a_percentile_leaves_the_outlier_out(granularity: str) -> None:
    seen = states(2, outlier=50)
    found = observed(KvCalibration(granularity=granularity, method="percentile", percentile=90), seen).scales()
    expected = [np.percentile(np.abs(group), 90) / 127 for group in groups(seen, granularity)]
    assert found.keys[0] == pytest.approx(expanded(expected, granularity), rel=1e-5)


def test_what_was_never_seen_and_what_is_zero() -> None:
    with pytest.raises(ValueError, match="were seen"):
        KvObserver(1, KvCalibration()).scales()
    for method in ("absmax", "percentile"):
        zero = observed(KvCalibration(method=method, granularity="channel"), torch.zeros(1, HEADS, 3, SIZE)).scales()
        assert set(zero.keys[0]) == {1.0}  # type: ignore[arg-type]


def test_a_percentile_is_a_share() -> None:
    with pytest.raises(ValidationError):
        KvCalibration(percentile=20)


def test_the_least_squared_error_is_no_method() -> None:
    """It clips what attention depends on: measured on trained weights, worse than absmax at every granularity."""
    with pytest.raises(ValidationError, match="absmax"):
        KvCalibration.model_validate({"method": "mse"})
