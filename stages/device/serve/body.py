"""Reading a request's body: bounded in size and time, and all bodies together bounded in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import ClientDisconnect, Request

from stages.device.serve.api_errors import ApiError, queue_full
from stages.device.serve.limits import MB, ServeLimits

_RETRY_S = 5
# So much more than allowed is read and thrown away, so that a client that sends before it listens sees the answer.
_DRAINED_BYTES, _DRAIN_S = 256 * MB, 10.0


class Buffer:
    """Bytes of bodies in memory; used in one event loop.

    Args:
        limit: most bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.used = 0

    @contextmanager
    def share(self) -> Iterator[Share]:
        """What one request holds, given back at the block's end."""
        share = Share(self)
        try:
            yield share
        finally:
            self.used -= share.held

    def take(self, size: int) -> None:
        """Takes bytes; raises ApiError where there are none left."""
        if self.used + size > self._limit:
            raise queue_full("The server holds as many bytes of requests as it may. Try again later.", _RETRY_S)
        self.used += size


class Share:
    """One request's part of a buffer."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self.held = 0

    def grow(self, size: int) -> None:
        """Takes more bytes; raises ApiError where there are none left."""
        self._buffer.take(size)
        self.held += size


async def read_body(request: Request, limits: ServeLimits, share: Share) -> bytes:
    """The body.

    Raises:
        ApiError: too large (413), too slow (408), or no memory for it (429).
        ClientDisconnect: the client left.
    """
    limit = int(limits.body_mb * MB)
    pieces: list[bytes] = []
    try:
        async with asyncio.timeout(limits.body_s):
            _check_announced(request, limit)
            async for piece in request.stream():
                if share.held + len(piece) > limit:
                    raise _too_large(limit)
                share.grow(len(piece))
                pieces.append(piece)
    except TimeoutError:
        message = f"The request's body did not come within {limits.body_s:g} s."
        raise ApiError(408, message, "request_timeout", headers={"Connection": "close"}) from None
    except ApiError as error:
        pieces.clear()
        error.headers["Connection"] = "close"
        await drain(request)
        raise
    return b"".join(pieces)


async def drain(request: Request) -> None:
    """Reads what a client still sends and throws it away: it would else see a broken connection, not the answer."""
    if request.headers.get("expect", "").lower() == "100-continue":
        return  # it waits for a word before it sends
    seen = 0
    try:
        async with asyncio.timeout(_DRAIN_S):
            while seen < _DRAINED_BYTES:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                seen += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def _check_announced(request: Request, limit: int) -> None:
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"The request is larger than the {limit:,} bytes that this server takes.", "request_too_large")
