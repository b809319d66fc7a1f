"""The safetensors of a model folder, one tensor at a time: headers without weights, streamed reading and writing.

A folder has `model.safetensors`, or shards with `model.safetensors.index.json`. Nothing here instantiates a model, so
memory stays near the largest tensor (reading) or one shard (writing).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from stages.artifacts.errors import ModelError
from stages.artifacts.manifest import is_inside
from stages.artifacts.plain_json import parse_json

if TYPE_CHECKING:
    import torch

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
# Bytes per value of safetensors' type names.
ITEM_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"), 1),
}


def torch_type(name: str) -> torch.dtype:
    """torch's type behind safetensors' name of a float type."""
    import torch

    return {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[name]


@dataclass(frozen=True)
class TensorInfo:
    """What a header says about a tensor: its file, safetensors type name and shape."""

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Size on disk."""
        return ITEM_BYTES[self.dtype] * math.prod(self.shape)


class TensorSource(Protocol):
    """Tensors by name: what their headers say, and one at a time."""

    @property
    def infos(self) -> Mapping[str, TensorInfo]:
        """What is known without reading weights."""

    def read(self, name: str) -> torch.Tensor:
        """One tensor, as it is stored."""


class TensorFolder:
    """All tensors of a model folder, by name; the headers are read once, the weights on demand."""

    def __init__(self, folder: Path) -> None:
        """Reads the headers.

        Raises:
            ModelError: no safetensors, a shard is missing, or a file is damaged.
        """
        self.folder = folder
        self.infos: Mapping[str, TensorInfo] = {
            info.name: info for file in _files(folder) for info in _read_header(folder / file)
        }

    def read(self, name: str) -> torch.Tensor:
        """One tensor, as stored."""
        from safetensors import safe_open

        with safe_open(self.folder / self.infos[name].file, framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(name)
        return tensor


class ShardWriter:
    """Writes tensors one after the other into shards of at most `limit` bytes (a larger tensor has a shard alone)."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._pending: dict[str, torch.Tensor] = {}
        self._shards: list[dict[str, int]] = []

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Queues a tensor; writes a shard when this one would not fit into it."""
        if self._pending and sum(held.nbytes for held in self._pending.values()) + tensor.nbytes > self._limit:
            self._flush()
        self._pending[name] = tensor.contiguous()

    def close(self) -> dict[str, int]:
        """Writes what is left, names the files as transformers expects, and gives the bytes of every tensor."""
        self._flush()
        count = len(self._shards)
        names = [SINGLE_FILE] if count == 1 else [f"model-{n + 1:05d}-of-{count:05d}.safetensors" for n in range(count)]
        for number, name in enumerate(names):
            (self._folder / _temporary(number)).rename(self._folder / name)
        sizes = {name: size for shard in self._shards for name, size in shard.items()}
        if count > 1:
            weight_map = {name: file for file, shard in zip(names, self._shards, strict=True) for name in shard}
            index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": dict(sorted(weight_map.items()))}
            (self._folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        return sizes

    def _flush(self) -> None:
        from safetensors.torch import save_file

        if not self._pending and self._shards:
            return
        save_file(self._pending, self._folder / _temporary(len(self._shards)), metadata={"format": "pt"})
        self._shards.append({name: tensor.nbytes for name, tensor in self._pending.items()})
        self._pending = {}


def _temporary(number: int) -> str:
    return f"shard-{number}.safetensors"


def _files(folder: Path) -> list[str]:
    index, single = folder / INDEX_FILE, folder / SINGLE_FILE
    if index.is_file():
        try:
            files = sorted(set(parse_json(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _damaged(index, str(error)) from error
        if not all(isinstance(file, str) and is_inside(file) for file in files):
            raise _damaged(index, "it names files outside its folder")
        return files
    if single.is_file():
        return [SINGLE_FILE]
    raise ModelError(
        f"{folder} holds neither {SINGLE_FILE} nor {INDEX_FILE}.",
        "Its weights cannot be read (only safetensors are loaded, never pickles).",
        "Save the checkpoint as safetensors: model.save_pretrained(FOLDER)",
    )


def _read_header(path: Path) -> Iterator[TensorInfo]:
    header = _header(path)
    for name in sorted(header):
        entry = header[name]
        if name == "__metadata__":
            continue
        try:
            info = TensorInfo(name, path.name, entry["dtype"], tuple(entry["shape"]))
        except (TypeError, KeyError) as error:
            raise _damaged(path, f"its header describes {name} badly") from error
        if not all(isinstance(side, int) and not isinstance(side, bool) and side >= 0 for side in info.shape):
            raise _damaged(path, f"{name} has the shape {str(info.shape)[:80]}")
        if not isinstance(info.dtype, str) or info.dtype not in ITEM_BYTES:
            raise _damaged(path, f"{name} has the unknown type {info.dtype}")
        yield info


def _header(path: Path) -> dict[str, Any]:
    """The JSON header: 8 bytes with its length (little-endian), then that many bytes."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                raise _damaged(path, "its header is longer than the file")
            header = parse_json(file.read(length))
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from error
    except ValueError as error:
        raise _damaged(path, "its header is not JSON") from error
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a JSON object")
    return header


def _damaged(path: Path, reason: str) -> ModelError:
    return ModelError(f"{path} cannot be read: {reason}.", "Weights would be missing.", "Copy or make the model again.")
