"""One block at a time: which scales are moved inside it, and how its weights become integers.

Axes: R inputs, N output rows, K input columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from stages.artifacts.errors import ModelError
from stages.workshop.quant.block_files import DoneBlock
from stages.workshop.quant.block_inputs import Largest, Rows
from stages.workshop.quant.blocks import Block, BlockModel
from stages.workshop.quant.methods import awq, gptq
from stages.workshop.quant.methods.folding import FoldPoint, fold
from stages.workshop.quant.methods.settings import AwqSettings, GptqSettings, SmoothingRule
from stages.workshop.quant.methods.smoothing import smoothing_scales
from stages.workshop.quant.packed import PACKED, SUFFIXES, Quantized, ScaleFormat, pack, round_to_nearest, unpack
from stages.workshop.quant.plan import WeightPlan
from stages.workshop.quant.policy import Method, Scheme
from stages.workshop.quant.tensor_files import TensorSource, torch_type


@dataclass(frozen=True)
class Rounding:
    """How weights become integers.

    Attributes:
        plan: scheme and method of every module.
        scales: what weight scales are rounded to.
        smoothing: whose inputs are smoothed.
        gptq, awq: settings of these methods.
    """

    plan: WeightPlan
    scales: ScaleFormat
    smoothing: tuple[SmoothingRule, ...] = ()
    gptq: GptqSettings = field(default_factory=GptqSettings)
    awq: AwqSettings = field(default_factory=AwqSettings)

    @property
    def follows_inputs(self) -> bool:
        """Whether a method looks at the inputs that reach a layer through rounded ones; AWQ looks at the float ones."""
        return "gptq" in self.plan.methods.values()

    def scheme(self, module: str) -> Scheme | None:
        """Of a module that will be integers, in the file or at export."""
        later = self.plan.at_export.get(module)
        if later is not None:
            return Scheme(weights=later.weights, group_size=later.group_size)
        return self.plan.packed.get(module)


class BlockRounding:
    """Folds and rounds the block whose weights are in memory."""

    def __init__(self, model: BlockModel, source: TensorSource, how: Rounding) -> None:
        self.model, self.source, self.how = model, source, how

    def linears(self, block: Block) -> list[str]:
        """Linears of a block that will be integers."""
        plan = self.how.plan
        names = [name for name in (*plan.packed, *plan.at_export) if f"{name}.".startswith(f"{block.name}.")]
        return [name for name in names if name in plan.linears]

    def fold_points(self, block: Block) -> dict[int, FoldPoint]:
        """Where scales shall be moved: by the smoothing rules, and before Linears that AWQ rounds."""
        return {
            index: point
            for index, point in enumerate(self.model.fold_points(block))
            if self._alpha(block, point) is not None or self._awq(block, point)
        }

    def choose_folds(self, block: Block, largest: Largest, rows: Rows) -> dict[int, torch.Tensor]:
        """Moves scales through the block, in place, and returns them.

        Args:
            block: the block.
            largest: of the inputs of its Linears.
            rows: some of these inputs.
        """
        moved: dict[int, torch.Tensor] = {}
        for index, point in self.fold_points(block).items():
            names = [f"{block.name}.{consumer}" for consumer in point.consumers]
            strongest, inputs = largest.of(names[0]), rows.of(names[0])
            if strongest is None or inputs is None:
                continue
            alpha = self._alpha(block, point)
            scales = torch.ones_like(strongest)
            if alpha is not None:
                scales = self._fold(block, point, smoothing_scales(strongest, [self.weight(n) for n in names], alpha))
                inputs = inputs / scales
            if self._awq(block, point):
                # Rounding is numpy's: on the CPU, wherever the model computes.
                schemes = [(self.weight(n).cpu(), scheme) for n in names if (scheme := self.how.scheme(n)) is not None]
                found = awq.search_scales(schemes, inputs.cpu(), self.how.scales, self.how.awq, point.heads)
                scales = scales * self._fold(block, point, found)
            moved[index] = scales
        return moved

    def refold(self, block: Block, folds: Mapping[int, torch.Tensor]) -> None:
        """Moves scales that `choose_folds` returned."""
        points = self.model.fold_points(block)
        for index, scales in folds.items():
            self._fold(block, points[index], scales)

    def done_by(self, block: Block, name: str, folds: Mapping[int, torch.Tensor]) -> Method:
        """How a Linear is rounded in truth: AWQ without a layer before that takes its scales is rounding to nearest.

        Args:
            block: its block.
            name: its full name.
            folds: what `choose_folds` returned.
        """
        method = self.how.plan.methods.get(name, "rtn")
        points = self.model.fold_points(block)
        scaled = {f"{block.name}.{consumer}" for index in folds for consumer in points[index].consumers}
        return "rtn" if method == "awq" and name not in scaled else method

    def round(self, name: str, moments: torch.Tensor | None) -> Quantized:
        """The integers of a Linear.

        Args:
            name: its full name.
            moments: Σ x·xᵀ [K, K] of its inputs; only GPTQ needs it.

        Raises:
            ModelError: no prompt reached a Linear that GPTQ rounds, or see the method.
        """
        scheme, weight = self.how.scheme(name), self.weight(name).detach().cpu()
        assert scheme is not None
        if self.how.plan.methods.get(name) != "gptq":
            return round_to_nearest(name, weight, scheme, self.how.scales)
        if moments is None:
            raise ModelError(
                f"{name}: no calibration prompt reached it.",
                "GPTQ weighs errors by a layer's inputs.",
                "Give it method: rtn in a rule of its own.",
            )
        try:
            return gptq.quantize(name, weight, moments.cpu(), scheme, self.how.scales, self.how.gptq)
        except OverflowError as error:
            raise ModelError(
                f"{name}: {error}.", "Its largest weights would become infinite.", "Use --set scale_dtype=float32"
            ) from error

    def tensors(self, block: Block, quantized: Mapping[str, Quantized], *, folded: bool) -> dict[str, torch.Tensor]:
        """What the folder will hold of a block: packed weights, and float tensors that folding changed."""
        held = {
            f"{name}.{suffix}": tensor
            for name, weight in quantized.items()
            if name in self.how.plan.packed
            for suffix, tensor in pack(weight, self.how.scales.dtype).items()
        }
        if not folded:
            return held
        for path, value in self.model.module(block).named_parameters():
            full = f"{block.name}.{path}"
            if full.removesuffix(".weight") not in self.how.plan.packed:
                held[full] = value.detach().to(torch_type(self.source.infos[full].dtype)).cpu()
        return held

    def weight(self, name: str) -> torch.Tensor:
        """The weight of a Linear that is in memory."""
        weight = self.model.model.get_submodule(name).weight
        assert isinstance(weight, torch.Tensor)
        return weight

    def put(self, name: str, weight: torch.Tensor) -> None:
        """Replaces the weight of a Linear that is in memory."""
        module = self.model.model.get_submodule(name)
        module.weight = nn.Parameter(weight.to(self.weight(name)), requires_grad=False)

    def _fold(self, block: Block, point: FoldPoint, scales: torch.Tensor) -> torch.Tensor:
        name = f"{block.name}.{point.source}.weight"
        stored = torch_type(self.source.infos[name].dtype)
        return fold(self.model.module(block), point, scales.to(self.weight(f"{block.name}.{point.source}")), stored)

    def _alpha(self, block: Block, point: FoldPoint) -> float | None:
        """How strongly a point's inputs are smoothed: by the first rule that matches one of its Linears."""
        names = [f"{block.name}.{consumer}" for consumer in point.consumers]
        rule = next((rule for rule in self.how.smoothing if any(map(rule.matches, names))), None)
        return None if rule is None else rule.alpha

    def _awq(self, block: Block, point: FoldPoint) -> bool:
        return any(self.how.plan.methods.get(f"{block.name}.{name}") == "awq" for name in point.consumers)


def unpacked(done: DoneBlock, how: Rounding) -> dict[str, Quantized]:
    """The integers of a finished block, by module."""
    names = [name.removesuffix(f".{PACKED}") for name in done.tensors if name.endswith(f".{PACKED}")]
    return {
        name: unpack({suffix: done.tensors[f"{name}.{suffix}"] for suffix in SUFFIXES}, how.plan.packed[name])
        for name in names
    }
