"""Reading pictures: any file that Pillow opens becomes upright RGB; anything else one error that names the file.

Every function opens the file once and leaves no global state of Pillow changed.
"""

from __future__ import annotations

import io
import math
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image, UnidentifiedImageError

from stages.artifacts.errors import ImageError
from stages.device.imaging.colour import to_rgb
from stages.device.imaging.geometry import Size
from stages.device.imaging.png_chunks import metadata_follows_pixels

# As 24-bit RGB a quarter of a GiB; also the size at which Pillow begins to warn.
MAX_PIXELS = 1024**3 // 4 // 3

# A picture is decoded or averaged down to no less than this many times the sides it is scaled to afterwards. At 1.5 the
# worst of 120 real photos, screens and pages differs from plain scaling by 1.5/255 on average, at 1.0 by 8/255.
REDUCING_GAP = 1.5

# EXIF orientation -> how to turn the stored pixels upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_SIDES = (5, 6, 7, 8)
# Which of them bring the stored right edge to the left, and the stored lower edge (or what takes its place) to the top.
_TURNS_LEFT, _TURNS_TOP = (2, 3, 6, 7), (3, 4, 7, 8)
_TURNED_BY_PILLOW = ("TIFF",)
# EPS is a program that Ghostscript would run; a WMF is drawn by Windows.
_REFUSED_FORMATS = ("EPS", "WMF")
_READABLE = "PNG, JPEG, WebP, GIF, TIFF, BMP or AVIF"
# `warnings.catch_warnings` swaps global state: only one thread at a time may do so.
_WARNINGS = threading.Lock()


@dataclass(frozen=True)
class Reduced:
    """A decoded picture, perhaps smaller than it is.

    Attributes:
        image: upright, RGB or L.
        size: the picture's full upright size.
        box: left, top, right and bottom of what shows the picture in `image`; a half pixel of an edge may be no part.
    """

    image: Image.Image
    size: Size
    box: tuple[float, float, float, float]

    @classmethod
    def whole(cls, image: Image.Image) -> Reduced:
        """A picture in its full size."""
        return cls(image, Size(*image.size), (0, 0, *image.size))


def load_reduced(source: Path | bytes, name: str, needed: Callable[[Size], Size | None]) -> Reduced:
    """Reads a picture that will be scaled down: a JPEG is decoded at a half, quarter or eighth where that is enough.

    Grey stays grey: scaling one channel gives the same as scaling three equal ones.

    Args:
        source: the file, or its bytes.
        name: stands for it in errors.
        needed: from the full upright size to the largest sides it will be scaled to; None for all its pixels.

    Raises:
        ImageError: as `load_image`; what `needed` raises.
    """
    with _opened(_regular_file(source) if isinstance(source, Path) else io.BytesIO(source), name) as image:
        size, orientation = _upright_size(image), _orientation(image)
        sides = needed(size)
        drafted = None
        if sides is not None:
            least = sides[::-1] if orientation in _SWAPS_SIDES else sides
            drafted = image.draft(None, (math.ceil(least[0] * REDUCING_GAP), math.ceil(least[1] * REDUCING_GAP)))
        upright = _decode(image, keep_grey=True)
        if drafted is None:
            return Reduced(upright, size, (0, 0, *upright.size))
        across, down = drafted[1][2:] if orientation not in _SWAPS_SIDES else drafted[1][:1:-1]
        left = upright.width - across if orientation in _TURNS_LEFT else 0
        top = upright.height - down if orientation in _TURNS_TOP else 0
        return Reduced(upright, size, (left, top, left + across, top + down))


def load_image(path: Path) -> Image.Image:
    """Reads a picture as upright 8-bit RGB: its first frame, transparency on white, 16 bits scaled.

    Raises:
        ImageError: absent, empty, broken, truncated, too large, or not a picture.
    """
    with _opened(_regular_file(path), str(path)) as image:
        return _decode(image)


def load_image_bytes(data: bytes, name: str) -> Image.Image:
    """`load_image` for a picture in memory; `name` stands for it in errors.

    Raises:
        ImageError: as `load_image`.
    """
    with _opened(io.BytesIO(data), name) as image:
        return _decode(image)


def read_size(path: Path) -> Size:
    """The upright size of a picture, from its header alone: damage further on goes unseen.

    Raises:
        ImageError: as `load_image`, except for damage in the pixels.
    """
    with _opened(_regular_file(path), str(path)) as image:
        return _upright_size(image)


def read_size_bytes(data: bytes, name: str) -> Size:
    """`read_size` for a picture in memory; `name` stands for it in errors.

    Raises:
        ImageError: as `read_size`.
    """
    return read_size_stream(io.BytesIO(data), name)


def read_size_stream(stream: BinaryIO, name: str) -> Size:
    """`read_size` for a picture somewhere else, of which no more is read than its header.

    Args:
        stream: can seek; its beginning is the picture's.
        name: stands for it in errors.

    Raises:
        ImageError: as `read_size`.
    """
    with _opened(stream, name) as image:
        return _upright_size(image)


def check_image(path: Path) -> Size:
    """The upright size of a picture whose pixels were decoded and thrown away; JPEG at an eighth of its size.

    Raises:
        ImageError: as `load_image`.
    """
    with _opened(_regular_file(path), str(path)) as image:
        return _check(image)


def check_image_bytes(data: bytes, name: str) -> Size:
    """`check_image` for a picture in memory; `name` stands for it in errors.

    Raises:
        ImageError: as `load_image`.
    """
    with _opened(io.BytesIO(data), name) as image:
        return _check(image)


def read_software(path: Path) -> str | None:
    """The program that a picture says it was written by, from its header alone.

    Raises:
        ImageError: as `read_size`.
    """
    with _opened(_regular_file(path), str(path)) as image:
        software = image.info.get("Software")
        return software if isinstance(software, str) else None


def _regular_file(path: Path) -> Path:
    """Refuses what is no file before anything opens it: a pipe would block for ever.

    Raises:
        ImageError: absent, out of reach, or a folder, pipe or device.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist.", "There is no picture to read.", "Check the path.") from None
    except (OSError, ValueError) as error:  # no permission on a folder above it, a name too long, a NUL in it
        why = error.strerror if isinstance(error, OSError) else error
        raise ImageError(f"{path} cannot be read: {why}.", "It is an input.", "Check its path and rights.") from error
    if stat.S_ISREG(mode):
        return path
    if stat.S_ISDIR(mode):
        raise ImageError(f"{path} is a folder.", "A picture is needed here.", "Name a picture inside it.")
    raise ImageError(f"{path} is not a regular file.", "A picture is needed here.", "Name a picture file.")


@contextmanager
def _opened(source: Path | BinaryIO, name: str) -> Iterator[Image.Image]:
    """Opens a picture and turns whatever a decoder raises, here or in the block, into one error.

    Raises:
        ImageError: the file cannot be read as a picture.
    """
    try:
        with _open_header(source) as image:
            _check_header(image, name)
            yield image
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(name) from error
    except UnidentifiedImageError as error:
        raise _unidentified(source, name) from error
    except PermissionError as error:
        raise ImageError(f"{name} cannot be read: {error.strerror}.", "It is an input.", "Check its rights.") from error
    except MemoryError as error:
        raise ImageError(
            f"{name} does not fit into the memory.", "Its pixels cannot be decoded.", "Scale the picture down first."
        ) from error
    except Exception as error:  # foreign bytes: decoders raise OSError, SyntaxError, struct.error, zlib.error, …
        detail = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ImageError(
            f"{name} is a broken picture: {detail}.",
            "Its pixels cannot be decoded completely.",
            "Get the file again, or leave it out.",
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences Pillow's warnings: odd metadata do not matter here, and too many pixels are our own check's."""
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open_header(source: Path | BinaryIO) -> Image.Image:
    with _quiet():
        return Image.open(source)


def _check_header(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{name} has no pixels: {width}×{height}.", "There is nothing to see.", "Get the file again.")
    if width * height > MAX_PIXELS:
        raise _too_large(name)
    if image.format in _REFUSED_FORMATS:
        raise ImageError(
            f"{name} is a drawing in {image.format}.",
            "Showing it would run it as a program.",
            f"Convert it to {_READABLE}.",
        )


def _too_large(name: str) -> ImageError:
    return ImageError(
        f"{name} claims more than {MAX_PIXELS:,} pixels.",
        "Decoding it could fill the memory: a small file can claim any size.",
        "Scale the picture down first if it is real.",
    )


def _unidentified(source: Path | BinaryIO, name: str) -> ImageError:
    size = source.stat().st_size if isinstance(source, Path) else source.seek(0, io.SEEK_END)
    if size == 0:
        return ImageError(f"{name} is empty (0 bytes).", "There is no picture in it.", "Get the file again.")
    return ImageError(
        f"{name} is not a picture that can be read.",
        "It has an unknown format, a rare variant of one, or a broken header.",
        f"If a viewer shows it, save it from there as {_READABLE}.",
    )


def _check(image: Image.Image) -> Size:
    size = _upright_size(image)
    image.draft(None, (1, 1))
    image.load()
    return size


def _decode(image: Image.Image, keep_grey: bool = False) -> Image.Image:
    deep_colour = image.format == "PNG" and "16B" in str(getattr(image, "tile", ""))
    image.load()
    transparent = image.info.get("transparency")
    if deep_colour and image.mode == "RGB" and isinstance(transparent, tuple):
        # Pillow keeps the high bytes of 16-bit colours, but the transparent colour as 16-bit values.
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
    turn = _UPRIGHT.get(_orientation(image))
    picture = image if keep_grey and image.mode == "L" and not image.has_transparency_data else to_rgb(image)
    return picture.transpose(turn) if turn is not None else picture


def _upright_size(image: Image.Image) -> Size:
    width, height = image.size
    return Size(height, width) if _orientation(image) in _SWAPS_SIDES else Size(width, height)


def _orientation(image: Image.Image) -> int:
    """How the pixels are turned, 1…8, by EXIF or XMP; 1 where that is missing or broken: the pixels may be good."""
    if image.format in _TURNED_BY_PILLOW:
        return 1
    try:
        with _quiet():
            exif = image.getexif() if metadata_follows_pixels(image) else Image.Image.getexif(image)
            value = exif.get(ExifTags.Base.Orientation, 1)
    except Exception:  # foreign bytes, as above
        return 1
    return value if isinstance(value, int) and value in _UPRIGHT else 1
