"""A drawing of one decision: the picture on its canvas, padding hatched, tiles numbered, the figures below.

Tile numbers are places in the batch: 0 is the thumbnail, drawn smaller at the right; a 1:1 grid has tile 0 alone.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from stages.artifacts.atomic_file import atomic_file
from stages.artifacts.errors import ImageError
from stages.device.imaging.geometry import Box, Size
from stages.device.imaging.loading import read_software
from stages.device.imaging.tiling import Tiling

# Longest and shortest sides that the canvas is drawn with, in pixels.
_LONGEST, _SHORTEST = 1200, 420
_MARGIN, _GAP = 16, 24
_TITLE_PIXELS, _TEXT_PIXELS = 20, 17
_NUMBERED = 40
_PAPER, _INK, _FAINT = (255, 255, 255), (24, 24, 27), (113, 113, 122)
_LINE, _FRAME = (225, 29, 72), (37, 99, 235)
_HATCH_GROUND, _HATCH = (228, 228, 231), (161, 161, 170)
# Written into every preview, so that one is only ever replaced by another.
SOFTWARE = "bluelm tile"


def draw_preview(image: Image.Image, tiling: Tiling, title: str) -> Image.Image:
    """Draws the decision onto the picture.

    Args:
        image: upright RGB, of the tiling's size.
        tiling: the decision.
        title: the first line of the caption, usually the file's name.
    """
    zoom = _zoom(tiling.canvas)
    canvas = _zoomed(Box(0, 0, *tiling.canvas), zoom)
    sheet_of_tiles = _draw_canvas(image, tiling, zoom)
    # Pillow's own font has little beyond ASCII.
    name = title.encode("ascii", "replace").decode("ascii")
    lines = [(name, _TITLE_PIXELS, _INK), *((text, _TEXT_PIXELS, _FAINT) for text in caption(tiling))]
    fonts = [ImageFont.load_default(pixels) for _, pixels, _ in lines]
    side = _thumbnail_side(tiling, canvas.size)
    content = canvas.right + (_GAP + side if tiling.has_thumbnail else 0)
    text_width = max(round(font.getlength(text)) for (text, _, _), font in zip(lines, fonts, strict=True))
    width = 2 * _MARGIN + max(content, min(text_width, _LONGEST))
    bottom = max(canvas.bottom, side if tiling.has_thumbnail else 0)
    height = 2 * _MARGIN + bottom + sum(pixels + 8 for _, pixels, _ in lines) + 8
    sheet = Image.new("RGB", (width, height), _PAPER)
    sheet.paste(sheet_of_tiles, (_MARGIN, _MARGIN))
    if tiling.has_thumbnail:
        _draw_thumbnail(sheet, image, Box(*_shifted(canvas.right + _GAP, 0, side, side)))
    draw = ImageDraw.Draw(sheet)
    top = 2 * _MARGIN + bottom
    for (text, pixels, colour), font in zip(lines, fonts, strict=True):
        draw.text((_MARGIN, top), text, font=font, fill=colour)
        top += pixels + 8
    return sheet


def caption(tiling: Tiling) -> list[str]:
    """The figures of a decision in two lines."""
    size, scaled, canvas = tiling.size, tiling.scaled, tiling.canvas
    tiles = "1 tile" if tiling.tiles == 1 else f"{tiling.tiles} tiles"
    padding = 1 - scaled.area / canvas.area
    across, down = scaled.width / size.width, scaled.height / size.height
    scale = f"{across:.3g}" if abs(across - down) < 0.01 * down else f"{across:.3g} across, {down:.3g} down"
    return [
        f"{size.width} x {size.height}   {tiling.rule}: grid {tiling.grid.cols}:{tiling.grid.rows}, "
        f"canvas {canvas.width} x {canvas.height}, {tiles}, {tiling.tokens} tokens",
        f"scale {scale}   padding {padding:.1%}   canvas/picture area {tiling.enlargement:.3g}",
    ]


def save_preview(drawing: Image.Image, path: Path) -> None:
    """Writes a preview as PNG, marked as ours."""
    marks = PngInfo()
    marks.add_text("Software", SOFTWARE)
    with atomic_file(path, durable=False) as part:
        drawing.save(part, format="PNG", pnginfo=marks)


def is_preview(path: Path) -> bool:
    """Whether a file is a preview that we wrote."""
    try:
        return read_software(path) == SOFTWARE
    except ImageError:
        return False


def _zoom(canvas: Size) -> float:
    """Screen pixels per canvas pixel: large canvases are shown smaller, tiny ones larger."""
    longest = max(canvas)
    return _LONGEST / longest if longest > _LONGEST else max(1.0, _SHORTEST / longest)


def _zoomed(box: Box, zoom: float) -> Box:
    return Box(*(round(edge * zoom) for edge in box))


def _shifted(left: int, top: int, width: int, height: int) -> Box:
    """A box by its size, inside the margin."""
    return Box(_MARGIN + left, _MARGIN + top, _MARGIN + left + width, _MARGIN + top + height)


def _thumbnail_side(tiling: Tiling, canvas: Size) -> int:
    """As large as a local tile, but at least readable."""
    return max(canvas.width // tiling.grid.cols, 96)


def _draw_canvas(image: Image.Image, tiling: Tiling, zoom: float) -> Image.Image:
    """The canvas with hatched padding, the picture's frame, the grid and tile numbers."""
    canvas = _zoomed(Box(0, 0, *tiling.canvas), zoom)
    sheet = Image.new("RGB", (canvas.right + 1, canvas.bottom + 1), _HATCH_GROUND)
    draw = ImageDraw.Draw(sheet)
    for start in range(-canvas.bottom, canvas.right, 12):
        draw.line((start, canvas.bottom, start + canvas.bottom, 0), fill=_HATCH, width=1)
    place = _zoomed(tiling.picture, zoom)
    shown = Size(max(1, place.size.width), max(1, place.size.height))
    sheet.paste(image.resize(shown, Image.Resampling.BICUBIC), (place.left, place.top))
    draw.rectangle((place.left, place.top, place.right, place.bottom), outline=_FRAME, width=2)
    for box in tiling.boxes:
        draw.rectangle(_zoomed(box, zoom), outline=_LINE, width=2)
    for number, box in enumerate(tiling.boxes, start=int(tiling.has_thumbnail)):
        _draw_number(draw, number, _zoomed(box, zoom))
    return sheet


def _draw_thumbnail(sheet: Image.Image, image: Image.Image, place: Box) -> None:
    """The whole picture squeezed into a square, as tile 0."""
    sheet.paste(image.resize(place.size, Image.Resampling.BICUBIC), (place.left, place.top))
    draw = ImageDraw.Draw(sheet)
    draw.rectangle(place, outline=_LINE, width=2)
    _draw_number(draw, 0, place)


def _draw_number(draw: ImageDraw.ImageDraw, number: int, tile: Box) -> None:
    """A tile's number on a label in its corner, as large as the tile allows; none where it would not be readable."""
    if tile.size.width < _NUMBERED:
        return
    pixels = max(8, min(24, tile.size.width // 5))
    font = ImageFont.load_default(pixels)
    corner = (tile.left + 4, tile.top + 4)
    left, top, right, bottom = draw.textbbox(corner, str(number), font=font)
    draw.rectangle((left - 4, top - 4, right + 4, bottom + 4), fill=_LINE)
    draw.text(corner, str(number), font=font, fill=_PAPER)
