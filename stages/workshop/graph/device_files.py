"""What lies beside the graphs: device.json, genai_config.json, tokenizer, chat template, processor configuration."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.artifacts.errors import ModelError
from stages.device.contract import names
from stages.device.contract.device_config import DecoderSpec, DeviceConfig, PromptSpec, VisionSpec
from stages.device.imaging.presets import ImagingPreset
from stages.device.imaging.spec import TilingSpec
from stages.workshop.graph.graphs import GraphOptions, ModelShape, model_shape

if TYPE_CHECKING:
    from stages.workshop.model.configuration import BlueLMVConfig

PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
COPIED_FILES = (names.TOKENIZER_FILE, names.CHAT_TEMPLATE_FILE, "tokenizer_config.json", "generation_config.json")


def device_config(
    name: str, config: BlueLMVConfig, imaging: ImagingPreset, prompt: PromptSpec, options: GraphOptions
) -> DeviceConfig:
    """`device.json` of a model.

    Raises:
        ModelError: the picture processor's tiles are not the vision tower's.
    """
    shape = model_shape(config, options.max_context)
    vision, decoder = shape.vision, shape.decoder
    _check_tiles(imaging, shape)
    return DeviceConfig(
        name=name,
        vision=VisionSpec(
            tile_size=vision.tile_size,
            patch_size=vision.patch_size,
            patches_per_tile=vision.patches,
            tokens_per_tile=vision.tokens,
            vision_width=vision.width,
            image_mean=imaging.image_mean,
            image_std=imaging.image_std,
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


def genai_config(device: DeviceConfig) -> dict[str, Any]:
    """`genai_config.json` of onnxruntime-genai.

    genai has no model type for a decoder on embeddings with this vision tower, so it cannot run the folder by itself;
    the file gives its tools the shapes and names under the keys they know.
    """
    decoder, prompt = device.decoder, device.prompt
    cache = {"past_key_names": "past_key_values.%d.key", "past_value_names": "past_key_values.%d.value"}
    present = {"present_key_names": "present.%d.key", "present_value_names": "present.%d.value"}
    session = {"session_options": {"provider_options": []}}
    eos = list(prompt.eos_token_ids)
    return {
        "model": {
            "type": "bluelm_v",
            "context_length": decoder.max_context,
            "vocab_size": decoder.vocab_size,
            "eos_token_id": eos,
            "pad_token_id": eos[0] if eos else 0,
            "image_token_id": prompt.image_token_id,
            "decoder": {
                **session,
                "filename": names.DECODER_FILE,
                "head_size": decoder.head_dim,
                "hidden_size": decoder.hidden_size,
                "num_attention_heads": decoder.num_attention_heads,
                "num_hidden_layers": decoder.num_layers,
                "num_key_value_heads": decoder.num_key_value_heads,
                "inputs": {
                    "inputs_embeds": names.INPUTS_EMBEDS,
                    "attention_mask": names.ATTENTION_MASK,
                    **cache,
                },
                "outputs": {"logits": names.LOGITS, **present},
            },
            "embedding": {
                **session,
                "filename": names.EMBEDDING_FILE,
                "inputs": {"input_ids": names.INPUT_IDS},
                "outputs": {"inputs_embeds": names.INPUTS_EMBEDS},
            },
            "vision": {
                **session,
                "filename": names.VISION_FILE,
                "inputs": {"pixel_values": names.PATCH_EMBEDS},
                "outputs": {"image_features": names.IMAGE_FEATURES},
            },
        },
        "search": {"max_length": decoder.max_context, "past_present_share_buffer": True, "do_sample": False},
    }


def write_device_files(out: Path, device: DeviceConfig, options: GraphOptions, source: Path | None) -> None:
    """Writes the configuration files, and copies tokenizer, chat template and processor files where a source has them."""
    device.write(out)
    text = json.dumps(genai_config(device), indent=2) + "\n"
    (out / names.GENAI_CONFIG_FILE).write_text(text, encoding="utf-8")
    if options.kv_scales is not None:
        options.kv_scales.write(out)
    for file in (*COPIED_FILES, *PROCESSOR_FILES) if source is not None else ():
        assert source is not None
        if (source / file).is_file():
            shutil.copyfile(source / file, out / file)


def read_imaging(folder: Path) -> ImagingPreset:
    """The picture processor's settings of a checkpoint: preprocessor_config.json, or inside processor_config.json.

    Raises:
        ModelError: neither is there, or they are not a BlueLM-V processor's.
    """
    for file in PROCESSOR_FILES:
        if not (folder / file).is_file():
            continue
        values = read_json(folder / file)
        values = values.get("image_processor", values)
        if "tiling" in values:
            return ImagingPreset(
                tiling=TilingSpec.model_validate(values["tiling"]),
                patch_size=int(values["patch_size"]),
                image_mean=tuple(values["image_mean"]),
                image_std=tuple(values["image_std"]),
                resample=values["resample"],
            )
    raise ModelError(
        f"{folder} has no picture processor of BlueLM-V ({' or '.join(PROCESSOR_FILES)} with a tiling).",
        "The device could not know how to cut pictures for this model.",
        "Save the processor beside the model: processor.save_pretrained(FOLDER); public checkpoints: bluelm adopt",
    )


def read_prompt(folder: Path, config: BlueLMVConfig) -> PromptSpec:
    """Image token and end tokens of a checkpoint.

    Raises:
        ModelError: no tokenizer.json, or the image token is not in it.
    """
    path = folder / names.TOKENIZER_FILE
    if not path.is_file():
        raise ModelError(
            f"{folder} has no {names.TOKENIZER_FILE}.",
            "Without it the exported model can neither read nor write text.",
            "Save the tokenizer beside the model: tokenizer.save_pretrained(FOLDER)",
        )
    image_token = _added_tokens(read_json(path)).get(config.image_token_id)
    if image_token is None:
        raise ModelError(
            f"{path}: the image token's id {config.image_token_id} (config.json) is no special token there.",
            "Pictures would have no place in the prompt.",
            "Check that config.json and tokenizer.json belong together.",
        )
    bos = _token_text(_optional_json(folder / "tokenizer_config.json").get("bos_token"))
    return PromptSpec(
        image_token=image_token, image_token_id=config.image_token_id, eos_token_ids=_eos(folder, config), bos_token=bos
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ModelError: unreadable, or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path} cannot be read: {error}.", "It describes the model.", "Make or copy the folder again."
        ) from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} is not an object.", "It describes the model.", "Make or copy the folder again.")
    return value


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _added_tokens(tokenizer: Mapping[str, Any]) -> dict[int, str]:
    return {int(token["id"]): str(token["content"]) for token in tokenizer.get("added_tokens", [])}


def _token_text(token: Any) -> str | None:
    """A special token's text; tokenizer_config.json holds it plain or as an object."""
    if isinstance(token, dict):
        return str(token["content"])
    return None if token is None else str(token)


def _eos(folder: Path, config: BlueLMVConfig) -> tuple[int, ...]:
    """generation_config.json's end tokens, else the language model's."""
    found = _optional_json(folder / "generation_config.json").get("eos_token_id")
    if found is None:
        found = config.text_config.eos_token_id
    if found is None:
        return ()
    return tuple(int(token) for token in (found if isinstance(found, list) else [found]))


def _check_tiles(imaging: ImagingPreset, shape: ModelShape) -> None:
    processor = imaging.tiling.tile_size, imaging.tiling.tokens_per_tile
    tower = shape.vision.tile_size, shape.vision.tokens
    if processor != tower:
        raise ModelError(
            "The picture processor cuts tiles of {} pixels with {} tokens; the vision tower takes {} and gives {}.".format(
                *processor, *tower
            ),
            "Prompt and pictures would not fit together.",
            "Check that the processor's configuration and config.json belong together.",
        )
