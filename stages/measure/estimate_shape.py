"""Widths and depths of a model, whatever form it has: a preset, an exported model, a transformers folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stages.artifacts.errors import ModelError
from stages.artifacts.folder import Artifact
from stages.artifacts.plain_json import parse_json
from stages.device.contract.device_config import read_device_config
from stages.device.contract.model_shapes import model_preset
from stages.device.contract.names import DECODER_FILE, VISION_FILE
from stages.device.imaging.presets import imaging_preset
from stages.device.imaging.spec import TilingSpec
from stages.measure.graph_file import read_graph_file
from stages.measure.product_forms import products_of

# Positions that an export makes room for unless told otherwise.
DEFAULT_CONTEXT = 4096


@dataclass(frozen=True)
class ModelShape:
    """A model's numbers, and how its pictures are cut.

    Attributes:
        name: of the model.
        tiling: rule, grids, tile side and tokens a tile.
        patch_size: side of a ViT patch.
        patches: of a tile.
        vision_layers, vision_width, vision_mlp: of the tower.
        layers, width, mlp, heads, kv_heads, head_dim, vocab: of the language model.
        tied: embedding and head are one table.
        context: most positions.
    """

    name: str
    tiling: TilingSpec
    patch_size: int
    patches: int
    vision_layers: int
    vision_width: int
    vision_mlp: int
    layers: int
    width: int
    mlp: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool
    context: int

    def cut_to(self, layers: int | None, vision_layers: int | None) -> ModelShape:
        """The same with fewer layers."""
        vision = vision_layers or min(layers or self.vision_layers, self.vision_layers)
        return replace(self, layers=layers or self.layers, vision_layers=vision)


def preset_shape(name: str) -> ModelShape:
    """The shape of a preset.

    Raises:
        UsageError: there is none of that name.
    """
    model, imaging = model_preset(name), imaging_preset(name)
    return ModelShape(
        name=name,
        tiling=imaging.tiling,
        patch_size=imaging.patch_size,
        patches=(imaging.tiling.tile_size // imaging.patch_size) ** 2,
        vision_layers=model.vision_layers,
        vision_width=model.vision_width,
        vision_mlp=model.vision_mlp,
        layers=model.text_layers,
        width=model.text_width,
        mlp=model.text_mlp,
        heads=model.text_heads,
        kv_heads=model.text_kv_heads,
        head_dim=model.text_width // model.text_heads,
        vocab=model.vocab_size,
        tied=model.tied,
        context=min(DEFAULT_CONTEXT, model.max_positions),
    )


def artifact_shape(artifact: Artifact) -> ModelShape:
    """The shape of an exported model or of a checkpoint, quantized or not; no weights are read.

    Raises:
        ModelError: its configuration or a graph is missing or broken.
    """
    if artifact.kind == "onnx":
        return _exported_shape(artifact.path)
    return _checkpoint_shape(artifact.path)


def _exported_shape(folder: Path) -> ModelShape:
    config = read_device_config(folder)
    vision, decoder = config.vision, config.decoder
    inner = {name: macs for name, macs in _products(folder / VISION_FILE).items() if "/mlp/fc1/" in name}
    gates = {name: macs for name, macs in _products(folder / DECODER_FILE).items() if "/mlp/up_proj/" in name}
    if not inner or not gates:
        raise ModelError(
            f"{folder}: {VISION_FILE} or {DECODER_FILE} has no MLP under a name of ours.",
            "Its widths, and so its cost, cannot be read from it.",
            "Export the model with bluelm export, or estimate a --preset.",
        )
    return ModelShape(
        name=config.name,
        tiling=config.tiling,
        patch_size=vision.patch_size,
        patches=vision.patches_per_tile,
        vision_layers=len(inner),
        vision_width=vision.vision_width,
        vision_mlp=max(inner.values()) // vision.vision_width,
        layers=decoder.num_layers,
        width=decoder.hidden_size,
        mlp=max(gates.values()) // decoder.hidden_size,
        heads=decoder.num_attention_heads,
        kv_heads=decoder.num_key_value_heads,
        head_dim=decoder.head_dim,
        vocab=decoder.vocab_size,
        tied=True,
        context=decoder.max_context,
    )


def _products(path: Path) -> dict[str, int]:
    return {product.name: product.macs for product in products_of(read_graph_file(path)) if product.macs is not None}


def _checkpoint_shape(folder: Path) -> ModelShape:
    path = folder / "config.json"
    try:
        config: dict[str, Any] = parse_json(path.read_bytes())
        vision, text = config["vision_config"], config["text_config"]
        side, patch = int(vision["image_size"]), int(vision["patch_size"])
        patches = (side // patch) ** 2
        tokens = ((side // patch + 1) // 2) ** 2
        heads = int(text["num_attention_heads"])
        return ModelShape(
            name=folder.name,
            tiling=TilingSpec(tile_size=side, tokens_per_tile=tokens),
            patch_size=patch,
            patches=patches,
            vision_layers=int(vision["num_hidden_layers"]),
            vision_width=int(vision["hidden_size"]),
            vision_mlp=int(vision["intermediate_size"]),
            layers=int(text["num_hidden_layers"]),
            width=int(text["hidden_size"]),
            mlp=int(text["intermediate_size"]),
            heads=heads,
            kv_heads=int(text.get("num_key_value_heads") or heads),
            head_dim=int(text.get("head_dim") or text["hidden_size"] // heads),
            vocab=int(text["vocab_size"]),
            tied=bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))),
            context=min(DEFAULT_CONTEXT, int(text["max_position_embeddings"])),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path} does not say the model's shape: {error!r}.",
            "Its memory and time follow from its widths and depths.",
            "Give a model made by bluelm, or estimate a --preset.",
        ) from error
