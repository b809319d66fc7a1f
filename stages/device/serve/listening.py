"""Running a service: an address, a socket, uvicorn, and an orderly end."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from stages.artifacts.errors import UsageError
from stages.device.serve.app import make_app
from stages.device.serve.connection import connection_of
from stages.device.serve.service import Service

DEFAULT_HOST = "127.0.0.1"
# Clients keep connections for seconds; the one that closes first should be the client.
_KEEP_ALIVE_S = 60
_BACKLOG = 1024


@dataclass(frozen=True)
class Address:
    """Where a server listens; port 0 lets the system choose one."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """Its address in a browser."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """`PORT`, `HOST:PORT` or `[IPV6]:PORT`.

    Raises:
        UsageError: anything else.
    """
    host, _, port = text.rpartition(":")
    inner = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    plain_ipv6 = ":" in host and inner == host
    if not (port.isascii() and port.isdecimal() and int(port) <= 65535) or plain_ipv6:
        raise UsageError(
            f"--serve {text!r} is no address.",
            "The server needs a port, and may be given a host.",
            "Give a port, 0 for a free one, or a host before it: 8000, 0.0.0.0:8000, [::1]:8000.",
        )
    return Address(inner or DEFAULT_HOST, int(port))


def listen(address: Address) -> socket.socket:
    """A socket that takes connections.

    Raises:
        UsageError: the address is taken, or none of this machine's.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise UsageError(
            f"Nothing can listen at {address.host}:{address.port}: {error.strerror or error}.",
            "Requests come in there.",
            "Stop what listens there, or give another address: --serve [HOST:]PORT",
        ) from error


class HttpServer:
    """A service behind a socket.

    Args:
        service: what answers; its worker and model end with the server.
        listener: where requests come in.

    Attributes:
        address: where it listens.
    """

    def __init__(self, service: Service, listener: socket.socket) -> None:
        self._service, self._listener = service, listener
        config = uvicorn.Config(
            make_app(service),
            loop="asyncio",
            http=connection_of(service.limits),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=int(service.limits.grace_s) + 5,
        )
        self._uvicorn = _Uvicorn(config, service)
        self.address = Address(*listener.getsockname()[:2])

    @property
    def started(self) -> bool:
        """Whether it takes requests."""
        return self._uvicorn.started

    def run(self) -> None:
        """Serves until it is stopped, by `stop`, Ctrl-C or SIGTERM; what is being answered may end."""
        self._service.worker.start()
        try:
            asyncio.run(self._uvicorn.serve(sockets=[self._listener]))
        finally:
            self._service.worker.stop()

    def stop(self) -> None:
        """Ends the server, from any thread."""
        self._uvicorn.should_exit = True


class _Uvicorn(uvicorn.Server):
    """uvicorn that lets jobs end before it goes, and exits with 0 when it is told to stop."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuses new requests; after the grace period ends all others, so that every client gets an answer."""
        self._service.stopping = True
        timer = asyncio.get_running_loop().call_later(self._service.limits.grace_s, self._service.end_all)
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, without raising the signals a second time at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
