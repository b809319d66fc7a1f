"""A model whose weights are in memory one block at a time: the tower's layers, the connector, the decoder's layers, the
head. The structure is transformers' own; only where the weights are is ours.

Axes: T tiles, P patches per tile, C tower width, L tokens, H language model width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from accelerate import init_empty_weights
from torch import nn

from stages.artifacts.errors import ModelError
from stages.workshop.model.configuration import BlueLMVConfig
from stages.workshop.model.modeling import BlueLMVForConditionalGeneration
from stages.workshop.quant.kv_cache import ObservedCache
from stages.workshop.quant.methods.folding import FoldPoint, connector_points, decoder_points, tower_points
from stages.workshop.quant.tensor_files import TensorSource

Part = Literal["tower", "connector", "decoder", "head"]
TOWER, CONNECTOR = "vision_tower.", "multi_modal_projector."
DECODER, HEAD = "language_model.model.layers.", "language_model.lm_head"
EMBEDDING, NORM = "language_model.model.embed_tokens", "language_model.model.norm"


@dataclass(frozen=True)
class Block:
    """One step of the model.

    Attributes:
        part: what kind of step.
        name: the module's full name.
        index: number of a layer among its kind.
    """

    part: Part
    name: str
    index: int = 0


@dataclass
class Prompt:
    """One prompt on its way through the model.

    Attributes:
        ids: [L] token ids.
        is_answer: [L], true on the assistant's tokens.
        hidden: what the next block reads: [T, P, C] in the tower, [1, L, H] in the decoder; None without pictures.
        call: how transformers calls a decoder layer on this prompt (positions, mask), once that is known.
    """

    ids: torch.Tensor
    is_answer: torch.Tensor
    hidden: torch.Tensor | None
    call: dict[str, Any] | None = None


class BlockModel:
    """The model, empty but for the block at work."""

    def __init__(self, config: BlueLMVConfig, source: TensorSource, dtype: torch.dtype, device: str) -> None:
        """Args:
        config: of the checkpoint.
        source: its tensors.
        dtype: what blocks compute in.
        device: where they compute.
        """
        # Buffers (rotary frequencies, position numbers) are worked out, not read: they are small and stay in memory.
        with init_empty_weights(include_buffers=False):
            self.model = BlueLMVForConditionalGeneration(config)
        self.model.eval()
        self.config = config
        self._source, self._dtype, self._device = source, dtype, torch.device(device)
        self._layers = self.model.language_model.model.layers
        for module in self.model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(self._device))

    def blocks(self) -> list[Block]:
        """All blocks, in the order in which a prompt passes them."""
        tower = [Block("tower", f"{TOWER}encoder.layers.{n}", n) for n in range(self.config.vision_layers_used)]
        decoder = [Block("decoder", f"{DECODER}{n}", n) for n in range(len(self._layers))]
        return [*tower, Block("connector", CONNECTOR.rstrip(".")), *decoder, Block("head", HEAD)]

    def module(self, block: Block) -> nn.Module:
        """The block's module."""
        return self.model.get_submodule(block.name)

    def fold_points(self, block: Block) -> tuple[FoldPoint, ...]:
        """Where scales can be moved inside a block whose weights are here."""
        module = self.module(block)
        if block.part == "tower":
            return tower_points(module)
        if block.part == "connector":
            return connector_points(module)
        if block.part == "decoder":
            text = self.config.text_config
            return decoder_points(module, text.num_attention_heads, text.num_key_value_heads)
        return ()

    @contextmanager
    def loaded(self, *names: str) -> Iterator[None]:
        """The weights of these modules are in memory for as long as the block lasts."""
        try:
            for name in names:
                self._load(name)
            yield
        finally:
            for name in names:
                self._unload(name)

    def patches_loaded(self) -> AbstractContextManager[None]:
        """The patch embedding is in memory for as long as the block lasts."""
        return self.loaded(f"{TOWER}embeddings")

    def names_of(self, block: Block) -> tuple[str, ...]:
        """The modules that a block needs."""
        if block.part == "connector" and self.config.vision_post_layernorm:
            return block.name, f"{TOWER}post_layernorm"
        return (block.name, NORM) if block.part == "head" else (block.name,)

    def start(self, ids: Sequence[int], is_answer: Sequence[bool], pixels: np.ndarray | None) -> Prompt:
        """A prompt as the tower reads it; where there are pictures inside `patches_loaded`."""
        hidden = None
        if pixels is not None:
            with torch.inference_mode():
                values = torch.from_numpy(pixels).to(self._device, self._dtype)
                hidden = self.model.embed_patches(values)
        return Prompt(torch.tensor(ids), torch.tensor(is_answer), hidden)

    def enter_decoder(self, prompts: Sequence[Prompt]) -> None:
        """Token embeddings take the place of tower features, and image tokens their slots."""
        table = self._source.read(f"{EMBEDDING}.weight")
        stack = self.model.language_model.model
        for prompt in prompts:
            embeds = table[prompt.ids].to(self._device, self._dtype)[None]  # [1, L, H]
            if prompt.hidden is not None:
                slots = (prompt.ids == self.config.image_token_id).to(self._device)
                embeds[0, slots] = prompt.hidden.reshape(-1, embeds.shape[-1]).to(embeds)
            prompt.hidden, prompt.call = _first_call(stack, embeds)

    def forward(self, block: Block, prompt: Prompt, cache: ObservedCache | None = None) -> torch.Tensor:
        """What a loaded block makes of a prompt's hidden states."""
        module: Any = self.module(block)
        hidden = prompt.hidden
        assert hidden is not None
        with torch.inference_mode():
            if block.part == "tower":
                return _first(module(hidden, None))
            if block.part == "connector":
                tower = self.model.vision_tower
                return module(tower.post_layernorm(hidden) if self.config.vision_post_layernorm else hidden)
            if block.part == "head":
                # Only what an answer is chosen by, as on the device.
                return module(self.model.get_submodule(NORM)(hidden[:, _before_answers(prompt)]))
            return _first(module(hidden, **{**(prompt.call or {}), "past_key_values": cache}))

    def _unload(self, name: str) -> None:
        for module in self.model.get_submodule(name).modules():
            for leaf, parameter in module.named_parameters(recurse=False):
                module._parameters[leaf] = nn.Parameter(parameter.to("meta"), requires_grad=False)

    def _load(self, name: str) -> None:
        module = self.model.get_submodule(name)
        for path, parameter in list(module.named_parameters(remove_duplicate=False)):
            full = f"{name}.{path}"
            # A tied head reads the embedding.
            stored = full if full in self._source.infos else f"{EMBEDDING}.weight" if name == HEAD else full
            owner, _, leaf = path.rpartition(".")
            # A copy: rounding and folding change it, and a read tensor may be the file's own memory.
            value = self._source.read(stored).to(self._device, self._dtype, copy=True)
            if value.shape != parameter.shape:
                raise ModelError(
                    f"{stored} has the shape {list(value.shape)}, config.json makes it {list(parameter.shape)}.",
                    "The weights and the configuration belong to different models.",
                    "Use the folder as it was saved, config.json and weights together.",
                )
            module.get_submodule(owner)._parameters[leaf] = nn.Parameter(value, requires_grad=False)


class _Catch(nn.Module):
    """Stands in the place of all decoder layers and remembers how it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, Any] = {}

    def forward(self, hidden_states: torch.Tensor, **call: Any) -> torch.Tensor:
        self.seen = {"hidden": hidden_states, **call}
        return hidden_states


class _Plain(nn.Module):
    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states


def _first_call(stack: Any, embeds: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
    """What the first decoder layer gets from its stack: hidden states, and the arguments that are alike for all."""
    catch, layers, norm = _Catch(), stack.layers, stack.norm
    stack.layers, stack.norm = nn.ModuleList([catch]), _Plain()
    try:
        with torch.inference_mode():
            stack(inputs_embeds=embeds, use_cache=False)
    finally:
        stack.layers, stack.norm = layers, norm
    call = dict(catch.seen)
    hidden = call.pop("hidden")
    return hidden, {**call, "use_cache": True}


def _first(output: Any) -> torch.Tensor:
    hidden: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


def _before_answers(prompt: Prompt) -> torch.Tensor:
    """Positions that answers are chosen at; the last one where there is no answer."""
    places = torch.nonzero(prompt.is_answer[1:])[:, 0]
    return places if len(places) else torch.tensor([len(prompt.ids) - 1])
