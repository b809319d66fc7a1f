"""Clients that mean harm, or are broken: each gets an answer or is let go of, and the next one is served."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from PIL import Image

from stages.device.imaging.loading import load_image_bytes

HELLO: Any = [{"role": "user", "content": "Hello"}]
PATH = "/v1/chat/completions"


def connected(live: Any) -> socket.socket:
    return socket.create_connection(("127.0.0.1", live.server.address.port), timeout=10)


def head(length: int, *lines: str) -> bytes:
    words = [f"POST {PATH} HTTP/1.1", "Host: localhost", "Content-Type: application/json", f"Content-Length: {length}"]
    return "\r\n".join([*words, *lines, "", ""]).encode()


def received(connection: socket.socket) -> bytes:
    """Everything up to the end of the connection."""
    pieces = []
    while piece := connection.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def works(live: Any) -> bool:
    found = httpx2.post(live.url + PATH, json={"messages": HELLO})
    live.until(lambda: live.service.buffer.used == 0)  # given back after the answer
    return found.status_code == 200


def test_a_half_sent_body_is_let_go_of(start: Any) -> None:
    live = start(limits={"body_s": 0.3})
    with connected(live) as connection:
        connection.sendall(head(1000) + b'{"messages"')
        answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 408 ") and b"request_timeout" in answer
    assert works(live)


def test_a_client_that_leaves_in_the_middle_of_its_body(start: Any) -> None:
    live = start()
    for _ in range(20):
        with connected(live) as connection:
            connection.sendall(head(1000) + b'{"messages"')
    live.until(lambda: live.service.buffer.used == 0)
    assert works(live)
    assert live.service.metrics.accepted.value() == 1
    live.until(lambda: live.service.metrics.requests.value("499") == 20)


@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat", b"POST / HTTP/1.1\r\nHost: a\r\nX-Slow:"])
def test_a_head_that_never_ends_is_let_go_of(start: Any, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr("stages.device.serve.connection.HEADER_S", 0.2)
    live = start()
    with connected(live) as connection:
        connection.sendall(sent)
        started = time.monotonic()
        assert received(connection) == b""
        assert time.monotonic() - started < 5
    assert works(live)


def test_a_second_head_that_never_ends_is_let_go_of(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.device.serve.connection.HEADER_S", 0.2)
    live = start()
    with connected(live) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /he")
        received(connection)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_50_mb_is_refused_and_its_client_hears_why(start: Any, chunked: bool) -> None:
    live = start()
    piece = b" " * 1_000_000
    body: Any = (piece for _ in range(50)) if chunked else piece * 50
    found = httpx2.post(live.url + PATH, content=body, headers={"content-type": "application/json"}, timeout=30)
    assert found.status_code == 413, found.text
    assert found.json()["error"]["code"] == "request_too_large"
    assert works(live)


def test_who_asks_before_sending_is_refused_before_sending(start: Any) -> None:
    live = start()
    with connected(live) as connection:
        connection.sendall(head(50_000_000, "Expect: 100-continue"))
        assert received(connection).startswith(b"HTTP/1.1 413 ")


def test_all_bodies_together_are_bounded(start: Any) -> None:
    live = start(limits={"buffer_mb": 0.5, "body_s": 2})
    with connected(live) as first, connected(live) as second:
        first.sendall(head(600_000) + b" " * 450_000)
        live.until(lambda: live.service.buffer.used == 450_000)
        second.sendall(head(100_000) + b" " * 100_000)
        answer = received(second)
        assert answer.startswith(b"HTTP/1.1 429 ") and b"etry-" in answer
        assert received(first).startswith(b"HTTP/1.1 408 ")
    assert works(live)


def broken_pictures(png: Callable[..., bytes]) -> list[bytes]:
    whole = png(100, 100)
    stream = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(stream, "PNG", compress_level=9)
    bomb = stream.getvalue()
    assert len(bomb) < 1_000_000
    return [b"", whole[:100], whole[:-200], b"\x00" * 1000, whole.replace(b"IDAT", b"IDIT"), bomb, b"%!PS-Adobe EPSF\n"]


def test_broken_pictures_and_bombs_are_refused(start: Any, fake: Any, about: Any, data_uri: Any, png: Any) -> None:
    class Decoding:
        """Decodes every pixel, as a real model does, before the fake answers."""

        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def features(self, picture: Any, on_tiles: Any = None) -> Any:
            load_image_bytes(picture.data, picture.place)
            return self.inner.features(picture, on_tiles)

    live = start(Decoding(fake()))
    for data in broken_pictures(png):
        found = httpx2.post(live.url + PATH, json={"messages": about("What?", data_uri(data))})
        assert found.status_code == 400, found.text
        assert found.json()["error"]["code"] in ("image_parse_error", "image_too_large")
    assert works(live)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS handshake
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"\r\n\r\n\r\n",
        bytes(range(256)) * 20,
    ],
)
def test_what_is_not_http_harms_nobody(start: Any, monkeypatch: pytest.MonkeyPatch, raw: bytes) -> None:
    monkeypatch.setattr("stages.device.serve.connection.HEADER_S", 0.2)
    live = start(limits={"body_s": 0.3})
    with connected(live) as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            received(connection)
    assert works(live)


def test_deep_and_strange_json(start: Any) -> None:
    live = start()
    deep: Any = "x"
    for _ in range(50):
        deep = [deep]
    bodies = [
        json.dumps({"messages": deep}).encode(),
        b'{"messages": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        json.dumps({"messages": HELLO * 3, "stop": ["a" * 1000]}).encode(),
        json.dumps({"messages": HELLO, "seed": 10**400, "max_tokens": -(10**400)}).encode(),
        json.dumps({"messages": [{"role": "user", "content": [{"type": {"a": 1}}]}]}).encode(),
    ]
    for body in bodies:
        found = httpx2.post(live.url + PATH, content=body, headers={"content-type": "application/json"})
        assert found.status_code == 400, found.text[:300]
    assert works(live)


def test_clients_that_vanish_all_at_once(start: Any, fake: Any) -> None:
    live = start(fake(pause=0.02), limits={"queue": 64})
    body = json.dumps({"messages": HELLO, "stream": True}).encode()

    def vanish(number: int) -> None:
        with connected(live) as connection:
            connection.sendall(head(len(body)) + body)
            if number % 2:
                connection.recv(10)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(vanish, range(48)))
    metrics = live.service.metrics
    live.until(lambda: not live.service.worker.running and not live.service.worker.queued)
    ends = sum(metrics.jobs.value(end) for end in ("answered", "cancelled", "failed"))
    assert ends == metrics.accepted.value() > 0
    assert works(live)
