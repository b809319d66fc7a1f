"""From a checkpoint to a quantized folder: weights streamed tensor by tensor, configuration, and companion files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.artifacts.errors import ModelError
from stages.artifacts.plain_json import parse_json
from stages.workshop.quant import quantization_config
from stages.workshop.quant.packed import SUFFIXES, ScaleFormat, pack, relative_error, round_to_nearest
from stages.workshop.quant.plan import TensorPlan, WeightPlan
from stages.workshop.quant.policy import Scheme
from stages.workshop.quant.quantization_config import OwnKeys
from stages.workshop.quant.tensor_files import ShardWriter, TensorSource

if TYPE_CHECKING:
    import torch

CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
# What a language model needs beside its weights, and what the whole model needs on top.
TEXT_COMPANIONS = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template*",
)
IMAGE_COMPANIONS = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Converted:
    """A tensor that has been written; the errors ‖W − Ŵ‖ / ‖W‖ of the modules that were quantized from it."""

    tensor: str
    weight_errors: dict[str, float]


def convert(
    source: TensorSource,
    plan: WeightPlan,
    scales: ScaleFormat,
    target: Path,
    shard_bytes: int,
    ready: Mapping[str, Path],
) -> Iterator[Converted]:
    """Writes the weights of the quantized folder, yielding after each tensor of the checkpoint.

    Args:
        source: the float checkpoint.
        plan: what becomes of its tensors.
        scales: what weight scales are rounded to.
        target: the folder.
        shard_bytes: size of a weight file.
        ready: files of tensors that are made already, by their names in the checkpoint; the others are made here.

    Raises:
        ModelError: a weight is not finite, or its scale does not fit.
    """
    writer = ShardWriter(target, shard_bytes)
    for tensor in plan.tensors:
        names = [tensor.name] if tensor.scheme.bits is None else [f"{tensor.module}.{suffix}" for suffix in SUFFIXES]
        if names[0] in ready:
            for name in names:
                writer.add(plan.written_name(name), _read_ready(ready[name], name))
            yield Converted(tensor.name, {})
            continue
        weight = source.read(tensor.name)
        errors = _errors_at_export(tensor.name, weight, plan, scales)
        if tensor.scheme.bits is None:
            writer.add(plan.written_name(tensor.name), weight)
        else:
            quantized = round_to_nearest(tensor.name, weight, tensor.scheme, scales)
            errors[tensor.module] = relative_error(weight, quantized)
            for suffix, packed in pack(quantized, scales.dtype).items():
                writer.add(f"{plan.written_name(tensor.module)}.{suffix}", packed)
        yield Converted(tensor.name, errors)
    _check_sizes(plan, writer.close())


def _read_ready(file: Path, name: str) -> torch.Tensor:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        tensor: torch.Tensor = opened.get_tensor(name)
    return tensor


def _errors_at_export(name: str, weight: torch.Tensor, plan: WeightPlan, scales: ScaleFormat) -> dict[str, float]:
    """Weight errors of the modules that the export will round from a tensor: its embedding, its tied head."""
    modules = {
        module: Scheme(weights=later.weights, group_size=later.group_size)
        for module, later in plan.at_export.items()
        if later.tensor == name
    }
    errors = {
        scheme: relative_error(weight, round_to_nearest(name, weight, scheme, scales))
        for scheme in set(modules.values())
    }
    return {module: errors[scheme] for module, scheme in modules.items()}


def write_config(source: Path, plan: WeightPlan, own: OwnKeys, target: Path) -> None:
    """Writes config.json with its quantization_config; with `--part llm` that of the language model alone."""
    config = read_config(source)
    if plan.untied:
        config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = False
    if plan.prefix:
        config = {"dtype": config.get("dtype", "float32"), **config["text_config"]}
        config["architectures"] = [_causal_class(config["model_type"])]
    own = own.model_copy(
        update={
            "activations": {plan.written_name(name): value for name, value in own.activations.items()},
            "at_export": {
                plan.written_name(name): later.model_copy(update={"tensor": plan.written_name(later.tensor)})
                for name, later in plan.at_export.items()
            },
        }
    )
    packed = {plan.written_name(name): scheme for name, scheme in plan.packed.items()}
    linears = [plan.written_name(name) for name in plan.linears]
    config["quantization_config"] = quantization_config.build(packed, linears, own)
    (target / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def copy_companions(source: Path, plan: WeightPlan, target: Path) -> None:
    """Copies tokenizer, chat template, generation and picture settings, where they are."""
    patterns = (*TEXT_COMPANIONS, GENERATION_FILE, *(() if plan.prefix else IMAGE_COMPANIONS))
    for pattern in patterns:
        for path in sorted(source.glob(pattern)):
            if path.is_file():
                shutil.copyfile(path, target / path.name)


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder, as plain values.

    Raises:
        ModelError: missing or not a JSON object.
    """
    path = folder / CONFIG_FILE
    fix = "Give a checkpoint folder as bluelm finetune (or save_pretrained) writes it."
    try:
        config = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}.", "It says what the weights mean.", fix) from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} is not a JSON object.", "It says what the weights mean.", fix)
    return config


def _causal_class(model_type: str) -> str:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return str(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type])


def _check_sizes(plan: WeightPlan, written: dict[str, int]) -> None:
    """The plan's bytes are what the report and the dry run state; a difference is a bug."""
    for tensor in plan.tensors:
        names = [n for n in written if n == plan.written_name(tensor.name) or _is_packed_of(n, tensor, plan)]
        if sum(written[name] for name in names) != tensor.bytes_after:
            raise RuntimeError(f"{tensor.name}: planned {tensor.bytes_after} bytes, wrote {names}")


def _is_packed_of(name: str, tensor: TensorPlan, plan: WeightPlan) -> bool:
    return tensor.scheme.bits is not None and name.startswith(plan.written_name(tensor.module) + ".weight_")
