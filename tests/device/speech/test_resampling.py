"""Resampling against the transform of a periodic signal; what does not fit is gone; levels and times stay."""

from __future__ import annotations

import numpy as np
import pytest

from stages.device.speech.resampling import resample

RATES = [(44_100, 16_000), (48_000, 16_000), (22_050, 16_000), (8_000, 16_000), (11_025, 16_000), (16_001, 16_000)]


def sine(rate: int, hertz: float, seconds: float = 0.5, phase: float = 0.3) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate + phase).astype(np.float32)


@pytest.mark.parametrize(("rate", "wanted"), RATES)
@pytest.mark.parametrize("hertz", [50.0, 1000.0, 3300.0])
def test_a_tone_is_the_same_tone(rate: int, wanted: int, hertz: float) -> None:
    found = resample(sine(rate, hertz), rate, wanted)
    assert found.dtype == np.float32 and len(found) == -(-round(rate * 0.5) * wanted // rate)
    inner = slice(wanted // 10, wanted * 4 // 10)
    assert np.abs(found[inner] - sine(wanted, hertz)[inner]).max() < 1e-3


@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000])
@pytest.mark.parametrize("hertz", [8_600.0, 12_000.0, 20_000.0])
def test_what_the_new_rate_cannot_hold_is_gone(rate: int, hertz: float) -> None:
    assert np.abs(resample(sine(rate, hertz), rate, 16_000)[1600:-1600]).max() < 1e-3


def test_noise_against_its_spectrum() -> None:
    """A periodic signal is resampled exactly by padding its spectrum: the second, independent path."""
    rng = np.random.default_rng(0)
    half = 900
    spectrum = np.zeros(half + 1, complex)
    spectrum[1 : half // 2] = rng.normal(size=half // 2 - 1) + 1j * rng.normal(size=half // 2 - 1)
    before = np.fft.irfft(spectrum, 2 * half)
    after = np.fft.irfft(np.pad(spectrum, (0, half)), 4 * half) * 2
    found = resample(np.tile(before, 5).astype(np.float32), 1000, 2000)[2 * 4 * half : 3 * 4 * half]
    assert np.abs(found - after).max() < 2e-3 * np.abs(after).max()


def test_levels_edges_and_bad_rates() -> None:
    flat = resample(np.ones(4410, np.float32), 44_100, 16_000)
    assert np.abs(flat[200:-200] - 1).max() < 1e-5
    same = np.arange(5, dtype=np.float32)
    assert resample(same, 8000, 8000) is same
    assert len(resample(np.zeros(0, np.float32), 8000, 16_000)) == 0
    assert len(resample(np.ones(1, np.float32), 96_000, 16_000)) == 1
    with pytest.raises(ValueError, match="rates"):
        resample(same, 0, 8000)
