"""export --target npu: a quantized folder becomes static QDQ graphs, and binaries for a phone's NPU (Sec. 3.4).

    bluelm export build/int4 --target npu --data build/corpus --soc snapdragon-8-gen-3 --verify --out build/npu

Ranges of every value come from prompts of the corpus; a checker looks at every node; Qualcomm's compiler makes context
binaries with nothing left to the CPU; --verify answers held-out questions on its simulator.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from stages.artifacts.errors import BluelmError, DataError, ModelError, UsageError, raise_all
from stages.artifacts.events import Event, Events, Finished, Notice, Progress
from stages.artifacts.folder import ArtifactSpec, create, open_artifact, up_to_date
from stages.artifacts.manifest import Manifest, parent_of
from stages.artifacts.recipes import RecipeModel
from stages.device.contract.device_config import DevicePlan
from stages.device.contract.kv_scales import KvScales
from stages.device.prompt.messages import assistant, user
from stages.evaluate.questions import Question, read_questions

if TYPE_CHECKING:
    from stages.workshop.npu.calibration import Prompt
    from stages.workshop.npu.chips import Chip
    from stages.workshop.npu.compiler import HtpProcess
    from stages.workshop.npu.graphs import NpuModel

DEFAULT_CAPACITY = 2048
# Below this share of tokens as in the simulation, --verify fails.
AGREEMENT = 0.98


class ExportNpuConfig(RecipeModel):
    """What a recipe may hold.

    Attributes:
        target: npu.
        name: what npu.json calls the model; by default its size.
        max_context: positions of the KV cache; by default 2048, or what the language model was made for.
        chunk: tokens of a prefill call.
        batch: tiles of a vision call.
        samples: training prompts that calibrate.
        soc: chips to compile for.
        verify: answer held-out questions on the simulator too.
        questions: how many of them.
        tokens: how long the answers are that are compared.
    """

    target: Literal["npu"] = "npu"
    name: str | None = Field(default=None, min_length=1)
    max_context: int | None = Field(default=None, ge=1)
    chunk: int = Field(default=128, ge=1, le=4096)
    batch: int = Field(default=1, ge=1, le=256)
    samples: int = Field(default=64, ge=1)
    soc: tuple[str, ...] = ()
    verify: bool = False
    questions: int = Field(default=20, ge=1)
    tokens: int = Field(default=8, ge=1)


@dataclass(frozen=True)
class ExportNpuPlan:
    """What would be written: chips, and about how large each graph's weights and cache are, in bytes."""

    config: ExportNpuConfig
    device: DevicePlan
    capacity: int
    sizes: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "device": self.device.model_dump(mode="json"),
            "capacity": self.capacity,
            "contexts": self.sizes,
            "bytes": sum(self.sizes.values()),
            "config": self.config.model_dump(mode="json"),
        }


@dataclass(frozen=True)
class ExportNpuResult:
    """What was written: files in bytes; compile seconds (of this run) and agreement by chip."""

    out: Path
    files: dict[str, int]
    chips: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {"out": self.out.as_posix(), "files": self.files, "bytes": sum(self.files.values()), "chips": self.chips}


@dataclass(frozen=True)
class _Prepared:
    """A folder that can be exported, everything decided."""

    model: NpuModel
    device: DevicePlan
    chips: Mapping[str, Chip]
    sizes: dict[str, int]
    calibrating: list[Question]
    asked: list[Question]
    kv_scales: KvScales | None


def plan(config: ExportNpuConfig, checkpoint: Path, corpus: Path | None, python: Path | None = None) -> ExportNpuPlan:
    """Decides everything from configuration and headers; reads no weights.

    Raises:
        BluelmError: everything that cannot work, together: chip, compiler, model, corpus.
    """
    prepared = _prepare(config, checkpoint, corpus, python)
    return ExportNpuPlan(config, prepared.device, prepared.model.capacity, prepared.sizes)


def run(
    config: ExportNpuConfig,
    checkpoint: Path,
    corpus: Path | None,
    out: Path,
    *,
    python: Path | None = None,
    force: bool = False,
) -> Events[ExportNpuResult]:
    """Exports a quantized folder for an NPU.

    Args:
        config: sizes, calibration, chips.
        checkpoint: the quantized folder.
        corpus: prompts to calibrate with; held-out questions to verify with.
        out: the folder to write.
        python: an interpreter with onnxruntime-qnn; this one where None.
        force: replace an existing output.

    Raises:
        BluelmError: see `plan`; or the compiler refuses, or simulator and simulation disagree.
    """
    from stages.workshop.npu.files import write_words
    from stages.workshop.npu.writing import CalibrationSource, write_model

    prepared = _prepare(config, checkpoint, corpus, python)
    assert corpus is not None
    parents = (parent_of(checkpoint), parent_of(corpus))
    spec = ArtifactSpec(kind="npu", stage="export", config=config.model_dump(mode="json"), parents=parents)
    if (done := up_to_date(out, spec, force=force)) is not None:
        yield Notice(f"{out} is up to date")
        yield Finished(_result(out, done))
        return
    count, prompts = len(prepared.calibrating), _prompts(checkpoint, prepared.calibrating)
    source = CalibrationSource(checkpoint, prompts, count, prepared.kv_scales, open_observer)
    with create(out, spec, force=force) as draft:
        written = yield from write_model(prepared.model, prepared.device, source, draft.path)
        chips = yield from _compile(config, prepared, draft.path, python)
        # Times are this run's: the artifact is the same without them.
        draft.metrics["chips"] = {chip: {**report, "seconds": {}} for chip, report in chips.items()}
        write_words(draft.path, written, list(prepared.chips))
    manifest = open_artifact(out, "npu").manifest
    assert manifest is not None
    yield Finished(replace(_result(out, manifest), chips=chips))


def open_observer(path: Path) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """An observing graph in onnxruntime: weights stay packed, products are float."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    # 4 would round the inputs of products to INT8, and the ranges would be those of another model.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(outputs, session.run(outputs, dict(feeds)), strict=True))


def _prepare(config: ExportNpuConfig, checkpoint: Path, corpus: Path | None, python: Path | None) -> _Prepared:
    """Settles all that the configuration leaves open; all problems together, before anything is computed."""
    from stages.workshop.npu.chips import chip_of, context_problems
    from stages.workshop.npu.compiler import missing_compiler

    problems: list[BluelmError] = []
    found: dict[str, Any] = {"chips": {}, "model": None, "calibrating": [], "asked": []}

    def attempt(name: str, make: Callable[[], Any]) -> None:
        try:
            found[name] = make()
        except BluelmError as error:
            problems.append(error)

    for soc in config.soc:
        attempt(soc, lambda soc=soc: chip_of(soc))  # type: ignore[misc]
    if config.soc and (missing := missing_compiler(python)) is not None:
        problems.append(missing)
    if config.verify and not config.soc:
        problems.append(
            UsageError(
                "--verify has nothing to run: no chip is named.",
                "It runs context binaries on Qualcomm's simulator.",
                "Name a chip: --soc snapdragon-8-gen-3",
            )
        )
    attempt("model", lambda: _model(config, checkpoint))
    attempt("calibrating", lambda: _rows(corpus, "train", config.samples))
    if config.verify:
        attempt("asked", lambda: _rows(corpus, "heldout", config.questions))
    sizes: dict[str, int] = {}
    if found["model"] is not None:
        sizes = found["model"][2]
        for soc in config.soc[:1]:
            problems += context_problems(soc, sizes)
    raise_all(problems)
    model, device, _, kv_scales = found["model"]
    chips = {soc: found[soc] for soc in config.soc}
    return _Prepared(model, device, chips, sizes, found["calibrating"], found["asked"], kv_scales)


def _model(config: ExportNpuConfig, checkpoint: Path) -> tuple[NpuModel, DevicePlan, dict[str, int], KvScales | None]:
    """Opens the folder; with the sizes of its binaries, and its scales of the cache.

    Raises:
        BluelmError: not a quantized folder, or a part that the static graphs cannot express.
    """
    from stages.workshop.graph.checkpoint_settings import read_imaging, read_model_config, read_prompt
    from stages.workshop.graph.checkpoint_weights import CheckpointWeights
    from stages.workshop.graph.device_files import device_config
    from stages.workshop.graph.graphs import GraphOptions, model_shape
    from stages.workshop.graph.patch_embed import Normalization
    from stages.workshop.npu.graphs import NpuModel
    from stages.workshop.npu.sizes import context_sizes, shape_problems

    open_artifact(checkpoint, "quantized")
    model = read_model_config(checkpoint)
    capacity = config.max_context or min(DEFAULT_CAPACITY, int(model.text_config.max_position_embeddings))
    shape = model_shape(model, capacity)
    weights = CheckpointWeights(checkpoint)
    raise_all(shape_problems(weights, shape))
    size = shape.parameters
    name = config.name or (f"bluelm-v-{size / 1e9:.1f}b" if size >= 1e9 else f"bluelm-v-{size / 1e6:.1f}m")
    kv_scales = weights.kv_scales(shape.decoder.layers)
    options = GraphOptions(max_context=capacity, kv_scales=kv_scales, batch=config.batch)
    device = device_config(name, model, read_imaging(checkpoint), read_prompt(checkpoint, model), options)
    pictures = Normalization(device.vision.image_mean, device.vision.image_std)
    static = NpuModel(weights, shape, pictures, config.batch, min(config.chunk, capacity), capacity)
    return static, device, context_sizes(weights, static), kv_scales


def _rows(corpus: Path | None, split: str, count: int) -> list[Question]:
    """Evenly spaced questions of a split.

    Raises:
        UsageError: no corpus.
        DataError: no rows.
    """
    if corpus is None:
        raise UsageError(
            "--data is missing.",
            "The ranges of an NPU's integers come from real prompts.",
            "Give a corpus: --data CORPUS (bluelm data render makes one)",
        )
    rows = read_questions(open_artifact(corpus, "corpus").path, split)
    if not rows:
        raise DataError(
            f"{corpus / split}.json has no rows.", "There is nothing to run.", "Give a corpus with rows in it."
        )
    count = min(count, len(rows))
    return [rows[index * len(rows) // count] for index in range(count)]


def _prompts(checkpoint: Path, rows: list[Question]) -> Iterator[Prompt]:
    """Questions with their answers as the model reads them, the pictures cut as on a device."""
    from stages.device.imaging.crop import padding_colour
    from stages.device.imaging.cutting import cut_picture
    from stages.workshop.model.checkpoint import load_processor
    from stages.workshop.npu.calibration import Prompt

    processor = load_processor(checkpoint)
    images = processor.image_processor
    pad = padding_colour(images.image_mean)
    for row in rows:
        cut = [cut_picture(path, str(path), images.plan, pad, images.resample) for path in row.pictures]
        turns = [user(row.text, len(cut)), assistant(row.truth)]
        ids = processor.prompts.encode(turns, [one.tiling.tokens for one in cut]).ids
        yield Prompt(ids, np.concatenate([one.tiles for one in cut]) if cut else None)


def _compile(
    config: ExportNpuConfig, prepared: _Prepared, folder: Path, python: Path | None
) -> Generator[Event[Any], None, dict[str, Any]]:
    """Context binaries for each chip; returns seconds and, with --verify, the agreement by chip."""
    from stages.workshop.npu.compiler import GROUPS, HtpProcess

    report: dict[str, Any] = {}
    for name, chip in prepared.chips.items():
        place = folder / name
        place.mkdir()
        seconds: dict[str, float] = {}
        with HtpProcess(python) as htp:
            for done, group in enumerate(GROUPS, start=1):
                seconds |= htp.compile(chip, {graph: folder / f"{graph}.onnx" for graph in group}, place)
                yield Progress(f"compiling for {name}", done, len(GROUPS), "binaries")
            report[name] = {"seconds": {graph: round(value, 2) for graph, value in seconds.items()}}
            if config.verify:
                agreement = yield from _verify(config, prepared, folder, name, htp)
                report[name]["agreement"] = agreement
                yield Notice(
                    f"{name}: {agreement['same']} of {agreement['tokens']} tokens on the simulator are those of the "
                    f"simulation, over {agreement['questions']} questions"
                )
                if agreement["same"] < AGREEMENT * agreement["tokens"]:
                    raise ModelError(
                        f"{name}: only {agreement['same']} of {agreement['tokens']} tokens agree with the simulation.",
                        "The phone would give other answers than those that were measured.",
                        "Calibrate with more prompts (--set samples=256), or export without --verify to look into it.",
                    )
    return report


def _verify(
    config: ExportNpuConfig, prepared: _Prepared, folder: Path, name: str, htp: HtpProcess
) -> Generator[Event[Any], None, dict[str, Any]]:
    """Answers held-out questions on the simulator and with the CPU provider.

    A token counts where all before it agree: after a difference, two answers are about different texts.
    """
    from stages.device.runtime.static_model import StaticModel, cpu_graphs
    from stages.device.runtime.static_questions import StaticQuestions, agreeing_tokens

    plain, simulated = (StaticQuestions(folder, StaticModel(folder, run)) for run in (cpu_graphs(folder), htp.run))
    same = tokens = whole = 0
    for done, row in enumerate(prepared.asked, start=1):
        answers = [one.answer(row.text, row.pictures, config.tokens) for one in (plain, simulated)]
        agreeing, compared = agreeing_tokens(*answers, most=config.tokens)
        same, tokens, whole = same + agreeing, tokens + compared, whole + (agreeing == compared)
        yield Progress(f"verifying {name}", done, len(prepared.asked), "questions")
    return {"questions": len(prepared.asked), "tokens": tokens, "same": same, "whole_answers": whole}


def _result(out: Path, manifest: Manifest) -> ExportNpuResult:
    files = {name: entry.size for name, entry in manifest.files.items()}
    return ExportNpuResult(out, files, dict(manifest.metrics.get("chips", {})))
