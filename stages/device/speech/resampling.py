"""Another sample rate by a windowed sinc (Crochiere and Rabiner, "Multirate Digital Signal Processing", 1983, ch. 4).

What the new rate cannot hold is filtered out; nothing folds back.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

# Zero crossings of the sinc on each side, and the window's shape: 80 dB down outside the band.
ZEROS = 32
BETA = 8.0
# The band ends a little before the Nyquist rate: the filter is no cliff.
ROLLOFF = 0.94


def resample(samples: NDArray[np.float32], rate: int, wanted: int) -> NDArray[np.float32]:
    """[n] samples at `rate` to [⌈n · wanted / rate⌉] at `wanted`.

    Args:
        samples: of one channel.
        rate: samples per second they have.
        wanted: samples per second they shall have.

    Raises:
        ValueError: a rate is not positive.
    """
    if rate < 1 or wanted < 1:
        raise ValueError(f"rates are {rate} and {wanted}")
    if rate == wanted or not len(samples):
        return samples
    common = math.gcd(rate, wanted)
    up, down = wanted // common, rate // common
    phases = _phases(up, down)
    reach = (phases.shape[1] - 1) // 2
    count = -(-len(samples) * up // down)
    place = np.arange(count, dtype=np.int64) * down
    phase, base = place % up, place // up
    padded = np.concatenate([np.zeros(reach, np.float32), samples, np.zeros(reach + 1, np.float32)])
    made = np.zeros(count, np.float32)
    for tap in range(phases.shape[1]):
        made += phases[phase, tap] * padded[base + tap]
    return made


def _phases(up: int, down: int) -> NDArray[np.float32]:
    """[up, taps]: the filter for each place between two samples, each normalised to gain 1 for a constant."""
    cutoff = ROLLOFF * min(1.0, up / down)
    reach = math.ceil(ZEROS / cutoff)
    taps = np.arange(-reach, reach + 1)
    distance = taps[None, :] - np.arange(up)[:, None] / up
    window = np.i0(BETA * np.sqrt(np.clip(1 - (distance / (reach + 1)) ** 2, 0, None))) / np.i0(BETA)
    filters = cutoff * np.sinc(cutoff * distance) * window
    return (filters / filters.sum(axis=1, keepdims=True)).astype(np.float32)
