"""Reading a request's body: bounded in size and time, and all bodies together bounded in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import NoReturn

from starlette.requests import ClientDisconnect, Request

from stages.device.serve.api_errors import ApiError, queue_full, stopping
from stages.device.serve.limits import MB, ServeLimits

_RETRY_S = 5
# So much more than allowed is read and thrown away, so that a client that sends before it listens sees the answer.
_DRAINED_BYTES, _DRAIN_S = 256 * MB, 10.0


class Buffer:
    """Bytes of bodies in memory; used in one event loop.

    Args:
        limit: most bytes.

    Attributes:
        used: how many are.
        ended: no body is waited for any more.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.used = 0
        self.ended = False
        self._coming: set[asyncio.Timeout] = set()

    @asynccontextmanager
    async def within(self, seconds: float) -> AsyncIterator[None]:
        """The time in which a body must come; raises TimeoutError after so many seconds, or once none is waited for."""
        async with asyncio.timeout(0 if self.ended else seconds) as timeout:
            self._coming.add(timeout)
            try:
                yield
            finally:
                self._coming.discard(timeout)

    def end(self) -> None:
        """Waits for no body any more: the server ends."""
        self.ended = True
        for timeout in self._coming:
            timeout.reschedule(0)

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
        self.buffer = buffer
        self.held = 0

    def grow(self, size: int) -> None:
        """Takes more bytes; raises ApiError where there are none left."""
        self.buffer.take(size)
        self.held += size


class Body:
    """The body of one request, as it comes.

    Args:
        request: the request.

    Attributes:
        whole: nothing more comes.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self.whole = False

    async def piece(self) -> bytes:
        """What came next; raises ClientDisconnect where the client left."""
        message = await self._request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        self.whole = not message.get("more_body", False)
        return bytes(message.get("body", b""))

    async def drain(self) -> None:
        """Reads what a client still sends and throws it away: it would else see a broken connection, not the answer.

        Raises:
            ClientDisconnect: it left.
        """
        if self._request.headers.get("expect", "").lower() == "100-continue":
            return  # it waits for a word before it sends
        seen = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                while not self.whole and seen < _DRAINED_BYTES:
                    seen += len(await self.piece())


async def read_body(request: Request, limits: ServeLimits, share: Share, most_mb: float | None = None) -> bytes:
    """The body.

    Args:
        request: whose.
        limits: its size, and the time it may take.
        share: its part of the memory.
        most_mb: another bound of its size.

    Raises:
        ApiError: too large (413), too slow (408), no memory for it (429), or the server ends (503).
        ClientDisconnect: the client left.
    """
    limit = int((limits.body_mb if most_mb is None else most_mb) * MB)
    body, pieces = Body(request), []
    try:
        async with share.buffer.within(limits.body_s):
            _check_announced(request, limit)
            while not body.whole:
                piece = await body.piece()
                if share.held + len(piece) > limit:
                    raise _too_large(limit)
                share.grow(len(piece))
                pieces.append(piece)
    except TimeoutError:
        message = f"The request's body did not come within {limits.body_s:g} s (--set limits.body_s)."
        late = stopping() if share.buffer.ended else ApiError(408, message, "request_timeout")
        late.headers["Connection"] = "close"
        raise late from None
    except ApiError as error:
        pieces.clear()
        await refuse_body(body, error)
    return b"".join(pieces)


async def refuse_body(body: Body, error: ApiError) -> NoReturn:
    """Raises an error that is the answer to a request whose body was not read."""
    error.headers["Connection"] = "close"
    await body.drain()
    raise error


def _check_announced(request: Request, limit: int) -> None:
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> ApiError:
    message = (
        f"The request is larger than the {limit:,} bytes that this server takes (--set limits.body_mb, picture_mb)."
    )
    return ApiError(413, message, "request_too_large")
