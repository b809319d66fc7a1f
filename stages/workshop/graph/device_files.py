"""What lies beside the graphs: the data of device.json, genai_config.json, tokenizer, chat template, processor."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.artifacts.errors import ModelError
from stages.device.contract import names
from stages.device.contract.device_config import DecoderSpec, DevicePlan, PromptSpec, VisionSpec
from stages.device.imaging.presets import ImagingPreset
from stages.workshop.graph.checkpoint_settings import PROCESSOR_FILES, read_chat_template
from stages.workshop.graph.graphs import GraphOptions, ModelShape, model_shape

if TYPE_CHECKING:
    from stages.workshop.model.configuration import BlueLMVConfig

COPIED_FILES = (names.TOKENIZER_FILE, "tokenizer_config.json", "generation_config.json", *PROCESSOR_FILES)


def device_config(
    name: str, config: BlueLMVConfig, imaging: ImagingPreset, prompt: PromptSpec, options: GraphOptions
) -> DevicePlan:
    """`device.json` of a model, but for what only the written weights tell.

    Raises:
        ModelError: the picture processor's tiles are not the vision tower's.
    """
    shape = model_shape(config, options.max_context)
    vision, decoder = shape.vision, shape.decoder
    _check_tiles(imaging, shape)
    return DevicePlan(
        name=name,
        vision=VisionSpec(
            tile_size=vision.tile_size,
            patch_size=vision.patch_size,
            patches_per_tile=vision.patches,
            tokens_per_tile=vision.tokens,
            vision_width=vision.width,
            image_mean=imaging.image_mean,
            image_std=imaging.image_std,
            pixels="uint8",
            resample=imaging.resample,
            max_batch=options.batch,
        ),
        tiling=imaging.tiling,
        decoder=DecoderSpec(
            num_layers=decoder.layers,
            num_attention_heads=decoder.heads,
            num_key_value_heads=decoder.kv_heads,
            head_dim=decoder.head_dim,
            hidden_size=decoder.hidden,
            vocab_size=decoder.vocab,
            max_context=options.max_context,
            kv_dtype="float32" if options.kv_scales is None else "int8",
        ),
        prompt=prompt,
    )


def genai_config(device: DevicePlan) -> dict[str, Any]:
    """`genai_config.json`: onnxruntime-genai opens the folder as a text model, `text.onnx`.

    genai has no model type for a decoder on embeddings with this vision tower, so pictures stay ours. To genai every
    text decoder is a `llama`: the type only says which inputs it feeds.
    """
    decoder, prompt = device.decoder, device.prompt
    eos = list(prompt.eos_token_ids)
    return {
        "model": {
            "type": "llama",
            "context_length": decoder.max_context,
            "vocab_size": decoder.vocab_size,
            # genai demands one; prompts come with theirs.
            "bos_token_id": eos[0] if eos else 0,
            "eos_token_id": eos,
            "pad_token_id": eos[0] if eos else 0,
            "decoder": {
                "session_options": {"provider_options": []},
                "filename": names.TEXT_FILE,
                "head_size": decoder.head_dim,
                "hidden_size": decoder.hidden_size,
                "num_attention_heads": decoder.num_attention_heads,
                "num_hidden_layers": decoder.num_layers,
                "num_key_value_heads": decoder.num_key_value_heads,
                "inputs": {
                    "input_ids": names.INPUT_IDS,
                    "attention_mask": names.ATTENTION_MASK,
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": names.LOGITS,
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
        },
        "search": {"max_length": decoder.max_context, "past_present_share_buffer": True, "do_sample": False},
    }


def write_device_files(out: Path, device: DevicePlan, options: GraphOptions, source: Path | None) -> None:
    """Writes all but device.json; copies tokenizer, chat template and processor files of a checkpoint, if any.

    Raises:
        ModelError: the checkpoint has no chat template.
    """
    text = json.dumps(genai_config(device), indent=2) + "\n"
    (out / names.GENAI_CONFIG_FILE).write_text(text, encoding="utf-8")
    if options.kv_scales is not None:
        options.kv_scales.write(out)
    if source is None:
        return
    (out / names.CHAT_TEMPLATE_FILE).write_text(read_chat_template(source), encoding="utf-8")
    for file in COPIED_FILES:
        if (source / file).is_file():
            shutil.copyfile(source / file, out / file)


def _check_tiles(imaging: ImagingPreset, shape: ModelShape) -> None:
    tiling, vision = imaging.tiling, shape.vision
    if (tiling.tile_size, tiling.tokens_per_tile) != (vision.tile_size, vision.tokens):
        raise ModelError(
            f"The picture processor cuts tiles of {tiling.tile_size} pixels for {tiling.tokens_per_tile} tokens each; "
            f"the vision tower takes {vision.tile_size} and gives {vision.tokens}.",
            "Prompt and pictures would not fit together.",
            "Check that the processor's configuration and config.json belong together.",
        )
