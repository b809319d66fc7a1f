"""One client: HTTP/1.1 by uvicorn, with bounds on what it may keep waiting, and on how many clients there are.

A head must come in time, an answer must be taken in time; a client that closes its side, also its sending side alone,
has left (the two cannot be told apart before its answer is written).
"""

from __future__ import annotations

import asyncio
import json

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from stages.device.serve.api_errors import connections_full
from stages.device.serve.limits import ServeLimits

HEADER_S = 15.0


class Connection(H11Protocol):
    """A connection within limits; uvicorn makes one for each client."""

    limits = ServeLimits()
    _head_timer: asyncio.TimerHandle | None = None
    _send_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client came; one too many is told so and let go of."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            transport.write(_full())
            transport.close()
        else:
            self._head_timer = self.loop.call_later(HEADER_S, transport.close)

    def data_received(self, data: bytes) -> None:
        """Some bytes: a head still unfinished is waited for only so long."""
        super().data_received(data)
        unfinished = self.conn.their_state is h11.IDLE
        if not unfinished:
            self._forget_head()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEADER_S, self.transport.close)

    def pause_writing(self) -> None:
        """The client takes nothing at the moment. What waits for it is thrown away when it goes on so."""
        super().pause_writing()
        self._forget_send()
        self._send_timer = self.loop.call_later(self.limits.send_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It has taken what waited."""
        self._forget_send()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """A client left."""
        self._forget_head()
        self._forget_send()
        super().connection_lost(exc)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _forget_send(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None


def connection_of(limits: ServeLimits) -> type[Connection]:
    """The kind of connection that a server with these limits has."""
    return type("LimitedConnection", (Connection,), {"limits": limits})


def _full() -> bytes:
    """A whole answer to whoever comes when there is no place."""
    error = connections_full()
    body = json.dumps(error.as_dict()).encode()
    headers = {"Content-Type": "application/json", "Content-Length": len(body), "Connection": "close", **error.headers}
    lines = [f"HTTP/1.1 {error.status} Service Unavailable", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body
