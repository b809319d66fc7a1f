"""quantize: a float checkpoint becomes a folder of INT4 and INT8 weights and scales of an INT8 KV cache (Sec. 3.4).

    bluelm quantize build/stage2 --data build/corpus --out build/int4

Weights are streamed tensor by tensor; only the calibration needs the model in memory.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import Field, model_validator

from stages.artifacts.errors import ArtifactError, BluelmError, DataError, UsageError, raise_all
from stages.artifacts.events import Event, Events, Finished, Notice, Progress
from stages.artifacts.folder import ArtifactSpec, Draft, create, open_artifact, up_to_date
from stages.artifacts.manifest import parent_of
from stages.artifacts.recipes import RecipeModel
from stages.device.contract.activations import Activations
from stages.device.prompt.messages import assistant, user
from stages.evaluate.questions import Question, read_questions
from stages.workshop.quant.activation_policy import ActivationRule, resolve, unused
from stages.workshop.quant.plan import WeightPlan, plan_weights
from stages.workshop.quant.policy import Rule
from stages.workshop.quant.quantization_config import OwnKeys
from stages.workshop.quant.report import PartReport, Report, build_report, read_report, sum_all, sum_parts
from stages.workshop.quant.tensor_files import TensorFolder

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from stages.workshop.model.processing import BlueLMVProcessor
    from stages.workshop.quant.calibration import Calibration

Returned = TypeVar("Returned")
Stream = Generator[Event[Any], None, Returned]

SPLIT = "train"
KV_NOTE = "no corpus given: the KV cache stays float and no layer's errors are measured"


class QuantizeConfig(RecipeModel):
    """What a recipe may hold.

    Attributes:
        rules: the policy; the first rule that matches a module decides.
        activations: what the inputs of each Linear are rounded to on the device; the first rule that matches decides.
            INT8 where none does.
        kv: int8 calibrates scales for an INT8 cache, float32 leaves them out.
        scales: two-level puts the scales of INT4 blocks on a grid per row, which prefill needs to expand them to INT8;
            free takes each block's best.
        scale_dtype: type of the weight scales in the file.
        samples: prompts of the corpus that calibrate.
        error_samples: on how many of them the errors of every layer's inputs and outputs are measured.
        part: model, or llm for the language model alone as a plain transformers folder.
        dtype: of the model during calibration.
        shard_gb: size of the weight files in 10^9 bytes.
    """

    rules: tuple[Rule, ...] = Field(min_length=1)
    activations: tuple[ActivationRule, ...] = ()
    scales: Literal["two-level", "free"] = "two-level"
    kv: Literal["int8", "float32"] = "int8"
    scale_dtype: Literal["float16", "float32"] = "float16"
    samples: int = Field(default=64, ge=1)
    error_samples: int = Field(default=8, ge=0)
    part: Literal["model", "llm"] = "model"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    shard_gb: float = Field(default=2.0, gt=0)

    @model_validator(mode="after")
    def _bounds_are_measured(self) -> QuantizeConfig:
        if not self.error_samples and any(rule.int16_above is not None for rule in self.activations):
            raise ValueError("error_samples: 0 measures nothing that int16_above could be held against")
        return self


@dataclass(frozen=True)
class QuantizePlan:
    """What would be written: every tensor with its scheme and bytes."""

    weights: WeightPlan
    config: QuantizeConfig

    @property
    def parts(self) -> tuple[PartReport, ...]:
        """Totals per part of the model."""
        return sum_parts(self.weights.tensors)

    @property
    def total(self) -> PartReport:
        """Totals of the whole."""
        return sum_all(self.weights.tensors)

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "tensors": [tensor.as_dict() for tensor in self.weights.tensors],
            "at_export": {name: str(scheme) for name, scheme in self.weights.at_export.items()},
            "parts": [part.model_dump(mode="json") for part in self.parts],
            "total": self.total.model_dump(mode="json"),
            "kv": self.config.kv,
            "config": self.config.model_dump(mode="json"),
        }


@dataclass(frozen=True)
class QuantizeResult:
    """What was written: the folder and its report."""

    out: Path
    report: Report

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {"out": self.out.as_posix(), **self.report.as_dict()}


def plan(config: QuantizeConfig, checkpoint: Path) -> QuantizePlan:
    """Decides every tensor from configuration and headers; reads no weights.

    Raises:
        ArtifactError: not a checkpoint, or one that is quantized already.
        RecipeError: the policy does not fit the model; all that does not fit, together.
        ModelError: damaged files.
    """
    from stages.workshop.quant.conversion import read_config
    from stages.workshop.quant.modules import checkpoint_modules

    open_artifact(checkpoint, "checkpoint")
    if "quantization_config" in read_config(checkpoint):
        raise ArtifactError(
            f"{checkpoint} is quantized already.",
            "Its weights are rounded; rounding them again would lose more.",
            "Quantize the float checkpoint it was made from.",
        )
    weights = plan_weights(
        TensorFolder(checkpoint).infos,
        checkpoint_modules(checkpoint),
        config.rules,
        config.scale_dtype,
        only_llm=config.part == "llm",
    )
    raise_all(unused(config.activations, weights.linears))
    return QuantizePlan(weights, config)


def run(
    config: QuantizeConfig,
    checkpoint: Path,
    corpus: Path | None,
    out: Path,
    *,
    device: str = "cpu",
    threads: int | None = None,
    force: bool = False,
) -> Events[QuantizeResult]:
    """Quantizes a checkpoint.

    Args:
        config: policy and calibration.
        checkpoint: a float checkpoint.
        corpus: real prompts; may be None when the cache stays float (then no output errors are measured).
        out: the folder to write.
        device: where the float model runs during calibration.
        threads: CPU threads; None leaves torch's default.
        force: replace an existing output.

    Raises:
        BluelmError: see `plan`; or the corpus cannot be used. All of it before anything is written.
    """
    from stages.workshop.quant.conversion import write_config

    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    decided, prompts = _check(config, checkpoint, corpus)
    parents = tuple(parent_of(path) for path in (checkpoint, corpus) if path is not None)
    spec = ArtifactSpec(kind="quantized", stage="quantize", config=config.model_dump(mode="json"), parents=parents)
    if up_to_date(out, spec, force=force) is not None:
        yield Notice(f"{out} is up to date")
        yield Finished(QuantizeResult(out, read_report(out)))
        return
    if corpus is None:
        yield Notice(KV_NOTE)
    with create(out, spec, force=force) as draft:
        errors = yield from _write(config, checkpoint, decided.weights, draft)
        calibration = yield from _calibrate(config, checkpoint, prompts, decided.weights, draft, device)
        activations = _activations(decided, calibration)
        # Again, now that the measured part of the policy is decided.
        write_config(checkpoint, decided.weights, _own_keys(config, activations), draft.path)
        report = build_report(decided.weights, errors, activations, calibration)
        report.write(draft.path)
        draft.metrics.update(report.total.model_dump(mode="json"))
    yield Finished(QuantizeResult(out, report))


def _check(config: QuantizeConfig, checkpoint: Path, corpus: Path | None) -> tuple[QuantizePlan, list[Question]]:
    """All that can be wrong before work starts, reported together."""
    problems: list[BluelmError] = []
    try:
        decided = plan(config, checkpoint)
    except BluelmError as error:
        problems.append(error)
    try:
        prompts = _prompts(config, corpus)
    except BluelmError as error:
        problems.append(error)
    raise_all(problems)
    return decided, prompts


def _write(config: QuantizeConfig, checkpoint: Path, weights: WeightPlan, draft: Draft) -> Stream[dict[str, float]]:
    """Weights, configuration and companion files; returns the weight error of every quantized module."""
    from stages.workshop.quant.conversion import convert, copy_companions, write_config

    own = _own_keys(config, {})
    errors: dict[str, float] = {}
    source = TensorFolder(checkpoint)
    written = convert(source, weights, own.scale_format, draft.path, int(config.shard_gb * 1e9))
    for done, tensor in enumerate(written, start=1):
        errors |= tensor.weight_errors
        yield Progress("quantize", done, len(weights.tensors), "tensors")
    # QuantizedFolder, which calibration reads the weights with, needs it.
    write_config(checkpoint, weights, own, draft.path)
    copy_companions(checkpoint, weights, draft.path)
    return errors


def _prompts(config: QuantizeConfig, corpus: Path | None) -> list[Question]:
    """Evenly spaced training rows of a corpus; none where neither corpus nor scales are asked for.

    Raises:
        UsageError: scales need prompts, and there is no corpus.
        DataError: the corpus has no rows.
    """
    if corpus is None and config.kv == "int8":
        raise UsageError(
            "--data is missing.",
            "The scales of the INT8 KV cache come from real prompts.",
            "Give a corpus (bluelm data render makes one), or keep the cache float: --kv float32",
        )
    bound = next((rule for rule in config.activations if rule.int16_above is not None), None)
    if corpus is None and bound is not None:
        raise UsageError(
            f"--data is missing: int16_above for {bound.modules!r} is a bound on what rounding does to real inputs.",
            "Without prompts nothing is measured, and outliers that need INT16 would go unseen.",
            "Give a corpus (bluelm data render makes one), or a recipe without int16_above: --recipe quantize.yaml",
        )
    if corpus is None:
        return []
    rows = read_questions(open_artifact(corpus, "corpus").path, SPLIT)
    if not rows:
        raise DataError(
            f"{corpus / SPLIT}.json has no rows.",
            "The scales of the INT8 KV cache come from real prompts.",
            "Give a corpus with training rows, or keep the cache float: --kv float32",
        )
    count = min(config.samples, len(rows))
    return [rows[index * len(rows) // count] for index in range(count)]


def _calibrate(
    config: QuantizeConfig,
    checkpoint: Path,
    prompts: list[Question],
    weights: WeightPlan,
    draft: Draft,
    device: str,
) -> Stream[Calibration | None]:
    """Runs the prompts through the float model and writes the KV scales; returns None without prompts."""
    if not prompts:
        return None
    import torch

    from stages.workshop.model.checkpoint import load_checkpoint
    from stages.workshop.quant.calibration import calibrate
    from stages.workshop.quant.quantized_folder import QuantizedFolder

    model, processor = load_checkpoint(checkpoint, getattr(torch, config.dtype), device)
    written = QuantizedFolder(draft.path)
    linears = [name for name in (*weights.packed, *weights.at_export) if name in weights.linears]
    samples = (_inputs(processor, prompt, model) for prompt in prompts)
    seen = None
    for seen in calibrate(
        model, samples, lambda name: written.weight(weights.written_name(name)), linears, config.error_samples
    ):
        yield Progress("calibrate", seen.samples, len(prompts), "prompts")
    if seen is not None and config.kv == "int8":
        seen.kv_scales().write(draft.path)
    return seen


def _inputs(processor: BlueLMVProcessor, prompt: Question, model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """A question with its answer as model inputs."""
    import torch

    from stages.device.imaging.loading import load_image

    turns = [user(prompt.text, len(prompt.pictures)), assistant(prompt.truth)]
    sample = processor.encode_chat(turns, [load_image(path) for path in prompt.pictures])
    inputs = {"input_ids": torch.tensor([sample.input_ids])}
    if sample.pixel_values is not None:
        inputs["pixel_values"] = torch.from_numpy(sample.pixel_values).to(model.dtype)
    return {name: tensor.to(model.device) for name, tensor in inputs.items()}


def _activations(decided: QuantizePlan, calibration: Calibration | None) -> dict[str, Activations]:
    """What the inputs of every quantized Linear are rounded to, by the policy and what was measured."""
    weights = decided.weights
    names = [name for name in (*weights.packed, *weights.at_export) if name in weights.linears]
    errors = {name: calibration.input_error(name, "int8") if calibration else None for name in names}
    return resolve(decided.config.activations, names, errors)


def _own_keys(config: QuantizeConfig, activations: Mapping[str, Activations]) -> OwnKeys:
    return OwnKeys(scale_dtype=config.scale_dtype, scales=config.scales, activations=dict(activations), kv=config.kv)
