"""Settings of a checkpoint that the device needs: how pictures are cut, which tokens are special."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.artifacts.errors import ModelError
from stages.device.contract import names
from stages.device.contract.device_config import PromptSpec
from stages.device.imaging.presets import ImagingPreset
from stages.device.imaging.spec import TilingSpec
from stages.workshop.graph.json_file import read_json, read_json_if_any

if TYPE_CHECKING:
    from stages.workshop.model.configuration import BlueLMVConfig

PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


def read_model_config(folder: Path) -> BlueLMVConfig:
    """The configuration of a checkpoint.

    Raises:
        ModelError: not a BlueLM-V checkpoint.
    """
    from stages.workshop.model.configuration import MODEL_TYPE, BlueLMVConfig

    values = read_json(folder / "config.json")
    if values.get("model_type") != MODEL_TYPE:
        raise ModelError(
            f"{folder / 'config.json'}: the model type is {values.get('model_type')!r}.",
            f"Only {MODEL_TYPE} checkpoints can be exported.",
            f"Take over a VILA-1.5 or LLaVA-OneVision folder with: bluelm adopt {folder} --out CHECKPOINT",
        )
    try:
        return BlueLMVConfig.from_dict(values)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"{folder / 'config.json'} describes no model: {error}.",
            "The graphs are built from it.",
            "Copy the checkpoint again, or make it again.",
        ) from error


def read_chat_template(folder: Path) -> str:
    """The chat template's text: chat_template.jinja, or inside tokenizer_config.json.

    Raises:
        ModelError: there is none.
    """
    path = folder / names.CHAT_TEMPLATE_FILE
    if path.is_file():
        return path.read_text(encoding="utf-8")
    inside = read_json_if_any(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(inside, str):
        return inside
    raise ModelError(
        f"{folder} has no {names.CHAT_TEMPLATE_FILE}.",
        "Without it no prompt can be built.",
        "Save the processor beside the model: processor.save_pretrained(FOLDER)",
    )


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
    bos = _token_text(read_json_if_any(folder / "tokenizer_config.json").get("bos_token"))
    return PromptSpec(
        image_token=image_token, image_token_id=config.image_token_id, eos_token_ids=_eos(folder, config), bos_token=bos
    )


def _added_tokens(tokenizer: Mapping[str, Any]) -> dict[int, str]:
    return {int(token["id"]): str(token["content"]) for token in tokenizer.get("added_tokens", [])}


def _token_text(token: Any) -> str | None:
    """A special token's text; tokenizer_config.json holds it plain or as an object."""
    if isinstance(token, dict):
        return str(token["content"])
    return None if token is None else str(token)


def _eos(folder: Path, config: BlueLMVConfig) -> tuple[int, ...]:
    """generation_config.json's end tokens, else the language model's."""
    found = read_json_if_any(folder / "generation_config.json").get("eos_token_id")
    if found is None:
        found = config.text_config.eos_token_id
    if found is None:
        return ()
    return tuple(int(token) for token in (found if isinstance(found, list) else [found]))
