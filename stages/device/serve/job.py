"""A request on its way through the queue and the engine, and what it tells its waiting client.

A job is a question, or pictures to encode ahead of one. It is taken by the engine's thread; its client waits in the
event loop. Each accepted job ends exactly once, as answered, encoded, failed or cancelled.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from stages.device.runtime.engine import Answer
from stages.device.runtime.generator import Token
from stages.device.serve.api_errors import ApiError
from stages.device.serve.chat_request import ChatRequest
from stages.device.serve.picture_sources import RequestPicture


@dataclass(frozen=True)
class TilesDone:
    """So many tiles of the picture that is being encoded are done."""

    done: int
    tiles: int


@dataclass(frozen=True)
class Encoded:
    """The features of the job's pictures are there, after so many seconds of work; `reused`: they all were before."""

    seconds: float
    reused: bool


@dataclass(frozen=True)
class Failed:
    """The job was not answered."""

    error: ApiError


@dataclass(frozen=True)
class Cancelled:
    """The job was cancelled: nobody waits for it, or the server ends."""


JobEnd = Answer | Encoded | Failed | Cancelled
JobEvent = Token | TilesDone | JobEnd


class Job:
    """One request.

    Args:
        client: whom it is from, for fairness.
        request: what is asked; None where pictures are only to be encoded.
        pictures: its pictures.
        tell: takes events; called in the engine's thread, or by who cancels.
    """

    def __init__(
        self,
        client: str,
        request: ChatRequest | None,
        pictures: tuple[RequestPicture, ...] = (),
        tell: Callable[[JobEvent], None] = lambda _: None,
    ) -> None:
        self.client, self.request, self.pictures = client, request, pictures
        self.arrived = time.perf_counter()
        self._tell = tell
        self._cancelled = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Whether it is no longer wanted."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Says that it is no longer wanted; the engine stops at its next step."""
        self._cancelled.set()

    def tell(self, event: JobEvent) -> None:
        """Tells the client something."""
        self._tell(event)


class JobEvents:
    """What a job tells, from the engine's thread to a client in this event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[JobEvent] = asyncio.Queue()

    def put(self, event: JobEvent) -> None:
        """Adds an event, from any thread; after the loop's end nobody waits for it."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, event)

    async def next(self) -> JobEvent:
        """The next event."""
        return await self._queue.get()
