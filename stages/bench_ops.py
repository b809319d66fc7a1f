"""bench ops: where the time of encoding, prefill and decoding goes, operator by operator.

    bluelm bench ops MODEL
    bluelm bench ops --preset bluelm-v-3b --layers 4 --policy paper

Profiling itself takes time: shares are what to read, not seconds.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from stages.artifacts.errors import UsageError
from stages.artifacts.events import Events, Finished, Notice
from stages.measure.random_models import Count, ModelChoice, open_models

if TYPE_CHECKING:
    from stages.measure.operators import PartTime


class OpsConfig(ModelChoice):
    """What is profiled: one picture of `tiles` tiles, one prompt, some tokens. `chunk` is the runtime's own if None."""

    chunk: Count | None = None
    tiles: Count = 4
    prompt_tokens: Count = 512
    generate: int = Field(default=16, ge=1)
    threads: Count | None = None


@dataclass(frozen=True)
class OperatorTable:
    """What was found.

    Attributes:
        model: its name.
        parts: encode, prefill and decode.
        machine: what it ran on.
        settings: what was asked for.
    """

    model: str
    parts: tuple[PartTime, ...]
    machine: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The table as plain data."""
        return {
            "model": self.model,
            "rows": [row for part in self.parts for row in part.rows()],
            "parts": [{"part": part.part, "seconds": part.seconds, "roles": part.roles()} for part in self.parts],
            "machine": self.machine,
            "settings": self.settings,
        }


def run(config: OpsConfig, model: Path | None, keep: Path | None = None) -> Events[OperatorTable]:
    """Profiles one model.

    Args:
        config: what to run.
        model: an exported model; None for the preset's random weights, or the demo model where no preset is named.
        keep: where random weights stay for the next time.

    Raises:
        UsageError: the flags contradict each other, or ask for more than the model holds.
        ArtifactError: the model is no exported one.
        ModelError: a graph is damaged, or onnxruntime wrote no profile.
    """
    from stages.device.runtime.decoder import DEFAULT_CHUNK
    from stages.measure.machine import describe_machine
    from stages.measure.operators import profile_operators
    from stages.measure.picture_tiles import noise_tiles
    from stages.measure.workload import Workload, fit

    if len(config.policies) > 1:
        raise UsageError(
            f"--policy was given {len(config.policies)} times.",
            "One model is profiled at a time; a profile compares nothing.",
            "Name one policy.",
        )
    source = config.source(model)
    with ExitStack() as stack:
        models = yield from open_models(config, source, keep, stack)
        device = models[0].config
        asked = Workload(
            chunks=(config.chunk or DEFAULT_CHUNK,),
            batches=(config.tiles,),
            prompts=(config.prompt_tokens,),
            generate=config.generate,
            warmup=1,
            runs=1,
            threads=config.threads,
            seed=config.seed,
        )
        fitted = fit(asked, device.decoder.max_context, device.vision.max_batch)
        for notice in fitted.notices:
            yield Notice(notice, "warning")
        tiles = noise_tiles(config.tiles, device, config.seed)
        for event in profile_operators(models[0], fitted.workload, tiles):
            if not isinstance(event, Finished):
                yield event
                continue
            settings = config.model_dump(mode="json")
            yield Finished(OperatorTable(device.name, event.result, describe_machine(), settings))
