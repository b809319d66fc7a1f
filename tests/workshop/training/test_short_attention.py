"""Attention written out: the same sums as torch's fused one, and only where it is asked for."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import SiglipVisionConfig, SiglipVisionModel

from stages.workshop.training.short_attention import attend_short, is_short, short_attention


def heads(tokens: int, queries: int, keys: int, dtype: torch.dtype) -> list[torch.Tensor]:
    torch.manual_seed(tokens)
    return [torch.randn(1, count, tokens, 8, dtype=dtype, requires_grad=True) for count in (queries, keys, keys)]


@pytest.mark.parametrize(("queries", "keys"), [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("tokens", [1, 2, 37])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_written_out_equals_fused(queries: int, keys: int, tokens: int, scaling: float | None) -> None:
    """Outputs and gradients, in float64."""
    parts = heads(tokens, queries, keys, torch.float64)
    ours = attend_short(parts[0], parts[1], parts[2], scaling)
    theirs = scaled_dot_product_attention(*parts, is_causal=True, scale=scaling, enable_gqa=True).transpose(1, 2)
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)
    weights = torch.randn_like(ours)
    for one, other in zip(
        torch.autograd.grad((ours * weights).sum(), parts),
        torch.autograd.grad((theirs * weights).sum(), parts),
        strict=True,
    ):
        assert torch.allclose(one, other, rtol=0, atol=1e-12)


def test_short_rows_in_bfloat16_are_meant() -> None:
    assert is_short(torch.zeros(1, 4, 384, 8, dtype=torch.bfloat16))
    assert not is_short(torch.zeros(1, 4, 385, 8, dtype=torch.bfloat16))
    assert not is_short(torch.zeros(1, 4, 10, 8))
    with torch.autocast("cpu", torch.bfloat16):
        assert is_short(torch.zeros(1, 4, 10, 8))


@pytest.mark.parametrize("tokens", [1, 50, 200])
def test_rounding_is_that_of_the_fused_kernel(tokens: int) -> None:
    """Within autocast, rotated heads are float32 and values bfloat16; both ways stay as near to exact sums."""
    query, key, value = heads(tokens, 4, 2, torch.float32)
    exact = scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True).transpose(1, 2)
    with torch.autocast("cpu", torch.bfloat16):
        ours = attend_short(query, key, value.bfloat16())
        theirs = scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True).transpose(1, 2)
    assert ours.dtype == torch.bfloat16
    assert (ours - exact).abs().max() <= 2 * (theirs - exact).abs().max() < 0.05


def tower(side: int) -> SiglipVisionModel:
    config = SiglipVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=side, patch_size=8
    )
    return SiglipVisionModel(config)


@pytest.mark.parametrize(
    ("side", "device", "dtype", "within"),
    [
        (112, "cpu", "bfloat16", "eager"),
        (112, "cpu", "float32", "sdpa"),
        (112, "cuda", "bfloat16", "sdpa"),
        (136, "cpu", "bfloat16", "sdpa"),
    ],
)
def test_a_tower_attends_in_the_faster_way_and_as_before_afterwards(
    side: int, device: str, dtype: str, within: str
) -> None:
    model = tower(side)
    pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    before = model(pixels).last_hidden_state
    with pytest.raises(ZeroDivisionError), short_attention(model, device, dtype):
        assert model.config._attn_implementation == within
        assert torch.allclose(model(pixels).last_hidden_state, before, atol=1e-5)
        raise ZeroDivisionError
    assert model.config._attn_implementation == "sdpa"
