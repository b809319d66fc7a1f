"""MiniCPM folded into a Llama, against MiniCPM written from its published description (arXiv 2404.06395)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlamaForCausalLM

from stages.artifacts.errors import BluelmError, ModelError
from stages.workshop.model.public.language_model import read_language_config, read_language_weights
from stages.workshop.model.public.minicpm import is_minicpm
from stages.workshop.model.public.source import read_tensors

# The published constants of MiniCPM-2B at a small size.
CONFIG: dict[str, Any] = {
    "architectures": ["MiniCPMForCausalLM"],
    "auto_map": {"AutoModelForCausalLM": "modeling_minicpm.MiniCPMForCausalLM"},
    "model_type": "minicpm",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 48,
    "intermediate_size": 80,
    "max_position_embeddings": 128,
    "num_attention_heads": 6,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "vocab_size": 50,
    "scale_emb": 12,
    "dim_model_base": 16,
    "scale_depth": 1.4,
}


class MiniCPM(nn.Module):
    """B sequences, L tokens, D width, H heads, h key heads, d head size; every step as the description words it."""

    def __init__(self, config: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.config = config
        self.weights = weights

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        config, weights = self.config, self.weights
        embedding = weights["model.embed_tokens.weight"]
        hidden = embedding[ids] * config["scale_emb"]  # [B, L, D]
        branch = config["scale_depth"] / math.sqrt(config["num_hidden_layers"])
        for layer in range(config["num_hidden_layers"]):
            name = f"model.layers.{layer}."
            normed = self.norm(hidden, weights[f"{name}input_layernorm.weight"])
            hidden = hidden + self.attention(normed, f"{name}self_attn.") * branch
            normed = self.norm(hidden, weights[f"{name}post_attention_layernorm.weight"])
            gate = nn.functional.silu(normed @ weights[f"{name}mlp.gate_proj.weight"].T)
            up = normed @ weights[f"{name}mlp.up_proj.weight"].T
            hidden = hidden + (gate * up) @ weights[f"{name}mlp.down_proj.weight"].T * branch
        hidden = self.norm(hidden, weights["model.norm.weight"])
        head = weights.get("lm_head.weight", embedding)
        return (hidden / (config["hidden_size"] / config["dim_model_base"])) @ head.T  # [B, L, vocabulary]

    def norm(self, hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return hidden * torch.rsqrt(hidden.square().mean(-1, keepdim=True) + self.config["rms_norm_eps"]) * weight

    def attention(self, hidden: torch.Tensor, name: str) -> torch.Tensor:
        heads, pairs = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        batch, length, width = hidden.shape
        query, key, value = (hidden @ self.weights[f"{name}{part}_proj.weight"].T for part in "qkv")
        query = self.rotate(query.view(batch, length, heads, -1).transpose(1, 2))  # [B, H, L, d]
        key = self.rotate(key.view(batch, length, pairs, -1).transpose(1, 2))
        value = value.view(batch, length, pairs, -1).transpose(1, 2)
        key, value = (part.repeat_interleave(heads // pairs, dim=1) for part in (key, value))
        scores = query @ key.transpose(-1, -2) / math.sqrt(width // heads)
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        mixed = scores.masked_fill(future, -math.inf).softmax(-1) @ value
        return mixed.transpose(1, 2).reshape(batch, length, width) @ self.weights[f"{name}o_proj.weight"].T

    def rotate(self, part: torch.Tensor) -> torch.Tensor:
        length, size = part.shape[-2:]
        frequencies = self.config.get("rope_theta", 10000.0) ** (-torch.arange(0, size, 2, dtype=part.dtype) / size)
        angles = torch.outer(torch.arange(length, dtype=part.dtype), frequencies).repeat(1, 2)  # [L, d]
        first, second = part.chunk(2, dim=-1)
        return part * angles.cos() + torch.cat([-second, first], dim=-1) * angles.sin()


def write_minicpm(folder: Path, dtype: torch.dtype = torch.float64, **fields: Any) -> dict[str, torch.Tensor]:
    """A folder of random weights in MiniCPM's own layout; returns them."""
    config = {**CONFIG, **fields}
    generator = torch.Generator().manual_seed(3)
    width, mlp = config["hidden_size"], config["intermediate_size"]
    rows = width // config["num_attention_heads"] * config["num_key_value_heads"]

    def some(*shape: int, around: float = 0.0) -> torch.Tensor:
        return (around + 0.2 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)

    weights = {"model.embed_tokens.weight": some(config["vocab_size"], width)}
    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}."
        for part, out in (("q", width), ("k", rows), ("v", rows), ("o", width)):
            weights[f"{name}self_attn.{part}_proj.weight"] = some(out, width)
        weights |= {
            f"{name}mlp.gate_proj.weight": some(mlp, width),
            f"{name}mlp.up_proj.weight": some(mlp, width),
            f"{name}mlp.down_proj.weight": some(width, mlp),
            f"{name}input_layernorm.weight": some(width, around=1.0),
            f"{name}post_attention_layernorm.weight": some(width, around=1.0),
        }
    weights["model.norm.weight"] = some(width, around=1.0)
    if config.get("tie_word_embeddings") is False:
        weights["lm_head.weight"] = some(config["vocab_size"], width)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return weights


def folded(folder: Path, dtype: torch.dtype) -> LlamaForCausalLM:
    model = LlamaForCausalLM(read_language_config(folder)).to(dtype).eval()
    state = {name.removeprefix("language_model."): value for name, value in read_tensors(read_language_weights(folder))}
    if model.config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize("tied", [True, False])
def test_folded_equals_the_description(tmp_path: Path, tied: bool) -> None:
    weights = write_minicpm(tmp_path, torch.float32, tie_word_embeddings=tied)
    reference = MiniCPM(CONFIG, {name: weight.double() for name, weight in weights.items()})
    model = folded(tmp_path, torch.float32)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    ids = torch.randint(0, 50, (2, 30), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = reference(ids), model(ids).logits
    assert expected.abs().max() > 0.1
    error = (found.double() - expected).norm() / expected.norm()
    assert error < 1e-5, error
    # The scales matter: without any one of the three folds the answer is another.
    for damaged in (
        "model.norm.weight",
        "model.layers.0.self_attn.o_proj.weight",
        "model.layers.2.mlp.down_proj.weight",
    ):
        state = model.state_dict()
        kept = state[damaged].clone()
        state[damaged].copy_(weights[damaged])
        with torch.no_grad():
            wrong = model(ids).logits
        assert (wrong.double() - expected).norm() / expected.norm() > 1e-3
        state[damaged].copy_(kept)


def test_epsilon_matters_and_is_folded(tmp_path: Path) -> None:
    """An ε as large as the activations themselves: a fold that forgot it would be far off."""
    weights = write_minicpm(tmp_path, torch.float32, rms_norm_eps=0.5)
    reference = MiniCPM({**CONFIG, "rms_norm_eps": 0.5}, {name: weight.double() for name, weight in weights.items()})
    ids = torch.arange(20)[None]
    with torch.no_grad():
        expected, found = reference(ids), folded(tmp_path, torch.float32)(ids).logits
    assert (found.double() - expected).norm() / expected.norm() < 1e-5
    assert read_language_config(tmp_path).rms_norm_eps == 0.5 / 144


def test_bfloat16_files_are_scaled_in_float32(tmp_path: Path) -> None:
    write_minicpm(tmp_path, torch.bfloat16)
    stored = load_file(tmp_path / "model.safetensors")
    read = dict(read_tensors(read_language_weights(tmp_path)))
    name = "model.layers.1.mlp.down_proj.weight"
    factor = 1.4 / math.sqrt(3) / 12
    assert read[f"language_model.{name}"].dtype == torch.float32
    torch.testing.assert_close(read[f"language_model.{name}"], stored[name].float() * factor, rtol=1e-6, atol=0)


def test_the_published_2b_becomes_the_presets_llama(tmp_path: Path) -> None:
    sizes = {"hidden_size": 2304, "intermediate_size": 5760, "num_attention_heads": 36, "num_key_value_heads": 36}
    rest = {"num_hidden_layers": 40, "vocab_size": 122753, "dim_model_base": 256, "max_position_embeddings": 4096}
    published = {**CONFIG, **sizes, **rest}
    (tmp_path / "config.json").write_text(json.dumps(published))
    config = read_language_config(tmp_path)
    assert config.model_type == "llama"
    assert (config.tie_word_embeddings, config.vocab_size, config.num_key_value_heads) == (True, 122753, 36)
    assert config.rms_norm_eps == 1e-5 / 144


def test_what_is_minicpm() -> None:
    assert is_minicpm({"model_type": "minicpm"})
    assert is_minicpm({"architectures": ["MiniCPMForCausalLM"]})
    assert not is_minicpm({"model_type": "minicpm3", "architectures": ["MiniCPM3ForCausalLM"]})
    assert not is_minicpm({"model_type": "llama"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_experts": 8}, "num_experts is 8"),
        ({"rope_scaling": {"type": "longrope"}}, "rope_scaling is {'type': 'longrope'}"),
        ({"scale_depth": None}, "scale_depth is None"),
        ({"scale_emb": "12"}, "scale_emb is '12'"),
        ({"hidden_size": 0}, "hidden_size is 0"),
    ],
)
def test_another_minicpm_is_refused(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, **fields}))
    with pytest.raises(ModelError) as caught:
        read_language_config(tmp_path)
    assert message in caught.value.what
    assert "MiniCPM" in caught.value.fix


def test_all_its_problems_are_told_together(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "scale_emb": 0, "num_experts": 8}))
    with pytest.raises(BluelmError) as caught:
        read_language_config(tmp_path)
    assert len(caught.value.problems) == 2
