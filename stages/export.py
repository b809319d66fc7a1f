"""export: a checkpoint or a quantized folder becomes ONNX graphs that run without torch (Sec. 3.2–3.4).

    bluelm export build/int4 --out build/onnx

Four graphs with their weights beside them, the tokenizer, and device.json, which is all the runtime needs to know. Each
graph is run in onnxruntime and held against torch; the differences go into the manifest.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from stages.artifacts.errors import UsageError, raise_all
from stages.artifacts.events import Event, Events, Finished, Notice
from stages.artifacts.folder import ArtifactSpec, create, open_artifact, up_to_date
from stages.artifacts.manifest import Manifest, parent_of
from stages.artifacts.recipes import RecipeModel
from stages.device.contract.device_config import DecoderSpec, DevicePlan
from stages.device.contract.kv_scales import KvScales

if TYPE_CHECKING:
    from stages.workshop.graph.checkpoint_weights import CheckpointWeights
    from stages.workshop.graph.graphs import GraphOptions
    from stages.workshop.graph.linear import Floats
    from stages.workshop.graph.verify import ReadPrompt
    from stages.workshop.model.configuration import BlueLMVConfig

DEFAULT_CONTEXT = 4096
# Above this the arithmetic of --activations costs more than 4-bit weights usually do.
LOUD_ARITHMETIC = 0.1
# From here on the float32 model that the graphs are compared with is worth a word.
LARGE_PARAMETERS = 500_000_000


class ExportConfig(RecipeModel):
    """What a recipe may hold.

    Attributes:
        name: what device.json calls the model; by default its kind and size.
        max_context: longest prompt and answer together; by default 4096, or what the language model was made for.
        kv: precision of the KV cache; by default INT8 where the folder has scales for it.
        batch: tiles per call of the vision graphs, fixed; any number by default.
        activations: what the inputs of quantized products are rounded to: policy, as the folder records (INT8 where it
            records nothing); or float, int8, int16 for all.
        embedding: how the embedding table is stored: as the folder says, or float16, INT8 or INT4.
        verify: run every graph, and compact prefill over a short prompt, and compare with torch.
        tolerance: relative difference beyond which the export fails (float32 products of the same weights; prefill,
            which has only INT8 ones, may be off by what rounding costs as well).
    """

    name: str | None = Field(default=None, min_length=1)
    max_context: int | None = Field(default=None, ge=1)
    kv: Literal["int8", "float32"] | None = None
    batch: int | None = Field(default=None, ge=1, le=4096)
    activations: Literal["policy", "float", "float16", "int8", "int16"] = "policy"
    embedding: Literal["stored", "float16", "int8", "int4"] = "stored"
    verify: bool = True
    tolerance: float = Field(default=2e-3, gt=0)


@dataclass(frozen=True)
class ExportPlan:
    """What an export would write: its files and about how large they are, in bytes."""

    device: DevicePlan
    files: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        total = sum(self.files.values())
        return {"files": self.files, "bytes": total, "device": self.device.model_dump(mode="json")}


@dataclass(frozen=True)
class ExportResult:
    """What was written: files in bytes, and how far each graph is from torch."""

    out: Path
    files: dict[str, int]
    checks: tuple[dict[str, Any], ...]

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "out": self.out.as_posix(),
            "files": self.files,
            "bytes": sum(self.files.values()),
            "checks": list(self.checks),
        }


@dataclass(frozen=True)
class _Prepared:
    """A folder that can be exported, everything decided."""

    weights: CheckpointWeights
    model: BlueLMVConfig
    options: GraphOptions
    device: DevicePlan


def plan(config: ExportConfig, checkpoint: Path) -> ExportPlan:
    """Decides everything from configuration and headers; reads no weights.

    Raises:
        ArtifactError: not a checkpoint or quantized folder.
        BluelmError: whatever the graphs cannot express, all of it together.
    """
    from stages.workshop.graph.sizes import file_sizes

    prepared = _prepare(config, checkpoint)
    return ExportPlan(prepared.device, file_sizes(prepared.weights, prepared.model, prepared.options))


def run(config: ExportConfig, checkpoint: Path, out: Path, *, force: bool = False) -> Events[ExportResult]:
    """Exports a checkpoint or a quantized folder.

    Args:
        config: context, cache, arithmetic, verification.
        checkpoint: the folder.
        out: the folder to write.
        force: replace an existing output.

    Raises:
        BluelmError: see `plan`; or a graph differs from torch by more than the tolerance.
    """
    from stages.workshop.graph.device_files import write_device_files
    from stages.workshop.graph.graphs import write_graphs
    from stages.workshop.graph.patch_embed import Normalization

    prepared = _prepare(config, checkpoint)
    parents = (parent_of(checkpoint),)
    spec = ArtifactSpec(kind="onnx", stage="export", config=config.model_dump(mode="json"), parents=parents)
    if (done := up_to_date(out, spec, force=force)) is not None:
        yield Notice(f"{out} is up to date")
        yield Finished(_result(out, done))
        return
    with create(out, spec, force=force) as draft:
        write_device_files(draft.path, prepared.device, prepared.options, checkpoint)
        vision = prepared.device.vision
        pictures = Normalization(vision.image_mean, vision.image_std)
        embedding = yield from write_graphs(prepared.weights, prepared.model, draft.path, prepared.options, pictures)
        prepared.device.written(embedding).write(draft.path)
        if config.verify:
            draft.metrics["checks"] = yield from _verify(config, checkpoint, prepared, draft.path)
    manifest = open_artifact(out, "onnx").manifest
    assert manifest is not None
    yield Finished(_result(out, manifest))


def open_graph(path: Path) -> Any:
    """A graph in onnxruntime on the CPU, as a function from inputs to outputs by name: what `verify_graphs` takes."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    # Errors arrive as exceptions; onnxruntime would print them as well.
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(outputs, session.run(outputs, dict(feeds)), strict=True))


def read_prompt_of(folder: Path, decoder: DecoderSpec) -> ReadPrompt | None:
    """What runs an export's compact prefill for `verify_graphs`; None where it has none.

    Into a float cache: in an INT8 one, a number that is rounded the other way is off by a whole step.
    """
    import numpy as np

    from stages.device.runtime.cache import KVCache
    from stages.device.runtime.prefill import load_prefill

    spec = decoder.model_copy(update={"kv_dtype": "float32"})
    prefill = load_prefill(folder, spec)
    if prefill is None:
        return None

    def read(embeds: Floats) -> Floats:
        """[L, H] → [layers, 2, kv_heads, L, D], in two chunks."""
        cache, length = KVCache(spec, len(embeds)), len(embeds)
        prefill.read(embeds, cache, 0, max(1, length // 2))
        pairs = [(cache.keys(layer)[0], cache.values(layer)[0]) for layer in range(spec.num_layers)]
        return np.stack([np.stack(pair) for pair in pairs])[:, :, :, :length]

    return read


def _prepare(config: ExportConfig, checkpoint: Path) -> _Prepared:
    """Opens the folder and settles all that the configuration leaves open."""
    from stages.workshop.graph.checkpoint_settings import read_imaging, read_model_config, read_prompt
    from stages.workshop.graph.checkpoint_weights import EMBEDDING, CheckpointWeights
    from stages.workshop.graph.device_files import device_config
    from stages.workshop.graph.graphs import GraphOptions, model_shape
    from stages.workshop.quant.policy import Scheme

    open_artifact(checkpoint, "checkpoint", "quantized")
    model = read_model_config(checkpoint)
    context = config.max_context or min(DEFAULT_CONTEXT, int(model.text_config.max_position_embeddings))
    shape = model_shape(model, context)
    schemes = {
        "stored": {},
        "float16": {EMBEDDING: Scheme(weights="float")},
        "int8": {EMBEDDING: Scheme(weights="int8")},
        "int4": {EMBEDDING: Scheme(weights="int4", group_size=32)},
    }
    weights = CheckpointWeights(checkpoint, schemes[config.embedding])
    options = GraphOptions(
        max_context=context,
        kv_scales=_kv_scales(config, checkpoint, weights, shape.decoder.layers),
        activations=config.activations,
        batch=config.batch,
        half_embedding=config.embedding == "float16",
    )
    name = config.name or f"bluelm-v-{_size_name(shape.parameters)}"
    device = device_config(name, model, read_imaging(checkpoint), read_prompt(checkpoint, model), options)
    return _Prepared(weights, model, options, device)


def _kv_scales(config: ExportConfig, checkpoint: Path, weights: CheckpointWeights, layers: int) -> KvScales | None:
    """The cache's scales: those of the folder, unless float32 is asked for.

    Raises:
        UsageError: INT8 is asked for and the folder has no scales.
    """
    scales = None if config.kv == "float32" else weights.kv_scales(layers)
    if config.kv == "int8" and scales is None:
        raise UsageError(
            f"--kv int8: {checkpoint} has no scales for an INT8 KV cache.",
            "They come from real prompts, and guessed ones would clip keys and values.",
            f"Make them with: bluelm quantize {checkpoint} --data CORPUS --out FOLDER, or export with --kv float32",
        )
    return scales


def _verify(
    config: ExportConfig, checkpoint: Path, prepared: _Prepared, folder: Path
) -> Generator[Event[Any], None, list[dict[str, Any]]]:
    """Compares each graph with torch; returns the differences.

    Raises:
        ModelError: a graph is not what torch computes.
    """
    from stages.workshop.graph.graphs import model_shape
    from stages.workshop.graph.reference import checkpoint_reference
    from stages.workshop.graph.twin import ExactTwins
    from stages.workshop.graph.verify import beyond, verify_graphs

    parameters = model_shape(prepared.model, prepared.options.max_context).parameters
    if parameters >= LARGE_PARAMETERS:
        size = 4 * parameters / 1e9
        yield Notice(f"comparing with torch: the float32 model takes {size:.1f} GB of memory (--no-verify does not)")
    reference = checkpoint_reference(
        checkpoint, prepared.weights, prepared.options.kv_scales, prepared.options.activations
    )
    checks, problems = [], []
    twins = ExactTwins(prepared.weights, prepared.model, prepared.options)
    read_prompt = read_prompt_of(folder, prepared.device.decoder)
    for check in verify_graphs(folder, prepared.device, reference, twins, open_graph, read_prompt):
        checks.append(check.as_dict())
        simulated = "" if check.simulated is None else f", {check.simulated:.1e} from torch rounding them too"
        cost = f"; {check.arithmetic:.1e} as it rounds inputs{simulated}" if check.approximate else ""
        yield Notice(
            f"{check.graph}: {check.output} is {check.relative:.1e} from torch ({check.max_abs:.1e} at most){cost}"
        )
        if check.arithmetic > LOUD_ARITHMETIC:
            yield Notice(
                f"{check.graph}: rounding costs over {LOUD_ARITHMETIC:.0%}; --activations int16 or float costs less",
                "warning",
            )
        problems.append(beyond(check, config.tolerance))
    raise_all([problem for problem in problems if problem is not None])
    return checks


def _result(out: Path, manifest: Manifest) -> ExportResult:
    files = {name: entry.size for name, entry in manifest.files.items()}
    return ExportResult(out, files, tuple(manifest.metrics.get("checks", ())))


def _size_name(parameters: int) -> str:
    """6_500_000 → 6.5m, 2_700_000_000 → 2.7b."""
    unit, suffix = (1e9, "b") if parameters >= 1e9 else (1e6, "m")
    return f"{parameters / unit:.1f}{suffix}"
