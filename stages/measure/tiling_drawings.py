"""Figs. 3 and 9 of the paper: four pictures on the canvases that three rules choose, to one scale.

Pictures are cropped to the published sizes; without any, outlines are drawn. The candidates are the paper's 1:1…3:3.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from PIL import Image, ImageOps

from stages.device.imaging.geometry import Size
from stages.device.imaging.spec import PAPER_ALPHA, RuleName, TilingSpec
from stages.device.imaging.tiling import Tiling, plan_tiling
from stages.measure.svg import figure, rectangle, text

CASES = (
    ("Fig. 3A", Size(394, 390)),
    ("Fig. 3B", Size(380, 76)),
    ("Fig. 9A", Size(380, 393)),
    ("Fig. 9B", Size(500, 102)),
)
RULES: tuple[RuleName, ...] = ("relaxed", "llava-next", "internvl-1.5")
_WIDTH = 860.0
_FIRST, _COLUMN = 116.0, 248.0
# The widest canvas, 5:1 or 1920 pixels, fits into a column.
_ZOOM = 0.12
_CAPTION = 44.0


def draw_cases(pictures: Sequence[Image.Image]) -> str:
    """All cases, a row each: the picture's size, then a drawing and its figures for each rule.

    Args:
        pictures: upright RGB, of any size; each case takes the next.
    """
    spec = TilingSpec(alpha=PAPER_ALPHA, max_cols=3, max_rows=3)
    shapes = [_HATCH, *(text(_FIRST + i * _COLUMN, 14, rule, "label strong") for i, rule in enumerate(RULES))]
    top = 28.0
    for number, (name, size) in enumerate(CASES):
        tilings = [plan_tiling(size, spec.model_copy(update={"rule": rule})) for rule in RULES]
        symbol = f"case{number}"
        if pictures:
            shapes.append(_symbol(symbol, _cropped(pictures[number % len(pictures)], size)))
        shapes.append(text(0, top + 13, name, "label strong"))
        shapes.append(text(0, top + 30, f"{size.width}×{size.height}", "label"))
        for column, tiling in enumerate(tilings):
            shapes += _drawing(tiling, _FIRST + column * _COLUMN, top, symbol if pictures else None)
        top += max(tiling.canvas.height for tiling in tilings) * _ZOOM + _CAPTION + 18
    return figure(_WIDTH, top - 10, shapes, "The published cases: canvases that the rules choose")


_HATCH = (
    '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="6" height="6" class="ground"/><line x1="0" y1="0" x2="0" y2="6" class="hatch"/></pattern></defs>'
)


def _drawing(tiling: Tiling, left: float, top: float, symbol: str | None) -> list[str]:
    """A canvas with its padding, the picture, the tiles' edges, and what it costs below."""
    wide, tall = tiling.canvas.width * _ZOOM, tiling.canvas.height * _ZOOM
    place = tiling.picture
    x, y = left + place.left * _ZOOM, top + place.top * _ZOOM
    width, height = place.size.width * _ZOOM, place.size.height * _ZOOM
    shapes = [f'<rect x="{left:.2f}" y="{top:.2f}" width="{wide:.2f}" height="{tall:.2f}" fill="url(#hatch)"/>']
    if symbol is None:
        shapes.append(rectangle(x, y, width, height, "wash"))
    else:
        shapes.append(f'<use href="#{symbol}" x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}"/>')
    side = tiling.tile_size * _ZOOM
    for box in tiling.boxes:
        shapes.append(rectangle(left + box.left * _ZOOM, top + box.top * _ZOOM, side, side, "tile"))
    canvas, grid = tiling.canvas, tiling.grid
    tiles = "1 tile" if tiling.tiles == 1 else f"{tiling.tiles} tiles"
    shapes.append(text(left, top + tall + 16, f"{grid.cols}:{grid.rows}, {canvas.width}×{canvas.height}", "small"))
    figures = f"{tiles}, {tiling.tokens:,} tokens, ×{tiling.enlargement:.1f} area"
    shapes.append(text(left, top + tall + 31, figures, "small faint"))
    return shapes


def _cropped(picture: Image.Image, size: Size) -> Image.Image:
    """The middle of a picture in a published size; a small picture is enlarged."""
    return ImageOps.fit(picture, size, Image.Resampling.BICUBIC)


def _symbol(name: str, picture: Image.Image) -> str:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=85)
    encoded = base64.b64encode(data.getvalue()).decode("ascii")
    width, height = picture.size
    return (
        f'<symbol id="{name}" viewBox="0 0 {width} {height}" preserveAspectRatio="none">'
        f'<image width="{width}" height="{height}" href="data:image/jpeg;base64,{encoded}"/></symbol>'
    )
