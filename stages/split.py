"""split: one part of a checkpoint as a plain transformers folder, such as other trainings start from.

bluelm split build/text-model --part language --out build/language
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from stages.artifacts.events import Events, Finished, Notice
from stages.artifacts.folder import ArtifactSpec, create, open_artifact, up_to_date
from stages.artifacts.kinds import Kind
from stages.artifacts.manifest import parent_of
from stages.artifacts.recipes import RecipeModel

Part = Literal["tower", "language"]
_KINDS: dict[Part, Kind] = {"tower": "tower", "language": "language-model"}


class SplitConfig(RecipeModel):
    """What is taken out of a checkpoint."""

    part: Part = Field(description="tower: the SigLIP tower; language: the language model with its tokenizer")
    dtype: Literal["float16", "bfloat16", "float32"] = Field(default="float16", description="precision of the weights")


@dataclass(frozen=True)
class SplitResult:
    """A part in a folder of its own."""

    out: Path
    part: Part
    parameters: int

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {"out": self.out.as_posix(), "part": self.part, "parameters": self.parameters}


def run(config: SplitConfig, checkpoint: Path, out: Path, force: bool = False) -> Events[SplitResult]:
    """Writes a part of a checkpoint; `pretrain --vision` and `--llm` take it.

    Raises:
        BluelmError: no checkpoint, or something else at `out`.
    """
    source = open_artifact(checkpoint, "checkpoint").path
    spec = ArtifactSpec(
        kind=_KINDS[config.part],
        stage="split",
        config=config.model_dump(mode="json"),
        parents=(parent_of(source),),
    )
    done = up_to_date(out, spec, force=force)
    if done is not None:
        yield Notice(f"{out} is up to date")
        yield Finished(SplitResult(out, config.part, done.metrics["parameters"]))
        return
    with create(out, spec, force=force) as draft:
        draft.metrics["parameters"] = parameters = _write(config, source, draft.path)
    yield Finished(SplitResult(out, config.part, parameters))


def _write(config: SplitConfig, checkpoint: Path, folder: Path) -> int:
    import torch

    from stages.workshop.model.checkpoint import load_model, load_processor, quiet
    from stages.workshop.model.public.tower import write_picture_settings

    model, processor = load_model(checkpoint), load_processor(checkpoint)
    part: Any = model.language_model if config.part == "language" else model.vision_tower
    with quiet():
        part.to(getattr(torch, config.dtype)).save_pretrained(folder)
    if config.part == "language":
        processor.tokenizer.save_pretrained(folder)
    else:
        images = processor.image_processor
        write_picture_settings(folder, model.config.tile_size, images.image_mean, images.image_std, images.resample)
    return int(part.num_parameters())
