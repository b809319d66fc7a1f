"""Prepacked weights on disk, so that a large model loads in a second and its weights stay pages of a file.

onnxruntime lays the weights of a graph out for the processor each time it opens it. The cache holds the outcome: for a
graph and its weights, this processor and this onnxruntime one folder with the optimized graph, and the weights as they
were and as they are laid out. An entry is written into a partial folder and renamed; one that is damaged, or cannot be
written, costs only the time it would have saved.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import onnxruntime as ort
from pydantic import BaseModel, ConfigDict, ValidationError

from stages.artifacts.errors import BluelmError
from stages.artifacts.guarding import locked
from stages.artifacts.manifest import MANIFEST_FILE
from stages.device.runtime.ort_errors import ORT_ERRORS

FOLDER_VARIABLE = "BLUELM_CACHE"
# Weights below this load in the time it takes to look for an entry (measured: recipes/RESULTS.md).
SMALLEST_BYTES = 100_000_000
LIMIT_BYTES = 10_000_000_000
# An entry holds the weights twice; what stays free on the disk besides.
_TIMES, _SPARE_BYTES = 2.2, 1_000_000_000
_SCHEMA = 1
_GRAPH, _DATA, _ENTRY = "graph.onnx", "graph.data", "entry.json"
# Kernels find the parts of a packed weight from its address: one that lies elsewhere than memory comes, in steps of so
# many bytes, is read wrongly. onnxruntime places only weights of a megabyte and more with care.
_ALIGNMENT = 64
# `operator+hash|offset;length;padding|…`: where the graph says that packed weights lie.
_PACKED = re.compile(rb"[A-Za-z0-9_]+\+\d+((?:\|\d+;\d+;\d+)+)")
_OFFSETS = re.compile(rb"\|(\d+);")

_ERRORS: tuple[type[Exception], ...] = (OSError, *ORT_ERRORS)

# Opens a session on a graph file after the options were changed.
Opener = Callable[[Path, Callable[[ort.SessionOptions], None]], ort.InferenceSession]


class _Entry(BaseModel):
    """`entry.json`: the graph it stands for and the files it had when it was written: size and time of each.

    One without files says that this graph cannot be had from here.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    files: dict[str, tuple[int, int]]


@dataclass
class SessionCache:
    """Entries of one folder.

    Attributes:
        folder: where they lie.
        smallest: bytes of weights from which on a graph gets an entry.
        limit: bytes of all entries; the least recently used go first.
        notices: what the user may want to know: that an entry was written, or why none could be.
    """

    folder: Path
    smallest: int = SMALLEST_BYTES
    limit: int = LIMIT_BYTES
    notices: list[str] = field(default_factory=list)
    # Writing maps the weights twice for a moment: one graph at a time. What is there already opens side by side, since
    # half of that is one thread's work.
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def nbytes(self) -> int:
        """Bytes of all entries."""
        return sum(_size(entry) for entry in self._entries())

    def open(self, graph: Path, opener: Opener) -> tuple[ort.InferenceSession, Path] | None:
        """A session over prepacked weights, which are written first where there are none, and the file it maps.

        Returns:
            None where the graph is to be loaded plainly.
        """
        data = data_file(graph)
        try:
            if not data.is_file() or data.stat().st_size < self.smallest:
                return None
            entry = self.folder / _key(graph, data)
        except OSError:  # told when the graph is loaded plainly
            return None
        try:
            if _intact(entry):
                return _opened(entry, opener)
            with self._turn:
                return _opened(entry, opener) if self._written(entry, graph, data, opener) else None
        except _ERRORS:
            # Damaged, or another process dropped it: the next load writes it anew.
            shutil.rmtree(entry, ignore_errors=True)
            return None

    def _written(self, entry: Path, graph: Path, data: Path, opener: Opener) -> bool:
        """Writes an entry; False where that cannot be."""
        needed = int(_TIMES * data.stat().st_size)
        if needed > self.limit:
            return False
        partial = self.folder / f".{entry.name}.partial"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(self.folder).free < needed + _SPARE_BYTES:
                return self._failed(graph, f"the disk has less than {(needed + _SPARE_BYTES) / 1e9:.1f} GB free")
            with locked(self.folder / "entries"):
                self._remove_partials()
                try:
                    partial.mkdir()
                    opener(graph, lambda options: _saving(options, partial))
                    for name in () if _usable(partial / _GRAPH) else (_GRAPH, _DATA):
                        (partial / name).unlink()
                    files = {file.name: _stamp(file) for file in partial.iterdir()}
                    note = _Entry(source=os.fspath(graph.resolve()), files=files)
                    (partial / _ENTRY).write_text(note.model_dump_json(indent=2) + "\n", encoding="utf-8")
                    shutil.rmtree(entry, ignore_errors=True)
                    partial.rename(entry)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
                self._make_room(entry, note.source)
        except BluelmError:  # another process is writing one
            return False
        except _ERRORS as error:
            return self._failed(graph, (str(error).strip().splitlines() or ["no reason given"])[0][:200])
        if files:
            size = f"{_size(entry) / 1e9:.1f} GB in {self.folder}"
            self.notices.append(f"{graph.name} was prepared for this processor: {size} (--no-cache: none)")
        return True

    def _failed(self, graph: Path, reason: str) -> bool:
        self.notices.append(f"{graph.name} loads slowly: it could not be prepared in {self.folder}: {reason}")
        return False

    def _make_room(self, newest: Path, source: str) -> None:
        """Removes what the same graph and graphs that are gone left behind, then the least recently used."""
        others = [entry for entry in self._entries() if entry != newest]
        kept = []
        for entry in others:
            note = _note(entry)
            if note is None or note.source == source or not Path(note.source).is_file():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                kept.append(entry)
        total = _size(newest) + sum(map(_size, kept))
        for entry in sorted(kept, key=lambda entry: (entry / _ENTRY).stat().st_mtime_ns):
            if total <= self.limit:
                break
            total -= _size(entry)
            shutil.rmtree(entry, ignore_errors=True)

    def _remove_partials(self) -> None:
        """What a killed process left: whoever holds the lock is the only writer."""
        for partial in self.folder.glob(".*.partial"):
            shutil.rmtree(partial, ignore_errors=True)

    def _entries(self) -> Iterator[Path]:
        for path in sorted(self.folder.glob("[0-9a-f]*")):
            if re.fullmatch("[0-9a-f]{32}", path.name) and path.is_dir():
                yield path


def _opened(entry: Path, opener: Opener) -> tuple[ort.InferenceSession, Path] | None:
    """A session over an entry's weights; None for an entry that says there can be none."""
    _touch(entry)
    if not (entry / _GRAPH).is_file():
        return None
    return opener(entry / _GRAPH, _prepared), entry / _DATA


def data_file(graph: Path) -> Path:
    """Where a graph's weights lie."""
    return graph.with_name(f"{graph.name}.data")


def cache_folder() -> Path | None:
    """Where entries lie: $BLUELM_CACHE, or bluelm in the user's cache folder; None for a user without a home."""
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(named)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bluelm"
    except RuntimeError:
        return None


def user_cache() -> SessionCache | None:
    """The cache in the user's folder; None where there is no such folder."""
    folder = cache_folder()
    return None if folder is None else SessionCache(folder)


def _key(graph: Path, data: Path) -> str:
    """Names everything that an entry depends on."""
    manifest = graph.with_name(MANIFEST_FILE)
    facts = [
        _SCHEMA,
        ort.__version__,
        processor(),
        hashlib.sha256(graph.read_bytes()).hexdigest(),
        hashlib.sha256(manifest.read_bytes()).hexdigest() if manifest.is_file() else "",
        _stamp(data),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def processor() -> str:
    """Model and instruction sets, which decide how weights are laid out."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    kept = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    return "\n".join(line for line in text.splitlines() if line.startswith(kept))


def _saving(options: ort.SessionOptions, folder: Path) -> None:
    options.optimized_model_filepath = os.fspath(folder / _GRAPH)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", _DATA)
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")


def _prepared(options: ort.SessionOptions) -> None:
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it is optimized already
    # onnxruntime packs each weight all the same, to find its packed form by its hash; then it lets go of its own.
    options.add_session_config_entry("session.prepack.enable_parallel", "1")


def _usable(graph: Path) -> bool:
    """Whether there are packed weights, each where its kernel reads it rightly."""
    offsets = [offset for place in _PACKED.findall(graph.read_bytes()) for offset in _OFFSETS.findall(place)]
    return bool(offsets) and all(int(offset) % _ALIGNMENT == 0 for offset in offsets)


def _intact(entry: Path) -> bool:
    note = _note(entry)
    if note is None:
        return False
    try:
        return all(_stamp(entry / name) == stamp for name, stamp in note.files.items())
    except OSError:
        return False


def _note(entry: Path) -> _Entry | None:
    try:
        return _Entry.model_validate_json((entry / _ENTRY).read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _size(entry: Path) -> int:
    """Bytes of an entry; 0 where another process just removed it."""
    try:
        return sum(file.stat().st_size for file in entry.iterdir())
    except OSError:
        return 0


def _touch(entry: Path) -> None:
    """Marks an entry as used; one in a folder that may not be written to stays as old as it is."""
    try:
        os.utime(entry / _ENTRY)
    except OSError:
        return
