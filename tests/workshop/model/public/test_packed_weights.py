"""GPTQ and AWQ checkpoints: packed here by loops from the published formats, read as the weights they stand for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from stages.artifacts.errors import ModelError
from stages.artifacts.events import result_of
from stages.workshop.model.checkpoint import load_checkpoint
from stages.workshop.model.public.adoption import import_checkpoint
from stages.workshop.model.public.language_model import read_language_config, read_language_weights
from stages.workshop.model.public.source import read_shapes, read_tensors, weights_in
from stages.workshop.quant.packed import ScaleFormat, dequantize, round_to_nearest
from stages.workshop.quant.policy import Scheme

MakeVila = Callable[..., tuple[Path, dict[str, Any]]]
GROUP = 16
KINDS = ("gptq", "gptq_v2", "gptq symmetric", "gptq act-order", "gptq 8 bits", "awq")


class Made:
    """Integers of one Linear [K, N], its groups and zero points, and the weight [N, K] they stand for."""

    def __init__(self, kind: str, weight: torch.Tensor, seed: int) -> None:
        rng = np.random.default_rng(seed)
        outputs, inputs = weight.shape
        self.bits = 8 if "8 bits" in kind else 4
        top = 2**self.bits
        groups = inputs // GROUP
        self.index = np.arange(inputs) // GROUP
        if "act-order" in kind:
            self.index = rng.permutation(self.index)
        self.zeros = rng.integers(0, top, (groups, outputs))
        if "symmetric" in kind:
            self.zeros[:] = top // 2
        self.values = rng.integers(0, top, (inputs, outputs))
        self.scales = rng.uniform(0.01, 0.05, (groups, outputs)).astype(np.float16)
        self.weight = np.zeros((outputs, inputs), np.float32)
        for k in range(inputs):
            for n in range(outputs):
                g = self.index[k]
                self.weight[n, k] = np.float32(self.scales[g, n]) * (self.values[k, n] - self.zeros[g, n])


def words_down(values: np.ndarray, bits: int) -> torch.Tensor:
    """GPTQ's qweight: several inputs of one output in a word, low bits first."""
    per = 32 // bits
    words = np.zeros((values.shape[0] // per, values.shape[1]), np.uint32)
    for k in range(values.shape[0]):
        words[k // per] |= values[k].astype(np.uint32) << np.uint32(bits * (k % per))
    return torch.from_numpy(words.view(np.int32))


def words_across(values: np.ndarray, bits: int, order: list[int]) -> torch.Tensor:
    """Several outputs in a word: place i holds output order[i]."""
    per = 32 // bits
    words = np.zeros((values.shape[0], values.shape[1] // per), np.uint32)
    for word in range(words.shape[1]):
        for place in range(per):
            column = values[:, word * per + order[place]].astype(np.uint32)
            words[:, word] |= column << np.uint32(bits * place)
    return torch.from_numpy(words.view(np.int32))


def tensors_of(kind: str, made: Made) -> dict[str, torch.Tensor]:
    scales = torch.from_numpy(made.scales)
    if kind == "awq":
        order = [0, 2, 4, 6, 1, 3, 5, 7]
        packed = {
            name: words_across(part, 4, order) for name, part in (("qweight", made.values), ("qzeros", made.zeros))
        }
        return {**packed, "scales": scales}
    stored = made.zeros if "v2" in kind else (made.zeros - 1) % 2**made.bits
    return {
        "qweight": words_down(made.values, made.bits),
        "qzeros": words_across(stored, made.bits, list(range(32 // made.bits))),
        "scales": scales,
        "g_idx": torch.from_numpy(made.index.astype(np.int32)),
    }


def quantization_of(kind: str) -> dict[str, Any]:
    if kind == "awq":
        return {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm", "zero_point": True}
    return {
        "quant_method": "gptq",
        "bits": 8 if "8 bits" in kind else 4,
        "group_size": GROUP,
        "desc_act": "act-order" in kind,
        "sym": "symmetric" in kind,
        "checkpoint_format": "gptq_v2" if "v2" in kind else "gptq",
    }


def pack_folder(folder: Path, kind: str) -> dict[str, np.ndarray]:
    """Replaces the Linears of a Llama folder by packed ones, in two shards; gives the weights they stand for."""
    state = load_file(folder / "model.safetensors")
    meant: dict[str, np.ndarray] = {}
    packed: dict[str, torch.Tensor] = {}
    for number, (name, tensor) in enumerate(sorted(state.items())):
        if not name.endswith("_proj.weight"):
            packed[name] = tensor.clone()
            continue
        made = Made(kind, tensor, number)
        meant[name] = made.weight
        packed |= {f"{name.removesuffix('.weight')}.{part}": value for part, value in tensors_of(kind, made).items()}
    (folder / "model.safetensors").unlink()
    # Parts of one Linear may lie in different shards.
    shards = {name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(sorted(packed))}
    for file in set(shards.values()):
        tensors = {name: packed[name].contiguous() for name in packed if shards[name] == file}
        save_file(tensors, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": quantization_of(kind)}))
    return meant


@pytest.mark.parametrize("kind", KINDS)
def test_adopted_logits_are_those_of_the_weights_they_stand_for(make_vila: MakeVila, tmp_path: Path, kind: str) -> None:
    folder, parts = make_vila()
    meant = pack_folder(folder / "llm", kind)
    llm: LlamaForCausalLM = parts["llm"]
    llm.load_state_dict({name: torch.from_numpy(weight) for name, weight in meant.items()}, strict=False)
    result_of(import_checkpoint(folder, tmp_path / "ours"))
    ours, _ = load_checkpoint(tmp_path / "ours")
    assert getattr(ours.config.text_config, "quantization_config", None) is None
    ids = torch.tensor([[1, 30, 40, 41, 50]])
    with torch.no_grad():
        found, expected = ours(input_ids=ids).logits, llm(input_ids=ids).logits
    torch.testing.assert_close(found[..., : expected.shape[-1]], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_language_model_of_its_own_is_read_alike(make_vila: MakeVila, kind: str) -> None:
    folder = make_vila()[0] / "llm"
    meant = pack_folder(folder, kind)
    assert read_language_config(folder).model_type == "llama"
    places = read_language_weights(folder)
    shapes = read_shapes(places)
    found = dict(read_tensors(places))
    assert not any("qweight" in name or "g_idx" in name for name in found)
    for name, weight in meant.items():
        assert shapes[f"language_model.{name}"] == weight.shape
        np.testing.assert_array_equal(found[f"language_model.{name}"].numpy(), weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_symmetric_blocks_are_packed_again_without_loss(make_vila: MakeVila, dtype: torch.dtype) -> None:
    """With free scales, in blocks that divide the groups; on a grid per row they are rounded anew."""
    folder = make_vila()[0] / "llm"
    meant = pack_folder(folder, "gptq symmetric")
    for name, tensor in read_tensors(weights_in(folder)):
        if name not in meant:
            continue
        weight = tensor.to(dtype)
        for size in (GROUP, GROUP // 2):
            again = round_to_nearest(name, weight, Scheme(weights="int4", group_size=size), ScaleFormat("float16"))
            np.testing.assert_array_equal(dequantize(again), meant[name])
    on_grid = round_to_nearest(name, weight, Scheme(weights="int4", group_size=GROUP), ScaleFormat("float16", True))
    assert np.isfinite(dequantize(on_grid)).all()


@pytest.mark.parametrize("kind", ["gptq act-order", "awq"])
def test_what_is_on_no_grid_of_ours_is_rounded(make_vila: MakeVila, kind: str) -> None:
    folder = make_vila()[0] / "llm"
    meant = pack_folder(folder, kind)
    name, weight = next(iter(meant.items()))
    again = round_to_nearest(name, torch.from_numpy(weight), Scheme(weights="int4", group_size=GROUP), ScaleFormat())
    error = np.linalg.norm(dequantize(again) - weight) / np.linalg.norm(weight)
    assert 1e-3 < error < 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 3}, "of 3 bits"),
        ({"checkpoint_format": "marlin"}, "'marlin'"),
        ({"quant_method": "awq", "version": "gemv"}, "'gemv'"),
        ({"quant_method": "bitsandbytes"}, r"quantized \(bitsandbytes\)"),
    ],
)
def test_variants_that_are_not_read_are_named(make_vila: MakeVila, change: dict[str, Any], message: str) -> None:
    folder = make_vila()[0] / "llm"
    pack_folder(folder, "gptq")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] |= change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=message):
        read_language_config(folder)
