"""Who may ask: an API key where there is one, and only by the names that this server goes by.

The check of the name keeps a web page from reaching a server on loopback through a name of its own that it lets point
to 127.0.0.1; that a request must be JSON keeps pages from posting forms (browsers ask first for anything else, and
without CORS headers the answer is no).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection
from ipaddress import ip_address

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stages.device.serve.api_errors import ApiError
from stages.device.serve.metrics import ServerMetrics
from stages.device.serve.page_files import FOLDER
from stages.device.serve.replies import error_reply

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
# Without a key these may be seen by anyone who reaches the server.
_OPEN = frozenset({"/", "/health"})


class Access:
    """The rules.

    Args:
        api_key: what requests must carry; None for nothing.
        hosts: names that requests may call this server by; None for any.
    """

    def __init__(self, api_key: str | None = None, hosts: Collection[str] | None = None) -> None:
        self._key = None if api_key is None else _digest(api_key)
        self._hosts = None if hosts is None else frozenset(host.lower() for host in hosts)

    @property
    def asks_for_key(self) -> bool:
        """Whether requests must carry a key."""
        return self._key is not None

    def check(self, request: Request) -> None:
        """Raises ApiError for a request that may not be answered."""
        if self._hosts is not None and (name := _host(request)) not in self._hosts:
            message = (
                f"This server does not go by the name '{name}'. Use 127.0.0.1 or localhost, or start it with "
                "--set 'hosts=[NAME]'."
            )
            raise ApiError(403, message, "host_not_allowed")
        path = request.url.path
        if self._key is not None and path not in _OPEN and not path.startswith(FOLDER):
            self._check_key(request.headers.get("authorization", ""))

    def _check_key(self, header: str) -> None:
        scheme, _, given = header.partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            message = "You didn't provide an API key. Send it in the header 'Authorization: Bearer KEY'."
            raise ApiError(401, message, "invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        # Digests are as long as each other, so neither the key nor its length can be read from the time this takes.
        if self._key is None or not hmac.compare_digest(_digest(given.strip()), self._key):
            raise ApiError(
                401, "Incorrect API key provided.", "invalid_api_key", headers={"WWW-Authenticate": "Bearer"}
            )


class Gate:
    """The server's outermost layer: refuses what may not be answered and counts the answers to /v1.

    Args:
        app: what answers.
        access: the rules.
        metrics: where to count.
    """

    def __init__(self, app: ASGIApp, access: Access, metrics: ServerMetrics) -> None:
        self._app, self._access, self._metrics = app, access, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        status: int | None = None

        async def counting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            self._access.check(request)
            await self._app(scope, receive, counting)
        except ApiError as error:
            await error_reply(error)(scope, receive, counting)
        finally:
            if request.url.path.startswith("/v1/"):
                # nginx's number for a client that left before there was an answer
                self._metrics.requests.add(label=str(status or 499))


def hosts_of(host: str, more: Collection[str] = ()) -> frozenset[str] | None:
    """The names a server goes by that listens at `host`; None, any, where others than this machine reach it."""
    if is_loopback(host):
        return _LOCAL_NAMES | {host.lower(), *more}
    return frozenset(more) or None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server at `host`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _host(request: Request) -> str:
    """The name in the Host header, without its port."""
    text = request.headers.get("host", "").lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.rpartition(":")[0] if text.count(":") == 1 else text


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
