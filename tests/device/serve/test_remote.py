"""Fetched pictures: only from public addresses, each redirect checked, bounded in size and time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from stages.device.serve.api_errors import ApiError
from stages.device.serve.remote import RemotePictures, is_public


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
        *("0.0.0.0", "255.255.255.255", "224.0.0.1", "240.0.0.1", "192.0.2.1", "198.18.0.1"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "fec0::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a00:1"),
        *("2001:0:4136:e378:8000:63bf:3fff:fdd2", "::127.0.0.1", "no address", ""),
    ],
)
def test_addresses_of_this_machine_and_its_neighbours_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.215.14", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"]
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


class Pages(BaseHTTPRequestHandler):
    """/ok a picture, /to?… a redirect, /slow bytes now and then, /cut less than announced."""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        self.server.seen.append((self.headers["Host"], self.path))  # type: ignore[attr-defined]
        if path == "/to":
            self.send_response(302)
            self.send_header("Location", query)
            self.end_headers()
            return
        self.send_response(200 if path in ("/ok", "/slow", "/cut", "/large") else 404)
        length = {"/ok": 4, "/slow": 100, "/cut": 50, "/large": 2000}.get(path, 0)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if path == "/slow":
            for _ in range(100):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.05)
        self.wfile.write(b"data" if path in ("/ok", "/cut") else b"x" * length)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def machine() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    server.seen = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


class Names:
    """A resolver: `public.example` is the machine on loopback, which the test takes for public."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        known = {"public.example": ["127.0.0.1"], "inner.example": ["127.0.0.2"], "both.example": ["127.0.0.1", "::1"]}
        if host in known:
            return known[host]
        raise OSError("no such name")


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
def fetch(machine: ThreadingHTTPServer, names: Names) -> Any:
    pictures = RemotePictures(0.6, look_up=names, allowed=lambda address: address == "127.0.0.1")

    def fetched(path: str, host: str = "public.example") -> bytes:
        return pictures(f"http://{host}:{machine.server_port}{path}", "place", 1000)

    return fetched


def test_a_picture_is_fetched_from_the_address_that_was_checked(fetch: Any, names: Names, machine: Any) -> None:
    assert fetch("/ok?a=b") == b"data"
    assert names.asked == ["public.example"]
    assert machine.seen == [(f"public.example:{machine.server_port}", "/ok?a=b")]


def test_redirects_are_followed_and_checked(fetch: Any, names: Names, machine: Any) -> None:
    assert fetch(f"/to?http://public.example:{machine.server_port}/ok") == b"data"
    assert fetch("/to?/ok") == b"data"
    for target in (f"http://inner.example:{machine.server_port}/ok", "file:///etc/passwd", "//[bad/"):
        with pytest.raises(ApiError, match=r"not on the public internet|Expected http|not a URL"):
            fetch(f"/to?{target}")


@pytest.mark.parametrize(
    ("path", "host", "why"),
    [
        ("/ok", "inner.example", "not on the public internet"),
        ("/ok", "both.example", "not on the public internet"),
        ("/ok", "nobody.example", "not known"),
        ("/ok", "user:word@public.example", "without a password"),
        ("/none", "public.example", "answers 404"),
        ("/large", "public.example", "larger than the 1,000 bytes"),
        ("/cut", "public.example", "only in part|cannot be reached|took too long"),
        ("/slow", "public.example", "took too long|only in part"),
        ("/to?/to?/to?/to?/to?/ok", "public.example", "answers 404|redirects too often"),
    ],
)
def test_what_cannot_be_fetched_is_refused(fetch: Any, path: str, host: str, why: str) -> None:
    started = time.monotonic()
    with pytest.raises(ApiError, match=why) as caught:
        fetch(path, host)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "invalid_image_url", "place")
    assert time.monotonic() - started < 5


def test_the_system_own_names_are_refused_by_default() -> None:
    for host in ("localhost", "127.0.0.1", "[::1]", "0.0.0.0", "2130706433", "127.1"):
        with pytest.raises(ApiError, match=r"not on the public internet|not known"):
            RemotePictures(1.0)(f"http://{host}/a.png", "place", 1000)
