"""quantize: a float checkpoint becomes a folder of INT4 and INT8 weights and scales of an INT8 KV cache (Sec. 3.4).

    bluelm quantize build/stage2 --data build/corpus --out build/int4

Weights are streamed tensor by tensor, and prompts go through one layer after the other: memory stays near the largest
layer and the prompts' hidden states. A run with prompts that was killed goes on where it was.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psutil

from stages.artifacts.errors import ArtifactError, BluelmError, DataError, UsageError, raise_all
from stages.artifacts.events import Event, Events, Finished, Notice, Progress
from stages.artifacts.folder import ArtifactSpec, Draft, create, open_artifact, up_to_date
from stages.artifacts.manifest import parent_of
from stages.device.prompt.messages import assistant, user
from stages.evaluate.answering import beside_their_pictures
from stages.evaluate.asking import choose
from stages.evaluate.judge import Judge
from stages.evaluate.quantization_page import write_pages
from stages.evaluate.questions import Question, read_questions
from stages.measure.estimate_shape import artifact_shape
from stages.measure.quantized_memory import predicted_peak
from stages.workshop.quant.activation_policy import unused
from stages.workshop.quant.block_files import BlockFiles
from stages.workshop.quant.fidelity import Fidelity, MemoryReport
from stages.workshop.quant.plan import plan_weights
from stages.workshop.quant.preflight import bad_weights, method_problems, picture_problems
from stages.workshop.quant.quantize_plan import QuantizePlan
from stages.workshop.quant.recipe import QuantizeConfig
from stages.workshop.quant.report import Report, build_report, read_report
from stages.workshop.quant.tensor_files import ITEM_BYTES, TensorFolder, TensorSource

if TYPE_CHECKING:
    from stages.workshop.quant.calibration import Calibration

Returned = TypeVar("Returned")
Stream = Generator[Event[Any], None, Returned]

SPLIT = "train"
BLOCKS = "blocks"
# The float model is read for comparison only where it leaves room.
MEMORY_SHARE = 0.8
UNSCALED = "no layer before them can take their scales"
KV_NOTE = "no corpus given: the KV cache stays float and no layer's errors are measured"


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
    from stages.workshop.quant.modules import checkpoint_config, empty_model, weighted_modules

    open_artifact(checkpoint, "checkpoint")
    if "quantization_config" in read_config(checkpoint):
        raise ArtifactError(
            f"{checkpoint} is quantized already.",
            "Its weights are rounded; rounding them again would lose more.",
            "Quantize the float checkpoint it was made from.",
        )
    turned = config.rotation != "none"
    tied = bool(checkpoint_config(checkpoint).text_config.tie_word_embeddings)
    model = empty_model(checkpoint_config(checkpoint, untied=turned))
    if turned:
        from stages.workshop.quant.methods.rotation import rotation_problems

        raise_all(rotation_problems(TensorFolder(checkpoint), model))
    weights = plan_weights(
        _source(config, checkpoint).infos,
        weighted_modules(model),
        config.rules,
        config.scale_dtype,
        only_llm=config.part == "llm",
        untied=turned and tied,
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
    source = _source(config, checkpoint)
    raise_all(bad_weights(source, decided.weights))
    if corpus is None:
        yield Notice(KV_NOTE)
    with create(out, spec, force=force, resumable=bool(prompts)) as draft:
        if draft.resumed:
            yield Notice(f"goes on with what an earlier run left in {draft.path}")
        files = BlockFiles(draft.path / BLOCKS)
        calibration = yield from _calibrate(decided, source, checkpoint, prompts, files, device)
        errors = yield from _write(decided, source, checkpoint, files, draft)
        if calibration is not None:
            errors |= calibration.weight_errors
            if config.kv == "int8":
                calibration.kv_scales().write(draft.path)
            if unscaled := decided.scaled_by_none(calibration):
                yield Notice(f"awq: {len(unscaled)} Linears ({unscaled[0]}, …) are rounded to nearest: {UNSCALED}")
        activations = decided.activations(calibration)
        write_config(checkpoint, decided.weights, decided.own_keys(activations, calibration), draft.path)
        report = build_report(decided.weights, errors, activations, calibration)
        found = yield from _fidelity(config, checkpoint, _held_out(config, corpus), draft, device)
        report = report.model_copy(update={"fidelity": found, "memory": _memory(config, checkpoint, draft.path)})
        report.write(draft.path)
        write_pages(report.as_dict(), draft.path, f"{checkpoint.name}, quantized")
        draft.metrics.update(report.total.model_dump(mode="json"))
        # Last: a kill while the cost is measured keeps the finished blocks.
        shutil.rmtree(files.folder)
    yield Finished(QuantizeResult(out, report))


def _source(config: QuantizeConfig, checkpoint: Path) -> TensorSource:
    """The checkpoint's float tensors, rotated where the recipe says so."""
    folder = TensorFolder(checkpoint)
    if config.rotation == "none":
        return folder
    from stages.workshop.quant.conversion import read_config
    from stages.workshop.quant.methods.rotation import RotatedWeights

    return RotatedWeights(folder, read_config(checkpoint)["text_config"], config.seed)


def _check(config: QuantizeConfig, checkpoint: Path, corpus: Path | None) -> tuple[QuantizePlan, list[Question]]:
    """All that can be wrong before work starts, reported together."""
    from stages.workshop.quant.modules import checkpoint_config

    problems: list[BluelmError] = []
    try:
        decided = plan(config, checkpoint)
        layers = checkpoint_config(checkpoint).vision_layers_used
        problems += method_problems(decided.weights, config.smoothing, layers, prompts=corpus is not None)
    except BluelmError as error:
        problems.append(error)
    try:
        prompts = _prompts(config, corpus)
        problems += picture_problems([len(prompt.pictures) for prompt in prompts])
    except BluelmError as error:
        problems.append(error)
    raise_all(problems)
    return decided, prompts


def _write(
    decided: QuantizePlan, source: TensorSource, checkpoint: Path, files: BlockFiles, draft: Draft
) -> Stream[dict[str, float]]:
    """Weights and companion files; returns the weight error of every module that is rounded here."""
    from stages.workshop.quant.conversion import convert, copy_companions

    config, weights = decided.config, decided.weights
    errors: dict[str, float] = {}
    scales = decided.own_keys({}).scale_format
    written = convert(source, weights, scales, draft.path, int(config.shard_gb * 1e9), files.tensors())
    for done, tensor in enumerate(written, start=1):
        errors |= tensor.weight_errors
        yield Progress("write", done, len(weights.tensors), "tensors")
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
    if corpus is None and config.activation_budget is not None:
        raise UsageError(
            "--data is missing: --activation-budget is a bound on what rounding does to real inputs.",
            "Without prompts nothing is measured, and outliers that need INT16 would go unseen.",
            "Give a corpus (bluelm data render makes one).",
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
    decided: QuantizePlan,
    source: TensorSource,
    checkpoint: Path,
    prompts: list[Question],
    files: BlockFiles,
    device: str,
) -> Stream[Calibration | None]:
    """Takes the prompts through the model, block by block, and rounds each block; returns None without prompts."""
    if not prompts:
        return None
    import torch

    from stages.workshop.quant.block_rounding import Rounding
    from stages.workshop.quant.calibrated_rounding import CalibratedRounding, Chat
    from stages.workshop.quant.modules import checkpoint_config

    config = decided.config
    job = CalibratedRounding(
        config=checkpoint_config(checkpoint, untied=config.rotation != "none"),
        source=source,
        how=Rounding(
            decided.weights, decided.own_keys({}).scale_format, config.smoothing, gptq=config.gptq, awq=config.awq
        ),
        kv=config.kv_scales,
        dtype=getattr(torch, config.dtype),
        device=device,
        error_samples=config.error_samples,
    )
    chats = [
        Chat([user(prompt.text, len(prompt.pictures)), assistant(prompt.truth)], prompt.pictures) for prompt in prompts
    ]
    calibration = job.new_calibration()
    yield from job.run(checkpoint, chats, calibration, files)
    return calibration


def _held_out(config: QuantizeConfig, corpus: Path | None) -> list[Question]:
    """The questions that fidelity is measured on; those of training where the corpus has no such split."""
    if corpus is None or not config.measure.questions or config.part != "model":
        return []
    split = config.measure.split if (corpus / f"{config.measure.split}.json").is_file() else SPLIT
    return beside_their_pictures(choose(read_questions(corpus, split), (), config.measure.questions))


def _fidelity(
    config: QuantizeConfig, checkpoint: Path, questions: list[Question], draft: Draft, device: str
) -> Stream[Fidelity | None]:
    """What the written folder costs beside the float model; None where nothing is measured."""
    if not questions:
        return None
    import torch

    from stages.workshop.quant.cost import Costing

    needed = 4 * sum(info.bytes // ITEM_BYTES[info.dtype] for info in TensorFolder(checkpoint).infos.values())
    if needed > MEMORY_SHARE * psutil.virtual_memory().available and device == "cpu":
        yield Notice(
            f"the float32 model takes {needed / 1e9:.1f} GB: nothing measured (bluelm bench agreement does later)"
        )
        return None
    costing = Costing(checkpoint, draft.path, config.measure, device, getattr(torch, config.dtype))
    with tempfile.TemporaryDirectory(prefix="bluelm-quantize-") as folder:
        judge = Judge(questions, Path(folder))
        found = yield from costing.measure(judge)
    # The last comparison is that of the whole model.
    judge.write(draft.path)
    return found


def _memory(config: QuantizeConfig, checkpoint: Path, folder: Path) -> MemoryReport | None:
    """Predicted peak of the exported model; None of a part alone, and of a model that cannot be exported."""
    if config.part != "model":
        return None
    from stages.workshop.graph.checkpoint_settings import read_model_config
    from stages.workshop.graph.checkpoint_weights import CheckpointWeights
    from stages.workshop.graph.graphs import GraphOptions
    from stages.workshop.graph.sizes import file_sizes

    shape = artifact_shape(open_artifact(checkpoint, "checkpoint"))
    context = min(config.measure.context, shape.context)
    try:
        files = file_sizes(CheckpointWeights(folder), read_model_config(folder), GraphOptions(max_context=context))
    except BluelmError:
        # No graph can hold it (the export says why), so there is nothing to predict.
        return None
    return MemoryReport.model_validate(predicted_peak(shape, files, config.kv, context))
