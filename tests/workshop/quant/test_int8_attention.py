"""INT8 attention in torch is the contract's."""

import numpy as np
import pytest
import torch
from transformers import SiglipVisionConfig, SiglipVisionModel

from stages.device.contract import int8_attention as contract
from stages.workshop.quant.input_rounding import InputRounding
from stages.workshop.quant.int8_attention import attend
from stages.workshop.quant.simulation import DeviceArithmetic


def by_head(x: np.ndarray, heads: int) -> torch.Tensor:
    return torch.from_numpy(x).unflatten(-1, (heads, -1)).transpose(1, 2)


@pytest.mark.parametrize(("heads", "size", "positions"), [(2, 8, 9), (4, 6, 49)])
def test_attention_is_the_contracts(heads: int, size: int, positions: int) -> None:
    rng = np.random.default_rng(positions)
    q, k, v = (rng.standard_normal((3, positions, heads * size)).astype(np.float32) * 2 for _ in range(3))
    k[:, 2] = 0
    expected = contract.attend(q, k, v, heads)
    found = attend(*(by_head(x, heads) for x in (q, k, v))).transpose(1, 2).flatten(2).numpy()
    exact = torch.nn.functional.scaled_dot_product_attention(*(by_head(x, heads) for x in (q, k, v)))
    cost = np.linalg.norm(expected - exact.transpose(1, 2).flatten(2).numpy())
    # softmax sums in another order, so a weight may be rounded the other way, rarely.
    assert np.linalg.norm(found - expected) < cost / 4
    assert np.median(np.abs(found - expected)) < 1e-6


def test_a_tower_computes_so_while_the_block_lasts() -> None:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = SiglipVisionConfig(**shape, image_size=28, patch_size=4, vision_use_head=False)
    tower = SiglipVisionModel(config).eval()
    name = next(name for name, _ in tower.named_modules() if name.endswith("self_attn"))
    attention = tower.get_submodule(name)
    x = torch.randn(2, 49, 32)
    with torch.no_grad():
        plain, _ = attention(x)
        roundings = {f"{name}.{part}_proj": InputRounding("int8") for part in "qkv"}
        with DeviceArithmetic(roundings, (name,)).on(tower):
            rounded, _ = attention(x)
        again, _ = attention(x)
        inputs = roundings[f"{name}.q_proj"](x)
        parts = [getattr(attention, f"{part}_proj")(inputs).numpy() for part in "qkv"]
        expected = attention.out_proj(torch.from_numpy(contract.attend(*parts, 4)))
    assert torch.equal(plain, again)
    assert 1e-4 < (rounded - plain).norm() / plain.norm() < 0.1
    assert (rounded - expected).norm() < (rounded - plain).norm() / 4
