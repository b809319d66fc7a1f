"""VILA-1.5: SigLIP, `mlp_downsample` and a Llama in three sub-folders: this very architecture.

    config.json       model_type llava_llama, mm_vision_select_layer -2
    llm/              a causal language model with its tokenizer
    vision_tower/     a SiglipVisionModel with preprocessor_config.json
    mm_projector/     layers.1 LayerNorm, layers.2 Linear, layers.4 Linear (0 and 3 have no weights)

Source: NVlabs/VILA, `llava/model/llava_arch.py` (save_pretrained) and `multimodal_projector/base_projector.py`.
"""

from __future__ import annotations

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
    read_json,
    read_json_if_there,
    tower_notes,
    tower_weights,
    weights_in,
)

MODEL_TYPES = ("llava_llama", "llava_mistral", "llava_gemma")
PARTS = ("llm", "vision_tower", "mm_projector")
# projector type -> our downsampler and where its parts stand in VILA's nn.Sequential.
_PROJECTORS: dict[str, tuple[str, dict[str, str]]] = {
    "mlp_downsample": ("mlp_downsample", {"layers.1": "norm", "layers.2": "linear_1", "layers.4": "linear_2"}),
    "mlp2x_gelu": ("none", {"layers.0": "linear_1", "layers.2": "linear_2"}),
}


def is_vila(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether this is VILA's layout."""
    return config.get("model_type") in MODEL_TYPES and all((folder / part).is_dir() for part in PARTS)


def read_vila(folder: Path) -> PublicModel:
    """Reads a VILA-1.5 folder.

    Raises:
        ModelError: a variant that computes something else (S2, another tower or projector), or broken files.
    """
    top = read_json(folder / "config.json")
    tower = read_json(folder / "vision_tower" / "config.json")
    projector = read_json(folder / "mm_projector" / "config.json").get("mm_projector_type")
    raise_all(list(_problems(folder, top, tower, projector)))
    downsampler, places = _PROJECTORS[str(projector)]
    vision = SiglipVisionConfig.from_dict({**tower, "vision_use_head": False})
    there = int(vision.num_hidden_layers)
    used = there + 1 + int(top.get("mm_vision_select_layer", -2))
    vision.num_hidden_layers = used
    config = BlueLMVConfig(
        vision_config=vision,
        text_config=read_config(folder / "llm"),
        downsampler=downsampler,
        token_order="column" if downsampler == "mlp_downsample" else "row",
        vision_post_layernorm=False,
    )
    weights = {
        **tower_weights(weights_in(folder / "vision_tower"), used),
        **_projector_weights(weights_in(folder / "mm_projector"), places),
        **{f"language_model.{key}": place for key, place in weights_in(folder / "llm").items()},
    }
    return PublicModel(
        layout="VILA-1.5",
        config=config,
        weights=weights,
        tokenizer_folder=folder / "llm",
        pictures=picture_settings(read_json_if_there(folder / "vision_tower" / "preprocessor_config.json")),
        generation=read_json_if_there(folder / "llm" / "generation_config.json"),
        notes=tower_notes(there, used),
    )


def _projector_weights(weights: Mapping[str, WeightPlace], places: Mapping[str, str]) -> dict[str, WeightPlace]:
    ours: dict[str, WeightPlace] = {}
    for key, place in weights.items():
        module, _, leaf = key.rpartition(".")
        ours[f"multi_modal_projector.{places.get(module, module)}.{leaf}"] = place
    return ours


def _problems(folder: Path, top: Mapping[str, Any], tower: Mapping[str, Any], projector: Any) -> list[BluelmError]:
    found: list[BluelmError] = []

    def refuse(what: str, why: str) -> None:
        fix = "Use a checkpoint of VILA-1.5 with a SigLIP tower and mlp_downsample, such as VILA1.5-3b."
        found.append(ModelError(f"{folder}: {what}", why, fix))

    if top.get("s2") or top.get("dynamic_s2"):
        refuse("the model looks at every picture in several scales (s2).", "This architecture tiles pictures instead.")
    if tower.get("model_type") != "siglip_vision_model":
        refuse(f"the vision tower is {tower.get('model_type')!r}.", "This architecture has a SigLIP tower.")
    elif top.get("mm_vision_select_feature", "cls_patch") != "cls_patch":
        refuse(
            f"mm_vision_select_feature is {top['mm_vision_select_feature']!r}.",
            "SigLIP has no class token, so dropping the first token would drop a patch.",
        )
    if projector not in _PROJECTORS:
        refuse(f"the projector is {projector!r}.", f"Known here: {', '.join(_PROJECTORS)}.")
    return found
