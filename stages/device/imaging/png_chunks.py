"""Where a PNG keeps its metadata: asked so that a size can be read without decoding the pixels."""

from __future__ import annotations

import struct

from PIL import Image

_SIGNATURE_BYTES = 8
_METADATA = (b"eXIf", b"zTXt", b"iTXt", b"tEXt")


def metadata_follows_pixels(image: Image.Image) -> bool:
    """Whether an opened PNG has chunks behind its pixels that may hold an orientation.

    Pillow decodes a PNG to look for them, and finds those before the pixels without. Other formats: False.
    """
    stream = getattr(image, "fp", None)
    if image.format != "PNG" or stream is None:
        return False
    position = stream.tell()
    try:
        stream.seek(_SIGNATURE_BYTES)
        pixels_seen = False
        while len(header := stream.read(8)) == 8:
            length, kind = struct.unpack(">I4s", header)
            if kind == b"IEND":
                return False
            pixels_seen = pixels_seen or kind == b"IDAT"
            if pixels_seen and kind in _METADATA:
                return True
            stream.seek(length + 4, 1)
        return False
    finally:
        stream.seek(position)
