"""A model joined from a SigLIP folder and a language model's folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from stages.artifacts.errors import BluelmError, ModelError
from stages.device.prompt.messages import assistant, user
from stages.workshop.model.processing import BlueLMVProcessor
from stages.workshop.model.tokenizer import train_tokenizer
from stages.workshop.training.parts import FromParts
from stages.workshop.training.sources import Outline

VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    SiglipVisionModel(SiglipVisionConfig(**VISION)).save_pretrained(root / "vision")
    colours = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
    (root / "vision/preprocessor_config.json").write_text(json.dumps(colours))
    # A language model without our special tokens: a base model's tokenizer of plain bytes.
    trained = train_tokenizer(["hello world"], 262)
    plain = json.loads(trained.backend_tokenizer.to_str())
    plain["added_tokens"] = plain["added_tokens"][:1]
    for token in ("<|im_start|>", "<|im_end|>", "<image>"):
        del plain["model"]["vocab"][token]
    plain["model"]["vocab"] = {token: number for number, token in enumerate(plain["model"]["vocab"])}
    (root / "tokenizer.json").write_text(json.dumps(plain))
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(root / "tokenizer.json"), eos_token="<|endoftext|>")
    tokenizer.save_pretrained(root / "llm")
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(text).save_pretrained(root / "llm")
    return root / "vision", root / "llm"


@pytest.fixture(scope="module")
def outline(folders: tuple[Path, Path]) -> Outline:
    return FromParts(*folders).outline(())


def test_every_weight_of_both_parts_is_kept(folders: tuple[Path, Path], outline: Outline) -> None:
    model = FromParts(*folders).load(outline, seed=0)
    tower = SiglipVisionModel.from_pretrained(folders[0]).state_dict()
    llm = LlamaForCausalLM.from_pretrained(folders[1]).state_dict()
    for name, weight in model.vision_tower.state_dict().items():
        assert torch.equal(weight, tower[name]), name
    for name, weight in model.language_model.state_dict().items():
        old = llm[name]
        assert torch.equal(weight[: len(old)], old), name
        # The three new tokens start at the mean of the others.
        assert len(weight) - len(old) in (0, 3)
        for row in weight[len(old) :]:
            torch.testing.assert_close(row, old.mean(dim=0))
    assert model.language_model.lm_head.weight is model.get_input_embeddings().weight


def test_its_processor_speaks_our_template_and_the_towers_colours(outline: Outline) -> None:
    processor: BlueLMVProcessor = outline.processor
    assert processor.image_processor.image_mean == [0.4, 0.5, 0.6]
    assert processor.image_processor.spec.tile_size == 32
    assert processor.image_processor.spec.tokens_per_tile == 4
    encoded = processor.prompts.encode([user("hi", images=1), assistant("yo")], [4])
    answer = [token for token, said in zip(encoded.ids, encoded.is_answer, strict=True) if said]
    assert processor.tokenizer.decode(answer) == "yo<|im_end|>"
    assert encoded.ids.count(outline.config.image_token_id) == 4
    assert outline.config.text_config.eos_token_id == processor.tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_a_whole_siglip_model_gives_its_tower(folders: tuple[Path, Path], tmp_path: Path) -> None:
    torch.manual_seed(1)
    text = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    whole = SiglipModel(SiglipConfig(text_config={**text, "vocab_size": 99}, vision_config=VISION))
    whole.save_pretrained(tmp_path / "siglip")
    parts = FromParts(tmp_path / "siglip", folders[1])
    model = parts.load(parts.outline(()), seed=0)
    wanted = whole.state_dict()
    for name, weight in model.vision_tower.state_dict().items():
        assert torch.equal(weight, wanted[f"vision_model.{name}"]), name


def test_both_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(BluelmError) as caught:
        FromParts(tmp_path / "a", tmp_path / "b").parents()
    assert [problem.what for problem in caught.value.problems] == [
        f"{tmp_path / 'a'} holds no config.json.",
        f"{tmp_path / 'b'} holds no config.json.",
    ]


def test_a_language_model_is_no_tower(folders: tuple[Path, Path]) -> None:
    with pytest.raises(ModelError, match="is a llama"):
        FromParts(folders[1], folders[1]).outline(())


def test_missing_weights_are_not_made_up(folders: tuple[Path, Path], outline: Outline, tmp_path: Path) -> None:
    shutil.copytree(folders[1], tmp_path / "llm")
    weights = load_file(tmp_path / "llm/model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "llm/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"weights are missing \(1\): language_model\.model\.layers\.0\.mlp\.up_proj"):
        FromParts(folders[0], tmp_path / "llm").load(outline, seed=0)


def test_weights_of_another_shape_are_refused(folders: tuple[Path, Path], outline: Outline, tmp_path: Path) -> None:
    SiglipVisionModel(SiglipVisionConfig(**{**VISION, "hidden_size": 32})).save_pretrained(tmp_path / "wide")
    with pytest.raises(ModelError, match="the model needs"):
        FromParts(tmp_path / "wide", folders[1]).load(outline, seed=0)


def test_pickles_are_refused_with_a_way_to_convert_them(
    folders: tuple[Path, Path], outline: Outline, tmp_path: Path
) -> None:
    """The way that the message names is run, in a copy of the folder that holds only a pickle."""
    shutil.copytree(folders[1], tmp_path / "llm")
    weights = load_file(tmp_path / "llm/model.safetensors")
    torch.save(weights, tmp_path / "llm/pytorch_model.bin")
    (tmp_path / "llm/model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"holds its weights as pytorch_model\.bin") as caught:
        FromParts(folders[0], tmp_path / "llm").load(outline, seed=0)
    command = caught.value.fix.partition("in its folder: ")[2].replace("python -c", f"{sys.executable} -c")
    subprocess.run(command, shell=True, check=True, cwd=tmp_path / "llm", timeout=120)
    model = FromParts(folders[0], tmp_path / "llm").load(outline, seed=0)
    again = FromParts(*folders).load(outline, seed=0)
    for name, weight in again.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name]), name


def test_a_quantized_language_model_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(folders[1], tmp_path / "llm")
    config = json.loads((tmp_path / "llm/config.json").read_text())
    (tmp_path / "llm/config.json").write_text(
        json.dumps({**config, "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}})
    )
    with pytest.raises(ModelError, match=r"is quantized \(bitsandbytes\)"):
        FromParts(folders[0], tmp_path / "llm").outline(())


def test_a_model_that_needs_remote_code_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(folders[1], tmp_path / "llm")
    remote = {"model_type": "ours", "auto_map": {"AutoConfig": "ours.Config", "AutoModelForCausalLM": "ours.Model"}}
    (tmp_path / "llm/config.json").write_text(json.dumps(remote))
    (tmp_path / "llm/ours.py").write_text("raise SystemExit('remote code was run')")
    with pytest.raises(ModelError, match="transformers cannot use it") as caught:
        FromParts(folders[0], tmp_path / "llm").outline(())
    assert "without remote code" in caught.value.fix


def test_a_vision_language_model_is_no_language_model(folders: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(folders[1], tmp_path / "llm")
    (tmp_path / "llm/config.json").write_text(json.dumps({"model_type": "siglip"}))
    with pytest.raises(ModelError, match="is a siglip"):
        FromParts(folders[0], tmp_path / "llm").outline(())


def test_broken_picture_settings_are_named(folders: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(folders[0], tmp_path / "vision")
    for mean in ([0.5, 0.5], ["a", 0, 0], [float("inf"), 0, 0]):
        (tmp_path / "vision/preprocessor_config.json").write_text(json.dumps({"image_mean": mean}))
        with pytest.raises(ModelError, match="image_mean is"):
            FromParts(tmp_path / "vision", folders[1]).outline(())


def test_minicpm_joins_as_a_tied_llama(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Its tokenizer and weights in its own layout, custom code in the configuration and never run."""
    shutil.copytree(folders[1], tmp_path / "cpm")
    weights = load_file(tmp_path / "cpm/model.safetensors")
    config = json.loads((tmp_path / "cpm/config.json").read_text())
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    scales = {"scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 16, "rms_norm_eps": 1e-5}
    auto = {"AutoConfig": "configuration_minicpm.MiniCPMConfig", "AutoModelForCausalLM": "modeling_minicpm.M"}
    own = {key: config[key] for key in sizes} | scales | {"model_type": "minicpm", "auto_map": auto}
    (tmp_path / "cpm/config.json").write_text(json.dumps(own))
    parts = FromParts(folders[0], tmp_path / "cpm")
    found = parts.outline(())
    model = parts.load(found, seed=0)
    assert found.config.text_config.model_type == "llama"
    assert model.language_model.lm_head.weight is model.get_input_embeddings().weight
    name = "model.layers.0.mlp.down_proj.weight"
    scaled = weights[name] * (1.4 / 12)
    torch.testing.assert_close(model.language_model.state_dict()[name], scaled, rtol=1e-6, atol=0)
