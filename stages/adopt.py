"""`bluelm adopt`: a public checkpoint of this architecture becomes ours, without training.

    bluelm adopt VILA1.5-3b --out build/vila

VILA-1.5 is this very architecture; LLaVA-OneVision is it without the downsampler. Weights are renamed, nothing is
trained; the relaxed tiling, quantization and export then work on them. A checkpoint of ours that keeps its LoRA adapter
apart (`bluelm finetune --set lora.merge=false`) is taken over with the adapter merged:

    bluelm adopt build/lora --out build/merged
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stages.artifacts.errors import ArtifactError, UsageError
from stages.artifacts.events import Events, Finished, Notice, Progress
from stages.artifacts.folder import ArtifactSpec, create, up_to_date
from stages.artifacts.manifest import Manifest, parent_of, read_manifest
from stages.artifacts.recipes import RecipeModel
from stages.device.imaging.spec import GridSide

if TYPE_CHECKING:
    from stages.workshop.model.public.adoption import Adoption


class AdoptConfig(RecipeModel):
    """What a recipe may hold.

    Attributes:
        max_cols: the widest grid of tiles the checkpoint's processor chooses.
        max_rows: the highest.
        chat_template: how a question looks to the model; by default what the checkpoint was trained with.
    """

    max_cols: GridSide = 4
    max_rows: GridSide = 4
    chat_template: Literal["chatml", "vicuna", "llama3"] | None = None


@dataclass(frozen=True)
class AdoptPlan:
    """What a public checkpoint is, from its configuration and the headers of its weights alone."""

    layout: str
    text_model: str
    tile_size: int
    tokens_per_tile: int
    weights: int
    bytes: int
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {**vars(self), "notes": list(self.notes)}


@dataclass(frozen=True)
class AdoptResult:
    """What was made: `parameters` counts every weight once, `notes` say what was left out."""

    out: Path
    layout: str
    parameters: int
    tokens_per_tile: int
    chat_template: str
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {**vars(self), "out": self.out.as_posix(), "notes": list(self.notes)}


def plan(config: AdoptConfig, source: Path) -> AdoptPlan:
    """Looks at a public checkpoint without reading its weights.

    Raises:
        ModelError: no layout known here, a variant that computes something else, or broken files.
    """
    from stages.workshop.model.public.adoption import read_public_model
    from stages.workshop.model.public.merging import is_unmerged

    public = read_public_model(source)
    if is_unmerged(source) and config != AdoptConfig():
        raise UsageError(
            f"{source} is a checkpoint of ours: its grid of tiles and its chat template stay.",
            "It was trained with them.",
            "Leave out --max-grid and --chat-template.",
        )
    files = {place.file for place in public.weights.values()}
    return AdoptPlan(
        layout=public.layout,
        text_model=str(public.config.text_config.model_type),
        tile_size=public.config.tile_size,
        tokens_per_tile=public.config.tokens_per_tile,
        weights=len(public.weights),
        bytes=sum(file.stat().st_size for file in files),
        notes=public.notes,
    )


def run(config: AdoptConfig, source: Path, out: Path, *, force: bool = False) -> Events[AdoptResult]:
    """Writes a public checkpoint as one of ours.

    Args:
        config: grid and chat template.
        source: the downloaded folder, sub-folders included.
        out: the checkpoint to write.
        force: replace an existing output.

    Raises:
        BluelmError: see `plan`; or weights that do not fit, or something else at `out`.
    """
    plan(config, source)
    _check_place(source, out)
    spec = ArtifactSpec(
        kind="checkpoint", stage="adopt", config=config.model_dump(mode="json"), parents=(parent_of(source),)
    )
    if (done := up_to_date(out, spec, force=force)) is not None:
        yield Notice(f"{out} is up to date")
        yield Finished(_result(out, done))
        return
    with create(out, spec, force=force) as draft:
        adoption = yield from _import(config, source, draft.path)
        draft.metrics.update({**vars(adoption), "notes": list(adoption.notes)})
    for text in adoption.notes:
        yield Notice(text)
    yield Finished(_result(out, read_manifest(out)))


def _import(config: AdoptConfig, source: Path, folder: Path) -> Generator[Progress | Notice, None, Adoption]:
    from stages.workshop.model.public.adoption import import_checkpoint

    for event in import_checkpoint(
        source, folder, max_cols=config.max_cols, max_rows=config.max_rows, chat_template=config.chat_template
    ):
        if isinstance(event, Finished):
            return event.result
        yield event
    raise RuntimeError("the import ended without a result")


def _check_place(source: Path, out: Path) -> None:
    """An output inside its own input would change the input's digest."""
    if out.resolve().is_relative_to(source.resolve()):
        raise ArtifactError(
            f"{out} lies inside {source}.", "The downloaded folder stays as it is.", "Choose an --out beside it."
        )


def _result(out: Path, manifest: Manifest) -> AdoptResult:
    metrics = manifest.metrics
    return AdoptResult(
        out=out,
        layout=metrics["layout"],
        parameters=metrics["parameters"],
        tokens_per_tile=metrics["tokens_per_tile"],
        chat_template=metrics["chat_template"],
        notes=tuple(metrics["notes"]),
    )
