"""Everything that the routes share: the model behind its queue, and how requests are read."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from pydantic_core import from_json
from starlette.requests import Request

from stages.artifacts.errors import BluelmError
from stages.device.imaging.tiling import Tiling
from stages.device.runtime.cache import ContextLengthError
from stages.device.runtime.engine import AnswerOptions
from stages.device.serve.access import Access
from stages.device.serve.api_errors import ApiError, stopping, too_long
from stages.device.serve.body import Body, Buffer, Share, read_body, refuse_body
from stages.device.serve.chat_request import ChatRequest, PictureReference, read_request
from stages.device.serve.job import Job, JobEvents
from stages.device.serve.limits import MB, ServeLimits
from stages.device.serve.metrics import ServerMetrics
from stages.device.serve.picture_sources import PictureSources, RequestPicture
from stages.device.serve.served_model import ServedModel
from stages.device.serve.worker import Worker

Made = TypeVar("Made")
# Threads that read requests, and those that wait for other machines: slow ones must not hold up the rest.
_READERS, _FETCHERS = 4, 8
_JSON = re.compile("application/json")
_PICTURE = re.compile(r"image/[\w.+-]+|application/octet-stream")


@dataclass
class Service:
    """One model served.

    Attributes:
        model: what answers.
        limits: what requests may take.
        defaults: how to answer where a request does not say.
        sources: where pictures may come from.
        access: who may ask.
        stopping: the server ends, nothing new is accepted.
    """

    model: ServedModel
    limits: ServeLimits = field(default_factory=ServeLimits)
    defaults: AnswerOptions = field(default_factory=AnswerOptions)
    sources: PictureSources = field(default_factory=lambda: PictureSources(ServeLimits()))
    access: Access = field(default_factory=Access)
    metrics: ServerMetrics = field(default_factory=ServerMetrics)
    stopping: bool = False

    def __post_init__(self) -> None:
        self.worker = Worker(self.model, self.limits, self.metrics)
        self.buffer = Buffer(int(self.limits.buffer_mb * MB))
        self._readers, self._fetchers = CapacityLimiter(_READERS), CapacityLimiter(_FETCHERS)

    def end_all(self) -> None:
        """Waits for no body and no answer any more: whoever still waits is told that the server ends."""
        self.buffer.end()
        self.worker.cancel_all()

    async def accept(self, request: Request, share: Share) -> tuple[Job, JobEvents]:
        """Reads a request and gives it a place in the queue.

        Raises:
            ApiError: it cannot be answered, or there is no place.
            ClientDisconnect: the client left while it was sending.
        """
        await self._check_first(request, _JSON)
        chat = await self._read(await read_body(request, self.limits, share))
        pictures = tuple([await self._picture(reference) for reference in chat.pictures])
        await self._thread(lambda: self._check(chat, pictures))
        return self._submitted(request, chat.client, chat, pictures)

    async def accept_picture(self, request: Request, share: Share) -> tuple[RequestPicture, Tiling, Job, JobEvents]:
        """Reads a picture that will be asked about, and gives its encoding a place in the queue; raises as `accept`."""
        await self._check_first(request, _PICTURE)
        data = await read_body(request, self.limits, share, self.limits.picture_mb)
        picture = await self._thread(lambda: self.sources.checked(data, ""))
        tiling = self.model.tiling(picture.size)
        return picture, tiling, *self._submitted(request, request.query_params.get("user"), None, (picture,))

    def _submitted(
        self, request: Request, user: str | None, chat: ChatRequest | None, pictures: tuple[RequestPicture, ...]
    ) -> tuple[Job, JobEvents]:
        host = request.client.host if request.client is not None else ""
        events = JobEvents()
        job = Job(f"{host} {user or ''}", chat, pictures, events.put)
        self.worker.submit(job)
        return job, events

    async def _read(self, body: bytes) -> ChatRequest:
        chat = await self._thread(lambda: read_request(parse_json(body), self.defaults, self.limits))
        if chat.model not in (None, self.model.name):
            raise no_such_model(chat.model or "")
        return chat

    async def _check_first(self, request: Request, kinds: re.Pattern[str]) -> None:
        """What can be refused before the body is read.

        No page of another site can send these types without asking first, see `access`.
        """
        try:
            if self.stopping:
                raise stopping()
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if not kinds.fullmatch(kind):
                wanted = "application/json" if kinds is _JSON else "image/png' or 'application/octet-stream"
                message = f"Unsupported content type: '{kind}'. Send the header 'Content-Type: {wanted}'."
                raise ApiError(415, message, "unsupported_content_type")
            if self.worker.queued >= self.limits.queue:
                self.metrics.refused.add()
                raise self.worker.full()
        except ApiError as error:
            await refuse_body(Body(request), error)

    async def _picture(self, reference: PictureReference) -> RequestPicture:
        remote = self.sources.is_remote(reference)
        return await self._thread(lambda: self.sources.read(reference), self._fetchers if remote else None)

    def _check(self, chat: ChatRequest, pictures: tuple[RequestPicture, ...]) -> None:
        try:
            self.model.check(chat.messages, [picture.size for picture in pictures])
        except ContextLengthError as error:
            raise too_long(f"{error.what} Send fewer or smaller pictures, or a shorter text.") from error
        except BluelmError as error:
            raise ApiError(400, f"{error.what} {error.why}", "invalid_value", "messages") from error

    async def _thread(self, work: Callable[[], Made], limiter: CapacityLimiter | None = None) -> Made:
        return await to_thread.run_sync(work, limiter=limiter or self._readers)


@contextlib.asynccontextmanager
async def dropped_when_client_leaves(request: Request, worker: Worker, job: Job) -> Any:
    """Cancels a job when its client leaves, and at the end of the block at the latest."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        worker.cancel(job)

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()
        worker.cancel(job)


def no_such_model(name: str) -> ApiError:
    """The answer to a model that is not served."""
    message = f"The model '{name[:100]}' does not exist or you do not have access to it. GET /v1/models lists them."
    return ApiError(404, message, "model_not_found", "model")


def parse_json(body: bytes) -> Any:
    """JSON as the standard has it: no NaN, no lone surrogates.

    Raises:
        ApiError: it is none.
    """
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(400, f"We could not parse the JSON body of your request: {error}.", "invalid_json") from None
