"""Pictures as requests name them, to bytes: data URIs, files of one folder, and, where that is allowed, URLs."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote_to_bytes

from stages.artifacts.errors import ImageError
from stages.device.imaging.geometry import Size
from stages.device.imaging.loading import read_size_bytes
from stages.device.serve.api_errors import ApiError
from stages.device.serve.chat_request import PictureReference
from stages.device.serve.limits import MB, ServeLimits
from stages.device.serve.picture_files import PictureFolder

_DATA_URI = re.compile(
    r"data:(?P<type>[\w.+-]+/[\w.+-]+)?(?P<options>(?:;[\w.+-]+=[^;,]*)*)(?P<base64>;base64)?,", re.I
)


@dataclass(frozen=True)
class RequestPicture:
    """A picture that came with a request: its bytes and their sha256, and its upright size.

    `place` is where in the request it stands; empty where it is all of it.
    """

    place: str
    data: bytes
    digest: str
    size: Size

    @property
    def name(self) -> str:
        """What messages call it."""
        return picture_name(self.place)


class Fetcher(Protocol):
    """Fetches what a URL names; see `remote`."""

    def __call__(self, url: str, place: str, limit: int) -> bytes:
        """At most `limit` bytes; raises ApiError."""


class PictureSources:
    """Reads pictures.

    Args:
        limits: their size.
        folder: where `file:` URLs may point; None for nowhere.
        fetch: how to fetch remote URLs; None where that is not allowed.
    """

    def __init__(self, limits: ServeLimits, folder: PictureFolder | None = None, fetch: Fetcher | None = None) -> None:
        self._limits, self._folder, self._fetch = limits, folder, fetch

    def is_remote(self, reference: PictureReference) -> bool:
        """Whether reading it means waiting for another machine."""
        return self._fetch is not None and _scheme(reference.url) in ("http", "https")

    def read(self, reference: PictureReference) -> RequestPicture:
        """A picture's bytes; its header is looked at, not its pixels.

        Raises:
            ApiError: it cannot be had, is no picture, or is too large.
        """
        return self.checked(self._bytes(reference), reference.place)

    def checked(self, data: bytes, place: str) -> RequestPicture:
        """A picture whose bytes are there; raises ApiError as `read` does."""
        try:
            size = read_size_bytes(data, picture_name(place))
        except ImageError as error:
            raise bad_picture(place, error) from error
        if size.width * size.height > self._limits.megapixels * 1e6:
            raise ApiError(
                400,
                f"{picture_name(place)} has {size.width}×{size.height} pixels; "
                f"this server takes {self._limits.megapixels:g} megapixels (--set limits.megapixels).",
                "image_too_large",
                place or None,
            )
        return RequestPicture(place, data, hashlib.sha256(data).hexdigest(), size)

    def _bytes(self, reference: PictureReference) -> bytes:
        place, limit = reference.place, int(self._limits.picture_mb * MB)
        scheme = _scheme(reference.url)
        if scheme == "data":
            return _from_data_uri(reference.url, place, limit)
        if scheme == "file" and self._folder is not None:
            return self._folder.read(reference.url, place, limit)
        if scheme in ("http", "https") and self._fetch is not None:
            return self._fetch(reference.url, place, limit)
        hints = {
            "file": "this server reads no files (bluelm chat --serve … --allow-files DIR lets it).",
            "http": "this server fetches no URLs (bluelm chat --serve … --allow-urls lets it); send a data URI.",
        }
        hint = hints.get("http" if scheme == "https" else scheme, "give a data URI: data:image/png;base64,….")
        raise ApiError(400, f"Invalid picture at '{place}': {hint}", "invalid_image_url", place)


def bad_picture(place: str, error: ImageError) -> ApiError:
    """The answer to a picture that cannot be read."""
    return ApiError(400, f"{error.what} {error.why} {error.fix}", "image_parse_error", place or None)


def picture_name(place: str) -> str:
    """What messages call a picture."""
    return f"The picture at '{place}'" if place else "The picture"


def _from_data_uri(url: str, place: str, limit: int) -> bytes:
    match = _DATA_URI.match(url[:1000])
    if match is None:
        message = f"Invalid picture at '{place}': not a data URI. Expected data:image/png;base64,…."
        raise ApiError(400, message, "invalid_image_url", place)
    if (kind := match["type"]) and not kind.lower().startswith(("image/", "application/octet-stream")):
        message = f"Invalid picture at '{place}': its type is {kind}. Expected image/png, image/jpeg or another image."
        raise ApiError(400, message, "invalid_image_format", place)
    encoded = url[match.end() :]
    if not match["base64"]:
        return _within(unquote_to_bytes(encoded), place, limit)
    if len(encoded) * 3 // 4 > limit + 3:
        raise _too_large(place, limit)
    try:
        # Line breaks are common, and clients that write a URI by the book escape '+' and '/'.
        plain = unquote_to_bytes(encoded) if "%" in encoded else encoded.encode("ascii")
        return _within(base64.b64decode(b"".join(plain.split()), validate=True), place, limit)
    except (binascii.Error, UnicodeEncodeError):
        message = f"Invalid picture at '{place}': its base64 is broken."
        raise ApiError(400, message, "invalid_base64", place) from None


def _within(data: bytes, place: str, limit: int) -> bytes:
    if len(data) > limit:
        raise _too_large(place, limit)
    return data


def _too_large(place: str, limit: int) -> ApiError:
    message = f"The picture at '{place}' is larger than the {limit:,} bytes that this server takes (limits.picture_mb)."
    return ApiError(400, message, "image_too_large", place)


def _scheme(url: str) -> str:
    return url[:10].partition(":")[0].lower()
