"""bench estimate: memory, tokens and time of a configuration before anything runs, on devices described as data.

    bluelm bench estimate --preset bluelm-v-3b --picture 768x1536
    bluelm bench estimate build/onnx --device dimensity-9300 --chunk 128
    bluelm bench estimate --fit records.jsonl --out here.yaml

Weights, KV cache and hidden states follow from the shape; what a runtime takes beside them, and how fast a device is,
are constants of the device (`recipes/devices/`), fitted on measurements or taken from what its maker says. What is not
known is named, not guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from stages.artifacts.errors import UsageError
from stages.artifacts.folder import open_artifact
from stages.device.imaging.geometry import Size
from stages.device.imaging.spec import CuttingRule, TilingSpec
from stages.device.imaging.tiling import Tiling, plan_tiling
from stages.measure.estimate_check import Compared, compare, read_measured
from stages.measure.estimate_counts import Counts, counts_of
from stages.measure.estimate_device import Device, Overheads, device_names, read_device, write_device
from stages.measure.estimate_fit import fit_device
from stages.measure.estimate_memory import Moment, memory_over_time, peak_of
from stages.measure.estimate_plan import Case
from stages.measure.estimate_shape import ModelShape, artifact_shape, preset_shape
from stages.measure.estimate_time import Seconds, seconds_of

DEFAULT_PRESET = "bluelm-v-3b"
# Table 5 and Sec. 3.4: 768×1536, 2048 tokens, KV 2048, on a vivo X100 (Dimensity 9300).
PAPER = {"peak_mb": 2200.0, "encode": 2.06, "prefill": 2.7, "decode_tok_s": 24.4}
PAPER_CASE = "768×1536 (9 tiles), 2048 tokens, KV 2048, INT4/INT8 weights, INT8 KV, vivo X100"
_GIGA = 1000.0


class EstimateConfig(Case):
    """What is estimated.

    Attributes:
        picture: sizes as WIDTHxHEIGHT, several for several pictures; instead of `tiles`.
        rule, alpha: how they are cut, where the model's own way is not meant.
        device: names of described devices, or files; all that come with bluelm if none.
    """

    picture: tuple[str, ...] = ()
    rule: CuttingRule | None = None
    alpha: float | None = Field(default=None, ge=0)
    device: tuple[str, ...] = ()


@dataclass(frozen=True)
class DeviceEstimate:
    """A configuration on one device.

    Attributes:
        device: what is known of it.
        memory: every stage's peak, part by part.
        seconds: of each stage.
        unknown: what the figures leave out.
    """

    device: Device
    memory: tuple[Moment, ...]
    seconds: tuple[Seconds, ...]
    unknown: tuple[str, ...]

    @property
    def peak(self) -> Moment:
        """The stage that needs most."""
        return peak_of(list(self.memory))

    def as_dict(self, generate: int) -> dict[str, Any]:
        """The estimate as plain data. `decode_tok_s` is an upper bound where a speed is missing."""
        peak, memory_gb = self.peak, self.device.memory_gb
        decode = next(one for one in self.seconds if one.stage == "decode")
        return {
            "device": self.device.name,
            "fitted": list(self.device.fitted),
            "memory": [{"stage": one.stage, "mb": one.total, "parts": one.parts} for one in self.memory],
            "peak_mb": peak.total,
            "peak_stage": peak.stage,
            "runtime_memory_known": self.device.memory is not None,
            "fits": None if memory_gb is None else peak.total <= memory_gb * _GIGA,
            "seconds": [
                {"stage": one.stage, "seconds": one.total, "parts": one.parts, "missing": list(one.missing)}
                for one in self.seconds
            ],
            "decode_tok_s": generate / decode.total if decode.total else None,
            "sources": dict(self.device.sources),
            "unknown": list(self.unknown),
        }


@dataclass(frozen=True)
class Estimate:
    """A configuration on every device that was asked for."""

    shape: ModelShape
    case: Case
    pictures: tuple[Tiling, ...]
    counts: Counts
    devices: tuple[DeviceEstimate, ...]

    @property
    def image_tokens(self) -> int:
        """Of all pictures."""
        return self.case.tiles * self.shape.tiling.tokens_per_tile

    @property
    def is_the_paper_s(self) -> bool:
        """Whether shape, picture and prompt are those of the paper's Table 5."""
        whole = preset_shape(DEFAULT_PRESET)
        same = (self.shape.layers, self.shape.width, self.shape.vision_layers, self.shape.vision_width)
        return same == (whole.layers, whole.width, whole.vision_layers, whole.vision_width) and (
            self.case.tiles,
            self.case.prompt_tokens,
        ) == (9, 2048)

    def as_dict(self) -> dict[str, Any]:
        """The estimate as plain data."""
        return {
            "model": self.shape.name,
            "case": self.case.model_dump(mode="json"),
            "pictures": [
                {
                    "width": one.size.width,
                    "height": one.size.height,
                    "grid": [one.grid.cols, one.grid.rows],
                    "tiles": one.tiles,
                    "tokens": one.tokens,
                }
                for one in self.pictures
            ],
            "tokens": {"image": self.image_tokens, "prompt": self.case.prompt_tokens},
            "bytes": {
                "vision": self.counts.vision_bytes,
                "language": self.counts.language_bytes,
                "kv_per_position": self.counts.kv_bytes,
            },
            "devices": [one.as_dict(self.case.generate) for one in self.devices],
            "paper": {**PAPER, "configuration": PAPER_CASE} if self.is_the_paper_s else None,
        }


@dataclass(frozen=True)
class Fitted:
    """A device whose constants were fitted, and how far its predictions are from the measurements.

    `fitted_on` of them, the first, were used for the fit; `rows` are of the others, or of all where none is left.
    """

    device: Device
    fitted_on: int
    rows: tuple[Compared, ...]
    out: Path | None

    def as_dict(self) -> dict[str, Any]:
        """The fit as plain data."""
        return {
            "device": self.device.model_dump(mode="json"),
            "fitted_on": self.fitted_on,
            "rows": [
                {
                    "case": row.label,
                    "quantity": row.quantity,
                    "predicted": row.predicted,
                    "measured": row.measured,
                    "error": row.error,
                }
                for row in self.rows
            ],
            "out": None if self.out is None else self.out.as_posix(),
        }


def run(config: EstimateConfig, model: Path | None) -> Estimate:
    """Estimates a configuration; nothing is loaded or run.

    Args:
        config: what is estimated.
        model: an exported model or a checkpoint; None for the preset.

    Raises:
        UsageError: the flags contradict each other, or the prompt does not hold the pictures.
        ArtifactError, ModelError: the model cannot be read.
        RecipeError: a device that is not described.
    """
    shape = _shape(config, model)
    pictures = tuple(plan_tiling(_size(one), _tiling(config, shape)) for one in config.picture)
    case = Case.model_validate(config.model_dump(include=set(Case.model_fields)))
    if pictures:
        case = case.model_copy(update={"tiles": sum(one.tiles for one in pictures)})
    image_tokens = case.tiles * shape.tiling.tokens_per_tile
    total = case.prompt_tokens + case.generate
    if image_tokens > case.prompt_tokens:
        raise UsageError(
            f"{case.tiles} tiles take {image_tokens} tokens, and --prompt-tokens is {case.prompt_tokens}.",
            "A prompt holds its pictures' tokens too.",
            "Give a longer prompt, fewer --tiles or a smaller --picture.",
        )
    if total > shape.context:
        raise UsageError(
            f"{case.prompt_tokens} tokens to read and {case.generate} to write are {total}; {shape.name} holds "
            f"{shape.context}.",
            "It could not be run.",
            "Give a smaller --prompt-tokens or --generate.",
        )
    counts = counts_of(shape, case)
    devices = tuple(_on(read_device(name), shape, case) for name in config.device or device_names())
    return Estimate(shape, case, pictures, counts, devices)


def fit(records: Path, name: str, *, fit_on: int | None, out: Path | None) -> Fitted:
    """Fits a device's constants on measured configurations.

    Args:
        records: what `recipes/estimate_check.sh` wrote.
        name: of the device.
        fit_on: how many of the first records to fit on; all if None.
        out: the YAML to write.

    Raises:
        DataError: the records cannot be read.
        UsageError: they are too few.
    """
    measured = read_measured(records)
    used = measured[:fit_on]
    device = fit_device(name, used)
    if out is not None:
        write_device(out, device)
    return Fitted(device, len(used), tuple(compare(device, measured[len(used) :] or measured)), out)


def predictions(records: Path, devices: Sequence[str]) -> list[Compared]:
    """Predicted beside measured for every record, on each of the devices.

    Raises:
        DataError: the records cannot be read.
        RecipeError: a device that is not described.
    """
    measured = read_measured(records)
    return [row for name in devices for row in compare(read_device(name), measured)]


def _shape(config: EstimateConfig, model: Path | None) -> ModelShape:
    if model is None:
        return preset_shape(config.preset or DEFAULT_PRESET).cut_to(config.layers, config.vision_layers)
    if config.preset is not None or config.layers is not None or config.vision_layers is not None:
        raise UsageError(
            f"The model {model} was given together with --preset or --layers.",
            "A model has the shape it has.",
            "Give one of them.",
        )
    return artifact_shape(open_artifact(model, "onnx", "checkpoint", "quantized"))


def _size(text: str) -> Size:
    width, _, height = text.lower().replace("×", "x").partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise UsageError(
            f"--picture is {text!r}.", "Its tiles follow from its size.", "Write WIDTHxHEIGHT, such as 768x1536."
        )
    return Size(int(width), int(height))


def _tiling(config: EstimateConfig, shape: ModelShape) -> TilingSpec:
    changes = {"rule": config.rule, "alpha": config.alpha}
    given = {name: value for name, value in changes.items() if value is not None}
    return TilingSpec.model_validate({**shape.tiling.model_dump(), **given})


def _on(device: Device, shape: ModelShape, case: Case) -> DeviceEstimate:
    counts = counts_of(shape, case, device.int16_passes)
    memory = memory_over_time(shape, case, counts, device.memory or Overheads(), device.expands)
    seconds = seconds_of(device, counts, case)
    unknown = [f"time of {one.stage}: without {' and '.join(one.missing)}" for one in seconds if one.missing]
    if device.memory is None:
        unknown.insert(0, "memory of program, drivers and activations: only the model's own parts are counted")
    if case.policy == "float" and "memory" in device.fitted:
        unknown.append("float products were not fitted: their speed is taken for that of INT8 ones")
    return DeviceEstimate(device, tuple(memory), tuple(seconds), (*unknown, *device.unknown))
