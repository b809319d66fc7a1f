"""export --format gguf: the model for llama.cpp, its integers unchanged.

    bluelm export build/int4 --format gguf --out build/gguf

model.gguf is the language model with its tokenizer and chat template. mmproj.gguf is the vision tower with the
connector, where llama.cpp's `lfm2` projector is the same arithmetic; otherwise the export says why there is none.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from stages.artifacts.events import Event, Events, Finished, Notice
from stages.artifacts.folder import ArtifactSpec, create, open_artifact, up_to_date
from stages.artifacts.manifest import Manifest, parent_of
from stages.artifacts.recipes import RecipeModel

if TYPE_CHECKING:
    from stages.workshop.graph.checkpoint_weights import CheckpointWeights
    from stages.workshop.graph.gguf_picture import GgufPicture
    from stages.workshop.graph.gguf_shape import GgufShape
    from stages.workshop.graph.gguf_tokenizer import GgufTokenizer
    from stages.workshop.model.configuration import BlueLMVConfig


class GgufConfig(RecipeModel):
    """What a recipe may hold.

    Attributes:
        name: what the file calls the model; by default the folder's name.
        pictures: also write mmproj.gguf, where llama.cpp can express it.
    """

    name: str | None = Field(default=None, min_length=1)
    pictures: bool = True


@dataclass(frozen=True)
class GgufPlan:
    """What would be written: llama.cpp's architecture, and why there would be no mmproj.gguf (None: there would)."""

    architecture: str
    tokenizer: str
    without_pictures: str | None

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return dict(vars(self))


@dataclass(frozen=True)
class GgufResult:
    """What was written.

    Attributes:
        out: the folder.
        files: bytes by name.
        tensors: how many of each type model.gguf holds.
        rounded: tensors whose scales had to be rounded to float16.
        without_pictures: why there is no mmproj.gguf; None where there is one.
    """

    out: Path
    files: dict[str, int]
    tensors: dict[str, int]
    rounded: tuple[str, ...]
    without_pictures: str | None

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {**vars(self), "out": self.out.as_posix(), "rounded": list(self.rounded)}


@dataclass(frozen=True)
class _Prepared:
    """A folder that can be written as GGUF, everything decided."""

    weights: CheckpointWeights
    model: BlueLMVConfig
    shape: GgufShape
    tokenizer: GgufTokenizer
    picture: GgufPicture | str


def plan(config: GgufConfig, checkpoint: Path) -> GgufPlan:
    """Decides everything from configuration, tokenizer and headers; reads no weights.

    Raises:
        ArtifactError: not a checkpoint or quantized folder.
        ModelError: llama.cpp has no such language model or tokenizer.
        MissingExtraError: gguf is not installed.
    """
    prepared = _prepare(config, checkpoint)
    reason = prepared.picture if isinstance(prepared.picture, str) else None
    return GgufPlan(prepared.shape.architecture, prepared.tokenizer.pre, reason)


def run(config: GgufConfig, checkpoint: Path, out: Path, *, force: bool = False) -> Events[GgufResult]:
    """Writes the folder.

    Args:
        config: name, pictures.
        checkpoint: a quantized folder, or a float checkpoint.
        out: the folder to write.
        force: replace an existing output.

    Raises:
        BluelmError: see `plan`; or a weight is missing.
    """
    prepared = _prepare(config, checkpoint)
    spec = ArtifactSpec(
        kind="gguf", stage="export", config=config.model_dump(mode="json"), parents=(parent_of(checkpoint),)
    )
    if (done := up_to_date(out, spec, force=force)) is not None:
        yield Notice(f"{out} is up to date")
        yield Finished(_result(out, done))
        return
    with create(out, spec, force=force) as draft:
        draft.metrics.update((yield from _write(config, checkpoint, prepared, draft.path)))
    manifest = open_artifact(out, "gguf").manifest
    assert manifest is not None
    yield Finished(_result(out, manifest))


def _prepare(config: GgufConfig, checkpoint: Path) -> _Prepared:
    """Opens the folder and settles what can be known without weights."""
    from stages.workshop.graph.checkpoint_settings import read_model_config
    from stages.workshop.graph.checkpoint_weights import CheckpointWeights
    from stages.workshop.graph.gguf_model import require_gguf
    from stages.workshop.graph.gguf_picture import gguf_picture
    from stages.workshop.graph.gguf_shape import gguf_shape
    from stages.workshop.graph.gguf_tokenizer import read_tokenizer

    require_gguf()
    open_artifact(checkpoint, "checkpoint", "quantized")
    model = read_model_config(checkpoint)
    shape = gguf_shape(model.text_config)
    return _Prepared(
        weights=CheckpointWeights(checkpoint),
        model=model,
        shape=shape,
        tokenizer=read_tokenizer(checkpoint, shape.decoder.vocab),
        picture=gguf_picture(model, checkpoint) if config.pictures else "it was not asked for",
    )


def _write(
    config: GgufConfig, checkpoint: Path, prepared: _Prepared, folder: Path
) -> Generator[Event[Any], None, dict[str, Any]]:
    """Writes both files; returns the metrics."""
    from stages.workshop.graph.checkpoint_settings import read_chat_template, read_prompt
    from stages.workshop.graph.gguf_model import MODEL_FILE, write_model
    from stages.workshop.graph.gguf_picture import PICTURE_FILE, write_picture

    name = config.name or checkpoint.name
    summary = yield from write_model(
        folder / MODEL_FILE,
        name,
        prepared.weights,
        prepared.shape,
        prepared.tokenizer,
        read_prompt(checkpoint, prepared.model),
        read_chat_template(checkpoint),
    )
    rounded = list(summary.rounded)
    if isinstance(prepared.picture, str):
        reason: str | None = prepared.picture
        yield Notice(f"no {PICTURE_FILE}, so llama.cpp answers without pictures: {reason}", "warning")
    else:
        reason = None
        rounded += yield from write_picture(folder / PICTURE_FILE, name, prepared.weights, prepared.picture)
    if rounded:
        yield Notice(
            f"{len(rounded)} tensors have scales that float16 cannot hold; they were rounded by at most 1 in 2048",
            "warning",
        )
    return {"tensors": summary.kinds, "rounded": rounded, "without_pictures": reason}


def _result(out: Path, manifest: Manifest) -> GgufResult:
    metrics = manifest.metrics
    files = {name: entry.size for name, entry in manifest.files.items()}
    return GgufResult(out, files, metrics["tensors"], tuple(metrics["rounded"]), metrics["without_pictures"])
