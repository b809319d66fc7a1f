"""patch_embed.onnx and vision.onnx against torch, over grids, connectors and forms of weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from stages.artifacts.errors import ModelError
from stages.device.contract import names
from stages.workshop.graph import vision
from stages.workshop.graph.emitter import GraphEmitter
from stages.workshop.graph.patch_embed import Normalization, emit_patch_embed
from stages.workshop.graph.vision import VisionEmitter, attention_form
from stages.workshop.graph.vision_shape import vision_shape

HALVES = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
KINDS: dict[str, dict[str, Any]] = {
    "odd grid": {},
    "even grid": {"vision": {"image_size": 24}},
    "patch that leaves a rest": {"vision": {"image_size": 30}},
    "one patch": {"vision": {"image_size": 4}},
    "no downsampler": {"downsampler": "none"},
    "fuse_linear": {"fuse_linear": True},
    "columns first": {"token_order": "column"},
    "second to last layer, no last norm": {"vision_feature_layer": -2, "vision_post_layernorm": False},
    "last layer, no last norm": {"vision_post_layernorm": False},
    "embeddings only": {"vision_feature_layer": -3, "vision_post_layernorm": False},
    "exact GELU in the tower": {"vision": {"hidden_act": "gelu"}},
    "quick GELU": {"vision": {"hidden_act": "quick_gelu"}},
    "tanh GELU in the connector": {"projector_hidden_act": "gelu_pytorch_tanh"},
    "other epsilon": {"vision": {"layer_norm_eps": 1e-2}},
}


@pytest.fixture
def export_vision(tmp_path: Path, torch_weights: Any) -> Callable[..., Path]:
    """Writes both graphs; afterwards the model has the weights that their form keeps."""

    def export(
        model: Any,
        form: str = "float",
        batch: int | str = "tiles",
        activations: str = "float",
        pictures: Normalization = HALVES,
    ) -> Path:
        weights, shape = torch_weights(model, form, activations=activations), vision_shape(model.config)
        with GraphEmitter(tmp_path, names.PATCH_EMBED_FILE, "/vision/embeddings") as emitter:
            emit_patch_embed(emitter, weights, shape, batch, pictures)
            emitter.save()
        with GraphEmitter(tmp_path, names.VISION_FILE, "/vision") as emitter:
            list(VisionEmitter(emitter, weights, shape).emit(batch))
            emitter.save()
        weights.apply()
        return tmp_path

    return export


def tiles_of(model: Any, tiles: int) -> np.ndarray:
    side = model.config.tile_size
    return np.random.default_rng(tiles).integers(0, 256, (tiles, 3, side, side), dtype=np.uint8)


def pixels_of(tiles: np.ndarray, pictures: Normalization = HALVES) -> torch.Tensor:
    """The same by torch, in float64."""
    mean, std = (torch.tensor(part, dtype=torch.float64)[:, None, None] for part in pictures)
    return ((torch.from_numpy(tiles).double() / 255 - mean) / std).float()


def error(found: np.ndarray, expected: torch.Tensor) -> float:
    assert found.shape == tuple(expected.shape)
    return float(np.linalg.norm(found - expected.numpy()) / np.linalg.norm(expected.numpy()))


@pytest.mark.parametrize("form", ["float", "int8"])
@pytest.mark.parametrize("kind", KINDS)
def test_graphs_equal_torch(kind: str, form: str, tiny_model: Any, export_vision: Any, open_graph: Any) -> None:
    model = tiny_model(**KINDS[kind])
    folder = export_vision(model, form)
    tiles = tiles_of(model, 3)
    pixels = pixels_of(tiles)
    with torch.no_grad():
        patches = model.embed_patches(pixels)
        features = model.encode_patches(patches)
        tokens = model.get_image_features(pixels)
    embedded = open_graph(folder / names.PATCH_EMBED_FILE)({names.PIXEL_VALUES: tiles})[names.PATCH_EMBEDS]
    assert error(embedded, patches) < 2e-6
    outputs = open_graph(folder / names.VISION_FILE)({names.PATCH_EMBEDS: embedded})
    assert error(outputs[names.VIT_FEATURES], features) < 5e-6
    assert error(outputs[names.IMAGE_FEATURES], tokens) < 5e-6


@pytest.mark.parametrize("size", [28, 30])
@pytest.mark.parametrize(
    "pictures",
    [
        HALVES,
        Normalization((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        Normalization((0.0, 0.1, 0.9), (1.0, 0.05, 0.3)),
    ],
)
def test_the_normalization_is_in_the_weights(
    pictures: Normalization, size: int, tiny_model: Any, export_vision: Any, open_graph: Any
) -> None:
    """Every value, not only their norm; also where the channels differ, and where a rest of the tile is unseen."""
    model = tiny_model(vision={"image_size": size})
    run = open_graph(export_vision(model, pictures=pictures) / names.PATCH_EMBED_FILE)
    white = np.full((1, 3, size, size), 255, np.uint8)
    for tiles in (tiles_of(model, 3), white, np.zeros_like(white)):
        with torch.no_grad():
            expected = model.embed_patches(pixels_of(tiles, pictures)).numpy()
        found = run({names.PIXEL_VALUES: tiles})[names.PATCH_EMBEDS]
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * float(np.abs(expected).max()))


def test_a_tile_does_not_see_the_others(tiny_model: Any, export_vision: Any, open_graph: Any) -> None:
    model = tiny_model()
    run = open_graph(export_vision(model, "int8", activations="int8") / names.VISION_FILE)
    patches = np.random.default_rng(0).standard_normal((5, 49, 32)).astype(np.float32)
    together = run({names.PATCH_EMBEDS: patches})[names.IMAGE_FEATURES]
    for index in range(5):
        alone = run({names.PATCH_EMBEDS: patches[index : index + 1]})[names.IMAGE_FEATURES]
        np.testing.assert_allclose(alone[0], together[index], rtol=0, atol=2e-6)


def test_int8_activations_cost_what_rounding_costs(tiny_model: Any, export_vision: Any, open_graph: Any) -> None:
    model = tiny_model()
    run = open_graph(export_vision(model, "int8", activations="int8") / names.VISION_FILE)
    with torch.no_grad():
        patches = model.embed_patches(pixels_of(tiles_of(model, 3)))
        expected = model.multi_modal_projector(model.encode_patches(patches))
    assert 1e-4 < error(run({names.PATCH_EMBEDS: patches.numpy()})[names.IMAGE_FEATURES], expected) < 3e-2


@pytest.mark.parametrize(
    ("form", "activations", "kept"),
    [("float", "int8", True), ("int8", "float", True), ("int8", "int16", True), ("int8", "int8", False)],
)
def test_attention_is_int8_where_its_projections_are(
    form: str, activations: str, kept: bool, tiny_model: Any, export_vision: Any
) -> None:
    operators = [
        node.op_type
        for node in onnx.load(export_vision(tiny_model(), form, activations=activations) / names.VISION_FILE).graph.node
    ]
    assert ("MultiHeadAttention" in operators) == kept
    assert ("Softmax" in operators) != kept


def test_one_projection_in_float_keeps_attention_in_float(tiny_model: Any, torch_weights: Any) -> None:
    model = tiny_model()
    rounded, plain = (
        torch_weights(model, "int8", activations=how).linear(
            f"vision_tower.encoder.layers.0.self_attn.{part}", 32, 32, bias=True
        )
        for how, part in (("int8", "q_proj"), ("int16", "k_proj"))
    )
    assert attention_form([rounded, rounded]) == "int8"
    assert attention_form([rounded, plain]) == "float"


def test_int8_attention_costs_little_more_than_rounding_its_inputs(
    tiny_model: Any, export_vision: Any, open_graph: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    patches = {names.PATCH_EMBEDS: np.random.default_rng(0).standard_normal((3, 49, 32)).astype(np.float32)}
    rounded = open_graph(export_vision(model, "int8", activations="int8") / names.VISION_FILE)(patches)
    monkeypatch.setattr(vision, "attention_form", lambda _: "float")
    unrounded = open_graph(export_vision(model, "int8", activations="int8") / names.VISION_FILE)(patches)
    assert 1e-4 < error(rounded[names.VIT_FEATURES], torch.from_numpy(unrounded[names.VIT_FEATURES])) < 1.5e-2


def test_a_fixed_batch_takes_no_other_number_of_tiles(tiny_model: Any, export_vision: Any) -> None:
    folder = export_vision(tiny_model(), batch=4)
    for name in (names.PATCH_EMBED_FILE, names.VISION_FILE):
        session = ort.InferenceSession(str(folder / name), providers=["CPUExecutionProvider"])
        assert session.get_inputs()[0].shape[0] == 4
        assert session.get_outputs()[0].shape[0] == 4


def test_so400m_has_the_papers_numbers(tiny_config: Any) -> None:
    """384 pixels, patches of 14: 27×27 patches, 196 tokens."""
    shape = vision_shape(tiny_config(vision={"image_size": 384, "patch_size": 14}))
    assert (shape.side, shape.patches, shape.token_side, shape.tokens) == (27, 729, 14, 196)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"vision": {"hidden_act": "silu"}}, "vision_config.hidden_act is 'silu'"),
        ({"projector_hidden_act": "silu"}, "projector_hidden_act is 'silu'"),
    ],
)
def test_an_activation_without_an_operator_is_refused(arguments: dict[str, Any], words: str, tiny_config: Any) -> None:
    with pytest.raises(ModelError) as caught:
        vision_shape(tiny_config(**arguments))
    assert words in caught.value.what
    assert "gelu_pytorch_tanh" in caught.value.fix
