"""The page at `/`: files that lie beside this one, sent as they are, under rules that let it talk to this server alone.

No build step and no request to any other machine: a Content-Security-Policy holds the page to that, whatever a model
answers. The files are open to everyone who reaches the server; what they show asks for the key where there is one.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

FOLDER = "/page/"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Kept, but asked for each time: a server of another version may stand at the same address.
    "Cache-Control": "no-cache",
}


class PageFiles:
    """The page's files, read once.

    Args:
        folder: where they are; those that come with bluelm where none is named.
    """

    def __init__(self, folder: Path | None = None) -> None:
        folder = folder or Path(__file__).with_name("page")
        self._files = {
            file.name: (file.read_bytes(), _TYPES[file.suffix])
            for file in sorted(folder.iterdir())
            if file.suffix in _TYPES
        }

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def reply(self, name: str, request: Request) -> Response:
        """A file, or word that the browser's copy still holds; raises KeyError where there is none of this name."""
        content, kind = self._files[name]
        headers = _HEADERS | {"ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"'}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=kind, headers=headers)
