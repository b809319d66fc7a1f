"""Which models a bench runs on: an exported one, or random weights in the shape of a preset, one for each policy.

What a model costs does not depend on what it has learned. Random weights are written by another process; a kept folder
of them is used again as long as the code that wrote it is the same.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import psutil
from pydantic import Field

from stages.artifacts.errors import UsageError
from stages.artifacts.events import Notice
from stages.artifacts.folder import Artifact, open_artifact
from stages.artifacts.recipes import RecipeModel
from stages.device.contract.device_config import DeviceConfig, read_device_config
from stages.device.imaging.presets import imaging_preset
from stages.measure.workshop_process import write_by_workshop

Policy = Literal["paper", "mix", "int8", "float"]
Count = Annotated[int, Field(ge=1)]

STAMP_FILE = "random.json"
# What a kept folder depends on, beside its shape.
_WRITERS = ("workshop", "device/contract", "device/imaging")
_STAGES = Path(__file__).resolve().parents[1]
# Sessions pack weights anew beside the file's; from this much of the files on, models share no memory.
MEMORY_PER_BYTE = 1.5
PREPACKED = "prepacked"


class ModelChoice(RecipeModel):
    """Random weights to run on, where no model is given.

    `layers` is at most how many each of language model and vision tower keeps; `vision_layers` decides for the tower
    alone. `policy` says what the inputs of quantized products are rounded to; each one is a model of its own.
    """

    seed: int = Field(default=0, ge=0)
    preset: str | None = None
    layers: Count | None = None
    vision_layers: Count | None = None
    kv: Literal["int8", "float32"] | None = None
    policy: tuple[Policy, ...] = ()

    @property
    def policies(self) -> tuple[Policy | None, ...]:
        """One entry for each random model; None for the writer's own policy."""
        return tuple(dict.fromkeys(self.policy)) or (None,)

    def name_of(self, model: str) -> str:
        """What the records call the model: a part of one must not be taken for the whole."""
        kept = {"layers": self.layers, "vision layers": self.vision_layers}
        parts = [f"{name}: {count}" for name, count in kept.items() if count is not None]
        return f"{model} ({', '.join(parts)})" if parts else model

    def source(self, model: Path | None) -> Artifact | None:
        """The exported model to measure, or None for a preset's random weights.

        Raises:
            UsageError: both are asked for, no such preset, the shape of random weights without a preset, or no model
                where none is shipped.
            ArtifactError: the model is no exported one.
        """
        shape = {name: getattr(self, name) for name in ("layers", "vision_layers", "kv", "policy")}
        given = [f"--{name.replace('_', '-')}" for name, value in shape.items() if value not in (None, ())]
        if self.preset is not None:
            if model is not None:
                raise UsageError(
                    f"Both the model {model} and --preset {self.preset} were given.",
                    "A preset means random weights of its shape instead of a model.",
                    "Give one of them.",
                )
            imaging_preset(self.preset)
            return None
        if given:
            raise UsageError(
                f"{given[0]} was given without --preset.",
                "An exported model is measured as it is; only random weights can be shaped.",
                "Add --preset bluelm-v-3b, or leave it out.",
            )
        from stages.device.runtime.shipped import model_or_shipped

        return open_artifact(model_or_shipped(model), "onnx")


@dataclass(frozen=True)
class BenchModel:
    """A model to measure: its folder, its `device.json` under the name of the records, its policy where it has one.

    `threads` are those it runs with, where they differ from the workload's.
    """

    folder: Path
    config: DeviceConfig
    policy: str | None
    threads: int | None = None


def open_models(
    choice: ModelChoice, source: Artifact | None, keep: Path | None, stack: ExitStack
) -> Generator[Notice, None, list[BenchModel]]:
    """The models of a choice, written first where they are random.

    Args:
        choice: what was asked for.
        source: the exported model; None for random weights.
        keep: where random weights stay; None for a folder that goes with the stack.
        stack: closes what is temporary.

    Raises:
        ModelError: random weights could not be written.
    """
    models = []
    for policy in choice.policies:
        if source is None:
            label = choice.name_of(str(choice.preset)) + (f", policy {policy}" if policy else "")
            yield Notice(f"Random weights: {label} …")
            folder = stack.enter_context(random_model(choice, policy, keep))
        else:
            folder = source.path
        config = read_device_config(folder)
        config = config.model_copy(update={"name": choice.name_of(config.name)})
        models.append(BenchModel(folder, config, policy))
    return models


def fit_together(models: list[BenchModel], available: int | None = None) -> bool:
    """Whether several models fit into memory at once, so that they can be run in turns.

    Args:
        models: the models.
        available: bytes free; asked of the system if None.
    """
    needed = sum(file.stat().st_size for model in models for file in model.folder.iterdir() if file.is_file())
    free = psutil.virtual_memory().available if available is None else available
    return len(models) == 1 or needed * MEMORY_PER_BYTE <= free


@contextmanager
def random_model(choice: ModelChoice, policy: Policy | None = None, keep: Path | None = None) -> Iterator[Path]:
    """A folder of random weights; removed when the block ends, unless it is kept.

    Raises:
        ModelError: it could not be written.
    """
    shape = choice.model_dump(mode="json", include={"preset", "layers", "vision_layers", "kv", "seed"})
    shape["policy"] = policy
    title = f"Random weights in the shape of {choice.preset}"
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="bluelm-bench-") as folder:
            write_by_workshop("random", shape, Path(folder), title)
            yield Path(folder)
        return
    yield _kept(shape, keep, title)


def _kept(shape: dict[str, Any], keep: Path, title: str) -> Path:
    """The folder of this shape in `keep`, written where it is missing or other code wrote it."""
    words = [shape["preset"], shape["layers"], shape["vision_layers"], shape["kv"], shape["policy"], shape["seed"]]
    folder = keep / "-".join("all" if word is None else str(word) for word in words)
    stamp = json.dumps({**shape, "code": code_digest()}, sort_keys=True)
    if not (folder / STAMP_FILE).is_file() or (folder / STAMP_FILE).read_text(encoding="utf-8") != stamp:
        partial = folder.with_name(folder.name + ".partial")
        for old in (folder, partial):
            if old.exists():
                shutil.rmtree(old)
        partial.mkdir(parents=True)
        write_by_workshop("random", shape, partial, title)
        (partial / STAMP_FILE).write_text(stamp, encoding="utf-8")
        partial.rename(folder)
    return folder


def code_digest() -> str:
    """Of all the code that decides what a random model is."""
    whole = hashlib.sha256()
    for part in _WRITERS:
        for path in sorted((_STAGES / part).rglob("*.py")):
            whole.update(path.relative_to(_STAGES).as_posix().encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()[:16]
