"""Qwen2-VL's native resolution (arXiv 2409.12191, `smart_resize`): the picture whole, sides rounded to 28 pixels.

One token for 28×28 pixels, from 4 to 1280 tokens a picture as transformers' processor has it by default, whatever our
tiles are: this counts what that model would spend. The public code refuses shapes beyond 200:1; here the same
arithmetic goes on, for one such picture must not end a count of many.
"""

from __future__ import annotations

import math

from stages.device.imaging.geometry import Grid, Size
from stages.device.imaging.spec import TilingSpec
from stages.device.imaging.token_count import TokenCount

# 14 pixels a patch, 2×2 patches merged into a token.
_TOKEN_SIDE = 28
_LEAST_PIXELS = 4 * _TOKEN_SIDE**2
_MOST_PIXELS = 1280 * _TOKEN_SIDE**2


def qwen2_vl(size: Size, spec: TilingSpec) -> TokenCount:
    """One picture and its tokens; the specification has no say."""
    del spec
    scaled = qwen2_vl_size(size)
    return TokenCount(size, "qwen2-vl", (Grid(1, 1),), 1, scaled.area // _TOKEN_SIDE**2, scaled.area)


def qwen2_vl_size(size: Size) -> Size:
    """The size the picture is encoded at."""
    near = Size(round(size.width / _TOKEN_SIDE) * _TOKEN_SIDE, round(size.height / _TOKEN_SIDE) * _TOKEN_SIDE)
    if near.area > _MOST_PIXELS:
        shrink = math.sqrt(size.area / _MOST_PIXELS)
        return Size(*(max(1, math.floor(side / shrink / _TOKEN_SIDE)) * _TOKEN_SIDE for side in size))
    if near.area < _LEAST_PIXELS:
        grow = math.sqrt(_LEAST_PIXELS / size.area)
        return Size(*(math.ceil(side * grow / _TOKEN_SIDE) * _TOKEN_SIDE for side in size))
    return near
