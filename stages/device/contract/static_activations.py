"""Activations as INT16 with a scale that is fixed beforehand: what NPU compilers take, as QuantizeLinear nodes (QDQ).

    stored uint16   [.., K]   clip(rint(x / scale) + 32768, 0, 65535)
    x ~ (stored - 32768) · scale

One scale serves all tokens; it comes from calibration, and larger values than seen there are clipped. Unsigned with a
zero point is the type that compilers agree on (leads: onnxruntime's QNN provider). Source: BlueLM-V-3B Sec. 3.4.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

ZERO_POINT = 32768
STEPS = 32767


def static_scale(largest: float) -> np.float32:
    """The scale with which magnitudes up to `largest` are not clipped; 1 where nothing but zeros was seen."""
    return np.float32(largest / STEPS) if largest > 0 else np.float32(1)


def round_static(x: NDArray[Any], scale: np.float32) -> NDArray[np.uint16]:
    """What is stored of x, any shape; half to even, in float32."""
    steps = np.rint(x.astype(np.float32, copy=False) / scale)
    return (np.clip(steps, -ZERO_POINT, STEPS) + ZERO_POINT).astype(np.uint16)


def unround_static(stored: NDArray[np.uint16], scale: np.float32) -> NDArray[np.float32]:
    """The numbers that a product with these activations computes with."""
    whole: NDArray[np.float32] = (stored.astype(np.float32) - ZERO_POINT) * scale
    return whole
