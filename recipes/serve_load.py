"""A server under load: many clients at once, some of which vanish, stop half-way, or send what is no picture.

    python recipes/serve_load.py [MODEL] [--clients 64] [--seconds 60 | --minutes 60] [--warm-up 200]

Starts `bluelm chat MODEL --serve`, warms it up, lets the clients loose, and holds what is left against six claims:
it still answers; each accepted request ended as answered, encoded, cancelled or failed; the 429s that clients got are
those the server counted; its memory is that after the warm-up within 5 %, also as the medians of the first and the last
quarter of the time under load; so are its threads and, to the last one, its open files. Exit code 1 where one does not
hold.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import json
import random
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import psutil
from PIL import Image

PATH, AHEAD_PATH = "/v1/chat/completions", "/v1/bluelm/pictures"
JSON, PNG = "application/json", "image/png"
# How often a client does what; the rest is plain questions.
SHARES = {
    "text": 16,
    "stream": 22,
    "picture": 22,
    "new picture": 10,
    "picture ahead": 6,
    "vanishes while waiting": 8,
    "vanishes in the stream": 8,
    "half a body": 3,
    "50 MB": 1,
    "broken picture": 2,
    "bomb": 2,
    "half a head": 2,
    "closes its sending side": 3,
    "reads slowly": 3,
}
_GROWTH = 0.05
# Seconds between two looks at the server's memory, files and threads while it is under load.
_LOOK_S = 1.0


@dataclass
class Load:
    """The clients and what they saw.

    Attributes:
        port: the server's.
        seen: how often each kind of request ended how: a status, or what the client did.
        first_s: seconds to the first byte of answers, by the kind of request.
    """

    port: int
    seen: Counter[tuple[str, str]] = field(default_factory=Counter)
    first_s: dict[str, list[float]] = field(default_factory=dict)

    async def client(self, number: int, until: Callable[[], bool]) -> None:
        """Sends one request after the other; after a 429 it waits a little, far less than it was told to."""
        random_ = random.Random(number)
        kinds, weights = list(SHARES), list(SHARES.values())
        while not until():
            kind = random_.choices(kinds, weights)[0]
            try:
                ended = await self._request(kind, random_, number)
            except (OSError, asyncio.IncompleteReadError) as error:
                ended = type(error).__name__
            self.seen[kind, ended] += 1
            if ended == "429":
                await asyncio.sleep(random_.uniform(0.1, 0.5))

    async def _request(self, kind: str, random_: random.Random, number: int) -> str:
        """One request; how it ended."""
        body = _body(kind, random_, number)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            length = len(body) if kind != "half a body" else 2 * len(body)
            path, type_ = (f"{AHEAD_PATH}?user={number}", PNG) if kind == "picture ahead" else (PATH, JSON)
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {type_}\r\n"
            if kind == "half a head":
                writer.write(head[: random_.randrange(len(head))].encode())
                await asyncio.sleep(random_.uniform(0, 2))
                return "left"
            writer.write(f"{head}Content-Length: {length}\r\n\r\n".encode())
            for start in range(0, len(body), 1 << 20):
                writer.write(body[start : start + (1 << 20)])
                await writer.drain()
            if kind in ("half a body", "vanishes while waiting"):
                await asyncio.sleep(random_.uniform(0, 0.3))
                return "left"
            if kind == "closes its sending side":
                writer.write_eof()
                return "closed" if not await reader.read() else "answered"
            if kind == "reads slowly":
                await asyncio.sleep(random_.uniform(0, 2))
            started = time.perf_counter()
            line = await reader.readline()
            status = line.split()[1].decode() if line else "closed"
            if status == "200" and kind != "reads slowly":
                self.first_s.setdefault(kind, []).append(time.perf_counter() - started)
            if kind == "vanishes in the stream" and status == "200":
                await reader.readuntil(b"data:")
                return "left"
            rest = await reader.read()
            if kind == "stream" and status == "200" and b"data: [DONE]" not in rest:
                return "cut"
            if kind == "picture ahead" and status == "200" and b'"encoded"' not in rest:
                return "cut"
            return status
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def picture(seed: int) -> bytes:
    """A picture that compresses well: the time goes into the model, not into sending."""
    image = Image.new("RGB", (200 + seed % 7 * 30, 160), (seed * 37 % 256, seed * 91 % 256, 120))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def bomb() -> bytes:
    """A small file of 144 megapixels."""
    stream = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(stream, "PNG", compress_level=9)
    return stream.getvalue()


_BOMB = bomb()


def _body(kind: str, random_: random.Random, number: int) -> bytes:
    if kind == "50 MB":
        return b" " * 50_000_000
    if kind == "picture ahead":
        return picture(random_.randrange(10**6))
    content: Any = random_.choice(["What colour is the shape?", "How many shapes are there?", "Hello"])
    shown = {
        "picture": lambda: picture(random_.randrange(8)),
        "new picture": lambda: picture(random_.randrange(10**6)),
        "broken picture": lambda: picture(1)[:-60],
        "bomb": lambda: _BOMB,
        "vanishes while waiting": lambda: picture(random_.randrange(10**6)),
    }
    if kind in shown:
        url = "data:image/png;base64," + base64.b64encode(shown[kind]()).decode()
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": content}]
    asked = {
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 16,
        "temperature": 1,
        "user": str(number),
    }
    return json.dumps(asked | ({"stream": True} if "stream" in kind or kind == "reads slowly" else {})).encode()


@dataclass(frozen=True)
class Held:
    """What the server holds at a moment."""

    rss_mb: float
    files: int
    threads: int

    @classmethod
    def by(cls, process: psutil.Process) -> Held:
        """Looks now."""
        with process.oneshot():
            return cls(process.memory_info().rss / 1e6, process.num_fds(), process.num_threads())


async def run_clients(load: Load, clients: int, until: Callable[[], bool], process: psutil.Process) -> list[Held]:
    """All clients at once, each until `until` says so; what the server held meanwhile."""
    held: list[Held] = []

    async def look() -> None:
        while True:
            held.append(Held.by(process))
            await asyncio.sleep(_LOOK_S)

    looking = asyncio.create_task(look())
    tasks: list[Awaitable[None]] = [load.client(number, until) for number in range(clients)]
    await asyncio.gather(*tasks)
    looking.cancel()
    return held


def drift(held: list[Held]) -> float:
    """Memory in the last quarter of the time against the first, by their medians."""
    quarter = max(len(held) // 4, 1)
    first, last = (median(one.rss_mb for one in part) for part in (held[:quarter], held[-quarter:]))
    return last / first


def metrics(port: int) -> dict[str, float]:
    """What the server counts."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}


def settled(port: int, process: psutil.Process) -> Held:
    """Waits until nothing waits or runs; what the server holds then."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = metrics(port)
        if not found["bluelm_queue_length"] and not found["bluelm_requests_running"]:
            break
        time.sleep(0.1)
    # The listener's and the engine's own remain; connections of clients that left end with their last byte.
    held, end = Held.by(process), time.monotonic() + 20
    while time.monotonic() < end:
        time.sleep(2)
        before, held = held, Held.by(process)
        if held.files == before.files:
            break
    return held


def measured(arguments: argparse.Namespace, port: int, process: psutil.Process) -> dict[str, Any]:
    """Warm-up, load, and what the claims are held against."""
    warm = Load(port)
    wanted = arguments.warm_up
    asyncio.run(run_clients(warm, arguments.clients, lambda: sum(warm.seen.values()) >= wanted, process))
    before = settled(port, process)
    load = Load(port)
    end = time.monotonic() + arguments.seconds
    held = asyncio.run(run_clients(load, arguments.clients, lambda: time.monotonic() >= end, process))
    after = settled(port, process)
    found = metrics(port)
    served_429 = int(found.get('bluelm_requests_total{status="429"}', 0))
    ends = {
        end: int(found[f'bluelm_jobs_total{{end="{end}"}}']) for end in ("answered", "encoded", "cancelled", "failed")
    }
    refused = sum(count for one in (warm, load) for (_, ended), count in one.seen.items() if ended == "429")
    first = [second for seconds in load.first_s.values() for second in seconds]
    claims = {
        "answers still": health(port),
        "every accepted request ended": sum(ends.values()) == found["bluelm_jobs_accepted_total"],
        "every stream was whole": not any(ended == "cut" for _, ended in load.seen),
        "no answer of the server's own fault": not any(ended.startswith("5") for _, ended in load.seen),
        "clients' 429s are the server's": refused <= served_429,
        "memory": after.rss_mb <= before.rss_mb * (1 + _GROWTH),
        "memory under load": drift(held) <= 1 + _GROWTH,
        "open files": after.files <= before.files,
        "threads": after.threads <= before.threads,
    }
    return {
        "requests": sum(load.seen.values()),
        "rate": sum(load.seen.values()) / arguments.seconds,
        "seen": {f"{kind}: {ended}": count for (kind, ended), count in sorted(load.seen.items())},
        "jobs": ends,
        "429": {"clients": refused, "server": served_429},
        "first_byte_s": {"median": median(first), "p95": sorted(first)[int(len(first) * 0.95)]} if first else None,
        "memory_mb": {
            "after_warm_up": before.rss_mb,
            "after_load": after.rss_mb,
            "ratio": after.rss_mb / before.rss_mb,
            "most": max(one.rss_mb for one in held),
            "last_quarter_to_first": drift(held),
        },
        "open_files": {
            "after_warm_up": before.files,
            "most": max(one.files for one in held),
            "after_load": after.files,
        },
        "threads": {
            "after_warm_up": before.threads,
            "most": max(one.threads for one in held),
            "after_load": after.threads,
        },
        "claims": claims,
    }


def health(port: int) -> bool:
    """Whether the server says that it is well."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=30) as answer:
        return bool(json.load(answer)["status"] == "ok")


def main() -> int:
    """Starts the server, loads it, stops it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="*", help="an exported model (default: the demo's)")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--minutes", type=float, help="instead of --seconds")
    parser.add_argument("--warm-up", type=int, default=200, help="requests before memory is looked at")
    arguments = parser.parse_args()
    arguments.seconds = arguments.seconds if arguments.minutes is None else arguments.minutes * 60
    start = "import sys; from bluelm_cli.app import main; main(sys.argv[1:])"
    # Half-sent bodies are let go of within the run; all else is as it comes.
    words = ["chat", *arguments.model, "--serve", "0", "--set", "limits.body_s=5", "--json"]
    server = subprocess.Popen(
        [sys.executable, "-c", start, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert server.stderr is not None
    line = server.stderr.readline()
    try:
        port = int(line.partition("/v1")[0].rpartition(":")[2])
        found = measured(arguments, port, psutil.Process(server.pid))
    finally:
        server.terminate()
        out, err = server.communicate(timeout=60)
    found["exit_code"], found["said"] = server.returncode, err.strip()
    found["claims"]["ended in order"] = server.returncode == 0 and json.loads(out)["failed"] == found["jobs"]["failed"]
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return 0 if all(found["claims"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
