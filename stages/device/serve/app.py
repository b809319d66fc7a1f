"""The routes: chat completions, pictures ahead of them, models, health, metrics, and the page."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from stages.device.runtime.engine import Answer
from stages.device.runtime.generator import Token
from stages.device.serve.access import Gate
from stages.device.serve.api_errors import ApiError, our_fault, stopping
from stages.device.serve.job import Failed, JobEvent, JobEvents
from stages.device.serve.openapi import OPENAPI_PATH, description
from stages.device.serve.page_files import FOLDER, PageFiles
from stages.device.serve.picture_endpoint import PATH as PICTURES_PATH
from stages.device.serve.picture_endpoint import PictureEndpoint
from stages.device.serve.replies import CompletionReply, error_reply, event, streamed
from stages.device.serve.service import Service, dropped_when_client_leaves, no_such_model

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def make_app(service: Service) -> ASGIApp:
    """The server as an ASGI application; its worker is started by whoever runs it."""
    # No pages of documentation: FastAPI's load scripts from other machines.
    app = FastAPI(openapi_url=OPENAPI_PATH, docs_url=None, redoc_url=None, redirect_slashes=False)
    document = description(service.model.name, service.access.asks_for_key, _version())
    app.openapi = lambda: document  # type: ignore[method-assign]
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _bug)
    app.router.routes.append(Route("/v1/chat/completions", ChatEndpoint(service), methods=["POST"]))
    app.router.routes.append(Route(PICTURES_PATH, PictureEndpoint(service), methods=["POST"]))
    started = int(time.time())

    def about_model() -> dict[str, Any]:
        return {"id": service.model.name, "object": "model", "created": started, "owned_by": "bluelm"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [about_model()]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        if name != service.model.name:
            raise no_such_model(name)
        return about_model()

    @app.get("/health")
    async def health() -> JSONResponse:
        status = "stopping" if service.stopping else "ok"
        content = {"status": status, "model": service.model.name, "queued": service.worker.queued}
        return JSONResponse(content, 503 if service.stopping else 200)

    @app.get("/metrics")
    async def metrics() -> Response:
        text = service.metrics.text(service.worker.queued, service.worker.running)
        return Response(text, media_type=_METRICS_TYPE)

    files = PageFiles()

    @app.get("/")
    async def page(request: Request) -> Response:
        return files.reply("index.html", request)

    @app.get(FOLDER + "{name}")
    async def page_file(name: str, request: Request) -> Response:
        if name not in files:
            raise HTTPException(404)
        return files.reply(name, request)

    return Gate(app, service.access, service.metrics)


def _version() -> str:
    """bluelm's; a copy of its files that was never installed has none."""
    try:
        return version("bluelm")
    except PackageNotFoundError:
        return "unknown"


class ChatEndpoint:
    """POST /v1/chat/completions.

    The status waits for the first token, so that whatever goes wrong before it is an error of HTTP, also in a stream.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI; raises ApiError for what is not answered."""
        request = Request(scope, receive, send)
        with self._service.buffer.share() as share:
            try:
                job, events = await self._service.accept(request, share)
            except ClientDisconnect:
                return
            async with dropped_when_client_leaves(request, self._service.worker, job):
                assert job.request is not None
                response = await self._response(job.request.stream, job.request.include_usage, events)
                await response(scope, receive, send)

    async def _response(self, stream: bool, include_usage: bool, events: JobEvents) -> Response:
        model = self._service.model
        reply = CompletionReply(model.name, model.fingerprint, include_usage)
        first = await events.next()
        if stream and isinstance(first, Token | Answer):
            return streamed(_stream(reply, first, events))
        while isinstance(first, Token):
            first = await events.next()
        if isinstance(first, Answer):
            return JSONResponse(reply.whole(first))
        raise _error(first)


async def _stream(reply: CompletionReply, first: JobEvent, events: JobEvents) -> AsyncIterator[str]:
    yield reply.opening()
    current = first
    while isinstance(current, Token):
        if current.text:
            yield reply.piece(current.text)
        current = await events.next()
    yield reply.closing(current) if isinstance(current, Answer) else event(_error(current).as_dict())


def _error(end: JobEvent) -> ApiError:
    """What a client is told of a job that was not answered; one whose client left tells nobody."""
    return end.error if isinstance(end, Failed) else stopping()


async def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_reply(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    messages = {404: "Invalid URL", 405: "Method not allowed"}
    message = f"{messages.get(error.status_code, error.detail)} ({request.method} {request.url.path[:200]})"
    code = "unknown_url" if error.status_code == 404 else None
    return error_reply(ApiError(error.status_code, message, code, headers=error.headers))


async def _bug(_: Request, __: Exception) -> Response:
    return error_reply(our_fault())
