"""The server's description of itself is true: schemathesis asks a server by it and holds the answers against it.

schemathesis has an environment of its own, so that none of its many requirements meets the pinned ones. It is made here
(from the package index) unless BLUELM_SCHEMATHESIS names its program.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.routing import Route

from stages.device.serve.access import Access
from stages.device.serve.app import make_app

VERSION = "4.32.5"
KEY = "secret"
HELLO: Any = [{"role": "user", "content": "Hello"}]


def test_every_route_is_described_and_nothing_else(start: Any) -> None:
    live = start()
    app: Any = make_app(live.service)._app  # type: ignore[attr-defined]
    routes = {route.path.replace(":path", "") for route in app.router.routes if isinstance(route, Route)}
    described = httpx2.get(live.url + "/openapi.json").json()
    assert set(described["paths"]) == routes
    assert described["openapi"] == "3.1.0" and "security" not in described
    names = set(described["components"]["schemas"])
    assert set(references(described)) == {f"#/components/schemas/{name}" for name in names}


def references(value: Any) -> Iterator[str]:
    """Every $ref of a document."""
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_the_description_asks_for_a_key_where_there_is_one(start: Any) -> None:
    live = start(access=Access(KEY))
    assert httpx2.get(live.url + "/openapi.json").status_code == 401
    described = httpx2.get(live.url + "/openapi.json", headers={"authorization": f"Bearer {KEY}"}).json()
    assert described["security"] == [{"key": []}]
    assert described["paths"]["/health"]["get"]["security"] == []


@pytest.mark.parametrize(
    "values",
    [
        {"tools": False},
        {"functions": {}},
        {"logit_bias": []},
        {"audio": False},
        {"top_logprobs": "1", "logprobs": True},
        {"max_tokens": "many", "max_completion_tokens": 3},
        {"messages": [{"role": "user", "content": "Hello", "tool_calls": ""}]},
        {"messages": [{"role": "assistant", "function_call": {}}]},
    ],
)
def test_what_the_description_rules_out_is_refused(start: Any, values: dict[str, Any]) -> None:
    found = httpx2.post(start().url + "/v1/chat/completions", json={"messages": HELLO, **values})
    assert found.status_code == 400, found.text


@pytest.fixture(scope="module")
def schemathesis(tmp_path_factory: pytest.TempPathFactory) -> str:
    """schemathesis' program."""
    if named := os.environ.get("BLUELM_SCHEMATHESIS"):
        return named
    folder = tmp_path_factory.mktemp("schemathesis")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = [folder / "bin" / "pip", "install", "--quiet", f"schemathesis=={VERSION}"]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"schemathesis cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    return str(folder / "bin" / "schemathesis")


@pytest.mark.slow
@pytest.mark.parametrize("key", [None, KEY])
def test_schemathesis_finds_nothing(start: Any, schemathesis: str, tmp_path: Path, key: str | None) -> None:
    live = start(limits={"queue": 64, "client_queue": 64}, access=Access(key))
    words = ["run", live.url + "/openapi.json", "--checks", "all", "--phases", "examples,coverage,fuzzing"]
    words += ["--max-examples", "60", "--seed", "1", "--request-timeout", "30", "--continue-on-failure"]
    words += ["--warnings", "off", "--max-response-time", "600"]
    if key is not None:
        words += ["--header", f"Authorization: Bearer {key}"]
    environment = {"PYTHONPATH": str(Path(__file__).parent), "SCHEMATHESIS_HOOKS": "schemathesis_hooks"}
    done = subprocess.run(
        [schemathesis, *words], cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert live.service.metrics.jobs.value("answered") > 50 and live.service.metrics.jobs.value("encoded") > 20
    assert live.service.metrics.jobs.value("failed") == 0
    live.until(lambda: live.service.buffer.used == 0 and not live.service.worker.running)
