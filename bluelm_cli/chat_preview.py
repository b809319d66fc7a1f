"""Pictures in the terminal: as kitty, iTerm2 or sixel draw them, or as coloured half blocks.

What a terminal can do is read from the environment that it sets; nothing is asked of it or guessed. Sources: kitty's
graphics protocol, iTerm2's inline images protocol (OSC 1337), DEC's sixel (VT340).
"""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL.Image import Image

Graphics = Literal["kitty", "iterm2", "sixel"]
# A preview's box in cells, and about how many pixels a cell has.
COLUMNS, ROWS = 40, 12
_CELL_WIDTH, _CELL_HEIGHT = 10, 20
_KITTY_CHUNK = 4096
_SIXEL_COLOURS = 255
_ESC, _BEL, _ST = "\x1b", "\x07", "\x1b\\"


def graphics_of(environment: Mapping[str, str]) -> Graphics | None:
    """How a terminal draws pictures, by what it says of itself; None where it says nothing of the kind."""
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if "TMUX" in environment or term.startswith(("screen", "tmux")):
        return None  # a multiplexer between us and the terminal keeps such sequences to itself
    if "KITTY_WINDOW_ID" in environment or term in ("xterm-kitty", "xterm-ghostty") or program == "ghostty":
        return "kitty"
    if program in ("iTerm.app", "WezTerm", "mintty") or environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm2"
    if term.startswith(("foot", "mlterm", "yaft")) or "sixel" in term:
        return "sixel"
    return None


def preview(path: Path, graphics: Graphics | None) -> str:
    """What draws a picture; half blocks where the terminal has no graphics.

    Raises:
        ImageError: the picture cannot be read.
    """
    if graphics is None:
        return half_blocks(_small(path, COLUMNS, 2 * ROWS))
    image = _small(path, COLUMNS * _CELL_WIDTH, ROWS * _CELL_HEIGHT)
    return {"kitty": kitty, "iterm2": iterm2, "sixel": sixel}[graphics](image) + "\n"


def can_draw() -> bool:
    """Whether stderr, where previews go, is a terminal."""
    return sys.stderr.isatty()


def kitty(image: Image) -> str:
    """A picture in kitty's protocol: PNG in base64, in chunks, never answered (q=2)."""
    data = base64.standard_b64encode(_png(image)).decode("ascii")
    pieces = [data[start : start + _KITTY_CHUNK] for start in range(0, len(data), _KITTY_CHUNK)]
    drawn = []
    for index, piece in enumerate(pieces):
        first = "a=T,f=100,q=2," if index == 0 else ""
        drawn.append(f"{_ESC}_G{first}m={int(index < len(pieces) - 1)};{piece}{_ST}")
    return "".join(drawn)


def iterm2(image: Image) -> str:
    """A picture in iTerm2's protocol."""
    data = _png(image)
    encoded = base64.standard_b64encode(data).decode("ascii")
    return f"{_ESC}]1337;File=inline=1;size={len(data)};width={image.width}px;height={image.height}px:{encoded}{_BEL}"


def sixel(image: Image) -> str:
    """A picture as sixels: bands of six rows, drawn colour by colour, runs shortened."""
    import numpy as np

    small = image.quantize(_SIXEL_COLOURS)
    palette = small.getpalette() or []
    pixels = np.asarray(small)
    drawn = [f'{_ESC}Pq"1;1;{image.width};{image.height}']
    for colour in range(len(palette) // 3):
        red, green, blue = (round(value * 100 / 255) for value in palette[3 * colour : 3 * colour + 3])
        drawn.append(f"#{colour};2;{red};{green};{blue}")
    for top in range(0, image.height, 6):
        band = pixels[top : top + 6]
        weights = (1 << np.arange(len(band)))[:, None]
        lines = []
        for colour in np.unique(band):
            bits = ((band == colour) * weights).sum(axis=0)
            lines.append(f"#{colour}{''.join(_runs(bits.tolist()))}")
        drawn.append("$".join(lines) + "-")
    return "".join(drawn) + _ST


def half_blocks(image: Image) -> str:
    """A picture as upper half blocks: the letter's colour is the upper pixel, its ground the lower."""
    import numpy as np

    pixels = np.asarray(image)
    lines = []
    for row in range(0, image.height, 2):
        upper = pixels[row]
        lower = pixels[row + 1] if row + 1 < image.height else None
        cells = [
            f"{_ESC}[38;2;{r};{g};{b}m"
            + (f"{_ESC}[48;2;{';'.join(map(str, lower[x]))}m" if lower is not None else "")
            + "▀"
            for x, (r, g, b) in enumerate(upper)
        ]
        lines.append("".join(cells) + f"{_ESC}[0m\n")
    return "".join(lines)


def _small(path: Path, width: int, height: int) -> Image:
    """The picture, RGB, scaled into a box; never enlarged."""
    from PIL.Image import Resampling

    from stages.device.imaging.geometry import Size
    from stages.device.imaging.loading import load_reduced

    def sides(size: Size) -> Size:
        scale = min(1.0, width / size.width, height / size.height)
        return Size(max(1, round(size.width * scale)), max(1, round(size.height * scale)))

    reduced = load_reduced(path, str(path), sides)
    return reduced.image.convert("RGB").resize(sides(reduced.size), Resampling.BILINEAR, box=reduced.box)


def _png(image: Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def _runs(bits: list[int]) -> Iterator[str]:
    """Sixel letters; four and more equal ones are counted."""
    start = 0
    for index in range(1, len(bits) + 1):
        if index == len(bits) or bits[index] != bits[start]:
            letter, count = chr(63 + bits[start]), index - start
            yield f"!{count}{letter}" if count > 3 else letter * count
            start = index
