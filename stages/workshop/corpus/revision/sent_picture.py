"""A picture as it is sent: upright, scaled to a limit, as JPEG in a data URI. No metadata of the file goes with it."""

from __future__ import annotations

import base64
import io
import math

from PIL import Image
from pydantic import Field

from stages.artifacts.recipes import RecipeModel
from stages.device.imaging.geometry import Size
from stages.workshop.corpus.picture import Picture

# OpenAI's rule for what a picture costs, near enough for a budget: a square of 512 pixels 170 tokens, and 85 for all.
_SQUARE = 512
_SQUARE_TOKENS = 170
_PICTURE_TOKENS = 85


class SentPictures(RecipeModel):
    """How pictures are sent."""

    side: int = Field(default=1024, ge=32, le=8192, description="longest side, in pixels; larger ones are scaled down")
    quality: int = Field(default=90, ge=1, le=100, description="JPEG quality")
    detail: str | None = Field(default=None, description="'low', 'high' or 'auto', for endpoints that know it")


def data_uri(picture: Picture, sent: SentPictures) -> str:
    """The picture as an `image_url` holds it.

    Raises:
        ImageError: it cannot be read.
    """
    image = picture.load()
    size = scaled(Size(*image.size), sent.side)
    if size != image.size:
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=sent.quality)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def scaled(size: Size, side: int) -> Size:
    """A size with its longest side at most `side`, its aspect kept."""
    longest = max(size)
    if longest <= side:
        return size
    return Size(max(1, round(size.width * side / longest)), max(1, round(size.height * side / longest)))


def picture_tokens(size: Size) -> int:
    """About how many tokens a picture costs that is sent in this size."""
    squares = math.ceil(size.width / _SQUARE) * math.ceil(size.height / _SQUARE)
    return _PICTURE_TOKENS + _SQUARE_TOKENS * squares
