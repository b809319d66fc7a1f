"""Readers of files that others wrote: each takes any bytes and returns, or raises a `BluelmError`; all else is a crash.

`SEEDS` are small well-formed files that mutations begin from. `recipes/fuzz.sh` gives the same targets to atheris.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import BaseModel

from stages.artifacts.errors import BluelmError
from stages.artifacts.folder import open_artifact
from stages.artifacts.recipes import RecipeModel, load_config
from stages.artifacts.typed_json import read_typed_json
from stages.device.contract.device_config import read_device_config
from stages.device.imaging.loading import load_image_bytes, read_size_bytes
from stages.device.imaging.sizes import read_size_list
from stages.device.prompt.encoder import load_prompt_encoder
from stages.workshop.corpus.readers.opening import open_rows
from stages.workshop.corpus.row import Row
from stages.workshop.quant.tensor_files import TensorFolder

PIXELS = 4_000_000  # a picture larger than that is only measured: what a few bytes unpack to takes its time


class Inner(RecipeModel):
    """A part of a recipe."""

    rate: float = 0.1
    names: tuple[str, ...] = ()


class Outer(RecipeModel):
    """Something that a recipe can hold."""

    steps: int = 1
    inner: Inner = Inner()
    any: dict[str, Any] | None = None


class Note(BaseModel):
    """A typed file of ours."""

    name: str
    sizes: dict[str, tuple[int, int]]


def picture(data: bytes, folder: Path) -> None:
    """A picture of any format."""
    size = read_size_bytes(data, "x")
    if size.width * size.height <= PIXELS:
        load_image_bytes(data, "x")


def recipe(data: bytes, folder: Path) -> None:
    """YAML, and what it extends."""
    (folder / "recipe.yaml").write_bytes(data)
    load_config(Outer, folder / "recipe.yaml")


def manifest(data: bytes, folder: Path) -> None:
    """`artifact.json`."""
    (folder / "artifact.json").write_bytes(data)
    open_artifact(folder, "corpus")


def typed(data: bytes, folder: Path) -> None:
    """Any typed JSON."""
    (folder / "note.json").write_bytes(data)
    read_typed_json(folder / "note.json", Note, BluelmError, unreadable="", broken="", fix="")


def device(data: bytes, folder: Path) -> None:
    """`device.json`."""
    (folder / "device.json").write_bytes(data)
    read_device_config(folder)


def prompts(data: bytes, folder: Path) -> None:
    """`tokenizer.json` and, behind a zero byte, the chat template."""
    tokenizer, _, template = data.partition(b"\0")
    (folder / "tokenizer.json").write_bytes(tokenizer)
    (folder / "chat_template.jinja").write_bytes(template)
    load_prompt_encoder(folder).encode([{"role": "user", "content": "Hi"}], [])


def rows(data: bytes, folder: Path, name: str) -> None:
    """All rows of a file, with all of their pictures."""
    (folder / name).write_bytes(data)
    for row in open_rows(folder / name):
        if isinstance(row, Row):
            for one in row.pictures:
                if one.exists() and one.size().area <= PIXELS:
                    one.load()


def sizes(data: bytes, folder: Path) -> None:
    """A list of pictures' sizes."""
    (folder / "sizes.csv").write_bytes(data)
    for _ in read_size_list(folder / "sizes.csv"):
        pass


def tensors(data: bytes, folder: Path) -> None:
    """The header of a safetensors file."""
    (folder / "model.safetensors").write_bytes(data)
    sum(info.bytes for info in TensorFolder(folder).infos.values())


def tensor_index(data: bytes, folder: Path) -> None:
    """The list of a model's shards."""
    (folder / "model.safetensors.index.json").write_bytes(data)
    TensorFolder(folder)


def conversation(data: bytes, folder: Path) -> None:
    """A saved conversation, up to where it would be told to a model."""
    from types import SimpleNamespace

    from stages.device.runtime.conversation_file import load_conversation

    (folder / "talk").write_bytes(data)
    load_conversation(SimpleNamespace(model="m"), folder / "talk")  # type: ignore[arg-type]


TARGETS: dict[str, Callable[[bytes, Path], None]] = {
    "picture": picture,
    "recipe": recipe,
    "manifest": manifest,
    "typed": typed,
    "device": device,
    "prompts": prompts,
    "rows": lambda data, folder: rows(data, folder, "rows.json"),
    "tar": lambda data, folder: rows(data, folder, "rows.tar"),
    "sizes": sizes,
    "tensors": tensors,
    "tensor_index": tensor_index,
    "conversation": conversation,
}


def attempt(target: str, data: bytes, folder: Path) -> bool:
    """Whether a target takes the bytes; False where it refuses them. Whatever else it raises is a crash."""
    try:
        TARGETS[target](data, folder)
    except BluelmError as error:
        assert all(isinstance(beat, str) for beat in (error.what, error.why, error.fix))
        assert len(str(error)) < 20_000, "a message that fills the screen"
        return False
    return True


def _pictures() -> Iterable[bytes]:
    image = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    for name in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "ICO", "PPM", "TGA", "AVIF"):
        stream = io.BytesIO()
        image.save(stream, name)
        yield stream.getvalue()


def _tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in (("a.png", next(iter(_pictures()))), ("a.txt", b"what it is"), ("b.json", ROWS[1:-1])):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def _safetensors(metadata: dict[str, str]) -> bytes:
    from safetensors.numpy import save

    return bytes(save({"w": np.zeros((2, 3), np.float32)}, metadata))


ROWS = json.dumps(
    [{"id": "a", "image": "a.png",
      "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "It"}]}]
).encode()  # fmt: skip
_MANIFEST = {
    "kind": "corpus",
    "schema_version": 1,
    "stage": "x",
    "config": {"a": 1},
    "files": {"f": {"size": 0, "sha256": ""}},
}
_TOKENIZER = {
    "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
    "pre_tokenizer": None,
    "post_processor": None, "decoder": None,
    "model": {"type": "BPE", "vocab": {"H": 0, "i": 1, "<image>": 2}, "merges": []},
}  # fmt: skip
SEEDS: dict[str, tuple[bytes, ...]] = {
    "picture": tuple(_pictures()),
    "recipe": (b"steps: 3\ninner: {rate: 1e-3, names: [a, b]}\n", b"any: {a: &x [1, 2], b: *x}\n"),
    "manifest": (json.dumps(_MANIFEST).encode(),),
    "typed": (b'{"name": "n", "sizes": {"a": [1, 2]}}',),
    "device": (b'{"schema_version": 1, "vision": {}, "decoder": {}, "prompt": {}}',),
    "prompts": (json.dumps(_TOKENIZER).encode() + b"\0{% for m in messages %}{{ m['content'] }}{% endfor %}",),
    "rows": (ROWS, b"\n".join([ROWS[1:-1]] * 2), b'{"messages": [{"role": "user", "content": "a"}]}\n'),
    "tar": (_tar(),),
    "sizes": (b"width,height,count\n640,480,3\n", b"a.png 640 480\n", b"640x480\n"),
    "tensors": (_safetensors({"format": "pt"}),),
    "tensor_index": (b'{"metadata": {"total_size": 1}, "weight_map": {"w": "model-1.safetensors"}}',),
    "conversation": (
        _safetensors({"conversation": '{"schema_version": 1, "model": "m", "turns": [], "pictures": []}'}),
    ),
}
