"""A real HTTP server on this machine that answers as an OpenAI-compatible endpoint does, and fails as one does."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Body = dict[str, Any]


@dataclass
class Fault:
    """What one request gets instead of an answer."""

    kind: str = "status"
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b'{"error": {"message": "out of order"}}'
    seconds: float = 0


@dataclass
class ChatServer:
    """An endpoint: `answer` says what it answers, `faults` what the next requests get before that."""

    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    answer: Callable[[Body], str] = lambda body: "a caption"
    fault_for: Callable[[Body], Fault | None] = lambda body: None
    finish: str = "stop"
    usage: bool = True
    delay: float = 0
    bodies: list[Body] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def asked(self) -> int:
        return len(self.bodies)

    def texts(self) -> list[str]:
        """What users said, request by request."""
        return [self.text_of(body) for body in self.bodies]

    @staticmethod
    def text_of(body: Body) -> str:
        """The text of a request's first user message."""
        content = next(message["content"] for message in body["messages"] if message["role"] == "user")
        return content if isinstance(content, str) else content[-1]["text"]

    def fails(self, kind: str, times: int = 1, **more: Any) -> None:
        """The next requests fail: "status", "not json", "no message", "truncated", "dropped" or "stalled"."""
        self.faults += [Fault(kind, **more) for _ in range(times)]

    def fails_where(self, part: str, kind: str = "status", **more: Any) -> None:
        """Every request whose text holds a part fails."""
        self.fault_for = lambda body: Fault(kind, **more) if part in self.text_of(body) else None

    def take(self, body: Body, headers: dict[str, str]) -> Fault | None:
        with self.lock:
            self.bodies.append(body)
            self.headers.append(headers)
            self.times.append(time.monotonic())
            return self.faults.pop(0) if self.faults else self.fault_for(body)

    def completion(self, body: Body) -> bytes:
        message = {"role": "assistant", "content": self.answer(body)}
        content: Body = {
            "id": "chat-1",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": self.finish}],
        }
        if self.usage:
            content["usage"] = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        return json.dumps(content).encode()


def _handler(server: ChatServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/v1/chat/completions"
            fault = server.take(body, {name.lower(): value for name, value in self.headers.items()})
            if fault is None:
                time.sleep(server.delay)
                self._send(200, server.completion(body), {})
            elif fault.kind == "status":
                self._send(fault.status, fault.body, fault.headers)
            elif fault.kind == "not json":
                self._send(200, b"<html>Bad gateway</html>", {})
            elif fault.kind == "no message":
                self._send(200, b'{"object": "error", "message": "overloaded"}', {})
            elif fault.kind == "truncated":
                whole = server.completion(body)
                self._send(200, whole[: len(whole) // 2], {}, length=len(whole))
                self.close_connection = True
            elif fault.kind == "dropped":
                self.close_connection = True
            elif fault.kind == "stalled":
                time.sleep(fault.seconds)
                self.close_connection = True
            else:
                raise AssertionError(fault.kind)

        def _send(self, status: int, body: bytes, headers: Mapping[str, str], length: int | None = None) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            self.wfile.write(body)

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no error of the server's."""


@pytest.fixture
def chat_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    """A running endpoint; requests to it go through no proxy, and no key is in the environment."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "OPENAI_API_KEY", "OPENAI_ORG_ID"):
        monkeypatch.delenv(name, raising=False)
    server = ChatServer()
    http = _Server(("127.0.0.1", 0), _handler(server))
    server.url = f"http://127.0.0.1:{http.server_port}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def picture_folder(tmp_path: Path) -> Path:
    """Twelve pictures in twelve colours."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(12):
        Image.new("RGB", (40, 30), (20 * number, 100, 50)).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture
def conversations(tmp_path: Path) -> Path:
    """Ten rows of text in LLaVA's JSON, each with one pair."""
    rows = [
        {
            "id": f"row-{number}",
            "conversations": [
                {"from": "human", "value": f"What is {number} plus one?"},
                {"from": "gpt", "value": str(number + 1)},
            ],
        }
        for number in range(10)
    ]
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows))
    return file
