"""Presets: the paper's sizes, and random weights that a seed decides."""

from __future__ import annotations

import pytest
import torch

from stages.artifacts.errors import UsageError
from stages.device.imaging.geometry import Size
from stages.device.imaging.presets import IMAGING_PRESETS, imaging_preset
from stages.device.imaging.tiling import plan_tiling
from stages.workshop.model.modeling import BlueLMVForConditionalGeneration
from stages.workshop.model.presets import MODEL_PRESETS, build_model, preset_config


def meta_model(name: str) -> BlueLMVForConditionalGeneration:
    with torch.device("meta"):
        return BlueLMVForConditionalGeneration(preset_config(name))


def test_bluelm_v_3b_has_the_papers_parts() -> None:
    """About 400 M in the tower, 2.7 B in the language model (Sec. 3.3): 3.1 B with the connector."""
    model = meta_model("bluelm-v-3b")
    millions = {name: sum(value.numel() for value in part.parameters()) / 1e6 for name, part in model.named_children()}
    assert millions == pytest.approx(
        {"vision_tower": 412.9, "multi_modal_projector": 15.9, "language_model": 2724.9}, abs=0.1
    )
    linears = [part for part in model.language_model.model.layers.modules() if isinstance(part, torch.nn.Linear)]
    assert sum(linear.weight.numel() for linear in linears) == 40 * (4 * 2304 * 2304 + 3 * 2304 * 5760)
    assert model.config.tokens_per_tile == 196


def test_a_phone_screen_is_1764_tokens() -> None:
    tiling = plan_tiling(Size(1080, 2400), imaging_preset("bluelm-v-3b").tiling)
    assert (tiling.grid, tiling.tiles, tiling.tokens) == ((2, 4), 9, 1764)


@pytest.mark.parametrize("name", MODEL_PRESETS)
def test_shapes_suit_quantization_and_rotary(name: str) -> None:
    config = preset_config(name)
    text = config.text_config
    assert text.head_dim % 16 == 0
    assert all(width % 32 == 0 for width in (text.hidden_size, text.intermediate_size))
    assert config.tokens_per_tile == IMAGING_PRESETS[name].tiling.tokens_per_tile
    assert config.tile_size == IMAGING_PRESETS[name].tiling.tile_size
    assert MODEL_PRESETS.keys() == IMAGING_PRESETS.keys()


def test_tiny_is_about_a_million() -> None:
    assert 0.9e6 < sum(value.numel() for value in meta_model("tiny").parameters()) < 1.2e6


def test_layers_can_be_fewer() -> None:
    config = preset_config("bluelm-v-3b", text_layers=2, vision_layers=3, vocab_size=100)
    assert (config.text_config.num_hidden_layers, config.vision_config.num_hidden_layers) == (2, 3)
    assert config.text_config.vocab_size == 100


def test_the_seed_decides_the_weights_and_nothing_else() -> None:
    config = preset_config("tiny", text_layers=1, vision_layers=1, vocab_size=300, eos_token_id=2, pad_token_id=0)
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first = build_model(config, seed=1)
    assert torch.equal(torch.rand(1), expected)
    torch.manual_seed(8)
    same, other = build_model(config, seed=1), build_model(config, seed=2)
    weights = first.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in same.state_dict().items())
    assert not torch.equal(other.get_input_embeddings().weight, first.get_input_embeddings().weight)
    assert first.generation_config.eos_token_id == 2
    assert first.generation_config.suppress_tokens == [config.image_token_id]


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="no model preset 'bluelm-v-3B'") as caught:
        preset_config("bluelm-v-3B")
    assert "Did you mean bluelm-v-3b?" in caught.value.fix
