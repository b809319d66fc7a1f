"""The picture in the clipboard of the desktop, where there is one, as a file."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageGrab, UnidentifiedImageError

from stages.artifacts.errors import ImageError

_FIX = "Copy a picture first, or name its file: /image PATH"


def clipboard_pictures(file: Path) -> list[Path]:
    """The pictures in the clipboard: copied files as they are, a copied picture written to `file` as PNG.

    Raises:
        ImageError: there is no clipboard, or no picture in it.
    """
    try:
        found = ImageGrab.grabclipboard()
    except NotImplementedError as error:
        raise ImageError(
            "The clipboard cannot be read here: neither wl-paste nor xclip is installed.",
            "They hand its pictures on.",
            "Install wl-clipboard (Wayland) or xclip (X11), or name a file: /image PATH",
        ) from error
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        what = (" ".join(str(error).split()) or type(error).__name__).rstrip(".")[:200]
        raise ImageError(f"The clipboard cannot be read: {what}.", "It may hold no picture.", _FIX) from error
    if isinstance(found, list) and found:
        return [Path(name) for name in found]
    if not isinstance(found, Image.Image):
        raise ImageError("There is no picture in the clipboard.", "There is nothing to encode.", _FIX)
    found.save(file, "PNG")
    return [file]
