"""A tiny exported model, written by hand with onnx.helper: no exporter, no torch, every weight known to the tests.

It is a real decoder (two GroupQueryAttention layers with rotary, one cache buffer) over a byte-level vocabulary, and a
vision tower of one matrix product a part, so that each claim can be computed a second time in numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array

from stages.device.contract import names
from stages.device.contract.device_config import DecoderSpec, DeviceConfig, EmbeddingSpec, PromptSpec, VisionSpec
from stages.device.contract.tensor_ref import TensorRef
from stages.device.imaging.spec import TilingSpec

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, LAYERS, CONTEXT = 32, 2, 1, 16, 2, 512
SIDE, PATCH, WIDTH, TOKENS = 16, 4, 24, 4
PATCHES = (SIDE // PATCH) ** 2
TABLE_FILE = "table.data"
MEAN, STD = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)
IMAGE, START, END = "<image>", "<|im_start|>", "<|im_end|>"


def write_tokenizer(folder: Path) -> int:
    """A byte-level tokenizer whose 256 first tokens are the bytes; returns the vocabulary's size."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in (START, END, IMAGE)])
    tokenizer.save(str(folder / names.TOKENIZER_FILE))
    return int(tokenizer.get_vocab_size())


def save(folder: Path, file: str, nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: dict[str, Any]):
    initializers = [from_array(np.ascontiguousarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, file.removesuffix(".onnx"), inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), folder / file)


def tensor(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def normal(rng: np.random.Generator, *shape: int, scale: float) -> np.ndarray:
    return (rng.normal(size=shape) * scale).astype(np.float32)


def write_vision(folder: Path, rng: np.random.Generator, batch: Any, pixels: str) -> None:
    kernel = normal(rng, WIDTH, 3, PATCH, PATCH, scale=0.2)
    weights = {"kernel": kernel, "flat": np.array([0, WIDTH, PATCHES])}
    nodes, values = [], names.PIXEL_VALUES
    if pixels == "uint8":
        values = "normalized"
        mean, std = (np.array(part, np.float32).reshape(3, 1, 1) for part in (MEAN, STD))
        weights |= {"factor": 1 / (255 * std), "shift": mean / std}
        nodes = [
            helper.make_node("Cast", [names.PIXEL_VALUES], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["floats", "factor"], ["scaled"]),
            helper.make_node("Sub", ["scaled", "shift"], [values]),
        ]
    nodes += [
        helper.make_node("Conv", [values, "kernel"], ["grid"], kernel_shape=[PATCH, PATCH], strides=[PATCH, PATCH]),
        helper.make_node("Reshape", ["grid", "flat"], ["channels"]),
        helper.make_node("Transpose", ["channels"], [names.PATCH_EMBEDS], perm=[0, 2, 1]),
    ]
    save(
        folder,
        names.PATCH_EMBED_FILE,
        nodes,
        [
            tensor(
                names.PIXEL_VALUES,
                [batch, 3, SIDE, SIDE],
                TensorProto.UINT8 if pixels == "uint8" else TensorProto.FLOAT,
            )
        ],
        [tensor(names.PATCH_EMBEDS, [batch, PATCHES, WIDTH])],
        weights,
    )
    nodes = [
        helper.make_node("MatMul", [names.PATCH_EMBEDS, "block"], ["mixed"]),
        helper.make_node("Tanh", ["mixed"], [names.VIT_FEATURES]),
        helper.make_node("Reshape", [names.VIT_FEATURES, "fold"], ["folded"]),
        helper.make_node("MatMul", ["folded", "connect"], [names.IMAGE_FEATURES]),
    ]
    save(
        folder,
        names.VISION_FILE,
        nodes,
        [tensor(names.PATCH_EMBEDS, [batch, PATCHES, WIDTH])],
        [
            tensor(names.IMAGE_FEATURES, [batch, TOKENS, HIDDEN]),
            tensor(names.VIT_FEATURES, [batch, PATCHES, WIDTH]),
        ],
        {
            "block": normal(rng, WIDTH, WIDTH, scale=0.3),
            "fold": np.array([0, TOKENS, -1]),
            "connect": normal(rng, WIDTH * PATCHES // TOKENS, HIDDEN, scale=0.1),
        },
    )


def write_embedding(folder: Path, table: np.ndarray) -> EmbeddingSpec:
    (folder / TABLE_FILE).write_bytes(table.tobytes())
    return EmbeddingSpec(
        form="float32", values=TensorRef(file=TABLE_FILE, offset=0, shape=table.shape, dtype="float32")
    )


def write_decoder(folder: Path, rng: np.random.Generator, vocab: int, kv: str, damage: float) -> None:
    kind = TensorProto.INT8 if kv == "int8" else TensorProto.FLOAT
    angles = np.arange(CONTEXT)[:, None] / 10000.0 ** (np.arange(HEAD_DIM // 2) / (HEAD_DIM // 2))
    weights: dict[str, Any] = {
        "cos": np.cos(angles).astype(np.float32),
        "sin": np.sin(angles).astype(np.float32),
        "one": np.array([1]),
        "last": np.array([-1]),
        "k_scale": np.array([0.05], np.float32),
        "v_scale": np.array([0.02], np.float32),
        "head": normal(rng, HIDDEN, vocab, scale=0.5) + np.float32(damage),
    }
    nodes = [
        helper.make_node("ReduceSum", [names.ATTENTION_MASK, "one"], ["sum"], keepdims=1),
        helper.make_node("Sub", ["sum", "one"], ["before_last"]),
        helper.make_node("Cast", ["before_last"], ["seqlens_k"], to=TensorProto.INT32),
        helper.make_node("Cast", ["sum"], ["total_2d"], to=TensorProto.INT32),
        helper.make_node("Squeeze", ["total_2d"], ["total"]),
    ]
    inputs = [
        tensor(names.INPUTS_EMBEDS, [1, "tokens", HIDDEN]),
        tensor(names.ATTENTION_MASK, [1, "total"], TensorProto.INT64),
    ]
    outputs = [tensor(names.LOGITS, [1, 1, vocab])]
    attributes: dict[str, Any] = {"num_heads": HEADS, "kv_num_heads": KV_HEADS, "do_rotary": 1}
    scales: list[str] = []
    if kv == "int8":
        attributes |= {"k_quant_type": "PER_TENSOR", "v_quant_type": "PER_TENSOR", "kv_cache_bit_width": 8}
        scales = ["", "", "", "k_scale", "v_scale"]
    hidden = names.INPUTS_EMBEDS
    for layer in range(LAYERS):
        for part, width in (("q", HEADS * HEAD_DIM), ("k", KV_HEADS * HEAD_DIM), ("v", KV_HEADS * HEAD_DIM)):
            weights[f"w{part}{layer}"] = normal(rng, HIDDEN, width, scale=0.2)
            nodes.append(helper.make_node("MatMul", [hidden, f"w{part}{layer}"], [f"{part}{layer}"]))
        weights[f"wo{layer}"] = normal(rng, HEADS * HEAD_DIM, HIDDEN, scale=0.3)
        cache = [names.past_key(layer), names.past_value(layer)]
        present = [names.present_key(layer), names.present_value(layer)]
        nodes += [
            helper.make_node(
                "GroupQueryAttention",
                [f"q{layer}", f"k{layer}", f"v{layer}", *cache, "seqlens_k", "total", "cos", "sin", *scales],
                [f"mixed{layer}", *present],
                domain="com.microsoft",
                **attributes,
            ),
            helper.make_node("MatMul", [f"mixed{layer}", f"wo{layer}"], [f"out{layer}"]),
            helper.make_node("Add", [hidden, f"out{layer}"], [f"h{layer}"]),
        ]
        shape = [1, KV_HEADS, "capacity", HEAD_DIM]
        inputs += [tensor(name, shape, kind) for name in cache]
        outputs += [tensor(name, shape, kind) for name in present]
        hidden = f"h{layer}"
    nodes += [
        helper.make_node("Gather", [hidden, "last"], ["tail"], axis=1),
        helper.make_node("MatMul", ["tail", "head"], [names.LOGITS]),
    ]
    save(folder, names.DECODER_FILE, nodes, inputs, outputs, weights)


def device_config(
    vocab: int, kv: str, batch: int | None, stop: int, embedding: EmbeddingSpec, pixels: str
) -> DeviceConfig:
    return DeviceConfig(
        name="handmade",
        vision=VisionSpec(
            tile_size=SIDE,
            patch_size=PATCH,
            patches_per_tile=PATCHES,
            tokens_per_tile=TOKENS,
            vision_width=WIDTH,
            image_mean=MEAN,
            image_std=STD,
            pixels=pixels,  # type: ignore[arg-type]
            max_batch=batch,
        ),
        tiling=TilingSpec(max_cols=3, max_rows=3, tile_size=SIDE, tokens_per_tile=TOKENS),
        decoder=DecoderSpec(
            num_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=KV_HEADS,
            head_dim=HEAD_DIM,
            hidden_size=HIDDEN,
            vocab_size=vocab,
            max_context=CONTEXT,
            kv_dtype=kv,  # type: ignore[arg-type]
        ),
        prompt=PromptSpec(image_token=IMAGE, image_token_id=stop + 1, eos_token_ids=(stop,)),
        embedding=embedding,
    )


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes an exported model: `make_model(kv="int8", batch=None, pixels="uint8")`; the same one is made once."""
    from stages.artifacts.folder import ArtifactSpec, create
    from stages.device.prompt.template import default_template

    made: dict[tuple[Any, ...], Path] = {}

    def make(
        kv: str = "float32", batch: int | None = None, seed: int = 0, damage: float = 0.0, pixels: str = "float32"
    ) -> Path:
        key = (kv, batch, seed, damage, pixels)
        if key not in made:
            rng = np.random.default_rng(seed)
            out = tmp_path_factory.mktemp("handmade") / "model"
            with create(out, ArtifactSpec("onnx", "export", {"kv": kv, "batch": batch}, seed)) as draft:
                vocab = write_tokenizer(draft.path)
                write_vision(draft.path, rng, batch or "tiles", pixels)
                embedding = write_embedding(draft.path, normal(rng, vocab, HIDDEN, scale=1.0))
                write_decoder(draft.path, rng, vocab, kv, damage)
                (draft.path / names.CHAT_TEMPLATE_FILE).write_text(default_template(), encoding="utf-8")
                device_config(vocab, kv, batch, 257, embedding, pixels).write(draft.path)
            made[key] = out
        return made[key]

    return make


@pytest.fixture(scope="session")
def handmade(make_model: Callable[..., Path]) -> Path:
    """The exported model with a float32 cache."""
    return make_model()
