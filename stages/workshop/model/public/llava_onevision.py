"""LLaVA-OneVision in transformers' own layout: SigLIP, a plain 2-layer MLP and Qwen2, in one folder.

Published files have the older names (`vision_tower.vision_model.…`, `language_model.model.…`), files saved by newer
versions of transformers have `model.` in front; both are read. Source: transformers, `models/llava_onevision`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import SiglipVisionConfig

from stages.artifacts.errors import BluelmError, ModelError, raise_all
from stages.workshop.model.configuration import BlueLMVConfig
from stages.workshop.model.public.source import (
    PublicModel,
    WeightPlace,
    picture_settings,
    read_config,
    read_json_if_there,
    tower_notes,
    tower_weights,
    weights_in,
)

MODEL_TYPE = "llava_onevision"
_TOWER = re.compile(r"^(?:model\.)?vision_tower\.")
# Ordered: the first that matches renames.
_RENAMES = (
    (re.compile(r"^model\.language_model\."), "language_model.model."),
    (re.compile(r"^lm_head\."), "language_model.lm_head."),
    (re.compile(r"^(?:model\.)?multi_modal_projector\."), "multi_modal_projector."),
)
_NEWLINE = re.compile(r"^(?:model\.)?image_newline$")


def is_llava_onevision(config: Mapping[str, Any]) -> bool:
    """Whether this is LLaVA-OneVision's layout."""
    return config.get("model_type") == MODEL_TYPE


def read_llava_onevision(folder: Path) -> PublicModel:
    """Reads a LLaVA-OneVision folder.

    Raises:
        ModelError: a variant that computes something else, or broken files.
    """
    top = read_config(folder)
    raise_all(list(_problems(folder, top)))
    vision = SiglipVisionConfig.from_dict({**top.vision_config.to_dict(), "vision_use_head": False})
    there = int(vision.num_hidden_layers)
    used = there + 1 + int(top.vision_feature_layer)
    vision.num_hidden_layers = used
    text = top.text_config
    text.tie_word_embeddings = bool(top.tie_word_embeddings)
    config = BlueLMVConfig(
        vision_config=vision,
        text_config=text,
        downsampler="none",
        vision_post_layernorm=False,
        projector_hidden_act=top.projector_hidden_act,
        image_token_id=top.image_token_index,
    )
    preprocessor = read_json_if_there(folder / "preprocessor_config.json")
    preprocessor = preprocessor or read_json_if_there(folder / "processor_config.json").get("image_processor", {})
    notes = (
        "image_newline, the embedding at the end of every row of tiles, is left out: tiles follow each other without "
        "separators here, and their features are not pooled.",
    )
    return PublicModel(
        layout="LLaVA-OneVision",
        config=config,
        weights=_our_names(weights_in(folder), used),
        tokenizer_folder=folder,
        pictures=picture_settings(preprocessor),
        chat_templates=_chat_templates(folder),
        generation=read_json_if_there(folder / "generation_config.json"),
        notes=(*notes, *tower_notes(there, used)),
    )


def _our_names(weights: Mapping[str, WeightPlace], layers: int) -> dict[str, WeightPlace]:
    tower = {_TOWER.sub("", key): place for key, place in weights.items() if _TOWER.match(key)}
    ours = tower_weights(tower, layers)
    for key, place in weights.items():
        if _TOWER.match(key) or _NEWLINE.match(key):
            continue
        rename = next(((pattern, ours_name) for pattern, ours_name in _RENAMES if pattern.match(key)), None)
        ours[rename[0].sub(rename[1], key) if rename else key] = place
    return ours


def _chat_templates(folder: Path) -> tuple[str, ...]:
    found: list[str] = []
    if (folder / "chat_template.jinja").is_file():
        found.append((folder / "chat_template.jinja").read_text(encoding="utf-8"))
    for name in ("chat_template.json", "processor_config.json"):
        template = read_json_if_there(folder / name).get("chat_template")
        if isinstance(template, str):
            found.append(template)
    return tuple(found)


def _problems(folder: Path, top: Any) -> list[BluelmError]:
    found: list[BluelmError] = []

    def refuse(what: str, why: str) -> None:
        fix = "Use a checkpoint like llava-onevision-qwen2-0.5b-ov-hf or -7b-ov-hf."
        found.append(ModelError(f"{folder}: {what}", why, fix))

    if top.vision_config.model_type != "siglip_vision_model":
        refuse(f"the vision tower is {top.vision_config.model_type!r}.", "This architecture has a SigLIP tower.")
    if not isinstance(top.vision_feature_layer, int):
        refuse(
            f"vision_feature_layer is {top.vision_feature_layer!r}.", "One layer's output goes into the connector here."
        )
    if top.vision_feature_select_strategy != "full":
        refuse(
            f"vision_feature_select_strategy is {top.vision_feature_select_strategy!r}.",
            "SigLIP has no class token, so dropping the first token would drop a patch.",
        )
    if not top.multimodal_projector_bias:
        refuse("the projector has no biases.", "The connector here always has them.")
    return found
