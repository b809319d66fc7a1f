"""The connector: the 2×2 downsampler against a slow loop, its parts and its options."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from stages.artifacts.errors import ModelError
from stages.workshop.model.configuration import BlueLMVConfig
from stages.workshop.model.connector import BlueLMVConnector, concat_2x2


def slow_concat(patches: torch.Tensor, by_column: bool = False) -> torch.Tensor:
    """One number at a time, straight from the words: 2×2, zeros right and below, channels (dy, dx, c)."""
    tiles, count, width = patches.shape
    side = round(count**0.5)
    half = (side + 1) // 2
    result = torch.zeros(tiles, half * half, 4 * width)
    for tile in range(tiles):
        for row in range(half):
            for column in range(half):
                token = column * half + row if by_column else row * half + column
                for dy in range(2):
                    for dx in range(2):
                        y, x = 2 * row + dy, 2 * column + dx
                        if y < side and x < side:
                            start = (dy * 2 + dx) * width
                            result[tile, token, start : start + width] = patches[tile, y * side + x]
    return result


@pytest.mark.parametrize("side", [1, 2, 3, 4, 7, 8, 27])
@pytest.mark.parametrize("order", ["row", "column"])
def test_concat_equals_the_slow_loop(side: int, order: str) -> None:
    patches = torch.randn(3, side * side, 5, generator=torch.Generator().manual_seed(side))
    assert torch.equal(concat_2x2(patches, order), slow_concat(patches, by_column=order == "column"))


def vila_flat_square(x: torch.Tensor) -> torch.Tensor:
    """VILA's own two reshapes, written from its description: rows are padded, then columns; pairs of columns join, the
    two axes swap, pairs of rows join, and nothing swaps them back."""
    tiles, rows, columns, width = x.shape
    if rows % 2:
        x = torch.cat([x, torch.zeros(tiles, 1, columns, width)], dim=1)
    if x.shape[2] % 2:
        x = torch.cat([x, torch.zeros(tiles, x.shape[1], 1, width)], dim=2)
    rows, columns = x.shape[1:3]
    x = x.reshape(tiles, rows, columns // 2, 2 * width).permute(0, 2, 1, 3).contiguous()
    return x.view(tiles, columns // 2, rows // 2, 4 * width)


@pytest.mark.parametrize("side", [4, 5, 27])
def test_column_order_is_vilas(side: int) -> None:
    grid = torch.randn(2, side, side, 3, generator=torch.Generator().manual_seed(side))
    theirs = vila_flat_square(grid).flatten(1, 2)
    assert torch.equal(concat_2x2(grid.flatten(1, 2), "column"), theirs)
    assert not torch.equal(concat_2x2(grid.flatten(1, 2), "row"), theirs)


def test_27_by_27_patches_become_196_tokens() -> None:
    assert concat_2x2(torch.zeros(1, 27 * 27, 2)).shape == (1, 196, 8)


def test_a_grid_that_is_no_square_is_a_bug() -> None:
    with pytest.raises(ValueError, match="no square grid"):
        concat_2x2(torch.zeros(1, 6, 2))


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({}, {"norm": [64], "linear_1": [32, 64], "linear_2": [32, 32]}),
        ({"fuse_linear": True}, {"norm": [64], "fuse": [16, 64], "linear_1": [32, 16], "linear_2": [32, 32]}),
        ({"downsampler": "none"}, {"linear_1": [32, 16], "linear_2": [32, 32]}),
    ],
)
def test_parts_and_shapes(make_config: Callable[..., BlueLMVConfig], fields: dict, names: dict) -> None:
    config = make_config(**fields)
    connector = BlueLMVConnector(config)
    shapes = {
        name.removesuffix(".weight"): list(value.shape)
        for name, value in connector.named_parameters()
        if "weight" in name
    }
    assert shapes == names
    assert connector(torch.zeros(2, 49, 16)).shape == (2, config.tokens_per_tile, 32)


def test_the_connector_is_norm_linear_gelu_linear(make_config: Callable[..., BlueLMVConfig]) -> None:
    connector = BlueLMVConnector(make_config(fuse_linear=True))
    patches = torch.randn(2, 49, 16)
    weights = dict(connector.named_parameters())
    x = torch.nn.functional.layer_norm(slow_concat(patches), (64,), weights["norm.weight"], weights["norm.bias"])
    x = x @ weights["fuse.weight"].T + weights["fuse.bias"]
    x = x @ weights["linear_1.weight"].T + weights["linear_1.bias"]
    x = 0.5 * x * (1 + torch.erf(x / 2**0.5))
    x = x @ weights["linear_2.weight"].T + weights["linear_2.bias"]
    torch.testing.assert_close(connector(patches), x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"downsampler": "ldp"}, "downsampler is 'ldp'"),
        ({"vision_feature_layer": 0}, "vision_feature_layer is 0"),
        ({"vision_feature_layer": -5}, "Choose a value between -4 and -1"),
        ({"token_order": "spiral"}, "token_order is 'spiral'"),
        ({"token_order": "column", "downsampler": "none"}, "together with mlp_downsample"),
    ],
)
def test_impossible_configurations_are_refused(
    make_config: Callable[..., BlueLMVConfig], fields: dict, words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        make_config(**fields)
