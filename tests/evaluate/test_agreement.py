"""Top-1 agreement: counted over spans, one where nothing differs, less where something does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stages.device.contract.device_config import read_device_config
from stages.evaluate.agreement import Agreement, agreement, top_tokens
from stages.workshop.graph.random_model import write_random_model

VOCABULARY = 300


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One model under three policies, and one of other weights."""
    folders = {}
    for name, policy, seed in (
        ("int8", "int8", 0),
        ("paper", "paper", 0),
        ("float", "float", 0),
        ("other", "float", 1),
    ):
        folders[name] = tmp_path_factory.mktemp(name)
        for _ in write_random_model("tiny", folders[name], layers=2, vision_layers=1, policy=policy, seed=seed):  # type: ignore[arg-type]
            pass
    return folders


def windows(model: Path) -> list[list[int]]:
    vocabulary = read_device_config(model).decoder.vocab_size
    return np.random.default_rng(0).integers(4, vocabulary, (2, 150)).tolist()


@pytest.mark.parametrize("span", [1, 150])
def test_a_model_agrees_with_itself_in_every_place(models: dict[str, Path], span: int) -> None:
    text = windows(models["float"])
    found = agreement(models["float"], models["float"], text, span=span, threads=1)
    assert found == Agreement(places=300 // span, same=300 // span)
    assert found.share == 1


def test_finer_activations_agree_more_and_other_weights_hardly(models: dict[str, Path]) -> None:
    text = windows(models["float"])
    shares = [agreement(models[name], models["float"], text, threads=1).share for name in ("paper", "int8", "other")]
    assert shares[0] >= 0.99
    assert shares[0] >= shares[1] > 0.8 > 0.2 > shares[2]


def test_spans_are_the_same_places(models: dict[str, Path]) -> None:
    text = windows(models["float"])
    every = list(top_tokens(models["float"], text[:1], 1, 1))
    assert list(top_tokens(models["float"], text[:1], 50, 1)) == every[49::50]


def test_no_span_fits(models: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="no window has 200 tokens"):
        agreement(models["float"], models["float"], windows(models["float"]), span=200)
