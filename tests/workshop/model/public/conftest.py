"""Tiny public checkpoints with random weights, written in the layouts their makers publish."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from stages.workshop.model.tokenizer import train_tokenizer

TEXTS = ("What colour is the shape?", "The shape is red.", "blue circle, green square, 12 34 567") * 4


def randomize(model: torch.nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.2)


def siglip(**fields: Any) -> SiglipVisionConfig:
    small = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 4,
    }
    return SiglipVisionConfig(**{**small, **fields})


def edit_json(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.fixture
def make_onevision(tmp_path: Path) -> Callable[..., tuple[Path, LlavaOnevisionForConditionalGeneration]]:
    """A folder as `save_pretrained` writes it, or with the older names of the published files, split in two."""

    def make(
        old_names: bool = False, tied: bool = False, **fields: Any
    ) -> tuple[Path, LlavaOnevisionForConditionalGeneration]:
        folder = tmp_path / "onevision"
        tokenizer = train_tokenizer(TEXTS, 320)
        text = Qwen2Config(
            vocab_size=len(tokenizer) + 5,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            tie_word_embeddings=tied,
        )
        config = LlavaOnevisionConfig(
            vision_config=siglip(vision_use_head=False),
            text_config=text,
            image_token_index=3,
            video_token_index=len(tokenizer) + 1,
            image_grid_pinpoints=[[28, 28], [28, 56], [56, 28]],
            tie_word_embeddings=tied,
            **fields,
        )
        model = LlavaOnevisionForConditionalGeneration(config).eval()
        randomize(model)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "preprocessor_config.json").write_text(
            json.dumps({"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2] * 3, "resample": 2})
        )
        if old_names:
            publish_with_old_names(folder)
        return folder, model

    return make


def publish_with_old_names(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    old = {}
    for key, value in weights.items():
        name = key.replace("model.vision_tower.", "vision_tower.vision_model.").replace(
            "model.language_model.", "language_model.model."
        )
        name = name.replace("model.multi_modal_projector.", "multi_modal_projector.").replace(
            "model.image_newline", "image_newline"
        )
        old["language_model.lm_head.weight" if name == "lm_head.weight" else name] = value
    (folder / "model.safetensors").unlink()
    shards = {name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(sorted(old))}
    for file in set(shards.values()):
        save_file({name: old[name] for name in old if shards[name] == file}, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}))


@pytest.fixture
def llama_tokenizer() -> PreTrainedTokenizerFast:
    """In the manner of Llama's: SentencePiece letters and bytes, <s> and </s>, no image token, no chat template."""
    letters = sorted({letter for text in TEXTS for letter in text.replace(" ", "▁")} | set("▁AEINRSTU:'"))
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    made = Tokenizer(
        models.BPE({piece: i for i, piece in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True)
    )
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ("<s>", "</s>")])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture
def make_vila(tmp_path: Path, llama_tokenizer: PreTrainedTokenizerFast) -> Callable[..., tuple[Path, dict[str, Any]]]:
    """A folder in VILA-1.5's layout and its three parts."""

    def make(dtype: torch.dtype = torch.float32, **fields: Any) -> tuple[Path, dict[str, Any]]:
        folder = tmp_path / "vila"
        tower = SiglipVisionModel(siglip()).eval()
        text = LlamaConfig(
            vocab_size=len(llama_tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=256,
            bos_token_id=1,
            eos_token_id=2,
        )
        llm = LlamaForCausalLM(text).eval()
        projector = torch.nn.ModuleDict(
            {
                "layers": torch.nn.ModuleDict(
                    {"1": torch.nn.LayerNorm(64), "2": torch.nn.Linear(64, 32), "4": torch.nn.Linear(32, 32)}
                )
            }
        )
        for seed, part in enumerate((tower, llm, projector)):
            randomize(part, seed)
            part.to(dtype)
        tower.save_pretrained(folder / "vision_tower")
        old = {
            f"vision_model.{key}": value
            for key, value in tower.state_dict().items()
            if key != "embeddings.position_ids"
        }
        save_file(old, folder / "vision_tower" / "model.safetensors", metadata={"format": "pt"})
        (folder / "vision_tower" / "preprocessor_config.json").write_text(
            json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3})
        )
        llm.save_pretrained(folder / "llm")
        llama_tokenizer.save_pretrained(folder / "llm")
        (folder / "mm_projector").mkdir()
        save_file(
            dict(projector.state_dict()), folder / "mm_projector" / "model.safetensors", metadata={"format": "pt"}
        )
        projector_config = {"mm_projector_type": "mlp_downsample", "model_type": "v2l_projector"}
        (folder / "mm_projector" / "config.json").write_text(json.dumps(projector_config))
        top = {
            "architectures": ["LlavaLlamaModel"],
            "model_type": "llava_llama",
            "mm_vision_select_layer": -2,
            "mm_vision_select_feature": "cls_patch",
            "mm_hidden_size": 16,
            "image_aspect_ratio": "resize",
            "s2": False,
        }
        (folder / "config.json").write_text(json.dumps({**top, **fields}))
        return folder, {"tower": tower, "llm": llm, "projector": projector}

    return make
