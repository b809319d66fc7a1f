"""The quantized model in torch, as the device will run it: dequantized weights, rounded inputs, INT8 cache.

What a Linear's inputs are rounded to depends on its weight's form and on the call. INT8 channels: per token. INT4
blocks: per block where MatMulNBits multiplies (decoding), per token in prefill, which expands blocks to INT8, where
the whole model allows that (`expandable`). The head, which sees one position: per block, whatever its weight. In three
things prompts differ from the device's: there the last position goes through the decoding graph; so does a whole prompt
of at most 128 new tokens (SHORTEST of device/runtime/prefill.py); and in compact prefill a layer's attention sees new
keys and values as they were before the cache rounds them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Cache, DynamicCache, GenerationConfig, PreTrainedModel

from stages.artifacts.errors import ModelError
from stages.device.contract import int8_channels
from stages.device.contract.kv_scales import KvScales, read_kv_scales
from stages.workshop.model.checkpoint import load_processor, quiet
from stages.workshop.model.configuration import BlueLMVConfig
from stages.workshop.model.modeling import BlueLMVForConditionalGeneration
from stages.workshop.model.processing import BlueLMVProcessor
from stages.workshop.quant import quantization_config
from stages.workshop.quant.activation_policy import ActivationChoice
from stages.workshop.quant.conversion import CONFIG_FILE, GENERATION_FILE, read_config
from stages.workshop.quant.expandable import reads_compactly
from stages.workshop.quant.input_rounding import InputRounding, attach
from stages.workshop.quant.int8_attention import Int8Attention
from stages.workshop.quant.kv_cache import Int8KVCache, check_layers
from stages.workshop.quant.packed import dequantize
from stages.workshop.quant.quantized_folder import QuantizedFolder

TOWER = "vision_tower.encoder.layers."
EMBEDDING, HEAD = "language_model.model.embed_tokens", "language_model.lm_head"


def load_quantized(folder: Path, *, exact: bool = False) -> tuple[BlueLMVForConditionalGeneration, BlueLMVProcessor]:
    """Opens a quantized folder as a float32 model that computes what the device computes.

    Weights are dequantized by the contract; embedding and tied head go through their export scheme; the inputs of
    Linears are rounded; `generate` fills an INT8 cache (see `simulated_cache`), and so must whoever calls the model
    itself with a cache.

    Args:
        folder: the quantized folder.
        exact: leave the inputs of Linears as they are.

    Raises:
        ModelError: not a quantized folder, damaged, or weights are missing.
    """
    source = QuantizedFolder(folder)
    with quiet():
        config = BlueLMVConfig.from_pretrained(folder)
        del config.quantization_config
        model, info = BlueLMVForConditionalGeneration.from_pretrained(
            None, config=config, state_dict=source.float_state(), dtype=torch.float32, output_loading_info=True
        )
    if info["missing_keys"]:
        raise ModelError(
            f"{folder} lacks {', '.join(sorted(info['missing_keys'])[:4])}.",
            "They would be random numbers.",
            "Copy the folder again, or make it again with bluelm quantize.",
        )
    if (folder / GENERATION_FILE).is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    model.eval()
    _round_what_export_rounds(model, source)
    _use_cache(model, source)
    if not exact:
        device_arithmetic(source).put_on(model)
    return model, load_processor(folder)


def simulated_cache(folder: Path, config: BlueLMVConfig) -> Cache:
    """An empty cache as the device has it: INT8 with the folder's scales, or plain when the cache stays float.

    Raises:
        ModelError: the scales are missing or do not fit the model.
    """
    _, own = quantization_config.read(read_config(folder), str(folder / CONFIG_FILE))
    return new_cache(read_kv_scales(folder, check_layers(config)) if own.kv == "int8" else None)


@dataclass(frozen=True)
class DeviceArithmetic:
    """Where a model computes with rounded numbers on the device.

    Attributes:
        roundings: what the inputs of a Linear are rounded to, by module.
        attentions: attention modules of the ViT whose products are INT8.
    """

    roundings: Mapping[str, InputRounding] = field(default_factory=dict)
    attentions: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.roundings)

    @contextmanager
    def on(self, model: nn.Module) -> Iterator[None]:
        """A model computes so for as long as the block lasts."""
        handles = self.put_on(model)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            for name in self.attentions:
                del model.get_submodule(name).forward

    def only(self, chosen: Callable[[str], bool]) -> DeviceArithmetic:
        """The same for some of the modules."""
        roundings = {name: rounding for name, rounding in self.roundings.items() if chosen(name)}
        return DeviceArithmetic(roundings, tuple(_int8_attentions(roundings)))

    def put_on(self, model: nn.Module) -> list[Any]:
        """A model computes so from now on; returns the handles of the hooks that make it."""
        for name in self.attentions:
            module = model.get_submodule(name)
            module.forward = Int8Attention(module)
        return attach(model, self.roundings)


def device_arithmetic(
    source: QuantizedFolder, choice: ActivationChoice = "policy", *, compact: bool = True
) -> DeviceArithmetic:
    """What a quantized folder's model rounds on the device.

    Args:
        source: the folder.
        choice: one precision for all instead of what the folder records.
        compact: prompts go through compact prefill; False is the decoder graph alone.
    """
    roundings, compact = {}, compact and reads_compactly(source, choice)
    for name in (*source.packed_modules(), *source.own.at_export):
        precision = source.own.activations_of(name) if choice == "policy" else choice
        if precision != "float" and name != EMBEDDING:
            scheme = source.scheme(name)
            block = scheme.group_size
            if name == HEAD and block is None:
                block = int8_channels.block_length(source.config["text_config"]["hidden_size"])
            roundings[name] = InputRounding(precision, block, compact and name != HEAD and block is not None)
    return DeviceArithmetic(roundings, tuple(_int8_attentions(roundings)))


def _int8_attentions(roundings: Mapping[str, InputRounding]) -> Iterator[str]:
    """The ViT's attention is INT8 where the products before it are."""
    a8 = {name for name, rounding in roundings.items() if rounding == InputRounding("int8")}
    for name in a8:
        module, _, part = name.rpartition(".")
        if name.startswith(TOWER) and part == "q_proj" and {f"{module}.k_proj", f"{module}.v_proj"} <= a8:
            yield module


def new_cache(scales: KvScales | None) -> Cache:
    """An empty cache: INT8 with these scales, or plain."""
    return DynamicCache() if scales is None else Int8KVCache(scales)


def _round_what_export_rounds(model: PreTrainedModel, source: QuantizedFolder) -> None:
    for name in source.own.at_export:
        quantized = source.quantized(name)
        assert quantized is not None
        # A new parameter, so that embedding and tied head can have different schemes.
        model.get_submodule(name).weight = nn.Parameter(torch.from_numpy(dequantize(quantized)), requires_grad=False)


def _use_cache(model: BlueLMVForConditionalGeneration, source: QuantizedFolder) -> None:
    # Missing scales are found here, not at the first question.
    scales = source.kv_scales(check_layers(model.config))
    plain = model.generate

    def generate(*args: Any, **kwargs: Any) -> Any:
        kwargs.setdefault("past_key_values", new_cache(scales))
        return plain(*args, **kwargs)

    model.generate = generate
