"""What a policy does to a checkpoint, tensor by tensor, with exact bytes: decided from headers, no weight is read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stages.artifacts.errors import BluelmError, ModelError, RecipeError, raise_all
from stages.device.contract.int4_blocks import ScaleDtype
from stages.workshop.quant.modules import part_of
from stages.workshop.quant.packed import packed_bytes
from stages.workshop.quant.policy import FLOAT, Method, Rule, Scheme, WeightedModule, assign, methods_of
from stages.workshop.quant.quantization_config import AtExport
from stages.workshop.quant.tensor_files import TensorInfo

# With `part` llm only what is below this prefix is written, and the prefix is taken off.
LLM_PREFIX = "language_model."


@dataclass(frozen=True)
class TensorPlan:
    """One tensor of the checkpoint: its scheme in the file, and what it takes before and after."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scheme: Scheme
    at_export: Scheme | None
    method: Method | None
    bytes_before: int
    bytes_after: int

    @property
    def module(self) -> str:
        """The module it belongs to."""
        return self.name.rpartition(".")[0]

    @property
    def weights(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "name": self.name,
            "part": part_of(self.name),
            "shape": list(self.shape),
            "dtype": self.dtype,
            "scheme": str(self.scheme),
            "at_export": str(self.at_export) if self.at_export else None,
            "method": self.method,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
        }


@dataclass(frozen=True)
class WeightPlan:
    """All tensors that will be written, and the modules behind them.

    Attributes:
        tensors: in the order of the checkpoint's names.
        packed: scheme of every Linear stored as integers.
        at_export: scheme of the embedding and of a tied head, which stay float in the file.
        linears: all Linears that will be written, also float ones.
        methods: how every module of `packed` is rounded.
        prefix: what is taken off every name when it is written (`--part llm`).
        untied: whether a head that shared the embedding's tensor gets one of its own.
    """

    tensors: tuple[TensorPlan, ...]
    packed: Mapping[str, Scheme]
    at_export: Mapping[str, AtExport]
    linears: tuple[str, ...]
    methods: Mapping[str, Method] = field(default_factory=dict)
    prefix: str = ""
    untied: bool = False

    @property
    def bytes_before(self) -> int:
        """Bytes of these tensors in the checkpoint."""
        return sum(tensor.bytes_before for tensor in self.tensors)

    @property
    def bytes_after(self) -> int:
        """Bytes of the tensors that replace them."""
        return sum(tensor.bytes_after for tensor in self.tensors)

    def written_name(self, name: str) -> str:
        """The name of a module or tensor in the folder that is written."""
        return name.removeprefix(self.prefix)


def plan_weights(
    infos: Mapping[str, TensorInfo],
    modules: Sequence[WeightedModule],
    rules: Sequence[Rule],
    scale_dtype: ScaleDtype,
    *,
    only_llm: bool = False,
    untied: bool = False,
) -> WeightPlan:
    """Applies a policy to a checkpoint's headers.

    Args:
        infos: what the headers say.
        modules: what the configuration makes of them.
        rules: the policy.
        scale_dtype: type of weight scales in the file.
        only_llm: only the language model will be written.
        untied: the head did not have a tensor of its own before.

    Raises:
        RecipeError: the policy does not fit the model.
        ModelError: the checkpoint lacks the weight of a module, or it has another shape.
    """
    prefix = LLM_PREFIX if only_llm else ""
    schemes = {name: scheme for name, scheme in assign(rules, modules).items() if name.startswith(prefix)}
    modules = [module for module in modules if module.name.startswith(prefix)]
    integer = [module for module in modules if schemes[module.name].bits is not None]
    packed = {module.name: schemes[module.name] for module in integer if module.kind in ("linear", "head")}
    embedding = next(module.name for module in modules if module.kind == "token embedding")
    at_export = {
        module.name: AtExport(**schemes[module.name].model_dump(), tensor=f"{embedding}.weight")
        for module in integer
        if module.name not in packed
    }
    raise_all([problem for module in integer if (problem := _problem(module, schemes, infos, only_llm)) is not None])
    methods = {name: method for name, method in methods_of(rules, modules).items() if name in packed}
    linears = tuple(module.name for module in modules if module.kind in ("linear", "head", "tied head"))
    written = [info for name, info in infos.items() if name.startswith(prefix)]
    tensors = [_tensor(info, packed, at_export, methods, scale_dtype) for info in written]
    return WeightPlan(tuple(tensors), packed, at_export, linears, methods, prefix, untied)


def _tensor(
    info: TensorInfo,
    packed: Mapping[str, Scheme],
    at_export: Mapping[str, AtExport],
    methods: Mapping[str, Method],
    scale_dtype: ScaleDtype,
) -> TensorPlan:
    module, _, leaf = info.name.rpartition(".")
    scheme = packed.get(module, FLOAT) if leaf == "weight" else FLOAT
    later = at_export.get(module) if leaf == "weight" else None
    after = info.bytes
    if scheme.bits is not None:
        after = packed_bytes(info.shape[0], info.shape[1], scheme, scale_dtype)
    method = methods.get(module) if scheme.bits is not None else None
    return TensorPlan(info.name, info.shape, info.dtype, scheme, later, method, info.bytes, after)


def _problem(
    module: WeightedModule, schemes: Mapping[str, Scheme], infos: Mapping[str, TensorInfo], only_llm: bool
) -> BluelmError | None:
    size = schemes[module.name].group_size
    if only_llm and size is not None and module.columns % size:
        return RecipeError(
            f"{module.name} has {module.columns} columns, and --part llm would cut its last group of {size} short.",
            "Other programs open such a folder and then fail at the first forward pass.",
            "Give it weights: int8 in a rule of its own, or quantize the whole model.",
        )
    return _missing(module, infos)


def _missing(module: WeightedModule, infos: Mapping[str, TensorInfo]) -> BluelmError | None:
    if module.kind == "tied head":
        return None
    info = infos.get(f"{module.name}.weight")
    if info is not None and info.shape == (module.rows, module.columns):
        return None
    found = f"has the shape {list(info.shape)}" if info else "is not in the checkpoint"
    return ModelError(
        f"{module.name}.weight {found}; config.json asks for [{module.rows}, {module.columns}].",
        "The weights and the configuration belong to different models.",
        "Use the folder as it was saved, config.json and weights together.",
    )
