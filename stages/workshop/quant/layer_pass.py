"""Prompts go through the model block by block; each block is measured, scaled and rounded while its weights are here.

In memory are one block, its inputs' second moments where GPTQ wants them, and the hidden states of all prompts. Two
sets of these: as the float model has them (what is measured, the KV cache's scales, AWQ and smoothing), and, for GPTQ,
as they arrive through the blocks that are rounded already, since those are the inputs a layer will get.

A block's result is kept in the draft at once. A run that goes on after a kill sends the prompts through the finished
blocks again, which gives the same hidden states, and works on from there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import torch

from stages.workshop.quant.block_files import BlockFiles, DoneBlock
from stages.workshop.quant.block_inputs import Largest, Moments, Rows, SharedInputs
from stages.workshop.quant.block_rounding import BlockRounding, unpacked
from stages.workshop.quant.blocks import Block, BlockModel, Prompt
from stages.workshop.quant.calibration import INPUTS_PER_SAMPLE, Calibration, output_ratios
from stages.workshop.quant.kv_cache import ObservedCache
from stages.workshop.quant.packed import Quantized, dequantize, relative_error

# AWQ weighs its choices with so many inputs of all prompts together.
AWQ_INPUTS = 4096

See = Callable[[str, torch.Tensor], None]
Hidden = list[torch.Tensor | None]


class LayerPass:
    """The walk of some prompts through a model."""

    def __init__(
        self, model: BlockModel, rounding: BlockRounding, calibration: Calibration, error_samples: int
    ) -> None:
        """Args:
        model: the model, empty.
        rounding: how its blocks are rounded.
        calibration: filled on the way.
        error_samples: on how many of the prompts errors are measured.
        """
        self.model, self.rounding, self.calibration = model, rounding, calibration
        self.error_samples = error_samples

    def run(self, prompts: Sequence[Prompt], files: BlockFiles) -> Iterator[Block]:
        """Takes prompts, as they were started, through all blocks; yields each block that is done and kept.

        Raises:
            ModelError: a weight or the inputs cannot be rounded as asked.
        """
        floats = list(prompts)
        rounded = [dataclasses.replace(prompt) for prompt in floats] if self.rounding.how.follows_inputs else []
        for number, block in enumerate(self.model.blocks()):
            if block.part == "decoder" and block.index == 0:
                self.model.enter_decoder(floats)
                self.model.enter_decoder(rounded)
            with self.model.loaded(*self.model.names_of(block)):
                done = files.read(number)
                if done is None:
                    done, after = self._work(block, floats, rounded)
                    files.write(number, done)
                else:
                    self.rounding.refold(block, done.folds)
                    after = self._forward(block, floats, observe=True)
                self.calibration.add_modules(done.measured)
                if rounded:
                    for name, weight in unpacked(done, self.rounding.how).items():
                        self.rounding.put(name, torch.from_numpy(dequantize(weight)))
                    _advance(rounded, self._forward(block, rounded))
            _advance(floats, after)
            yield block

    def _work(self, block: Block, floats: list[Prompt], rounded: list[Prompt]) -> tuple[DoneBlock, Hidden]:
        """Folds, measures and rounds a block; also what the folded float block makes of the prompts."""
        names = self.rounding.linears(block)
        shared = SharedInputs(self.model.model, names)
        folds = self._fold(block, floats)
        rows = Rows(shared, INPUTS_PER_SAMPLE)
        after = self._forward(block, floats, shared, rows.see, self.error_samples, observe=True)
        moments = Moments(shared)
        strict = [name for name in names if self.rounding.how.plan.methods.get(name) == "gptq"]
        if strict:
            shared_strict = SharedInputs(self.model.model, strict)
            moments = Moments(shared_strict)
            self._forward(block, rounded, shared_strict, moments.see)
        measured = Calibration(self.calibration.kv)
        quantized = {}
        for name in names:
            weight = self.rounding.round(name, moments.of(name))
            self._measure(name, weight, rows.of(name), measured)
            measured.methods[name] = self.rounding.done_by(block, name, folds)
            quantized[name] = weight
        tensors = self.rounding.tensors(block, quantized, folded=bool(folds))
        return DoneBlock(tensors, folds, measured.modules_state()), after

    def _fold(self, block: Block, prompts: list[Prompt]) -> dict[int, torch.Tensor]:
        points = self.rounding.fold_points(block)
        if not points:
            return {}
        names = [f"{block.name}.{consumer}" for point in points.values() for consumer in point.consumers]
        shared = SharedInputs(self.model.model, names)
        largest, rows = Largest(shared), Rows(shared, max(1, AWQ_INPUTS // len(prompts)))

        def see(name: str, inputs: torch.Tensor) -> None:
            largest.see(name, inputs)
            rows.see(name, inputs)

        self._forward(block, prompts, shared, see)
        return self.rounding.choose_folds(block, largest, rows)

    def _forward(
        self,
        block: Block,
        prompts: Sequence[Prompt],
        shared: SharedInputs | None = None,
        see: See | None = None,
        watched: int | None = None,
        *,
        observe: bool = False,
    ) -> Hidden:
        """What the block makes of all prompts; the head's logits are dropped, since nothing reads them.

        Args:
            block: the block, loaded.
            prompts: with its inputs.
            shared: whose inputs are watched.
            see: gets them.
            watched: on how many of the prompts; None: all.
            observe: the KV cache is observed too.
        """
        outputs: Hidden = []
        layers = len(self.model.model.language_model.model.layers)
        for place, prompt in enumerate(prompts):
            watching = shared is not None and see is not None and (watched is None or place < watched)
            if prompt.hidden is None or (block.part == "head" and not watching):
                outputs.append(None)
                continue
            cache = ObservedCache(layers, self.calibration.kv) if observe and block.part == "decoder" else None
            if shared is not None and see is not None and watching:
                with shared.watch(see):
                    output = self.model.forward(block, prompt, cache)
            else:
                output = self.model.forward(block, prompt, cache)
            outputs.append(None if block.part == "head" else output)
        return outputs

    def _measure(self, name: str, weight: Quantized, rows: torch.Tensor | None, measured: Calibration) -> None:
        exact = self.rounding.weight(name).detach()
        measured.weight_errors[name] = relative_error(exact.cpu(), weight)
        if rows is not None:
            measured.saw_inputs(name, rows)
            measured.saw_outputs(name, output_ratios(exact, weight, rows))


def _advance(prompts: Sequence[Prompt], hidden: Hidden) -> None:
    for prompt, after in zip(prompts, hidden, strict=True):
        prompt.hidden = after
