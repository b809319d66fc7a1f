"""A whole exported folder with random weights: for benches of a real shape, and for tests of the runtime."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stages.artifacts.events import Progress
from stages.device.contract.device_config import PromptSpec
from stages.device.contract.kv_scales import KvScales
from stages.device.contract.names import CHAT_TEMPLATE_FILE, TOKENIZER_FILE
from stages.device.imaging.presets import ImagingPreset, imaging_preset
from stages.workshop.graph.device_files import device_config, write_device_files
from stages.workshop.graph.graphs import GraphOptions, write_graphs
from stages.workshop.graph.patch_embed import Normalization
from stages.workshop.graph.random_weights import PAPER_RULES, RandomWeights
from stages.workshop.quant.activation_policy import FIXED_POLICIES, Policy
from stages.workshop.quant.policy import Rule

if TYPE_CHECKING:
    from stages.workshop.model.configuration import BlueLMVConfig

# Keys and values of random weights are little larger than standard normal numbers.
RANDOM_KV_SCALE = 8 / 127


def write_random_model(
    preset: str,
    out: Path,
    *,
    layers: int | None = None,
    vision_layers: int | None = None,
    rules: Sequence[Rule] = PAPER_RULES,
    policy: Policy = "mix",
    int8_kv: bool = True,
    options: GraphOptions | None = None,
    tokenizer: Path | None = None,
    config: BlueLMVConfig | None = None,
    imaging: ImagingPreset | None = None,
    seed: int = 0,
) -> Iterator[Progress]:
    """Writes the graphs, device.json, genai_config.json and kv_scales.json of a preset into an existing folder.

    Args:
        preset: `bluelm-v-3b` or `tiny`; also names the picture processor, unless `imaging` is given.
        out: the folder, which must exist.
        layers: decoder layers instead of the preset's.
        vision_layers: tower layers instead of the preset's.
        rules: which module gets which weights; `()` for an all-float model.
        policy: what the inputs of quantized weights are rounded to: `paper` INT16, `mix` INT16 before down_proj and
            INT8 elsewhere, `int8` or `float`.
        int8_kv: an INT8 KV cache with one scale for all; False for float32.
        options: context length, batch, activations (its `kv_scales` are replaced).
        tokenizer: a folder with tokenizer.json (and chat_template.jinja) to copy; without one the folder can be
            benched but not talked to.
        config: the model's configuration instead of the preset's (vocabulary and special tokens of the tokenizer).
        imaging: how its pictures are cut, where `config` has other tiles than the preset.
        seed: same seed, same bytes.
    """
    from stages.workshop.model.presets import preset_config

    config = config or preset_config(preset, text_layers=layers, vision_layers=vision_layers)
    text = config.text_config
    scales = (RANDOM_KV_SCALE,) * text.num_hidden_layers
    options = options or GraphOptions(max_context=min(4096, text.max_position_embeddings))
    options = replace(options, kv_scales=KvScales.of(scales, scales) if int8_kv else None)
    eos = () if text.eos_token_id is None else (int(text.eos_token_id),)
    prompt = PromptSpec(image_token="<image>", image_token_id=config.image_token_id, eos_token_ids=eos)
    device = device_config(preset, config, imaging or imaging_preset(preset), prompt, options)
    write_device_files(out, device, options, None)
    for file in (TOKENIZER_FILE, CHAT_TEMPLATE_FILE) if tokenizer is not None else ():
        assert tokenizer is not None
        shutil.copyfile(tokenizer / file, out / file)
    tied = bool(text.tie_word_embeddings)
    weights = RandomWeights(rules, seed, activations=FIXED_POLICIES[policy], tied=tied)
    pictures = Normalization(device.vision.image_mean, device.vision.image_std)
    embedding = yield from write_graphs(weights, config, out, options, pictures)
    device.written(embedding).write(out)
