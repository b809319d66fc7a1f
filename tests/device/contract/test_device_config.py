"""device.json: written and read back; what does not fit is refused in three beats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from stages.artifacts.errors import ModelError
from stages.device.contract.device_config import (
    DecoderSpec,
    DevicePlan,
    EmbeddingSpec,
    PromptSpec,
    VisionSpec,
    read_device_config,
)
from stages.device.contract.tensor_ref import TensorRef
from stages.device.imaging.spec import TilingSpec


def ref(shape: tuple[int, ...], dtype: Any) -> TensorRef:
    return TensorRef(file="decoder.onnx.data", offset=4096, shape=shape, dtype=dtype)


PLAN = DevicePlan(
    name="x",
    vision=VisionSpec(
        tile_size=8,
        patch_size=4,
        patches_per_tile=4,
        tokens_per_tile=1,
        vision_width=8,
        image_mean=(0, 0, 0),
        image_std=(1, 1, 1),
    ),
    tiling=TilingSpec(tile_size=8, tokens_per_tile=1),
    decoder=DecoderSpec(
        num_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=8,
        hidden_size=40,
        vocab_size=10,
        max_context=16,
        kv_dtype="int8",
    ),
    prompt=PromptSpec(image_token="<image>", image_token_id=3, eos_token_ids=(2,)),
)
TABLES = {
    "float32": EmbeddingSpec(form="float32", values=ref((10, 40), "float32")),
    "float16": EmbeddingSpec(form="float16", values=ref((10, 40), "float16")),
    "int8": EmbeddingSpec(form="int8", values=ref((10, 64), "uint8"), scales=ref((10, 2), "float32"), block=32),
    "int4": EmbeddingSpec(form="int4", values=ref((10, 32), "uint8"), scales=ref((10, 2), "float32"), block=32),
}


@pytest.mark.parametrize("form", TABLES)
def test_what_is_written_is_read(form: str, tmp_path: Path) -> None:
    config = PLAN.written(TABLES[form])
    config.write(tmp_path)
    assert read_device_config(tmp_path) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"form": "int8"}, "an int8 table has uint8 values"),
        ({"block": 32}, "a float32 table has float32 values and no scales"),
        ({"form": "float16"}, "a float16 table has float16 values"),
        ({"values": ref((400,), "float32")}, "not rows of a table"),
        ({"form": "int4", "values": ref((10, 33), "uint8"), "scales": ref((10, 2), "float32"), "block": 32}, "not fit"),
        (
            {"form": "int4", "values": ref((10, 16), "uint8"), "scales": ref((10, 1), "float32"), "block": 33},
            "a block of 33 INT4 values does not fill whole bytes",
        ),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EmbeddingSpec(**{"form": "float32", "values": ref((10, 40), "float32"), **change})


def test_a_table_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"the embedding \[9, 40\] is no table \[10, 40\]"):
        PLAN.written(EmbeddingSpec(form="float32", values=ref((9, 40), "float32")))


def test_an_older_export_is_told_how_to_become_a_new_one(tmp_path: Path) -> None:
    PLAN.written(TABLES["int4"]).write(tmp_path)
    path = tmp_path / "device.json"
    old = json.loads(path.read_text())
    old["schema_version"] = 1
    del old["embedding"]
    path.write_text(json.dumps(old))
    with pytest.raises(ModelError, match="schema version 1, this bluelm reads 2") as caught:
        read_device_config(tmp_path)
    assert "bluelm export CHECKPOINT --out FOLDER --force" in caught.value.fix


@pytest.mark.parametrize(
    ("text", "message"), [("{", "Invalid JSON"), ("{}", "schema_version"), (None, "cannot be read")]
)
def test_a_file_that_is_none_is_named(text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "device.json").write_text(text)
    with pytest.raises(ModelError, match=message) as caught:
        read_device_config(tmp_path)
    assert caught.value.why and caught.value.fix
