"""LoRA factors on the language model: fresh ones change nothing, merged ones equal active ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from stages.artifacts.errors import ModelError
from stages.workshop.model.adapter import (
    AdapterShape,
    attach_adapter,
    has_adapter,
    is_factor,
    linears_in_layers,
    merge_folder,
    plain_weights,
    remove_adapter,
    write_adapter,
)
from stages.workshop.model.modeling import BlueLMVForConditionalGeneration

Make = Callable[..., BlueLMVForConditionalGeneration]
SHAPE = AdapterShape(rank=3, alpha=7.5, dropout=0.0, targets=("q_proj", "v_proj", "down_proj"))
IDS = torch.arange(5, 45).reshape(2, 20)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def trained(model: BlueLMVForConditionalGeneration, seed: int = 5) -> None:
    """Factors as training leaves them: B is zero no more."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if is_factor(name):
                value.copy_(torch.randn(value.shape, generator=generator) * 0.2)


def test_a_fresh_adapter_changes_nothing_and_sits_on_the_language_model_alone(make_model: Make) -> None:
    model = make_model()
    before = logits(model)
    names = {name for name, _ in model.named_parameters()}
    attach_adapter(model, SHAPE)
    assert torch.equal(logits(model), before)
    factors = {name for name, _ in model.named_parameters() if is_factor(name)}
    # 2 layers × 3 Linears × 2 factors; SigLIP's q_proj and v_proj have none.
    assert len(factors) == 12
    assert all(name.startswith("language_model.model.layers.") for name in factors)
    remove_adapter(model, merge=False)
    assert {name for name, _ in model.named_parameters()} == names
    assert not has_adapter(model)
    assert torch.equal(logits(model), before)


def test_the_same_seed_gives_the_same_factors_and_leaves_the_random_state(make_model: Make) -> None:
    first, second, other = make_model(), make_model(), make_model()
    state = torch.get_rng_state()
    for model, seed in ((first, 1), (second, 1), (other, 2)):
        attach_adapter(model, SHAPE, seed)
    assert torch.equal(torch.get_rng_state(), state)
    name = "language_model.model.layers.1.mlp.down_proj.lora_A.default.weight"
    assert torch.equal(first.state_dict()[name], second.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


def test_merged_equals_active_and_the_formula(make_model: Make) -> None:
    model, base = make_model(), make_model()
    attach_adapter(model, SHAPE)
    trained(model)
    active = logits(model)
    weights = {name: value.detach().clone() for name, value in model.named_parameters()}
    by_formula = plain_weights(model, weights, merge=True)
    left = plain_weights(model, weights, merge=False)
    remove_adapter(model, merge=True)
    torch.testing.assert_close(logits(model), active, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(active, logits(base), atol=1e-2)
    after = dict(model.named_parameters())
    assert by_formula.keys() == left.keys() == after.keys() == dict(base.named_parameters()).keys()
    for name, value in base.named_parameters():
        torch.testing.assert_close(after[name].detach(), by_formula[name], rtol=1e-6, atol=1e-6)
        assert torch.equal(left[name], value)
        targeted = name.rsplit(".", 2)[-2] in SHAPE.targets and name.startswith("language_model.")
        assert torch.equal(by_formula[name], value) == (not targeted), name


def test_peft_opens_what_is_written(make_model: Make, tmp_path: Path) -> None:
    model = make_model()
    attach_adapter(model, SHAPE)
    trained(model)
    active = logits(model)
    write_adapter(model, tmp_path / "adapter")
    opened = PeftModel.from_pretrained(make_model(), str(tmp_path / "adapter")).eval()
    assert torch.equal(logits(opened), active)
    again = make_model()
    merge_folder(again, tmp_path / "adapter")
    torch.testing.assert_close(logits(again), active, rtol=1e-5, atol=1e-5)
    assert not has_adapter(again)
    assert {name for name, _ in again.named_parameters()} == {name for name, _ in make_model().named_parameters()}
    # The same adapter gives the same bytes.
    write_adapter(model, tmp_path / "again")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "adapter" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_what_targets_can_be(make_model: Make) -> None:
    names = [name for name, _ in make_model().named_parameters() if name.startswith("language_model.")]
    assert linears_in_layers(names) == ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.fixture
def folder(make_model: Make, tmp_path: Path) -> Path:
    model = make_model()
    attach_adapter(model, SHAPE)
    write_adapter(model, tmp_path / "adapter")
    return tmp_path / "adapter"


def test_an_adapter_that_lost_a_file(make_model: Make, folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no adapter_model\.safetensors"):
        merge_folder(make_model(), folder)


def test_an_adapter_that_lost_a_factor(make_model: Make, folder: Path) -> None:
    weights = load_file(folder / "adapter_model.safetensors")
    weights.pop(next(name for name in weights if "layers.1.mlp.down_proj.lora_B" in name))
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 factors are missing or too many, such as .*layers\.1\.mlp\.down_proj"):
        merge_folder(make_model(), folder)


def test_a_damaged_adapter(make_model: Make, folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="the adapter cannot be put on"):
        merge_folder(make_model(), folder)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"adapter_config\.json cannot be read"):
        merge_folder(make_model(), folder)


def test_an_adapter_of_another_shape(make_model: Make, folder: Path) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "r": 5}))
    with pytest.raises(ModelError, match="the adapter cannot be put on"):
        merge_folder(make_model(), folder)
