"""POST /v1/bluelm/pictures: a picture is encoded while its question is still being typed (Sec. 3.4, Fig. 6).

The body is the picture's file; `?user=` says whom it is from, as `user` does in a question. The answer is a stream of
server-sent events: one plan, tiles as they are done (none where the features were there already), and an end.

    {"type": "plan", "sha256": …, "size": [w, h], "grid": [cols, rows], "canvas": [w, h],
     "picture": [left, top, right, bottom], "boxes": [[…], …], "thumbnail": true, "tiles": 10, "tokens": 1960}
    {"type": "tiles", "done": 3, "tiles": 10}          the first of them is the thumbnail where there is one
    {"type": "encoded", "seconds": 1.9, "reused": false}
    {"error": {"message": …}}

Boxes are pixels of the canvas; `picture` is the part of it that the picture takes. A question that shows the same bytes
in `/v1/chat/completions` finds the features there. A client that leaves is not worked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from stages.device.imaging.tiling import Tiling
from stages.device.serve.api_errors import stopping
from stages.device.serve.job import Encoded, Failed, JobEvents, TilesDone
from stages.device.serve.picture_sources import RequestPicture
from stages.device.serve.replies import event, streamed
from stages.device.serve.service import Service, dropped_when_client_leaves

PATH = "/v1/bluelm/pictures"


class PictureEndpoint:
    """The endpoint; what is wrong with the picture's header is an error of HTTP, with its pixels one in the stream."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI; raises ApiError for what is not encoded."""
        request = Request(scope, receive, send)
        with self._service.buffer.share() as share:
            try:
                picture, tiling, job, events = await self._service.accept_picture(request, share)
            except ClientDisconnect:
                return
            async with dropped_when_client_leaves(request, self._service.worker, job):
                response: StreamingResponse = streamed(_stream(picture, tiling, events))
                await response(scope, receive, send)


async def _stream(picture: RequestPicture, tiling: Tiling, events: JobEvents) -> AsyncIterator[str]:
    yield event(plan(picture, tiling))
    while isinstance(current := await events.next(), TilesDone):
        yield event({"type": "tiles", "done": current.done, "tiles": current.tiles})
    if isinstance(current, Encoded):
        yield event({"type": "encoded", "seconds": round(current.seconds, 4), "reused": current.reused})
    else:
        yield event((current.error if isinstance(current, Failed) else stopping()).as_dict())


def plan(picture: RequestPicture, tiling: Tiling) -> dict[str, Any]:
    """How a picture is cut, for JSON."""
    return {
        "type": "plan",
        "sha256": picture.digest,
        "size": list(picture.size),
        "grid": list(tiling.grid),
        "canvas": list(tiling.canvas),
        "picture": list(tiling.picture),
        "boxes": [list(box) for box in tiling.boxes],
        "thumbnail": tiling.has_thumbnail,
        "tiles": tiling.tiles,
        "tokens": tiling.tokens,
    }
