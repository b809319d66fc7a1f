"""A slow fake model, and servers on loopback in a thread of this process."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from PIL import Image

from stages.artifacts.errors import BluelmError, ImageError
from stages.device.imaging.geometry import Size
from stages.device.imaging.spec import TilingSpec
from stages.device.imaging.tiling import Tiling, plan_tiling
from stages.device.runtime.album import OnTiles, PictureFeatures
from stages.device.runtime.engine import Answer, AnswerOptions
from stages.device.runtime.generator import Token
from stages.device.runtime.interruption import check_interruption
from stages.device.serve.limits import ServeLimits
from stages.device.serve.listening import Address, HttpServer, listen
from stages.device.serve.picture_sources import RequestPicture
from stages.device.serve.service import Service

_TILING = TilingSpec(rule="relaxed", tile_size=24, tokens_per_tile=4, max_cols=3, max_rows=3)


@dataclass
class FakeModel:
    """Says words, one every `pause` seconds; holds the first token back while `gate` is closed."""

    pause: float = 0.0
    name: str = "fake"
    fingerprint: str = "fp_fake"
    words: tuple[str, ...] = ("one", " two", " three")
    gate: threading.Event = field(default_factory=threading.Event)
    started: list[str] = field(default_factory=list)
    interrupted_in: list[str] = field(default_factory=list)
    rests: int = 0
    failing: Exception | None = None
    refusing: BluelmError | None = None
    tile_s: float = 0.0
    known: dict[str, PictureFeatures] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.gate.set()

    def check(self, messages: Sequence[Any], sizes: Sequence[Size]) -> None:
        if self.refusing is not None:
            raise self.refusing

    def tiling(self, size: Size) -> Tiling:
        return plan_tiling(size, _TILING)

    def features(self, picture: RequestPicture, on_tiles: OnTiles | None = None) -> PictureFeatures:
        if picture.digest in self.known:
            return replace(self.known[picture.digest], reused=True)
        if picture.size == Size(13, 13):
            self._wait("encode")
            raise ImageError("The pixels are broken.", "They cannot be decoded.", "Get it again.")
        tiling = self.tiling(picture.size)
        for tile in range(tiling.tiles + 1):
            self._wait("encode", self.tile_s)
            if on_tiles is not None:
                on_tiles(tile, tiling.tiles)
        features = np.zeros((4, 2), np.float32)
        made = PictureFeatures(
            Path(picture.place), picture.digest, tiling.size, tiling.grid, tiling.tiles, features, 0.1
        )
        self.known[picture.digest] = made
        return made

    def answer(
        self, messages: Sequence[Any], pictures: Sequence[PictureFeatures], options: AnswerOptions, asked: float
    ) -> Generator[Token | Answer, None, None]:
        self.started.append(str(messages[-1]["content"]))
        self._wait("prefill")
        if self.failing is not None:
            raise self.failing
        words = self.words[: options.max_tokens]
        for index, word in enumerate(words):
            yield Token(index, word)
            self._wait("decode", self.pause)
        reason = "stop" if words == self.words else "max_tokens"
        yield Answer(
            "".join(words), reason, 4 * len(pictures), 10 + 4 * len(pictures), 0, len(words), 0.1, 0.1, 10.0, 1
        )

    def rest(self) -> None:
        self.rests += 1

    def close(self) -> None:
        pass

    def _wait(self, phase: str, seconds: float = 0.0) -> None:
        """Waits as a graph that runs does, looking for an interruption."""
        until = time.monotonic() + seconds
        try:
            while not self.gate.wait(0.002) or time.monotonic() < until:
                check_interruption()
                time.sleep(0.001)
            check_interruption()
        except BaseException:
            self.interrupted_in.append(phase)
            raise


@dataclass
class Live:
    """A running server."""

    server: HttpServer
    service: Service
    thread: threading.Thread
    plain: openai.OpenAI | None = None

    @property
    def url(self) -> str:
        return self.server.address.url

    def client(self, **options: Any) -> openai.OpenAI:
        """A client without options is made once: making one takes its time."""
        if options or self.plain is None:
            wanted = {"base_url": self.url + "/v1", "api_key": "any", "max_retries": 0, **options}
            made = openai.OpenAI(**wanted)
            if options:
                return made
            self.plain = made
        return self.plain

    def until(self, truth: Callable[[], bool], seconds: float = 10) -> None:
        """Waits for something; fails where it does not come."""
        end = time.monotonic() + seconds
        while not truth():
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.005)


@contextmanager
def serving(service: Service) -> Iterator[Live]:
    server = HttpServer(service, listen(Address("127.0.0.1", 0)))
    thread = threading.Thread(target=server.run, name="server")
    thread.start()
    live = Live(server, service, thread)
    try:
        live.until(lambda: server.started)
        yield live
    finally:
        server.stop()
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def start() -> Iterator[Callable[..., Live]]:
    """Starts servers: `start(model, limits={...}, **service)`."""
    with ExitStack() as stack:

        def started(model: Any = None, limits: dict[str, Any] | None = None, **options: Any) -> Live:
            bounds = ServeLimits(**{"grace_s": 0.3, **(limits or {})})
            return stack.enter_context(serving(Service(model or FakeModel(), bounds, **options)))

        yield started


@pytest.fixture
def fake() -> type[FakeModel]:
    """Makes fake models."""
    return FakeModel


@pytest.fixture
def png() -> Callable[..., bytes]:
    """Makes pictures of noise."""

    def made(width: int = 20, height: int = 10, seed: int = 0) -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        return stream.getvalue()

    return made


@pytest.fixture
def data_uri(png: Callable[..., bytes]) -> Callable[..., str]:
    """A picture, noise where none is given, as a data URI."""

    def made(data: bytes | None = None, kind: str = "image/png") -> str:
        return f"data:{kind};base64,{base64.b64encode(png() if data is None else data).decode()}"

    return made


@pytest.fixture
def about() -> Callable[..., list[dict[str, Any]]]:
    """A question about pictures by their URLs, as messages."""

    def made(text: str, *urls: str) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]

    return made
