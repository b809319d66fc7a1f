"""`bluelm chat --serve` with real models: the answers of `bluelm chat`, pictures, signals, and what is refused."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from PIL import Image

from stages import chat, chat_serve
from stages.artifacts.errors import ProblemsError, UsageError
from stages.artifacts.events import Finished, Notice, result_of
from stages.artifacts.recipes import recipes_folder
from stages.chat_serve import ServeConfig, ServeResult
from stages.device.runtime.chat_config import ChatConfig
from stages.device.serve.listening import HttpServer, parse_address

QUICK: dict[str, Any] = {"threads": 1, "max_tokens": 8}


class Served:
    """A server in a thread: its address, a client, and in the end its result."""

    def __init__(self, notices: list[str]) -> None:
        self.url = notices[-1].split(" at ")[1].split("/v1")[0]
        self.client = openai.OpenAI(base_url=self.url + "/v1", api_key="any", max_retries=0)
        self.model = self.client.models.list().data[0].id

    def ask(self, messages: Any, **parameters: Any) -> Any:
        return self.client.chat.completions.create(model=self.model, messages=messages, **parameters)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    servers: list[HttpServer] = []
    run = HttpServer.run
    monkeypatch.setattr(HttpServer, "run", lambda self: (servers.append(self), run(self))[1])

    @contextmanager
    def served(model: Path, features: Path | None = None, **config: Any) -> Iterator[Served]:
        notices: list[str] = []
        results: list[ServeResult] = []

        def work() -> None:
            for event in chat_serve.run(ServeConfig(**{**QUICK, **config}), model, "0", features):
                if isinstance(event, Finished):
                    results.append(event.result)
                else:
                    notices.append(event.text)

        thread = threading.Thread(target=work)
        thread.start()
        while not (servers and servers[-1].started):
            assert thread.is_alive()
            time.sleep(0.01)
        here = Served(notices)
        try:
            yield here
        finally:
            servers.pop().stop()
            thread.join(60)
            assert not thread.is_alive() and results

    return served


def picture(seed: int = 0, width: int = 300, height: int = 200) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def about(text: str, *pictures: bytes) -> list[dict[str, Any]]:
    urls = ["data:image/png;base64," + base64.b64encode(data).decode() for data in pictures]
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


@pytest.fixture(scope="module")
def demo() -> Path:
    return recipes_folder() / "demo"


@pytest.mark.parametrize("question", ["What colour is the shape?", "How many shapes are there?", "Read the text."])
def test_the_server_answers_as_chat_does(demo: Path, tmp_path: Path, serve: Any, question: str) -> None:
    drawn = Image.new("RGB", (320, 200), "white")
    drawn.paste((200, 30, 30), (60, 40, 160, 140))
    path = tmp_path / "a.png"
    drawn.save(path)
    config = ChatConfig(threads=1, max_tokens=20)
    with chat.conversation(config, demo) as talk:
        talk.name(path)
        first = list(talk.ask(question))[-1]
        second = list(talk.ask("Sure?"))[-1]
    with serve(demo, max_tokens=20) as served:
        messages = about(question, path.read_bytes())
        found = served.ask(messages)
        streamed = list(served.ask(messages, stream=True, stream_options={"include_usage": True}))
        turns = [*messages, {"role": "assistant", "content": found.choices[0].message.content}]
        then = served.ask([*turns, {"role": "user", "content": "Sure?"}])
    single = result_of(chat.run(config, demo, question, [path])).turn.answer
    assert found.choices[0].message.content == first.text == single.text != ""
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices) == first.text
    assert then.choices[0].message.content == second.text
    assert found.usage.prompt_tokens == streamed[-1].usage.prompt_tokens == first.prompt_tokens
    assert found.usage.prompt_tokens_details.image_tokens == first.image_tokens
    assert found.usage.completion_tokens == first.generated_tokens
    assert then.usage.prompt_tokens_details.cached_tokens >= first.prompt_tokens


def test_system_stop_seed_and_limits_reach_the_model(tiny_onnx: Path, serve: Any) -> None:
    with serve(tiny_onnx, max_tokens=30) as served:
        plain = served.ask([{"role": "user", "content": "Hello"}])
        whole = plain.choices[0].message.content
        told = served.ask([{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello"}])
        assert told.usage.prompt_tokens > plain.usage.prompt_tokens
        assert (plain.choices[0].finish_reason, plain.usage.completion_tokens) == ("length", 30)
        stop = whole[5:8]
        cut = served.ask([{"role": "user", "content": "Hello"}], stop=[stop])
        assert cut.choices[0].message.content == whole[: whole.index(stop)]
        assert cut.choices[0].finish_reason == "stop"
        chunks = served.ask([{"role": "user", "content": "Hello"}], stop=stop, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole[: whole.index(stop)]

        def drawn(**parameters: Any) -> str:
            found = served.ask([{"role": "user", "content": "Hello"}], temperature=2, **parameters)
            return str(found.choices[0].message.content)

        assert drawn(seed=1) == drawn(seed=1)
        assert len({drawn() for _ in range(4)}) > 1
        with pytest.raises(openai.BadRequestError, match="this model holds") as long:
            served.ask([{"role": "user", "content": "word " * 5000}])
        assert long.value.code == "context_length_exceeded" and "/reset" not in str(long.value)
        with pytest.raises(openai.BadRequestError, match="this model holds"):
            served.ask([{"role": "user", "content": "a" * 20_000_000}])


def test_pictures_by_file_broken_pixels_and_the_cache(tiny_onnx: Path, tmp_path: Path, serve: Any) -> None:
    (tmp_path / "in.png").write_bytes(picture(1))
    with serve(tiny_onnx, allow_files=tmp_path, limits={"pictures": 3}) as served:
        by_data = served.ask(about("What?", picture(1), picture(2)))
        by_file = about("What?", b"", picture(2))
        by_file[0]["content"][0]["image_url"]["url"] = f"file://{tmp_path}/in.png"
        assert served.ask(by_file).choices[0].message.content == by_data.choices[0].message.content
        metrics = httpx2.get(served.url + "/metrics").text
        assert 'bluelm_pictures_total{from="encoder"} 2' in metrics
        assert 'bluelm_pictures_total{from="cache"} 2' in metrics
        for data in (picture()[:20_000], b"GIF89a"):
            with pytest.raises(openai.BadRequestError) as broken:
                served.ask(about("What?", data))
            assert broken.value.code == "image_parse_error"
            assert str(broken.value).count("base64") == 0
        with pytest.raises(openai.BadRequestError, match="4 pictures; this server takes 3"):
            served.ask(about("What?", *[picture()] * 4))
        with pytest.raises(openai.BadRequestError, match="this model holds"):
            served.ask(about("What? " * 2000, picture()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_in_order_when_told_and_runs_without_torch(tiny_onnx: Path, number: int) -> None:
    blocked = (
        "import sys\nclass Refuse:\n    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'torch', 'transformers', 'onnx', 'onnx_ir', 'pandas'}:\n"
        "            raise ImportError(name + ' is blocked')\n"
        "sys.meta_path.insert(0, Refuse())\nfrom bluelm_cli.app import main\nmain(sys.argv[1:])\n"
    )
    words = ["chat", tiny_onnx, "--serve", "0", "--threads", "1", "--api-key-env", "TEST_KEY", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-c", blocked, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TEST_KEY": "word"},
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    url = line.split(" at ")[1].split(" ")[0]
    client = openai.OpenAI(base_url=url, api_key="word", max_retries=5)
    model = client.models.list().data[0].id
    found = client.chat.completions.create(model=model, messages=about("What?", picture()), max_tokens=3)  # type: ignore[arg-type]
    assert found.usage is not None and found.usage.completion_tokens <= 3
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out)["answered"] == 1
    assert err == ""


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("8000", "127.0.0.1", 8000),
        ("0.0.0.0:80", "0.0.0.0", 80),
        ("[::1]:1", "::1", 1),
        ("localhost:0", "localhost", 0),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    address = parse_address(text)
    assert (address.host, address.port) == (host, port)


@pytest.mark.parametrize("text", ["", "a", "host:", "::1:80", "70000", "-1", "1.5", "host:80x", "٣"])
def test_what_is_no_address_is_refused(text: str, bluelm: Any, tiny_onnx: Path) -> None:
    with pytest.raises(UsageError, match="is no address"):
        parse_address(text)


def test_what_cannot_be_served_is_told_by_the_command(bluelm: Any, tiny_onnx: Path, tmp_path: Path) -> None:
    cases: list[tuple[list[Any], str]] = [
        (["--serve", "http"], "'http' is no address"),
        (["--serve", "0", "--api-key-env", "NO_SUCH_NAME"], "NO_SUCH_NAME is not set"),
        (["--serve", "0", "--allow-files", tmp_path / "none"], "is no folder"),
        (["--serve", "0", "--prompt", "a"], "--serve with --prompt"),
        (["--serve", "0", "--set", "limits.queue=0"], "limits.queue"),
        (["--serve", "0", "--max-tokens", "0"], "--max-tokens is 0"),
        (["--serve", "192.0.2.1:0"], "Nothing can listen"),
        (["--allow-urls"], "need --serve"),
    ]
    for words, message in cases:
        done = bluelm("chat", tiny_onnx, *words)
        assert done.code == 2, done
        assert message in done.err, done.err
        assert "Why:" in done.err and "Fix:" in done.err


def test_all_bad_values_are_told_together(tiny_onnx: Path, tmp_path: Path) -> None:
    config = ServeConfig(api_key_env="NO_SUCH_NAME", allow_files=tmp_path / "none")
    with pytest.raises(ProblemsError) as caught:
        list(chat_serve.run(config, tiny_onnx, "x"))
    assert len(caught.value.problems) == 3


def test_an_address_that_is_taken(tiny_onnx: Path, serve: Any) -> None:
    with serve(tiny_onnx) as served, pytest.raises(UsageError, match="in use"):
        list(chat_serve.run(ServeConfig(**QUICK), tiny_onnx, served.url.removeprefix("http://")))


def test_a_server_for_others_without_a_key_warns(tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HttpServer, "run", lambda self: None)
    warned = [
        [event.text for event in chat_serve.run(ServeConfig(**QUICK), tiny_onnx, address) if _is_warning(event)]
        for address in ("0", "0.0.0.0:0")
    ]
    assert warned[0] == [] and "--api-key-env" in warned[1][0]


def _is_warning(event: Any) -> bool:
    return isinstance(event, Notice) and event.level == "warning"
