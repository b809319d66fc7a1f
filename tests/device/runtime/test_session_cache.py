"""Prepacked weights on disk: the same numbers, and whatever happens to the cache the graph still loads."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from stages.artifacts.errors import ModelError
from stages.artifacts.guarding import locked
from stages.device.runtime import session_cache
from stages.device.runtime.session_cache import SessionCache, cache_folder, user_cache
from stages.device.runtime.sessions import Graph

X = np.random.default_rng(1).standard_normal((3, 64)).astype(np.float32)


def write_graph(folder: Path, name: str = "decoder.onnx", seed: int = 0, rows: int = 96) -> Path:
    """MatMulNBits, whose weights onnxruntime packs, over external data."""
    rng = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    weights = {
        "w": rng.integers(0, 256, (rows, 2, 16), dtype=np.uint8),
        "s": rng.uniform(0.01, 0.1, (rows, 2)).astype(np.float32),
    }
    node = helper.make_node(
        "MatMulNBits",
        ["x", "w", "s"],
        ["y"],
        domain="com.microsoft",
        K=64,
        N=rows,
        bits=4,
        block_size=32,
        accuracy_level=4,
    )
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", rows])],
        [onnx.numpy_helper.from_array(value, key) for key, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    path = folder / name
    (folder / f"{name}.data").unlink(missing_ok=True)
    onnx.save(model, path, save_as_external_data=True, location=f"{name}.data", size_threshold=0)
    return path


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return write_graph(tmp_path / "model")


@pytest.fixture
def cache(tmp_path: Path) -> SessionCache:
    return SessionCache(tmp_path / "cache", smallest=1)


def result(graph: Path, cache: SessionCache | None) -> np.ndarray:
    return Graph(graph, 1, cache).run({"x": X}, ["y"])[0]


def entries(cache: SessionCache) -> list[Path]:
    return sorted(path for path in cache.folder.iterdir() if not path.name.startswith("."))


def test_the_first_load_writes_an_entry_and_the_next_ones_read_it(graph: Path, cache: SessionCache) -> None:
    plain = result(graph, None)
    assert result(graph, cache).tobytes() == plain.tobytes()
    assert len(cache.notices) == 1 and "decoder.onnx was prepared" in cache.notices[0]
    (entry,) = entries(cache)
    assert sorted(file.name for file in entry.iterdir()) == ["entry.json", "graph.data", "graph.onnx"]
    # Twice the weights: as they were, and as they are laid out.
    assert (entry / "graph.data").stat().st_size > 1.9 * graph.with_name("decoder.onnx.data").stat().st_size
    before = {file.name: file.stat().st_mtime_ns for file in entry.iterdir() if file.name != "entry.json"}
    assert result(graph, cache).tobytes() == plain.tobytes()
    assert {file.name: file.stat().st_mtime_ns for file in entry.iterdir() if file.name != "entry.json"} == before
    assert len(cache.notices) == 1
    assert cache.nbytes == sum(file.stat().st_size for file in entry.iterdir())


def test_entries_that_are_there_open_side_by_side(tmp_path: Path, cache: SessionCache) -> None:
    """Half of opening is one thread's work; each opening here waits inside until the other has come as far."""
    graphs = [write_graph(tmp_path / "model", name) for name in ("decoder.onnx", "vision.onnx")]
    for graph in graphs:
        result(graph, cache)
    both = threading.Barrier(2, timeout=20)

    def opener(file: Path, change: Callable[[ort.SessionOptions], None]) -> ort.InferenceSession:
        both.wait()
        options = ort.SessionOptions()
        change(options)
        return ort.InferenceSession(os.fspath(file), options, providers=["CPUExecutionProvider"])

    with ThreadPoolExecutor(2) as pool:
        opened = list(pool.map(lambda graph: cache.open(graph, opener), graphs))
    assert None not in opened


def test_small_graphs_leave_no_trace(graph: Path, tmp_path: Path) -> None:
    cache = SessionCache(tmp_path / "cache")
    result(graph, cache)
    assert not cache.folder.exists() and not cache.notices


def test_weights_that_would_be_read_wrongly_are_not_kept(tmp_path: Path, cache: SessionCache) -> None:
    """onnxruntime places weights below a megabyte anywhere, and reads its own packed ones from there as nonsense."""
    graph = write_graph(tmp_path / "model", rows=97)
    plain = result(graph, None)
    for _ in range(2):
        assert result(graph, cache).tobytes() == plain.tobytes()
    (entry,) = entries(cache)
    assert [file.name for file in entry.iterdir()] == ["entry.json"]
    assert not cache.notices


def truncate(entry: Path) -> None:
    data = (entry / "graph.data").read_bytes()
    (entry / "graph.data").write_bytes(data[: len(data) // 2])


def scribble(entry: Path) -> None:
    """Same size and time: only onnxruntime can tell."""
    status = (entry / "graph.onnx").stat()
    (entry / "graph.onnx").write_bytes(b"\xff" * status.st_size)
    os.utime(entry / "graph.onnx", ns=(status.st_atime_ns, status.st_mtime_ns))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut short": truncate,
    "no graph": lambda entry: (entry / "graph.onnx").unlink(),
    "no note": lambda entry: (entry / "entry.json").unlink(),
    "a note that is none": lambda entry: (entry / "entry.json").write_text("{}"),
    "another graph": lambda entry: (entry / "graph.onnx").write_bytes(b"nonsense"),
    "scribbled over": scribble,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_made_anew(graph: Path, cache: SessionCache, damage: str) -> None:
    plain = result(graph, cache)
    (entry,) = entries(cache)
    DAMAGE[damage](entry)
    for _ in range(2):
        assert result(graph, cache).tobytes() == plain.tobytes()
    assert entries(cache) == [entry]
    note = json.loads((entry / "entry.json").read_text())
    assert note["files"]["graph.data"][0] == (entry / "graph.data").stat().st_size


def test_a_full_disk_is_told_and_the_graph_loads(
    graph: Path, cache: SessionCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(graph.parent)._replace(free=1000)
    monkeypatch.setattr(session_cache.shutil, "disk_usage", lambda path: usage)
    assert result(graph, cache).tobytes() == result(graph, None).tobytes()
    assert not entries(cache)
    assert "decoder.onnx loads slowly: " in cache.notices[0] and "GB free" in cache.notices[0]


def test_a_folder_that_cannot_be_made_is_told_and_the_graph_loads(graph: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    cache = SessionCache(tmp_path / "cache", smallest=1)
    assert result(graph, cache).tobytes() == result(graph, None).tobytes()
    assert "could not be prepared" in cache.notices[0]


def test_while_another_process_writes_the_graph_loads_plainly(graph: Path, cache: SessionCache) -> None:
    others = cache.folder / ".0123.partial"
    others.mkdir(parents=True)
    with locked(cache.folder / "entries"):
        assert result(graph, cache).tobytes() == result(graph, None).tobytes()
        assert others.exists() and not entries(cache)
    result(graph, cache)
    assert not others.exists() and len(entries(cache)) == 1  # what a killed process left is gone


def test_an_interrupt_while_writing_leaves_nothing(
    graph: Path, cache: SessionCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*words: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(session_cache, "_saving", interrupted)
    with pytest.raises(KeyboardInterrupt):
        result(graph, cache)
    assert not list(cache.folder.iterdir())


def test_other_weights_replace_the_entry_of_the_same_graph(graph: Path, cache: SessionCache) -> None:
    first = result(graph, cache)
    (old,) = entries(cache)
    write_graph(graph.parent, seed=1)
    assert not np.array_equal(result(graph, cache), first)
    (new,) = entries(cache)
    assert new != old


def test_the_least_recently_used_entries_go_first(tmp_path: Path, cache: SessionCache) -> None:
    graphs = [write_graph(tmp_path / name, seed=seed) for seed, name in enumerate("abc")]
    for graph in graphs[:2]:
        result(graph, cache)
    old, newer = entries(cache), {}
    for entry in old:
        source = json.loads((entry / "entry.json").read_text())["source"]
        newer[source] = entry
    cache.limit = int(cache.nbytes * 1.1)  # two, not three
    os.utime(newer[os.fspath(graphs[0])] / "entry.json", ns=(1, 1))
    os.utime(newer[os.fspath(graphs[1])] / "entry.json", ns=(2, 2))
    result(graphs[0], cache)  # used again
    result(graphs[2], cache)
    left = {json.loads((entry / "entry.json").read_text())["source"] for entry in entries(cache)}
    assert left == {os.fspath(graphs[0]), os.fspath(graphs[2])}


def test_entries_of_graphs_that_are_gone_go_too(tmp_path: Path, cache: SessionCache) -> None:
    gone, kept = write_graph(tmp_path / "a"), write_graph(tmp_path / "b", seed=1)
    result(gone, cache)
    gone.unlink()
    result(kept, cache)
    (entry,) = entries(cache)
    assert json.loads((entry / "entry.json").read_text())["source"] == os.fspath(kept)


def test_a_graph_beyond_the_limit_gets_no_entry(graph: Path, tmp_path: Path) -> None:
    cache = SessionCache(tmp_path / "cache", smallest=1, limit=10)
    result(graph, cache)
    assert not cache.folder.exists()


def test_a_broken_graph_is_told_as_without_a_cache(graph: Path, cache: SessionCache) -> None:
    graph.write_bytes(b"no graph")
    with pytest.raises(ModelError, match=r"decoder\.onnx: onnxruntime cannot open it"):
        Graph(graph, 1, cache)


def test_the_folder_is_the_users_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BLUELM_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("BLUELM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "bluelm"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "bluelm"


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("BLUELM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(session_cache.Path, "home", homeless)
    assert cache_folder() is None and user_cache() is None


def test_a_file_that_cannot_be_read_for_its_key_loads_plainly(
    graph: Path, cache: SessionCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*files: Path) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(session_cache, "_key", unreadable)
    assert result(graph, cache).tobytes() == result(graph, None).tobytes()
    assert not cache.folder.exists()
