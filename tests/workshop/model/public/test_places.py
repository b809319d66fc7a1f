"""Public models in folders and on a hub: a real client against a server of our own."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlparse

import pytest
from huggingface_hub import constants

from stages.artifacts.errors import ModelError
from stages.workshop.model.public.places import HubModel, LocalModel, place_of

COMMIT = "a" * 40
OLDER = "b" * 40
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "model-00001-of-00002.safetensors": b"one",
    "model-00002-of-00002.safetensors": b"two",
    "model.safetensors.index.json": b"{}",
    "pytorch_model.bin": b"a pickle",
    "modeling_llama.py": b"raise SystemExit('remote code')",
    "onnx/model.safetensors": b"another format",
    "consolidated.safetensors": b"the same weights again",
}


class Hub:
    """The hub's API for a few models; remembers what was asked for."""

    def __init__(self) -> None:
        self.models: dict[str, dict[str, bytes]] = {"org/whole": FILES}
        self.fetched: list[str] = []


def serve(hub: Hub) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def answer(self, body: bytes, **headers: str) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            parts = urlparse(self.path).path.strip("/").split("/")
            if parts[:2] == ["api", "models"]:
                repo, what, revision = "/".join(parts[2:4]), parts[4], parts[5]
                files = hub.models.get(repo)
                if files is None:
                    self.refuse(401, "RepoNotFound")
                elif repo == "org/gated":
                    self.refuse(403, "GatedRepo")
                elif what == "revision" and revision not in ("main", "v1"):
                    self.refuse(404, "RevisionNotFound")
                elif what == "revision":
                    sha = OLDER if revision == "v1" else COMMIT
                    self.answer(json.dumps({"id": repo, "sha": sha, "siblings": []}).encode())
                else:
                    tree = [
                        {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
                        for name, body in files.items()
                    ]
                    self.answer(json.dumps(tree).encode())
                return
            repo, commit, name = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
            body = hub.models[repo][name]
            if self.command == "GET":
                hub.fetched.append(name)
            self.answer(body, ETag=f'"{hashlib.sha1(body).hexdigest()}"', X_Repo_Commit=commit)

        do_HEAD = do_GET  # noqa: N815 (the library's names)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    made = Hub()
    server = serve(made)
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield made
    server.shutdown()
    server.server_close()


def test_only_what_is_needed_is_fetched(hub: Hub) -> None:
    model = HubModel("org/whole")
    settings = model.settings()
    assert sorted(hub.fetched) == ["config.json", "tokenizer.json"]
    assert (settings / "config.json").read_bytes() == FILES["config.json"]
    folder = model.whole()
    assert folder == settings
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
    ]


def test_a_commit_stands_for_every_byte(hub: Hub) -> None:
    newest, older = HubModel("org/whole").parent(), HubModel("org/whole", "v1").parent()
    assert (newest.path, older.path) == (f"org/whole@{COMMIT}", f"org/whole@{OLDER}")
    assert newest.digest != older.digest
    assert newest.digest == HubModel("org/whole", "main").parent().digest
    assert not any(name.endswith(".safetensors") for name in hub.fetched)


def test_what_was_fetched_is_there_without_a_network(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = HubModel("org/whole").whole()
    hub.fetched.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert HubModel("org/whole").whole() == folder
    assert hub.fetched == []


def test_pickles_are_not_even_fetched(hub: Hub) -> None:
    hub.models["org/old"] = {"config.json": b"{}", "pytorch_model.bin": b"a pickle"}
    with pytest.raises(ModelError, match=r"org/old has no model\.safetensors on the hub") as caught:
        HubModel("org/old").whole()
    assert "weights_only=True" in caught.value.fix
    assert "pytorch_model.bin" not in hub.fetched


@pytest.mark.parametrize(
    ("model", "what", "fix"),
    [
        (HubModel("org/nowhere"), "org/nowhere is no folder here, and the hub shows no such model.", "spelling"),
        (HubModel("org/gated"), "org/gated may only be fetched by those whom its makers let in.", "hf auth login"),
        (HubModel("org/whole", "v9"), "org/whole@v9 has no revision 'v9'.", "branch, a tag or a commit"),
        (HubModel("org/a..b"), "org/a..b is no name the hub can have:", "plain transformers folder"),
    ],
)
def test_what_the_hub_refuses(hub: Hub, model: HubModel, what: str, fix: str) -> None:
    hub.models["org/gated"] = {}
    with pytest.raises(ModelError) as caught:
        model.settings()
    assert caught.value.what.startswith(what)
    assert caught.value.why
    assert fix in caught.value.fix


def test_no_network_says_how_to_go_on(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="org/other is no folder here, and the hub cannot be reached") as caught:
        HubModel("org/other").settings()
    assert "hf download" in caught.value.fix
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="the hub cannot be reached") as caught:
        HubModel("org/other").settings()
    assert "HF_HUB_OFFLINE" in caught.value.fix


def test_a_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert place_of("org/name") == HubModel("org/name")
    assert place_of("org/name@v1.0") == HubModel("org/name", "v1.0")
    (tmp_path / "org/name").mkdir(parents=True)
    assert place_of("org/name") == LocalModel(Path("org/name"))
    for name in ("name", "models/deep/name", "/org/name", "./org/name/x", str(tmp_path / "nowhere")):
        assert place_of(name) == LocalModel(Path(name))


def test_a_folder_without_a_configuration(tmp_path: Path) -> None:
    for read in (LocalModel(tmp_path).settings, LocalModel(tmp_path).whole, LocalModel(tmp_path).parent):
        with pytest.raises(ModelError, match=r"holds no config\.json"):
            read()
