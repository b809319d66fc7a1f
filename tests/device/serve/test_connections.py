"""Clients that are slow in every way a connection can be, and what each of them gets when the server ends."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

HELLO: Any = [{"role": "user", "content": "Hello"}]
PATH = "/v1/chat/completions"


def connected(live: Any) -> socket.socket:
    return socket.create_connection(("127.0.0.1", live.server.address.port), timeout=10)


def request(length: int | None = None, **parameters: Any) -> bytes:
    """A question; `length`: what its head announces."""
    body = json.dumps({"messages": HELLO, **parameters}).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {length or len(body)}\r\n\r\n".encode() + body


def received(connection: socket.socket) -> bytes:
    """Everything up to the end of the connection."""
    pieces = []
    while piece := connection.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def works(live: Any) -> bool:
    found = httpx2.post(live.url + PATH, json={"messages": HELLO})
    live.until(lambda: live.service.buffer.used == 0)
    return found.status_code == 200


def connections(live: Any) -> int:
    return len(live.server._uvicorn.server_state.connections)


def test_a_head_letter_by_letter_is_let_go_of(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.device.serve.connection.HEADER_S", 0.2)
    live = start()
    with connected(live) as connection, pytest.raises(OSError):  # it is closed while it still sends
        for letter in b"GET /health HTTP/1.1\r\nX-Slow: " + b"a" * 500:
            connection.sendall(bytes([letter]))
            time.sleep(0.01)
    assert works(live)


def test_a_body_letter_by_letter_is_let_go_of(start: Any) -> None:
    live = start(limits={"body_s": 0.2})
    with connected(live) as connection:
        whole = request()
        head, _, body = whole.partition(b"\r\n\r\n")
        connection.sendall(head + b"\r\n\r\n")
        connection.settimeout(0.01)
        answer = b""
        for letter in body * 20:
            try:
                answer += connection.recv(65536)
                break
            except TimeoutError:
                connection.sendall(bytes([letter]))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert works(live)


def test_many_half_heads_leave_places_for_others(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.device.serve.connection.HEADER_S", 0.3)
    live = start(limits={"connections": 8})
    held = [connected(live) for _ in range(8)]
    for connection in held:
        connection.sendall(b"POST / HT")
    live.until(lambda: connections(live) == 8)
    with connected(live) as ninth:
        answer = received(ninth)
    assert answer.startswith(b"HTTP/1.1 503 ") and b"Retry-After: 5" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["type"] == "server_error"
    live.until(lambda: connections(live) == 0)
    for connection in held:
        connection.close()
    assert works(live)


def test_a_client_that_never_reads_is_let_go_of(start: Any, fake: Any) -> None:
    model = fake(words=("x" * 1_000_000,) * 32)
    live = start(model, limits={"send_s": 0.3})
    with connected(live) as connection:
        connection.sendall(request(stream=True))
        live.until(lambda: live.service.metrics.jobs.value("answered") == 1)
        live.until(lambda: connections(live) == 0)
    live.until(lambda: live.service.buffer.used == 0)
    model.words = ("one",)
    assert works(live)


def test_a_client_that_reads_slowly_gets_everything(start: Any, fake: Any) -> None:
    live = start(fake(words=("x" * 500_000,) * 8), limits={"send_s": 2})
    with connected(live) as connection:
        connection.sendall(request(stream=True).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        size = 0
        while piece := connection.recv(262_144):
            size += len(piece)
            end = piece
            time.sleep(0.005)
    assert size > 4_000_000 and end.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


@pytest.mark.parametrize("stream", [False, True])
def test_who_closes_its_sending_side_has_left(start: Any, fake: Any, stream: bool) -> None:
    model = fake()
    model.gate.clear()
    live = start(model)
    with connected(live) as connection:
        connection.sendall(request(stream=stream))
        live.until(lambda: live.service.worker.running)
        connection.shutdown(socket.SHUT_WR)
        assert received(connection) == b""
    live.until(lambda: live.service.metrics.jobs.value("cancelled") == 1)
    live.until(lambda: connections(live) == 0 and not live.service.buffer.used)
    model.gate.set()
    assert works(live)


def test_a_half_closed_body_costs_nothing(start: Any) -> None:
    live = start()
    with connected(live) as connection:
        connection.sendall(request(length=1000))
        connection.shutdown(socket.SHUT_WR)
        assert received(connection) == b""
    live.until(lambda: connections(live) == 0)
    assert works(live) and live.service.metrics.accepted.value() == 1


def test_everyone_gets_an_end_when_the_server_ends(start: Any, fake: Any, png: Any) -> None:
    """Answered in part, waiting, encoding ahead, half sent, idle, half a head: none is left hanging."""
    model = fake(pause=30.0)
    live = start(model, limits={"grace_s": 0.3})
    kinds = {
        "streamed": request(stream=True),
        "waiting": request(),
        "half a body": request(length=1000),
        "half a head": b"POST /v1",
        "idle": b"",
    }
    held = {}
    for kind, sent in kinds.items():
        held[kind] = connected(live)
        held[kind].sendall(sent)
        if kind == "streamed":
            live.until(lambda: bool(model.started))
    ahead = connected(live)
    picture = png()
    head = "POST /v1/bluelm/pictures HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    ahead.sendall(f"{head}Content-Length: {len(picture)}\r\n\r\n".encode() + picture)
    live.until(lambda: live.service.worker.queued == 2 and live.service.buffer.used > 0)
    live.until(lambda: connections(live) == 6)
    live.server.stop()
    with ThreadPoolExecutor(6) as pool:
        got = dict(zip((*held, "ahead"), pool.map(received, (*held.values(), ahead)), strict=True))
    live.thread.join(10)
    assert not live.thread.is_alive()
    assert got["streamed"].startswith(b"HTTP/1.1 200") and b'"one"' in got["streamed"]
    assert got["ahead"].startswith(b"HTTP/1.1 200") and b'"plan"' in got["ahead"]
    for kind in ("streamed", "ahead"):
        assert b"being stopped" in got[kind] and b"[DONE]" not in got[kind]
        assert got[kind].endswith(b"0\r\n\r\n")  # whole, as HTTP sees it
    for kind in ("waiting", "half a body"):
        assert got[kind].startswith(b"HTTP/1.1 503") and b"being stopped" in got[kind]
    assert got["half a head"] == got["idle"] == b""
    metrics = live.service.metrics
    assert metrics.jobs.value("cancelled") == metrics.accepted.value() == 3
    assert live.service.buffer.used == 0
    for connection in (*held.values(), ahead):
        connection.close()
