"""`bluelm export`: from folders to folders that the runtime opens, and every way in which that is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from transformers import AutoConfig

from stages.artifacts.errors import UsageError
from stages.artifacts.events import Notice, result_of
from stages.device.contract.device_config import read_device_config
from stages.device.contract.kv_scales import KvScales
from stages.device.contract.simulation import SIMULATED
from stages.device.imaging.presets import imaging_preset
from stages.export import ExportConfig, open_graph, plan, run
from stages.quantize import QuantizeConfig
from stages.quantize import run as quantize
from stages.workshop.model.checkpoint import load_model, save_checkpoint
from stages.workshop.model.image_processing import BlueLMVImageProcessor
from stages.workshop.model.presets import build_model, preset_config
from stages.workshop.model.processing import BlueLMVProcessor
from stages.workshop.model.tokenizer import train_tokenizer
from stages.workshop.quant.policy import Rule

RULES = (
    Rule(modules="vision_tower.embeddings.*", weights="float"),
    Rule(modules="vision_tower.*", weights="int8"),
    Rule(modules="multi_modal_projector.*", weights="int8"),
    Rule(modules="language_model.model.layers.*", weights="int4", group_size=32),
    Rule(modules="language_model.lm_head", weights="int8"),
)
GRAPHS = ("patch_embed", "vision", "embedding", "decoder")
OUTPUTS = ["patch_embeds", "image_features", "vit_features", "inputs_embeds", "logits"]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as finetune leaves it, with random weights: two layers each, tied head."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("source") / "checkpoint"
    tokenizer = train_tokenizer(["what colour is the shape? red, blue, green"] * 2, 300)
    config = preset_config(
        "tiny",
        vocab_size=len(tokenizer),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        text_layers=2,
        vision_layers=2,
    )
    images = BlueLMVImageProcessor.from_preset(imaging_preset("tiny"))
    save_checkpoint(build_model(config), BlueLMVProcessor(images, tokenizer), folder)
    return folder


@pytest.fixture
def checkpoint(source: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(source, tmp_path / "checkpoint"))


@pytest.fixture(scope="session")
def quantized_source(source: Path) -> Path:
    """The same in the paper's precisions, with scales for an INT8 cache."""
    folder = source.with_name("quantized")
    result_of(quantize(QuantizeConfig(rules=RULES, kv="float32"), source, None, folder))
    (folder / "artifact.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["bluelm"]["kv"] = "int8"
    (folder / "config.json").write_text(json.dumps(config))
    KvScales.of((0.02, 0.03), (0.02, 0.01)).write(folder)
    return folder


def test_a_checkpoint_becomes_a_folder_that_describes_itself(source: Path, tmp_path: Path, bluelm: Any) -> None:
    done = bluelm("export", source, "--out", tmp_path / "onnx", "--json")
    assert done.code == 0, done.err
    result = done.json()
    assert [check["output"] for check in result["checks"]] == OUTPUTS
    assert all(check["relative"] == check["arithmetic"] < 1e-5 for check in result["checks"])
    assert {f"{name}.onnx{end}" for name in GRAPHS for end in ("", ".data")} <= set(result["files"])
    assert {"tokenizer.json", "chat_template.jinja", "genai_config.json", "processor_config.json"} <= set(
        result["files"]
    )
    assert result["bytes"] == sum(result["files"].values())
    assert not [name for name in result["files"] if name.startswith("exact.")]
    device = read_device_config(tmp_path / "onnx")
    assert device.name == "bluelm-v-0.7m"
    assert (device.decoder.max_context, device.decoder.kv_dtype) == (2048, "float32")
    assert device.vision.tokens_per_tile == device.tiling.tokens_per_tile == 9
    assert device.prompt.image_token == "<image>"
    tokens = json.loads((source / "tokenizer.json").read_text())["added_tokens"]
    ids = {token["content"]: token["id"] for token in tokens}
    assert device.prompt.image_token_id == ids["<image>"]
    assert device.prompt.eos_token_ids == (ids["<|im_end|>"],)
    manifest = json.loads((tmp_path / "onnx" / "artifact.json").read_text())
    assert manifest["metrics"]["checks"] == result["checks"]


def test_a_quantized_folder_keeps_its_precisions(quantized_source: Path, tmp_path: Path, bluelm: Any) -> None:
    done = bluelm("export", quantized_source, "--out", tmp_path / "onnx", "--json")
    assert done.code == 0, done.err
    checks = {check["output"]: check for check in done.json()["checks"]}
    for name in ("patch_embeds", "image_features", "vit_features", "inputs_embeds"):
        assert checks[name]["relative"] < 1e-5
    assert checks["logits"]["relative"] < 2e-3
    for name in ("image_features", "logits"):
        assert 1e-4 < checks[name]["arithmetic"] < 5e-2
        # What it costs is what was meant. Where sums differ by 1e-7 some inputs fall on the other step of INT8, and in
        # a model this narrow one such flip spreads.
        assert SIMULATED.allows(checks[name]["simulated"], checks[name]["arithmetic"])
    assert "as it rounds inputs" in done.err
    assert read_device_config(tmp_path / "onnx").decoder.kv_dtype == "int8"
    scales = (tmp_path / "onnx" / "kv_scales.json").read_text()
    assert json.loads(scales) == json.loads((quantized_source / "kv_scales.json").read_text())


@pytest.mark.parametrize("choice", ["float", "int16"])
def test_the_caller_may_choose_other_activations(
    choice: Literal["float", "int16"], quantized_source: Path, tmp_path: Path
) -> None:
    result = result_of(run(ExportConfig(activations=choice), quantized_source, tmp_path / "onnx"))
    checks = {check["output"]: check for check in result.checks}
    for name in ("image_features", "logits"):
        if choice == "float":
            assert checks[name]["relative"] == checks[name]["arithmetic"] < 2e-3
            assert checks[name]["simulated"] is None
        else:
            assert 1e-6 < checks[name]["arithmetic"] < 2e-3
            # Its steps are so fine that float32 noise decides which one it is.
            assert checks[name]["simulated"] < 3 * checks[name]["arithmetic"]


def test_again_is_up_to_date_and_other_settings_are_not(source: Path, tmp_path: Path, bluelm: Any) -> None:
    out = tmp_path / "onnx"
    first = bluelm("export", source, "--out", out, "--no-verify", "--json")
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    again = bluelm("export", source, "--out", out, "--no-verify", "--json")
    assert again.code == 0
    assert "is up to date" in again.err
    assert again.json() == first.json()
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before
    other = bluelm("export", source, "--out", out, "--no-verify", "--batch", 2)
    assert other.code == 2
    assert "batch is None, not 2" in other.err
    assert bluelm("export", source, "--out", out, "--no-verify", "--batch", 2, "--force").code == 0
    assert read_device_config(out).vision.max_batch == 2


def test_the_same_folder_gives_the_same_bytes(quantized_source: Path, tmp_path: Path) -> None:
    config = ExportConfig(verify=False)
    first, second = (result_of(run(config, quantized_source, tmp_path / name)).out for name in ("a", "b"))
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in second.iterdir())
    for name in names:
        if name != "run.json":
            assert (first / name).read_bytes() == (second / name).read_bytes(), name


@pytest.mark.parametrize("folder", ["source", "quantized_source"])
@pytest.mark.parametrize("embedding", ["stored", "float16", "int8", "int4"])
def test_a_dry_run_tells_the_sizes_and_writes_nothing(
    folder: str, embedding: str, request: pytest.FixtureRequest, tmp_path: Path, bluelm: Any
) -> None:
    model = request.getfixturevalue(folder)
    flags = ("--embedding", embedding, "--no-verify")
    planned = bluelm("export", model, "--out", tmp_path / "onnx", *flags, "--dry-run", "--json")
    assert planned.code == 0, planned.err
    assert not any(tmp_path.iterdir())
    result = result_of(run(ExportConfig(embedding=embedding, verify=False), model, tmp_path / "onnx"))  # type: ignore[arg-type]
    for name, size in planned.json()["files"].items():
        assert size == pytest.approx(result.files[name], rel=0.02), name
    written = {name for name in result.files if name.endswith(".data")}
    assert set(planned.json()["files"]) == written
    assert ("prefill.data" in written) == (folder == "quantized_source")
    # The head is INT8, and a table in the same form is not written again.
    assert ("embedding.onnx.data" in written) == (folder == "source" or embedding != "int8")
    # Where the embedding table lies is known only when it is written.
    assert planned.json()["device"] == read_device_config(result.out).model_dump(mode="json", exclude={"embedding"})


def test_a_float16_table_is_the_rounded_one(source: Path, tmp_path: Path) -> None:
    out = result_of(run(ExportConfig(embedding="float16", tolerance=1e-3), source, tmp_path / "onnx")).out
    ids = np.arange(300)[None] % read_device_config(out).decoder.vocab_size
    rows = open_graph(out / "embedding.onnx")({"input_ids": ids})["inputs_embeds"]
    table = load_model(source).get_input_embeddings().weight.detach()
    np.testing.assert_array_equal(rows[0], table.half().float().numpy()[ids[0]])


def test_a_cache_may_be_kept_float(quantized_source: Path, tmp_path: Path) -> None:
    device = plan(ExportConfig(kv="float32"), quantized_source).device
    assert device.decoder.kv_dtype == "float32"
    out = result_of(run(ExportConfig(kv="float32"), quantized_source, tmp_path / "onnx")).out
    assert not (out / "kv_scales.json").exists()


def test_loud_arithmetic_is_said(quantized_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.export.LOUD_ARITHMETIC", 1e-4)
    events = list(run(ExportConfig(), quantized_source, tmp_path / "onnx"))
    warnings = [event.text for event in events if isinstance(event, Notice) and event.level == "warning"]
    assert any("--activations int16" in text for text in warnings)


def test_a_graph_unlike_torch_leaves_nothing_behind(source: Path, tmp_path: Path, bluelm: Any) -> None:
    done = bluelm("export", source, "--out", tmp_path / "onnx", "--tolerance", "1e-12")
    assert done.code == 2
    assert "vision.onnx: image_features differs from torch" in done.err
    assert "decoder.onnx: logits differs from torch" in done.err
    assert "--tolerance" in done.err
    assert not any(tmp_path.iterdir())


Spoil = Callable[[Path], None]


def edit(folder: Path, file: str, change: Callable[[Any], object]) -> None:
    values = json.loads((folder / file).read_text())
    change(values)
    (folder / file).write_text(json.dumps(values))


def as_gpt2(folder: Path) -> None:
    text = AutoConfig.for_model("gpt2").to_dict()
    edit(folder, "config.json", lambda config: config.update(text_config={**text, "tie_word_embeddings": True}))


def wider_tiles(folder: Path) -> None:
    edit(folder, "processor_config.json", lambda values: values["image_processor"]["tiling"].update(tile_size=128))


@pytest.mark.parametrize(
    ("spoil", "flags", "words"),
    [
        (as_gpt2, (), ("model_type is 'gpt2'", "llama, mistral, qwen2")),
        (
            lambda folder: edit(folder, "config.json", lambda config: config.update(model_type="llava")),
            (),
            ("model type is 'llava'", "bluelm adopt"),
        ),
        (
            lambda folder: edit(folder, "config.json", lambda config: config["text_config"].update(hidden_act="relu")),
            ("--max-context", "4096"),
            ("2 problems", "hidden_act is 'relu'", "2048 positions"),
        ),
        (lambda folder: (folder / "config.json").write_text("{"), (), ("config.json is not JSON",)),
        (lambda folder: (folder / "tokenizer.json").unlink(), (), ("no tokenizer.json", "save_pretrained")),
        (lambda folder: (folder / "chat_template.jinja").unlink(), (), ("no chat_template.jinja",)),
        (lambda folder: (folder / "processor_config.json").unlink(), (), ("no picture processor",)),
        (lambda folder: (folder / "model.safetensors").unlink(), (), ("model.safetensors", "never pickles")),
        (wider_tiles, (), ("tiles of 128 pixels", "takes 24")),
        (
            lambda folder: edit(folder, "config.json", lambda config: config.update(image_token_id=299)),
            (),
            ("image token's id 299",),
        ),
        (lambda folder: None, ("--kv", "int8"), ("no scales for an INT8 KV cache", "bluelm quantize")),
        (lambda folder: None, ("--kv", "int4"), ("kv",)),
        (lambda folder: None, ("--activations", "int4"), ("activations",)),
        (lambda folder: None, ("--max-context", "9999"), ("2048 positions", "between 1 and 2048")),
        (lambda folder: None, ("--set", "bach=3"), ("Did you mean 'batch'?",)),
    ],
)
def test_what_cannot_be_exported_is_said_before_anything_is_written(
    spoil: Spoil, flags: tuple[str, ...], words: tuple[str, ...], checkpoint: Path, bluelm: Any
) -> None:
    spoil(checkpoint)
    out = checkpoint.with_name("onnx")
    done = bluelm("export", checkpoint, "--out", out, "--no-verify", *flags)
    assert done.code == 2, done.err
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err
    assert done.err.count("Why:") == done.err.count("Fix:") == done.err.count("Error:")
    assert not out.exists()


def test_another_kind_of_folder_names_the_right_command(source: Path, tmp_path: Path, bluelm: Any) -> None:
    out = result_of(run(ExportConfig(verify=False), source, tmp_path / "onnx")).out
    done = bluelm("export", out, "--out", tmp_path / "again")
    assert done.code == 2
    assert "is of kind onnx" in done.err
    assert "bluelm quantize" in done.err


def test_a_folder_to_write_is_needed(source: Path, bluelm: Any) -> None:
    done = bluelm("export", source)
    assert done.code == 2
    assert "--out is missing" in done.err


def test_guessed_scales_are_never_used(source: Path) -> None:
    with pytest.raises(UsageError) as caught:
        plan(ExportConfig(kv="int8"), source)
    assert "real prompts" in caught.value.why


def test_help_shows_an_example(bluelm: Any) -> None:
    done = bluelm("export", "--help")
    assert done.code == 0
    assert "Example: bluelm export" in done.out
