"""Checkpoints: nothing changes on the way to disk and back, and nothing goes missing unsaid."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageTextToText, AutoProcessor

from stages.artifacts.errors import BluelmError, ModelError, ProblemsError
from stages.device.prompt.encoder import load_prompt_encoder
from stages.device.prompt.messages import assistant, user
from stages.workshop.model.checkpoint import load_checkpoint, load_model, load_processor, save_checkpoint
from stages.workshop.model.configuration import BlueLMVConfig
from stages.workshop.model.image_processing import BlueLMVImageProcessor
from stages.workshop.model.modeling import BlueLMVForConditionalGeneration
from stages.workshop.model.processing import BlueLMVProcessor
from stages.workshop.model.registry import register

TALK = [user("Which colour?", images=1), assistant("red")]
MakeModel = Callable[..., BlueLMVForConditionalGeneration]


def logits(model: BlueLMVForConditionalGeneration, processor: BlueLMVProcessor) -> torch.Tensor:
    sample = processor.encode_chat(TALK, [Image.new("RGB", (60, 30), "red")])
    assert sample.pixel_values is not None
    with torch.no_grad():
        return model(
            input_ids=torch.tensor([sample.input_ids]), pixel_values=torch.from_numpy(sample.pixel_values)
        ).logits


def without_dtypes(folder: Path) -> dict:
    """config.json; transformers writes the dtype into its parts only after loading."""
    config = json.loads((folder / "config.json").read_text())
    for part in ("text_config", "vision_config"):
        config[part].pop("dtype", None)
    return config


@pytest.fixture
def folder(make_model: MakeModel, processor: BlueLMVProcessor, tmp_path: Path) -> Path:
    save_checkpoint(make_model(), processor, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"fuse_linear": True, "token_order": "column"},
        {"downsampler": "none", "vision_feature_layer": -2, "vision_post_layernorm": False},
    ],
)
def test_saved_and_loaded_it_says_the_same(
    make_model: MakeModel, processor: BlueLMVProcessor, tmp_path: Path, fields: dict
) -> None:
    model = make_model(**fields)
    if fields.get("downsampler") == "none":
        processor.image_processor.tiling["tokens_per_tile"] = 49
    save_checkpoint(model, processor, tmp_path)
    loaded, loaded_processor = load_checkpoint(tmp_path)
    assert torch.equal(logits(loaded, loaded_processor), logits(model, processor))
    save_checkpoint(loaded, loaded_processor, tmp_path / "again")
    for file in (path for path in tmp_path.iterdir() if path.is_file()):
        if file.name != "config.json":
            assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes(), file.name
    assert without_dtypes(tmp_path / "again") == without_dtypes(tmp_path)
    assert loaded.generation_config.suppress_tokens == [3]
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert set(file.keys()) == {name for name, _ in model.named_parameters()}


def test_the_same_model_gives_the_same_bytes(
    make_model: MakeModel, processor: BlueLMVProcessor, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        save_checkpoint(make_model(), processor, tmp_path / name)
    for file in sorted((tmp_path / "first").iterdir()):
        assert file.read_bytes() == (tmp_path / "second" / file.name).read_bytes(), file.name


def test_gathered_weights_give_the_same_file(
    make_model: MakeModel, processor: BlueLMVProcessor, tmp_path: Path
) -> None:
    """A model sharded over processes is written from copies of its weights, its tied head among them."""
    model = make_model()
    copies = {name: value.clone() for name, value in model.state_dict().items()}
    assert "language_model.lm_head.weight" in copies
    save_checkpoint(model, processor, tmp_path / "own")
    save_checkpoint(make_model(seed=9), processor, tmp_path / "gathered", copies)
    own, gathered = (load_file(tmp_path / name / "model.safetensors") for name in ("own", "gathered"))
    assert own.keys() == gathered.keys()
    for name, value in own.items():
        assert torch.equal(value, gathered[name]), name


def test_the_auto_classes_open_it(folder: Path) -> None:
    register()
    register()
    assert isinstance(AutoConfig.from_pretrained(folder), BlueLMVConfig)
    for auto in (AutoModel, AutoModelForImageTextToText):
        model = auto.from_pretrained(folder)
        assert isinstance(model, BlueLMVForConditionalGeneration)
    processor = AutoProcessor.from_pretrained(folder)
    assert isinstance(processor, BlueLMVProcessor)
    assert isinstance(AutoImageProcessor.from_pretrained(folder), BlueLMVImageProcessor)
    ours, _ = load_checkpoint(folder)
    assert torch.equal(logits(model, processor), logits(ours, processor))


def test_dtype_and_embedding_tie_are_kept(folder: Path) -> None:
    model = load_model(folder, dtype="bfloat16")
    assert {value.dtype for value in model.parameters()} == {torch.bfloat16}
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_the_device_reads_the_prompt_from_the_same_folder(folder: Path) -> None:
    processor = load_processor(folder)
    prompt = load_prompt_encoder(folder).encode(TALK, [16])
    assert prompt == processor.prompts.encode(TALK, [16])


def test_loading_leaves_the_terminal_alone(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_checkpoint(folder)
    assert capfd.readouterr() == ("", "")


def edit_config(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


Q_PROJ = "language_model.model.layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("damage", "words", "fix"),
    [
        (lambda f: edit_weights(f, lambda w: w.pop(Q_PROJ)), rf"missing \(1\): {Q_PROJ}", "config.json"),
        (
            lambda f: edit_weights(f, lambda w: w.update(new=torch.zeros(1))),
            r"no place in the model \(1\): new",
            "config.json",
        ),
        (
            lambda f: edit_weights(f, lambda w: w.update({Q_PROJ: torch.zeros(3, 4)})),
            r"is \[3, 4\], the model needs \[32, 32\]",
            "",
        ),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x08"), "cannot be read", "Copy the folder again"),
        (lambda f: (f / "model.safetensors").unlink(), "has no model.safetensors", "Copy the whole folder"),
        (
            lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
            "only pytorch_model.bin",
            "safe_serialization",
        ),
        (lambda f: edit_config(f, model_type="llava"), "model type is 'llava'", "bluelm adopt"),
        (lambda f: (f / "config.json").unlink(), "has no config.json", "bluelm adopt"),
        (lambda f: edit_config(f, downsampler="ldp"), "downsampler is 'ldp'", "mlp_downsample"),
        (lambda f: shutil.rmtree(f), "is no folder", "bluelm pretrain"),
    ],
)
def test_a_damaged_model_is_refused(folder: Path, damage: Callable[[Path], object], words: str, fix: str) -> None:
    damage(folder)
    with pytest.raises(BluelmError, match=words) as caught:
        load_model(folder)
    assert fix in caught.value.fix
    assert caught.value.why


def test_all_problems_are_reported_together(folder: Path) -> None:
    edit_weights(folder, lambda w: w.update(new=w.pop(Q_PROJ)))
    with pytest.raises(ProblemsError) as caught:
        load_model(folder)
    assert [problem.what.split(": ")[1] for problem in caught.value.problems] == [
        "weights are missing (1)",
        "weights have no place in the model (1)",
    ]


@pytest.mark.parametrize("name", ["tokenizer.json", "processor_config.json"])
def test_a_damaged_processor_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_text("{")
    with pytest.raises(ModelError, match="the processor cannot be read") as caught:
        load_processor(folder)
    assert "tokenizer.json" in caught.value.fix
